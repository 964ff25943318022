"""Starts the command line.

This module and the packages around it import next to nothing, because Python shows a traceback for an interrupt before
`main` is called.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # type checkers take it for that of typing, which takes time to import
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit.

    The exit status is 0 on success, 2 for unusable input (with a one-line message), 130 after an interrupt, 128 + N if
    signal N stopped a training run that can continue, and 141 if the reader of the output has gone.

    Args:
        arguments: the command and its arguments; None for those of the process.
    """
    try:
        from jahp_pl.cli.interrupts import interrupts_in_one_line
    except KeyboardInterrupt:
        os.write(2, b"jahp: interrupted\n")
        sys.exit(130)
    with interrupts_in_one_line(until_exit=arguments is None):
        from jahp_pl.cli.command_line import run

        run(arguments)
