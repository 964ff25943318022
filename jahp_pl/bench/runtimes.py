"""What a runtime costs: a cold start of the command, decoding in a process that goes on, and memory.

Each cold start is a process of its own, `jahp decompress` from its first instruction to its last; the steady state is
that of another process, which decodes the same file again and again.
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
    """Of one runtime on one image; medians over the rounds."""

    cold_seconds: float
    """Of `jahp decompress` as a whole."""
    cold_processor_seconds: float
    """The same on the processor: without the time that it waited for others."""
    cold_megabytes: float
    """Largest resident memory of that process."""
    steady_seconds: float
    """To decode the file once more."""
    steady_processor_seconds: float
    steady_megabytes: float
    """Largest resident memory of the process that decodes again and again."""


def compressed(image: Path, model: str) -> bytes:
    """The file of an image, made by another process: what this one holds in memory, its children would start with."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "image.jahp"
        _run(["-m", "jahp_pl", "compress", str(image), "-o", str(path), "--model", model, "--runtime", "onnx"])
        return path.read_bytes()


def measure_runtime(runtime: Runtime, model: str, data: bytes, threads: int, rounds: int) -> RuntimeCost:
    """The cost of decoding one file.

    Args:
        runtime: to be measured.
        model: bundled model or export that made the file.
        data: the file.
        threads: of the processor.
        rounds: cold starts, and decodings in a process that goes on.
    """
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "image.jahp"
        path.write_bytes(data)
        words = ["-m", "jahp_pl", "decompress", str(path), "-o", str(path.with_suffix(".png")), "--force"]
        words += ["--model", model, "--runtime", runtime, "--threads", str(threads)]
        cold = [_run(words) for _ in range(rounds + 1)][1:]  # the first fills the caches of the disk
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
    """One line for each runtime."""
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
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as pipe:
        output = pipe.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    return _Run(output, time.perf_counter() - start, usage.ru_utime + usage.ru_stime, kilobytes / 1000)
