"""The codec in onnxruntime gives torch's files and torch's latents to the last bit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jahp_pl.codec.bitstream import BitstreamError
from jahp_pl.codec.entropy.range_coder import Writer
from jahp_pl.codec.targets import Target
from jahp_pl.model_io.load import load_codec
from jahp_pl.runtime.codec import RuntimeCodec
from jahp_pl.runtime.load import load_runtime
from tests.support.codec_models import JOINT, KODAK, MIXTURE, ONE_OF_EACH, Variant, kodak_crop
from tests.support.profiles import DISPLAY_P3
from tests.support.runtime_codecs import VARIABLE, pair


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda codec: pickle.loads(pickle.dumps(codec))])
@pytest.mark.parametrize("variant", [MIXTURE, VARIABLE], ids=str)
def test_copies_write_the_same_files(
    variant: Variant | str, copied: Callable[[RuntimeCodec], RuntimeCodec], folder: Path
) -> None:
    _, codec = pair(variant, folder)
    image, other = kodak_crop("kodim05", 40, 70), copied(codec)
    assert other.fingerprint == codec.fingerprint
    assert other.compress(image) == codec.compress(image)


@pytest.mark.parametrize("variant", [*ONE_OF_EACH, VARIABLE], ids=str)
def test_each_runtime_reads_the_files_of_the_other(variant: Variant | str, folder: Path) -> None:
    ours, theirs = pair(variant, folder)
    assert theirs.fingerprint == ours.fingerprint
    image = kodak_crop("kodim05", 150, 219)
    by_torch, by_runtime = ours.encode(image), theirs.encode(image, measure=True)
    assert by_torch.level == by_runtime.level
    assert by_torch.bits is None
    assert 8 * (len(by_runtime.data) - by_runtime.header_bytes) == pytest.approx(by_runtime.bits, abs=64)
    for data, y_hat, z_hat in (
        (by_torch.data, by_torch.y_hat.numpy(), by_torch.z_hat),
        (by_runtime.data, by_runtime.y_hat, by_runtime.z_hat),
    ):
        here, there = theirs.decode(data), ours.decode(data)
        assert np.array_equal(here.y_hat, y_hat)
        assert np.array_equal(there.y_hat.numpy(), y_hat)
        if z_hat is not None:
            assert here.z_hat is not None
            assert np.array_equal(here.z_hat, np.asarray(z_hat))
        assert here.level == there.level
        assert np.abs(here.image.astype(int) - there.image.numpy()).max() <= 1


@pytest.mark.parametrize("variant", [JOINT, MIXTURE, Variant("context", "laplace", 3)], ids=str)
@pytest.mark.parametrize("factor", [3, 300])
def test_any_latents_give_the_same_payload(variant: Variant, factor: int, folder: Path) -> None:
    """This includes latents of one and two pieces, escapes, and hyper-latents that float32 cannot represent."""
    ours, theirs = pair(variant, folder)
    numbers = np.random.default_rng(0)
    y_hat = (numbers.integers(-40, 41, (12, 11, 14)) * factor).astype(np.int32)
    z_hat = None if variant.entropy_model == "context" else numbers.integers(-20, 21, (8, 3, 4)).astype(np.int32)
    if z_hat is not None and factor > 3:
        z_hat[0, 0, 0], z_hat[1, 1, 1] = 2**30 + 1, -(2**24) - 3
    writers = Writer(), Writer()
    ours._write(writers[0], torch.from_numpy(y_hat), None if z_hat is None else torch.from_numpy(z_hat))
    theirs._write(writers[1], y_hat, z_hat)
    assert writers[0].payload() == writers[1].payload()


def test_a_size_is_met_as_in_torch(folder: Path) -> None:
    _, theirs = pair(VARIABLE, folder)
    image = kodak_crop("kodim23", 160, 160)
    plain = len(theirs.encode(image).data)
    smaller = theirs.encode(image, Target(size=plain * 2 // 3))
    assert len(smaller.data) <= plain * 2 // 3
    assert theirs.decode(smaller.data).level == smaller.level


def test_a_gray_picture_stays_gray(folder: Path) -> None:
    _, theirs = pair(JOINT, folder)
    gray = Image.fromarray(kodak_crop("kodim05", 40, 56)).convert("L")
    shown = theirs.decompress(theirs.compress(gray), as_="pil")
    red, green, blue = np.asarray(shown).transpose(2, 0, 1)
    assert np.array_equal(red, green)
    assert np.array_equal(red, blue)


def test_a_color_profile_comes_back(folder: Path) -> None:
    _, theirs = pair(JOINT, folder)
    picture = Image.fromarray(kodak_crop("kodim05", 40, 56))
    picture.info["icc_profile"] = DISPLAY_P3
    assert theirs.decompress(theirs.compress(picture), as_="pil").info["icc_profile"] == DISPLAY_P3


def test_files_in_lockstep_decode_as_alone(folder: Path) -> None:
    _, theirs = pair(JOINT, folder)
    files = [theirs.compress(kodak_crop(name, 64, 80)) for name in ("kodim05", "kodim19", "kodim23")]
    for one, data in zip(theirs.decode_all(files), files, strict=True):
        assert np.array_equal(one.y_hat, theirs.decode(data).y_hat)
    for image, data in zip(theirs.decompress_all(iter(files)), files, strict=True):
        assert np.array_equal(image, theirs.decompress(data))
    assert [image.size for image in theirs.decompress_all(files, as_="pil")] == [(80, 64)] * 3


def test_several_files_are_given_up_when_their_time_is_over(folder: Path) -> None:
    _, theirs = pair(JOINT, folder)
    data = theirs.compress(kodak_crop("kodim05", 64, 80))
    assert len(theirs.decompress_all([data], max_seconds=60)) == 1
    with pytest.raises(BitstreamError, match=r"longer to decode than the 1e-09 seconds allowed; raise max_seconds"):
        theirs.decompress_all([data], max_seconds=1e-9)


def test_a_search_is_refused(folder: Path) -> None:
    _, theirs = pair(JOINT, folder)
    with pytest.raises(ValueError, match="use effort 0, or the torch runtime"):
        theirs.compress(kodak_crop("kodim05", 32, 32), effort=1)


def test_cut_files_and_files_of_another_model_are_refused(folder: Path) -> None:
    ours, theirs = pair(JOINT, folder)
    data = ours.compress(kodak_crop("kodim05", 64, 64))
    for end in (0, 10, len(data) - 4):
        with pytest.raises(BitstreamError):
            theirs.decode(data[:end])
    _, other = pair(MIXTURE, folder)
    with pytest.raises(BitstreamError, match="decode it with the model that made it"):
        other.decode(data)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["joint-psnr", "joint-ms-ssim"])
def test_kodak_is_equal_to_the_last_bit(model: str) -> None:
    ours, theirs = load_codec(model), load_runtime(model)
    for path in sorted(KODAK.glob("*.png"))[::12]:
        data = ours.compress(Image.open(path))
        here, there = theirs.decode(data), ours.decode(data)
        assert np.array_equal(here.y_hat, there.y_hat.numpy())
        assert np.abs(here.image.astype(int) - there.image.numpy()).max() <= 1
