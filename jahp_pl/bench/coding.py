"""Measures coding times: whole files compared with the transforms alone, and optionally with another program.

Everything is measured in one process on the same images. Every round runs all stages one after another, so that a
slowdown of the machine affects all of them. The results are medians over rounds and means over images.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.latents import Encoded
from jahp_pl.evaluation import EvaluationError
from jahp_pl.images.io import decode_rgb
from jahp_pl.quality import psnr
from jahp_pl.text import count_of


class CodingTimes(NamedTuple):
    """Times of the stages of coding, in seconds per image."""

    encode: float
    """Time from an image in memory to the bytes of a file."""
    decode: float
    """Time from the bytes of a file to an image in memory."""
    g_a: float
    """Time of the analysis transform in the codec's implementation."""
    h_a: float
    """Time of the hyper-analysis transform; 0 if the model has none."""
    g_s: float
    """Time of the synthesis transform in the codec's implementation."""
    module_g_a: float
    """Time of g_a with torch's own layers in channels_last, for comparison."""
    module_g_s: float
    """Time of g_s with torch's own layers in channels_last, for comparison."""

    @property
    def outside_encode(self) -> float:
        """Time of `encode` outside g_a and h_a, relative to the time in them."""
        return self.encode / (self.g_a + self.h_a) - 1

    @property
    def outside_decode(self) -> float:
        """Time of `decode` outside g_s, relative to the time in it."""
        return self.decode / self.g_s - 1


class Peer(NamedTuple):
    """Results of another program with the same weights."""

    name: str
    encode: float
    """Seconds per image."""
    decode: float
    """Seconds per image."""
    bpp: float
    """Bits per pixel, mean over images."""
    psnr: float
    """PSNR in dB (RGB, 8 bits), mean over images."""


class MeasuredImage(NamedTuple):
    """Results of one model on one image."""

    path: Path
    times: CodingTimes
    """Medians over rounds."""
    bpp: float
    """Bits per pixel of the whole file."""
    psnr: float
    """PSNR in dB (RGB, 8 bits)."""


class CodingSpeed(NamedTuple):
    """Results of one model on all images."""

    num_images: int
    rounds: int
    threads: int
    times: CodingTimes
    """Medians over rounds, means over images."""
    bpp: float
    """Bits per pixel of whole files, mean over images."""
    psnr: float
    """PSNR in dB (RGB, 8 bits), mean over images."""
    peer: Peer | None


def measure_coding(codec: Codec, paths: Sequence[Path], rounds: int) -> Iterator[MeasuredImage]:
    """Time the coding of each image, one image after another.

    Args:
        codec: codec of the model.
        paths: images.
        rounds: number of rounds, over which the median is taken.
    """
    for path in paths:
        image = torch.from_numpy(decode_rgb(path)).permute(2, 0, 1).contiguous()
        height, width = image.shape[1:]
        encoded = codec.encode(image)
        y = codec.transforms.analyze(image)
        stages = _stages(codec, image, encoded, y)
        seconds: dict[str, list[float]] = {name: [] for name in stages}
        for number in range(rounds + 1):
            for name, stage in stages.items():
                start = time.perf_counter()
                stage()
                if number:  # the first round warms up
                    seconds[name].append(time.perf_counter() - start)
        decoded = codec.decode(encoded.data).image
        times = CodingTimes(**{name: median(values) for name, values in seconds.items()})
        bpp = 8 * len(encoded.data) / (height * width)
        yield MeasuredImage(path, times, bpp, float(psnr(image[None], decoded[None])))


def _stages(codec: Codec, image: Tensor, encoded: Encoded[Tensor], y: Tensor) -> dict[str, Callable[[], Any]]:
    _, height, width = image.shape
    model, transforms, level = codec.model, codec.transforms, encoded.level
    levels = None if level is None else torch.tensor([level], device=codec.device)

    def module_g_a() -> Tensor:
        with torch.inference_mode():
            x = image[None].to(codec.device, memory_format=torch.channels_last).float() / 255
            return model.analyze(x, levels)

    def module_g_s() -> Tensor:
        with torch.inference_mode():
            latents = encoded.y_hat[None].to(codec.device, torch.float32, memory_format=torch.channels_last)
            return model.synthesize(latents, height, width, levels)

    model.g_a.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.g_s.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return {
        "encode": lambda: codec.encode(image),
        "decode": lambda: codec.decode(encoded.data),
        "g_a": lambda: transforms.analyze(image),
        "h_a": lambda: transforms.hyper_analyze(y) if model.h_a is not None else None,
        "g_s": lambda: transforms.synthesize(encoded.y_hat, height, width, level),
        "module_g_a": module_g_a,
        "module_g_s": module_g_s,
    }


def average(images: Sequence[MeasuredImage], rounds: int, peer: Peer | None) -> CodingSpeed:
    """Average over images.

    Args:
        images: all results of `measure_coding`.
        rounds: number of rounds in which they were measured.
        peer: results of another program on the same images; None without one.
    """
    times = CodingTimes(*(fmean(column) for column in zip(*(image.times for image in images), strict=True)))
    bpp, quality = fmean(image.bpp for image in images), fmean(image.psnr for image in images)
    return CodingSpeed(len(images), rounds, torch.get_num_threads(), times, bpp, quality, peer)


def measure_peer(command: str, codec: Codec, paths: Sequence[Path], rounds: int) -> Peer:
    """Run another program that codes the same images with the same weights.

    Args:
        command: command that is called with WEIGHTS ROUNDS THREADS IMAGE... WEIGHTS is a file of `torch.save` with
            "model" (settings of the architecture) and "state". The last line that the command prints must be a JSON
            object with the fields of `Peer`.
        codec: codec of the model.
        paths: images.
        rounds: number of repetitions of every stage.

    Raises:
        EvaluationError: if the program fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        torch.save({"model": vars(codec.model.config), "state": codec.model.state_dict()}, weights)
        words = [*shlex.split(command), str(weights), str(rounds), str(torch.get_num_threads()), *map(str, paths)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        reason = (done.stderr.strip() or "it printed nothing; run it alone to see why").splitlines()[-1]
        raise EvaluationError(f"{command}: {reason}")
    return Peer(**json.loads(lines[-1]))


def coding_table(name: str, speed: CodingSpeed) -> str:
    """Format the results as text for a terminal."""
    t, peer = speed.times, speed.peer
    rows = [
        (f"{name}: {count_of(speed.num_images, 'image')}, {speed.bpp:.3f} bpp, {speed.psnr:.2f} dB, "
         f"median of {speed.rounds}, {count_of(speed.threads, 'thread')}"),
        f"  encode {_ms(t.encode)}  g_a {_ms(t.g_a)}  h_a {_ms(t.h_a)}  all else {t.outside_encode:.2f} of g_a + h_a",
        f"  decode {_ms(t.decode)}  g_s {_ms(t.g_s)}                 all else {t.outside_decode:.2f} of g_s",
        (f"  torch's layers in channels_last: g_a {_ms(t.module_g_a)}, g_s {_ms(t.module_g_s)}; all else is "
         f"{t.outside_encode * (t.g_a + t.h_a) / (t.module_g_a + t.h_a):.2f} and "
         f"{t.outside_decode * t.g_s / t.module_g_s:.2f} of these"),
    ]  # fmt: skip
    if peer is not None:
        rows.append(
            f"  {peer.name}: encode {_ms(peer.encode)} ({peer.encode / t.encode:.1f} times ours), decode "
            f"{_ms(peer.decode)} ({peer.decode / t.decode:.1f} times ours), {peer.bpp:.3f} bpp, {peer.psnr:.2f} dB"
        )
    return "\n".join(rows)


def coding_to_json(speed: CodingSpeed) -> dict[str, Any]:
    """Convert the results to values that JSON can hold."""
    ratios = {"outside_encode": speed.times.outside_encode, "outside_decode": speed.times.outside_decode}
    peer = speed.peer._asdict() if speed.peer is not None else None
    return speed._asdict() | {"times": speed.times._asdict() | ratios, "peer": peer}


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:6.0f} ms"
