"""Callbacks that code validation images to real files, decode them, and draw the results.

At each validation they log means over the coded images; docs/python.md lists them. A variable-rate model codes each
image at four levels. The means then cover all levels, and each level is also logged separately, e.g. as
val_level000/file_bpp; the number is the position of the level, from 0 % (lowest) to 100 % (highest).
"""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only, rank_zero_warn
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.level_steps import to_level, to_level_steps
from jahp_pl.codec.targets import Target
from jahp_pl.config import ModelConfig
from jahp_pl.files.atomic import atomic_writer, write_atomically
from jahp_pl.measurement.roundtrip import CodedImage, CodingRow, code_image, mean_row
from jahp_pl.quality import ms_ssim_to_decibels, to_uint8
from jahp_pl.training.batches import named_images
from jahp_pl.training.figures import channel_chart, comparison_figure
from jahp_pl.training.levels import VALIDATED_LEVEL_SHARES, level_name, level_section
from jahp_pl.training.loggers import log_row
from jahp_pl.training.module import CompressionModule
from jahp_pl.training.processes import gather

T = TypeVar("T")
_MAX_STEM_BYTES = 200
"""Maximum length of the stem of a coded image's file, which leaves room for a level and a suffix."""


class CodingCallback(Callback):
    """Callback that codes validation images to files in `folder`/step-0001000/ and decodes them.

    Only the files of the last validation are kept. Every rank codes a share of the images. Next to the files,
    report.json has a row for each image, in the order of the shards, and the means.

    Args:
        folder: folder in the run folder, used only for these files.
        max_images: maximum number of images over all ranks.

    Attributes:
        coded: images that this rank coded in the last validation.
    """

    def __init__(self, folder: Path, max_images: int) -> None:
        self.folder, self.max_images = folder, max_images
        self.coded: list[CodedImage] = []
        self._waiting: list[tuple[str, Tensor]] = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep this rank's share of the images until the end of the validation."""
        num_own = len(range(trainer.global_rank, self.max_images, trainer.world_size))
        for name, image in named_images(batch, batch_idx)[: max(0, num_own - len(self._waiting))]:
            self._waiting.append((name, to_uint8(image[0])))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Code the images, log the means, and remove older files."""
        assert isinstance(pl_module, CompressionModule)
        if trainer.sanity_checking:
            self._waiting, self.coded = [], []
            return
        folder = step_folder(self.folder, trainer.global_step)
        names = gather([name for name, _ in self._waiting], trainer.world_size)
        num_refused = self._code_waiting(pl_module, folder, file_names_by_rank(names)[trainer.global_rank])
        by_rank = gather(([image.row for image in self.coded], num_refused), trainer.world_size)
        rows = interleave_ranks([coded for coded, _ in by_rank])
        values: dict[str, float] = {"val/uncodable_images": sum(refused for _, refused in by_rank)}
        if rows:
            values |= coding_summary(rows)
            values |= level_summaries(rows, pl_module.config.model)
        log_row(pl_module, values)
        if trainer.is_global_zero:
            write_atomically(folder / "report.json", coding_report(trainer.global_step, rows, values))
            remove_other_steps(folder)

    def _code_waiting(self, module: CompressionModule, folder: Path, names: Sequence[str]) -> int:
        """Code the kept images under these names, and return how many the codec refused."""
        waiting, self._waiting, self.coded = self._waiting, [], []
        with torch.autocast(module.device.type, enabled=False):
            try:
                codec = Codec(module.evaluated_model) if waiting else None
                for name, (_, image) in zip(names, waiting, strict=True):
                    assert codec is not None
                    for suffix, target in coded_targets(module.config.model):
                        file = f"{name}{suffix}"
                        self.coded.append(code_image(codec, image, file, folder / f"{file}.jahp", target))
            except ValueError as error:  # the model's fault, not the image's: weights that diverged
                rank_zero_warn(f"validation images cannot be coded: {error}")
        return len(waiting) - len({id(image.original) for image in self.coded})


class PictureCallback(Callback):
    """Callback that draws the images of `coding` to `folder`/step-0001000/, W&B and TensorBoard.

    NAME.png shows an original, its reconstruction and where its bits went; channels.png shows the bits of each channel.
    Only the pictures of the last validation are kept.

    Args:
        coding: callback that precedes this one in the trainer's list.
        folder: folder in the run folder, used only for these files.
        max_pictures: maximum number of images; rank 0 draws from its own share.
    """

    def __init__(self, coding: CodingCallback, folder: Path, max_pictures: int) -> None:
        self.coding, self.folder, self.max_pictures = coding, folder, max_pictures

    @rank_zero_only
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and save the pictures."""
        coded = self.coding.coded[: self.max_pictures]
        if not coded:
            return
        folder = step_folder(self.folder, trainer.global_step)
        for image in coded:
            caption = f"{image.row.name}: {image.row.file_bpp:.3f} bpp, {image.row.file_psnr:.2f} dB"
            self._save(trainer, comparison_figure(image), folder / f"{image.row.name}.png", caption)
        self._save(trainer, channel_chart(coded), folder / "channels.png", "bits of each latent channel")
        remove_other_steps(folder)

    def _save(self, trainer: Trainer, figure: Figure, path: Path, caption: str) -> None:
        """Write a figure to a file, and send it to the loggers that take pictures."""
        with atomic_writer(path) as file:
            figure.savefig(file, format="png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                with Image.open(path) as picture:
                    pixels = np.array(picture.convert("RGB"))
                logger.experiment.add_image(f"pictures/{path.stem}", pixels, trainer.global_step, dataformats="HWC")
            if isinstance(logger, WandbLogger):
                logger.log_image(f"pictures/{path.stem}", [str(path)], step=trainer.global_step, caption=[caption])


def coded_targets(model: ModelConfig) -> list[tuple[str, Target | None]]:
    """Return (suffix of the file's name, target) for each level at which an image is coded."""
    if model.num_levels == 1:
        return [("", None)]
    return [
        (f"-{level_name(level_share)}", Target(level=model.level_at(level_share)))
        for level_share in VALIDATED_LEVEL_SHARES
    ]


def level_summaries(rows: Sequence[CodingRow], model: ModelConfig) -> dict[str, float]:
    """Compute the `coding_summary` of each level, named as in `level_section`; empty for a single-rate model."""
    values: dict[str, float] = {}
    for level_share in VALIDATED_LEVEL_SHARES if model.num_levels > 1 else ():
        level = to_level(to_level_steps(model.level_at(level_share)))  # as in the file
        of_level = coding_summary([row for row in rows if row.level == level])
        values |= {name.replace("val/", f"{level_section(level_share)}/"): value for name, value in of_level.items()}
    return values


def coding_summary(rows: Sequence[CodingRow]) -> dict[str, float]:
    """Compute the means to log, by name, from the rows of at least one coded image; docs/python.md explains them."""
    mean = mean_row(rows)
    similarity = math.nan if mean.file_ms_ssim is None else mean.file_ms_ssim
    return {
        "val/file_bpp": mean.file_bpp,
        "val/cross_entropy_bpp": mean.cross_entropy_bpp,
        "val/exact_bpp": mean.exact_bpp,
        "val/file_gap_percent": mean.gap_percent,
        "val/file_psnr": mean.file_psnr,
        "val/file_ms_ssim": similarity,
        "val/file_ms_ssim_db": ms_ssim_to_decibels(similarity),
        "val/mismatched_symbols": mean.mismatched_symbols,
        "val/encode_seconds": mean.encode_seconds,
        "val/decode_seconds": mean.decode_seconds,
        "val/coded_images": len(rows),
    }


def step_folder(folder: Path, step: int) -> Path:
    """Return the folder of the validation at an optimizer step, e.g. `folder`/step-0001000."""
    return folder / f"step-{step:07d}"


def remove_other_steps(folder: Path) -> None:
    """Remove the folders of other steps next to `folder`."""
    for other in folder.parent.glob("step-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def unique_file_name(name: str, taken: Collection[str]) -> str:
    """Convert a name to the stem of a file: short, of safe characters only, numbered if another file has that stem."""
    stem = re.sub(r"[^\w.-]+", "_", name).strip("._") or "image"
    stem = stem.encode()[:_MAX_STEM_BYTES].decode(errors="ignore")
    number, unique = 1, stem
    while unique in taken:
        number += 1
        unique = f"{stem}-{number}"
    return unique


def file_names_by_rank(names: Sequence[Sequence[str]]) -> list[list[str]]:
    """Name the files of each rank's images as a single process would, so that no two ranks write the same file.

    Args:
        names: names of each rank's images.
    """
    owners: dict[str, int] = {}
    for rank, name in interleave_ranks([[(rank, name) for name in own] for rank, own in enumerate(names)]):
        owners[unique_file_name(name, owners)] = rank
    return [[name for name, owner in owners.items() if owner == rank] for rank in range(len(names))]


def interleave_ranks(by_rank: Sequence[Sequence[T]]) -> list[T]:
    """Restore the order of items that were dealt to ranks in turn: the first of every rank, then the second, etc."""
    turns = itertools.zip_longest(*([(item,) for item in own] for own in by_rank), fillvalue=())
    return [item for turn in turns for place in turn for item in place]


def coding_report(step: int, rows: list[CodingRow], means: dict[str, float]) -> bytes:
    """Serialize one validation to JSON; NaN, which JSON lacks, becomes null."""
    numbers = {name: value if math.isfinite(value) else None for name, value in means.items()}
    content = {"step": step, "mean": numbers, "images": [row._asdict() for row in rows]}
    return json.dumps(content, indent=1).encode()
