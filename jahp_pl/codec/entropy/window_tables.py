"""p(y_hat | raw entropy parameters) as tables of masses, made by integer and correctly rounded steps only.

Everything that needs exp, log or erf is tabulated once, when a model is frozen (`latent_tables`): the scales and the
thresholds between them, the cumulative of each scale, the exponential for mixture weights.

A latent's table is a window of integers around its mean, wide enough for its scale, and an escape for all the others:

      centre - h   ...   centre   ...   centre + h | escape

Its width is one of a few, so that many latents are coded in one call. With one component the tables themselves are
all made beforehand, for each scale and each phase, the position of the mean between two integers; a mixture's are sums
of its components' masses, which are kept the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.entropy.freezing import FRACTION_BITS, RAW_CLAMP, Singles
from jahp_pl.codec.entropy.range_coder import MASS_BITS, FloatArray, IntArray
from jahp_pl.codec.entropy.table_checks import check_halves, check_weights, checked_table, rising_tables
from jahp_pl.density_layout import BOUNDS, DensityLayout

NUM_SCALES = 128
"""From the smallest to `SCALE_MAX` in steps of 6 %; 64 would cost 0.05 to 0.1 % of a file, these a quarter of that."""
SCALE_MAX = 256.0
SCALE_BITS = 16
"""Scales are multiples of 2^-16."""
WIDTHS = (8, 32, 128, 512, 2048)
"""Entries of a window, the escape included, hence 2 h + 2."""
ESCAPE_BITS = 16
"""An escape has at least 2^-16 of the mass; that costs all others 2e-5 bits."""
WEIGHT_STEPS = 64
"""Mixture logits are rounded to 1/64 nat, half a per cent of a weight."""
WEIGHT_BITS = 16
"""Weights of components are multiples of 2^-16."""
NUM_EXPONENTIALS = 16 * WEIGHT_STEPS + 1
"""Down to e^-16, which is taken for all that is less."""
LIGHTEST = 2.0**4
"""In steps of 2^-16: lighter components, below 2^-12 of the heaviest, are counted but do not widen a window."""
MAX_MEAN = 2**16
"""More than any mean or reach."""
PIECE = 128
"""Entries that are added up at a time; a wider window is that many pieces."""
SCALE_SIZES = {"scales": NUM_SCALES, "thresholds": NUM_SCALES - 1}

Index = npt.NDArray[np.int64]


class Windows(NamedTuple):
    """Where n latents are coded, by position, then channel."""

    kind: npt.NDArray[np.int8]
    """(n,): index into WIDTHS."""
    lowest: IntArray
    """(n,): integer of the first entry."""
    source: IntArray
    """(n,), row among the tables of its kind; (4, K, n) for mixtures, of each component: where the mass of the integer
    nearest to its mean is kept, the window's lowest integer less that one, scale, weight."""


class WindowTables:
    """Turns raw entropy parameters into windows and tables.

    Args:
        density: family, number of components, presence of means.
        num_latents: M.
        frozen: the tables that were made of the density, float64.

    Raises:
        FreezeError: `frozen` does not fit the density.
    """

    def __init__(self, density: DensityLayout, num_latents: int, frozen: Mapping[str, FloatArray]) -> None:
        self.layout = density
        self.num_latents = num_latents
        self.scales, self.thresholds = rising_tables(frozen, SCALE_SIZES)
        scales = self.scales.tolist()
        resolution = [resolution_of(scale) for scale in scales]
        extent = extents(density, scales)
        sizes = {"cumulative": sum(extent) + NUM_SCALES, "exponential": NUM_EXPONENTIALS}
        frozen = _of_first_format(frozen, extent)
        self._upper, self.exponential = (checked_table(frozen, name, size) for name, size in sizes.items())
        check_halves(self._upper, [e + 1 for e in extent], MASS_BITS)
        check_weights(self.exponential, WEIGHT_BITS)
        pieces = np.split(self._upper, np.cumsum([e + 1 for e in extent])[:-1])
        self.cumulative = np.concatenate([part for one in pieces for part in (2.0**MASS_BITS - one[:0:-1], one)])

        # Raw parameters are integers that float32 holds, and so are all numbers made of them below.
        last = min(int(self.thresholds[-1]) + 1, RAW_CLAMP)
        bounds = np.minimum(np.floor(self.thresholds), last).astype(np.int64)
        spans = np.diff(np.concatenate([[-1], bounds, [last]]))  # raw scales of each entry of the scales
        self._scale_of_raw = np.repeat(np.arange(NUM_SCALES, dtype=np.int8), spans)
        self._to_steps = np.array([2.0 ** (r - FRACTION_BITS) for r in resolution], dtype=np.float32)
        self._to_units = np.array([2.0**-r for r in resolution], dtype=np.float32)
        reach = np.array([math.ceil(BOUNDS[density.family].reach * scale) for scale in scales], dtype=np.int32)
        self._reach = reach
        self._halves = np.array(WIDTHS, dtype=np.int32) // 2 - 1
        needs = np.searchsorted(self._halves[:-1], np.arange(self._halves[-1] + 1))
        self._kind_of_need = needs.astype(np.int8)  # what does not fit the widest window escapes from it
        self._kind = self._kind_of_need[np.minimum(reach, self._halves[-1])]
        self._exponential = self.exponential.astype(np.int32)
        self._fill_masses(resolution, extent)
        if density.num_components == 1:
            self._first_row, self._rows = self._all_rows(resolution)

    def frozen(self) -> dict[str, FloatArray]:
        """All that took exp or erf to make, float64: what to keep beside the weights."""
        cumulative = {"cumulative": self._upper}  # where it is at least 1/2; below it is 1 minus that of the other side
        return {"scales": self.scales, "thresholds": self.thresholds} | cumulative | {"exponential": self.exponential}

    def windows(self, raw: Singles) -> Windows:
        """Windows of all latents at P positions.

        Args:
            raw: (P, num_blocks K M) float32 integers, steps of 2^-12.
        """
        density = self.layout
        shape = (len(raw), density.num_blocks, density.num_components, self.num_latents)
        blocks = raw.reshape(shape)
        if density.num_components > 1:
            return self._mixture_windows(blocks.transpose(1, 2, 0, 3).reshape(*shape[1:3], -1))
        scale = self._scale(blocks[:, 0].ravel())
        kind = self._kind.take(scale)
        source = self._first_row.take(scale)
        lowest = -self._halves.take(kind)
        if density.has_means:
            centre, phase = self._split(blocks[:, 1].ravel(), scale)
            source += phase
            lowest += centre
        return Windows(kind, lowest, source)

    def masses(self, windows: Windows, chosen: Index, kind: int) -> FloatArray:
        """Tables of those latents, all of one kind: (n,) indices -> (n, WIDTHS[kind]), integers up to a factor per row.

        The last entry is the escape's.
        """
        if self.layout.num_components == 1:
            rows: FloatArray = self._rows[kind].take(windows.source[chosen], axis=0)
            return rows
        return self._summed(windows.source.take(chosen, axis=-1), kind)

    def _summed(self, source: IntArray, kind: int) -> FloatArray:
        """Tables for the `source` of windows of one kind: (4, K, n) -> (n, WIDTHS[kind])."""
        home, offset, scale, weight = source
        width = min(WIDTHS[kind], PIECE)
        pieces = np.arange(0, WIDTHS[kind], width, dtype=np.int32)
        # Nothing but zeros lies a piece before and right behind the masses of a component.
        radius = self._radius.take(scale)[..., None]
        starts = offset[..., None] + pieces  # (K, n, pieces)
        starts = np.minimum(np.maximum(starts, -PIECE - radius), radius + 1) + home[..., None]
        rows = np.ascontiguousarray(starts.reshape(len(home), -1).T)
        weights = np.repeat(weight, len(pieces), axis=1).T.astype(np.float64, order="C")
        masses = self._weighted_sums(rows, width, weights).reshape(-1, WIDTHS[kind])
        return _with_escape(masses, weight.sum(axis=0) * 2.0**MASS_BITS)

    def _weighted_sums(self, starts: IntArray, width: int, weights: FloatArray) -> FloatArray:
        """Pieces of the masses, added up: (n, K) first entries, (n, K) weights -> (n, width).

        Sums of integers below 2^42: exact in any order.
        """
        pieces = np.lib.stride_tricks.sliding_window_view(self._masses, width)
        sums: FloatArray = pieces[starts[:, 0]] * weights[:, :1]
        for component in range(1, starts.shape[1]):
            sums += pieces[starts[:, component]] * weights[:, component, None]
        return sums

    def _mixture_windows(self, blocks: npt.NDArray[np.float32]) -> Windows:
        """blocks: (num_blocks, K, n)."""
        scale = self._scale(blocks[0])
        gap = blocks[-1].max(axis=0) - blocks[-1]
        nats = np.rint(gap * np.float32(WEIGHT_STEPS * 2.0**-FRACTION_BITS))
        weight = self._exponential.take(np.minimum(nats, NUM_EXPONENTIALS - 1).astype(np.int32))
        home = self._home.take(scale)
        centre = np.zeros(scale.shape, dtype=np.int32)
        if self.layout.has_means:
            centre, phase = self._split(blocks[1], scale)
            home += phase * self._stride.take(scale)
        reach = self._reach.take(scale)
        reach[weight < LIGHTEST] = -MAX_MEAN  # turns the interval inside out, so that it counts for nothing
        highest = (centre + reach).max(axis=0)
        middle = ((centre - reach).min(axis=0) + highest) >> 1
        kind = self._kind_of_need.take(np.minimum(highest - middle, len(self._kind_of_need) - 1))
        lowest = middle - self._halves.take(kind)
        return Windows(kind, lowest, np.stack([home, lowest - centre, scale, weight]))

    def _scale(self, raw: npt.NDArray[np.float32]) -> IntArray:
        """Index of the scale for each raw one, which may be anything."""
        highest = np.float32(len(self._scale_of_raw) - 1)
        return self._scale_of_raw.take(np.clip(raw, 0.0, highest).astype(np.int32)).astype(np.int32)

    def _split(self, raw: npt.NDArray[np.float32], scale: IntArray) -> tuple[IntArray, IntArray]:
        """Nearest integer of each raw mean and its phase, from -1/2 up to but without 1/2, in steps of its scale."""
        to_units = self._to_units.take(scale)
        mean = np.rint(raw * self._to_steps.take(scale)) * to_units
        centre = np.floor(mean + np.float32(0.5))
        return centre.astype(np.int32), ((mean - centre) / to_units).astype(np.int32)

    def _fill_masses(self, resolution: list[int], extent: list[int]) -> None:
        """Masses of single components at all integers, from the cumulatives: one row for each scale and phase, with a
        piece of zeros in front of the first and behind each."""
        radius = [-(-e >> r) + 1 for e, r in zip(extent, resolution, strict=True)]
        home, rows, length, origin = [], [np.zeros(PIECE)], PIECE, 0
        cumulative = self.cumulative
        for r, e, reach in zip(resolution, extent, radius, strict=True):
            half, stride = 2 ** (r - 1), 2 * reach + 1 + PIECE
            # Lower edges of the integers, in steps from the mean.
            edges = (2 * np.arange(-reach, reach + 2) - 1) * half - np.arange(-half, half)[:, None]
            row = np.zeros((2 * half, stride))
            masses = np.diff(cumulative[origin + e + np.clip(edges, -e, e)], axis=1)
            row[:, : 2 * reach + 1] = np.maximum(masses, 0)  # a cumulative may dip by a step where it is flat
            home.append(length + half * stride + reach)
            rows.append(row.ravel())
            length += row.size
            origin += 2 * e + 1
        self._masses = np.concatenate(rows)
        self._home = np.array(home, dtype=np.int32)  # where the mass of 0 is kept, of the mean 0
        self._radius = np.array(radius, dtype=np.int32)
        self._stride = 2 * self._radius + 1 + PIECE

    def _all_rows(self, resolution: list[int]) -> tuple[IntArray, list[FloatArray]]:
        """Tables for one component: per scale the row of its kind where the mean is an integer, and per kind the rows,
        those of a scale by the phase of the mean."""
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

    def arrays(self) -> Iterator[FloatArray]:
        """All that determines the probabilities, for the fingerprint."""
        yield from (self.frozen() | {"cumulative": self.cumulative}).values()


def _with_escape(masses: FloatArray, total: FloatArray) -> FloatArray:
    """Fill the last entry of rows (n, entries): what the others leave of the total (n,), but at least 2^-16 of it."""
    masses[:, -1] = np.maximum(total - masses[:, :-1].sum(axis=1), total * 2.0**-ESCAPE_BITS)
    return masses


def resolution_of(scale: float) -> int:
    """The r for which means are rounded to 2^-r: a 32nd of the scale, from 1 to 8; costs 6e-5 bits."""
    mantissa, exponent = math.frexp(32.0 / scale)
    return min(max(exponent - (mantissa == 0.5), 1), 8)


def extents(density: DensityLayout, scales: list[float]) -> list[int]:
    """Steps to either side for which the cumulative of each scale is tabulated."""
    extent = BOUNDS[density.family].extent
    return [math.ceil(extent * scale * 2 ** resolution_of(scale)) for scale in scales]


def _of_first_format(frozen: Mapping[str, FloatArray], extent: list[int]) -> Mapping[str, FloatArray]:
    """Exports of format 1 hold the cumulatives on both sides of 0."""
    sizes, both = [2 * e + 1 for e in extent], frozen.get("cumulative")
    if both is None or both.shape != (sum(sizes),):
        return frozen
    return {
        **frozen,
        "cumulative": np.concatenate([one[len(one) // 2 :] for one in np.split(both, np.cumsum(sizes)[:-1])]),
    }
