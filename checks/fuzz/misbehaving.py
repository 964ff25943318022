"""Defines a worker that hangs, dies, ends or works properly, for the test of the pool."""

from __future__ import annotations

import os
import sys
import time
from multiprocessing.connection import Connection

from checks.fuzz.outcome import Outcome, Ready


def work(connection: Connection, seed: int) -> None:
    """Answer even case numbers, and misbehave on odd ones."""
    connection.send(Ready())
    while (number := connection.recv()) is not None:
        if number == 1:
            time.sleep(60)
        elif number == 3:
            os._exit(9)
        elif number == 5:
            sys.exit("no answer")
        connection.send(Outcome(number, "refused", "", 0.0, 0.0, 0))
