"""The coding order respects all dependencies, and several images do not mix."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from jahp_pl.codec.entropy.wavefront import OUTSIDE, RASTER_STEP, CodingOrder, coding_order
from jahp_pl.layers import MaskedConv2d

SIZES = [*product(range(1, 8), range(1, 8)), (1, 40), (40, 1), (2, 33), (33, 2), (13, 29)]
SOME = [(1, 1), (5, 7), (3, 12), (12, 3), (5, 7), (1, 40), (20, 1)]


def offsets_of(reach: int) -> list[tuple[int, int]]:
    """Read the offsets from the mask of the convolution itself."""
    rows = (torch.nonzero(MaskedConv2d(1, 1, 2 * reach + 1).mask) - reach).tolist()
    return [(row, column) for row, column in rows]


def seen_from(height: int, width: int, position: int, reach: int) -> list[int | None]:
    """Return the raster index of the position under each live tap; None outside."""
    row, column = divmod(position, width)
    taps = [(row + di, column + dj) for di, dj in offsets_of(reach)]
    return [i * width + j if 0 <= i < height and 0 <= j < width else None for i, j in taps]


def positions_of(plan: CodingOrder, image: int, start: int, stop: int) -> list[int]:
    """Return the raster indices of an image's positions in a range of ranks, in their order."""
    order = np.argsort(plan.ranks[image])
    ranks = plan.ranks[image][order]
    return order[(ranks >= start) & (ranks < stop)].tolist()


@pytest.mark.parametrize("reach", [1, 2, 3])
def test_every_dependency_lies_in_an_earlier_step(reach: int) -> None:
    for height, width in SIZES:
        plan = coding_order([(height, width)], offsets_of(reach))
        seen: set[int] = set()
        for (step,) in plan.steps:
            assert step.image == 0
            positions = positions_of(plan, 0, step.start, step.stop)
            assert len(positions) == step.stop - step.start
            for position in positions:
                assert {p for p in seen_from(height, width, position, reach) if p is not None} <= seen, (height, width)
            assert positions == sorted(positions), "within a step by row"
            assert not seen & set(positions)
            seen |= set(positions)
        assert seen == set(range(height * width)), "a partition of all positions"


def test_the_number_of_steps_stays_within_the_bound() -> None:
    for height, width in SIZES:
        steps = coding_order([(height, width)], offsets_of(2)).steps
        assert len(steps) <= width + 3 * (height - 1)
        times = {column + 3 * row for row in range(height) for column in range(width)}
        assert len(steps) == len(times)
    assert len(coding_order([(32, 48)], offsets_of(2)).steps) == 141


def test_without_context_steps_are_blocks_in_raster_order() -> None:
    plan = coding_order([(50, 45)], [])
    assert [tuple(step) for (step,) in plan.steps] == [
        (0, 0, RASTER_STEP),
        (0, RASTER_STEP, 2 * RASTER_STEP),
        (0, 2 * RASTER_STEP, 2250),
    ]
    assert np.array_equal(plan.ranks[0], np.arange(2250))
    assert plan.taps.shape == (2250, 0)


@pytest.mark.parametrize("shapes", [[(6, 9)], SOME], ids=["one image", "several"])
@pytest.mark.parametrize("reach", [1, 2])
def test_taps_are_the_buffer_rows_inside_the_mask(shapes: list[tuple[int, int]], reach: int) -> None:
    plan = coding_order(shapes, offsets_of(reach))
    for (height, width), ranks in zip(shapes, plan.ranks, strict=True):
        for position in range(height * width):
            expected = [OUTSIDE if p is None else int(ranks[p]) + 1 for p in seen_from(height, width, position, reach)]
            assert plan.taps[ranks[position]].tolist() == expected


@pytest.mark.parametrize("reach", [0, 2])
def test_images_in_lockstep_are_coded_each_in_its_own_order(reach: int) -> None:
    offsets = offsets_of(reach) if reach else []
    plan = coding_order(SOME, offsets)
    everything = np.concatenate(plan.ranks)
    assert np.array_equal(np.sort(everything), np.arange(len(everything)))
    ranks_in_steps = [rank for steps in plan.steps for step in steps for rank in range(step.start, step.stop)]
    assert ranks_in_steps == list(range(len(everything))), "ranks of a step follow each other"
    for image, shape in enumerate(SOME):
        alone = coding_order([shape], offsets)
        parts = [positions_of(plan, image, s.start, s.stop) for steps in plan.steps for s in steps if s.image == image]
        assert parts == [positions_of(alone, 0, s.start, s.stop) for (s,) in alone.steps]
    for steps in plan.steps:
        images = [step.image for step in steps]
        assert images == sorted(set(images)), "each image once, in their order"
    clock = {j + 3 * i if reach else 0 for height, width in SOME for i in range(height) for j in range(width)}
    assert len(plan.steps) == len(clock), "one clock for all"
