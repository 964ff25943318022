"""Files are complete or absent, and errors state the remedy."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jahp_pl.errors import WriteError
from jahp_pl.files.atomic import atomic_writer, clear_leftovers, link_atomically, write_atomically
from jahp_pl.files.locks import try_lock


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x"
    for content in (b"one", b"three"):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert names(path.parent) == ["x"]


def test_a_linked_file_does_not_follow_its_source(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_atomically(first, b"old")
    link_atomically(first, second)
    write_atomically(first, b"new")
    assert second.read_bytes() == b"old"
    assert names(tmp_path) == ["first", "second"]


def test_a_second_name_of_the_same_file_leaves_nothing_else(tmp_path: Path) -> None:
    write_atomically(tmp_path / "first", b"one")
    for _ in range(2):
        link_atomically(tmp_path / "first", tmp_path / "second")
    assert names(tmp_path) == ["first", "second"]


def test_only_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from jahp_pl.files.atomic import atomic_writer\n"
        "with atomic_writer(pathlib.Path(sys.argv[1])) as file:\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "deeper" / "x.ckpt")], check=False, timeout=60)
    kept = ("x.part", ".hidden.part", ".x.12", "x.12.part", ".x.12.partial", ".jahp-12.part")
    for name in kept:
        (tmp_path / name).touch()
    assert len(names(tmp_path / "deeper")) == 1
    assert clear_leftovers(tmp_path) == 0
    with atomic_writer(tmp_path / "deeper" / "y"):
        assert clear_leftovers(tmp_path / "deeper") == 1  # not written by this process
    (tmp_path / "deeper" / "y").unlink()
    (tmp_path / "deeper" / ".x.12.part").touch()
    assert clear_leftovers(tmp_path, alone=True) == 1
    assert names(tmp_path / "deeper") == []
    assert names(tmp_path) == sorted([*kept, "deeper"])


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_a_leftover_is_locked_while_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is only just creating the file then notices that it is about to lose it."""
    leftover, unlink, was_free = tmp_path / f".jahp-{16 * '0'}.part", Path.unlink, []

    def unlink_locked(path: Path) -> None:
        with path.open("rb") as file:
            was_free.append(try_lock(file.fileno()))
        unlink(path)

    leftover.touch()
    monkeypatch.setattr(Path, "unlink", unlink_locked)
    assert clear_leftovers(tmp_path) == 1
    assert was_free == [False]
    assert names(tmp_path) == []


def test_a_limit_on_the_size_of_files_leaves_the_old_one_and_asks_for_space(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    code = (
        "import resource, sys, pathlib\n"
        "from jahp_pl.errors import WriteError\n"
        "from jahp_pl.files.atomic import write_atomically\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_atomically(pathlib.Path(sys.argv[1]), bytes(5000))\n"
        "except WriteError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x"], capture_output=True, text=True, check=True)
    remedy = "the previous content is kept. Free some space or choose another place"
    assert done.stdout.strip() == f"{tmp_path / 'x'}: cannot be written (File too large); {remedy}"
    assert (tmp_path / "x").read_bytes() == b"old"
    assert names(tmp_path) == ["x"]


def test_the_message_asks_to_move_what_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    for path in (tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(WriteError, match=r"Move the file or folder of that name away or choose another place$"):
            write_atomically(path, b"new")
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize(
    ("number", "remedy"),
    [(errno.ENOSPC, "Free some space"), (errno.EROFS, "Allow writing there"), (errno.EIO, "Check the disk")],
)
def test_the_remedy_fits_the_error(number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WriteError, match=rf"\({os.strerror(number)}\).* {remedy} or choose another place"):
        write_atomically(tmp_path / "x", b"new")
    assert names(tmp_path) == []


def test_a_pipe_or_a_device_is_never_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path / "link"):
        with pytest.raises(WriteError, match="is not a regular file"):
            write_atomically(path, b"data")
    assert (tmp_path / "pipe").is_fifo()
    assert names(tmp_path) == ["link", "pipe"]
