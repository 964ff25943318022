# ruff: noqa: T201
"""Checks that latents are equal under all circumstances, for full-size models on all of Kodak: `make exactness`.

    python -m checks.exactness.run MODEL... --images data/kodak --output results/exactness.json

Each image is encoded once. Under each of the circumstances below, encoding again must give the same bytes, and decoding
must give the encoder's latents. Settings that must be made before a process starts are tried in worker processes.
Pixels are not compared, because no decoded latent depends on them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from checks.images import add_kodak_images, chosen_images
from jahp_pl.codec.bitstream import MAX_PIXELS
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy.latent_coder import TorchLatentBatch
from jahp_pl.codec.entropy.range_coder import Writer
from jahp_pl.codec.entropy.symbol_coder import DecodeTask, LatentRange
from jahp_pl.codec.latents import Encoded
from jahp_pl.codec.targets import Target
from jahp_pl.files.atomic import write_json
from jahp_pl.images.io import decode_rgb
from jahp_pl.measurement.provenance import provenance
from jahp_pl.model_io.load import load_codec
from tests.support.circumstances import changed

PROCESSES = {
    "another process": {},
    "ATEN_CPU_CAPABILITY=default": {"ATEN_CPU_CAPABILITY": "default"},
    "ATEN_CPU_CAPABILITY=avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "MKL_CBWR=COMPATIBLE": {"MKL_CBWR": "COMPATIBLE"},
    "MKL_CBWR=SSE4_2, one thread": {"MKL_CBWR": "SSE4_2", "OMP_NUM_THREADS": "1"},
    "MKL_DEBUG_CPU_TYPE=5, OMP_DYNAMIC": {"MKL_DEBUG_CPU_TYPE": "5", "OMP_DYNAMIC": "true"},
    "DNNL_MAX_CPU_ISA=SSE41": {"DNNL_MAX_CPU_ISA": "SSE41", "ONEDNN_MAX_CPU_ISA": "SSE41"},
}
"""Environment variables of worker processes, by name of the circumstance."""


CIRCUMSTANCES: dict[str, Callable[[], Any]] = {
    "1 thread": lambda: changed(torch.set_num_threads, 1, torch.get_num_threads()),
    "2 threads": lambda: changed(torch.set_num_threads, 2, torch.get_num_threads()),
    "oneDNN off": lambda: torch.backends.mkldnn.flags(enabled=False),
    "float64 by default": lambda: changed(torch.set_default_dtype, torch.float64, torch.get_default_dtype()),
    "bfloat16 by default": lambda: changed(torch.set_default_dtype, torch.bfloat16, torch.get_default_dtype()),
    "matmul precision medium": lambda: changed(
        torch.set_float32_matmul_precision, "medium", torch.get_float32_matmul_precision()
    ),
    "under autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}
"""Settings that a caller may make within a process, by name of the circumstance."""


def targets(codec: Codec) -> list[Target | None]:
    """Return the targets to encode for: the lowest, a middle and the highest level of a variable-rate model."""
    last = codec.num_levels - 1
    return [None] if not last else [Target(level=level) for level in (0, 0.55 * last, last)]


def payload_of(codec: Codec, encoded: Encoded[Tensor]) -> bytes:
    """Encode the latents once more with the full-frame encoder."""
    writer = Writer()
    codec._write(writer, encoded.y_hat, encoded.z_hat)
    return writer.payload()


def differences(codec: Codec, encoded: Encoded[Tensor]) -> int:
    """Count the latents that the wavefront decoder gets wrong, plus one if the encoder writes other bytes."""
    payload = payload_of(codec, encoded)
    wrong = 0 if encoded.data.endswith(payload) else 1
    _, task = codec._open(encoded.data, MAX_PIXELS)
    assert codec.latents is not None
    (y_hat,) = codec.latents.read([task])
    return wrong + count_different(y_hat, encoded.y_hat) + count_different(task.z_hat, encoded.z_hat)


def count_different(a: Tensor | None, b: Tensor | None) -> int:
    """Count the elements that differ; 0 if the latents are absent."""
    return 0 if a is None or b is None else int((a != b).sum())


def raster_differences(codec: Codec, encoded: Encoded[Tensor]) -> int:
    """Count the raw parameters that differ between a scan in raster order and the computation of a whole map at once.

    In the scan, the context of a position has only the latents that precede it; the rest of the buffer is overwritten.
    """
    assert codec.latents is not None
    _, height, width = encoded.y_hat.shape
    latent_range = LatentRange.of(encoded.y_hat)
    symbols = encoded.y_hat.flatten(1).T.contiguous()
    with torch.inference_mode():
        whole, growing = (
            TorchLatentBatch(codec.latents, [(height, width)], [encoded.z_hat], latent_range) for _ in range(2)
        )
        ranks = whole.order.ranks[0]
        in_order = torch.empty_like(symbols)
        in_order[ranks] = symbols
        whole.insert(0, in_order.numpy())
        expected = whole.raw(0, height * width)
        growing.y[:, 1:] = 77.0
        wrong = 0
        for position, rank in enumerate(ranks.tolist()):
            wrong += int((growing.raw(rank, rank + 1) != expected[rank]).sum())
            growing.insert(rank, symbols[position : position + 1].numpy())
    return wrong


def lockstep_differences(codec: Codec, several: list[Encoded[Tensor]]) -> int:
    """Decode several images in lockstep, and count the latents that differ."""
    assert codec.latents is not None
    tasks: list[DecodeTask[Tensor]] = [codec._open(encoded.data, MAX_PIXELS)[1] for encoded in several]
    y_hats = codec.latents.read(tasks)
    return sum(count_different(y, encoded.y_hat) for y, encoded in zip(y_hats, several, strict=True))


def worker(model: str, files: list[str]) -> None:
    """Print the hashes of the latents and the payload of every file; called in a worker process."""
    codec = load_codec(model)
    for name in files:
        data = Path(name).read_bytes()
        opened, task = codec._open(data, MAX_PIXELS)
        assert codec.latents is not None
        (y_hat,) = codec.latents.read([task])
        writer = Writer()
        codec._write(writer, y_hat, task.z_hat)
        print(latent_sum(y_hat, task.z_hat), hashlib.sha256(writer.payload()).hexdigest(), opened.header.width)


def latent_sum(y_hat: Tensor, z_hat: Tensor | None) -> str:
    """Hash latents: SHA-256 over their int32 values."""
    parts = [y_hat] if z_hat is None else [y_hat, z_hat]
    return hashlib.sha256(b"".join(p.numpy().astype(np.int32).tobytes() for p in parts)).hexdigest()


def run_workers(model: str, encoded: list[Encoded[Tensor]], folder: Path) -> dict[str, int]:
    """Count the files that differ in worker processes, by circumstance."""
    names = []
    for number, one in enumerate(encoded):
        names.append(str(folder / f"{number}.jahp"))
        Path(names[-1]).write_bytes(one.data)
    wrong = {}
    for circumstance, variables in PROCESSES.items():
        command = [sys.executable, "-m", "checks.exactness.run", model, "--worker", *names]
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
        lines = done.stdout.splitlines()
        if done.returncode != 0 or len(lines) != len(encoded):
            raise SystemExit(f"{circumstance}: {done.stderr.strip().splitlines()[-1:]}")
        wrong[circumstance] = 0
        for one, line in zip(encoded, lines, strict=True):
            latents, payload, _ = line.split()
            payload_sum = hashlib.sha256(one.data[one.header_bytes :]).hexdigest()
            wrong[circumstance] += latents != latent_sum(one.y_hat, one.z_hat) or payload != payload_sum
        print(f"  {circumstance}: {wrong[circumstance]} of {len(encoded)} files differ", flush=True)
    return wrong


def check(model: str, images: list[Path], batch: int, folder: Path) -> dict[str, Any]:
    """Check one model under all circumstances."""
    codec = load_codec(model)
    print(f"{model}: {codec.fingerprint.hex()}, {len(images)} images", flush=True)
    encoded = [codec.encode(decode_rgb(path), target) for target in targets(codec) for path in images]
    wrong: dict[str, int] = {}
    for name, circumstance in CIRCUMSTANCES.items():
        with circumstance():
            fresh = load_codec(model)  # so that the weights are converted to integers under the circumstance too
            same = fresh.fingerprint == codec.fingerprint
            wrong[name] = sum(differences(fresh, one) for one in encoded) if same else -1
        print(f"  {name}: {wrong[name]} latents differ", flush=True)
    lockstep = f"{batch} images in lockstep"
    wrong[lockstep] = sum(
        lockstep_differences(codec, encoded[first : first + batch]) for first in range(0, len(encoded), batch)
    )
    print(f"  {lockstep}: {wrong[lockstep]} latents differ", flush=True)
    wrong["raster order"] = sum(raster_differences(codec, one) for one in encoded)
    print(f"  raster order: {wrong['raster order']} parameters differ", flush=True)
    wrong |= run_workers(model, encoded, folder)
    if torch.cuda.is_available():
        on_gpu = load_codec(model, "cuda")
        wrong["CUDA"] = sum(differences(on_gpu, one) for one in encoded)
    latents = sum(one.y_hat.numel() for one in encoded)
    return {"model": vars(codec.model.config), "latents": latents, "differences": wrong}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="a bundled model's name, an export, a run or a checkpoint"
    )
    add_kodak_images(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="use the first N images only")
    parser.add_argument("--batch", type=int, default=4, help="images in lockstep (%(default)s)")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("results/exactness.json"), help="result (%(default)s)"
    )
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        worker(options.models[0], options.worker)
        return
    start = time.monotonic()
    images = [image.source for image in chosen_images(options, options.limit)]
    content: dict[str, Any] = provenance(["python", "-m", "checks.exactness.run", *sys.argv[1:]])
    folder = options.output.parent / ".exactness"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        content["models"] = [check(model, images, options.batch, folder) for model in options.models]
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    content["seconds"] = round(time.monotonic() - start)
    write_json(options.output, content, indent=2)
    total = sum(abs(number) for model in content["models"] for number in model["differences"].values())
    print(f"{total} differences; details in {options.output}")
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
