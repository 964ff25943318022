# ruff: noqa: T201
"""Reads many damaged files; each must be read or refused in one line, within limits of time and memory.

    python -m checks.fuzz.run --cases 100000 --output results/fuzz.json
    python -m checks.fuzz.run --target inputs --cases 20000 --output results/fuzz-inputs.json
    python -m checks.fuzz.run --first 4711 --cases 1        # repeats one case

Outcomes are stored for every thousand cases, and reused until something changes on which they depend. The exit status
is 1 if a case failed; its files are then in the folder of failures.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import platform
import shlex
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from checks.fuzz.mutate import SMALL_PIXELS
from checks.fuzz.outcome import Outcome
from checks.fuzz.pool import TIME_LIMIT, Pool
from checks.fuzz.targets import ROOT, TARGETS
from checks.fuzz.worker import CPU_LIMIT, MEMORY_LIMIT
from jahp_pl.files.atomic import write_atomically, write_json

CASES_PER_CHUNK = 1000
"""Number of cases whose outcomes are stored together."""


@dataclasses.dataclass
class OutcomeCounts:
    """Counts of outcomes."""

    cases: int = 0
    by_strategy: dict[str, Counter[str]] = dataclasses.field(default_factory=dict)
    """Numbers of decoded, refused and failed cases, by strategy."""
    refusals: Counter[str] = dataclasses.field(default_factory=Counter)
    """Number of refused cases, by reason without its numbers."""
    slowest: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Case that took the most processor time."""
    largest: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Case that took the most memory."""
    failures: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    def add(self, outcome: Outcome, subject: str, strategy: str) -> None:
        """Count one case."""
        self.cases += 1
        self.by_strategy.setdefault(strategy, Counter())[outcome.result] += 1
        short = {"number": outcome.number, "subject": subject, "strategy": strategy}
        if outcome.result == "refused":
            self.refusals[outcome.detail] += 1
        elif outcome.result == "failed":
            self.failures.append(short | outcome._asdict())
        if outcome.cpu_seconds > self.slowest.get("cpu_seconds", -1):
            self.slowest = short | {"cpu_seconds": outcome.cpu_seconds, "seconds": outcome.seconds}
        if outcome.memory > self.largest.get("bytes", -1):
            self.largest = short | {"bytes": outcome.memory}

    def merge(self, other: OutcomeCounts) -> None:
        """Add the counts of other cases."""
        self.cases += other.cases
        for strategy, counts in other.by_strategy.items():
            self.by_strategy.setdefault(strategy, Counter()).update(counts)
        self.refusals.update(other.refusals)
        self.slowest = max(self.slowest, other.slowest, key=lambda one: one.get("cpu_seconds", -1))
        self.largest = max(self.largest, other.largest, key=lambda one: one.get("bytes", -1))
        self.failures += other.failures


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description="Read damaged files.")
    parser.add_argument(
        "--target", choices=TARGETS, default="files", help=".jahp files, or the other kinds of input [files]"
    )
    parser.add_argument("--cases", type=int, default=100_000, help="number of cases [100000]")
    parser.add_argument("--first", type=int, default=0, help="number of the first case [0]")
    parser.add_argument("--seed", type=int, default=0, help="seed of all cases [0]")
    parser.add_argument("--workers", type=int, default=2, help="processes [2]")
    parser.add_argument("-o", "--output", type=Path, help="JSON with the result")
    parser.add_argument(
        "--state", type=Path, default=ROOT / "build" / "fuzz", help="folder for finished cases [build/fuzz]"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the pool ends its processes
    counts = fuzz(options.seed, options.first, options.cases, options.workers, options.state, target=options.target)
    report = summary(counts, options.seed, options.first)
    if options.output is not None:
        write_json(options.output, report)
    print(json.dumps({key: report[key] for key in ("cases", "outcomes", "slowest", "largest_memory")}, indent=1))
    if counts.failures:
        sys.exit(f"{len(counts.failures)} cases failed; their files are in {options.state / 'failures'}")


def fuzz(
    seed: int, first: int, cases: int, workers: int, state: Path, *, target: str = "files", quiet: bool = False
) -> OutcomeCounts:
    """Run the cases that have not been run yet, and return the counts of all cases.

    Args:
        seed: seed of all cases.
        first: number of the first case.
        cases: number of cases.
        workers: number of processes.
        state: folder for outcomes and for the files of failed cases.
        target: kind of cases, see `targets`.
        quiet: print no progress.
    """
    kind = TARGETS[target]()
    total, start = OutcomeCounts(), time.perf_counter()
    with Pool(seed, workers, kind.work) as pool:
        for numbers in _chunks(first, cases):
            path = state / kind.identity / f"{target}-{seed}-{numbers.start}-{numbers.stop}.json"
            counts = _read(path)
            if counts is None:
                counts = OutcomeCounts()
                for outcome in pool.run(numbers):
                    described = kind.describe(seed, outcome.number)
                    counts.add(outcome, described.subject, described.strategy)
                    if outcome.result == "failed":
                        _keep(state / "failures" / f"{target}-{seed}-{outcome.number}", outcome, described.files)
                write_atomically(path, json.dumps(vars(counts)).encode())
            total.merge(counts)
            if not quiet:
                print(
                    f"{numbers.stop - first:7} of {cases}: {len(total.failures)} failed, slowest "
                    f"{total.slowest['cpu_seconds']:.2f} s, {time.perf_counter() - start:.0f} s so far",
                    flush=True,
                )
    return total


def summary(counts: OutcomeCounts, seed: int, first: int) -> dict[str, Any]:
    """Return the content of the JSON file."""
    outcomes = sum(counts.by_strategy.values(), Counter())
    return {
        "command": shlex.join(["python", "-m", "checks.fuzz.run", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "machine": platform.machine(),
        "seed": seed,
        "first": first,
        "cases": counts.cases,
        "limits": {
            "cpu_seconds": CPU_LIMIT,
            "seconds": TIME_LIMIT,
            "bytes_beyond_normal": MEMORY_LIMIT,
            "max_pixels": SMALL_PIXELS,
        },
        "outcomes": dict(outcomes),
        "slowest": counts.slowest,
        "largest_memory": counts.largest,
        "by_strategy": {name: dict(counts.by_strategy[name]) for name in sorted(counts.by_strategy)},
        "refusals": dict(counts.refusals.most_common()),
        "failures": counts.failures,
    }


def _chunks(first: int, cases: int) -> Iterator[range]:
    """Split a range at multiples of `CASES_PER_CHUNK`, so that overlapping runs share chunks."""
    start = first
    while start < first + cases:
        stop = min(first + cases, (start // CASES_PER_CHUNK + 1) * CASES_PER_CHUNK)
        yield range(start, stop)
        start = stop


def _read(path: Path) -> OutcomeCounts | None:
    if not path.exists():
        return None
    content = json.loads(path.read_text())
    content["by_strategy"] = {name: Counter(counts) for name, counts in content["by_strategy"].items()}
    return OutcomeCounts(**content | {"refusals": Counter(content["refusals"])})


def _keep(folder: Path, outcome: Outcome, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        write_atomically(folder / name, data)
    write_atomically(folder / "outcome.json", json.dumps(outcome._asdict(), indent=1).encode())


if __name__ == "__main__":
    main()
