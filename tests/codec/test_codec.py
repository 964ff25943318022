"""The decoder has the encoder's latents and the model's reconstruction, and files are as long as the model says."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch

import jahp_pl
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.devices import DeviceError
from jahp_pl.codec.entropy.integer_layers import UnusableModelError
from jahp_pl.model import CompressionModel, ModelOutput
from jahp_pl.quality import to_uint8
from tests.support.codec_models import (
    ALL,
    IMAGE_SIZES,
    JOINT,
    MIXTURE,
    ONE_OF_EACH,
    Variant,
    codec_of,
    kodak_crop,
    kodak_patch,
    load_golden,
    model_of,
)

Picture = npt.NDArray[np.uint8]


def evaluated(variant: Variant, image: Picture) -> ModelOutput:
    x = torch.from_numpy(image).movedim(-1, 0).unsqueeze(0).float() / 255
    with torch.no_grad():
        return model_of(variant)(x)


@torch.no_grad()
def assert_rounded(y_hat: torch.Tensor, model: CompressionModel, image: Picture) -> None:
    """Check that latents are the model's, rounded to the nearest integer, up to the last bits of float32."""
    y = model.analyze(torch.from_numpy(image).movedim(-1, 0).unsqueeze(0).float() / 255)[0]
    assert float((y_hat - y).abs().max()) <= 0.5 + 1e-4


@torch.no_grad()
def assert_seen(image: torch.Tensor, y_hat: torch.Tensor, model: CompressionModel) -> None:
    """Check that an image is the model's reconstruction, except where float32 values lie between two 8-bit levels."""
    x_hat = model.synthesize(y_hat.float().unsqueeze(0), *image.shape[1:])
    difference = (to_uint8(x_hat)[0].int() - image.int()).abs()
    assert int(difference.max()) <= 1
    assert float(difference.float().mean()) < 1e-3


# --- what comes back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_the_decoder_has_the_encoders_latents_and_the_models_reconstruction(variant: Variant) -> None:
    codec = codec_of(variant)
    for height, width in IMAGE_SIZES:
        image = kodak_patch(height, width)
        encoded = codec.encode(image)
        decoded = codec.decode(encoded.data)
        assert torch.equal(decoded.y_hat, encoded.y_hat)
        assert_rounded(decoded.y_hat, model_of(variant), image)
        assert (decoded.z_hat is None) == (encoded.z_hat is None)
        if decoded.z_hat is not None and encoded.z_hat is not None:
            assert torch.equal(decoded.z_hat, encoded.z_hat)
        assert_seen(decoded.image, decoded.y_hat, model_of(variant))
        assert decoded.image.shape == (3, height, width)


@pytest.mark.parametrize("variant", [Variant("factorized"), JOINT, MIXTURE, Variant("context", "laplace", 3)], ids=str)
@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_constant_image_decodes_to_the_models_reconstruction(variant: Variant, level: int) -> None:
    image = np.full((50, 40, 3), level, dtype=np.uint8)
    image[..., 2] ^= 1  # just not gray, which the decoder would keep
    decoded = codec_of(variant).decode(codec_of(variant).compress(image))
    assert_rounded(decoded.y_hat, model_of(variant), image)
    assert_seen(decoded.image, decoded.y_hat, model_of(variant))


@pytest.mark.parametrize("variant", [JOINT, MIXTURE, Variant("factorized"), Variant("joint", "laplace")], ids=str)
def test_latents_that_all_have_one_value_are_coded(variant: Variant) -> None:
    """With g_a and h_a zeroed, the lowest and the highest latent are the same."""
    model = CompressionModel(variant.config())
    model.load_state_dict(model_of(variant).state_dict())
    with torch.no_grad():
        for parameter in [*model.g_a[-1].parameters(), *(model.h_a.parameters() if model.h_a is not None else [])]:
            parameter.zero_()
    codec = Codec(model)
    encoded = codec.encode(kodak_patch(90, 70))
    assert int(encoded.y_hat.min()) == int(encoded.y_hat.max()) == 0
    assert torch.equal(codec.decode(encoded.data).y_hat, encoded.y_hat)


def test_the_codec_keeps_its_weights_when_training_continues() -> None:
    model = load_golden("joint")
    codec = Codec(model)
    before = codec.compress(kodak_patch(33, 33))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert codec.compress(kodak_patch(33, 33)) == before
    assert Codec(model).fingerprint != codec.fingerprint


def test_a_model_that_has_diverged_is_refused_when_a_codec_is_built_or_encodes() -> None:
    model = load_golden("joint")
    with torch.no_grad():
        model.g_a[-1].bias[3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        Codec(model).compress(kodak_patch(20, 20))
    with torch.no_grad():
        model.g_a[-1].bias[3] = 1e6
    with pytest.raises(ValueError, match="latents exceed -32768 to 32767"):
        Codec(model).compress(kodak_patch(20, 20))
    with torch.no_grad():
        model.h_s[0].weight[0] = float("nan")
    with pytest.raises(UnusableModelError, match=r"h_s\.0"):
        Codec(model)


@pytest.mark.parametrize("device", ["meta", "nonsense", "", "cuda:99"])
def test_a_device_that_cannot_be_used_is_named(device: str) -> None:
    with pytest.raises(DeviceError, match=rf"^device {device}: cannot be used \(.*\); try cpu$"):
        jahp_pl.load_codec(device=device)


def test_a_precision_that_does_not_exist_is_refused() -> None:
    for wrong in ("float16", None, 32):
        with pytest.raises(ValueError, match=rf"precision {wrong!r}: must be one of float32, bfloat16"):
            Codec(load_golden("joint"), precision=wrong)  # type: ignore[arg-type]


# --- how large it is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ALL, ids=str)
def test_the_file_is_as_long_as_the_cross_entropy_of_the_float_model(variant: Variant) -> None:
    image = kodak_crop("kodim20")
    output = evaluated(variant, image)
    encoded = codec_of(variant).encode(image, measure=True)
    # A symbol of a table costs at most 24 bits, and one outside its window 16 more plus an integer of the range, even
    # where the density of a model that was trained for seconds is smaller.
    span = int(encoded.y_hat.max() - encoded.y_hat.min()) + 1
    escape = 24.0 if variant.entropy_model == "factorized" else min(24.0, 16 + math.log2(span))
    bits_z = float(output.bits_z.double().clamp(max=24).sum())
    least, most = (float(output.bits_y.double().clamp(max=dearest).sum()) + bits_z for dearest in (escape, 24.0))
    assert 0.999 * least / 8 < len(encoded.data) < 1.001 * most / 8 + 32
    payload = len(encoded.data) - encoded.header_bytes
    assert encoded.header_bytes <= 32
    # The coder ends on a word of 32 bits.
    assert encoded.bits == codec_of(variant).exact_bits(encoded)
    exact = encoded.bits / 8
    assert -1 <= payload - exact <= 8
    assert codec_of(variant).exact_bits(codec_of(variant).decode(encoded.data)) / 8 == exact
