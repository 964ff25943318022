# ruff: noqa: T201
"""Compares this project's networks and likelihoods with CompressAI 1.2.8, weight for weight, on photographs.

Every entropy model that CompressAI has is built with it at the published sizes with random weights, and at a small size
that is trained for some hundred steps. This project loads the weights strictly, and both process the same images and
latents in float32 on one CPU thread. The program prints a table, writes a JSON file, and exits with status 1 if a bound
is exceeded.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import math
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from checks.parity import oracle
from checks.parity.counts import SIZES, count_parameters, print_counts
from checks.parity.oracle import Answers
from jahp_pl.config import ModelConfig
from jahp_pl.entropy_model import EntropyParameters
from jahp_pl.files.atomic import write_json
from jahp_pl.model import CompressionModel
from jahp_pl.model_io import compressai

BOUND = 1e-5
"""Maximum deviation: absolute for likelihoods, relative for the bits of an image; for each element of everything else,
absolute up to a magnitude of 1 and relative above."""

SMALL = (64, 96)
"""(N, M) of the models that this program trains."""

CROP = (256, 384)
"""Height and width of the compared crops in pixels; CompressAI's hyperpriors accept only multiples of 64."""

QUANTITIES = ("y", "z", "mu", "sigma", "p_y", "p_z", "x_hat", "bits")


class Deviations(NamedTuple):
    """Largest deviation of each quantity over all images, for one pair of models with equal weights."""

    entropy_model: str
    num_filters: int
    num_latents: int
    steps: int
    """Number of training steps; 0 for random weights."""
    losses: tuple[float, float] | None
    """Loss before and after training, each the mean of ten steps; None without training."""
    largest: dict[str, float]
    """Largest deviation by quantity, measured as for `BOUND`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; the exit status is 1 if a bound is exceeded."""
    options = parse_arguments(arguments)
    torch.set_num_threads(1)
    photographs = read_photographs(options.photographs)
    if len(photographs) < options.images:
        sys.exit(f"{options.photographs}: {options.images} photographs of {CROP[1]}x{CROP[0]} or more are needed here")
    crops = [center_crop(photograph) for photograph in photographs[: options.images]]

    counts = list(count_parameters())
    print_counts(counts)
    print_heading()
    results = []
    for result in compare_all(photographs, crops, options.steps):
        print_deviations(result)
        results.append(result)

    worst = {name: max(r.largest.get(name, 0.0) for r in results) for name in QUANTITIES}
    passed = all(count.is_equal for count in counts) and all(value <= BOUND for value in worst.values())
    content = {
        "command": shlex.join([Path(sys.executable).name, "-m", "checks.parity.compare", *(arguments or sys.argv[1:])]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {name: importlib.metadata.version(name) for name in ("compressai", "torch", "numpy", "pillow")}
        | {"python": platform.python_version(), "cpu": torch.backends.cpu.get_cpu_capability()},
        "images": f"{options.images} crops of {CROP[1]}x{CROP[0]}",
        "bound": BOUND,
        "passed": passed,
        "worst": worst,
        "parameters": [count._asdict() for count in counts],
        "deviations": [result._asdict() for result in results],
    }  # fmt: skip
    write_json(options.output, content)
    print(f"\n{'equal' if passed else 'NOT EQUAL'} within {BOUND:g}; details in {options.output}")
    return 0 if passed else 1


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m checks.parity.compare", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--photographs", type=Path, default=Path("data/photos/train"), help="folder (%(default)s)")
    parser.add_argument("-o", "--output", type=Path, default=Path("results/parity.json"), help="result (%(default)s)")
    parser.add_argument("--images", type=int, default=3, help="photographs compared (%(default)s)")
    parser.add_argument("--steps", type=int, default=100, help="training steps of each small model (%(default)s)")
    return parser.parse_args(arguments)


def read_photographs(folder: Path) -> list[Tensor]:
    """Read every photograph in `folder` that is at least as large as `CROP`, by name, as (3, H, W) in [0, 1]."""
    photographs = []
    for path in sorted(p for p in folder.glob("*") if p.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp")):
        with Image.open(path) as image:
            pixels = np.array(ImageOps.exif_transpose(image).convert("RGB"))
        if pixels.shape[0] >= CROP[0] and pixels.shape[1] >= CROP[1]:
            photographs.append(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255)
    return photographs


def center_crop(photograph: Tensor) -> Tensor:
    """Cut out the central crop of size `CROP`: (3, H, W) -> (1, 3, height, width)."""
    top, left = ((size - crop) // 2 for size, crop in zip(photograph.shape[1:], CROP, strict=True))
    return photograph[None, :, top : top + CROP[0], left : left + CROP[1]]


def compare_all(photographs: Sequence[Tensor], crops: Sequence[Tensor], steps: int) -> Iterator[Deviations]:
    """Compare every model that CompressAI has, with random weights at every published size, then small and trained."""
    for (N, M), num_steps in [(size, 0) for size in SIZES] + [(SMALL, steps)]:
        for entropy_model, build in oracle.CLASSES.items():
            torch.manual_seed(0)
            theirs = build(N, M).eval()
            losses = oracle.train_briefly(theirs, photographs, num_steps) if num_steps else []
            first_last = (fmean(losses[:10]), fmean(losses[-10:])) if losses else None
            state = theirs.state_dict()
            config = compressai.infer_architecture(state)
            assert config == ModelConfig(entropy_model, N, M)  # type: ignore[arg-type]
            ours = CompressionModel(config).eval()
            ours.load_state_dict(compressai.rename_weights(state), strict=True)
            yield Deviations(entropy_model, N, M, num_steps, first_last, largest_deviations(theirs, ours, crops))


@torch.no_grad()
def largest_deviations(theirs: Any, ours: CompressionModel, crops: Sequence[Tensor]) -> dict[str, float]:
    """Return the largest deviation of each quantity over all crops, with the crops' latents and with stretched ones."""
    largest: dict[str, float] = {}
    for x in crops:
        y, z = oracle.latents(theirs, x)
        our_y = ours.analyze(x)
        our_z = ours.h_a(our_y) if ours.h_a is not None else None
        found = [("y", relative(our_y, y)), ("z", relative(our_z, z))]

        # Compare this project's forward pass with CompressAI's modules on the same rounded latents.
        out = ours(x)
        z_hat = None if our_z is None else our_z.round()
        found += deviations(
            as_answers(out.x_hat, out.parameters, out.bits_y, out.bits_z), oracle.answers(theirs, out.y_hat, z_hat)
        )

        # With random weights nearly all latents round to zero, so repeat with latents of standard deviation 4. They
        # are rounded around CompressAI's medians, which are not integers after training.
        y_hat, z_hat = stretch(y).round(), z
        if z is None:
            y_hat = (stretch(y) - oracle.medians(theirs)).round() + oracle.medians(theirs)
        else:
            z_hat = (stretch(z) - oracle.medians(theirs)).round() + oracle.medians(theirs)
        found += deviations(ask(ours, y_hat, z_hat), oracle.answers(theirs, y_hat, z_hat))

        for name, deviation in found:
            if deviation is not None:
                largest[name] = max(largest.get(name, 0.0), deviation)
    return largest


def stretch(latents: Tensor) -> Tensor:
    """Scale latents to a standard deviation of at least 4."""
    return latents * max(1.0, 4.0 / float(latents.std()))


def ask(ours: CompressionModel, y_hat: Tensor, z_hat: Tensor | None) -> Answers:
    """Compute this project's results for given latents."""
    assert ours.prior is not None
    x_hat = ours.synthesize(y_hat, y_hat.shape[-2] * 16, y_hat.shape[-1] * 16)
    if z_hat is None:
        return as_answers(x_hat, None, ours.prior.bits(y_hat), y_hat.new_zeros(1, 0, 0, 0))
    parameters = ours.entropy_parameters(y_hat, z_hat)
    return as_answers(x_hat, parameters, ours.density.bits(y_hat, parameters), ours.prior.bits(z_hat))


def as_answers(x_hat: Tensor, parameters: EntropyParameters | None, bits_y: Tensor, bits_z: Tensor) -> Answers:
    """Convert this project's results, which have one component, to the oracle's form."""
    p_y, p_z = torch.exp2(-bits_y), torch.exp2(-bits_z)
    bits = float(bits_y.double().sum() + bits_z.double().sum())
    if parameters is None:
        return Answers(x_hat, None, None, p_y, None, bits)
    return Answers(x_hat, parameters.mu[:, 0], parameters.sigma[:, 0], p_y, p_z, bits)


def deviations(ours: Answers, theirs: Answers) -> list[tuple[str, float | None]]:
    """Return (quantity, deviation) as for `BOUND`; None for quantities that the model lacks."""
    return [
        ("mu", relative(ours.mu, theirs.mu)),
        ("sigma", relative(ours.sigma, theirs.sigma)),
        ("p_y", absolute(ours.p_y, theirs.p_y)),
        ("p_z", absolute(ours.p_z, theirs.p_z)),
        ("x_hat", relative(ours.x_hat, theirs.x_hat)),
        ("bits", abs(ours.bits / theirs.bits - 1)),
    ]


def absolute(ours: Tensor | None, theirs: Tensor | None) -> float | None:
    """Return the largest |ours - theirs|; NaN counts as infinite."""
    if ours is None or theirs is None:
        assert ours is theirs
        return None
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().nan_to_num(nan=math.inf).max())


def relative(ours: Tensor | None, theirs: Tensor | None) -> float | None:
    """Return the largest |ours - theirs| / max(1, |theirs|); NaN counts as infinite."""
    if ours is None or theirs is None:
        return absolute(ours, theirs)
    scale = theirs.abs().clamp(min=1.0)
    return absolute(ours / scale, theirs / scale)


def print_heading() -> None:
    """Print the heading of the table of deviations."""
    print(f"\n{'largest deviation, N, M, steps':38}" + "".join(f"{name:>9}" for name in QUANTITIES))


def print_deviations(result: Deviations) -> None:
    """Print one row of the table of deviations."""
    cells = [f"{result.largest[name]:9.1e}" if name in result.largest else f"{'-':>9}" for name in QUANTITIES]
    verdict = "" if max(result.largest.values()) <= BOUND else "  EXCEEDED"
    if result.losses:
        verdict += "  loss {:.1f} -> {:.1f}".format(*result.losses)
    head = f"{result.entropy_model:22}{result.num_filters:5},{result.num_latents:4},{result.steps:4} "
    print(f"{head:38}" + "".join(cells) + verdict, flush=True)


if __name__ == "__main__":
    sys.exit(main())
