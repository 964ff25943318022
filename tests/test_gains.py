"""Variable-rate models: gains before and after rounding, rates between two levels, and one loss over all levels."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import pytest
import torch
from torch.testing import assert_close

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.targets import Target
from jahp_pl.config import Config, ConfigError, LossConfig, ModelConfig
from jahp_pl.gains import LevelGains
from jahp_pl.initialization.warm_start import initialize, latent_scale
from jahp_pl.loss import rate_distortion
from jahp_pl.model import CompressionModel
from tests.support.codec_models import ALL, JOINT, Variant, kodak_crop, load_golden, variable_codec, variable_model

LOSS = LossConfig(lmbda=0.002, lmbda_max=0.1)
IMAGE = kodak_crop()[:64, :96]


@pytest.fixture(autouse=True)
def no_graph(request: pytest.FixtureRequest) -> Iterator[None]:
    """Disable gradients except in tests of gradients."""
    with torch.set_grad_enabled("gradients" in request.node.name):
        yield


def photo() -> torch.Tensor:
    return torch.from_numpy(IMAGE.copy()).movedim(-1, 0)[None].float() / 255


def test_gains_start_at_the_square_root_of_lambda_and_undo_each_other() -> None:
    gains = LevelGains(5, 3)
    gains.initialize(LOSS)
    levels = torch.arange(5.0)
    before = gains.before_rounding(levels)[:, 0, 0, 0]
    lmbda = torch.tensor([LOSS.lmbda_at(share) for share in (0, 0.25, 0.5, 0.75, 1)])
    assert_close(before, (lmbda / LOSS.lmbda_middle).sqrt())
    assert_close(gains.before_rounding(levels) * gains.after_rounding(levels), torch.ones(5, 3, 1, 1))
    assert_close(gains.before_rounding(torch.tensor([gains.middle])), torch.ones(1, 3, 1, 1))


def test_between_two_levels_gains_are_geometric() -> None:
    gains = LevelGains(3, 4)
    with torch.no_grad():
        gains.gain.normal_()
        gains.offset.normal_()
    for table in (gains.before_rounding, gains.after_rounding):
        below, above, between = table(torch.tensor([1.0, 2.0, 1.25]))
        assert_close(between, below**0.75 * above**0.25)


@pytest.mark.parametrize("variant", ALL[:1] + [v for v in ALL if v.num_components == 3 and v.family == "gaussian"])
def test_with_unit_gains_the_model_equals_a_single_rate_model(variant: Variant) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        fixed = CompressionModel(variant.config()).eval()
    variable = CompressionModel(dataclasses.replace(fixed.config, num_levels=2)).eval()
    variable.load_state_dict(fixed.state_dict(), strict=False)
    x = photo()
    expected, found = fixed(x), variable(x, level=torch.tensor([0.7]))
    assert torch.equal(found.x_hat, expected.x_hat)
    assert torch.equal(found.bits_y, expected.bits_y)
    of_fixed, of_variable = Codec(fixed).encode(IMAGE), Codec(variable).encode(IMAGE, Target(level=0.7))
    assert of_variable.data[-len(of_fixed.data) + of_fixed.header_bytes :] == of_fixed.data[of_fixed.header_bytes :]
    assert torch.equal(of_variable.y_hat, of_fixed.y_hat)


def test_rate_and_fidelity_rise_with_the_level() -> None:
    model, x = variable_model(), photo()
    outputs = [model(x, level=torch.tensor([level])) for level in (0.0, 1.0, 1.5, 2.0, 3.0)]
    bits = [float(output.bits_y.sum() + output.bits_z.sum()) for output in outputs]
    errors = [float((output.x_hat - x).square().mean()) for output in outputs]
    assert bits == sorted(bits)
    assert errors == sorted(errors, reverse=True)


def test_each_image_of_a_batch_has_its_own_level() -> None:
    model, x = variable_model(), photo()
    both = model(x.expand(2, -1, -1, -1), level=torch.tensor([0.3, 2.6]))
    for number, level in enumerate((0.3, 2.6)):
        alone = model(x, level=torch.tensor([level]))
        assert_close(both.x_hat[number], alone.x_hat[0], rtol=0, atol=1e-4)
        assert torch.equal(both.y_hat[number], alone.y_hat[0])


def test_a_level_is_required_by_variable_rate_models_and_refused_by_others() -> None:
    with pytest.raises(ValueError, match="level is missing: this is a variable-rate model"):
        variable_model()(photo())
    with pytest.raises(ValueError, match="level is given, but this model has a single rate"):
        load_golden("joint")(photo(), level=torch.zeros(1))


def test_the_loss_weighs_each_crop_by_its_level() -> None:
    model, x = variable_model(), photo().expand(2, -1, -1, -1)
    share = torch.tensor([0.0, 1.0])
    output = model(x, level=3 * share)
    terms = rate_distortion(LOSS, x, output, share)
    expected = 0.0
    for number, lmbda in enumerate((LOSS.lmbda, LOSS.lmbda_max)):
        assert lmbda is not None
        rate = float(output.bits_y[number].sum() + output.bits_z[number].sum()) / (64 * 96)
        error = 255**2 * float((output.x_hat[number] - x[number]).square().mean())
        expected += (LOSS.lmbda_middle / lmbda) ** LOSS.level_weighting * (rate + lmbda * error) / 2
    assert float(terms.loss) == pytest.approx(expected, rel=1e-5)
    assert float(terms.bpp) == pytest.approx(float(output.bits_y.sum() + output.bits_z.sum()) / (2 * 64 * 96), rel=1e-5)


def test_at_equal_levels_the_loss_is_the_single_rate_loss_times_its_weight() -> None:
    model, x = variable_model(), photo()
    output = model(x, level=torch.tensor([3.0]))
    one = rate_distortion(LossConfig(lmbda=0.1), x, output)
    several = rate_distortion(LOSS, x, output, torch.ones(1))
    assert float(several.loss) == pytest.approx(float(one.loss) * (LOSS.lmbda_middle / 0.1) ** 0.6, rel=1e-5)


def test_gradients_reach_the_gains_of_the_levels_in_the_batch() -> None:
    model, x = variable_model().train(), photo()
    rate_distortion(LOSS, x, model(x, level=torch.tensor([0.5])), torch.tensor([0.5 / 3])).loss.backward()
    assert model.gains is not None
    for table in (model.gains.gain, model.gains.offset):
        assert table.grad is not None
        assert [bool(row.any()) for row in table.grad] == [True, True, False, False]


@pytest.mark.parametrize(
    "settings",
    [
        {"model": ModelConfig(num_levels=4)},
        {"loss": LossConfig(lmbda=0.01, lmbda_max=0.1)},
    ],
)
def test_levels_and_the_range_of_lambda_need_each_other(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"levels above 1 require loss\.lmbda_max"):
        Config(**settings)  # type: ignore[arg-type]


def test_a_range_of_lambda_that_does_not_rise_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"loss\.lmbda_max=0\.01: must be finite and larger than loss\.lmbda"):
        LossConfig(lmbda=0.01, lmbda_max=0.01)


def test_the_transform_coder_starts_at_the_middle_lambda() -> None:
    assert latent_scale(LOSS) == pytest.approx(latent_scale(LossConfig(lmbda=math.sqrt(0.002 * 0.1))))
    model = CompressionModel(ModelConfig(num_filters=16, num_latents=24, num_levels=4))
    assert model.gains is not None
    model.gains.initialize(LOSS)
    initialize(model, latent_scale(LOSS))
    x = photo()
    errors = [255**2 * float((model.eval()(x, level=torch.tensor([s])).x_hat - x).square().mean()) for s in (0.0, 3.0)]
    assert errors[1] < errors[0]


def test_every_entropy_model_codes_every_level_exactly() -> None:
    for variant in (Variant("factorized"), Variant("scale_hyperprior"), Variant("context"), JOINT):
        codec = variable_codec(variant)
        for level in (0.0, 0.7, 3.0):
            encoded = codec.encode(IMAGE, Target(level=level))
            decoded = codec.decode(encoded.data)
            assert torch.equal(decoded.y_hat, encoded.y_hat)
            assert decoded.level == pytest.approx(level, abs=1 / 512)
