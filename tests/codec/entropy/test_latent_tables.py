"""Tables are the correctly rounded ones, which never change; those of an export are used if they are valid."""

from __future__ import annotations

import hashlib
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest

from jahp_pl.codec.entropy.integer_layers import UnusableModelError
from jahp_pl.codec.entropy.latent_tables import LatentTables
from jahp_pl.codec.entropy.range_coder import MASS_BITS
from jahp_pl.codec.entropy.window_tables import ESCAPE_BITS, NUM_SCALES, SCALE_BITS, SCALE_MAX
from jahp_pl.config import DensityName
from jahp_pl.density_layout import BOUNDS
from tests.support.codec_models import FAMILIES
from tests.support.latent_tables import M, cumulatives, tables_of

# --- tables that are the same for every model -------------------------------------------------------------------------


def true_scales(family: DensityName, offset: float = 0.0) -> list[Decimal]:
    """Return scales from SCALE_MIN to the family's SCALE_MAX in equal ratios, to fifty digits."""
    with localcontext() as context:
        context.prec = 50
        first = Decimal(str(BOUNDS[family].scale_min)).ln()
        ratio = (Decimal(int(SCALE_MAX)).ln() - first) / (NUM_SCALES - 1)
        return [(first + ratio * (i + Decimal(offset))).exp() for i in range(NUM_SCALES)]


@pytest.mark.parametrize("family", FAMILIES)
def test_scales_thresholds_and_exponential_are_the_correctly_rounded_ones(family: DensityName) -> None:
    tables = tables_of(family, 2)
    scales = [int((s * 2**SCALE_BITS).to_integral_value()) for s in true_scales(family)]
    assert (tables.scales * 2.0**SCALE_BITS).tolist() == scales
    between = [int((s * 4096).to_integral_value()) for s in true_scales(family, 0.5)[:-1]]
    assert tables.thresholds.tolist() == between
    with localcontext() as context:
        context.prec = 50
        steps = [int(((-Decimal(i) / 64).exp() * 2**16).to_integral_value()) for i in range(16 * 64 + 1)]
    assert tables.exponential.tolist() == steps


DIGESTS = {
    "gaussian": "7d55bc093a20622136d3e754e9961edeb744bbe880482ca6ab0f03751202e01d",
    "laplace": "4009d711386cadf06cb3fde89ccc45922812375a05da227687a2159c6669eea7",
    "logistic": "b308a25ef8ea8bb22313a4496f9e77236f4826a7bd614def00f95750c4ea3b70",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_tables_of_every_family_are_pinned(family: DensityName) -> None:
    """If a digest changed, so would all fingerprints, and no earlier file would decode."""
    digest = hashlib.sha256()
    for table in tables_of(family, 2).fingerprint_arrays():
        digest.update(table.astype("<f8").tobytes())
    assert digest.hexdigest() == DIGESTS[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_cumulatives_rise_from_nothing_to_everything_and_are_symmetric(family: DensityName) -> None:
    for row in cumulatives(tables_of(family, 2)):
        assert row[0] == 0
        assert row[len(row) // 2] == 2.0 ** (MASS_BITS - 1)
        assert row[-1] == 2.0**MASS_BITS
        assert bool((row.diff() >= 0).all())
        assert float((row + row.flip(0) - 2.0**MASS_BITS).abs().max()) <= 1, "a tie rounds to the even one"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reach_leaves_less_than_an_escape_outside(family: DensityName) -> None:
    outside = {
        "gaussian": math.erfc(BOUNDS[family].reach / math.sqrt(2)),
        "laplace": math.exp(-BOUNDS[family].reach),
        "logistic": 2 / (1 + math.exp(BOUNDS[family].reach)),
    }
    assert 2.0**-17 < outside[family] < 2.0 ** -(ESCAPE_BITS - 1)


# --- tables that were taken along -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scales", "thresholds", "cumulative", "exponential"])
def test_given_tables_are_used(name: str) -> None:
    tables = tables_of("laplace", 2)
    stored = {key: value.copy() for key, value in tables.tables_to_store().items()}
    stored[name][7] += 2.0**-16 if name == "scales" else 1
    again = LatentTables(tables.density, M, stored)
    assert np.array_equal(again.tables_to_store()[name], stored[name])
    same = [np.array_equal(a, b) for a, b in zip(again.fingerprint_arrays(), tables.fingerprint_arrays(), strict=True)]
    assert same.count(False) == 1, "what determines probabilities is in the fingerprint"


@pytest.mark.parametrize("name", ["scales", "thresholds", "cumulative", "exponential"])
@pytest.mark.parametrize("fault", ["missing", "short", "long", "half", "nan", "negative"])
def test_invalid_tables_are_refused_by_name(name: str, fault: str) -> None:
    tables = tables_of("gaussian", 2)
    stored = {key: value.copy() for key, value in tables.tables_to_store().items()}
    if fault == "missing":
        del stored[name]
    elif fault == "half":
        stored[name] = stored[name].astype(np.float32)
    elif fault in ("nan", "negative"):
        stored[name][2] = math.nan if fault == "nan" else -1.0
    else:
        stored[name] = stored[name][:-1] if fault == "short" else np.append(stored[name], stored[name][-1])
    with pytest.raises(UnusableModelError, match=f"^table {name}: "):
        LatentTables(tables.density, M, stored)


def test_scales_that_do_not_rise_are_refused() -> None:
    tables = tables_of("gaussian", 2)
    stored = tables.tables_to_store() | {"scales": tables.scales[::-1]}
    with pytest.raises(UnusableModelError, match=r"^table scales: does not rise"):
        LatentTables(tables.density, M, stored)
