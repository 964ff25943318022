"""The phase in which the decoder learns from the latents that an encoder's search finds."""

from __future__ import annotations

import csv

import pytest
import torch

from jahp_pl.codec.search.latent_search import Search
from jahp_pl.codec.search.refinement import EFFORTS
from jahp_pl.config import Config, ConfigError, LossConfig, ModelConfig, OptimConfig
from jahp_pl.initialization.warm_start import initialize, latent_scale
from jahp_pl.loss import rate_distortion
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.checkpoint import load_checkpoint_model
from jahp_pl.training import searched_latents
from jahp_pl.training.run import train
from jahp_pl.training.searched_latents import choose_latents
from tests.support import ROOT
from tests.support.tiny_runs import NOTHING_CODED, tiny_config

OVERLAY = str(ROOT / "configs" / "overlays" / "search_phase.yaml")


@pytest.mark.parametrize("levels", [(), ("model.num_levels=3", "loss.lmbda_max=0.05")])
def test_only_the_decoder_learns(shards, tmp_path, levels) -> None:
    whole = train(tiny_config(tmp_path, shards, "name=whole", "trainer.max_steps=1", *levels, *NOTHING_CODED))
    settings = (OVERLAY, f"optim.start_from={whole.run_dir}", "trainer.max_steps=2", *levels)
    result = train(tiny_config(tmp_path, shards, *settings, *NOTHING_CODED))
    before, after = load_checkpoint_model(whole.last).state_dict(), load_checkpoint_model(result.last).state_dict()
    changed = {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    expected = {"g_s", "h_s", "g_cm", "g_ep", "prior"} | ({"gains"} if levels else set())
    assert {key.split(".")[0] for key in changed} == expected
    assert "gains.gain" not in changed


def test_the_latest_checkpoint_counts_as_the_best_although_rounded_latents_got_worse(shards, tmp_path) -> None:
    settings = (OVERLAY, "optim.learning_rate=0.1", "optim.warmup_steps=0", "optim.schedule=constant")
    steps = ("trainer.max_steps=3", "trainer.val_every_steps=1")
    result = train(tiny_config(tmp_path, shards, *settings, *steps, *NOTHING_CODED))
    rows = list(csv.DictReader((result.run_dir / "metrics.csv").read_text().splitlines()))
    losses = [float(row["val/loss"]) for row in rows if row["val/loss"]]
    assert losses[-1] > losses[0]
    assert result.best is not None
    assert result.best.samefile(result.last)


@pytest.mark.parametrize("entropy_model", ["joint", "factorized"])
def test_half_of_the_crops_get_latents_that_cost_less(photos, entropy_model, monkeypatch) -> None:
    search = Search("freeze", 20, lmbda_factor=1.0, structure_share=0.0)  # of the same objective as training
    monkeypatch.setattr(searched_latents, "EFFORTS", (None, search))
    model, loss = CompressionModel(ModelConfig(entropy_model, num_filters=8, num_latents=12)), LossConfig(lmbda=0.01)
    initialize(model, latent_scale(loss))
    model.eval().requires_grad_(False)
    images = photos[:1].repeat(4, 1, 1, 1)
    torch.manual_seed(1)
    chosen, rounded = choose_latents(model, images, None, loss, effort=1), model(images)
    is_searched = (chosen.y_hat != rounded.y_hat).flatten(1).any(1)
    assert int(is_searched.sum()) == 2
    assert torch.equal(chosen.y_hat, chosen.y_hat.round())

    def cost(y_hat: torch.Tensor) -> float:
        output = model.decode(y_hat, chosen.z_hat, *images.shape[-2:])
        return float(rate_distortion(loss, images, output._replace(x_hat=output.x_hat.clamp(0, 1))).loss)

    assert cost(chosen.y_hat) < cost(rounded.y_hat)
    torch.manual_seed(1)
    assert torch.equal(choose_latents(model, images, None, loss, effort=1).y_hat, chosen.y_hat)


@pytest.mark.parametrize(
    ("model", "optim", "message"),
    [
        ({"quantization": "mixed"}, {"search_effort": 1, "ema_decay": 0.9}, "quantization=rounded"),
        ({"quantization": "rounded"}, {"search_effort": 1}, "ema_decay"),
        ({"quantization": "rounded"}, {"search_effort": 1, "ema_decay": 0.9, "transform_factor": 0.0}, "must learn"),
        (
            {"quantization": "rounded"},
            {"search_effort": len(EFFORTS), "ema_decay": 0.9},
            f"from 0 to {len(EFFORTS) - 1}",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(model, optim, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(model=ModelConfig(**model), optim=OptimConfig(**optim))
