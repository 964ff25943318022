"""Training that starts from another model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jahp_pl.config import Config, ConfigError, LossConfig, ModelConfig, OptimConfig
from jahp_pl.initialization import widening
from jahp_pl.initialization.warm_start import copy_networks, initialize, latent_scale
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.checkpoint import load_checkpoint_model
from jahp_pl.model_io.export import export_from
from jahp_pl.model_io.export_config import ExportError
from jahp_pl.training.metric_names import logged_names
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.run import TrainResult, train
from jahp_pl.training.start import read_start
from tests.support import ROOT
from tests.support.tiny_runs import NOTHING_CODED, tiny_config

SMALL = {"num_filters": 8, "num_latents": 12}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, shards: Path) -> TrainResult:
    """A run of eight steps of a factorized model."""
    folder = tmp_path_factory.mktemp("first")
    return train(tiny_config(folder, shards, "model.entropy_model=factorized", "optim.ema_decay=0.9", *NOTHING_CODED))


def model_of(entropy_model: str, **settings) -> CompressionModel:
    return CompressionModel(ModelConfig(entropy_model=entropy_model, **SMALL | settings))


def test_networks_are_loaded_whole_or_not_at_all() -> None:
    joint = dict(model_of("joint").named_children())
    assert copy_networks(model_of("joint"), joint) == ["g_a", "g_s", "h_a", "h_s", "g_cm", "g_ep", "prior"]
    mixture = model_of("joint", num_components=3)
    before = {name: tensor.clone() for name, tensor in mixture.g_ep.state_dict().items()}
    assert copy_networks(mixture, joint) == ["g_a", "g_s", "h_a", "h_s", "g_cm", "prior"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in mixture.g_ep.state_dict().items())
    # The factorized model's prior codes the latents y, so it has another width.
    assert copy_networks(model_of("factorized"), joint) == ["g_a", "g_s"]
    assert copy_networks(model_of("joint", num_filters=9), joint) == ["g_cm", "g_ep"]


@pytest.mark.parametrize("entropy_model", ["scale_hyperprior", "mean_scale_hyperprior", "context", "joint"])
def test_an_entropy_model_is_initialized_for_the_latents_of_loaded_transforms(entropy_model, photos) -> None:
    loud, model = model_of("factorized"), model_of(entropy_model)
    initialize(loud, latent_scale(LossConfig(lmbda=0.18)))
    with torch.no_grad():
        loud.g_a[-1].weight.mul_(8)
    initialize(model, latent_scale(LossConfig(lmbda=0.0018)), start=dict(loud.named_children()))
    with torch.no_grad():
        output = model.eval()(photos)
    assert torch.equal(output.y_hat, loud.eval()(photos).y_hat)
    spread, stated = output.y_hat.std((0, 2, 3)), output.parameters.sigma.mean((0, 1, 3, 4))
    assert 0.3 < float((stated / spread.clamp(min=0.3)).median()) < 3


def test_a_run_starts_from_a_run_a_checkpoint_or_an_export(first, shards, tmp_path, capsys) -> None:
    export_from(first.last, tmp_path / "export")
    settings = ("trainer.max_steps=1", "trainer.val_every_steps=1", "optim.transform_factor=0", *NOTHING_CODED)
    for number, source in enumerate((first.run_dir, first.last, tmp_path / "export")):
        config = tiny_config(tmp_path, shards, f"name=second-{number}", f"optim.start_from={source}", *settings)
        result = train(config)
        start = load_checkpoint_model(first.last)
        model = load_checkpoint_model(result.last)
        assert model.config.entropy_model == "joint"
        for name in ("g_a", "g_s"):
            before, after = getattr(start, name).state_dict(), getattr(model, name).state_dict()
            assert all(torch.equal(tensor, before[key]) for key, tensor in after.items())
        assert f"g_a g_s from {source}" in capsys.readouterr().err


def test_transforms_at_rate_zero_stay_while_the_entropy_model_learns(first, shards, tmp_path, capsys) -> None:
    settings = (f"optim.start_from={first.run_dir}", "model.entropy_model=factorized", *NOTHING_CODED)
    config = tiny_config(tmp_path, shards, "optim.transform_factor=0", *settings)
    result = train(config)
    assert "bpp" in (shown := capsys.readouterr().err)
    assert "nan" not in shown
    logged = (result.run_dir / "metrics.csv").read_text().split("\n", 1)[0].split(",")
    assert set(logged) == {"step", *logged_names(config)}
    assert "train/mse" not in logged
    before, after = load_checkpoint_model(first.last).state_dict(), load_checkpoint_model(result.last).state_dict()
    changed = {key.split(".")[0] for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    assert changed == {"prior"}


def test_in_the_entropy_phase_only_the_densities_of_rounded_latents_learn(shards, tmp_path) -> None:
    whole = train(tiny_config(tmp_path, shards, "name=whole", "trainer.max_steps=1", *NOTHING_CODED))
    overlay = str(ROOT / "configs" / "overlays" / "entropy_phase.yaml")
    settings = (overlay, f"optim.start_from={whole.run_dir}", "optim.ema_decay=0", "trainer.max_steps=1")
    result = train(tiny_config(tmp_path, shards, *settings, *NOTHING_CODED))
    before, after = load_checkpoint_model(whole.last).state_dict(), load_checkpoint_model(result.last).state_dict()
    changed = {key.split(".")[0] for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    assert changed == {"h_s", "g_cm", "g_ep", "prior"}


def test_rounded_latents_need_frozen_transforms() -> None:
    with pytest.raises(ConfigError, match=r"optim\.transform_factor=0"):
        Config(model=ModelConfig(quantization="rounded"))


def test_only_the_transforms_are_loaded_on_request(first) -> None:
    taken = {}
    for networks in ("fitting", "transforms"):
        optim = OptimConfig(start_from=str(first.run_dir), start_networks=networks)
        config = Config(model=ModelConfig(entropy_model="factorized", **SMALL), optim=optim)
        taken[networks] = CompressionModule(config, read_start(config)).copied_networks
    assert taken == {"fitting": ["g_a", "g_s", "prior"], "transforms": ["g_a", "g_s"]}


def test_a_resumed_run_does_not_need_what_it_started_from(first, shards, tmp_path) -> None:
    source = tmp_path / "source.ckpt"
    source.write_bytes(first.last.read_bytes())
    settings = (f"optim.start_from={source}", *NOTHING_CODED)
    train(tiny_config(tmp_path, shards, "trainer.max_steps=2", "trainer.val_every_steps=2", *settings))
    source.unlink()
    assert train(tiny_config(tmp_path, shards, "trainer.max_steps=4", *settings)).steps == 4


def test_a_run_can_start_from_a_model_with_fewer_latents(shards, tmp_path, monkeypatch, photos) -> None:
    monkeypatch.setattr(widening, "NUM_BATCHES", 1)
    narrow = train(tiny_config(tmp_path, shards, "name=narrow", "optim.ema_decay=0", *NOTHING_CODED))
    before = load_checkpoint_model(narrow.last)
    num_latents = before.config.num_latents
    settings = (f"model.num_latents={num_latents + 6}", f"model.entropy_width={num_latents}", *NOTHING_CODED)
    config = tiny_config(tmp_path, shards, "name=wide", f"optim.start_from={narrow.run_dir}", *settings)
    after = CompressionModule(config, read_start(config)).model.eval()
    with torch.no_grad():
        assert torch.allclose(after(photos).x_hat, before(photos).x_hat, atol=1e-5)
    assert train(config).steps == 8


def test_an_unusable_start_is_named(first, tmp_path) -> None:
    def config(path: Path, **model) -> Config:
        return Config(model=ModelConfig(**SMALL | model), optim=OptimConfig(start_from=str(path)))

    assert read_start(Config()) is None
    with pytest.raises(ExportError, match="nothing: no such"):
        read_start(config(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"optim.start_from=.*: none of its networks fits .* model.num_filters=8"):
        read_start(config(first.run_dir, num_filters=9))
