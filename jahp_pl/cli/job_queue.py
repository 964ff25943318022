"""Does the jobs of a plan, a few at a time, and collects failures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from jahp_pl.cli.job_plan import Job
from jahp_pl.errors import StandardOutputError, describe_error

MAX_UNFINISHED = 2
"""Maximum number of unfinished outputs when the next job begins."""


class Failure(NamedTuple):
    """An input that could not be used."""

    source: Path
    reason: str
    """What is wrong, in one line."""


class JobReport(NamedTuple):
    """Outcome of all jobs."""

    num_done: int
    num_skipped: int
    """Number of outputs that existed already."""
    failures: list[Failure]


def run_all(
    jobs: Sequence[Job],
    work: Callable[[Job], bool | Callable[[], bool]],
    expected: tuple[type[Exception], ...],
    progress: Callable[[Job], object] = lambda _: None,
) -> JobReport:
    """Do all jobs; a failed job does not stop the others.

    Args:
        jobs: from `plan`.
        work: makes one output, and returns False if it existed already, otherwise True. Alternatively, it begins an
            output and returns a function that waits for completion and then returns the same; this function is called
            once `MAX_UNFINISHED` later jobs have begun, or after the last job.
        expected: errors that count as a bad input. Any other error ends the run, as does a failed write to standard
            output.
        progress: called after each job.

    Returns:
        Numbers of jobs done and skipped, and the failures, in the order of the jobs.
    """
    made: list[bool] = []
    failures: dict[int, Failure] = {}
    unfinished: deque[tuple[int, Callable[[], bool]]] = deque()

    def attempt(place: int, part: Callable[[], bool | Callable[[], bool]]) -> None:
        """Run a job, or only its beginning or its end."""
        try:
            outcome = part()
        except (BrokenPipeError, StandardOutputError):
            raise
        except expected as error:
            failures[place] = Failure(jobs[place].source, describe_error(error))
        else:
            if callable(outcome):
                unfinished.append((place, outcome))
                return
            made.append(outcome)
        progress(jobs[place])

    for place, job in enumerate(jobs):
        if job.obstacle is None:
            attempt(place, partial(work, job))
        else:
            failures[place] = Failure(job.source, job.obstacle)
            progress(job)
        if len(unfinished) > MAX_UNFINISHED:
            attempt(*unfinished.popleft())
    while unfinished:
        attempt(*unfinished.popleft())
    return JobReport(sum(made), len(made) - sum(made), [failures[place] for place in sorted(failures)])
