"""A step in reused memory gives the networks' results, whatever its size, its threads and its numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jahp_pl.codec.entropy.networks import ExactContextNetwork
from jahp_pl.codec.entropy.step_network import FEW_ROWS, StepNetwork
from tests.support.circumstances import changed
from tests.support.codec_models import JOINT, MIXTURE, Variant, codec_of

M = 12


def network_of(variant: Variant) -> ExactContextNetwork:
    coder = codec_of(variant).latents
    assert coder is not None
    assert coder.context is not None
    return coder.context


@pytest.mark.parametrize("variant", [JOINT, MIXTURE, Variant("context")], ids=str)
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("num_pieces", [1, 2])
def test_steps_of_any_size_in_any_order_give_the_parameters_of_the_networks(
    variant: Variant, threads: int, num_pieces: int
) -> None:
    network = network_of(variant)
    y = np.random.default_rng(0).integers(-128, 129, (num_pieces, 300, M)).astype(np.float32)
    if num_pieces == 2:
        y[1] *= 256
    steps = StepNetwork(network, y)
    with changed(torch.set_num_threads, threads, torch.get_num_threads()):
        for count in (3, 16, 1, FEW_ROWS, 16, 2):
            y[:, 7] += 1 - 2 * (y[:, 7] > 0)
            taps = torch.randint(0, 300, (count, 12))
            start = None if network.from_psi is None else torch.randn(count, len(network.from_psi.bias))
            pieces = [torch.from_numpy(piece)[taps].flatten(1) for piece in y]
            expected = network.raw(pieces, start).numpy()
            found = steps.raw(taps.numpy(), None if start is None else start.numpy())
            assert np.array_equal(found, expected)
            assert np.ptp(found) > 0


@pytest.mark.parametrize("largest", [0.0, 1e-40, 1e-13, 1e13, 1e30], ids=str)
def test_tiny_and_huge_numbers_are_treated_as_in_the_networks(largest: float) -> None:
    network = network_of(JOINT)
    assert network.from_psi is not None
    y = np.zeros((1, 2, M), dtype=np.float32)
    taps = np.zeros((40, 12), dtype=np.int64)
    start = largest * torch.randn(40, len(network.from_psi.bias))
    expected = network.raw([torch.zeros(40, 12 * M)], start).numpy()
    assert np.array_equal(StepNetwork(network, y).raw(taps, start.numpy()), expected)
