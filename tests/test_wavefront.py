"""The order of coding: wavefronts give what a plain raster scan gives."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from codec_models import JOINT, MIXTURE, Variant, codec_of
from torch import Tensor

from jahp_pl.codec import tables, wavefront
from jahp_pl.codec.coder import Reader, Writer
from jahp_pl.codec.wavefront import LatentCoder, _Frame, wavefronts
from jahp_pl.layers import MaskedConv2d

SIZES = [*product(range(1, 8), range(1, 8)), (1, 40), (40, 1), (2, 33), (33, 2), (13, 29)]


def dependencies(height: int, width: int, reach: int) -> dict[int, set[int]]:
    """Raster index of each position -> those its context sees, from the mask of the convolution itself."""
    taps = torch.nonzero(MaskedConv2d(1, 1, 2 * reach + 1).mask) - reach
    found: dict[int, set[int]] = {}
    for row, column in product(range(height), range(width)):
        seen = [(row + di, column + dj) for di, dj in taps.tolist()]
        found[row * width + column] = {i * width + j for i, j in seen if 0 <= i < height and 0 <= j < width}
    return found


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_every_dependency_lies_in_an_earlier_wavefront(reach: int) -> None:
    for height, width in SIZES:
        seen: set[int] = set()
        needed = dependencies(height, width, reach)
        for group in wavefronts(height, width, reach):
            positions = group.tolist()
            assert all(needed[p] <= seen for p in positions), (height, width)
            assert positions == sorted(positions), "within a wavefront by row"
            assert not seen & set(positions)
            seen |= set(positions)
        assert seen == set(range(height * width)), "a partition of all positions"


def test_there_are_no_more_wavefronts_than_promised() -> None:
    for height, width in SIZES:
        assert len(wavefronts(height, width, 2)) <= width + 3 * (height - 1)
    assert len(wavefronts(32, 48, 2)) == 141


def test_without_context_all_positions_are_one_wavefront() -> None:
    (only,) = wavefronts(5, 7, 0)
    assert only.tolist() == list(range(35))


def coder_of(variant: Variant) -> LatentCoder:
    coder = codec_of(variant).latents
    assert coder is not None
    return coder


def side_information(variant: Variant, height: int, width: int) -> Tensor | None:
    if variant.rung == "context":
        return None
    return torch.randint(-9, 10, (8, -(-height // 4), -(-width // 4)), dtype=torch.int32)


def raster_raw(coder: LatentCoder, y_hat: Tensor, z_hat: Tensor | None) -> Tensor:
    """Oracle: raw parameters position by position in raster order, where what is not yet decoded is nonsense."""
    _, height, width = y_hat.shape
    frame = _Frame(coder, height, width, z_hat)
    frame.fill(torch.full_like(y_hat, 3333))
    rows = []
    for position in range(height * width):
        index = torch.tensor([position])
        rows.append(frame.raw(index))
        frame.put(index, y_hat[:, position // width, position % width].unsqueeze(0))
    return torch.cat(rows)


@pytest.mark.parametrize("variant", [JOINT, MIXTURE, Variant("context"), Variant("mean_scale_hyperprior")], ids=str)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (3, 2), (6, 11)])
def test_full_frame_wavefront_and_raster_order_give_equal_parameters(variant: Variant, height: int, width: int) -> None:
    coder = coder_of(variant)
    y_hat = torch.randint(-30, 31, (12, height, width), dtype=torch.int32)
    z_hat = side_information(variant, height, width)
    at_once = _Frame(coder, height, width, z_hat)
    at_once.fill(y_hat)
    full = at_once.raw(torch.arange(height * width))
    by_wavefront = torch.empty_like(full)
    growing = _Frame(coder, height, width, z_hat)
    growing.fill(torch.full_like(y_hat, -2222))
    for positions in wavefronts(height, width, coder.reach):
        by_wavefront[positions] = growing.raw(positions)
        growing.put(positions, y_hat.flatten(1).T[positions])
    assert torch.equal(full, by_wavefront)
    assert torch.equal(full, raster_raw(coder, y_hat, z_hat))


@pytest.mark.parametrize("variant", [JOINT, MIXTURE, Variant("context", "laplace", 3)], ids=str)
def test_what_is_written_is_read_back_however_it_is_cut(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    coder = coder_of(variant)
    for height, width in [(1, 1), (4, 7), (11, 5)]:
        y_hat = torch.randint(-17, 40, (12, height, width), dtype=torch.int32)
        z_hat = side_information(variant, height, width)
        lowest, highest = int(y_hat.min()), int(y_hat.max())
        payloads = set()
        for chunk, cells in [(4096, 2**24), (5, 2**24), (4096, 1)]:
            monkeypatch.setattr(wavefront, "CHUNK", chunk)
            monkeypatch.setattr(tables, "MAX_CELLS", cells)
            writer = Writer()
            coder.write(writer, y_hat, z_hat)
            payloads.add(writer.payload())
            reader = Reader(writer.payload())
            assert torch.equal(coder.read(reader, height, width, z_hat, lowest, highest), y_hat)
            reader.finish()
        assert len(payloads) == 1, "how much is computed at a time does not change the file"
