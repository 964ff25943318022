"""Runs a command over many files: progress, a summary, and the failures at the end."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jahp_pl.cli import job_plan
from jahp_pl.cli.errors import INPUT_ERRORS, CommandError
from jahp_pl.cli.job_plan import STREAM, Job
from jahp_pl.cli.job_queue import Failure, run_all
from jahp_pl.cli.output import QUIET, NoBar, bar_of_files, name_of, say
from jahp_pl.errors import memory_errors

if TYPE_CHECKING:
    from tqdm import tqdm


class FinishedOutput(NamedTuple):
    """Output that a job has written."""

    description: str
    """What to print about it, in a few words."""
    num_bytes: int
    """Size of the compressed file, which is the job's output or its input."""
    num_pixels: int
    """Number of pixels of the image."""


Finish = Callable[[], FinishedOutput]
"""Function that waits until an output is written; it is called while later jobs are in progress."""


def run_jobs(
    command: str,
    jobs: Sequence[Job],
    work: Callable[[Job], FinishedOutput | Finish | None],
    not_compared: Sequence[str] = (),
) -> None:
    """Do all jobs and show a progress bar.

    If there is only one job, its error is raised. Otherwise, errors are printed after all jobs have been tried.

    Args:
        command: name of the command for messages.
        jobs: jobs to do.
        work: makes the output of a job and returns a description of it, or a function that finishes it; returns None
            if the output already existed.
        not_compared: options that cannot be read from a finished file, so that files made with other values of them
            are skipped too.

    Raises:
        CommandError: if some jobs failed; their errors have been printed.
    """
    from jahp_pl.files.atomic import clear_leftovers

    for folder in {job.target.parent for job in jobs if job.target != STREAM}:
        clear_leftovers(folder)
    start = time.monotonic()
    with bar_of_files(command, len(jobs)) as files:
        reported = _ReportedWork(work, files)
        if len(jobs) == 1 and not jobs[0].is_resumable:
            begun = reported(jobs[0])
            if callable(begun):
                begun()
            return
        report = run_all(jobs, reported, INPUT_ERRORS, lambda _: files.update())
    if len(reported.outputs) > 1:
        say(f"{_describe_total(reported.outputs)}, {time.monotonic() - start:.1f} s")
    if report.num_skipped:
        say(_describe_skipped(report.num_skipped, len(jobs), not_compared))
    print_failures(command, report.failures, len(jobs))


class _ReportedWork:
    """Work on jobs, as `run_all` calls it, that prints a line about each output once it is written.

    Args:
        work: see `run_jobs`.
        files: progress bar that is shown meanwhile.

    Attributes:
        outputs: everything that was written.
    """

    def __init__(self, work: Callable[[Job], FinishedOutput | Finish | None], files: tqdm[Any] | NoBar) -> None:
        self.outputs: list[FinishedOutput] = []
        self._work, self._files = work, files

    def __call__(self, job: Job) -> bool | Callable[[], bool]:
        source_time = job_plan.source_time(job)
        with memory_errors(name_of(job.source)):
            made = self._work(job)
        if made is None:
            return False
        if isinstance(made, FinishedOutput):
            return self._report(job, source_time, made)
        return functools.partial(self._finish, job, source_time, made)

    def _finish(self, job: Job, source_time: int, finish: Finish) -> bool:
        with memory_errors(name_of(job.source)):
            made = finish()
        return self._report(job, source_time, made)

    def _report(self, job: Job, source_time: int, made: FinishedOutput) -> bool:
        job_plan.copy_future_date(job, source_time)
        self.outputs.append(made)
        with self._files.external_write_mode():
            line = f"{name_of(job.source)} -> {name_of(job.target, 'output')}: {made.description}"
            if not QUIET.get():
                say(line, file=sys.stderr if job.target == STREAM else sys.stdout)
        return True


def _describe_total(outputs: Sequence[FinishedOutput]) -> str:
    """Describe all outputs together: number, bytes, bits per pixel."""
    num_bytes, num_pixels = sum(one.num_bytes for one in outputs), sum(one.num_pixels for one in outputs)
    return f"{len(outputs)} files, {num_bytes} bytes, {8 * num_bytes / num_pixels:.4f} bpp"


def _describe_skipped(num_skipped: int, total: int, not_compared: Sequence[str]) -> str:
    """Describe how many jobs had already been done, and which options were not compared."""
    options = " or ".join(not_compared)
    unseen = f", perhaps with another {options}, which a file does not show" if not_compared else ""
    were, them = ("was", "it") if num_skipped == 1 else ("were", "them")
    return f"{num_skipped} of {total} {were} done already{unseen}; --force does {them} again"


def print_failures(command: str, failures: Sequence[Failure], total: int) -> None:
    """Print the errors of failed jobs.

    Raises:
        CommandError: if any job failed.
    """
    if not failures:
        return
    for failure in failures:
        reason = " ".join(failure.reason.split()).removeprefix(f"{failure.source}: ")
        say(f"  {failure.source}: {reason}", file=sys.stderr)
    rest = "; the others are done" if len(failures) < total else ""
    raise CommandError(f"{command}: {len(failures)} of {total} failed, see above{rest}")
