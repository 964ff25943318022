"""Runs a sweep: starts runs, watches them, and records their results."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Protocol

from jahp_pl.config import TrainerConfig, current_name
from jahp_pl.errors import WriteError
from jahp_pl.files.locks import hold_lock
from jahp_pl.model_io.checkpoint import CheckpointError
from jahp_pl.sweeping import SweepError, bayes
from jahp_pl.sweeping.entries import SweepEntry, has_reached_target
from jahp_pl.sweeping.file import SweepFile
from jahp_pl.sweeping.parameters import Value
from jahp_pl.sweeping.processes import (
    RunningProcess,
    end_processes,
    environments,
    failure_reason,
    last_lines,
    start_training,
)
from jahp_pl.sweeping.results import read_sweep_results, write_sweep_results
from jahp_pl.sweeping.run_state import OtherSettingsError, last_values, read_run_state
from jahp_pl.sweeping.runs import SweepRun, check_distinct, check_sweep, grid_runs, make_run, random_runs

POLL_SECONDS = 0.2
"""Seconds between two checks of the running processes."""


class Watcher(Protocol):
    """Receiver of a sweep's progress, see `table.LiveTable`."""

    def changed(self, entry: SweepEntry, lines: Sequence[str]) -> None:
        """Handle a new state of a run; if it failed, `lines` are the last lines of its log."""

    def tick(self, entries: Sequence[SweepEntry]) -> None:
        """Handle the passing of time; called several times per second."""


class Sweep:
    """Sweep file with the runs that have been chosen from it and their results.

    Args:
        file: result of `read_sweep`.
        overrides: further arguments of `jahp train` for all runs.

    Attributes:
        entries: all runs known so far, in order; for `bayes`, `restore` adds the runs of earlier sessions.
        results: path of the JSON file; a CSV file is next to it.

    Raises:
        SweepError: as for `check_sweep`; also if the method needs Optuna and it is not installed.
    """

    def __init__(self, file: SweepFile, overrides: Sequence[str] = ()) -> None:
        self.file, self.overrides = file, overrides
        check_sweep(file, overrides)
        if file.method == "bayes":
            bayes.check_engine()
        first = make_run(file, {p.key: p.extremes()[0] for p in file.parameters}, overrides)
        self.trainer: TrainerConfig = first.config.trainer
        self.results = Path(first.config.output_dir) / f"{file.path.stem}.json"
        self.entries = [SweepEntry(run) for run in self._initial_runs()]

    def _initial_runs(self) -> list[SweepRun]:
        """Return the runs that are known before any run starts; none for `bayes`."""
        if self.file.method == "bayes":
            return []
        choose = grid_runs if self.file.method == "grid" else random_runs
        return choose(self.file, self.overrides)

    def restore(self) -> None:
        """Read the results of earlier sessions: the runs that `bayes` proposed, and the metrics of all runs.

        Raises:
            SweepError: if the file is not a sweep's, or has runs that do not belong to this sweep.
        """
        rows = [row._replace(values=self._in_names_of_file(row.values)) for row in read_sweep_results(self.results)]
        if self.file.method == "bayes":
            values = [row.values for row in rows if self._is_in_space(row.values)][: self.file.run_cap]
            runs = check_distinct(make_run(self.file, chosen, self.overrides) for chosen in values)
            self.entries[:] = [SweepEntry(run) for run in runs]
        by_name = {entry.run.name: entry for entry in self.entries}
        for row in rows:
            entry = by_name.get(row.name)
            if entry is not None and entry.run.values == row.values:
                entry.steps, entry.seconds, entry.metrics = row.steps, row.seconds, dict(row.metrics)
            elif row.steps:
                raise SweepError(
                    f"{self.results}: has {row.name}, which is not a run of {self.file.path}; move it away, "
                    "or choose another output_dir=..."
                )

    def read_run_states(self) -> None:
        """Read the state of all runs from their folders; an unusable run counts as failed and keeps its last metrics.

        Raises:
            SweepError: if all runs were trained with other settings.
        """
        refused = []
        for entry in self.entries:
            try:
                entry.state = "done" if _update(entry) else "waiting"
            except (CheckpointError, SweepError) as error:
                entry.state, entry.error = "failed", str(error)
                refused += [error] if isinstance(error, OtherSettingsError) else []
        if refused and len(refused) == len(self.entries):
            raise SweepError(f"no run of {self.file.path} can be resumed: {refused[0]}")

    def _in_names_of_file(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Rename stored values as the sweep file names them; either may use former names of settings."""
        names = {current_name(parameter.key): parameter.key for parameter in self.file.parameters}
        return {names.get(current_name(key), key): value for key, value in values.items()}

    def _is_in_space(self, values: Mapping[str, Value]) -> bool:
        space = {parameter.key: parameter for parameter in self.file.parameters}
        return set(values) == set(space) and all(space[key].contains(value) for key, value in values.items())

    def next_entry(self) -> SweepEntry | None:
        """Return the run to start next; None if none can be started now."""
        if has_reached_target(self.entries, self.file.metric):
            return None
        waiting = next((entry for entry in self.entries if entry.state == "waiting"), None)
        if waiting is not None or self.file.method != "bayes" or len(self.entries) >= (self.file.run_cap or 0):
            return waiting
        return self._proposed_entry()

    def _proposed_entry(self) -> SweepEntry | None:
        """Add and return the run that `bayes` proposes; None if no new one is found."""
        assert self.file.metric is not None  # required by method bayes
        history = [
            bayes.ScoredRun(entry.run.values, entry.score(self.file.metric), entry.is_open) for entry in self.entries
        ]
        values = bayes.propose(self.file.parameters, history, self.file.metric.is_minimized)
        if values is None:
            return None
        self.entries.append(SweepEntry(make_run(self.file, values, self.overrides)))
        check_distinct(entry.run for entry in self.entries)
        return self.entries[-1]

    def write_results(self) -> None:
        """Write the results so far, see `results.write_sweep_results`."""
        write_sweep_results(self.results, self.file, self.entries)


def run_sweep(sweep: Sweep, workers: int, watcher: Watcher) -> None:
    """Train all unfinished runs, `workers` at a time; a failed run does not stop the others.

    When interrupted or terminated, it ends the training processes, which first save their checkpoints. The next call
    resumes them, even if this process was killed. Nothing is written before the state of all runs has been read.

    Raises:
        SweepError: as for `Sweep.restore` and `Sweep.read_run_states`.
        WriteError: if another process runs this sweep here, or its results cannot be written.
        KeyboardInterrupt: if the sweep was interrupted or terminated.
    """
    folder, name = sweep.results.parent, sweep.results.stem
    error_if_held = (
        f"{folder}: another sweep of {name} is running here; wait for it, use --workers N there, or choose another "
        "output_dir=..."
    )
    with hold_lock(folder / f".{name}.lock", error_if_held, folder):
        sweep.restore()
        sweep.read_run_states()
        sweep.write_results()
        for entry in sweep.entries:
            if entry.state != "waiting":
                watcher.changed(entry, ())
        _Workers(sweep, workers, watcher).run()


class _Workers:
    """The training processes of a sweep, at most one for each worker.

    Args:
        sweep: sweep whose run states have been read.
        num_workers: number of runs to train at a time.
        watcher: receiver of every change of state.
    """

    def __init__(self, sweep: Sweep, num_workers: int, watcher: Watcher) -> None:
        self._sweep, self._watcher = sweep, watcher
        uses_gpus = sweep.trainer.accelerator != "cpu"
        self._environments = environments(num_workers, sweep.trainer.devices if uses_gpus else 0)
        self._running: dict[int, tuple[SweepEntry, RunningProcess]] = {}

    def run(self) -> None:
        """Train waiting runs until there are no more."""
        try:
            with _termination_interrupts(self._processes):
                self._start_waiting()
                while self._running:
                    time.sleep(POLL_SECONDS)
                    self._watcher.tick(self._sweep.entries)
                    self._record_ended()
                    self._start_waiting()
        finally:
            self._stop()

    def _processes(self) -> list[subprocess.Popen[bytes]]:
        return [started.process for _, started in self._running.values()]

    def _start_waiting(self) -> None:
        """Start a waiting run on each idle worker."""
        for worker in set(range(len(self._environments))) - set(self._running):
            while worker not in self._running and (entry := self._sweep.next_entry()) is not None:
                if (started := _start_run(entry, self._environments[worker])) is not None:
                    self._running[worker] = (entry, started)
                self._record(entry)

    def _record_ended(self) -> None:
        for worker, (entry, started) in list(self._running.items()):
            if started.process.poll() is not None:
                del self._running[worker]
                _update_ended(entry, started)
                self._record(entry, last_lines(started) if entry.state == "failed" else ())

    def _record(self, entry: SweepEntry, lines: Sequence[str] = ()) -> None:
        """Record a change of state; see `Watcher.changed`."""
        self._sweep.write_results()
        self._watcher.changed(entry, lines)

    def _stop(self) -> None:
        """End the processes that still run, whose runs then wait for the next session."""
        end_processes(self._processes())
        for entry, _ in self._running.values():
            entry.state = "waiting"
        if self._running:
            self._sweep.write_results()


def _start_run(entry: SweepEntry, environment: dict[str, str]) -> RunningProcess | None:
    """Start a run and return its process; None if the run is finished or cannot be started."""
    try:
        if _update(entry):
            entry.state = "done"
            return None
        started = start_training(entry.run, environment)
    except (CheckpointError, SweepError, WriteError) as error:
        entry.state, entry.error = "failed", str(error)
        return None
    entry.state = "running"
    return started


def _update_ended(entry: SweepEntry, ended: RunningProcess) -> None:
    """Update the state of a run whose process has ended."""
    try:
        is_finished = _update(entry)
    except (CheckpointError, SweepError) as error:
        entry.state, entry.error = "failed", str(error)
        return
    if ended.process.returncode == 0 and is_finished:
        entry.state, entry.error = "done", ""
    else:
        entry.state, entry.error = "failed", failure_reason(ended)


def _update(entry: SweepEntry) -> bool:
    """Read the state of a run from disk, and return whether it is finished."""
    state = read_run_state(entry.run.config)
    entry.steps, entry.seconds = state.steps, state.seconds
    entry.metrics = last_values(entry.run.config.run_dir) if state.steps else {}
    return state.is_finished


@contextmanager
def _termination_interrupts(processes: Callable[[], list[subprocess.Popen[bytes]]]) -> Iterator[None]:
    """Let SIGTERM or a closed terminal terminate `processes` first, and then end this process as Ctrl+C would."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread can handle signals
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        for process in processes():
            process.terminate()
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: former for number in numbers if (former := signal.getsignal(number)) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
