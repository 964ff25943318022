"""Psi is the same in strips of any height, which compute few positions twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jahp_pl.codec.entropy import fixed_point, hyper_strips, networks
from tests.support.codec_models import JOINT, codec_of


@pytest.mark.parametrize("strip", [1, 4, 16, 10**6])
def test_psi_is_the_same_in_strips_of_any_height(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    coder = codec_of(JOINT).latents
    assert coder is not None
    assert coder.h_s is not None
    for height, width in [(1, 1), (3, 2), (4, 5), (47, 11), (48, 12)]:
        z_hat = torch.randint(-15, 16, (8, -(-height // 4), -(-width // 4)), dtype=torch.int32)
        ((first, whole),) = coder.h_s.strips(z_hat, height, width)
        assert first == 0
        monkeypatch.setattr(hyper_strips, "STRIP_POSITIONS", strip * width)
        strips = list(coder.h_s.strips(z_hat, height, width))
        monkeypatch.undo()
        assert len(strips) == -(-height // max(strip, 4))
        assert [start for start, _ in strips] == [strip_height * max(strip, 4) for strip_height in range(len(strips))]
        assert torch.equal(torch.cat([psi for _, psi in strips]), whole)


def test_strips_compute_few_positions_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    coder = codec_of(JOINT).latents
    assert coder is not None
    assert coder.h_s is not None
    counts = []

    def counted(values: Tensor) -> Tensor:
        counts.append(len(values))
        return fixed_point.quantize(values)

    z_hat = torch.randint(-9, 10, (8, 16, 5), dtype=torch.int32)
    monkeypatch.setattr(networks, "quantize", counted)
    list(coder.h_s.strips(z_hat, 64, 20))
    at_once = sum(counts)
    counts.clear()
    monkeypatch.setattr(hyper_strips, "STRIP_POSITIONS", 16 * 20)
    assert len(list(coder.h_s.strips(z_hat, 64, 20))) == 4
    assert sum(counts) < 1.5 * at_once  # with everything that they depend on, strips of z_hat are twice as high
