"""CompressionModule: the model and its loss as a LightningModule with one optimizer and automatic optimization.

One optimizer step calls these hooks, from top to bottom; Lightning calls callbacks before the module:

    on_train_batch_start            sets the learning rate and seeds the noise from (seed, rank, step)
    optimizer_step
      training_step                 forward pass and loss; NaN if the loss is not finite
      zero_grad, backward           DDP averages the gradients over all ranks
      configure_gradient_clipping   computes the norm, clips, and sets found_inf if the step must be skipped
      fused Adam kernel, or Soap    changes nothing if found_inf is 1
      weight average                follows the new weights
    on_train_batch_end
      callbacks                     BestAndLast saves if there is no validation; the progress line is redrawn
      module                        clock, logging, check for too many skipped steps, end or stop
    every val_every_steps steps
      on_validation_start           BestAndLast saves last.ckpt; the clock pauses step times; a stop request ends here
      validation_step               measures one image per batch; CodingCallback keeps its share of the images
      on_validation_epoch_end       CodingCallback codes, PictureCallback draws; the module reduces and logs means
      on_validation_end             BestAndLast saves last.ckpt and best.ckpt; step times continue

docs/python.md lists the values that are logged, in training and at validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch import Tensor, nn
from torch.optim import Optimizer

from jahp_pl.config import Config, require_type, to_dict
from jahp_pl.loss import rate_distortion
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.checkpoint import (
    HYPER_PARAMETERS,
    RunCounters,
    load_checkpoint_model,
    read_checkpoint,
    restore_errors,
)
from jahp_pl.settings import config_from_dict
from jahp_pl.training.batches import RangeCheck, images_of, named_images
from jahp_pl.training.clock import TrainingClock
from jahp_pl.training.levels import draw_level_shares
from jahp_pl.training.loggers import log_row
from jahp_pl.training.noise import seed_image, seed_step
from jahp_pl.training.optimization import adapt_restored, make_optimizer, set_learning_rate
from jahp_pl.training.processes import check_agreement
from jahp_pl.training.schedule import Schedule
from jahp_pl.training.searched_latents import decode_searched
from jahp_pl.training.skipped_steps import SkipCounter, clip_or_skip, nan_unless_finite
from jahp_pl.training.start import build_starting_model
from jahp_pl.training.step_means import RunningMeans, TrainingRow, data_values, training_values
from jahp_pl.training.stopping import StopRequests, explain_end
from jahp_pl.training.validation import ValidationMeans, validate_now
from jahp_pl.training.weight_average import decay_at, make_average, update_average


class CompressionModule(LightningModule):
    """Lightning module that trains a `CompressionModel`; the docstring of this file lists the order of its hooks.

    It works in any Lightning Trainer, with its callbacks and loggers, and with any loader whose batches are images (see
    `batches`). The learning rate anneals until the first of these limits: the configuration's `trainer.max_steps` and
    `trainer.max_time`, and the end that the Trainer sets.

    A step whose loss or gradient is not finite is skipped: it changes counters, but neither weights nor moments. After
    `trainer.max_skipped_steps` consecutive skipped steps, `TrainingError` is raised.

    Args:
        config: the whole experiment; checkpoints store it as plain dicts.
        start: networks that replace the random initialization, by name (`optim.start_from`); None to start from
            scratch, or if a checkpoint is loaded anyway.

    Attributes:
        model: the weights being trained.
        copied_networks: names of the networks whose weights were copied from `start`.
        average: moving average of the weights; None if `optim.ema_decay` is 0.
        clock: training time of the run.
        latest: means of the training steps, as last logged; None before the first logging.
        validation_due: whether a validation of the current weights has started but not finished.
        stop_requests: handles signals and the session's time limit; None if only the Trainer ends the run.
    """

    def __init__(self, config: Config, start: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        require_type(config, Config, "load one with jahp_pl.load_config")
        self.config = config
        self.save_hyperparameters(to_dict(config), logger=False)
        self.model, self.copied_networks = build_starting_model(config, start)
        self.average = make_average(self.model) if config.optim.ema_decay else None
        # In a tuple, so that the compiled model is not registered as a submodule with its own weights and names.
        self._training_model = (torch.compile(self.model) if config.trainer.compile else self.model,)

        self.validation = ValidationMeans(config.model.num_levels)
        self.latest: TrainingRow | None = None
        self.validation_due = False
        self.clock = TrainingClock()
        self.stop_requests: StopRequests | None = None
        self._means = RunningMeans()
        self._terms = torch.zeros(0)
        self._skips = SkipCounter()
        self._schedule = Schedule(config, self.clock)
        self._stepped = False  # whether the last batch ended an optimizer step
        self._range_check = RangeCheck()

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, map_location: Any = None, *, config: Config | None = None, **_: Any
    ) -> Self:
        """Load a module with its weights and counters from a checkpoint; no pickled code runs.

        Args:
            checkpoint_path: file written by `jahp train`, or by any Trainer that trained a `CompressionModule`.
            map_location: device of the module; None for the CPU.
            config: configuration to use instead of the checkpoint's; it must describe the same model.

        Raises:
            CheckpointError: if the file cannot be read or does not fit the configuration.
        """
        load_checkpoint_model(checkpoint_path, average=False)  # checks everything before memory is taken
        content = read_checkpoint(checkpoint_path)
        with restore_errors(checkpoint_path):
            module = cls(config or config_from_dict(content[HYPER_PARAMETERS]))
            module.load_state_dict(content["state_dict"])
            module.on_load_checkpoint(content)
        return module.to(map_location or "cpu")

    @property
    def evaluated_model(self) -> CompressionModel:
        """The weights to validate, code and export: the average if there is one."""
        return self.model if self.average is None else self.average

    @property
    def skipped_steps(self) -> int:
        """Number of optimizer steps of the run that were skipped. Waits for the device."""
        return self._skips.total

    @property
    def progress(self) -> float:
        """Finished share of the run, from 0 to 1, by steps or by time, whichever is further."""
        return self._schedule.progress(self.global_step)

    # The optimizer step -----------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Optimizer:
        """Create the optimizer of all weights."""
        return make_optimizer(self.model, self.config.optim)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set what depends only on the step: learning rate and seed of the noise."""
        self._stepped = False
        parts = self.trainer.accumulate_grad_batches
        seed_step(self.config.seed, self.global_rank, self.global_step, batch_idx % parts if parts > 1 else None)
        set_learning_rate(self.trainer.optimizers[0], self._schedule.learning_rate(self.global_step))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Compute the loss, a scalar, of a batch of crops (B, 3, H, W) in any form that `batches` accepts."""
        batch = self.prepare_batch(batch)
        self._range_check.check(batch)
        level_share = draw_level_shares(len(batch), batch.device) if self.model.gains is not None else None
        if effort := self.config.optim.search_effort:
            assert self.average is not None
            output = decode_searched(self.model, self.average, batch, level_share, self.config.loss, effort)
        else:
            level = None if level_share is None else self.config.model.level_at(level_share)
            output = self._training_model[0](batch, reconstruct=self.config.optim.transforms_learn, level=level)
        terms = rate_distortion(self.config.loss, batch, output, level_share)
        self._terms = torch.stack([term.detach() for term in terms])
        return nan_unless_finite(terms.loss)

    def prepare_batch(self, batch: Any) -> Tensor:
        """Return the images of a batch, (B, 3, H, W) in [0, 1], in the memory format of `trainer.channels_last`."""
        images = images_of(batch)
        return images.contiguous(memory_format=torch.channels_last) if self.config.trainer.channels_last else images

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip the gradient, or make the optimizer skip the step, and count the step."""
        norm, skipped = clip_or_skip(optimizer, self.model, self.config.optim)
        self._skips.add(skipped)
        self._means.update(torch.cat([self._terms, norm.view(1)]), skipped)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step, and update the average before a callback saves either."""
        super().optimizer_step(*args, **kwargs)
        self._stepped = True
        if self.average is not None:
            update_average(self.average, self.model, decay_at(self.global_step + 1, self.config.optim.ema_decay))

    def on_train_batch_end(self, outputs: STEP_OUTPUT, batch: Any, batch_idx: int) -> None:
        """Update the clock, log, and decide whether to continue."""
        if not self._stepped:  # gradients are being accumulated
            return
        step, settings, log_every = self.global_step, self.config.trainer, self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        self.clock.advance(self.trainer, step, is_shared=settings.max_time is not None)
        is_last = self.progress >= 1
        is_logged = log_every > 0 and step % log_every == 0
        if is_logged or is_last:
            self._log_training()
        if self.device.type == "cpu" or is_logged:  # on a GPU the check waits for the device
            self._skips.check_streak(settings.max_skipped_steps, step)
        if is_last:
            self.trainer.should_stop = True  # Lightning validates once more
            if self.stop_requests is None:  # a Trainer that `train` has not built
                explain_end(self.trainer, settings, self.clock.seconds)
            return
        is_validated = self.trainer.enable_validation and step % settings.val_every_steps == 0
        if self.stop_requests is not None and not is_validated:  # otherwise `start_validation` checks for a stop
            self.stop_requests.stop_if_requested()

    def _log_training(self) -> None:
        """Log the means over the steps since the last logging."""
        self.latest = self._means.take(self.trainer.world_size)
        values = training_values(
            self.latest,
            self.config,
            learning_rate=self.trainer.optimizers[0].param_groups[0]["lr"],
            seconds_per_step=self.clock.take_seconds_per_step(),
            skipped_steps=self.skipped_steps,
        )
        log_row(self, values | data_values(self.trainer))

    # Validation -------------------------------------------------------------------------------------------------------

    def on_validation_start(self) -> None:
        """Exclude validation from the time per step."""
        self.clock.pause_steps()
        self._range_check.restart()
        if self.stop_requests is not None:
            self.stop_requests.start_validation()

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure whole images, one by one."""
        for name, image in named_images(batch, batch_idx):
            self._range_check.check(image)
            seed_image(self.config.seed, name)
            self.validation.update(self.evaluated_model, self.config.loss, image)

    def on_validation_epoch_end(self) -> None:
        """Average over all images of all ranks, and log the means."""
        if self.stop_requests is not None:
            self.stop_requests.end_validation()
        if values := self.validation.take():
            log_row(self, values)

    def on_validation_end(self) -> None:
        """Resume the time per step."""
        self.clock.resume_steps()
        self._range_check.restart()

    # Checkpoints ------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Move counters to the device of the weights."""
        self._skips.to(self.device, self._skips.total)

    def on_train_start(self) -> None:
        """Check the ranks and start the clock after everything is restored."""
        check_agreement(self.trainer, self.config)
        # Infinite for a Trainer without max_steps, or without epochs that end.
        self._schedule.max_steps = min(self.config.trainer.max_steps, self.trainer.estimated_stepping_batches)
        self.clock.start()
        if self.stop_requests is not None:
            self.stop_requests.handle_signals(self.trainer)
        (optimizer,) = self.trainer.optimizers
        adapt_restored(optimizer, self.configure_optimizers())
        if self.validation_due:
            self.trainer.should_stop = self.progress >= 1
            validate_now(self.trainer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the format and this module's counters; Lightning stores the configuration in `hyper_parameters`."""
        counters = RunCounters(self.clock.seconds, self.skipped_steps, self.validation_due)
        checkpoint.update(counters.entries())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what `on_save_checkpoint` added."""
        self.clock.seconds, skipped_steps, self.validation_due = RunCounters.read(checkpoint)
        self._skips.to(self.device, skipped_steps)
