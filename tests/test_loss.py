"""The objective is correct on a tiny example and in its units, and MS-SSIM agrees with two other implementations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.image import MultiScaleStructuralSimilarityIndexMeasure

from jahp_pl.config import Config, ConfigError, DataConfig, LossConfig, ModelConfig
from jahp_pl.loss import rate_distortion
from jahp_pl.model import CompressionModel, ModelOutput
from jahp_pl.quality import MS_SSIM_MIN_SIDE, ms_ssim


def output(x_hat: Tensor, bits_y: Tensor, bits_z: Tensor) -> ModelOutput:
    return ModelOutput(x_hat, torch.zeros_like(bits_y), bits_y, bits_z, None)


def test_the_objective_of_a_tiny_example_is_the_one_by_hand() -> None:
    x = torch.full((2, 3, 2, 4), 0.5)  # 16 pixels
    x_hat = x + 0.1
    terms = rate_distortion(
        LossConfig(lmbda=0.02), x, output(x_hat, torch.tensor([[1.5, 2.5], [4.0, 16.0]]), torch.tensor([8.0]))
    )
    assert terms.bpp_y.item() == pytest.approx(24 / 16)
    assert terms.bpp_z.item() == pytest.approx(8 / 16)
    assert terms.bpp.item() == pytest.approx(2.0)
    assert terms.distortion.item() == pytest.approx(255**2 * 0.01)  # 650.25
    assert terms.decibels.item() == pytest.approx(20.0, abs=1e-4)  # PSNR of an error of a tenth of the range
    assert terms.loss.item() == pytest.approx(2.0 + 0.02 * 650.25)


def test_psnr_is_that_of_eight_bit_intensities(photos: Tensor) -> None:
    x_hat = (photos + 0.03 * torch.randn_like(photos)).clamp(0, 1)
    terms = rate_distortion(LossConfig(), photos, output(x_hat, torch.zeros(1), torch.zeros(1)))
    mse = ((255 * x_hat.double() - 255 * photos.double()) ** 2).mean().item()
    assert terms.distortion.item() == pytest.approx(mse, rel=1e-5)
    assert terms.decibels.item() == pytest.approx(10 * math.log10(255**2 / mse), abs=1e-4)


def test_a_entropy_model_without_side_information_spends_no_bits_on_it() -> None:
    x = torch.rand(1, 3, 4, 4)
    terms = rate_distortion(LossConfig(), x, output(x, torch.ones(1, 2, 1, 1), torch.zeros(1, 0, 0, 0)))
    assert terms.bpp_z.item() == 0
    assert terms.bpp.item() == terms.bpp_y.item() == 2 / 16


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (64, 64)])
def test_bits_are_shared_among_the_pixels_of_the_image_before_padding(size: tuple[int, int], photos: Tensor) -> None:
    model = CompressionModel(ModelConfig(num_filters=6, num_latents=8)).eval()
    x = photos[:2, :, : size[0], : size[1]]
    coded = model(x)
    terms = rate_distortion(LossConfig(), x, coded)
    bits = coded.bits_y.sum().item() + coded.bits_z.sum().item()
    assert terms.bpp.item() == pytest.approx(bits / (2 * size[0] * size[1]), rel=1e-5)


def test_of_the_terms_only_the_loss_has_a_gradient() -> None:
    x = torch.rand(1, 3, 176, 176)
    for distortion in ("mse", "ms_ssim"):
        x_hat = (x + 0.05 * torch.randn_like(x)).requires_grad_()
        terms = rate_distortion(LossConfig(distortion=distortion), x, output(x_hat, torch.ones(1), torch.ones(1)))
        assert not terms.decibels.requires_grad
        (gradient,) = torch.autograd.grad(terms.loss, x_hat)
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_the_mse_gradient_is_255_squared_lambda_times_twice_the_error_over_the_count() -> None:
    x = torch.rand(2, 3, 4, 4)
    x_hat = torch.rand(2, 3, 4, 4, requires_grad=True)
    rate_distortion(LossConfig(lmbda=0.013), x, output(x_hat, torch.ones(1), torch.ones(1))).loss.backward()
    torch.testing.assert_close(x_hat.grad, 0.013 * 255**2 * 2 * (x_hat.detach() - x) / x.numel())


# MS-SSIM --------------------------------------------------------------------------------------------------------------


def reference_ms_ssim(a: Tensor, b: Tensor) -> float:
    """Compute MS-SSIM as in Wang, Simoncelli & Bovik 2003, in double precision: five scales, 11x11 Gaussian window with
    a standard deviation of 1.5 pixels.
    """
    a, b = a.double(), b.double()
    taps = torch.exp(-0.5 * (torch.arange(11, dtype=torch.float64) - 5).square() / 1.5**2)
    window = taps.div(taps.sum()).expand(3, 1, 1, 11)

    def local_mean(t: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(t, window, groups=3), window.mT, groups=3)

    product = torch.ones(len(a), dtype=torch.float64)
    for scale, exponent in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        if scale == 4:  # torchmetrics omits the border at every scale except the last, where it mirrors the image
            a, b = (F.pad(t, (5, 5, 5, 5), mode="reflect") for t in (a, b))
        mean_a, mean_b = local_mean(a), local_mean(b)
        var_a, var_b = local_mean(a * a) - mean_a**2, local_mean(b * b) - mean_b**2
        covariance = local_mean(a * b) - mean_a * mean_b
        contrast = (2 * covariance + 0.03**2) / (var_a + var_b + 0.03**2)
        luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        index = contrast * luminance if scale == 4 else contrast
        product *= index.mean((1, 2, 3)).clamp(min=0) ** exponent
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return product.mean().item()


@pytest.mark.parametrize("noise", [0.005, 0.05, 0.3])
def test_ms_ssim_is_that_of_its_authors_and_of_torchmetrics_module(noise: float, photos: Tensor) -> None:
    x = photos[:2, :, :192, :180]
    x_hat = (x + noise * torch.randn_like(x)).clamp(0, 1)
    value = ms_ssim(x_hat, x).item()
    assert value == pytest.approx(reference_ms_ssim(x_hat, x), abs=1e-6)
    module = MultiScaleStructuralSimilarityIndexMeasure(data_range=1.0, normalize="relu")
    assert value == pytest.approx(module(x_hat.double(), x.double()).item(), abs=1e-6)


def test_ms_ssim_keeps_its_digits_where_an_image_is_white(photos: Tensor) -> None:
    # There, variances near zero are differences of numbers near one; the textbook formula is wrong by 1e-5 in float32.
    x = (photos[:2, :, :192, :180] + 0.8).clamp(0, 1)
    x_hat = (x + 0.003 * torch.randn_like(x)).clamp(0, 1)
    assert ms_ssim(x_hat, x).item() == pytest.approx(reference_ms_ssim(x_hat, x), abs=1e-6)


def test_ms_ssim_of_each_image_is_that_of_the_image_alone(photos: Tensor) -> None:
    x = photos[:2, :, :192, :180]
    x_hat = (x + torch.tensor([0.02, 0.1]).view(2, 1, 1, 1) * torch.randn_like(x)).clamp(0, 1)
    alone = torch.stack([ms_ssim(x_hat[i : i + 1], x[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(ms_ssim(x_hat, x, per_image=True), alone, atol=1e-6, rtol=0)
    torch.testing.assert_close(ms_ssim(x_hat, x), alone.mean(), atol=1e-6, rtol=0)


def test_ms_ssim_terms_are_one_minus_the_index_and_its_decibels(photos: Tensor) -> None:
    x_hat = (photos + 0.02 * torch.randn_like(photos)).clamp(0, 1)
    terms = rate_distortion(
        LossConfig(distortion="ms_ssim", lmbda=8.73),
        photos,
        output(x_hat, torch.full((1,), 256.0**2 * 3), torch.zeros(0)),
    )
    index = ms_ssim(x_hat, photos).item()
    assert terms.distortion.item() == pytest.approx(1 - index, abs=1e-6)
    assert terms.decibels.item() == pytest.approx(-10 * math.log10(1 - index), abs=1e-2)
    assert terms.loss.item() == pytest.approx(1 + 8.73 * (1 - index), abs=1e-4)


def test_ms_ssim_under_autocast_is_computed_in_float32(photos: Tensor) -> None:
    x_hat = (photos + 0.005 * torch.randn_like(photos)).clamp(0, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ms_ssim(x_hat, photos)
    assert torch.equal(value, ms_ssim(x_hat, photos))


def test_a_negative_of_the_image_scores_zero_with_a_finite_gradient() -> None:
    x = torch.rand(1, 3, 176, 176)
    x_hat = (1 - x).requires_grad_()
    value = ms_ssim(x_hat, x)
    value.backward()
    assert value.item() == 0
    assert x_hat.grad is not None
    assert x_hat.grad.isfinite().all()


def test_ms_ssim_takes_176_pixels_and_no_fewer() -> None:
    assert MS_SSIM_MIN_SIDE == 176
    x = torch.rand(1, 3, 176, 200)
    assert 0.999 < ms_ssim(x, x).item() <= 1.0
    with pytest.raises(ValueError, match="sides must be at least 176"):
        ms_ssim(x[:, :, :175], x[:, :, :175])


@pytest.mark.parametrize("crop_size", [16, 128, 160])
def test_crops_too_small_for_ms_ssim_are_refused_before_anything_starts(crop_size: int) -> None:
    with pytest.raises(ConfigError, match=r"data\.crop_size=.*at least 176"):
        Config(loss=LossConfig(distortion="ms_ssim", lmbda=8.73), data=DataConfig(crop_size=crop_size))


def test_the_smallest_crop_allowed_for_ms_ssim_works() -> None:
    config = Config(loss=LossConfig(distortion="ms_ssim", lmbda=8.73), data=DataConfig(crop_size=176))
    x = torch.rand(1, 3, config.data.crop_size, config.data.crop_size)
    terms = rate_distortion(config.loss, x, output(x * 0.9, torch.ones(1), torch.ones(1)))
    assert terms.loss.isfinite()
