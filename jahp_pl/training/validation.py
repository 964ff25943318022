"""Measures validation images one by one, and averages over all of them.

Rates are bits per pixel of the unpadded image. PSNR and MS-SSIM refer to the reconstruction as the decoder outputs it,
clipped and rounded to 8 bits. Images have equal weight.
"""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean
from typing import Generic, NamedTuple, TypeVar

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric

from jahp_pl.config import LossConfig
from jahp_pl.loss import rate_distortion
from jahp_pl.model import CompressionModel
from jahp_pl.quality import MS_SSIM_MIN_SIDE, ms_ssim_8bit, ms_ssim_to_decibels, psnr, to_uint8
from jahp_pl.training.levels import VALIDATED_LEVEL_SHARES, level_section

NO_LOSS = (
    f"no validation image has both sides of at least {MS_SSIM_MIN_SIDE} pixels, so MS-SSIM and val/loss are undefined "
    "and no best.ckpt is kept; add larger images to data.val"
)
"""Warning if no image gives a loss."""


class ValidationRow(NamedTuple):
    """Measures of one image, or means over images; None where a small image has no MS-SSIM. Rates in bits per pixel."""

    loss: Tensor | float | None
    """bpp + lmbda * distortion, with rounded latents and the reconstruction before rounding to 8 bits."""
    bpp_bound: Tensor | float
    """Rate of noisy latents, which training minimizes; on average an upper bound of the cross-entropy."""
    bpp: Tensor | float
    """Cross-entropy of the rounded latents y_hat and z_hat."""
    bpp_y: Tensor | float
    """Cross-entropy of y_hat."""
    bpp_z: Tensor | float
    """Cross-entropy of z_hat."""
    psnr: Tensor | float
    """PSNR of 8-bit RGB, in dB."""
    ms_ssim: Tensor | float | None
    """MS-SSIM of 8-bit RGB, at most 1."""


@torch.no_grad()
def measure_image(
    model: CompressionModel, config: LossConfig, x: Tensor, level_share: float | None = None
) -> ValidationRow:
    """Measure one image with noise, as in training, and with rounding, as in a file.

    Args:
        model: model in evaluation mode; training mode is used temporarily.
        config: distortion and lambda of the loss.
        x: (1, 3, H, W) in [0, 1].
        level_share: level of a variable-rate model, from 0 (lowest) to 1 (highest); None for a single-rate model.
    """
    shares = None if level_share is None else torch.full((1,), level_share, device=x.device)
    level = None if shares is None else model.config.level_at(shares)
    model.train()
    noisy = model(x, level=level)
    output = model.eval()(x, level=level)
    num_pixels = x.shape[-2] * x.shape[-1]
    is_large = min(x.shape[-2:]) >= MS_SSIM_MIN_SIDE
    exact = rate_distortion(config, x, output, shares) if config.distortion == "mse" or is_large else None
    bpp_y, bpp_z = output.bits_y.sum() / num_pixels, output.bits_z.sum() / num_pixels
    original, shown = to_uint8(x), to_uint8(output.x_hat)
    return ValidationRow(
        loss=exact.loss if exact is not None else None,
        bpp_bound=(noisy.bits_y.sum() + noisy.bits_z.sum()) / num_pixels,
        bpp=bpp_y + bpp_z,
        bpp_y=bpp_y,
        bpp_z=bpp_z,
        psnr=psnr(original, shown),
        ms_ssim=ms_ssim_8bit(original, shown),
    )


def validation_values(means: ValidationRow, section: str) -> dict[str, float]:
    """Convert means over images to the values to log, named `section`/NAME, and add MS-SSIM in decibels."""
    values = {f"{section}/{name}": float(value) for name, value in means._asdict().items()}
    return values | {f"{section}/ms_ssim_db": ms_ssim_to_decibels(values[f"{section}/ms_ssim"])}


AnyRow = TypeVar("AnyRow", bound=tuple[Tensor | float | None, ...])


class RowMeans(Metric, Generic[AnyRow]):
    """Column means of NamedTuple rows over all images of all ranks; None values are left out of the mean.

    `compute` reduces once, so ranks may have different numbers of images, including none.

    Args:
        row_type: NamedTuple type of the rows.
    """

    full_state_update = False
    sums: Tensor
    counts: Tensor

    def __init__(self, row_type: type[AnyRow]) -> None:
        super().__init__()
        self.row_type = row_type
        width = len(row_type._fields)  # type: ignore[attr-defined]
        self.add_state("sums", torch.zeros(width), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(width), dist_reduce_fx="sum")

    def update(self, row: AnyRow) -> None:
        """Add one image."""
        present = torch.tensor([value is not None for value in row], device=self.sums.device)
        values = [torch.as_tensor(0.0 if v is None else v, dtype=torch.float, device=self.sums.device) for v in row]
        self.sums += torch.stack(values)
        self.counts += present

    def compute(self) -> tuple[AnyRow, AnyRow]:
        """Return the means as floats (NaN for a column without values), and the number of values in each column."""
        means, counts = (self.sums / self.counts).tolist(), self.counts.int().tolist()
        make = self.row_type._make  # type: ignore[attr-defined]
        return make(means), make(counts)


class ValidationMeans(nn.Module):
    """Means over the validation images of all ranks, at each level at which a model is validated.

    Args:
        num_levels: number of rate levels of the model; 1 for a single-rate model.
    """

    def __init__(self, num_levels: int) -> None:
        super().__init__()
        self._level_shares = VALIDATED_LEVEL_SHARES if num_levels > 1 else (None,)
        self._means = [RowMeans(ValidationRow) for _ in self._level_shares]
        self.metrics = nn.ModuleList(self._means)  # moves them to the device of the weights

    def update(self, model: CompressionModel, config: LossConfig, x: Tensor) -> None:
        """Measure one image at every level; arguments as in `measure_image`."""
        # No autocast: files are coded in float32, and validation reports what a file would give.
        with torch.autocast(x.device.type, enabled=False):
            for level_share, means in zip(self._level_shares, self._means, strict=True):
                means.update(measure_image(model, config, x, level_share))

    def take(self) -> dict[str, float]:
        """Return the values to log, and reset the means; without any image, return no values.

        The values named "val/..." of a variable-rate model are means over its levels: the loss is then the objective of
        training. A warning says so if no image gives a loss.
        """
        rows, counts = zip(*(means.compute() for means in self._means), strict=True)
        for means in self._means:
            means.reset()
        if not counts[0].bpp:
            return {}
        if not counts[0].loss:
            rank_zero_warn(NO_LOSS)
        values = validation_values(_mean_over(rows), "val")
        if len(rows) > 1:
            for level_share, row in zip(VALIDATED_LEVEL_SHARES, rows, strict=True):
                values |= validation_values(row, level_section(level_share))
        return values | {"val/images": float(counts[0].bpp), "val/ms_ssim_images": float(counts[0].ms_ssim or 0)}


def _mean_over(rows: Iterable[ValidationRow]) -> ValidationRow:
    return ValidationRow._make(map(fmean, zip(*rows, strict=True)))


def validate_now(trainer: Trainer) -> None:
    """Run the validation that the last session did not finish, which Lightning would skip."""
    trainer.validating = True
    trainer.fit_loop.epoch_loop.val_loop.run()
    trainer.training = True
