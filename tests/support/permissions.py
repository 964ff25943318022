"""Takes permissions away, also from root, who has them all."""

from __future__ import annotations

import builtins
import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def forbid(monkeypatch: pytest.MonkeyPatch, forbidden: Path) -> None:
    """Let listing this folder or opening this file fail as without permission."""

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def guard(path: Any = ".", *args: Any, **options: Any) -> Any:
            if isinstance(path, str | Path) and Path(path) == forbidden:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *args, **options)

        return guard

    for module, name in ((os, "scandir"), (os, "listdir"), (io, "open"), (builtins, "open")):
        monkeypatch.setattr(module, name, guarded(getattr(module, name)))
