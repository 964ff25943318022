"""What can be fuzzed: compressed files, and the other kinds of input from outside."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from checks.fuzz import input_kinds, input_worker, mutate, worker
from checks.fuzz.corpus import subjects
from checks.fuzz.pool import Work

ROOT = Path(__file__).parents[2]


class Described(NamedTuple):
    """A case without its outcome."""

    subject: str
    strategy: str
    files: dict[str, bytes]
    """Content by file name."""


class FuzzTarget(NamedTuple):
    """Kind of cases."""

    work: Work
    """Function that the processes run, see `Pool`."""
    describe: Callable[[int, int], Described]
    """Returns a case, given a seed and its number."""
    identity: str
    """Hash of everything that an outcome depends on."""


def compressed_files() -> FuzzTarget:
    """Return the target of damaged .jahp files."""
    known = subjects()
    corpus = [subject.files for subject in known]

    def describe(seed: int, number: int) -> Described:
        damaged = mutate.damaged_case(seed, number, corpus)
        return Described(known[damaged.subject].name, damaged.strategy, {"damaged.jahp": damaged.data})

    # A file contains its model's fingerprint.
    return FuzzTarget(worker.work, describe, _identity("codec", b"".join(data for files in corpus for data in files)))


def other_inputs() -> FuzzTarget:
    """Return the target of damaged models, shards, settings, results, sweeps and metrics."""

    def describe(seed: int, number: int) -> Described:
        kind, files = input_kinds.input_case(seed, number, tuple(input_kinds.INPUT_KINDS))
        return Described(kind, kind, files)

    return FuzzTarget(input_worker.work, describe, _identity("", b""))


TARGETS = {"files": compressed_files, "inputs": other_inputs, "doors": other_inputs}
"""Functions that make targets, by name; "doors" is the former name of "inputs"."""


def _identity(package: str, corpus: bytes) -> str:
    digest = hashlib.sha256(corpus)
    for path in sorted([*(ROOT / "jahp_pl" / package).rglob("*.py"), *Path(__file__).parent.glob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
