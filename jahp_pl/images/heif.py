"""Lets Pillow read HEIC and HEIF with the package pillow-heif: `pip install 'jahp_pl[heif]'`.

The plugin is imported when a file needs it. JPEG XL is not read: Pillow's plugin for it decodes the whole image before
its size can be limited, and does not say whether the result is upright already.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable

_SUFFIXES = frozenset((".heic", ".heif", ".hif"))


def is_installed() -> bool:
    """Check whether pillow-heif can be imported, without importing it."""
    return importlib.util.find_spec("pillow_heif") is not None


def readable_suffixes() -> frozenset[str]:
    """Return the suffixes of HEIC and HEIF files; an empty set if the plugin is not installed."""
    return _SUFFIXES if is_installed() else frozenset()


def register() -> None:
    """Let Pillow read HEIC and HEIF in this process."""
    import pillow_heif

    pillow_heif.register_heif_opener()


def install_hint(suffixes: Iterable[str]) -> str:
    """Return ", or pip install ..." if that makes files with one of these suffixes readable, otherwise no text."""
    is_lacking = not is_installed() and any(suffix.lower() in _SUFFIXES for suffix in suffixes)
    return ", or pip install 'jahp_pl[heif]'" if is_lacking else ""
