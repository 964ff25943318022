"""Malicious photographs and archives, and killed commands, do not keep anything else from being packed."""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jahp_pl.data import tar
from jahp_pl.data.index import ShardIndex, Skipped
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shard_reader import Photo, ShardReader
from jahp_pl.data.shards import write_shards
from jahp_pl.data.sources import find_photos
from jahp_pl.data.tar import ArchiveError

PHOTO = sorted((Path(__file__).parents[2] / "data" / "photos" / "val").glob("*.jpg"))[0]


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(format=tarfile.GNU_FORMAT)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


GOOD = header("good.jpg", PHOTO.stat().st_size) + padded(PHOTO.read_bytes())
LONG_NAME = header("././@LongLink", 5, tarfile.GNUTYPE_LONGNAME) + padded(b"a.jpg")
PAX = b"30 size=99999999999999999999\n"
TARS = {
    "a huge size": GOOD + header("big.jpg", 2**40) + padded(b"abc") + bytes(1024),
    "chained long names": GOOD + LONG_NAME * 1500 + bytes(1024),
    "a huge long name": GOOD + header("@", 2**40, tarfile.GNUTYPE_LONGNAME) + padded(b"a.jpg") + bytes(1024),
    "a huge pax size": GOOD + header("pax", len(PAX), tarfile.XHDTYPE) + padded(PAX) + header("x.jpg", 3) + bytes(1536),
    "a sparse file": GOOD + header("sparse.jpg", 512, tarfile.GNUTYPE_SPARSE) + bytes(1536),
}


@pytest.mark.parametrize("archive", TARS)
def test_a_hostile_archive_gives_what_comes_before_and_is_counted(archive: str, tmp_path: Path) -> None:
    (tmp_path / "hostile.tar").write_bytes(TARS[archive])
    report = write_shards([tmp_path / "hostile.tar"], tmp_path / "out", ShardOptions(min_side=16), workers=1)
    assert report.num_samples == 1
    assert {skipped.reason for skipped in report.skipped} == {"broken"}
    photo, *rest = ShardReader().read([str(tmp_path / "hostile.tar")])
    assert isinstance(photo, Photo)
    assert [type(item) for item in rest] == [Skipped]
    assert "recursion" not in f"{report.skipped}{rest}"


def test_special_files_names_that_are_not_utf8_and_too_many_pixels_are_skipped(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    shutil.copy(PHOTO, folder / "good.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"no image")
    Image.fromarray(np.zeros((2000, 3000), np.uint8)).save(folder / "vast.png")
    report = write_shards([folder], tmp_path / "out", ShardOptions(min_side=16, max_pixels=5 * 10**6), workers=2)
    assert report.num_samples == 1
    reasons = {skipped.name: skipped.reason for skipped in ShardIndex.load(tmp_path / "out").skipped}
    assert reasons == {"pipe.jpg": "broken", "caf\\xe9.jpg": "broken", "vast.png": "large"}


def test_a_file_without_an_end_that_is_no_photograph_ends_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar, "MAX_SHARD_BYTES", 2**20)
    head = GOOD + header("a.txt", 2**60)

    class Endless(io.RawIOBase):
        count = 0

        def read(self, size: int = -1) -> bytes:
            self.count += size
            assert self.count < 2**21
            return head[self.count - size : self.count].ljust(size, b"\0")

    members = tar.stream_members(Endless())  # type: ignore[arg-type]
    assert next(members).name == "good.jpg"
    with pytest.raises(ArchiveError, match=r"exceeds 1048576 bytes at a\.txt"):
        next(members)


def test_an_unreadable_folder_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos" / "secret").mkdir(parents=True)
    shutil.copy(PHOTO, tmp_path / "photos" / "good.jpg")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if "secret" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = find_photos([tmp_path / "photos"])
    assert [photo.name for photo in found.photos] == ["good.jpg"]
    assert found.skipped == [("secret", "broken", "the folder cannot be read (Permission denied)")]


def processes_of(session: int) -> int:
    listed = subprocess.run(["ps", "-o", "stat=", "-s", str(session)], capture_output=True, text=True, check=False)
    return sum(not state.startswith("Z") for state in listed.stdout.split())


@pytest.mark.skipif(shutil.which("ps") is None, reason="needs ps")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_workers_end_with_a_killed_command_and_the_next_one_clears_up(number: signal.Signals, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for copy in range(60):
        shutil.copy(PHOTO, photos / f"{copy}.jpg")
    command = [
        sys.executable,
        "-m",
        "jahp_pl",
        "shards",
        str(photos),
        "--out",
        str(tmp_path / "out"),
        "--min-side",
        "16",
    ]
    process = subprocess.Popen(
        command,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # as from a terminal, even under nohup
    )
    try:
        end = time.monotonic() + 60
        while not list(tmp_path.glob(".jahp-*.part/*.tar")):
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(number)
        assert process.wait(30) == (-number if number == signal.SIGKILL else 128 + number)
        while processes_of(process.pid):
            assert time.monotonic() < end
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            process.kill()
    assert bool(list(tmp_path.glob(".jahp-*.part"))) == (number == signal.SIGKILL)
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos"]


def test_nothing_is_imported_while_the_folder_is_incomplete(tmp_path: Path) -> None:
    """An interrupt during an import ends the process at once, because libraries would swallow an exception."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if list(Path(sys.argv[2]).parent.glob('.jahp-*.part')): print(name)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from jahp_pl.data.shards import write_shards\n"
        "write_shards([sys.argv[1]], sys.argv[2], workers=1)\n"
    )
    Image.open(PHOTO).resize((300, 280)).save(tmp_path / "photo.png")  # is stored as WebP
    command = [sys.executable, "-c", script, str(tmp_path / "photo.png"), str(tmp_path / "out")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
