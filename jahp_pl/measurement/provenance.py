"""Records the origin of results: versions, machine and command, but no host name, user name or absolute path."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

PACKAGES = ("jahp_pl", "torch", "numpy", "pillow", "constriction", "onnxruntime", "torchmetrics")
"""Packages whose versions can affect results."""


def provenance(command: Sequence[str] = ()) -> dict[str, Any]:
    """Collect the date, versions, machine and, if its words are given, the command line."""
    facts: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "versions": versions(), "machine": machine()}
    return facts | ({"command": command_line(command)} if command else {})


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages among `PACKAGES`."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):  # if run without being installed
            found[name] = importlib.metadata.version(name)
    return found


def machine() -> dict[str, Any]:
    """Return the processor's model and number of cores, the operating system and the architecture."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.system(),
        "architecture": platform.machine(),
    }


def command_line(words: Sequence[str]) -> str:
    """Format a command line, with absolute paths made relative to the working directory or reduced to their last
    part."""
    return shlex.join("=".join(_without_folders(part) for part in word.split("=")) for word in words)


def _without_folders(word: str) -> str:
    """Make an absolute path relative, or reduce it to its last part."""
    path = Path(word)
    if not path.is_absolute():
        return word
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def _cpu_model() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip().lower() in ("model name", "cpu model"):
                return value.strip()
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return platform.processor() or "unknown"
