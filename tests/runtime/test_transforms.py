"""Transforms in onnxruntime give the same image in tiles of any size, which the memory limits."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from jahp_pl.cli.codecs import open_any_codec
from jahp_pl.runtime.transforms import MEMORY_LIMIT
from tests.support.codec_models import JOINT, kodak_crop
from tests.support.runtime_codecs import pair


def test_tiles_leave_no_seams(folder: Path) -> None:
    ours, theirs = pair(JOINT, folder)
    image = kodak_crop("kodim19", 256, 384)
    data = ours.encode(image).data
    expected = theirs.decode(data).image
    before, theirs.transforms.memory_limit = theirs.transforms.memory_limit, 1
    try:
        tiled, again = theirs.decode(data).image, theirs.encode(image)
    finally:
        theirs.transforms.memory_limit = before
    assert np.abs(tiled.astype(int) - expected).max() <= 1
    assert np.mean(again.y_hat != theirs.encode(image).y_hat) < 1e-4


@pytest.mark.parametrize("size", [(18, 47), (33, 9), (17, 34)])
@pytest.mark.parametrize("limit", [1, 10**6])
def test_what_is_cut_off_a_halo_changes_nothing(size: tuple[int, int], limit: int, folder: Path) -> None:
    """This holds even if a tile ends one or two latents before the image does, so that its halo reaches the edge."""
    _, theirs = pair(JOINT, folder)
    y_hat = np.random.default_rng(0).integers(-9, 10, (12, *size)).astype(np.int32)
    height, width = 16 * size[0] - 3, 16 * size[1]
    expected = theirs.reconstruct(y_hat, height, width, None)
    before, theirs.transforms.memory_limit = theirs.transforms.memory_limit, limit
    try:
        tiled = theirs.reconstruct(y_hat, height, width, None)
    finally:
        theirs.transforms.memory_limit = before
    assert np.abs(tiled.astype(int) - expected).max() <= 1
    assert np.mean(tiled != expected) < 1e-3


def test_memory_limits_the_tiles_of_the_runtime_too() -> None:
    for memory, limit in ((16, 16 * 2**20), (1024, MEMORY_LIMIT)):
        arguments = Namespace(
            runtime="onnx", device="cpu", precision="float32", model="joint-psnr", threads=1, memory=memory
        )
        assert open_any_codec(arguments).transforms.memory_limit == limit
