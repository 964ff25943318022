"""Plans one command over many files: which outputs to make from which inputs, and which are finished already."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from jahp_pl.codec.bitstream import DECODED_SUFFIX, MAGIC
from jahp_pl.errors import JahpError, describe_error
from jahp_pl.files.atomic import resolved
from jahp_pl.files.search import find_files

STREAM = Path("-")
"""Stands for standard input or standard output."""
_MAX_NAME = 255
"""Maximum length of a file name in bytes on Linux, macOS and Windows."""
UNREAD_SUFFIXES = frozenset(
    {
        *(".ai", ".arw", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".hdr", ".heic", ".heif", ".hif", ".jxl", ".jxr"),
        *(".nef", ".orf", ".pef", ".psd", ".raf", ".rw2", ".srw", ".svg"),
    }
)
"""Suffixes of image files that commands leave out of folders and report; some can be read with an extra package."""


class JobError(JahpError, ValueError):
    """Inputs and outputs that do not fit together, found before anything is written; the message is one line."""


class Job(NamedTuple):
    """One output file to make from one input."""

    source: Path
    """A file, or `STREAM`."""
    target: Path
    """A file, or `STREAM`."""
    is_resumable: bool
    """Whether the source was found in a folder, so that an existing output may count as finished."""
    obstacle: str | None = None
    """One-line reason why the job cannot be done: another job has the same output, or the source is a folder that
    cannot be listed. None otherwise."""


def plan(
    inputs: Sequence[Path],
    output: Path | None,
    suffix: str,
    source_suffixes: Collection[str],
    force: bool = False,
    suffix_beside: str | None = None,
) -> list[Job]:
    """Assign an output to every input: beside it, or where `output` says.

    Args:
        inputs: files, folders (searched recursively), or `STREAM` alone.
        output: a file for a single input file, `STREAM`, or a folder, which reproduces the tree of each input
            folder; None writes beside the inputs.
        suffix: suffix, with its dot, of outputs that are not named explicitly.
        source_suffixes: lower-case suffixes of the files to take from folders.
        force: whether the output of a named file may exist, to be overwritten.
        suffix_beside: suffix of outputs written beside their inputs, in place of `suffix`; None for the same.

    Returns:
        One job per input file; a file that is found twice counts once. Files found in folders that share an output,
        and folders in them that cannot be listed, become jobs with an `obstacle`.

    Raises:
        JobError: if an input is missing, a folder holds no such file, a named file shares its output with another,
            or the output of a named file exists or is its input.
    """
    if STREAM in inputs or output == STREAM:
        if len(inputs) > 1 or inputs[0].is_dir():
            raise JobError("'-' stands for a single file; give exactly one input, and no folder")
        return _job_of_file(inputs[0], output or STREAM, force)
    is_one_file = len(inputs) == 1 and not inputs[0].is_dir() and output is not None and not output.is_dir()
    if is_one_file and output is not None and (output.suffix or output.exists()):
        return _job_of_file(inputs[0], output, force)
    if output is not None and not output.is_dir() and (output.exists() or output.suffix == suffix):
        raise JobError(f"{output}: is one file, but there are several outputs; give a folder with -o")
    if output is None and suffix_beside is not None:
        suffix = suffix_beside
    if len(inputs) > 1 and not inputs[-1].exists():
        raise JobError(f"{inputs[-1]}: no such file; if it is meant as the output, write -o {inputs[-1]}")
    once: dict[tuple[Path, Path], Job] = {}
    for job in (job for path in inputs for job in _jobs_of_input(path, output, suffix, source_suffixes, force)):
        once.setdefault((resolved(job.source), job.target), job)
    jobs = list(once.values())
    by_target: dict[Path, list[Job]] = {}
    for job in jobs:
        if job.obstacle is None:
            by_target.setdefault(job.target, []).append(job)
    return [job if job.obstacle is not None else _with_conflict(job, by_target[job.target]) for job in jobs]


def _with_conflict(job: Job, rivals: Sequence[Job]) -> Job:
    """Add an `obstacle` to a job if another one has the same output.

    Raises:
        JobError: if the input of any of these jobs was named explicitly, not found in a folder.
    """
    other = next((rival for rival in rivals if rival.source is not job.source), None)
    if other is None:
        return job
    if not all(rival.is_resumable for rival in rivals):
        raise JobError(f"{job.source} and {other.source} have the same output, {job.target}; rename one of them")
    return job._replace(obstacle=f"has the same output as {other.source}, {job.target}; rename one of them")


def count_unread_images(inputs: Sequence[Path], source_suffixes: Collection[str]) -> dict[str, int]:
    """Count the image files in input folders that a command leaves out, see `UNREAD_SUFFIXES`.

    Args:
        inputs: see `plan`.
        source_suffixes: see `plan`.

    Returns:
        Number of files by lower-case suffix.
    """
    folders, unread = filter(Path.is_dir, inputs), UNREAD_SUFFIXES - set(source_suffixes)
    suffixes = sorted(path.suffix.lower() for folder in folders for path in find_files(folder, unread).files)
    return {suffix: suffixes.count(suffix) for suffix in dict.fromkeys(suffixes)}


def is_done(job: Job, is_complete: Callable[[Path], bool]) -> bool:
    """Check whether the output of a job exists, is complete and is not older than its input.

    Args:
        job: a job from a folder.
        is_complete: returns whether a file is an output that this command would make now.

    Raises:
        JobError: if the file at the output's path is older than the input or not such an output, or the name is too
            long.
    """
    _check_length(job.target)
    if not job.target.exists():
        return False
    if job.target.stat().st_mtime < job.source.stat().st_mtime:
        raise JobError(f"{job.target}: exists and is older than its input; {_advice(job.target)}")
    if not is_complete(job.target):
        raise JobError(f"{job.target}: exists and was not made by this model with these options; {_advice(job.target)}")
    return True


def source_time(job: Job) -> int:
    """Return the modification time of the source in nanoseconds; 0 for a job that is not resumable.

    Call it before the source is read.
    """
    try:
        return job.source.stat().st_mtime_ns if job.is_resumable else 0
    except OSError:
        return 0


def copy_future_date(job: Job, modified: int) -> None:
    """Give an output its source's modification time if that is in the future, so that `is_done` holds.

    Args:
        job: a finished job.
        modified: result of `source_time` from before the source was read.
    """
    with suppress(OSError):
        if job.is_resumable and job.target.stat().st_mtime_ns < modified:
            os.utime(job.target, ns=(modified, modified))


def _job_of_file(source: Path, target: Path, force: bool) -> list[Job]:
    """Return the job of a file that was named on its own, not found in a folder."""
    if source != STREAM and not source.is_file():
        if source.exists():
            raise JobError(f"{source}: is not a regular file; give - and redirect it to standard input")
        raise JobError(f"{source}: no such file; check the path")
    _check_length(target)
    if STREAM not in (source, target) and target.exists() and target.samefile(source):
        raise JobError(f"{target}: is the input itself; choose another output")
    if target != STREAM and target.exists() and not force:
        raise JobError(f"{target}: exists; {_advice(target)}")
    return [Job(source, target, is_resumable=False)]


def _jobs_of_input(
    path: Path, output: Path | None, suffix: str, source_suffixes: Collection[str], force: bool
) -> Iterator[Job]:
    """Yield the jobs of one input, a file or a folder; arguments as in `plan`."""
    if not path.is_dir():
        yield from _job_of_file(path, (output or path.parent) / f"{path.stem}{suffix}", force)
        return
    found = find_files(path, source_suffixes)
    if not found.files and not found.unread:
        raise JobError(f"{path}: contains no {', '.join(sorted(source_suffixes))} file; give another folder")
    for source in found.files:
        place = source.relative_to(path)
        yield Job(source, (output or path) / place.with_name(f"{place.stem}{suffix}"), is_resumable=True)
    for error in found.unread:
        target = (output or path) / f"{path.name}{suffix}"
        yield Job(Path(error.filename), target, is_resumable=True, obstacle=describe_error(error))


def _check_length(target: Path) -> None:
    """Refuse a name that is too long for the file system."""
    if (length := len(os.fsencode(target.name))) > _MAX_NAME:
        raise JobError(f"{target}: its name has {length} bytes, more than {_MAX_NAME}; give a shorter one with -o")


def is_compressed(path: Path) -> bool:
    """Check by its first bytes whether a path is a .jahp file; a pipe never counts as one."""
    try:
        if not path.is_file():
            return False
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _advice(target: Path) -> str:
    """Suggest what to do about a file in the way: overwriting it only if this program made it."""
    if target.name.endswith(DECODED_SUFFIX):
        return "--force overwrites it"
    return "--force overwrites it" if is_compressed(target) else "it may be an original: choose another output with -o"
