"""Runs the encoder's search for integers near y with a lower R + lambda * D than the nearest ones.

The decoder accepts any latents, so an encoder may choose them. Rounding each latent separately ignores that errors
add up in g_s, and that every latent is part of the context of others; `latent_search` finds better integers for fixed
z_hat.

Guarantees: by the objective on integers, the result (for a large image, each tile) is never worse than plain rounding,
which is the fallback. Equal inputs, seed and thread count give equal latents on one machine. Another machine may find
other latents; every machine decodes them.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from jahp_pl.codec.encoder import to_integers
from jahp_pl.codec.search.latent_objective import LatentObjective, Region, SearchedImage, SearchLoss
from jahp_pl.codec.search.latent_search import Search, run_search
from jahp_pl.codec.transforms.runner import MemoryLimitError, TransformRunner
from jahp_pl.codec.transforms.tiles import MIN_TILE_SIDE, choose_tile_size, halo_of, tiles
from jahp_pl.config import LossConfig, ModelConfig
from jahp_pl.model import CompressionModel
from jahp_pl.strides import STRIDE
from jahp_pl.transforms import transforms_of

Progress = Callable[[int, int], object]
"""Called with the number of finished steps and the total."""
EFFORTS: tuple[Search | None, ...] = (
    None,
    Search("freeze", 6, learning_rate=0.15),
    Search("freeze", 10),
    Search("freeze", 20),
    Search("freeze", 50),
    Search("sga", 300, learning_rate=0.01, final_learning_rate=0.01 / 60, betas=(0.9, 0.99), channel_share=0.0),
    Search("sga", 1000, learning_rate=0.005, final_learning_rate=0.005 / 60, betas=(0.9, 0.99), channel_share=0.0),
)
"""Searches by effort; 0 is plain rounding."""
BRIEF_SEARCH = Search("freeze", 2, learning_rate=0.15)
"""Search that predicts, in a third of the time of effort 1, the size and PSNR of the file of a full search."""
MIN_SEARCHED_SIDE = 64
"""Shortest side in pixels of images that are searched; smaller ones have little to gain, as files grow in 4-byte
words."""
CONTEXT_REACH = 2
"""Largest distance, in latents, at which a latent is part of the context of another."""


def search_for_effort(effort: int, objective: LossConfig | None) -> Search | None:
    """Return the search for an effort; None for plain rounding.

    Args:
        effort: index into `EFFORTS`.
        objective: training objective of the codec's model; None if unknown.

    Raises:
        ValueError: if the effort is not an index into `EFFORTS`, or it is above 0 and there is no objective.
    """
    if not isinstance(effort, int) or not 0 <= effort < len(EFFORTS):
        raise ValueError(f"effort {effort!r}: must be a whole number from 0 to {len(EFFORTS) - 1}")
    if effort and objective is None:
        raise ValueError(
            f"effort {effort}: the model does not record the lambda it was trained with; use effort 0, or pass "
            "Codec(..., objective=LossConfig('mse', lmbda))"
        )
    return EFFORTS[effort]


@dataclass(frozen=True)
class Refiner:
    """The search for a better y_hat of one image at any rate level, with z_hat fixed."""

    model: CompressionModel
    """Trained model, in float32 and evaluation mode, whose weights need no gradient."""
    transforms: TransformRunner
    """Runs the transforms of the model. Its memory limit is also that of the search, not counting the image and its
    latents: larger images are searched in overlapping tiles, one after another."""
    image: Tensor
    """(3, H, W) uint8 on the CPU."""
    loss: LossConfig
    """Training objective, which states the lambdas of the lowest and the highest level."""
    search: Search
    progress: Progress | None = None
    seed: int = 0
    """Seed of all random choices."""
    falls_back: bool = True
    """Whether to compare the result with plain rounding, which takes two more passes, and keep the better one."""

    def __call__(self, y: Tensor, z_hat: Tensor | None, level: float | None) -> Tensor:
        """Search for better integers at a rate level.

        Args:
            y: (1, M, h, w) float32 on the model's device: latents of the image, scaled by the gains of the level.
            z_hat: (N, ceil(h / 4), ceil(w / 4)) int32 on the CPU; None without side information.
            level: rate level; None for a single-rate model.

        Returns:
            (M, h, w) float32 on the CPU, to be rounded to the nearest integers. Only the latents that the search would
            freeze last are not integers yet; rounding one of these to its other neighbor costs least.

        Raises:
            MemoryLimitError: if not even the smallest tile fits.
            ValueError: if y is not finite or does not fit 16 bits.
        """
        rounded = torch.from_numpy(to_integers(y[0].cpu().numpy()))
        if min(self.image.shape[-2:]) < MIN_SEARCHED_SIDE:
            return rounded.float()
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(y.device.type, enabled=False):
            searched, loss = self._searched(z_hat, level), self._loss(level)
            generator = torch.Generator().manual_seed(self.seed)
            latents = _ImageLatents.start(y.detach().clone(), rounded, generator)
            height, width = y.shape[-2:]
            search_tiles = list(_search_tiles(self.model.config, height, width, self.transforms.memory_limit))
            for number, tile in enumerate(search_tiles):
                objective = LatentObjective(self.model, searched, loss, tile.seen, tile.counted)
                on_step = functools.partial(self._report, number, len(search_tiles))
                found = latents.search(tile, objective, self.search, generator, on_step)
                if found is not None and self._is_kept(objective, found.round(), latents.around(tile)):
                    latents.replace(tile, found)
            return latents.found[0].cpu()

    def brief(self) -> Refiner:
        """Return a refiner that runs `BRIEF_SEARCH` instead, without progress."""
        return replace(self, search=BRIEF_SEARCH, progress=None, falls_back=False)

    def _is_kept(self, objective: LatentObjective, found: Tensor, plain: Tensor) -> bool:
        """Check whether integers found by a search have a lower objective than plain rounding, both (1, M, h, w)."""
        if not self.falls_back:
            return True
        return objective.score(found, self.transforms) < objective.score(plain, self.transforms)

    def _searched(self, z_hat: Tensor | None, level: float | None) -> SearchedImage:
        # A clone, because inference tensors cannot be used with autograd
        scale = None if level is None else self.transforms.gain_after(level).clone()
        return SearchedImage(self.image, None if z_hat is None else z_hat[None], scale)

    def _loss(self, level: float | None) -> SearchLoss:
        loss = self.loss if level is None else self.loss.objective_at(self.model.config.share_of(level))
        return self.search.loss_of(loss)

    def _report(self, num_done: int, num_tiles: int, step: int) -> None:
        if self.progress is not None:
            self.progress(num_done * self.search.steps + step, num_tiles * self.search.steps)


class _ImageLatents(NamedTuple):
    """The latents of a whole image while one tile after another is searched; each is (1, M, h, w) float32."""

    y: Tensor
    """Latents from which the searches start."""
    keys: Tensor
    """Random keys, see `run_search`."""
    found: Tensor
    """Results of the searches of finished tiles, not rounded yet; plainly rounded latents elsewhere."""

    @classmethod
    def start(cls, y: Tensor, rounded: Tensor, generator: torch.Generator) -> _ImageLatents:
        """Return the state before the first tile, from y (1, M, h, w) and `rounded` (M, h, w)."""
        keys = torch.rand(y.shape, generator=generator, dtype=torch.float32).to(y.device)
        return cls(y, keys, rounded.to(y.device).float()[None])

    def around(self, tile: SearchTile) -> Tensor:
        """Copy the current integers that a search of the tile sees."""
        return tile.seen.of(self.found).round()

    def search(
        self,
        tile: SearchTile,
        objective: LatentObjective,
        search: Search,
        generator: torch.Generator,
        on_step: Callable[[int], None],
    ) -> Tensor | None:
        """Search the core of a tile, with the current integers around it; see `run_search`."""
        core = tile.core.relative_to(tile.seen)
        first = self.around(tile)
        keys = torch.full_like(first, -1.0)
        core.of(first).copy_(tile.core.of(self.y))
        core.of(keys).copy_(tile.core.of(self.keys))
        return run_search(objective, first, keys, search, generator, on_step)

    def replace(self, tile: SearchTile, found: Tensor) -> None:
        """Replace the latents in the core of a tile by those that its search found, not rounded yet."""
        tile.core.of(self.found).copy_(tile.core.relative_to(tile.seen).of(found))


def search_bytes(config: ModelConfig, height: int, width: int) -> int:
    """Estimate the bytes of a search on (height, width) latents with their halo, without the image and its latents."""
    num_parameters = (3 if config.num_components > 1 else 2) * config.num_components * config.num_latents
    densities = 3 * config.num_latents if config.entropy_model == "factorized" else num_parameters / 10
    # Bytes per pixel, 20 % above what was measured: g_s keeps about two maps of N channels per layer.
    per_pixel = 9 * config.num_filters + config.num_latents / 4 + densities + 150
    return math.ceil(STRIDE**2 * height * width * per_pixel) + 2**25


def smallest_search_bytes(config: ModelConfig) -> int:
    """Return the smallest memory limit in which every image can be searched."""
    side = MIN_TILE_SIDE + 4 * _margin(config)
    return search_bytes(config, side, side)


def _margin(config: ModelConfig) -> int:
    """Return the distance, in latents, up to which a latent influences pixels and the bits of other latents."""
    return max(halo_of(transforms_of(config.transform).reach, STRIDE), CONTEXT_REACH)


class SearchTile(NamedTuple):
    """A part of the latents that one search covers."""

    core: Region
    """Latents to search."""
    counted: Region
    """Latents whose bits and pixels the core influences."""
    seen: Region
    """Latents on which these bits and pixels depend."""


def _search_tiles(config: ModelConfig, height: int, width: int, memory_limit: int) -> Iterator[SearchTile]:
    """Cut (height, width) latents into tiles whose search fits the memory limit, in bytes.

    Raises:
        MemoryLimitError: if not even the smallest tile fits.
    """
    margin, least = _margin(config), smallest_search_bytes(config)
    if min(search_bytes(config, height, width), least) > memory_limit:
        raise MemoryLimitError(
            f"a memory limit of {memory_limit / 2**20:.0f} MiB is too low to search with this model; give at least "
            f"{-(-least // 2**20)} MiB, or effort 0"
        )
    side = choose_tile_size(height, width, 2 * margin, lambda h, w: search_bytes(config, h, w) <= memory_limit)
    for rows, columns in tiles(height, width, side, 2 * margin):
        core = Region(rows.start, rows.stop, columns.start, columns.stop)
        seen = Region(rows.low, rows.high, columns.low, columns.high)
        counted = Region(
            max(core.top - margin, 0),
            min(core.bottom + margin, height),
            max(core.left - margin, 0),
            min(core.right + margin, width),
        )
        yield SearchTile(core, counted, seen)
