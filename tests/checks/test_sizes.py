"""Images of all heights and widths from 1 to 70 round-trip; `make fuzz` codes each of the 4900 sizes."""

from __future__ import annotations

import pytest

from checks.fuzz.sizes import COVERING, ENTROPY_MODELS, LARGEST, SMALL, round_trip, tiny_codec
from tests.support.codec_models import Variant


def test_every_size_of_up_to_two_latents_a_side_round_trips_with_a_factorized_model() -> None:
    assert {(height % 16, width % 16) for height, width in SMALL} == {(i, j) for i in range(16) for j in range(16)}
    assert round_trip(tiny_codec(Variant("factorized")), SMALL) == len(SMALL) == 1024


@pytest.mark.parametrize("variant", ENTROPY_MODELS, ids=str)
def test_every_height_and_width_round_trips_at_the_borders_of_cells(variant: Variant) -> None:
    assert {height for height, _ in COVERING} == {width for _, width in COVERING} == set(range(1, LARGEST + 1))
    assert round_trip(tiny_codec(variant), COVERING) == len(COVERING) == 544
