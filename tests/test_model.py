"""The forward pass of every entropy model: parameter counts, noise and rounding, gradients, sizes."""

from __future__ import annotations

import itertools
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jahp_pl.config import BUILT_IN, DensityName, EntropyModelName, LossConfig, ModelConfig
from jahp_pl.loss import rate_distortion
from jahp_pl.model import CompressionModel, ModelOutput

ENTROPY_MODELS = get_args(EntropyModelName)
WITH_HYPERPRIOR = ("scale_hyperprior", "mean_scale_hyperprior", "joint")


def tiny(entropy_model: EntropyModelName = "joint", **settings: Any) -> CompressionModel:
    return CompressionModel(ModelConfig(entropy_model=entropy_model, num_filters=6, num_latents=8, **settings))


def lively(model: CompressionModel) -> CompressionModel:
    """Scale the latents up, because with random weights all of them would round to zero."""
    with torch.no_grad():
        for network in (model.g_a, model.h_a):
            if network is not None:
                network[-1].weight *= 60
                network[-1].bias.normal_(0, 4)
    return model


def random_state() -> list[int]:
    return torch.get_rng_state().tolist()


# Parameter counts -----------------------------------------------------------------------------------------------------

PUBLISHED = {  # with 3 quantiles per channel of the factorized density, which this project does not have
    (128, 192): (2_998_147, 5_075_843, 7_028_003, 9_888_931),
    (192, 192): (5_793_795, 10_144_899, 11_269_539, 14_130_467),
    (192, 320): (7_030_531, 11_816_323, 17_561_699, 25_504_596),
}


def count(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in CompressionModel(config).parameters())


@pytest.mark.parametrize("size", PUBLISHED)
@pytest.mark.parametrize(
    ("column", "entropy_model"), list(enumerate(["factorized", "scale_hyperprior", "mean_scale_hyperprior", "joint"]))
)
def test_parameter_counts_are_the_published_ones(
    size: tuple[int, int], column: int, entropy_model: EntropyModelName
) -> None:
    num_filters, num_latents = size
    quantiles = 3 * (num_latents if entropy_model == "factorized" else num_filters)
    ours = count(ModelConfig(entropy_model=entropy_model, num_filters=num_filters, num_latents=num_latents))
    assert ours == PUBLISHED[size][column] - quantiles


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_context_entropy_model_is_the_joint_model_without_side_information(size: tuple[int, int]) -> None:
    N, M = size
    hyper_analysis = (9 * M + 1) * N + 2 * (25 * N + 1) * N
    hyper_synthesis = (25 * N * M + M) + (25 * M + 1) * (M * 3 // 2) + (9 * (M * 3 // 2) + 1) * 2 * M
    density = N * (3 + 9 + 9 + 9 + 3 + 3 * 4 + 1 + 3 * 4)  # matrices, biases, factors
    psi_weights = 2 * M * (M * 10 // 3)  # of g_ep's first layer
    joint = count(ModelConfig(entropy_model="joint", num_filters=N, num_latents=M))
    context = count(ModelConfig(entropy_model="context", num_filters=N, num_latents=M))
    assert context == joint - hyper_analysis - hyper_synthesis - density - psi_weights


@pytest.mark.parametrize("num_components", [2, 3, 5])
@pytest.mark.parametrize("entropy_model", ["context", "joint"])
def test_k_components_add_only_outputs_of_the_last_layer(entropy_model: EntropyModelName, num_components: int) -> None:
    M, sizes = 192, {"num_filters": 192, "num_latents": 192}
    mixture = count(ModelConfig(entropy_model=entropy_model, num_components=num_components, **sizes))
    extra_outputs = 3 * num_components * M - 2 * M
    assert mixture - count(ModelConfig(entropy_model=entropy_model, **sizes)) == extra_outputs * (M * 8 // 3 + 1)


# Noise in training, rounding in evaluation ----------------------------------------------------------------------------


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


def flatten(output: ModelOutput) -> list[Tensor]:
    return [*output[:4], *(output.parameters or ())]


# Gradients ------------------------------------------------------------------------------------------------------------


def variants() -> list[tuple[EntropyModelName, DensityName, int, str]]:
    every = itertools.product(ENTROPY_MODELS, BUILT_IN["likelihood"], (1, 3), ("noise", "mixed"))
    return [v for v in every if v[0] != "factorized" or v[1:3] == ("gaussian", 1)]


@pytest.mark.parametrize(("entropy_model", "family", "num_components", "quantization"), variants())
def test_every_parameter_gets_a_finite_gradient_in_every_step(
    entropy_model: EntropyModelName, family: DensityName, num_components: int, quantization: str, photos: Tensor
) -> None:
    # Plain DistributedDataParallel waits forever for a parameter that a step did not use.
    model = tiny(entropy_model, likelihood=family, num_components=num_components, quantization=quantization).train()
    x = photos[:2, :, :64, :64]
    terms = rate_distortion(LossConfig(), x, model(x))
    terms.loss.backward()
    assert terms.loss.isfinite()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    for name, network in model.named_children():
        assert sum(p.grad.abs().sum() for p in network.parameters()) > 0, name


@pytest.mark.parametrize("entropy_model", ENTROPY_MODELS)
def test_a_step_under_bfloat16_autocast_has_finite_gradients_and_float32_results(
    entropy_model: EntropyModelName, photos: Tensor
) -> None:
    model, x = tiny(entropy_model).train(), photos[:2, :, :64, :64]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(x)
        loss = rate_distortion(LossConfig(), x, output).loss
    loss.backward()
    assert {t.dtype for t in flatten(output)} == {torch.float32}
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("entropy_model", ENTROPY_MODELS)
def test_channels_last_gives_the_same_output(entropy_model: EntropyModelName, photos: Tensor) -> None:
    model, x = lively(tiny(entropy_model)).eval(), photos[:2, :, :64, :96]
    expected = model(x)
    actual = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    assert torch.equal(actual.y_hat, expected.y_hat)
    for a, b in zip(flatten(actual), flatten(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


# Sizes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 33), (65, 63), (1, 200)])
@pytest.mark.parametrize("entropy_model", ENTROPY_MODELS)
def test_any_size_is_coded_and_cropped_back(
    entropy_model: EntropyModelName, size: tuple[int, int], training: bool, photos: Tensor
) -> None:
    model, x = (
        tiny(entropy_model, num_components=1 if entropy_model == "factorized" else 2).train(training),
        photos[:2, :, : size[0], : size[1]],
    )
    output = model(x)
    h, w = (-(-side // 16) for side in size)
    assert output.x_hat.shape == x.shape
    assert output.y_hat.shape == output.bits_y.shape == (2, 8, h, w)
    if entropy_model in WITH_HYPERPRIOR:
        assert output.bits_z.shape == (2, 6, -(-h // 4), -(-w // 4))
    else:
        assert output.bits_z.shape == (2, 0, 0, 0)
    if output.parameters is None:
        assert entropy_model == "factorized"
    else:
        assert {t.shape for t in output.parameters} == {(2, 2, 8, h, w)}
    assert all(t.isfinite().all() for t in flatten(output))


@pytest.mark.parametrize("entropy_model", ENTROPY_MODELS)
def test_an_image_of_any_size_is_coded_as_its_edge_padded_copy(entropy_model: EntropyModelName, photos: Tensor) -> None:
    model, x = lively(tiny(entropy_model)).eval(), photos[:1, :, :17, :33]
    padded = torch.from_numpy(np.pad(x.numpy(), ((0, 0), (0, 0), (0, 15), (0, 15)), mode="edge"))
    odd, whole = model(x), model(padded)
    assert torch.equal(odd.y_hat, whole.y_hat)
    assert torch.equal(odd.bits_y, whole.bits_y)
    assert torch.equal(odd.x_hat, whole.x_hat[..., :17, :33])


def test_former_names_of_methods_work_and_warn(photos: Tensor) -> None:
    class Doubled(CompressionModel):
        def analyze(self, x: Tensor, level: Tensor | None = None) -> Tensor:
            return 2 * super().analyze(x, level)

    model, x = Doubled(tiny().config), photos[:1, :, :32, :48]
    with pytest.warns(DeprecationWarning, match=r"^analyse\(\) is now analyze\(\); the next release drops") as found:
        y = model.analyse(x, level=None)
    assert found[0].filename == __file__
    assert torch.equal(y, model.analyze(x))
    with pytest.warns(DeprecationWarning, match=r"^synthesise\(\) is now synthesize\(\)"):
        x_hat = model.synthesise(y, 32, width=48)
    assert torch.equal(x_hat, model.synthesize(y, 32, 48))


def test_images_of_a_batch_do_not_mix(photos: Tensor) -> None:
    model = lively(tiny()).eval()
    x = photos[:, :, :64, :64]
    together = model(x)
    for k in range(len(x)):
        for a, b in zip(flatten(model(x[k : k + 1])), flatten(together), strict=True):
            torch.testing.assert_close(a[0], b[k], rtol=1e-4, atol=1e-4)


# The entropy models ---------------------------------------------------------------------------------------------------


def test_each_entropy_model_has_the_networks_of_the_ladder_and_no_others() -> None:
    present = {
        entropy_model: {name for name, _ in tiny(entropy_model).named_children()} for entropy_model in ENTROPY_MODELS
    }
    assert present == {
        "factorized": {"g_a", "g_s", "prior"},
        "scale_hyperprior": {"g_a", "g_s", "h_a", "h_s", "prior"},
        "mean_scale_hyperprior": {"g_a", "g_s", "h_a", "h_s", "prior"},
        "context": {"g_a", "g_s", "g_cm", "g_ep"},
        "joint": {"g_a", "g_s", "h_a", "h_s", "g_cm", "g_ep", "prior"},
    }


def test_the_scale_entropy_model_has_no_means() -> None:
    parameters = lively(tiny("scale_hyperprior")).eval()(torch.rand(1, 3, 64, 64)).parameters
    assert torch.equal(parameters.mu, torch.zeros_like(parameters.mu))


def test_a_state_dict_holds_only_weights_and_loads_strictly() -> None:
    for entropy_model in ENTROPY_MODELS:
        model = tiny(entropy_model)
        assert set(model.state_dict()) == {name for name, _ in model.named_parameters()}
        assert isinstance(model, nn.Module)
        tiny(entropy_model).load_state_dict(model.state_dict(), strict=True)
