"""From exact network outputs to symbol models, by integer and correctly rounded steps only.

Everything that needs exp, log or erf is tabulated once, when a model is frozen: the 64 scales and the thresholds
between them, the cumulative of each scale for the families that are tabulated, the exponential for mixture weights, and
the factorized density of each channel. Another machine's exp may round a value to the other side of a step, so the
tables can be taken along (`frozen`) and given back in place of making them anew.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from jahp_pl.codec.coder import ChannelTable, FloatArray, IntArray, Located, Reader, Tabulated, Writer
from jahp_pl.codec.exact import FRACTION_BITS, FreezeError
from jahp_pl.config import Family
from jahp_pl.distributions import log_mass
from jahp_pl.entropy_model import SCALE_MIN, ConditionalDensity, FactorizedDensity

NUM_SCALES = 64
SCALE_MAX = 256.0
SCALE_BITS = 16
"""Scales are multiples of 2^-16."""
MASS_BITS = 24
"""Tabulated probabilities count steps of 2^-24, the resolution of the range coder."""
TABLE_LIMIT = 2**12
"""Tails of a channel's density are searched for within +-4096."""
TABLE_MARGIN = 32
"""Symbols that a channel's table holds beyond each tail. There they cost 24 bits, an escape costs 56; the room they
take from the others is 6e-6 bits a symbol."""
WEIGHT_STEPS = 64
"""Mixture logits are rounded to 1/64 nat, half a per cent of a weight."""
NUM_EXPONENTIALS = 16 * WEIGHT_STEPS + 1
"""Down to e^-16, which is taken for all that is less."""
MAX_CELLS = 2**24
"""Cells of a table of masses held at a time, 128 MB."""
SCALE_SIZES = {"scales": NUM_SCALES, "thresholds": NUM_SCALES - 1}


class LatentTables:
    """p(y_hat | raw parameters): turns rows of raw integers into symbol models.

    Args:
        density: family, number of components, presence of means.
        num_latents: M.
        frozen: `frozen()` of another instance for the same density; None makes the tables here.

    Raises:
        FreezeError: `frozen` does not fit the density.
    """

    def __init__(
        self, density: ConditionalDensity, num_latents: int, frozen: Mapping[str, Tensor] | None = None
    ) -> None:
        self.density = density
        self.num_latents = num_latents
        self.is_located = density.family != "logistic" and density.num_components == 1
        self.scales, self.thresholds = _scales(density.family) if frozen is None else _rising(frozen, SCALE_SIZES)
        if not self.is_located:
            resolution = _mean_resolutions(self.scales)
            # Powers of two by Python's exact arithmetic; a vectorized exp2 may miss them by a bit.
            self.mean_factor = torch.tensor([2.0 ** (r - FRACTION_BITS) for r in resolution], dtype=torch.float64)
            self.half_bin = torch.tensor([2 ** (r - 1) for r in resolution])
            self.half, self.start = _extents(density.family, self.scales, resolution)
            if frozen is None:
                self.cumulative = _cumulatives(density.family, self.scales, resolution, self.half)
                steps = torch.arange(NUM_EXPONENTIALS).double() / WEIGHT_STEPS
                self.exponential = torch.round(torch.exp(-steps) * 2.0**16)
            else:
                sizes = {"cumulative": int((2 * self.half + 1).sum()), "exponential": NUM_EXPONENTIALS}
                self.cumulative, self.exponential = (_table(frozen, name, size) for name, size in sizes.items())

    def frozen(self) -> dict[str, Tensor]:
        """All that took exp or erf to make, float64: what to keep beside the weights."""
        tables = {"scales": self.scales, "thresholds": self.thresholds}
        return tables if self.is_located else tables | {"cumulative": self.cumulative, "exponential": self.exponential}

    def chunk(self, lowest: int, highest: int) -> int:
        """How many positions to turn into symbol models at a time, so that tables stay within `MAX_CELLS`."""
        width = 1 if self.is_located else (highest - lowest + 2) * self.density.num_components
        return max(1, MAX_CELLS // (width * self.num_latents))

    def models(self, raw: Tensor, lowest: int, highest: int) -> Located | Tabulated:
        """Symbol models of all latents at P positions, by position, then channel.

        Args:
            raw: (P, num_blocks K M) float64 integers, steps of 2^-12.
            lowest, highest: range of the latents.
        """
        density = self.density
        blocks = raw.view(len(raw), density.num_blocks, density.num_components, self.num_latents).unbind(1)
        scale_index = torch.bucketize(blocks[0].contiguous(), self.thresholds)  # (P, K, M)
        mu = blocks[1] if density.has_means else torch.zeros_like(blocks[0])
        if self.is_located:
            assert density.family != "logistic"
            mu_steps, sigma = mu.flatten() * 2.0**-FRACTION_BITS, self.scales[scale_index.flatten()]
            return Located(density.family, lowest, highest, mu_steps.numpy(), sigma.numpy())
        masses = self._masses(scale_index, mu, lowest, highest)  # (P, K, M, symbols)
        if density.num_components > 1:
            gap = blocks[-1].amax(dim=1, keepdim=True) - blocks[-1]
            steps = torch.round(gap * (WEIGHT_STEPS * 2.0**-FRACTION_BITS)).clamp_(max=NUM_EXPONENTIALS - 1)
            masses = masses * self.exponential[steps.long()].unsqueeze(-1)  # integers below 2^40
        # The 1 keeps a row positive whose means all lie far outside the range of symbols.
        return Tabulated(lowest, (masses.sum(dim=1) + 1).flatten(0, 1).numpy())

    def _masses(self, scale_index: Tensor, mu: Tensor, lowest: int, highest: int) -> Tensor:
        """Mass of each symbol under each component, in steps of 2^-24: (P, K, M) each -> (P, K, M, symbols)."""
        # Means and edges count steps of 2^-resolution of their scale; `edges` is twice the lower edge of each bin, and
        # one more.
        mean = torch.round(mu * self.mean_factor[scale_index]).long()
        edges = 2 * torch.arange(lowest, max(highest, lowest + 1) + 2) - 1
        offset = edges * self.half_bin[scale_index].unsqueeze(-1) - mean.unsqueeze(-1)  # (P, K, M, symbols + 1)
        half = self.half[scale_index].unsqueeze(-1)
        index = torch.maximum(torch.minimum(offset, half), -half) + half + self.start[scale_index].unsqueeze(-1)
        return self.cumulative[index].diff(dim=-1)

    def tensors(self) -> Iterator[Tensor]:
        """All that determines the probabilities, for the fingerprint."""
        yield from (self.scales, self.thresholds)
        if not self.is_located:
            yield from (self.cumulative, self.exponential)


def exact_bits(symbols: IntArray, model: Located | Tabulated) -> float:
    """Cross-entropy in bits of n symbols under the model as it is coded: each symbol of the range gets 2^-24 on top."""
    if isinstance(model, Located):
        y, mu, sigma = torch.from_numpy(symbols).double(), torch.from_numpy(model.mu), torch.from_numpy(model.sigma)
        probability = log_mass(model.family, y, mu, sigma).exp().numpy()
        return _leaky_bits(probability, model.highest - model.lowest + 1)
    chosen = np.take_along_axis(model.masses, (symbols - model.lowest)[:, None].astype(np.int64), axis=1)[:, 0]
    return _leaky_bits(chosen / model.masses.sum(axis=1), model.masses.shape[1])


def _leaky_bits(probability: FloatArray, num_symbols: int) -> float:
    """Bits of symbols (n,) with these probabilities, each one of `num_symbols`, of which the coder rules out none."""
    leak = 2.0**-MASS_BITS
    return float(-np.log2(probability * (1 - num_symbols * leak) + leak).sum())


class PriorTables:
    """p(z_hat) (or p(y_hat) on the factorized rung): one table per channel.

    Args:
        prior: trained factorized density, on any device; the tables are computed on the CPU, alike for all.
        frozen: `frozen()` of another instance for the same density; None makes the tables here.

    Raises:
        FreezeError: `frozen` does not fit the density.
    """

    def __init__(self, prior: FactorizedDensity, frozen: Mapping[str, Tensor] | None = None) -> None:
        if frozen is None:
            self.lowest, self.masses = _prior_masses(copy.deepcopy(prior).cpu())
        else:
            sizes = _table(frozen, "sizes", prior.num_channels).long().tolist()
            self.lowest = _table(frozen, "lowest", prior.num_channels, signed=True).long().tolist()
            if min(sizes) < 2 or max(map(abs, self.lowest)) > 2 * TABLE_LIMIT:
                raise FreezeError("tables of the prior: not those of a density; export the model again")
            self.masses = list(torch.split(_table(frozen, "masses", sum(sizes)), sizes))
            if min(float(masses.sum()) for masses in self.masses) < 1:
                raise FreezeError("tables of the prior: a channel without mass; export the model again")
        self.tables = [ChannelTable(low, m.numpy()) for low, m in zip(self.lowest, self.masses, strict=True)]

    def frozen(self) -> dict[str, Tensor]:
        """What to keep beside the weights, float64; the masses of all channels one behind the other."""
        sizes = torch.tensor([len(masses) for masses in self.masses]).double()
        return {"lowest": torch.tensor(self.lowest).double(), "sizes": sizes, "masses": torch.cat(self.masses)}

    def write(self, writer: Writer, symbols: Tensor) -> float:
        """Append (C, h, w) int32, channel by channel; returns their bits under the tables."""
        bits = 0.0
        for channel, table, low, masses in zip(symbols.numpy(), self.tables, self.lowest, self.masses, strict=True):
            flat = np.ascontiguousarray(channel).ravel()
            writer.write_channel(flat, table)
            index = torch.from_numpy(flat.astype(np.int64) - low)
            outside = (index < 0) | (index >= table.escape)
            mass = masses[torch.where(outside, table.escape, index)] / masses.sum()
            bits += _leaky_bits(mass.numpy(), len(masses)) + 32 * int(outside.sum())
        return bits

    def read(self, reader: Reader, height: int, width: int) -> Tensor:
        """The next (C, height, width) int32."""
        channels = [reader.read_channel(height * width, table) for table in self.tables]
        return torch.from_numpy(np.stack(channels)).view(len(channels), height, width)

    def tensors(self) -> Iterator[Tensor]:
        """All that determines the probabilities, for the fingerprint."""
        yield torch.tensor(self.lowest).double()
        yield from self.masses


def _prior_masses(prior: FactorizedDensity) -> tuple[list[int], list[Tensor]]:
    """Per channel the first symbol of its table, and the masses, the last one that of an escape."""
    low, high = _tails(prior)
    lowest, highest = (low - TABLE_MARGIN).tolist(), (high + TABLE_MARGIN).tolist()
    edges = [torch.arange(first, last + 2).double() - 0.5 for first, last in zip(lowest, highest, strict=True)]
    padded = torch.nn.utils.rnn.pad_sequence(edges, batch_first=True).unsqueeze(1)  # (C, 1, longest)
    with torch.no_grad():
        cumulative = torch.sigmoid(prior.cumulative_logits(padded)).squeeze(1)
    masses = []
    for row, edge in zip(cumulative, edges, strict=True):
        inside = torch.round(row[: len(edge)].diff() * 2.0**MASS_BITS)
        masses.append(torch.cat([inside, (2.0**MASS_BITS - inside.sum()).clamp(min=1).unsqueeze(0)]))
    return lowest, masses


def _tails(prior: FactorizedDensity) -> tuple[Tensor, Tensor]:
    """Integers per channel outside of which less than 2^-24 of the mass lies on either side, by bisection of F."""
    target = math.log(2.0) * MASS_BITS
    found = []
    for sign in (-1.0, 1.0):
        near = torch.full((prior.num_channels, 1, 1), -sign * TABLE_LIMIT, dtype=torch.float64)
        far = -near
        for _ in range(40):
            middle = (near + far) / 2
            with torch.no_grad():
                inside = sign * prior.cumulative_logits(middle) < target
            near, far = torch.where(inside, middle, near), torch.where(inside, far, middle)
        found.append(torch.round(far.flatten()).long())
    return found[0], torch.maximum(found[1], found[0])


def _mean_resolutions(scales: Tensor) -> list[int]:
    """Per scale the r for which means are rounded to 2^-r: a sixteenth of the scale, from 1 to 7; costs 2e-4 bits."""
    return [min(max(math.ceil(math.log2(16.0 / scale)), 1), 7) for scale in scales.tolist()]


def _scales(family: Family) -> tuple[Tensor, Tensor]:
    """The scales, and the thresholds between them in steps of the raw outputs."""
    smallest = SCALE_MIN[family]
    ratio = math.log(SCALE_MAX / smallest) / (NUM_SCALES - 1)
    logs = math.log(smallest) + ratio * torch.arange(NUM_SCALES).double()
    # On a grid, so that they do not hang on the last bit of this machine's exp.
    scales = torch.round(logs.exp() * 2.0**SCALE_BITS) * 2.0**-SCALE_BITS
    # In between two scales the nearer one by ratio, which costs the least rate.
    return scales, torch.round((logs[:-1] + ratio / 2).exp() * 2.0**FRACTION_BITS)


def _extents(family: Family, scales: Tensor, resolution: list[int]) -> tuple[Tensor, Tensor]:
    """Per scale, how many steps its cumulative is tabulated to either side of 0, and where it starts."""
    reach = 5.5 if family == "gaussian" else 18.0  # scales beyond which less than 2^-25 is left
    half = torch.tensor([math.ceil(reach * s * 2**r) for s, r in zip(scales.tolist(), resolution, strict=True)])
    return half, torch.cumsum(2 * half + 1, 0) - (2 * half + 1)


def _cumulatives(family: Family, scales: Tensor, resolution: list[int], half: Tensor) -> Tensor:
    """2^24 F(d 2^-r / sigma) for |d| <= half, one scale behind the other."""
    pieces = [
        _cumulative(family, torch.arange(-int(h), int(h) + 1).double() * 2.0**-r / s)
        for h, r, s in zip(half, resolution, scales, strict=True)
    ]
    return torch.round(torch.cat(pieces) * 2.0**MASS_BITS)


def _table(frozen: Mapping[str, Tensor], name: str, size: int, signed: bool = False) -> Tensor:
    """A table that was taken along, if it can be one.

    Raises:
        FreezeError: missing, of another size or type, not finite, or negative where that has no meaning.
    """
    table = frozen.get(name)
    if table is None or table.shape != (size,) or table.dtype != torch.float64:
        raise FreezeError(f"table {name}: missing or not {size} numbers in float64; export the model again")
    if not bool(torch.isfinite(table).all()) or (not signed and float(table.min()) < 0):
        raise FreezeError(f"table {name}: holds numbers that no frozen model has; export the model again")
    return table


def _rising(frozen: Mapping[str, Tensor], sizes: Mapping[str, int]) -> tuple[Tensor, ...]:
    tables = tuple(_table(frozen, name, size) for name, size in sizes.items())
    for name, table in zip(sizes, tables, strict=True):
        if float(table[0]) <= 0 or float(table[-1]) > 2.0**31 or not bool((table.diff() > 0).all()):
            raise FreezeError(f"table {name}: does not rise from above 0; export the model again")
    return tables


def _cumulative(family: Family, t: Tensor) -> Tensor:
    if family == "gaussian":
        gaussian: Tensor = torch.special.ndtr(t)
        return gaussian
    if family == "laplace":
        return 0.5 + 0.5 * torch.sign(t) * -torch.expm1(-t.abs())
    return torch.sigmoid(t)
