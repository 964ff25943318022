"""One variable-rate model writes files of a given size, rate or PSNR, and recognizes them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from jahp_pl.codec.bitstream import unpack
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.encoder import to_integers
from jahp_pl.codec.rate_control import may_meet_target
from jahp_pl.codec.targets import Target, TargetError
from jahp_pl.config import LossConfig
from jahp_pl.model_io.load import load_codec
from jahp_pl.quality import psnr
from tests.support.codec_models import JOINT, codec_of, kodak_crop, variable_codec, variable_model

IMAGE = kodak_crop()
CODEC = variable_codec()


def file_psnr(data: bytes) -> float:
    original = torch.from_numpy(IMAGE.copy()).movedim(-1, 0)
    return float(psnr(original, CODEC.decompress(data)))


def test_size_and_psnr_rise_over_thirty_qualities() -> None:
    files = [CODEC.compress(IMAGE, quality=quality) for quality in np.linspace(1, 100, 31)]
    sizes, fidelities = [len(file) for file in files], [file_psnr(file) for file in files]
    for lower, higher in itertools.pairwise(sizes):
        assert higher > 0.999 * lower
    for worse, better in itertools.pairwise(fidelities):
        assert better > worse - 0.02
    assert sizes[-1] > 2 * sizes[0]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.95])
def test_a_size_is_never_exceeded_and_nearly_met(share: float) -> None:
    smallest, largest = (len(CODEC.compress(IMAGE, quality=quality)) for quality in (1, 100))
    size = round(smallest * (largest / smallest) ** share)
    assert 0.98 * size <= len(CODEC.compress(IMAGE, size=size)) <= size


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_rate_is_met_within_one_percent(share: float) -> None:
    smallest, largest = (len(CODEC.compress(IMAGE, quality=quality)) for quality in (1, 100))
    bpp = 8 * smallest * (largest / smallest) ** share / (IMAGE.shape[0] * IMAGE.shape[1])
    data = CODEC.compress(IMAGE, bpp=bpp)
    assert 8 * len(data) / (IMAGE.shape[0] * IMAGE.shape[1]) == pytest.approx(bpp, rel=0.01)


def test_a_psnr_is_reached_and_barely_exceeded() -> None:
    low, high = (file_psnr(CODEC.compress(IMAGE, quality=quality)) for quality in (1, 100))
    wanted = (low + high) / 2
    file = CODEC.encode(IMAGE, Target(psnr=wanted))
    assert wanted <= file_psnr(file.data) < wanted + 0.1
    assert file.psnr == pytest.approx(file_psnr(file.data), abs=1e-3)
    assert CODEC.encode(IMAGE, Target(quality=20)).psnr is None


def test_the_psnr_that_an_error_names_can_be_reached() -> None:
    with pytest.raises(TargetError, match="psnr 90") as refused:
        CODEC.compress(IMAGE, psnr=90)
    best = float(str(refused.value).split()[-3])
    assert best <= file_psnr(CODEC.compress(IMAGE, psnr=best)) < best + 0.1


@pytest.mark.parametrize("target", [{"size": 2600}, {"bpp": 0.4}, {"psnr": 29.0}], ids=str)
def test_an_encoder_that_searches_meets_a_target_after_few_searches(target: dict[str, float]) -> None:
    codec, steps = load_codec(), []
    file = codec.encode(IMAGE, Target(**target), effort=1, progress=lambda done, total: steps.append((done, total)))
    assert 1 <= steps.count((6, 6)) <= 3
    assert np.array_equal(codec.decode(file.data).y_hat, file.y_hat)
    if "size" in target:
        assert 0.98 * 2600 <= len(file.data) <= 2600
    elif "bpp" in target:
        assert 8 * len(file.data) / (IMAGE.shape[0] * IMAGE.shape[1]) == pytest.approx(0.4, rel=0.01)
    else:
        assert 29.0 <= file.psnr <= 29.2


def test_shrinkage_changes_only_latents_that_are_nearly_halfway_between_integers() -> None:
    latents = np.array([0.0, 0.52, -0.52, 0.49, 1.6, -3.0, 7.54], np.float32)[:, None, None]
    assert to_integers(latents).ravel().tolist() == [0, 1, -1, 0, 2, -3, 8]
    assert to_integers(latents, 0.05).ravel().tolist() == [0, 0, 0, 0, 2, -3, 7]
    assert to_integers(latents, -0.02).ravel().tolist() == [0, 1, -1, 1, 2, -3, 8]


def test_a_rate_beyond_files_that_are_equal_at_all_levels_is_refused() -> None:
    model = variable_model()
    with torch.no_grad():
        model.g_a[-1].weight.zero_()
        model.g_a[-1].bias.zero_()  # as if the image had no detail: all latents are 0
    codec = Codec(model)
    rate = 8 * len(codec.compress(IMAGE)) / (IMAGE.shape[0] * IMAGE.shape[1])
    with pytest.raises(TargetError, match=r"this image takes at most .* bits per pixel; ask for less"):
        codec.compress(IMAGE, bpp=1.5 * rate)
    with pytest.raises(TargetError, match=r"this image takes at least .* bits per pixel; ask for more"):
        codec.compress(IMAGE, bpp=0.5 * rate)


def test_a_single_rate_model_refuses_every_target() -> None:
    for target in (Target(quality=50), Target(bpp=0.5), Target(size=1000), Target(psnr=30), Target(level=0)):
        with pytest.raises(TargetError, match="has a single rate"):
            codec_of(JOINT).encode(IMAGE, target)


@pytest.mark.parametrize("size", [1500, 2000, 2400])
@pytest.mark.parametrize("effort", [0, 1])
def test_a_file_that_meets_a_target_is_recognized(size: int, effort: int) -> None:
    codec = Codec(CODEC.model, objective=LossConfig(lmbda=0.002, lmbda_max=0.1))
    for target in (Target(size=size), Target(bpp=8 * size / IMAGE[..., 0].size)):
        data = codec.encode(IMAGE, target, effort=effort).data
        header = unpack(data)[0]
        assert may_meet_target(header, len(data), target, 4)
        assert not may_meet_target(header, len(data) + size // 20, target, 4)
        assert not may_meet_target(header, len(data) - size // 20, target, 4)


def test_the_largest_file_of_a_model_meets_every_larger_size() -> None:
    data = CODEC.encode(IMAGE, Target(size=10_000)).data
    assert len(data) < 5000
    assert may_meet_target(unpack(data)[0], len(data), Target(size=10_000), 4)
