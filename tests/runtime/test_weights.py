"""Stored weights are finite if and only if they are finite in float32."""

from __future__ import annotations

import numpy as np
import pytest

from jahp_pl.model_io.tensor_layout import EXPONENT_SUFFIX
from jahp_pl.runtime.weights import LazyWeights

BFLOAT16 = {"largest": 0x7F7F, "lowest": 0xFF7F, "infinite": 0x7F80, "-infinite": 0xFF80, "not a number": 0xFFC1}


@pytest.mark.parametrize("word", BFLOAT16.values(), ids=BFLOAT16.keys())
def test_bfloat16(word: int) -> None:
    weights = LazyWeights({"w": np.array([[0x3F80, word]], dtype=np.uint16)})
    assert weights.is_finite("w") == bool(np.isfinite(weights["w"]).all()) == (word & 0x7FFF < 0x7F80)


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize("exponent", [-126, 0, 119, 120, 121, 122, 126, 127])
@pytest.mark.parametrize("integer", [1, 2, -127, 127])
def test_integers_times_a_power_of_two(exponent: int, integer: int) -> None:
    arrays = {
        "w": np.array([[integer, 0]], dtype=np.int8),
        f"w{EXPONENT_SUFFIX}": np.array([[exponent]], dtype=np.int8),
    }
    weights = LazyWeights(arrays)
    assert weights.is_finite("w") == bool(np.isfinite(weights["w"]).all())
    assert weights.is_finite("w") == (abs(integer) * 2.0**exponent < 2.0**128)


@pytest.mark.parametrize("value", [1.0, np.inf, np.nan])
def test_float32(value: float) -> None:
    assert LazyWeights({"w": np.array([0, value], dtype=np.float32)}).is_finite("w") == (value == 1)
