"""A folder `data` like the repository's, with few and small images, for pages whose commands read it."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.support import ROOT

CHOSEN = {
    "kodak": ("kodim01.png", "kodim23.png"),
    "photos/train": ("cat.jpg", "crab.jpg", "falcon.jpg"),
    "photos/val": ("dogs.jpg", "peaks.jpg"),
}
"""Names of the images that are kept, by folder below `data`."""
SIZE = (320, 272)
"""Width and height; `jahp shards` skips photographs with a side below 256."""


def write_small_data(folder: Path) -> Path:
    """Write the middles of the chosen images to `folder`/data, which is returned."""
    for part, names in CHOSEN.items():
        (folder / "data" / part).mkdir(parents=True)
        for name in names:
            with Image.open(ROOT / "data" / part / name) as image:
                left, top = (image.width - SIZE[0]) // 2, (image.height - SIZE[1]) // 2
                middle = image.crop((left, top, left + SIZE[0], top + SIZE[1]))
            middle.save(folder / "data" / part / name, quality=95)
    return folder / "data"
