# ruff: noqa: T201
"""Kills a training run repeatedly with SIGKILL, resumes it each time, and compares the result with uninterrupted runs.

    python -m checks.chaos.run --kills 20 --output results/chaos.json

Every session is a separate process that calls `train`. It is killed at a random moment while it starts, trains,
validates or writes a checkpoint. The exit status is 1 if an invariant is violated.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from checks.chaos.checks import faults_of_finished, final_loss, judge, read_state
from checks.chaos.sessions import MOMENTS, EndedError, SessionError, run_and_kill, run_to_its_end
from jahp_pl.config import Config
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shards import write_shards
from jahp_pl.files.atomic import write_json
from jahp_pl.measurement.provenance import provenance
from jahp_pl.settings import load_config

ROOT = Path(__file__).parents[2]
SETTINGS = (
    *("model.num_filters=8", "model.num_latents=12", "data.crop_size=64", "data.batch_size=4", "data.num_workers=1"),
    *("optim.initialization=klt", "optim.learning_rate=1e-3", "optim.schedule=cosine", "optim.ema_decay=0.95"),
    *("trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.log_every_steps=1", "coding.max_images=1"),
    "coding.max_pictures=0",
)
"""A small model on small photographs, because the test is only about what a run writes and reads."""


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description="Kill a training run repeatedly, and compare its result with undisturbed runs."
    )
    parser.add_argument("--kills", type=int, default=20, help="number of kills [20]")
    parser.add_argument("--others", type=int, default=3, help="undisturbed runs with other seeds [3]")
    parser.add_argument("--steps", type=int, default=200, help="steps of each run [200]")
    parser.add_argument("--val-every", type=int, default=10, metavar="STEPS", help="steps between validations [10]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the kills [0]")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "chaos", help="folder of the runs [build/chaos]")
    parser.add_argument("-o", "--output", type=Path, help="JSON with the result")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the session ends its process
    shutil.rmtree(options.work, ignore_errors=True)
    report = chaos(options.work, options.kills, options.others, options.steps, options.val_every, options.seed)
    report = provenance(["python", "-m", "checks.chaos.run", *sys.argv[1:]]) | report
    if options.output is not None:
        write_json(options.output, report)
    print(json.dumps({key: report[key] for key in ("moments", "leftovers", "final", "failures")}, indent=1))
    if report["failures"]:
        sys.exit(f"{len(report['failures'])} invariants are violated")
    if not report["final"]["inside"]:
        sys.exit("the final validation loss of the killed run is outside the interval of the other runs")


def chaos(
    work: Path, kills: int, others: int, steps: int, val_every: int, seed: int, *, quiet: bool = False
) -> dict[str, Any]:
    """Kill and resume one run, run others without kills, and compare their results.

    Args:
        work: new folder for shards and runs.
        kills: number of kills.
        others: number of runs with other seeds, at least two.
        steps: optimizer steps of each run.
        val_every: steps between two validations, a divisor of `steps`.
        seed: seed of the moments of the kills.
        quiet: print no progress.
    """
    start = time.monotonic()

    def say(line: str) -> None:
        if not quiet:
            print(f"{time.monotonic() - start:6.0f} s  {line}", flush=True)

    def config(name: str, run_seed: int) -> Config:
        where = (f"output_dir={work / 'runs'}", f"data.train=[{work / 'train'}]", f"data.val=[{work / 'val'}]")
        length = (f"trainer.max_steps={steps}", f"trainer.val_every_steps={val_every}")
        return load_config(*SETTINGS, *where, *length, f"name={name}", f"seed={run_seed}")

    write_photographs(work)
    killed = config("killed", 1)
    undisturbed = [config(f"alone-{number}", 2 + number) for number in range(others)]
    sessions, failures = kill_repeatedly(killed, kills, random.Random(seed), say)
    failures += finish([killed, *undisturbed], say)
    final = {} if failures else judge(final_loss(killed), [final_loss(one) for one in undisturbed])
    return {
        "kills": len(sessions),
        "steps": steps,
        "val_every_steps": val_every,
        "seed": seed,
        "settings": list(SETTINGS),
        "seconds": round(time.monotonic() - start),
        "moments": dict(Counter(session["moment"] for session in sessions)),
        "killed_while_validating": sum(session["validation_due"] for session in sessions),
        "leftovers": {
            "largest": max((session["num_leftovers"] for session in sessions), default=0),
            "after_kills": sum(session["num_leftovers"] > 0 for session in sessions),
        },
        "final": final,
        "failures": failures,
        "sessions": sessions,
    }


def write_photographs(work: Path) -> None:
    """Write the shards for training and validation to `train` and `val` in a folder."""
    for part, count in (("train", 6), ("val", 3)):
        photos = sorted((ROOT / "data" / "photos" / part).glob("*.jpg"))[:count]
        write_shards([str(path) for path in photos], work / part, ShardOptions(min_side=64, max_side=192))


def kill_repeatedly(
    config: Config, kills: int, rng: random.Random, say: Callable[[str], None]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Resume and kill a run repeatedly, at all kinds of moments in random order and at steps over the whole run.

    Args:
        config: settings of the run.
        kills: number of kills.
        rng: random generator for the moments and steps.
        say: called with a line about each kill.

    Returns:
        The state of the run after each kill, and descriptions of the failures.
    """
    steps = config.trainer.max_steps
    sessions: list[dict[str, Any]] = []
    failures: list[str] = []
    moments = [MOMENTS[number % len(MOMENTS)] for number in range(kills)]
    rng.shuffle(moments)
    for number, moment in enumerate(moments):
        before = read_state(config).step
        aim = max(before + 1, round(steps * (number + rng.random()) / (kills + 1)))
        try:
            seconds = run_and_kill(config, min(aim, steps - 1), moment, rng)
        except EndedError:
            break
        except SessionError as error:
            failures.append(f"session {number + 1}: {error}")
            break
        state = read_state(config)
        failures += [f"after kill {number + 1}: {complaint}" for complaint in state.unreadable]
        if state.step < before:
            failures.append(f"after kill {number + 1}: back at step {state.step} from {before}")
        sessions.append({"moment": moment, "seconds": round(seconds, 2)} | state._asdict())
        say(f"kill {number + 1:3} of {kills}: {moment:10} last.ckpt at step {state.step}, {len(failures)} failures")
    return sessions, failures


def finish(configs: Sequence[Config], say: Callable[[str], None]) -> list[str]:
    """Run each run to its end, and return descriptions of the failures."""
    failures: list[str] = []
    for config in configs:
        try:
            run_to_its_end(config)
            failures += [f"{config.name}: {fault}" for fault in faults_of_finished(config)]
        except SessionError as error:
            failures.append(f"{config.name}: {error}")
        say(f"{config.name} at its end, {len(failures)} failures")
    return failures


if __name__ == "__main__":
    main()
