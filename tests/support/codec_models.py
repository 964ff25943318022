"""Small models whose densities fit their latents, for the tests of the codec.

The transforms come from `golden/joint.pt`, a joint model with N = 8 and M = 12 that was trained for seven minutes on
the bundled photographs. Every other entropy model, family and number of components has the same transforms and its own
densities, which are trained for forty steps on the latents of two photographs.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from jahp_pl.codec.codec import Codec
from jahp_pl.config import DensityName, EntropyModelName, LossConfig, ModelConfig, model_from_dict
from jahp_pl.model import CompressionModel

TESTS = Path(__file__).parents[1]
GOLDEN = TESTS / "golden"
PHOTOS = TESTS.parent / "data" / "photos" / "train"
KODAK = TESTS.parent / "data" / "kodak"
NUM_FILTERS, NUM_LATENTS = 8, 12
STEPS = 40


class Variant(NamedTuple):
    """Entropy model, density and number of mixture components of a model."""

    entropy_model: EntropyModelName
    family: DensityName = "gaussian"
    num_components: int = 1

    def __str__(self) -> str:
        return f"{self.entropy_model}-{self.family}-{self.num_components}"

    def config(self, num_filters: int = NUM_FILTERS, num_latents: int = NUM_LATENTS) -> ModelConfig:
        return ModelConfig(self.entropy_model, num_filters, num_latents, self.family, self.num_components)


FAMILIES: tuple[DensityName, ...] = ("gaussian", "laplace", "logistic")
CONDITIONAL: tuple[EntropyModelName, ...] = ("scale_hyperprior", "mean_scale_hyperprior", "context", "joint")
ALL = [Variant("factorized"), *(Variant(r, f, k) for r in CONDITIONAL for f in FAMILIES for k in (1, 3))]
ONE_OF_EACH = [
    Variant("factorized"), Variant("scale_hyperprior"), Variant("scale_hyperprior", "logistic", 3),
    Variant("mean_scale_hyperprior", "laplace"), Variant("mean_scale_hyperprior", "gaussian", 3),
    Variant("context", "gaussian"), Variant("context", "laplace", 3),
    Variant("joint"), Variant("joint", "logistic"), Variant("joint", "gaussian", 3),
]  # fmt: skip
JOINT, MIXTURE = Variant("joint"), Variant("joint", "gaussian", 3)
IMAGE_SIZES = [(1, 1), (5, 7), (16, 16), (17, 33), (70, 70), (3, 200)]
"""Heights and widths of small images, most of which must be padded."""


def load_golden(name: str) -> CompressionModel:
    """Load a model of `golden/` in evaluation mode; weights missing from its file are those of `joint.pt`."""
    stored = torch.load(GOLDEN / f"{name}.pt", weights_only=True)
    model = CompressionModel(model_from_dict(stored["model"]))
    state = {} if name == "joint" else torch.load(GOLDEN / "joint.pt", weights_only=True)["state"]
    model.load_state_dict({key: value.float() for key, value in {**state, **stored["state"]}.items()})
    return model.eval()


@functools.cache
def model_of(variant: Variant) -> CompressionModel:
    """Return a trained model in evaluation mode; it is shared and must not be changed."""
    golden = load_golden("joint")
    if variant == JOINT:
        return golden
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CompressionModel(variant.config())
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        is_prior_of_y = variant.entropy_model == "factorized"
        kept = {
            key: value
            for key, value in golden.state_dict().items()
            if shapes.get(key) == value.shape and not (is_prior_of_y and key.startswith("prior"))
        }
        model.load_state_dict(kept, strict=False)
        train_entropy_model(model, latents())
    return model.eval()


def variable_model(variant: Variant = JOINT, num_levels: int = 4) -> CompressionModel:
    """Return `model_of` with gains from high-rate theory, not trained further."""
    model = model_of(variant)
    variable = CompressionModel(dataclasses.replace(model.config, num_levels=num_levels)).eval()
    variable.load_state_dict(model.state_dict(), strict=False)
    assert variable.gains is not None
    variable.gains.initialize(LossConfig(lmbda=0.002, lmbda_max=0.1))
    return variable


@functools.cache
def variable_codec(variant: Variant = JOINT) -> Codec:
    """Return the shared codec of `variable_model`."""
    return Codec(variable_model(variant))


@functools.cache
def codec_of(variant: Variant) -> Codec:
    """Return the codec of `model_of`, which is stateless and shared."""
    return Codec(model_of(variant))


@functools.cache
def latents() -> Tensor:
    """Return y of two photographs: (2, M, 16, 16)."""
    crops = [read(path)[100:356, 100:356] for path in sorted(PHOTOS.glob("*.jpg"))[::18]]
    x = torch.from_numpy(np.stack(crops)).movedim(-1, 1).float() / 255
    with torch.no_grad():
        return load_golden("joint").analyze(x)


@torch.enable_grad()
def train_entropy_model(model: CompressionModel, y: Tensor, steps: int = STEPS) -> None:
    """Minimize the noisy rate of fixed latents over all parameters except those of g_a and g_s."""
    networks = [n for n in (model.h_a, model.h_s, model.g_cm, model.g_ep, model.prior) if n is not None]
    optimizer = torch.optim.Adam([p for network in networks for p in network.parameters()], lr=3e-3, fused=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        noisy = y + torch.rand_like(y) - 0.5
        if model.config.entropy_model == "factorized":
            assert model.prior is not None
            bits = model.prior.bits(noisy).sum()
        else:
            z = None
            bits = y.new_zeros(())
            if model.h_a is not None and model.prior is not None:
                z = model.h_a(y)
                z = z + torch.rand_like(z) - 0.5
                bits = model.prior.bits(z).sum()
            bits = bits + model.density.bits(noisy, model.entropy_parameters(noisy, z)).sum()
        optimizer.zero_grad()
        torch.autograd.backward(bits / y.numel())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def read(path: Path) -> npt.NDArray[np.uint8]:
    """Read an image as (H, W, 3)."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


@functools.cache
def kodak_crop(name: str = "kodim23", height: int = 256, width: int = 384) -> npt.NDArray[np.uint8]:
    """Cut (height, width, 3) out of the middle of a Kodak image; do not change the array."""
    image = read(KODAK / f"{name}.png")
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[top : top + height, left : left + width])


def kodak_patch(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Cut (height, width, 3) out of the corner of a photograph, which is repeated if the patch is larger."""
    rows, columns = np.arange(height) % 256, np.arange(width) % 384
    return np.ascontiguousarray(kodak_crop("kodim05")[rows][:, columns])
