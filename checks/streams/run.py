# ruff: noqa: T201
"""Measures the memory of `jahp shards` and of a data worker over 100,000 photographs.

    python -m checks.streams.run --output results/streams.json

The photographs have only 16 x 16 pixels, so that any growth of memory with their number is visible.
"""

from __future__ import annotations

import argparse
import io
import itertools
import os
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from checks.processes import run_command
from jahp_pl.data.pipeline import CropOptions, CropStream, StreamSeed
from jahp_pl.data.urls import expand_shards
from jahp_pl.files.atomic import write_json
from jahp_pl.measurement.provenance import provenance

MAX_BYTES_PER_PHOTO = 1000
"""Maximum growth of `jahp shards` in bytes per photograph, for its name and a digest to find duplicates."""
MAX_WORKER_GROWTH = 8 * 2**20
"""Maximum growth of a worker in bytes, from the first tenth of its crops to the last crop."""


def write_archive(path: Path, count: int) -> None:
    """Write an archive of this many different photographs."""
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for number in range(count):
            buffer = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(buffer, "BMP")
            info = tarfile.TarInfo(f"holiday/photograph-{number:08d}.bmp")
            info.size = len(buffer.getvalue())
            buffer.seek(0)
            tar.addfile(info, buffer)


def peak_of_shards(archive: Path, out: Path) -> int:
    """Pack an archive with `jahp shards`, and return the peak memory of the process in bytes.

    Raises:
        SystemExit: if the process fails.
    """
    return run_command("shards", str(archive), "-o", str(out), "--min-side", "16").bytes


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure both; the exit status is 1 if something grows too much."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, metavar="N", help="number of photographs [100000]")
    parser.add_argument("-o", "--output", type=Path, help="result")
    arguments = parser.parse_args()
    few, many = arguments.count // 10, arguments.count
    with tempfile.TemporaryDirectory() as name:
        folder, peaks = Path(name), []
        for count in (few, many):
            write_archive(folder / f"{count}.tar", count)
            peaks.append(peak_of_shards(folder / f"{count}.tar", folder / f"shards-{count}"))
        urls = expand_shards([str(folder / f"shards-{many}")], "data.train").urls
        crops = iter(CropStream(urls, CropOptions(16, decoded_bytes=2**20), StreamSeed(), 1000))
        sizes = []
        for count in (few, many - few):
            for _ in itertools.islice(crops, count):
                pass
            sizes.append(resident())
    growth = {
        "shards_bytes_per_photo": (peaks[1] - peaks[0]) / (many - few),
        "worker_bytes": sizes[1] - sizes[0],
    }
    print(f"jahp shards: {peaks[0] / 2**20:.0f} MiB for {few} photographs, {peaks[1] / 2**20:.0f} MiB for {many}: "
          f"{growth['shards_bytes_per_photo']:.0f} bytes a photograph")  # fmt: skip
    print(f"data worker: {sizes[0] / 2**20:.0f} MiB after {few} crops, {sizes[1] / 2**20:.0f} MiB after {many}")
    if arguments.output is not None:
        content = (
            provenance(["python", "-m", "checks.streams.run", *sys.argv[1:]])
            | {"photos": [few, many], "shards": peaks, "worker": sizes}
            | growth
        )
        write_json(arguments.output, content)
    sys.exit(growth["shards_bytes_per_photo"] > MAX_BYTES_PER_PHOTO or growth["worker_bytes"] > MAX_WORKER_GROWTH)


if __name__ == "__main__":
    main()
