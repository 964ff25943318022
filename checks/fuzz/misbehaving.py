"""A worker that hangs, dies, exits or works, for the test of the pool."""

from __future__ import annotations

import os
import sys
import time
from multiprocessing.connection import Connection

from checks.fuzz.outcome import Outcome, Ready


def work(connection: Connection, seed: int) -> None:
    """Answer cases, but hang on number 1, die on 3 and exit on 5."""
    connection.send(Ready(()))
    while (number := connection.recv()) is not None:
        if number == 1:
            time.sleep(60)
        elif number == 3:
            os._exit(9)
        elif number == 5:
            sys.exit("no answer")
        connection.send(Outcome(number, "refused", "", 0.0, 0.0, 0))
