"""Measures what a runtime costs: time for a cold start, time for decoding in a running process, and memory.

A cold start is a whole `jahp decompress` process. The steady state is measured in another process, which decodes the
same file repeatedly.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from jahp_pl.evaluation import EvaluationError
from jahp_pl.model_io.runtimes import Runtime

STEADY = """
import json, sys, time
runtime, model, threads, rounds, path = sys.argv[1:]
if runtime == "onnx":
    from jahp_pl.runtime.load import load_runtime
    codec = load_runtime(model, threads=int(threads))
else:
    import torch
    from jahp_pl.model_io.load import load_codec
    torch.set_num_threads(int(threads))
    codec = load_codec(model)
data, seconds = open(path, "rb").read(), []
for _ in range(int(rounds) + 1):
    wall, processor = time.perf_counter(), time.process_time()
    codec.decompress(data, as_="numpy")
    seconds.append((time.perf_counter() - wall, time.process_time() - processor))
print(json.dumps(seconds[1:]))
"""


class RuntimeCost(NamedTuple):
    """Cost of one runtime on one image; medians over rounds."""

    cold_seconds: float
    """Wall time of a `jahp decompress` process."""
    cold_processor_seconds: float
    """Processor time of that process."""
    cold_megabytes: float
    """Peak resident memory of that process."""
    steady_seconds: float
    """Wall time to decode the file in a running process."""
    steady_processor_seconds: float
    """Processor time to decode the file in a running process."""
    steady_megabytes: float
    """Peak resident memory of the running process."""


def compress_in_process(image: Path, model: str) -> bytes:
    """Compress an image in another process, and return the content of the file.

    This process must stay small because the peak memory that is reported for a child process starts at this one's size.
    """
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "image.jahp"
        _run(["-m", "jahp_pl", "compress", str(image), "-o", str(path), "--model", model, "--runtime", "onnx"])
        return path.read_bytes()


def measure_runtime(runtime: Runtime, model: str, data: bytes, threads: int, rounds: int) -> RuntimeCost:
    """Measure the cost of decoding one file.

    Args:
        runtime: runtime to measure.
        model: bundled model or export that made the file.
        data: content of the file.
        threads: processor threads.
        rounds: number of cold starts, and number of repetitions in the running process.
    """
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "image.jahp"
        path.write_bytes(data)
        words = ["-m", "jahp_pl", "decompress", str(path), "-o", str(path.with_suffix(".png")), "--force"]
        words += ["--model", model, "--runtime", runtime, "--threads", str(threads)]
        cold = [_run(words) for _ in range(rounds + 1)][1:]  # the first one fills the page cache
        steady = _run(["-c", STEADY, runtime, model, str(threads), str(rounds), str(path)])
    seconds = json.loads(steady.output)
    return RuntimeCost(
        median(one.seconds for one in cold),
        median(one.processor_seconds for one in cold),
        median(one.megabytes for one in cold),
        median(wall for wall, _ in seconds),
        median(processor for _, processor in seconds),
        steady.megabytes,
    )


def runtime_table(costs: dict[Runtime, RuntimeCost]) -> str:
    """Format one line per runtime."""
    lines = [f"{'runtime':8}  {'cold start':>20}  {'memory':>7}  {'decode again':>20}  {'memory':>7}"]
    for runtime, cost in costs.items():
        cold = f"{cost.cold_seconds:.2f} s ({cost.cold_processor_seconds:.2f} s CPU)"
        steady = f"{cost.steady_seconds:.2f} s ({cost.steady_processor_seconds:.2f} s CPU)"
        lines.append(
            f"{runtime:8}  {cold:>20}  {cost.cold_megabytes:4.0f} MB  {steady:>20}  {cost.steady_megabytes:4.0f} MB"
        )
    return "\n".join(lines)


class _Run(NamedTuple):
    output: str
    seconds: float
    processor_seconds: float
    megabytes: float


def _run(words: Sequence[str]) -> _Run:
    """Run Python in a separate process, and measure its time and peak memory.

    Raises:
        EvaluationError: if the process fails; the message is the last line of its standard error.
    """
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=errors, text=True)
        assert process.stdout is not None
        with process.stdout as pipe:
            output = pipe.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            lines = errors.read().split("\n")
            reason = next((line for line in reversed(lines) if line.strip()), f"status {process.returncode}")
            raise EvaluationError(reason.removeprefix("jahp: "))
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return _Run(output, time.perf_counter() - start, usage.ru_utime + usage.ru_stime, kilobytes / 1000)
