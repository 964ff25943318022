"""Reads damaged inputs of every kind in a process with limits of time and memory, and reports each outcome."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
import traceback
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from checks.fuzz.input_kinds import INPUT_KINDS, Files, input_case
from checks.fuzz.worker import serve
from jahp_pl.errors import JahpError

MAX_MESSAGE = 1000
"""Maximum length of a message."""
FOREIGN_WORDS = re.compile(
    r"object has no attribute|subscriptable|unsupported operand|NoneType|recursion|Traceback|invalid literal|"
    r"could not convert|positional argument|unexpected keyword|argument must be|not iterable|unhashable|<class|"
    r"cannot unpack|not supported between|object of type|out of range for|is not in list|\bself\b|Error\("
)
"""Words of Python's own messages, which say nothing to a user."""
WARM_UP = 40
"""Cases read before memory is measured, so that all libraries are loaded."""


def work(connection: Connection, seed: int, names: tuple[str, ...] = tuple(INPUT_KINDS)) -> None:
    """Answer case numbers with outcomes until None arrives."""
    torch.set_num_threads(1)

    def try_case(number: int) -> tuple[str, str]:
        return read_case(*input_case(seed, number, names))

    for number in range(WARM_UP):
        try_case(number)
    serve(connection, try_case)


def read_case(kind: str, files: Files) -> tuple[str, str]:
    """Read the files of a case in a folder of their own, and return `result` and `detail` of its outcome."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        INPUT_KINDS[kind].read(folder)
    except JahpError as error:
        message = str(error)
        if "\n" in message or len(message) > MAX_MESSAGE or FOREIGN_WORDS.search(message):
            return "failed", f"{type(error).__name__} with an unfit message: {message}"
        return "refused", f"{kind}: {re.sub(r'[0-9a-f]{8,}|-?[0-9]+', '#', message.replace(str(folder), ''))[:80]}"
    except BaseException:  # noqa: BLE001  any other exception is a failure
        return "failed", traceback.format_exc()
    finally:
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
    return "decoded", ""
