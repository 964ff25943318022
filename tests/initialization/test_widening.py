"""Widening a trained model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from jahp_pl.config import LossConfig, ModelConfig
from jahp_pl.initialization import widening
from jahp_pl.initialization.warm_start import initialize, latent_scale
from jahp_pl.initialization.widening import can_widen, widen
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.export import export
from jahp_pl.model_io.load import load_codec
from jahp_pl.runtime.load import load_runtime

MODELS = {
    "factorized": {"entropy_model": "factorized"},
    "scale only": {"entropy_model": "scale_hyperprior"},
    "mean and scale": {"entropy_model": "mean_scale_hyperprior", "likelihood": "laplace"},
    "context": {"entropy_model": "context"},
    "joint": {"entropy_model": "joint"},
    "mixture": {"entropy_model": "joint", "num_components": 3},
    "levels": {"entropy_model": "joint", "num_levels": 4},
}
WIDTHS = {"num_filters": 16, "num_latents": 24}


@pytest.fixture(autouse=True)
def few_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    """The residual of a small model needs few images."""
    monkeypatch.setattr(widening, "NUM_BATCHES", 2)


def model_before(**settings: object) -> CompressionModel:
    """A model whose every weight differs from its initial value, as after training."""
    torch.manual_seed(1)
    model = CompressionModel(ModelConfig(**WIDTHS | settings)).eval()  # type: ignore[arg-type]
    initialize(model, latent_scale(LossConfig()))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter) * parameter.abs().mean()
    return model


def wider(model: CompressionModel, num_latents: int = 40) -> ModelConfig:
    return replace(model.config, num_latents=num_latents, entropy_width=model.config.num_latents)


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_the_old_latents_their_bits_and_the_reconstruction_stay(
    settings: dict[str, object], photos: torch.Tensor
) -> None:
    before = model_before(**settings)
    after = widen(before, wider(before)).eval()
    level = None if before.gains is None else torch.linspace(0, before.config.num_levels - 1, len(photos))
    with torch.no_grad():
        old, new = before(photos, level=level), after(photos, level=level)
    assert torch.equal(new.y_hat[:, :24], old.y_hat)
    assert torch.allclose(new.bits_y[:, :24], old.bits_y, atol=1e-3)
    assert torch.allclose(new.bits_z, old.bits_z, atol=1e-3)
    assert torch.allclose(new.x_hat, old.x_hat, atol=1e-5)


@pytest.mark.parametrize("settings", MODELS.values(), ids=MODELS)
def test_the_new_latents_cost_about_as_much_as_the_weakest_old_ones(
    settings: dict[str, object], photos: torch.Tensor
) -> None:
    before = model_before(**settings)
    after = widen(before, wider(before)).eval()
    level = None if before.gains is None else torch.full((len(photos),), 3.0)
    with torch.no_grad():
        output = after(photos, level=level)
    by_channel = output.bits_y.mean((0, 2, 3))
    assert float(by_channel[24:].mean()) < 2 * float(by_channel[:24].mean())
    assert float(output.y_hat[:, 24:].abs().mean()) > 0


def test_a_new_latent_predicts_the_residual_and_gradients_reach_it(photos: torch.Tensor) -> None:
    before = model_before()
    after = widen(before, wider(before))
    with torch.no_grad():
        y, x_hat = after.analyze(photos), before.synthesize(before.analyze(photos), *photos.shape[-2:])
        residual = torch.nn.functional.pixel_unshuffle(photos - x_hat, 16)
        rows = residual[..., 1:-1, 1:-1].transpose(0, 1).flatten(1).T
        columns = y[..., 1:-1, 1:-1].transpose(0, 1).flatten(1).T

        def unexplained(inputs: torch.Tensor) -> float:
            with_constant = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
            solution = torch.linalg.lstsq(with_constant, rows).solution
            return float((rows - with_constant @ solution).square().mean())

        assert unexplained(columns) < 0.9 * unexplained(columns[:, :24])
    output = after.train()(photos)
    (output.bits_y.mean() + (output.x_hat - photos).square().mean()).backward()
    for name, weight in (("g_a", after.g_a[-1].weight), ("g_s", after.g_s[0].weight)):
        assert weight.grad is not None
        assert (weight.grad[24:].abs().amax((1, 2, 3)) > 0).all(), name


def test_files_of_a_widened_model_decode_in_both_runtimes(photos: torch.Tensor, tmp_path: Path) -> None:
    before = model_before(num_levels=4)
    folder = tmp_path / "model"
    export(widen(before, wider(before)).eval(), folder, {}, dtype="int8")
    picture = (photos[0] * 255).round().byte().permute(1, 2, 0).numpy()
    data = load_codec(folder).compress(picture, quality=90, effort=0)
    decoded = load_codec(folder).decompress(data).permute(1, 2, 0).numpy().astype(int)
    elsewhere = np.asarray(load_runtime(folder).decompress(data), int)
    assert np.abs(decoded - elsewhere).max() <= 1


REFUSED = {
    "fewer latents": {"num_latents": 20, "entropy_width": 24},
    "as many": {"num_latents": 24, "entropy_width": 24},
    "wider hidden layers": {"num_latents": 40},
    "other filters": {"num_latents": 40, "entropy_width": 24, "num_filters": 32},
    "another density": {"num_latents": 40, "entropy_width": 24, "likelihood": "laplace"},
    "levels": {"num_latents": 40, "entropy_width": 24, "num_levels": 3},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=REFUSED)
def test_only_the_number_of_latents_may_differ(changes: dict[str, object]) -> None:
    before = CompressionModel(ModelConfig(**WIDTHS))  # type: ignore[arg-type]
    config = replace(before.config, **changes)  # type: ignore[arg-type]
    assert not can_widen(before.config, config)
    with pytest.raises(ValueError, match="more latents"):
        widen(before, config)


def test_a_widened_model_can_be_widened_again() -> None:
    before = model_before()
    once = widen(before, wider(before))
    again = replace(once.config, num_latents=50)
    assert can_widen(once.config, again)
    assert widen(once, again).g_a[-1].weight.shape[0] == 50
