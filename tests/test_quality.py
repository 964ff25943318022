"""PSNR and MS-SSIM in the form in which they are reported."""

import math

import pytest
import torch

from jahp_pl.quality import MS_SSIM_MIN_SIDE, ms_ssim_8bit, ms_ssim_to_decibels, psnr, to_uint8


def test_psnr_of_a_constant_error_of_one_level_is_48_13_db():
    original = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)
    assert float(psnr(original, original + 1)) == pytest.approx(10 * math.log10(255**2), abs=1e-4)


def test_psnr_does_not_wrap_around_in_unsigned_arithmetic():
    black, white = torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    assert float(psnr(black, white)) == float(psnr(white, black)) == 0.0


def test_psnr_of_equal_images_is_infinite():
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    assert math.isinf(float(psnr(image, image)))


def test_reconstructions_are_clipped_and_rounded_to_the_nearest_level():
    x_hat = torch.tensor([-0.2, 0.0, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.0, 1.7])
    assert to_uint8(x_hat).tolist() == [0, 0, 0, 1, 254, 255, 255]


def test_ms_ssim_is_one_for_equal_images_and_falls_with_noise():
    torch.manual_seed(0)
    original = torch.randint(0, 256, (1, 3, 176, 176), dtype=torch.uint8)
    noisy = to_uint8(original / 255 + 0.2 * torch.randn(original.shape))
    same, worse = ms_ssim_8bit(original, original), ms_ssim_8bit(original, noisy)
    assert same is not None
    assert worse is not None
    assert float(same) == pytest.approx(1.0, abs=1e-6)
    assert float(worse) < 0.99


@pytest.mark.parametrize(("side", "exists"), [(MS_SSIM_MIN_SIDE - 1, False), (MS_SSIM_MIN_SIDE, True)])
def test_ms_ssim_needs_sides_long_enough_for_five_scales(side, exists):
    image = torch.zeros(1, 3, side, 200, dtype=torch.uint8)
    assert (ms_ssim_8bit(image, image) is not None) == exists


def test_decibels_are_ten_per_power_of_ten_and_infinite_at_one():
    assert ms_ssim_to_decibels(0.99) == pytest.approx(20.0)
    assert math.isinf(ms_ssim_to_decibels(1.0))
    assert math.isnan(ms_ssim_to_decibels(math.nan)), "of nothing"
