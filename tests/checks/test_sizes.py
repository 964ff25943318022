"""Images of every size from 1 x 1 to 70 x 70 round-trip; `make fuzz` codes all sizes with every model below, too."""

from __future__ import annotations

import pytest

from checks.fuzz.sizes import COVERING, ENTROPY_MODELS, EVERY, LARGEST, round_trip, tiny_codec
from tests.support.codec_models import Variant


@pytest.mark.slow
def test_every_size_round_trips_with_a_factorized_model() -> None:
    assert round_trip(tiny_codec(Variant("factorized")), EVERY) == 4900


@pytest.mark.parametrize("variant", [v for v in ENTROPY_MODELS if v.entropy_model != "factorized"], ids=str)
def test_every_height_and_width_round_trips_at_the_borders_of_cells(variant: Variant) -> None:
    assert {height for height, _ in COVERING} == {width for _, width in COVERING} == set(range(1, LARGEST + 1))
    assert round_trip(tiny_codec(variant), COVERING) == len(COVERING) == 544
