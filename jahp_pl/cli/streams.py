"""Reads the inputs and writes the outputs of commands: files or standard streams."""

from __future__ import annotations

import sys
from pathlib import Path

from jahp_pl.cli import output
from jahp_pl.cli.errors import CommandError
from jahp_pl.cli.job_plan import STREAM
from jahp_pl.errors import named_in_errors


def read_source(source: Path) -> bytes:
    """Read a file, or standard input."""
    with named_in_errors(Path(output.name_of(source))):
        return sys.stdin.buffer.read() if source == STREAM else source.read_bytes()


def write_target(target: Path, data: bytes) -> None:
    """Write data to standard output, or to a file, completely or not at all.

    Raises:
        CommandError: if standard output is a terminal.
        WriteError: if the disk is full.
    """
    from jahp_pl.files import write_atomically

    if target != STREAM:
        write_atomically(target, data)
        return
    if sys.stdout.isatty():
        raise CommandError("standard output is a terminal; redirect it to a file, or name one with -o")
    with output.stream_errors():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
