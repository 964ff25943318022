"""CompressionModule: its optimizer steps, averaged weights, counters and metrics."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from jahp_pl.config import LossConfig, ModelConfig, OptimConfig
from jahp_pl.loss import rate_distortion
from jahp_pl.model import CompressionModel
from jahp_pl.training import TrainingError
from jahp_pl.training.lightning_warnings import only_useful_messages
from jahp_pl.training.module import CompressionModule
from tests.support.tiny_runs import all_equal, experiment, loader, moments, seeded, weights

pytestmark = pytest.mark.usefixtures("one_thread")


def fit(module: CompressionModule, photos: Tensor, steps: int, damaged: tuple[int, ...] = ()) -> CompressionModule:
    module.config.trainer.max_steps = steps
    trainer = Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, log_every_n_steps=1, logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with only_useful_messages():
        trainer.fit(module, loader(photos, damaged=damaged))
    return module


class WithoutNoise(CompressionModule):
    """Module that runs the transforms alone, because noise would be filled in another order in each memory format."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        super().training_step(batch, batch_idx)
        if self.config.trainer.channels_last:
            batch = batch.contiguous(memory_format=torch.channels_last)
        return torch.nn.functional.mse_loss(self.model.g_s(self.model.g_a(batch)), batch)


# Steps ----------------------------------------------------------------------------------------------------------------


def test_the_optimizer_takes_the_learning_rate_of_its_step(photos: Tensor) -> None:
    module = fit(seeded(experiment(OptimConfig(learning_rate=1e-3, warmup_steps=4))), photos, 3)
    assert module.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(7.5e-4)


def test_validation_and_coding_use_the_average_if_there_is_one(photos: Tensor) -> None:
    plain = seeded(experiment())
    averaged = fit(seeded(experiment(OptimConfig(learning_rate=1e-3, ema_decay=0.9))), photos, 3)
    assert plain.evaluated_model is plain.model
    assert averaged.evaluated_model is averaged.average
    assert averaged.average is not None
    assert not all_equal(list(averaged.average.parameters()), weights(averaged))
    assert not averaged.average.training


def test_two_runs_with_one_seed_give_identical_weights(photos: Tensor) -> None:
    first, second = (fit(seeded(experiment()), photos, 5) for _ in range(2))
    assert all_equal(weights(first), weights(second))


def test_gradients_are_clipped_at_the_configured_norm(photos: Tensor) -> None:
    norms: list[float] = []

    class Watching(CompressionModule):
        def on_before_zero_grad(self, optimizer: torch.optim.Optimizer) -> None:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            if gradients:
                norms.append(float(torch.nn.utils.get_total_norm(gradients)))

    config = experiment(OptimConfig(learning_rate=1e-3, clip_norm=0.5))
    module = fit(seeded(config, Watching), photos, 4)
    assert module.latest is not None
    assert module.latest.grad_norm > 0.5  # the logged norm is the one before clipping
    assert len(norms) == 3
    assert norms == pytest.approx([0.5] * 3, rel=1e-3)


def test_every_term_of_the_objective_is_kept_for_the_log(photos: Tensor) -> None:
    latest = fit(seeded(experiment()), photos, 1).latest
    assert latest is not None
    assert latest.loss == pytest.approx(latest.bpp + 0.013 * latest.distortion, rel=1e-5)
    assert latest.bpp == pytest.approx(latest.bpp_y + latest.bpp_z, rel=1e-5)


def test_the_fused_optimizer_makes_the_steps_of_plain_adam(photos: Tensor) -> None:
    class Plain(CompressionModule):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return PlainAdam([{"params": self.model.parameters(), "factor": 1.0}], lr=1e-3)

    class PlainAdam(torch.optim.Adam):
        """Adam that does not support skipped steps."""

        def step(self, closure=None):  # type: ignore[no-untyped-def]
            with torch.enable_grad():
                loss = closure() if closure is not None else None
            self.found_inf = None
            super().step()
            return loss

    fused = fit(seeded(experiment()), photos, 4)
    plain = fit(seeded(experiment(), Plain), photos, 4)
    for a, b in zip(weights(fused), weights(plain), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_channels_last_makes_the_steps_of_contiguous_memory(photos: Tensor) -> None:
    contiguous = fit(seeded(experiment(), WithoutNoise), photos, 4)
    strided = fit(seeded(experiment(channels_last=True), WithoutNoise), photos, 4)
    assert strided.model.g_a[0].weight.is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(weights(contiguous), weights(strided), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_forward_and_backward_compile_as_one_graph(photos: Tensor) -> None:
    model = CompressionModel(ModelConfig(num_filters=4, num_latents=4)).eval()
    x = photos[:1, :, :64, :64]
    gradients = []
    for forward in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):  # code for no machine: fast
        model.zero_grad()
        rate_distortion(LossConfig(), x, forward(x)).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, compiled, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compilation_leaves_the_names_of_the_weights_as_they_are() -> None:
    assert list(seeded(experiment(compile=True)).state_dict()) == list(seeded(experiment()).state_dict())


# Non-finite steps -----------------------------------------------------------------------------------------------------


def test_a_batch_that_is_not_finite_changes_neither_weights_nor_moments_nor_the_average(photos: Tensor) -> None:
    config = experiment(OptimConfig(learning_rate=1e-3, ema_decay=0.9))
    good = fit(seeded(config), photos, 3)
    damaged = fit(seeded(config), photos, 5, damaged=(3, 4))
    assert damaged.skipped_steps == 2
    assert all_equal(weights(good), weights(damaged))
    assert all_equal(moments(good), moments(damaged))
    assert good.average is not None
    assert damaged.average is not None
    for a, b in zip(good.average.parameters(), damaged.average.parameters(), strict=True):
        assert torch.isfinite(b).all()
        assert (a - b).abs().max() < 5e-3


def test_a_gradient_that_is_not_finite_skips_the_step(photos: Tensor) -> None:
    class Broken(CompressionModule):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            if self.global_step == 2:
                self.model.g_a[0].weight.register_hook(lambda grad: grad * torch.nan)
            return loss

    good = fit(seeded(experiment()), photos, 2)
    broken = fit(seeded(experiment(), Broken), photos, 3)
    assert broken.skipped_steps == 1
    assert all_equal(weights(good), weights(broken))
    assert all_equal(moments(good), moments(broken))


def test_training_continues_after_a_skipped_step(photos: Tensor) -> None:
    module = fit(seeded(experiment()), photos, 4, damaged=(1,))
    before = weights(seeded(experiment()))
    assert module.skipped_steps == 1
    assert module.global_step == 4
    assert all(float(state["step"]) == 3 for state in module.trainer.optimizers[0].state.values())
    assert all(torch.isfinite(p).all() for p in weights(module))
    assert not all_equal(before, weights(module))


def test_many_skipped_steps_in_a_row_stop_with_one_line(photos: Tensor) -> None:
    module = seeded(experiment(max_skipped_steps=3))
    with pytest.raises(TrainingError, match="3 optimizer steps in a row") as stop:
        fit(module, photos, 10, damaged=(1, 3, 4, 5, 6, 7))
    assert "\n" not in str(stop.value)
    assert module.skipped_steps == 4  # one alone, then three in a row
    assert all(torch.isfinite(p).all() for p in weights(module))


# Memory formats -------------------------------------------------------------------------------------------------------


def test_moments_saved_in_another_memory_format_are_converted(photos: Tensor, tmp_path: Path) -> None:
    def resumed(channels_last: bool) -> CompressionModule:
        module = seeded(experiment(channels_last=channels_last), WithoutNoise)
        trainer = Trainer(
            accelerator="cpu", max_steps=5, max_epochs=-1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, loader(photos, start=3), ckpt_path=tmp_path / "three.ckpt", weights_only=True)
        return module

    three = fit(seeded(experiment(), WithoutNoise), photos, 3)
    three.trainer.save_checkpoint(tmp_path / "three.ckpt", weights_only=False)
    with only_useful_messages():
        same, other = resumed(channels_last=False), resumed(channels_last=True)
    assert same.global_step == other.global_step == 5
    for a, b in zip(weights(same), weights(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-5)


def test_transforms_learn_at_their_own_rate() -> None:
    module = CompressionModule(experiment(OptimConfig(transform_factor=0.25)))
    groups = module.configure_optimizers().param_groups
    factors = {id(parameter): group["factor"] for group in groups for parameter in group["params"]}
    for name, parameter in module.model.named_parameters():
        assert factors[id(parameter)] == (0.25 if name.startswith(("g_a.", "g_s.")) else 1.0), name
