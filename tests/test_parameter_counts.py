"""Models have as many parameters as published, and each part adds what it must."""

from __future__ import annotations

import pytest
import torch

from jahp_pl.config import EntropyModelName, ModelConfig
from jahp_pl.model import CompressionModel

PUBLISHED = {  # with 3 quantiles per channel of the factorized density, which this project does not have
    (128, 192): (2_998_147, 5_075_843, 7_028_003, 9_888_931),
    (192, 192): (5_793_795, 10_144_899, 11_269_539, 14_130_467),
    (192, 320): (7_030_531, 11_816_323, 17_561_699, 25_504_596),
}


def count(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in CompressionModel(config).parameters())


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize(
    ("column", "entropy_model"), list(enumerate(["factorized", "scale_hyperprior", "mean_scale_hyperprior", "joint"]))
)
def test_parameter_counts_are_the_published_ones(
    size: tuple[int, int], column: int, entropy_model: EntropyModelName
) -> None:
    num_filters, num_latents = size
    quantiles = 3 * (num_latents if entropy_model == "factorized" else num_filters)
    ours = count(ModelConfig(entropy_model=entropy_model, num_filters=num_filters, num_latents=num_latents))
    assert ours == PUBLISHED[size][column] - quantiles


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_context_entropy_model_is_the_joint_model_without_side_information(size: tuple[int, int]) -> None:
    N, M = size
    hyper_analysis = (9 * M + 1) * N + 2 * (25 * N + 1) * N
    hyper_synthesis = (25 * N * M + M) + (25 * M + 1) * (M * 3 // 2) + (9 * (M * 3 // 2) + 1) * 2 * M
    density = N * (3 + 9 + 9 + 9 + 3 + 3 * 4 + 1 + 3 * 4)  # matrices, biases, factors
    psi_weights = 2 * M * (M * 10 // 3)  # of g_ep's first layer
    joint = count(ModelConfig(entropy_model="joint", num_filters=N, num_latents=M))
    context = count(ModelConfig(entropy_model="context", num_filters=N, num_latents=M))
    assert context == joint - hyper_analysis - hyper_synthesis - density - psi_weights


@pytest.mark.parametrize("num_components", [2, 3, 5])
@pytest.mark.parametrize("entropy_model", ["context", "joint"])
def test_k_components_add_only_outputs_of_the_last_layer(entropy_model: EntropyModelName, num_components: int) -> None:
    M, sizes = 192, {"num_filters": 192, "num_latents": 192}
    mixture = count(ModelConfig(entropy_model=entropy_model, num_components=num_components, **sizes))
    extra_outputs = 3 * num_components * M - 2 * M
    assert mixture - count(ModelConfig(entropy_model=entropy_model, **sizes)) == extra_outputs * (M * 8 // 3 + 1)
