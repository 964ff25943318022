"""Starts the command line.

This module imports little, so that interrupts are handled before anything that takes time is imported.
"""

from __future__ import annotations

from collections.abc import Sequence

from jahp_pl.cli.interrupts import interrupts_in_one_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit.

    The exit status is 0 on success, 2 for unusable input (with a one-line message), 130 after an interrupt, 128 + N if
    signal N stopped a training run that can continue, and 141 if the reader of the output has gone.

    Args:
        arguments: the command and its arguments; None for those of the process.
    """
    with interrupts_in_one_line(until_exit=arguments is None):
        from jahp_pl.cli.command_line import run

        run(arguments)
