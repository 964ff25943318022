"""Validation measures images correctly, and averages over ranks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from jahp_pl.config import LossConfig, ModelConfig
from jahp_pl.loss import rate_distortion
from jahp_pl.model import CompressionModel
from jahp_pl.quality import MS_SSIM_MIN_SIDE, psnr, to_uint8
from jahp_pl.training.levels import VALIDATED_LEVEL_SHARES
from jahp_pl.training.validation import (
    NO_LOSS,
    RowMeans,
    ValidationMeans,
    ValidationRow,
    measure_image,
)


@pytest.fixture(scope="module")
def model() -> CompressionModel:
    torch.manual_seed(1)
    return CompressionModel(ModelConfig(num_filters=8, num_latents=12)).eval()


def row(value: float, ms_ssim: float | None = 0.5) -> ValidationRow:
    return ValidationRow(value, value, value, value, value, value, ms_ssim)


def test_a_row_equals_the_output_of_evaluation_mode(model: CompressionModel, photos: Tensor) -> None:
    x = photos[:1]
    measured = measure_image(model, LossConfig(), x)
    with torch.no_grad():
        output = model(x)
    expected = rate_distortion(LossConfig(), x, output)
    assert float(measured.bpp) == pytest.approx(float(expected.bpp), rel=1e-6)
    assert float(measured.bpp_y) + float(measured.bpp_z) == pytest.approx(float(measured.bpp), rel=1e-6)
    assert measured.loss is not None
    assert float(measured.loss) == pytest.approx(float(expected.loss), rel=1e-6)
    assert float(measured.psnr) == float(psnr(to_uint8(x), to_uint8(output.x_hat)))
    assert not model.training


def test_psnr_is_that_of_the_clipped_8_bit_image(photos: Tensor) -> None:
    x = photos[:1]
    beyond = torch.where(x > 0.9, x + 10, x)
    clipped = torch.where(x > 0.9, torch.ones(()), x)
    assert torch.equal(psnr(to_uint8(x), to_uint8(beyond)), psnr(to_uint8(x), to_uint8(clipped)))


def test_the_noisy_rate_is_about_the_rate_of_a_training_pass(model: CompressionModel, photos: Tensor) -> None:
    x = photos[:1]
    bounds = torch.tensor([float(measure_image(model, LossConfig(), x).bpp_bound) for _ in range(4)])
    with torch.no_grad():
        output = model.train()(x)
    model.eval()
    expected = float(rate_distortion(LossConfig(), x, output).bpp)
    assert bounds.std() > 0  # the bound is random
    assert float(bounds.mean()) == pytest.approx(expected, rel=0.05)


def test_an_image_too_small_for_ms_ssim_has_none(model: CompressionModel, photos: Tensor) -> None:
    small = photos[:1, :, : MS_SSIM_MIN_SIDE - 1, :200]
    assert measure_image(model, LossConfig(), small).ms_ssim is None
    assert measure_image(model, LossConfig(), small).loss is not None
    assert measure_image(model, LossConfig(distortion="ms_ssim"), small).loss is None
    large = measure_image(model, LossConfig(distortion="ms_ssim"), photos[:1, :, :MS_SSIM_MIN_SIDE, :MS_SSIM_MIN_SIDE])
    assert large.ms_ssim is not None
    assert large.loss is not None


def test_missing_values_are_left_out_of_the_mean_and_counted() -> None:
    means = RowMeans(ValidationRow)
    for value, similarity in ((1.0, 0.5), (2.0, None), (6.0, 0.9)):
        means.update(row(value, similarity))
    mean, count = means.compute()
    assert mean.loss == 3.0
    assert mean.ms_ssim == pytest.approx(0.7)
    assert (count.loss, count.ms_ssim) == (3, 2)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_ranks_with_unequal_shares_give_the_mean_over_all_images() -> None:
    shares = [RowMeans(ValidationRow) for _ in range(3)]
    values = [0.5, 1.5, 4.0, 7.0]
    for value in values[:3]:
        shares[0].update(row(value))
    shares[1].update(row(values[3]))  # the third rank has no image at all
    total = RowMeans(ValidationRow)
    for share in shares:
        total.sums += share.sums
        total.counts += share.counts
    mean, count = total.compute()
    assert mean.psnr == pytest.approx(sum(values) / 4)
    assert count.psnr == 4


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_a_mean_over_nothing_is_not_a_number() -> None:
    mean, count = RowMeans(ValidationRow).compute()
    assert math.isnan(float(mean.bpp))
    assert count.bpp == 0


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_values_of_a_variable_rate_model_are_logged_by_level_and_averaged_over_levels(photos: Tensor) -> None:
    torch.manual_seed(1)
    loss = LossConfig(lmbda=0.002, lmbda_max=0.05)
    variable = CompressionModel(ModelConfig(num_filters=8, num_latents=12, num_levels=3)).eval()
    assert variable.gains is not None
    variable.gains.initialize(loss)
    with torch.no_grad():
        variable.g_a[-1].weight.mul_(100)  # otherwise all latents round to 0 at every level
    x = photos[:1, :, :64, :64]
    means = ValidationMeans(3)
    means.update(variable, loss, x)
    values = means.take()
    rates = [values[f"val_level{number:03}/bpp"] for number in (0, 33, 67, 100)]
    expected = [float(measure_image(variable, loss, x, share).bpp) for share in VALIDATED_LEVEL_SHARES]
    assert rates == pytest.approx(expected, rel=1e-6)
    assert len(set(rates)) == 4
    assert values["val/bpp"] == pytest.approx(sum(rates) / 4)
    assert (values["val/images"], values["val/ms_ssim_images"]) == (1, 0)
    assert means.take() == {}  # reset


def test_images_that_give_no_loss_are_reported(model: CompressionModel, photos: Tensor) -> None:
    means = ValidationMeans(1)
    means.update(model, LossConfig(distortion="ms_ssim"), photos[:1, :, :64, :64])
    with pytest.warns(UserWarning, match="no validation image") as warnings:
        values = means.take()
    assert str(warnings[0].message) == NO_LOSS
    assert math.isnan(values["val/loss"])
    assert values["val/bpp"] > 0
