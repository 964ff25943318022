"""Many files in one command: which output each input has, what is done already, what failed while others went on."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from jahp_pl.errors import JahpError

STREAM = Path("-")
"""Stands for standard input or standard output."""
DECODED = ".decoded.png"
"""Ends the name of a picture that is decoded beside its file, where the original may be."""
_MAX_NAME = 255
"""Bytes that Linux, macOS and Windows allow."""
_MAGIC = b"jahp"
"""Of `codec.bitstream`, which is further up."""


class BatchError(JahpError, ValueError):
    """Inputs and outputs that do not go together; one line. Nothing has been written."""


class Job(NamedTuple):
    """One file to be made."""

    source: Path
    """A file, or `STREAM`."""
    target: Path
    """A file, or `STREAM`."""
    is_resumable: bool
    """Found in a folder: an output that is there already may be taken for done."""


class Failure(NamedTuple):
    """An input that could not be used."""

    source: Path
    reason: str
    """One line."""


class Report(NamedTuple):
    """What became of all jobs."""

    num_done: int
    num_skipped: int
    """Outputs that were there already."""
    failures: list[Failure]


def plan(
    inputs: Sequence[Path],
    output: Path | None,
    suffix: str,
    wanted: Collection[str],
    force: bool = False,
    beside: str | None = None,
) -> list[Job]:
    """Where everything goes: beside its input, or where `output` says.

    Args:
        inputs: files; folders, which are searched with all below them; or `STREAM` alone.
        output: a file for one file; otherwise a folder, below which the tree of names of each input folder is kept;
            `STREAM` for one file.
        suffix: of outputs whose name is not given.
        wanted: suffixes, in lower case, of the files to take from folders.
        force: a named file's output may exist.
        beside: suffix of outputs that go beside their inputs, in place of `suffix`.

    Raises:
        BatchError: a missing input, a folder without wanted files, one output for two inputs, an output of a named file
            that exists or is its input.
    """
    if STREAM in inputs or output == STREAM:
        if len(inputs) > 1 or inputs[0].is_dir():
            raise BatchError("'-' stands for one file; give one input")
        return _named(inputs[0], output or STREAM, force)
    if len(inputs) == 1 and not inputs[0].is_dir() and output is not None and not output.is_dir() and output.suffix:
        return _named(inputs[0], output, force)
    if output is not None and output.exists() and not output.is_dir():
        raise BatchError(f"{output}: is a file; several outputs need a folder")
    if output is None and beside is not None:
        suffix = beside
    jobs = [job for path in inputs for job in _outputs(path, output, suffix, wanted, force)]
    sources: dict[Path, Path] = {}
    for job in jobs:
        other = sources.setdefault(job.target, job.source)
        if other is not job.source:
            raise BatchError(f"{other} and {job.source} would be written to one output, {job.target}; rename one")
    return jobs


def is_done(job: Job, is_complete: Callable[[Path], bool]) -> bool:
    """Whether the output of a job is there already and newer than its input.

    Args:
        job: of a folder.
        is_complete: whether a file is an output of this command, as it would be made now.

    Raises:
        BatchError: there is another file in its place.
    """
    _check_length(job.target)
    if not job.target.exists():
        return False
    if job.target.stat().st_mtime < job.source.stat().st_mtime:
        raise BatchError(f"{job.target} exists and is older than it; {_advice(job.target)}")
    if not is_complete(job.target):
        raise BatchError(
            f"{job.target} exists and was not made from it by this model with these options; {_advice(job.target)}"
        )
    return True


def modified(job: Job) -> int:
    """When the source of a job was last changed, in nanoseconds; to be asked before it is read."""
    try:
        return job.source.stat().st_mtime_ns if job.is_resumable else 0
    except OSError:
        return 0


def keep_order(job: Job, dated: int) -> None:
    """Date an output like its source if that is from the future, so that `is_done` holds."""
    with suppress(OSError):
        if job.is_resumable and job.target.stat().st_mtime_ns < dated:
            os.utime(job.target, ns=(dated, dated))


def run(
    jobs: Sequence[Job],
    work: Callable[[Job], bool],
    expected: tuple[type[Exception], ...],
    progress: Callable[[Job], object] = lambda _: None,
) -> Report:
    """Do all jobs, the others too when one fails.

    Args:
        jobs: from `plan`.
        work: makes one output; False where it was there already.
        expected: errors that say what is wrong with an input; any other ends the whole run, and so does a
            BrokenPipeError, after which nobody would be told anything.
        progress: called after each job.
    """
    num_done, num_skipped, failures = 0, 0, []
    for job in jobs:
        try:
            was_made = work(job)
        except BrokenPipeError:
            raise
        except expected as error:
            failures.append(Failure(job.source, str(error)))
        else:
            num_done, num_skipped = num_done + was_made, num_skipped + (not was_made)
        progress(job)
    return Report(num_done, num_skipped, failures)


def _named(source: Path, target: Path, force: bool) -> list[Job]:
    if source != STREAM and not source.is_file():
        raise BatchError(f"{source}: no such file")
    _check_length(target)
    if STREAM not in (source, target) and target.exists() and target.samefile(source):
        raise BatchError(f"{target}: is the input itself; choose another output")
    if target != STREAM and target.exists() and not force:
        raise BatchError(f"{target}: exists; {_advice(target)}")
    return [Job(source, target, is_resumable=False)]


def _outputs(path: Path, output: Path | None, suffix: str, wanted: Collection[str], force: bool) -> Iterator[Job]:
    if not path.is_dir():
        yield from _named(path, (output or path.parent) / f"{path.stem}{suffix}", force)
        return
    found = sorted(p for p in path.rglob("*") if p.suffix.lower() in wanted and p.is_file())
    if not found:
        raise BatchError(f"{path}: holds no file of the kinds {' '.join(sorted(wanted))}")
    for source in found:
        place = source.relative_to(path)
        yield Job(source, (output or path) / place.with_name(f"{place.stem}{suffix}"), is_resumable=True)


def _check_length(target: Path) -> None:
    if (length := len(os.fsencode(target.name))) > _MAX_NAME:
        raise BatchError(f"{target}: a name of {length} bytes, of at most {_MAX_NAME}; give a shorter one with -o")


def _advice(target: Path) -> str:
    """What to do about a file in the way; to overwrite it only where it comes from here and is no original."""
    if target.name.endswith(DECODED):
        return "--force overwrites it"
    try:
        with target.open("rb") as file:
            is_ours = file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        is_ours = False
    return "--force overwrites it" if is_ours else "it may be an original: choose another output with -o"
