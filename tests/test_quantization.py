"""Latents are noisy in training and rounded in evaluation, or as the setting `quantization` says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from jahp_pl.config import EntropyModelName, LossConfig
from jahp_pl.loss import rate_distortion
from tests.support.tiny_models import ENTROPY_MODELS, WITH_HYPERPRIOR, flatten, lively, tiny


def random_state() -> list[int]:
    return torch.get_rng_state().tolist()


@pytest.mark.parametrize("entropy_model", ENTROPY_MODELS)
def test_evaluation_is_deterministic_draws_no_noise_and_rounds(entropy_model: EntropyModelName, photos: Tensor) -> None:
    model, x = lively(tiny(entropy_model)).eval(), photos[:2, :, :64, :96]
    state = random_state()
    first, second = model(x), model(x)
    assert random_state() == state
    for a, b in zip(flatten(first), flatten(second), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first.y_hat, torch.round(model.analyze(x)))
    assert first.y_hat.unique().numel() > 5
    # x_hat is the decoder's output for y_hat.
    assert torch.equal(first.x_hat, model.synthesize(first.y_hat, 64, 96))


@pytest.mark.parametrize("entropy_model", ENTROPY_MODELS)
def test_training_is_noisy_within_half_a_step_and_differs_between_calls(
    entropy_model: EntropyModelName, photos: Tensor
) -> None:
    model, x = lively(tiny(entropy_model)).train(), photos[:2, :, :64, :96]
    y = model.analyze(x)
    first, second = model(x), model(x)
    for output in (first, second):
        assert (output.y_hat - y).abs().max() <= 0.5 + 1e-5
    assert not torch.equal(first.y_hat, second.y_hat)
    assert not torch.equal(first.x_hat, second.x_hat)
    assert not torch.equal(first.bits_y, second.bits_y)
    if entropy_model in WITH_HYPERPRIOR:
        assert not torch.equal(first.bits_z, second.bits_z)


@pytest.mark.parametrize("entropy_model", ENTROPY_MODELS)
def test_the_rate_needs_no_reconstruction(entropy_model: EntropyModelName, photos: Tensor) -> None:
    """With frozen g_a and g_s, the rate alone has the gradients of the whole loss."""
    model, x = lively(tiny(entropy_model)).train(), photos[:2, :, :64, :64]
    model.g_a.requires_grad_(False)
    model.g_s.requires_grad_(False)
    found = []
    for reconstruct in (True, False):
        torch.manual_seed(0)
        output = model(x, reconstruct=reconstruct)
        terms = rate_distortion(LossConfig(), x, output)
        terms.loss.backward()
        found.append((output, terms, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
        model.zero_grad()
    (whole, all_terms, gradients), (bare, rate_terms, rate_gradients) = found
    assert bare.x_hat.shape == (2, 3, 0, 0)
    assert torch.equal(bare.bits_y, whole.bits_y)
    assert torch.equal(bare.bits_z, whole.bits_z)
    assert rate_terms.loss == rate_terms.bpp == all_terms.bpp < all_terms.loss
    assert rate_terms.distortion.isnan()
    assert rate_terms.decibels.isnan()
    assert gradients
    assert all(torch.equal(a, b) for a, b in zip(gradients, rate_gradients, strict=True))


@pytest.mark.parametrize("entropy_model", WITH_HYPERPRIOR)
def test_evaluation_codes_and_decodes_the_rounded_hyper_latents(
    entropy_model: EntropyModelName, photos: Tensor
) -> None:
    model, x = lively(tiny(entropy_model)).eval(), photos[:1, :, :128, :128]
    seen: list[Tensor] = []
    model.h_s.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].clone()))
    output = model(x)
    z_hat = torch.round(model.h_a(model.analyze(x)))
    assert z_hat.any()
    assert torch.equal(seen[0], z_hat)
    assert torch.equal(output.bits_z, model.prior.bits(z_hat))
    assert torch.equal(output.bits_y, model.density.bits(output.y_hat, model.entropy_parameters(output.y_hat, z_hat)))


@pytest.mark.parametrize("entropy_model", ENTROPY_MODELS)
def test_mixed_quantization_reconstructs_from_rounded_and_rates_noisy_latents(
    entropy_model: EntropyModelName, photos: Tensor
) -> None:
    model, x = lively(tiny(entropy_model, quantization="mixed")).train(), photos[:1, :, :64, :64]
    first, second = model(x), model(x)
    assert torch.equal(first.y_hat, torch.round(model.analyze(x)))
    assert torch.equal(first.x_hat, model.synthesize(first.y_hat, 64, 64))
    assert torch.equal(first.x_hat, second.x_hat)
    assert not torch.equal(first.bits_y, second.bits_y)
    of_rounded = (
        model.prior.bits(first.y_hat) if first.parameters is None else model.density.bits(first.y_hat, first.parameters)
    )
    assert not torch.allclose(first.bits_y, of_rounded)
    # Straight-through: the gradient of the distortion reaches g_a as if nothing had been rounded.
    (first.x_hat - x).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.g_a.parameters())
    assert model.g_a[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize("entropy_model", ["context", "joint"])
def test_mixed_quantization_gives_the_context_noisy_latents(entropy_model: EntropyModelName, photos: Tensor) -> None:
    model, x = lively(tiny(entropy_model, quantization="mixed")).train(), photos[:1, :, :64, :64]
    seen: list[Tensor] = []
    model.g_cm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach().clone()))
    model(x)
    noise = seen[0] - model.analyze(x)
    assert noise.abs().max() <= 0.5 + 1e-5
    assert noise.unique().numel() > 0.9 * noise.numel()
    assert not torch.equal(seen[0], torch.round(seen[0]))


@pytest.mark.parametrize("entropy_model", ENTROPY_MODELS)
def test_rounded_quantization_trains_on_what_will_be_coded(entropy_model: EntropyModelName, photos: Tensor) -> None:
    model, x = lively(tiny(entropy_model, quantization="rounded")).train(), photos[:1, :, :64, :64]
    trained = model(x)
    for a, b in zip(flatten(trained), flatten(model.eval()(x)), strict=True):
        assert torch.equal(a, b)
    # Rounding has no gradient: the networks before it stay unchanged, and the densities learn.
    (trained.bits_y.sum() + trained.bits_z.sum()).backward()
    for name, parameter in model.named_parameters():
        learns = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        assert learns == (name.split(".")[0] in ("h_s", "g_cm", "g_ep", "prior")), name


@pytest.mark.parametrize("quantization", ["mixed", "rounded"])
def test_quantization_in_training_does_not_matter_in_evaluation(quantization: str, photos: Tensor) -> None:
    noise, other = lively(tiny()), tiny(quantization=quantization)
    other.load_state_dict(noise.state_dict())
    x = photos[:1, :, :64, :64]
    for a, b in zip(flatten(noise.eval()(x)), flatten(other.eval()(x)), strict=True):
        assert torch.equal(a, b)


def test_the_noisy_rate_bounds_the_cross_entropy_of_the_same_density_on_average() -> None:
    # Jensen: E[-log p(y + u)] >= -log E[p(y + u)], with expectations over the noise u.
    model = lively(tiny("factorized"))
    y = model.analyze(torch.rand(1, 3, 64, 64)).detach()
    noisy = torch.stack([model.prior.bits(y + torch.rand_like(y) - 0.5) for _ in range(300)])
    smeared = -torch.log2(torch.exp2(-noisy).mean(0))
    assert (noisy.mean(0) >= smeared - 1e-5).all()
