# ruff: noqa: T201
"""Codes images of every size up to 70 x 70, with and without mixtures; each must decode to the model's reconstruction.

python -m checks.fuzz.sizes
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from itertools import product

import numpy as np
import torch

from jahp_pl.codec.codec import Codec
from jahp_pl.model import CompressionModel
from jahp_pl.quality import to_uint8
from tests.support.codec_models import Variant, kodak_crop

LARGEST = 70
"""Longest side in pixels: up to 5 latents and 2 hyper-latents, so that all remainders of both strides occur."""
EVERY = tuple(product(range(1, LARGEST + 1), range(1, LARGEST + 1)))
"""Height and width."""
BORDERS = (1, 16, 17, 70)
"""Sides at which the number of latents changes, and the shortest and the longest side."""
COVERING = tuple(sorted({*product(range(1, LARGEST + 1), BORDERS), *product(BORDERS, range(1, LARGEST + 1))}))
"""Every height with these widths, and every width with these heights; both together matter only through the number of
latents."""
SMALL = tuple(product(range(1, 33), range(1, 33)))
"""Sides of one or two latents: all pairs of remainders by the stride 16."""
ENTROPY_MODELS = (Variant("factorized"), Variant("joint"), Variant("joint", "gaussian", 3))


def tiny_codec(variant: Variant) -> Codec:
    """Create a codec with random weights, N = M = 4."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Codec(CompressionModel(variant.config(num_filters=4, num_latents=4)).eval())


@torch.no_grad()
def round_trip(codec: Codec, sizes: Iterable[tuple[int, int]]) -> int:
    """Code images of these sizes, and return their number.

    Raises:
        AssertionError: if latents differ, or an image differs from what g_s makes of them.
    """
    count, image = 0, kodak_crop()[:LARGEST, :LARGEST]
    for height, width in sizes:
        encoded = codec.encode(np.ascontiguousarray(image[:height, :width]))
        decoded = codec.decode(encoded.data)
        what = f"{codec.model.config.entropy_model}, {width} x {height} pixels"
        assert torch.equal(decoded.y_hat, encoded.y_hat), what
        if encoded.z_hat is not None and decoded.z_hat is not None:
            assert torch.equal(decoded.z_hat, encoded.z_hat), what
        assert decoded.image.shape == (3, height, width), what
        count += 1
        if min(height, width) <= 2 or height == width:  # checks g_s for some of them
            x_hat = codec.model.synthesize(encoded.y_hat.float().unsqueeze(0), height, width)
            assert int((to_uint8(x_hat)[0].int() - decoded.image.int()).abs().max()) <= 1, what
    return count


def main() -> None:
    """Code all sizes."""
    torch.set_num_threads(1)
    for variant in ENTROPY_MODELS:
        start = time.process_time()
        count = round_trip(tiny_codec(variant), EVERY)
        print(f"{variant}: {count} sizes from 1 x 1 to {LARGEST} x {LARGEST}, {time.process_time() - start:.0f} s")


if __name__ == "__main__":
    main()
