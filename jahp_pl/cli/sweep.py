"""`jahp sweep`: trains every run of a sweep. Heavy imports happen inside the functions."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any

from jahp_pl.cli import output
from jahp_pl.cli.errors import CommandError
from jahp_pl.cli.options import command, local_path, positive


def sweep(arguments: argparse.Namespace) -> None:
    """Train every run of a sweep file on this machine."""
    from jahp_pl.sweeping.entries import best_entry
    from jahp_pl.sweeping.file import read_sweep
    from jahp_pl.sweeping.sweep import Sweep, run_sweep
    from jahp_pl.sweeping.table import LiveTable, format_sweep_table

    file = read_sweep(arguments.file)
    prepared = Sweep(file, arguments.settings)
    if arguments.list:
        if file.method == "bayes":  # with other methods, the file determines all runs
            prepared.restore()
        for entry in prepared.entries:
            output.say(shlex.join(["jahp", "train", *entry.run.arguments]))
        return
    if file.has_early_terminate:
        output.say("early_terminate is only supported by W&B's server; here every run goes on to its end")
    table = LiveTable(file, prepared.entries, sys.stderr)
    try:
        run_sweep(prepared, arguments.workers, table)
    finally:
        table.close()
    entries = prepared.entries
    output.say("\n".join(format_sweep_table(file, entries)))
    if file.metric is not None and file.method != "grid" and (winner := best_entry(entries, file.metric)) is not None:
        output.say(f"\nbest     {winner.run.name}: {file.metric.name} {winner.score(file.metric):.5g}")
    output.say(f"\nruns     {prepared.results.parent}/\nresults  {prepared.results} and .csv")
    if failed := [entry for entry in entries if entry.state == "failed"]:
        for entry in failed:
            output.say(f"  {entry.run.name}: {entry.error}", file=sys.stderr)
        raise CommandError(
            f"sweep: {len(failed)} of {len(entries)} runs failed, see above; the same command tries them again"
        )


def add_sweep(subparsers: Any) -> None:
    """Add the command `sweep`."""
    p = command(subparsers, "sweep", sweep, "train every run of a W&B sweep file here, without a server", """\
        jahp sweep sweeps/ladder.yaml --list
        jahp sweep sweeps/lambda.yaml --workers 4 'data.train=[shards/mine]' trainer.max_steps=100000
        jahp sweep sweeps/mixture.yaml configs/overlays/anneal.yaml output_dir=runs/mixture-short""")  # fmt: skip
    p.add_argument("file", type=local_path, metavar="FILE.yaml", help="sweep file, as for `wandb sweep`")
    p.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help="settings for every run")
    p.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="runs to train at a time; they share the GPUs [1]"
    )
    p.add_argument("--list", action="store_true", help="print the command of each run that is known so far, then exit")
