"""Derives the names of all metrics that a run will log from its configuration alone."""

from __future__ import annotations

from jahp_pl.config import Config
from jahp_pl.training.levels import VALIDATED_LEVEL_SHARES, level_section

_TRAINING = (
    *("loss", "bpp", "bpp_y", "bpp_z", "grad_norm", "learning_rate", "seconds_per_step", "skipped_steps"),
)  # fmt: skip
DISTORTION_NAMES = {"mse": ("mse", "psnr"), "ms_ssim": ("one_minus_ms_ssim", "ms_ssim_db")}
"""Names of the distortion and of the decibels, by `loss.distortion`."""
_PER_LEVEL = ("loss", "bpp_bound", "bpp", "bpp_y", "bpp_z", "psnr", "ms_ssim", "ms_ssim_db")
_VALIDATION = (*_PER_LEVEL, "images", "ms_ssim_images")
_FILES = (
    *("file_bpp", "cross_entropy_bpp", "exact_bpp", "file_gap_percent", "file_psnr", "file_ms_ssim"),
    *("file_ms_ssim_db", "mismatched_symbols", "encode_seconds", "decode_seconds", "coded_images", "uncodable_images"),
)
_DATA = ("data/broken_photographs", "data/small_photographs")


def logged_names(config: Config) -> tuple[str, ...]:
    """Return the columns of metrics.csv except `step`; docs/python.md explains them."""
    distortion = DISTORTION_NAMES[config.loss.distortion] if config.optim.transforms_learn else ()
    training = [f"train/{name}" for name in (*_TRAINING, *distortion)]
    validation = [f"val/{name}" for name in (*_VALIDATION, *(_FILES if config.coding.max_images else ()))]
    if config.model.num_levels > 1:
        names = (*_PER_LEVEL, *(_FILES[:-1] if config.coding.max_images else ()))
        validation += [
            f"{level_section(level_share)}/{name}" for level_share in VALIDATED_LEVEL_SHARES for name in names
        ]
    return (*training, *_DATA, *(validation if config.data.val else ()))
