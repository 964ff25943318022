"""Fixtures for all tests: seeded randomness and real photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

if TYPE_CHECKING:
    from jahp_pl.training.run import TrainResult

DATA = Path(__file__).parent.parent / "data"


def read_image(path: Path) -> Tensor:
    """Read an image as (3, H, W) in [0, 1]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).movedim(-1, 0).float() / 255


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Seed every test, so that it draws the same numbers whichever tests ran before."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def kodak() -> Tensor:
    """Kodak's kodim23, the parrots, (1, 3, 512, 768) in [0, 1]."""
    return read_image(DATA / "kodak" / "kodim23.png").unsqueeze(0)


@pytest.fixture(scope="session")
def photos() -> Tensor:
    """256x256 pixels from the middle of three validation photographs, (3, 3, 256, 256) in [0, 1]."""
    crops = []
    for name in ("dogs", "peaks", "stonehenge"):
        image = read_image(DATA / "photos" / "val" / f"{name}.jpg")
        top, left = (image.shape[1] - 256) // 2, (image.shape[2] - 256) // 2
        crops.append(image[:, top : top + 256, left : left + 256])
    return torch.stack(crops)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shards of tiny photographs in `train` and `val`."""
    from tests.support.tiny_runs import write_tiny_shards

    return write_tiny_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="session")
def finished(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run of eight steps with averaged weights, validated after four and eight, without coding; do not change it."""
    from jahp_pl.training.run import train
    from tests.support.tiny_runs import NOTHING_CODED, tiny_config

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    result = train(tiny_config(tmp_path_factory.mktemp("runs"), shards, *NOTHING_CODED, "optim.ema_decay=0.9"))
    torch.set_num_threads(before)
    return result


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Use one thread, which is faster for tiny models and gives the same bits in every process."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
