"""Makes the table of each latent, p(y_hat | raw entropy parameters), only by integer and correctly rounded operations.

Everything that needs exp, log or erf is computed once by `latent_tables`, stored with the weights, and passed to this
module as tables: the scales, the thresholds between them, the cumulative of each scale, and the exponential of mixture
weights. No torch.

The table of a latent is a window of integers around its mean, wide enough for its scale, plus an escape for all others:

      center - h   ...   center   ...   center + h | escape

Windows have one of a few widths, so that many latents are coded in one call. With one component, all tables are made in
advance, for each scale and each phase (the position of the mean between two integers). A mixture's table is a weighted
sum of component masses, which are stored in the same way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.arrays import Float32Array, Float64Array, IndexArray, IntArray
from jahp_pl.codec.entropy.integer_layers import FRACTION_BITS, RAW_CLAMP
from jahp_pl.codec.entropy.range_coder import MASS_BITS
from jahp_pl.codec.entropy.table_checks import (
    check_exponential,
    check_upper_halves,
    checked_rising_tables,
    checked_table,
)
from jahp_pl.density_layout import DensityLayout

NUM_SCALES = 128
"""Number of scales, up to `SCALE_MAX` in steps of 6 %. With 64, files would be 0.05 to 0.1 % larger; with 128, they are
a quarter of that larger."""
SCALE_MAX = 256.0
"""Largest scale."""
SCALE_BITS = 16
"""Scales are multiples of 2^-16."""
WIDTHS = (8, 32, 128, 512, 2048)
"""Entries of a window including the escape, i.e. 2 h + 2."""
ESCAPE_BITS = 16
"""An escape has at least 2^-16 of the mass, which costs all other entries 2e-5 bits."""
WEIGHT_STEPS = 64
"""Mixture logits are rounded to 1/64 nat, 0.5 % of a weight."""
WEIGHT_BITS = 16
"""Component weights are multiples of 2^-16."""
NUM_EXPONENTIALS = 16 * WEIGHT_STEPS + 1
"""Number of tabulated exponentials, down to e^-16, which also stands for all smaller ones."""
MIN_WIDENING_WEIGHT = 2.0**4
"""Weight, in steps of 2^-16, below which a component does not widen a window; the heaviest component is more than 2^12
times as heavy."""
MAX_MEAN = 2**16
"""A number larger than any mean or reach."""
PIECE = 128
"""Entries that are summed at a time; a wider window consists of several pieces."""
SCALE_SIZES = {"scales": NUM_SCALES, "thresholds": NUM_SCALES - 1}
"""Names and sizes of the tables of scales."""


class Windows(NamedTuple):
    """Windows of n latents, ordered by position, then by channel."""

    kind: npt.NDArray[np.int8]
    """(n,): index into WIDTHS."""
    lowest: IntArray
    """(n,): integer of the first entry."""
    source: IntArray
    """(n,): row among the tables of its kind. For mixtures (4, K, n), of each component: index of the mass at the
    integer nearest to the mean; first integer of the window minus that integer; scale; weight."""


class WindowTables:
    """Conversion of raw entropy parameters to windows and tables.

    Args:
        density: layout of the raw parameters, and bounds of the family.
        num_latents: M.
        stored: tables that `LatentTables` computed, see `tables_to_store`; float64.

    Raises:
        UnusableModelError: if `stored` does not fit the density.
    """

    def __init__(self, density: DensityLayout, num_latents: int, stored: Mapping[str, Float64Array]) -> None:
        self.layout = density
        self.num_latents = num_latents
        self.scales, self.thresholds = checked_rising_tables(stored, SCALE_SIZES)
        scales = self.scales.tolist()
        resolution = [resolution_of(scale) for scale in scales]
        extent = extents(density, scales)
        sizes = {"cumulative": sum(extent) + NUM_SCALES, "exponential": NUM_EXPONENTIALS}
        stored = _without_lower_halves(stored, extent)
        self._upper, self.exponential = (checked_table(stored, name, size) for name, size in sizes.items())
        check_upper_halves(self._upper, [e + 1 for e in extent], MASS_BITS)
        check_exponential(self.exponential, WEIGHT_BITS)
        pieces = np.split(self._upper, np.cumsum([e + 1 for e in extent])[:-1])
        self.cumulative = np.concatenate([part for one in pieces for part in (2.0**MASS_BITS - one[:0:-1], one)])

        # Raw parameters are integers that float32 represents exactly, and so are all numbers derived from them below.
        last = min(int(self.thresholds[-1]) + 1, RAW_CLAMP)
        bounds = np.minimum(np.floor(self.thresholds), last).astype(np.int64)
        spans = np.diff(np.concatenate([[-1], bounds, [last]]))  # number of raw scales that map to each scale
        self._scale_of_raw = np.repeat(np.arange(NUM_SCALES, dtype=np.int8), spans)
        self._to_steps = np.array([2.0 ** (r - FRACTION_BITS) for r in resolution], dtype=np.float32)
        self._to_units = np.array([2.0**-r for r in resolution], dtype=np.float32)
        reach = np.array([math.ceil(density.bounds.reach * scale) for scale in scales], dtype=np.int32)
        self._reach = reach
        self._halves = np.array(WIDTHS, dtype=np.int32) // 2 - 1
        kinds = np.searchsorted(self._halves[:-1], np.arange(self._halves[-1] + 1))
        self._kind_by_half = kinds.astype(np.int8)  # beyond the widest window, escapes are used
        self._kind = self._kind_by_half[np.minimum(reach, self._halves[-1])]
        self._lowest = -self._halves[self._kind]
        self._exponential = self.exponential.astype(np.int32)
        self._fill_masses(resolution, extent)
        if density.num_components == 1:
            self._first_row, self._rows = self._all_rows(resolution)

    def tables_to_store(self) -> dict[str, Float64Array]:
        """Return the tables that needed exp or erf, in float64, to be stored with the weights."""
        cumulative = {"cumulative": self._upper}  # only the upper half; F(-t) = 1 - F(t)
        return {"scales": self.scales, "thresholds": self.thresholds} | cumulative | {"exponential": self.exponential}

    def windows(self, raw: Float32Array) -> Windows:
        """Choose the windows of all latents at P positions.

        Args:
            raw: (P, num_blocks K M) float32 integers, in steps of 2^-12.
        """
        density = self.layout
        shape = (len(raw), density.num_blocks, density.num_components, self.num_latents)
        blocks = raw.reshape(shape)
        if density.num_components > 1:
            return self._mixture_windows(blocks.transpose(1, 2, 0, 3).reshape(*shape[1:3], -1))
        scale = self._scale(blocks[:, 0].ravel())
        kind, source, lowest = self._kind.take(scale), self._first_row.take(scale), self._lowest.take(scale)
        if density.has_means:
            center, phase = self._split(blocks[:, 1].ravel(), scale)
            source += phase
            lowest += center
        return Windows(kind, lowest, source)

    def masses(self, windows: Windows, chosen: IndexArray, kind: int) -> Float64Array:
        """Return the tables of latents of one kind: (n,) indices -> (n, WIDTHS[kind]), integers up to a factor per row.

        The last entry is the escape.
        """
        source = windows.source.take(chosen, axis=-1)
        if self.layout.num_components == 1:
            rows: Float64Array = self._rows[kind].take(source, axis=0)
            return rows
        return self._summed(source, kind)

    def _summed(self, source: IntArray, kind: int) -> Float64Array:
        """Sum the components' masses for windows of one kind, given their `source`: (4, K, n) -> (n, WIDTHS[kind])."""
        home, offset, scale, weight = source
        width = min(WIDTHS[kind], PIECE)
        pieces = np.arange(0, WIDTHS[kind], width, dtype=np.int32)
        # The masses of a component are surrounded by zeros, one piece before and one directly after.
        radius = self._radius.take(scale)[..., None]
        starts = offset[..., None] + pieces  # (K, n, pieces)
        starts = np.minimum(np.maximum(starts, -PIECE - radius), radius + 1) + home[..., None]
        rows = np.ascontiguousarray(starts.reshape(len(home), -1).T)
        weights = np.repeat(weight, len(pieces), axis=1).T.astype(np.float64, order="C")
        masses = self._weighted_sums(rows, width, weights).reshape(-1, WIDTHS[kind])
        return _with_escape(masses, weight.sum(axis=0) * 2.0**MASS_BITS)

    def _weighted_sums(self, starts: IntArray, width: int, weights: Float64Array) -> Float64Array:
        """Add up pieces of the masses: (n, K) first entries, (n, K) weights -> (n, width).

        The sums are integers below 2^42, so they are exact in any order.
        """
        pieces = np.lib.stride_tricks.sliding_window_view(self._masses, width)
        sums: Float64Array = pieces[starts[:, 0]] * weights[:, :1]
        for component in range(1, starts.shape[1]):
            sums += pieces[starts[:, component]] * weights[:, component, None]
        return sums

    def _mixture_windows(self, blocks: Float32Array) -> Windows:
        """Choose the windows for mixture parameters `blocks`, (num_blocks, K, n)."""
        scale = self._scale(blocks[0])
        gap = blocks[-1].max(axis=0) - blocks[-1]
        nats = np.rint(gap * np.float32(WEIGHT_STEPS * 2.0**-FRACTION_BITS))
        weight = self._exponential.take(np.minimum(nats, NUM_EXPONENTIALS - 1).astype(np.int32))
        home = self._home.take(scale)
        center = np.zeros(scale.shape, dtype=np.int32)
        if self.layout.has_means:
            center, phase = self._split(blocks[1], scale)
            home += phase * self._stride.take(scale)
        reach = self._reach.take(scale)
        reach[weight < MIN_WIDENING_WEIGHT] = -MAX_MEAN  # a negative reach never decides the minimum or maximum below
        highest = (center + reach).max(axis=0)
        middle = ((center - reach).min(axis=0) + highest) >> 1
        kind = self._kind_by_half.take(np.minimum(highest - middle, len(self._kind_by_half) - 1))
        lowest = middle - self._halves.take(kind)
        return Windows(kind, lowest, np.stack([home, lowest - center, scale, weight]))

    def _scale(self, raw: Float32Array) -> IndexArray:
        """Return the index of the scale for each raw value."""
        # Indices of type intp need not be converted at each of the lookups that follow.
        return self._scale_of_raw.take(raw.astype(np.intp), mode="clip").astype(np.intp)

    def _split(self, raw: Float32Array, scale: IndexArray) -> tuple[IntArray, IntArray]:
        """Split each raw mean into its nearest integer and its phase in [-1/2, 1/2), in steps of its scale."""
        to_units = self._to_units.take(scale)
        mean = raw * self._to_steps.take(scale)
        np.rint(mean, out=mean)
        mean *= to_units
        center = mean + np.float32(0.5)
        np.floor(center, out=center)
        mean -= center
        mean /= to_units
        return center.astype(np.int32), mean.astype(np.int32)

    def _fill_masses(self, resolution: list[int], extent: list[int]) -> None:
        """Tabulate the masses of single components at all integers: one row for each scale and phase.

        A piece of zeros precedes the first row and follows each row.
        """
        radius = [-(-e >> r) + 1 for e, r in zip(extent, resolution, strict=True)]
        home, rows, length, origin = [], [np.zeros(PIECE)], PIECE, 0
        cumulative = self.cumulative
        for r, e, reach in zip(resolution, extent, radius, strict=True):
            half, stride = 2 ** (r - 1), 2 * reach + 1 + PIECE
            # Lower edges of the bins, in steps relative to the mean.
            edges = (2 * np.arange(-reach, reach + 2) - 1) * half - np.arange(-half, half)[:, None]
            row = np.zeros((2 * half, stride))
            masses = np.diff(cumulative[origin + e + np.clip(edges, -e, e)], axis=1)
            row[:, : 2 * reach + 1] = np.maximum(masses, 0)  # a flat cumulative may dip by a step
            home.append(length + half * stride + reach)
            rows.append(row.ravel())
            length += row.size
            origin += 2 * e + 1
        self._masses = np.concatenate(rows)
        self._home = np.array(home, dtype=np.int32)  # index of the mass at 0 for a mean of 0
        self._radius = np.array(radius, dtype=np.int32)
        self._stride = 2 * self._radius + 1 + PIECE

    def _all_rows(self, resolution: list[int]) -> tuple[IntArray, list[Float64Array]]:
        """Compute the tables of every window of a model without mixtures (K = 1).

        Returns:
            For each scale, the index of the row for an integer mean, within the rows of its kind. For each kind of
            window, its rows, ordered by scale, then phase.
        """
        first_row = np.zeros(NUM_SCALES, dtype=np.int32)
        sources: list[list[IntArray]] = [[np.empty((4, 1, 0), dtype=np.int32)] for _ in WIDTHS]
        for scale, r in enumerate(resolution):
            kind, half = self._kind[scale], 2 ** (r - 1)
            home = self._home[scale] + np.arange(-half, half, dtype=np.int32) * self._stride[scale]
            first_row[scale] = sum(part.shape[-1] for part in sources[kind]) + half
            one = np.ones_like(home)
            sources[kind].append(np.stack([home, -self._halves[kind] * one, scale * one, one])[:, None])
        parts = [np.concatenate(part, axis=-1) for part in sources]
        return first_row, [self._summed(part, kind) for kind, part in enumerate(parts)]

    def fingerprint_arrays(self) -> Iterator[Float64Array]:
        """Yield all tables that determine the probabilities, for the fingerprint."""
        yield from (self.tables_to_store() | {"cumulative": self.cumulative}).values()


def _with_escape(masses: Float64Array, total: Float64Array) -> Float64Array:
    """Set the last entry of rows (n, entries) to the rest of the total (n,), but at least 2^-16 of it."""
    masses[:, -1] = np.maximum(total - masses[:, :-1].sum(axis=1), total * 2.0**-ESCAPE_BITS)
    return masses


def resolution_of(scale: float) -> int:
    """Return r, from 1 to 8: means are rounded to multiples of 2^-r, a 32nd of the scale, which costs 6e-5 bits."""
    mantissa, exponent = math.frexp(32.0 / scale)
    return min(max(exponent - (mantissa == 0.5), 1), 8)


def extents(density: DensityLayout, scales: list[float]) -> list[int]:
    """Return, for each scale, the number of steps on either side of 0 for which its cumulative is tabulated.

    A step is 2^-r, with r from `resolution_of`.
    """
    extent = density.bounds.extent
    return [math.ceil(extent * scale * 2 ** resolution_of(scale)) for scale in scales]


def _without_lower_halves(stored: Mapping[str, Float64Array], extent: list[int]) -> Mapping[str, Float64Array]:
    """Drop the lower halves of the cumulatives, which exports of format 1 also contain."""
    sizes, both = [2 * e + 1 for e in extent], stored.get("cumulative")
    if both is None or both.shape != (sum(sizes),):
        return stored
    return {
        **stored,
        "cumulative": np.concatenate([one[len(one) // 2 :] for one in np.split(both, np.cumsum(sizes)[:-1])]),
    }
