"""Reads the inputs and writes the outputs of commands: files or standard streams."""

from __future__ import annotations

import io
import select
import sys
from pathlib import Path
from typing import BinaryIO

from jahp_pl.cli import output
from jahp_pl.cli.errors import CommandError
from jahp_pl.cli.job_plan import STREAM
from jahp_pl.errors import add_path_to_errors

MAX_INPUT_BYTES = 2**32
"""Maximum size of an input, which is read into memory as a whole. No image within `images.io.MAX_IMAGE_PIXELS` is as
large, but a pipe may never end."""
_CHUNK_BYTES = 2**20


def read_source(source: Path) -> bytes:
    """Read a file, or standard input.

    Raises:
        CommandError: if it has more than `MAX_INPUT_BYTES`.
    """
    name = output.name_of(source)
    with add_path_to_errors(Path(name)):
        if source == STREAM:
            return _read_stream(sys.stdin.buffer, name)
        if source.stat().st_size > MAX_INPUT_BYTES:
            raise _too_large(name)
        return source.read_bytes()


def _read_stream(file: BinaryIO, name: str) -> bytes:
    """Read a stream of unknown size, also one that another program has made non-blocking."""
    content = io.BytesIO()
    while (part := file.read(_CHUNK_BYTES)) != b"":
        if part is None:  # nothing has arrived yet
            select.select([file], [], [])
            continue
        content.write(part)
        if content.tell() > MAX_INPUT_BYTES:
            raise _too_large(name)
    return content.getvalue()


def _too_large(name: str) -> CommandError:
    return CommandError(f"{name}: has more than the {MAX_INPUT_BYTES} bytes allowed for a file; give a smaller one")


def write_target(target: Path, data: bytes) -> None:
    """Write data to standard output, or to a file, completely or not at all.

    Raises:
        CommandError: if standard output is a terminal.
        WriteError: if the disk is full.
    """
    from jahp_pl.files.atomic import write_atomically

    if target != STREAM:
        write_atomically(target, data)
        return
    if sys.stdout.isatty():
        raise CommandError("standard output is a terminal; redirect it to a file, or name one with -o")
    with output.stream_errors():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
