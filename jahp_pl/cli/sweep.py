"""`jahp sweep`. Heavy imports happen inside."""

from __future__ import annotations

import argparse
import shlex
import sys

from jahp_pl.cli import shared
from jahp_pl.cli.shared import CommandError


def sweep(arguments: argparse.Namespace) -> None:
    """Run all points of a sweep file on this machine."""
    from jahp_pl.sweeping.file import read_sweep
    from jahp_pl.sweeping.run import Sweep, run_sweep
    from jahp_pl.sweeping.table import LiveTable, format_sweep_table
    from jahp_pl.sweeping.trials import best, score

    file = read_sweep(arguments.file)
    prepared = Sweep(file, arguments.settings)
    if arguments.list:
        if file.method == "bayes":  # the points of other methods follow from the file
            prepared.recall()
        for entry in prepared.entries:
            shared.say(shlex.join(["jahp", "train", *entry.point.arguments]))
        return
    if file.has_early_terminate:
        shared.say("early_terminate is only supported by W&B's server; here every point runs to its end")
    table = LiveTable(file, prepared.entries, sys.stderr)
    try:
        run_sweep(prepared, arguments.workers, table)
    finally:
        table.close()
    entries = prepared.entries
    shared.say("\n".join(format_sweep_table(file, entries)))
    if file.method != "grid" and (winner := best(entries, file)) is not None:
        shared.say(f"\nbest     {winner.point.name}: {file.metric} {score(winner, file):.5g}")
    shared.say(f"\nruns     {prepared.results.parent}/\nresults  {prepared.results} and .csv")
    if failed := [entry for entry in entries if entry.state == "failed"]:
        for entry in failed:
            shared.say(f"  {entry.point.name}: {entry.error}", file=sys.stderr)
        raise CommandError(
            f"sweep: {len(failed)} of {len(entries)} points failed, see above; the same command tries them again"
        )
