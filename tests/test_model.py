"""The networks, sizes, layouts and gradients of every entropy model."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jahp_pl.config import BUILT_IN, DensityName, EntropyModelName, LossConfig
from jahp_pl.loss import rate_distortion
from jahp_pl.model import CompressionModel
from tests.support.tiny_models import ENTROPY_MODELS, WITH_HYPERPRIOR, flatten, lively, tiny

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
