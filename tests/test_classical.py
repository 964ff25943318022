"""The classical codecs that models are compared with."""

from pathlib import Path

import pytest

from jahp_pl.data.images import decode_rgb
from jahp_pl.evaluation.classical import CODECS, at_least

KODAK = Path(__file__).parents[1] / "data" / "kodak"


@pytest.fixture(scope="module")
def image():
    return decode_rgb(KODAK / "kodim07.png")[:256, :320]


@pytest.mark.parametrize("name", CODECS)
def test_files_of_a_ladder_grow_and_decode_to_the_same_shape(name, image):
    codec = CODECS[name]
    sizes = [len(codec.encode(image, quality)) for quality in codec.qualities[::10]]
    assert sizes == sorted(sizes)
    assert at_least(codec, image, 0).decode().shape == image.shape


@pytest.mark.parametrize("num_bytes", [2_000, 5_000, 12_345])
def test_the_file_has_at_least_the_bytes_asked_for_and_one_quality_less_has_not(num_bytes, image):
    codec = CODECS["jpeg"]
    file = at_least(codec, image, num_bytes)
    assert len(file.data) >= num_bytes
    assert len(codec.encode(image, file.quality - 1)) < num_bytes


def test_asking_for_more_than_the_ladder_has_gives_its_largest_file(image):
    codec = CODECS["jpeg"]
    assert at_least(codec, image, 10**9).quality == codec.qualities[-1]


def test_subsampled_jpeg_is_smaller(image):
    assert len(CODECS["jpeg"].encode(image, 50)) < len(CODECS["jpeg444"].encode(image, 50))
