"""Causality of the context model over all positions, and the widths of the entropy-parameter network."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from jahp_pl.config import EntropyModelName, ModelConfig
from jahp_pl.context import ContextPrediction, EntropyParameterNetwork
from jahp_pl.model import CompressionModel

HEIGHT, WIDTH = 7, 9
LIVE_TAPS = {(-2, dx) for dx in range(-2, 3)} | {(-1, dx) for dx in range(-2, 3)} | {(0, -2), (0, -1)}


def dependence(entropy_model: EntropyModelName, num_components: int) -> dict[str, Tensor]:
    """Compute |d parameter at i / d y_hat at j| for each kind of entropy parameter, summed over channels: (HW, HW)."""
    M, K = 3, num_components
    model = CompressionModel(
        ModelConfig(entropy_model=entropy_model, num_filters=4, num_latents=M, num_components=K)
    ).double()
    with torch.no_grad():  # lift every sigma above its bound, so that its gradient is not zeroed
        model.g_ep[-1].bias[: K * M] = 5.0
    z_hat = torch.randn(1, 4, 2, 3, dtype=torch.float64) if entropy_model == "joint" else None
    y_hat = torch.randint(-4, 5, (1, M, HEIGHT, WIDTH)).double().requires_grad_()
    parameters = model.entropy_parameters(y_hat, z_hat)
    assert (parameters.sigma > 0.2).all()

    result = {}
    for name, values in parameters._asdict().items():
        if not values.requires_grad:
            assert name == "log_weights"
            assert K == 1
            continue
        rows = torch.eye(values.numel(), dtype=values.dtype).view(-1, *values.shape)
        (jacobian,) = torch.autograd.grad(values, y_hat, rows, retain_graph=True, is_grads_batched=True)
        result[name] = jacobian.view(K * M, HEIGHT * WIDTH, M, HEIGHT * WIDTH).abs().sum((0, 2))
    return result


@pytest.mark.parametrize("num_components", [1, 3])
@pytest.mark.parametrize("entropy_model", ["joint", "context"])
def test_parameters_depend_on_the_twelve_taps_before_them_and_on_nothing_else(
    entropy_model: EntropyModelName, num_components: int
) -> None:
    kinds = dependence(entropy_model, num_components)
    assert set(kinds) == {"mu", "sigma", "log_weights"} - ({"log_weights"} if num_components == 1 else set())
    for gradient in kinds.values():
        for i in range(HEIGHT * WIDTH):
            # Raster order: exactly no dependence on positions at or after i.
            assert (gradient[i, i:] == 0).all()
            for j in range(i):
                offset = (j // WIDTH - i // WIDTH, j % WIDTH - i % WIDTH)
                assert (gradient[i, j] != 0) == (offset in LIVE_TAPS), (i, j)


def test_the_first_position_is_predicted_from_the_bias_alone() -> None:
    g_cm = ContextPrediction(3)
    phi = g_cm(torch.randn(1, 3, 4, 4))
    torch.testing.assert_close(phi[0, :, 0, 0], g_cm.bias)
    assert phi.shape == (1, 6, 4, 4)


@pytest.mark.parametrize(("num_latents", "widths"), [(192, [768, 640, 512, 384]), (320, [1280, 1066, 853, 640])])
def test_widths_are_those_of_the_paper(num_latents: int, widths: list[int]) -> None:
    with torch.device("meta"):
        g_ep = EntropyParameterNetwork(num_latents, 4 * num_latents, 2 * num_latents)
    convolutions = [layer for layer in g_ep if isinstance(layer, nn.Conv2d)]
    assert [convolutions[0].in_channels, *(c.out_channels for c in convolutions)] == widths
    assert all(c.kernel_size == (1, 1) for c in convolutions)


def test_entropy_parameters_of_one_position_depend_on_no_other() -> None:
    g_ep, features = EntropyParameterNetwork(3, 12, 6), torch.randn(1, 12, 4, 5)
    expected = torch.stack([g_ep(features[..., i : i + 1, j : j + 1]) for i in range(4) for j in range(5)], -1)
    torch.testing.assert_close(g_ep(features), expected.view(1, 6, 4, 5))
