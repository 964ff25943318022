"""A search of a folder finds all files, and reports what it is not allowed to see."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from jahp_pl.evaluation import EvaluationError
from jahp_pl.evaluation.image_set import find_originals
from jahp_pl.files.search import find_files
from tests.support.permissions import forbid


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Create a folder with a.png, b.PNG/, sub/c.PNG, sub/d.txt and .hidden/e.png."""
    for name in ("a.png", "sub/c.PNG", "sub/d.txt", ".hidden/e.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "b.PNG").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    return tmp_path


def test_files_are_found_by_suffix_in_all_folders_but_behind_no_link(tree: Path) -> None:
    found = find_files(tree, {".png"})
    assert [path.relative_to(tree).as_posix() for path in found.files] == [".hidden/e.png", "a.png", "sub/c.PNG"]
    assert found.unread == []


def test_a_folder_that_cannot_be_listed_is_reported(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forbid(monkeypatch, tree / "sub")
    found = find_files(tree, {".png"})
    assert [path.name for path in found.files] == ["e.png", "a.png"]
    assert [(error.filename, error.errno) for error in found.unread] == [(str(tree / "sub"), errno.EACCES)]
    with pytest.raises(EvaluationError, match=r"sub: cannot be used \(Permission denied\); allow access to it"):
        find_originals(tree)


def test_names_in_a_folder_that_can_be_listed_but_not_used_are_found(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_file = Path.is_file

    def forbidden(path: Path) -> bool:
        if path.parent == tree / "sub":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", forbidden)
    assert [path.name for path in find_files(tree, {".png"}).files] == ["e.png", "a.png", "c.PNG"]
