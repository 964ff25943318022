"""Shared by commands: reporting of user errors, opening codecs from options, progress and failures."""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from jahp_pl import batch
from jahp_pl.batch import STREAM, Job
from jahp_pl.errors import JahpError
from jahp_pl.model_io.export_config import Metric
from jahp_pl.model_io.pretrained import NONE, bundled, bundled_with_fingerprint, locate, names
from jahp_pl.model_io.runtimes import default_runtime
from jahp_pl.text import printable

if TYPE_CHECKING:
    from tqdm import tqdm

    from jahp_pl.codec.codec import Codec
    from jahp_pl.runtime.codec import RuntimeCodec

    AnyCodec = Codec | RuntimeCodec


def open_streams() -> None:
    """Make output safe: escape what the encoding cannot write, and discard output to closed streams.

    Otherwise, a closed standard descriptor would be reused by the next file that is opened.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115  open until the process ends
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Environment variables that determine how OpenMP's threads wait."""


def wait_passively() -> None:
    """Let torch's threads sleep while they wait for each other, unless the environment sets how they wait.

    By default they spin. If other programs use the cores too, a spinning thread uses up time that the thread it waits
    for needs, and decoding takes five times the CPU time (docs/guide.md). OpenMP reads the environment when torch is
    imported.
    """
    if not any(name in os.environ for name in WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


QUIET: ContextVar[bool] = ContextVar("quiet", default=False)
"""Whether --quiet was given, so that only errors are printed."""


def say(*lines: str, file: TextIO | None = None) -> None:
    """Print lines with escaped control characters, so that names in them cannot move a terminal's cursor.

    With --quiet, only lines with an explicit file, such as standard error, are printed.
    """
    if QUIET.get() and file is None:
        return
    print(*map(printable, lines), sep="\n", file=file)


LONG_EFFORT = 1
"""Smallest effort whose search shows its own progress bar."""


class CommandError(JahpError, ValueError):
    """Arguments that cannot be used, or a run that failed in part; the message is one line."""


INPUT_ERRORS = (JahpError, OSError)
"""Errors about user input, whose message is shown; any other is a bug and keeps its traceback."""


@contextmanager
def signals_as_errors() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like an error, so that partial output is removed.

    The status is 128 plus the signal, as in shells.
    """
    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    numbers = [number for name in names if signal.getsignal(number := getattr(signal, name)) == signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        numbers = []

    def end(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def errors_from_rank_zero() -> Iterator[None]:
    """Let only rank 0 report errors that every rank hits; the others end silently.

    They end with status 0, because a launcher kills all processes when one fails, before rank 0 has reported the
    reason.
    """
    from jahp_pl.config import ConfigError
    from jahp_pl.model_io.checkpoint import CheckpointError
    from jahp_pl.model_io.export_config import ExportError
    from jahp_pl.training import TrainingError, is_first_rank

    try:
        yield
    except (CheckpointError, ConfigError, ExportError, TrainingError):
        if is_first_rank():
            raise
        sys.exit(0)


def open_codec(arguments: argparse.Namespace, model: str | Path | None = None) -> Codec:
    """Open the codec for --model or --metric, --device, --threads, --precision and --memory.

    Args:
        arguments: arguments with these options; --metric may be missing.
        model: replaces --model.

    Raises:
        CommandError: if the device is unavailable or the memory too small.
        ExportError: if there is no such model.
    """
    metric: Metric | None = getattr(arguments, "metric", None)
    if metric is not None and arguments.model is not None:
        raise CommandError("--metric picks one of the bundled models; leave out either it or --model")
    path = locate(model or arguments.model, metric)  # first, because importing torch takes seconds
    import torch

    from jahp_pl.codec.transforms.runner import MemoryLimitError
    from jahp_pl.model_io.load import load_codec

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.device == "auto":
        arguments.device = "cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=arguments.device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise CommandError(f"--device {arguments.device}: {str(error).strip().splitlines()[0]}") from None
    limit = arguments.memory * 2**20
    try:
        return load_codec(path, arguments.device, arguments.precision, limit)
    except MemoryLimitError as error:
        raise CommandError(f"--memory {arguments.memory}: {error}") from None


def open_any_codec(arguments: argparse.Namespace, model: str | Path | None = None) -> AnyCodec:
    """Open the codec as `open_codec`, in the runtime that --runtime asks for.

    Raises:
        CommandError, ExportError: see `open_codec`; also for options that the runtime lacks.
    """
    if (arguments.runtime or default_runtime()) == "torch":
        return open_codec(arguments, model)
    for option, allowed in (("device", ("cpu", "auto")), ("precision", ("float32",))):
        if (value := getattr(arguments, option)) not in allowed:
            raise CommandError(f"--{option} {value}: the onnx runtime has {allowed[0]} only; use --runtime torch")
    if importlib.util.find_spec("onnxruntime") is None:
        raise CommandError("the onnx runtime is not installed; install it with: pip install 'jahp_pl[runtime]'")
    from jahp_pl.runtime.load import load_runtime

    metric: Metric | None = getattr(arguments, "metric", None)
    return load_runtime(model or arguments.model, metric=metric, threads=arguments.threads or 0)


class NoBar:
    """Replaces a bar of tqdm if there is nothing to show, or if tqdm is not installed."""

    def __enter__(self) -> NoBar:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to clear."""

    def update(self) -> None:
        """Show nothing."""

    def external_write_mode(self) -> NoBar:
        """Nothing is in the way of other output."""
        return self


def bar_of_files(command: str, total: int) -> tqdm[Any] | NoBar:
    """A progress bar for several files."""
    if total == 1 or importlib.util.find_spec("tqdm") is None:
        return NoBar()
    return bar(total=total, unit=" files", desc=command)


def bar(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """Create a progress bar, which shows on a terminal unless --quiet was given."""
    from tqdm import tqdm

    return tqdm(iterable, leave=False, disable=options.pop("disable", None) or QUIET.get() or None, **options)


@contextmanager
def search_bar(effort: int, name: str) -> Iterator[Callable[[int, int], None] | None]:
    """Show a progress bar for the steps of an encoder's search if it takes long.

    Args:
        effort: effort of the encoder.
        name: name of the image.
    """
    if effort < LONG_EFFORT:
        yield None
        return
    with bar(unit=" steps", desc=name) as steps:

        def progress(done: int, total: int) -> None:
            steps.total = total
            steps.update(done - steps.n)

        yield progress


class Decoders:
    """The codec for each file: that of --model, or the bundled one that made the file.

    Args:
        arguments: arguments of a command that decodes.

    Raises:
        CommandError, ExportError: see `open_codec`; also if no model is given and none is bundled.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._codecs: dict[bytes, AnyCodec] = {}
        self._only = None if arguments.model is None else open_any_codec(arguments)
        if self._only is None and not bundled():
            raise CommandError(NONE)

    def find(self, fingerprint: bytes) -> AnyCodec:
        """Return the codec for a file with this fingerprint; the codec of --model refuses a file with another one.

        Raises:
            CommandError: if no bundled model has it.
        """
        if self._only is not None:
            return self._only
        if fingerprint not in self._codecs:
            model = bundled_with_fingerprint(fingerprint)
            if model is None:
                raise CommandError(
                    f"made with model {fingerprint.hex()}, which is not bundled ({names()}); give "
                    "the model that made it with --model"
                )
            self._codecs[fingerprint] = open_any_codec(self._arguments, model.folder)
        return self._codecs[fingerprint]


class FinishedOutput(NamedTuple):
    """A finished output, or the sum over several."""

    words: str
    """Short description."""
    num_bytes: int
    """Size of the compressed file."""
    num_pixels: int
    """Pixels of its image."""


def run_jobs(
    command: str, jobs: Sequence[Job], work: Callable[[Job], FinishedOutput | None], not_compared: Sequence[str] = ()
) -> None:
    """Do all jobs with a progress bar; the error of a single job is raised.

    Args:
        command: name of the command for messages.
        jobs: jobs to do.
        work: makes one output and describes it; None if it existed already.
        not_compared: options that cannot be read from a file, so that existing files count as done.

    Raises:
        CommandError: if some failed; they have been printed.
    """
    from jahp_pl.files import clear_leftovers

    for folder in {job.target.parent for job in jobs if job.target != STREAM}:
        clear_leftovers(folder)
    start = time.monotonic()
    total = FinishedOutput("", 0, 0)
    with bar_of_files(command, len(jobs)) as files:

        def work_aloud(job: Job) -> bool:
            nonlocal total
            dated = batch.modified(job)
            made = work(job)
            if made is None:
                return False
            batch.match_future_date(job, dated)
            total = FinishedOutput("", total.num_bytes + made.num_bytes, total.num_pixels + made.num_pixels)
            with files.external_write_mode():
                line = f"{name_of(job.source)} -> {name_of(job.target, 'output')}: {made.words}"
                if not QUIET.get():
                    say(line, file=sys.stderr if job.target == STREAM else sys.stdout)
            return True

        if len(jobs) == 1 and not jobs[0].is_resumable:
            work_aloud(jobs[0])
            return
        report = batch.run_all(jobs, work_aloud, INPUT_ERRORS, lambda _: files.update())
    if report.num_done > 1:
        say(
            f"{report.num_done} files, {total.num_bytes} bytes, {8 * total.num_bytes / total.num_pixels:.4f} bpp, "
            f"{time.monotonic() - start:.1f} s"
        )
    if report.num_skipped:
        unseen = (
            f", perhaps with another {' or '.join(not_compared)}, which a file does not show" if not_compared else ""
        )
        say(f"{report.num_skipped} of {len(jobs)} were done already{unseen}; --force does them again")
    print_failures(command, report.failures, len(jobs))


def print_failures(command: str, failures: Sequence[batch.Failure], total: int) -> None:
    """Print the failed jobs.

    Raises:
        CommandError: if there are any.
    """
    if not failures:
        return
    for failure in failures:
        reason = " ".join(failure.reason.split()).removeprefix(f"{failure.source}: ")
        say(f"  {failure.source}: {reason}", file=sys.stderr)
    raise CommandError(f"{command}: {len(failures)} of {total} failed, see above; the others are done")


def name_of(path: Path, direction: str = "input") -> str:
    """Return the name of a path in messages."""
    return f"standard {direction}" if path == STREAM else str(path)
