"""Folders are complete or absent, regardless of other writers and of when the writer is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from jahp_pl.errors import WriteError
from jahp_pl.files import folders
from jahp_pl.files.folders import new_folder, recover_if_missing, replace_folder
from jahp_pl.files.locks import in_use

OLD, NEW = {"a": b"old", "b": b"old"}, {"a": b"new"}
AT_STEP = """\
import os, pathlib, signal, sys
from jahp_pl.files import folders
if sys.argv[3] == "plain":
    folders._exchange = lambda a, b: False
count = 0
def die(event, _):
    global count
    if event in ("os.mkdir", "os.rename", "shutil.rmtree"):
        count += 1
        if count == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
folders.replace_folder(pathlib.Path(sys.argv[1]), {"a": b"new"})
"""


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("way", ["exchange", "plain"])
def test_a_folder_is_replaced_and_nothing_else_is_left(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "plain":
        monkeypatch.setattr(folders, "_exchange", lambda a, b: False)
    for contents in (OLD, NEW, OLD):
        replace_folder(tmp_path / "deeper" / "x", contents)
        assert content(tmp_path / "deeper" / "x") == contents
        assert [path.name for path in (tmp_path / "deeper").iterdir()] == ["x"]


@pytest.mark.skipif(sys.platform != "linux", reason="renameat2")
def test_two_names_are_exchanged_in_one_step(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(b"b")
    assert folders._exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").is_dir()
    with pytest.raises(FileNotFoundError):
        folders._exchange(tmp_path / "a", tmp_path / "none")


@pytest.mark.parametrize("way", ["exchange", "plain"])
def test_a_kill_at_any_step_leaves_the_old_folder_or_the_new_one(way: str, tmp_path: Path) -> None:
    """A reader then finds one of them, and the next writer cleans up."""
    folder, outcomes = tmp_path / "x", []
    for step in range(1, 10):
        replace_folder(folder, OLD)
        command = [sys.executable, "-c", AT_STEP, str(folder), str(step), way]
        outcomes.append(subprocess.run(command, check=False, timeout=60).returncode)
        recover_if_missing(folder)
        assert content(folder) in (OLD, NEW)
        if outcomes[-1] == 0:
            break
    assert outcomes[-1] == 0
    assert set(outcomes[:-1]) == {-signal.SIGKILL}
    replace_folder(folder, NEW)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_second_writer_is_refused_and_leaves_the_first_alone(tmp_path: Path) -> None:
    with new_folder(tmp_path / "x") as first:
        (first / "a").write_bytes(b"new")
        with pytest.raises(WriteError, match="x: another process is writing it"):
            replace_folder(tmp_path / "x", OLD)
        replace_folder(tmp_path / "y", OLD)  # clears leftovers, but not this folder
    assert content(tmp_path / "x") == NEW


def test_a_temporary_folder_that_another_process_removes_before_it_is_marked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[Path] = []

    def remove_first(folder: Path) -> AbstractContextManager[bool]:
        if not removed:
            removed.append(folder)
            folder.rmdir()
        return in_use(folder)

    monkeypatch.setattr(folders, "in_use", remove_first)
    replace_folder(tmp_path / "x", NEW)
    assert len(removed) == 1
    assert content(tmp_path / "x") == NEW
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_the_folder_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "x").symlink_to(tmp_path / "disk" / "x")
    for contents in (OLD, NEW):
        replace_folder(tmp_path / "links" / "x", contents)
        assert content(tmp_path / "disk" / "x") == contents
        assert (tmp_path / "links" / "x").is_symlink()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "disk", "links", "x", "x"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs a mount point")
def test_a_mount_point_is_refused_before_anything_is_done() -> None:
    with pytest.raises(WriteError, match=r"/proc: is a mount point, which cannot be replaced; name a folder inside"):
        replace_folder(Path("/proc"), NEW)


def test_hidden_folders_of_the_user_are_neither_removed_nor_taken_for_former_ones(tmp_path: Path) -> None:
    (tmp_path / ".x.backup.old").mkdir()
    recover_if_missing(tmp_path / "x")
    replace_folder(tmp_path / "x", NEW)
    replace_folder(tmp_path / "x", OLD)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.backup.old", "x"]


def test_errors_name_the_folder_and_not_its_temporary_name(tmp_path: Path) -> None:
    code = (
        "import pathlib, resource, sys\n"
        "from jahp_pl.files.folders import replace_folder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "replace_folder(pathlib.Path(sys.argv[1]), {'a': bytes(2000)})\n"
    )
    failed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True)
    assert f"WriteError: {tmp_path / 'x'}: cannot be written (File too large)" in failed.stderr
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(WriteError) as caught:
        replace_folder(tmp_path / "file" / "x", NEW)
    assert str(caught.value).startswith(f"{tmp_path / 'file' / 'x'}: cannot be written")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs PID namespaces")
def test_equal_process_numbers_write_different_names(tmp_path: Path) -> None:
    """Two containers can have equal process numbers: the first process of each is number 1."""
    code = (
        "import os, pathlib, sys\n"
        "from jahp_pl.files.atomic import atomic_writer\n"
        "with atomic_writer(pathlib.Path(sys.argv[1])) as file:\n"
        "    print(os.getpid(), flush=True)\n"
        "    sys.stdin.read()\n"
        "    file.write(sys.argv[2].encode())\n"
    )
    command = ["unshare", "-pf", sys.executable, "-c", code, str(tmp_path / "x")]
    if subprocess.run(["unshare", "-pf", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no rights to make PID namespaces")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    writers = [subprocess.Popen([*command, word], **pipes) for word in ("first", "second")]  # type: ignore[call-overload]
    assert [writer.stdout.readline() for writer in writers] == ["1\n", "1\n"]
    for writer, word in zip(writers, ("first", "second"), strict=True):
        writer.communicate()
        assert writer.returncode == 0
        assert (tmp_path / "x").read_text() == word
