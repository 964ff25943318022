"""The whole codec: correct sizes, equal latents, any image, and no harmful file."""

from __future__ import annotations

import contextlib
import math
import resource
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from jahp_pl.codec.bitstream import BitstreamError, Header, pack, unpack
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy.freezing import FreezeError
from jahp_pl.config import ModelConfig
from jahp_pl.model import CompressionModel, ModelOutput
from jahp_pl.quality import to_uint8
from tests.golden.make import latent_sums
from tests.support.circumstances import changed
from tests.support.codec_models import (
    ALL,
    GOLDEN,
    JOINT,
    MIXTURE,
    ONE_OF_EACH,
    Variant,
    codec_of,
    kodak_crop,
    load_golden,
    model_of,
)

Picture = npt.NDArray[np.uint8]


def evaluated(variant: Variant, image: Picture) -> ModelOutput:
    x = torch.from_numpy(image).movedim(-1, 0).unsqueeze(0).float() / 255
    with torch.no_grad():
        return model_of(variant)(x)


def patch(height: int, width: int) -> Picture:
    """Cut a piece out of a photograph, which is repeated if the piece is larger."""
    rows, columns = np.arange(height) % 256, np.arange(width) % 384
    return np.ascontiguousarray(kodak_crop("kodim05")[rows][:, columns])


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

SIZES = [(1, 1), (5, 7), (16, 16), (17, 33), (70, 70), (3, 200)]


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_the_decoder_has_the_encoders_latents_and_the_models_reconstruction(variant: Variant) -> None:
    codec = codec_of(variant)
    for height, width in SIZES:
        image = patch(height, width)
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
    encoded = codec.encode(patch(90, 70))
    assert int(encoded.y_hat.min()) == int(encoded.y_hat.max()) == 0
    assert torch.equal(codec.decode(encoded.data).y_hat, encoded.y_hat)


def test_arrays_and_tensors_of_an_image_give_the_same_file() -> None:
    image = patch(40, 56)
    image.setflags(write=False)
    tensor = torch.tensor(image).movedim(-1, 0)
    assert codec_of(JOINT).compress(image) == codec_of(JOINT).compress(tensor)
    assert codec_of(JOINT).compress(image[::-1, ::-1][::-1, ::-1]) == codec_of(JOINT).compress(tensor)


@pytest.mark.parametrize(
    ("image", "remedy"),
    [
        (np.zeros((4, 4), np.uint8), "convert it to RGB"),
        (np.zeros((4, 4, 4), np.uint8), "convert it to RGB"),
        (np.zeros((0, 4, 3), np.uint8), "convert it to RGB"),
        (np.zeros((3, 4, 4), np.uint8), "permute its axes"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "permute its axes"),
        (np.zeros((4, 4, 3), np.float32), "scale it to 0 to 255 and round it to uint8"),
        (torch.zeros(3, 4, 4), "scale it to 0 to 255 and round it to uint8"),
        (torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "give one image; compress_all takes several"),
    ],
)
def test_anything_but_an_rgb_image_is_refused_with_its_shape_and_type(image: Picture, remedy: str) -> None:
    with pytest.raises(ValueError, match=f"an image must be uint8 RGB.*; {remedy}"):
        codec_of(JOINT).compress(image)


@pytest.mark.parametrize("path", ["photo.png", Path("photo.png")])
def test_a_path_in_place_of_an_image_is_refused_with_how_to_open_it(path: Any) -> None:
    with pytest.raises(ValueError, match=r"not \w+; open a file with PIL\.Image\.open"):
        codec_of(JOINT).compress(path)


def test_the_codec_keeps_its_weights_when_training_continues() -> None:
    model = load_golden("joint")
    codec = Codec(model)
    before = codec.compress(patch(33, 33))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert codec.compress(patch(33, 33)) == before
    assert Codec(model).fingerprint != codec.fingerprint


def test_a_model_that_has_diverged_is_refused_when_it_is_frozen_or_encodes() -> None:
    model = load_golden("joint")
    with torch.no_grad():
        model.g_a[-1].bias[3] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        Codec(model).compress(patch(20, 20))
    with torch.no_grad():
        model.g_a[-1].bias[3] = 1e6
    with pytest.raises(ValueError, match="latents exceed -32768 to 32767"):
        Codec(model).compress(patch(20, 20))
    with torch.no_grad():
        model.h_s[0].weight[0] = float("nan")
    with pytest.raises(FreezeError, match=r"h_s\.0"):
        Codec(model)


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


# --- the settings of the calling program ------------------------------------------------------------------------------


SETTINGS: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "1 thread": lambda: changed(torch.set_num_threads, 1, torch.get_num_threads()),
    "2 threads": lambda: changed(torch.set_num_threads, 2, torch.get_num_threads()),
    "bfloat16 by default": lambda: changed(torch.set_default_dtype, torch.bfloat16, torch.float32),
    "float64 by default": lambda: changed(torch.set_default_dtype, torch.float64, torch.float32),
    "medium precision": lambda: changed(torch.set_float32_matmul_precision, "medium", "highest"),
    "oneDNN off": lambda: torch.backends.mkldnn.flags(enabled=False),
    "bfloat16 autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("variant", [JOINT, MIXTURE, Variant("factorized"), Variant("scale_hyperprior")], ids=str)
@pytest.mark.parametrize("setting", SETTINGS)
def test_files_and_pictures_are_the_same_under_every_setting_of_the_caller(variant: Variant, setting: str) -> None:
    codec, image = codec_of(variant), patch(50, 70)
    expected = codec.encode(image)
    picture = codec.decompress(expected.data)
    with SETTINGS[setting]():
        encoded = codec.encode(image)
        decoded = codec.decode(expected.data)
        assert torch.equal(decoded.y_hat, expected.y_hat)
        assert int((decoded.image.int() - picture.int()).abs().max()) <= 1
        again = codec.decode(encoded.data)
        assert torch.equal(again.y_hat, encoded.y_hat)
        assert encoded.data == expected.data
        assert codec.exact_bits(encoded) == pytest.approx(codec.exact_bits(expected))


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_files_in_lockstep_decode_as_alone(variant: Variant) -> None:
    codec = codec_of(variant)
    files = [codec.compress(patch(*size)) for size in SIZES]
    for data, together in zip(files, codec.decode_all(files), strict=True):
        alone = codec.decode(data)
        assert torch.equal(together.y_hat, alone.y_hat)
        assert torch.equal(together.image, alone.image)
        assert (together.z_hat is None) == (alone.z_hat is None)
        assert together.z_hat is None or alone.z_hat is None or torch.equal(together.z_hat, alone.z_hat)


def test_one_damaged_file_among_several_is_refused() -> None:
    codec = codec_of(JOINT)
    files = [codec.compress(patch(*size)) for size in SIZES]
    header, payload = unpack(files[2])
    for damaged in (files[2][:-1], pack(header, payload[:-4] + b"\xa5" * 4), pack(header, payload * 2)):
        with pytest.raises(BitstreamError):
            codec.decode_all([*files[:2], damaged, *files[3:]])


# --- files that are not this codec's --------------------------------------------------------------------------------


def test_other_weights_are_refused_by_both_fingerprints() -> None:
    data = codec_of(JOINT).compress(patch(20, 20))
    with pytest.raises(
        BitstreamError, match=f"model {codec_of(JOINT).fingerprint.hex()}, but this is .* decode it with"
    ):
        codec_of(MIXTURE).decode(data)


def test_the_fingerprint_covers_what_decodes_and_nothing_else() -> None:
    first = codec_of(JOINT).fingerprint
    names = {
        name.split(".")[0]: name for name, _ in load_golden("joint").named_parameters()
    }  # the last of each network
    assert set(names) == {"g_a", "g_s", "h_a", "h_s", "g_cm", "g_ep", "prior"}
    for name in names.values():
        model = load_golden("joint")
        with torch.no_grad():
            changed = model.get_parameter(name)
            changed.copy_(changed + 0.5 * changed.abs().max() + 0.1)
        same = Codec(model).fingerprint == first
        assert same == name.startswith(("g_a", "h_a")), name
    state = load_golden("joint").state_dict()
    mixed = CompressionModel(ModelConfig("joint", 8, 12, quantization="mixed"))
    mixed.load_state_dict(state)
    assert Codec(mixed).fingerprint == first, "how it was trained does not matter"


def forged(codec: Codec, rng: np.random.Generator) -> Iterator[bytes]:
    """Build files with a valid fingerprint and checksum, but contents that were never encoded."""
    true = codec.compress(patch(64, 48))
    header, payload = unpack(true)
    for length in (0, 1, 2, 3, 10, 200):
        yield pack(header, rng.bytes(4 * length))
    yield pack(header, b"\xff" * len(payload))
    yield pack(header, b"\x00" * len(payload))
    yield pack(header, payload[:-4])
    yield pack(header, payload + b"\x00\x00\x00\x00")
    yield pack(header, payload + payload)
    for _ in range(12):
        at = int(rng.integers(len(payload)))
        yield pack(header, payload[:at] + bytes([payload[at] ^ int(rng.integers(1, 256))]) + payload[at + 1 :])
    for width, height in [(1, 1), (64, 200), (200, 48), (640, 1)]:
        yield pack(Header(header.fingerprint, width, height, header.latent_min, header.latent_max), payload)
    for lowest, highest in [(0, 0), (-1, 0), (32767, 32767), (-32768, -32768), (-300, 300)]:
        yield pack(Header(header.fingerprint, 64, 48, lowest, highest), payload)


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_a_forged_payload_gives_an_image_or_bitstream_error(variant: Variant) -> None:
    codec = codec_of(variant)
    refused = 0
    for data in forged(codec, np.random.default_rng(0)):
        try:
            decoded = codec.decode(data)
        except BitstreamError:
            refused += 1
        else:
            header, _ = unpack(data)
            assert decoded.image.shape == (3, header.height, header.width)
            assert header.latent_min <= int(decoded.y_hat.min()) <= int(decoded.y_hat.max()) <= header.latent_max
    assert refused > 5


def test_a_header_that_promises_a_vast_image_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for side in (11_586, 65_535):
        data = pack(Header(codec_of(JOINT).fingerprint, side, side, -5, 5), bytes(64))
        with pytest.raises(BitstreamError, match="raise max_pixels"):
            codec_of(JOINT).decode(data)
    small = codec_of(JOINT).compress(patch(20, 20))
    with pytest.raises(BitstreamError, match="20 x 20 pixels, more than the 399 accepted"):
        codec_of(JOINT).decompress(small, max_pixels=399)
    assert codec_of(JOINT).decompress(small, max_pixels=400).shape == (3, 20, 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


@pytest.mark.parametrize("variant", [v for v in ONE_OF_EACH if v.entropy_model != "factorized"], ids=str)
def test_a_header_that_promises_a_vast_range_takes_no_more_time_or_memory(variant: Variant) -> None:
    """Tables are as wide as their windows, whatever range the header states; this range would take 600 MB."""
    codec = codec_of(variant)
    true, payload = unpack(codec.compress(patch(160, 160)))
    seconds, peaks = [], []
    for lowest, highest in [(-30, 30), (-30, 30), (-32768, 32767)]:
        data = pack(Header(true.fingerprint, 160, 160, lowest, highest), payload)
        tracemalloc.start()
        start = time.process_time()
        # An escape decodes to another value than was written; later latents may then need windows of any width.
        with contextlib.suppress(BitstreamError):
            codec.decode(data)
        seconds.append(time.process_time() - start)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1] + 2_000_000
    assert seconds[2] < 3 * seconds[1] + 0.1


# --- files of earlier versions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["joint", "mixture", "variable"])
def test_golden_files_decode_to_their_original_latents(name: str) -> None:
    decoded = Codec(load_golden(name)).decode((GOLDEN / f"{name}.jahp").read_bytes())
    sums = (GOLDEN / "SHA256SUMS").read_text().splitlines()
    assert latent_sums(decoded, name) == [line for line in sums if f"  {name}." in line]
    original = torch.from_numpy(kodak_crop("kodim20", 150, 211)).movedim(-1, 0)
    error = (decoded.image.float() - original.float()).square().mean()
    assert float(10 * torch.log10(255**2 / error)) > 22, "dB: it is the picture"


def test_the_golden_payload_is_pinned_by_its_checksum() -> None:
    """The files themselves are pinned, so that they are not regenerated by accident."""
    checksums = {name: zlib.crc32((GOLDEN / f"{name}.jahp").read_bytes()) for name in ("joint", "mixture", "variable")}
    assert checksums == GOLDEN_CHECKSUMS


GOLDEN_CHECKSUMS = {"joint": 3499623365, "mixture": 2198219801, "variable": 475550003}
