"""The shapes of weights that are computed without torch equal those of torch's model."""

from __future__ import annotations

import pytest

from jahp_pl.config import ModelConfig
from jahp_pl.model_io.build import meta_state_dict
from jahp_pl.runtime.weight_shapes import weight_shapes

ARCHITECTURES = [
    *(ModelConfig(name, num_filters=7, num_latents=11) for name in
      ("factorized", "scale_hyperprior", "mean_scale_hyperprior", "context", "joint")),
    *(ModelConfig(name, likelihood="laplace", num_components=3, num_levels=5) for name in
      ("scale_hyperprior", "mean_scale_hyperprior", "context", "joint")),
    ModelConfig(entropy_model="mean_scale_hyperprior", num_latents=30, entropy_width=20),
    ModelConfig(entropy_model="joint", num_latents=30, entropy_width=20, num_components=2),
]  # fmt: skip


@pytest.mark.parametrize("config", ARCHITECTURES, ids=lambda config: f"{config.entropy_model}-{config.num_components}")
def test_every_weight_has_the_shape_it_has_in_torch(config: ModelConfig) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in meta_state_dict(config).items()}
    assert {name: shape for name, (shape,) in weight_shapes(config).items()} == expected
