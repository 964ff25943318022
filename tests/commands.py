"""The command line from within a test."""

from __future__ import annotations

from jahp_pl.cli import main


def run(*arguments) -> int:
    """Exit status of a command."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0
