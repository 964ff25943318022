"""Errors that the command line reports in one line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jahp_pl.errors import JahpError


class CommandError(JahpError, ValueError):
    """Error of a command: its arguments cannot be used, or some of its files failed. The message is one line."""


INPUT_ERRORS = (JahpError, OSError)
"""Errors about user input, of which only the message is shown; any other error is a bug and keeps its traceback."""


@contextmanager
def errors_from_rank_zero() -> Iterator[None]:
    """Let only rank 0 report errors that every rank hits; the other ranks exit silently.

    They exit with status 0, because a launcher kills all processes as soon as one fails, perhaps before rank 0 has
    reported the reason.
    """
    from jahp_pl.config import ConfigError
    from jahp_pl.model_io.checkpoint import CheckpointError
    from jahp_pl.model_io.export_config import ExportError
    from jahp_pl.training import TrainingError, is_first_rank

    try:
        yield
    except (CheckpointError, ConfigError, ExportError, TrainingError):
        if is_first_rank():
            raise
        sys.exit(0)
