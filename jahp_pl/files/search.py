"""Searches folders for files, without missing what it is not allowed to see."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple


class FoundFiles(NamedTuple):
    """Result of a search below a folder."""

    files: list[Path]
    """Sorted. Files that nothing but their names is known of are among them; reading one raises the error."""
    unread: list[OSError]
    """One error for each folder that cannot be listed, with its path as `filename`."""


def find_files(folder: Path, suffixes: Collection[str]) -> FoundFiles:
    """Find the regular files below a folder that have one of these suffixes, given in lower case."""
    unread: list[OSError] = []
    paths = (Path(parent, name) for parent, _, names in os.walk(folder, onerror=unread.append) for name in names)
    files = sorted(path for path in paths if path.suffix.lower() in suffixes and _may_be_regular(path))
    return FoundFiles(files, unread)


def _may_be_regular(path: Path) -> bool:
    """Check whether a path is a regular file, or in a folder whose names can be listed but not used."""
    try:
        return path.is_file()
    except PermissionError:
        return True
