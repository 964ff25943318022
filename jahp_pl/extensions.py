"""Imports the user's modules that register parts of models; see docs/extending.md."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from jahp_pl.config import ConfigError
from jahp_pl.files.atomic import resolved


def import_modules(modules: Sequence[str]) -> None:
    """Import modules, each once per process.

    Args:
        modules: dotted names, or paths of .py files, each imported as a module named after its stem.

    Raises:
        ConfigError: if one cannot be imported; `__cause__` is the exception of the import.
    """
    for module in modules:
        try:
            _import_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
        except ConfigError:
            raise
        except (Exception, SystemExit) as error:  # a script that calls sys.exit would end the command silently
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(
                f"imports={module}: cannot be imported ({reason}); correct the module or its name"
            ) from error


def _import_file(path: Path) -> None:
    """Import a file as a module named after its stem, unless it has been imported already."""
    path = resolved(os.path.expanduser(path))  # noqa: PTH111  keeps ~ of an unknown user
    present = sys.modules.get(path.stem)
    if present is not None:
        if resolved(getattr(present, "__file__", None) or "") != path:
            raise ConfigError(f"imports={path}: another module named {path.stem} is already imported; rename the file")
        return
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # pickle finds its classes there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
