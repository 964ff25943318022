"""Runs g_a, h_a and g_s on whole images in onnxruntime, tile by tile: the counterpart of `codec.transforms.runner`."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jahp_pl.codec.arrays import Float32Array, IntArray, Samples
from jahp_pl.codec.encoder import to_integers
from jahp_pl.codec.latents import RealLatents, SearchLength
from jahp_pl.codec.transforms.tiles import HALO, HYPER_HALO, MIN_TILE_SIDE, TileSpan, choose_tile_size, tiles
from jahp_pl.config import ModelConfig
from jahp_pl.runtime.networks import TransformNetworks
from jahp_pl.runtime.transform_graphs import halo_cuts
from jahp_pl.strides import HYPER_STRIDE, STRIDE

MEMORY_LIMIT = 80 * 2**20
"""Approximate bytes that a tile may take; larger tiles are no faster."""
SYNTHESIS_LIMIT = 32 * 2**20
"""Limit for g_s, whose halo costs less because most of it is cut off between layers."""


class RuntimeTransforms:
    """g_a, h_a and g_s for images of any size.

    Args:
        networks: sessions of the three.
        config: architecture of the model.
        gain: (levels, M) logarithms of the gains before rounding, see `gains.LevelGains`; None for a single-rate model.
        offset: (levels, M) logarithms of the offsets after rounding; None for a single-rate model.
        memory_limit: bytes that a tile may take.
    """

    def __init__(
        self,
        networks: TransformNetworks,
        config: ModelConfig,
        gain: Float32Array | None,
        offset: Float32Array | None,
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self._networks, self._config = networks, config
        self._gain, self._offset = gain, offset
        self.memory_limit = memory_limit

    @property
    def has_hyperprior(self) -> bool:
        """Whether the model has h_a."""
        return self._config.has_hyperprior

    def analyze(self, image: Samples) -> Float32Array:
        """Apply g_a: (3, H, W) uint8 -> y (M, ceil(H / 16), ceil(W / 16)), before the gains."""
        height, width = (-(-side // STRIDE) for side in image.shape[1:])
        y = np.empty((self._config.num_latents, height, width), dtype=np.float32)
        for rows, columns in self._tiles(height, width, self.memory_limit):
            seen = image[:, rows.source(STRIDE), columns.source(STRIDE)]
            missing = [(0, -side % STRIDE) for side in seen.shape[1:]]
            padded = np.pad(seen, ((0, 0), *missing), mode="edge")
            latents = self._networks.g_a(image=np.ascontiguousarray(padded)[None])[0]
            y[:, rows.start : rows.stop, columns.start : columns.stop] = latents[:, rows.kept, columns.kept]
        return y

    def hyper_analyze(self, y: Float32Array) -> Float32Array:
        """Apply h_a: y (M, h, w), after the gains -> z (N, ceil(h / 4), ceil(w / 4))."""
        height, width = (-(-side // HYPER_STRIDE) for side in y.shape[1:])
        z = np.empty((self._config.num_filters, height, width), dtype=np.float32)
        side = choose_tile_size(height, width, HYPER_HALO, self._hyper_fits)
        for rows, columns in tiles(height, width, side, HYPER_HALO):
            seen = y[:, rows.source(HYPER_STRIDE), columns.source(HYPER_STRIDE)]
            latents = self._networks.h_a(y=np.ascontiguousarray(seen)[None])[0]
            z[:, rows.start : rows.stop, columns.start : columns.stop] = latents[:, rows.kept, columns.kept]
        return z

    def scale(self, y: Float32Array, level: float | None) -> Float32Array:
        """Multiply y (M, h, w) by the gains of a rate level; return it unchanged for a single-rate model."""
        return y if self._gain is None or level is None else y * _gains_at(self._gain, level)

    def synthesize(self, y_hat: IntArray, height: int, width: int, level: float | None) -> Samples:
        """Apply the inverse gains and g_s: y_hat (M, ceil(height / 16), ceil(width / 16)) -> (3, height, width) uint8,
        clipped and rounded."""
        y = y_hat.astype(np.float32)
        if self._gain is not None and self._offset is not None and level is not None:
            y *= _gains_at(self._offset - self._gain, level)
        image = np.empty((3, height, width), dtype=np.uint8)
        _, h, w = y.shape
        for rows, columns in self._tiles(h, w, min(self.memory_limit, SYNTHESIS_LIMIT)):
            seen = y[:, rows.source(1), columns.source(1)]
            cuts = halo_cuts(rows, columns)
            part = self._networks.g_s(y_hat=np.ascontiguousarray(seen)[None], starts=cuts.starts, ends=cuts.ends)[0]
            part = part[:, cuts.kept[0] :, cuts.kept[1] :]
            target = image[:, STRIDE * rows.start : STRIDE * rows.stop, STRIDE * columns.start : STRIDE * columns.stop]
            target[:] = part[:, : target.shape[1], : target.shape[2]]
        return image

    def _tiles(self, height: int, width: int, limit: int) -> Iterator[tuple[TileSpan, TileSpan]]:
        """Cut (height, width) latents into tiles that take at most `limit` bytes: five maps at half the image's
        resolution."""
        widest = max(self._config.num_filters, self._config.num_latents // 4)

        def fits(height: int, width: int) -> bool:
            is_smallest = max(height, width) <= MIN_TILE_SIDE + 2 * HALO
            return is_smallest or 5 * 4 * 64 * height * width * widest <= limit

        return tiles(height, width, choose_tile_size(height, width, HALO, fits), HALO)

    def _hyper_fits(self, height: int, width: int) -> bool:
        """Check whether a tile of (height, width) hyper-latents fits the memory: four maps at the latents'
        resolution."""
        widest = max(self._config.num_filters, self._config.num_latents)
        is_smallest = max(height, width) <= MIN_TILE_SIDE + 2 * HYPER_HALO
        return is_smallest or 4 * 4 * HYPER_STRIDE**2 * height * width * widest <= self.memory_limit


class RuntimeAnalyzedImage:
    """Implementation of `encoder.AnalyzedImage` in onnxruntime: an image and its latents before they are quantized.

    Args:
        transforms: transforms of the model.
        image: (3, H, W) uint8.
    """

    def __init__(self, transforms: RuntimeTransforms, image: Samples) -> None:
        self._transforms = transforms
        self.image = image
        self._y = transforms.analyze(image)

    def scaled_latents(self, level: float | None) -> Float32Array:
        """Return the latents (M, h, w), scaled by the gains of a rate level, before rounding."""
        return self._transforms.scale(self._y, level)

    def refine(self, level: float | None, search: SearchLength = "full") -> RealLatents:
        """Return the latents of `scaled_latents`, because a search for better ones needs torch."""
        y = self.scaled_latents(level)
        z_hat = to_integers(self._transforms.hyper_analyze(y)) if self._transforms.has_hyperprior else None
        return RealLatents(y, z_hat)

    def synthesize(self, y_hat: IntArray, level: float | None) -> Samples:
        """Reconstruct the image from latents (M, h, w): (3, H, W) uint8, before `encoder.to_gray`."""
        _, height, width = self.image.shape
        return self._transforms.synthesize(y_hat, height, width, level)


def _gains_at(logarithms: Float32Array, level: float) -> Float32Array:
    """Interpolate logarithms (levels, M) at a level, and return the gains (M, 1, 1)."""
    below = min(int(level), len(logarithms) - 2)
    fraction = np.float32(level - below)
    row: Float32Array = np.exp(logarithms[below] + fraction * (logarithms[below + 1] - logarithms[below]))
    return row[:, None, None]
