"""Results of coding are compared symbol by symbol, whatever runtime they come from."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jahp_pl.codec.latents import Decoded, Encoded, count_mismatches

Y_HAT, Z_HAT = np.arange(24, dtype=np.int32).reshape(2, 3, 4), np.zeros((1, 1, 1), dtype=np.int32)
ENCODED = Encoded(b"", Y_HAT, Z_HAT, 0)
IMAGE = np.zeros((3, 48, 64), dtype=np.uint8)


@pytest.mark.parametrize("convert", [np.copy, torch.tensor])
def test_every_wrong_symbol_counts(convert) -> None:
    assert count_mismatches(ENCODED, Decoded(IMAGE, convert(Y_HAT), convert(Z_HAT))) == 0
    y_hat = Y_HAT.copy()
    y_hat[0, 1] += 1
    assert count_mismatches(ENCODED, Decoded(IMAGE, convert(y_hat), convert(Z_HAT + 1))) == 4 + 1


def test_all_symbols_of_another_shape_are_wrong() -> None:
    assert count_mismatches(ENCODED, Decoded(IMAGE, Y_HAT[:, :2], Z_HAT)) == Y_HAT.size


def test_models_without_side_information_have_no_hyper_latents_to_compare() -> None:
    assert count_mismatches(ENCODED._replace(z_hat=None), Decoded(IMAGE, Y_HAT, None)) == 0
