"""The transform coder from which training can start."""

from __future__ import annotations

import pytest
import torch

from jahp_pl.config import LossConfig, ModelConfig
from jahp_pl.initialization.hyperprior import HYPER_GAIN, group_channels
from jahp_pl.initialization.textures import pink_images
from jahp_pl.initialization.warm_start import initialize, latent_scale
from jahp_pl.loss import rate_distortion
from jahp_pl.model import CompressionModel


def started(**settings) -> CompressionModel:
    model = CompressionModel(ModelConfig(**settings)).eval()
    initialize(model, latent_scale(LossConfig()))
    return model


@pytest.mark.parametrize(
    "entropy_model", ["factorized", "scale_hyperprior", "mean_scale_hyperprior", "context", "joint"]
)
def test_every_entropy_model_codes_photographs_before_its_first_step(entropy_model, photos):
    with torch.no_grad():
        terms = rate_distortion(
            LossConfig(), photos, started(entropy_model=entropy_model, num_filters=32, num_latents=64)(photos)
        )
    assert float(terms.decibels) > 26
    assert float(terms.bpp) < 1.5


@pytest.mark.parametrize("entropy_model", ["scale_hyperprior", "mean_scale_hyperprior"])
def test_side_information_starts_as_local_energies(entropy_model):
    model = started(entropy_model=entropy_model, num_filters=16, num_latents=24)
    std = model.analyze(pink_images(64, 128, seed=0)).std((0, 2, 3))
    signs = torch.randint(0, 2, (4, 24, 32, 32)).float() * 2 - 1
    y = signs * std.clamp(min=0.3)[:, None, None]
    y[..., 16:] = 0  # energy on the left only
    with torch.no_grad():
        z = model.h_a(y)
    num_energies = 16 if entropy_model == "scale_hyperprior" else 10  # beside 3 means
    left, right = (part[:, :num_energies].mean((0, 2, 3)) for part in (z[..., :3], z[..., 5:]))
    assert (left > HYPER_GAIN / 3).all()
    assert (right.abs() < HYPER_GAIN / 10).all()


@pytest.mark.parametrize("num_components", [1, 3])
def test_means_start_as_local_means_of_the_strongest_channels_and_components_start_apart(num_components, photos):
    with torch.no_grad():
        model = started(
            entropy_model="mean_scale_hyperprior", num_filters=16, num_latents=24, num_components=num_components
        )
        output = model(photos)
    y_hat, mu = output.y_hat, output.parameters.mu
    gray = int(y_hat.var((0, 2, 3)).argmax())
    assert float((y_hat - mu[:, 0])[:, gray].var()) < 0.6 * float(y_hat[:, gray].var())
    assert (mu[:, 0].var((0, 2, 3)) > 0).sum() == 3  # N / 6
    assert len({component.std().item() for component in mu.unbind(1)}) == num_components


@pytest.mark.parametrize("entropy_model", ["scale_hyperprior", "mean_scale_hyperprior", "joint"])
@pytest.mark.parametrize("num_components", [1, 3])
def test_scales_start_as_interpolated_energies(entropy_model, num_components):
    model = started(entropy_model=entropy_model, num_filters=16, num_latents=24, num_components=num_components)
    std = model.analyze(pink_images(64, 128, seed=0)).std((0, 2, 3)).clamp(min=0.3)
    y = std[:, None, None] * torch.ones(1, 24, 32, 48)
    y[..., 24:] *= 0.1
    with torch.no_grad():
        z_hat = model.h_a(y).round()
        sigma = model.entropy_parameters(torch.zeros_like(y), z_hat).sigma[0]
    loudest = std.argsort(descending=True)[:4]
    left, right = sigma[:, loudest, :, 4:16].mean((2, 3)), sigma[:, loudest, :, 36:44].mean((2, 3))
    assert (left > 1.5 * right).all()
    assert (left > 0.5 * std[loudest]).all()
    assert (left < 2 * std[loudest]).all()


@pytest.mark.parametrize("entropy_model", ["context", "joint"])
@pytest.mark.parametrize("num_components", [1, 3])
def test_scales_and_means_start_from_the_left_and_the_upper_neighbor(entropy_model, num_components):
    model = started(entropy_model=entropy_model, num_filters=16, num_latents=24, num_components=num_components)
    std = model.analyze(pink_images(64, 128, seed=0)).std((0, 2, 3)).detach()
    loudest, size = int(std.argmax()), 6 * float(std.max())
    z_hat = torch.zeros(1, 16, 2, 2) if entropy_model == "joint" else None
    found = []
    for value in (0.0, size, -size):
        y_hat = torch.zeros(1, 24, 8, 8)
        y_hat[0, loudest, 3, 3] = value
        with torch.no_grad():
            found.append(model.entropy_parameters(y_hat, z_hat))
    quiet, high, low = found
    for row, column in ((3, 4), (4, 3)):
        at = (0, slice(None), loudest, row, column)
        assert (high.sigma[at] - quiet.sigma[at] > 0.1 * size).all()
        assert (low.sigma[at] - quiet.sigma[at] > 0.1 * size).all()
        assert (high.mu[at] - low.mu[at] > 0.2 * size).all()
    assert torch.equal(high.sigma[..., :3, :], quiet.sigma[..., :3, :])


def test_all_channels_have_energies_and_the_strongest_have_their_own():
    assert group_channels(list(range(9)), num_groups=4, num_single=2) == [[0], [1], [2, 3, 4], [5, 6, 7, 8]]
    assert group_channels(list(range(5)), num_groups=4, num_single=0) == [[0], [1], [2], [3, 4]]
    assert group_channels([7, 3], num_groups=4, num_single=1) == [[7], [3]]
    assert group_channels([7, 3], num_groups=1, num_single=1) == [[7]]


def test_narrow_networks_start_finite():
    for num_filters, num_latents in ((1, 1), (3, 2), (2, 7), (64, 4)):
        for entropy_model in ("scale_hyperprior", "mean_scale_hyperprior", "context", "joint"):
            with torch.no_grad():
                output = started(entropy_model=entropy_model, num_filters=num_filters, num_latents=num_latents)(
                    torch.rand(1, 3, 70, 40)
                )
            assert torch.isfinite(output.bits_y).all()


def test_random_weights_are_twenty_decibels_away(photos):
    with torch.no_grad():
        output = CompressionModel(ModelConfig(num_filters=32, num_latents=64)).eval()(photos)
    assert float(rate_distortion(LossConfig(), photos, output).decibels) < 10


def test_widths_that_do_not_fit_the_tree_of_transforms_work_too(photos):
    for num_filters, num_latents in ((8, 5), (20, 100)):
        with torch.no_grad():
            output = started(num_filters=num_filters, num_latents=num_latents)(photos)
        assert torch.isfinite(output.x_hat).all()
        assert torch.isfinite(output.bits_y).all()


def test_mixtures_start_with_finite_rates_and_gradients(photos):
    model = started(num_filters=16, num_latents=24, num_components=3, likelihood="logistic").train()
    rate_distortion(LossConfig(), photos, model(photos)).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_initialization_depends_on_its_seed_alone():
    torch.manual_seed(1)
    first = pink_images(2, 32, seed=5)
    torch.manual_seed(2)
    assert torch.equal(first, pink_images(2, 32, seed=5))
    assert not torch.equal(first, pink_images(2, 32, seed=6))


def test_a_higher_lambda_starts_with_a_finer_step():
    assert latent_scale(LossConfig(lmbda=0.052)) == pytest.approx(2 * latent_scale(LossConfig(lmbda=0.013)))
