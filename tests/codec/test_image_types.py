"""Images are arrays, tensors or Pillow images of 8-bit RGB; anything else is refused with its remedy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from jahp_pl.codec.bitstream import unpack
from jahp_pl.codec.codec import Codec
from jahp_pl.quality import psnr
from tests.support.codec_models import JOINT, codec_of, kodak_crop, kodak_patch, variable_codec

Picture = npt.NDArray[np.uint8]


def test_arrays_and_tensors_of_an_image_give_the_same_file() -> None:
    image = kodak_patch(40, 56)
    image.setflags(write=False)
    tensor = torch.tensor(image).movedim(-1, 0)
    assert codec_of(JOINT).compress(image) == codec_of(JOINT).compress(tensor)
    assert codec_of(JOINT).compress(image[::-1, ::-1][::-1, ::-1]) == codec_of(JOINT).compress(tensor)


@pytest.mark.parametrize(
    ("image", "remedy"),
    [
        (np.zeros((4, 4), np.uint8), "convert it to RGB"),
        (np.zeros((4, 4, 4), np.uint8), "convert it to RGB"),
        (np.zeros((0, 4, 3), np.uint8), "convert it to RGB"),
        (np.zeros((3, 4, 4), np.uint8), "permute its axes"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "permute its axes"),
        (np.zeros((4, 4, 3), np.float32), "scale it to 0 to 255 and round it to uint8"),
        (torch.zeros(3, 4, 4), "scale it to 0 to 255 and round it to uint8"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "give one image; compress_all takes several"),
    ],
)
def test_anything_but_an_rgb_image_is_refused_with_its_shape_and_type(image: Picture, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"an image must be uint8 RGB.*; {remedy}"):
        codec_of(JOINT).compress(image)


@pytest.mark.parametrize("path", ["photo.png", Path("photo.png")])
def test_a_path_in_place_of_an_image_is_refused_with_how_to_open_it(path: Any) -> None:
    with pytest.raises(ValueError, match=r"not \w+; open a file with PIL\.Image\.open"):
        codec_of(JOINT).compress(path)


def test_a_tensor_without_pixels_in_memory_is_refused() -> None:
    for wrong in (torch.zeros(3, 8, 8, dtype=torch.uint8, device="meta"), torch.zeros(3, 8, 8).byte().to_sparse()):
        with pytest.raises(ValueError, match="must have its pixels in memory"):
            codec_of(JOINT).compress(wrong)


@pytest.mark.parametrize("codec", [variable_codec(), codec_of(JOINT)], ids=["variable", "fixed"])
def test_a_gray_photograph_stays_gray(codec: Codec) -> None:
    gray = np.repeat(kodak_crop()[:, :, 1:2], 3, axis=2)
    decoded = codec.decompress(codec.compress(gray))
    assert torch.equal(decoded[0], decoded[1])
    assert torch.equal(decoded[0], decoded[2])
    coded, (height, width, _) = codec.encode(gray), gray.shape
    plain = codec.transforms.synthesize(coded.y_hat, height, width, coded.level)
    assert not torch.equal(plain[0], plain[1])
    original = torch.from_numpy(gray.copy()).movedim(-1, 0)
    assert float(psnr(original, decoded)) > float(psnr(original, plain))
    assert unpack(codec.compress(gray))[0].is_gray
    assert not unpack(codec.compress(kodak_crop()))[0].is_gray
