"""docs/file-format.md suffices to write a reader, which reads what the codec writes."""

from __future__ import annotations

import hashlib
import zlib
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from jahp_pl.codec.bitstream import DEFAULT_MAX_PIXELS, VERSION, Header, pack, with_icc
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.latents import Encoded
from jahp_pl.codec.limits import max_steps
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import WEIGHTS_FILE
from jahp_pl.model_io.load import load_model
from tests.support.codec_models import GOLDEN, Variant, kodak_crop, load_golden, variable_codec
from tests.support.format_networks import layers_of
from tests.support.format_reader import FIELDS, PAGE, Words, cumulatives, read_header, read_latents

WRITTEN_OUT = [
    Variant("factorized"), Variant("scale_hyperprior", "logistic"), Variant("mean_scale_hyperprior", "laplace", 3),
    Variant("context", "logistic"), Variant("joint", "gaussian", 3), Variant("joint", "logistic"), Variant("joint"),
]  # fmt: skip
"""All entropy models and families, with and without mixtures."""


class Coded(NamedTuple):
    """File with the tensors of its model, as in an export, and the encoded latents."""

    variant: Variant
    tensors: dict[str, np.ndarray]
    codec: Codec
    encoded: Encoded[torch.Tensor]


@pytest.fixture(scope="module", params=WRITTEN_OUT, ids=str)
def coded(request, tmp_path_factory) -> Coded:
    """The latents of a photograph under untrained densities, some beyond every table and all windows."""
    torch.manual_seed(5)
    model = CompressionModel(request.param.config()).eval()
    model.g_a.load_state_dict(load_golden("joint").g_a.state_dict())
    with torch.no_grad():
        if model.config.entropy_model == "factorized":
            model.g_a[-1].bias[2] += 3000
        else:
            model.g_a[-1].bias[2] += 300
        if model.h_a is not None:
            model.h_a[-1].weight.mul_(100)
            model.h_a[-1].bias[3] -= 3000
    folder = tmp_path_factory.mktemp("export") / "m"
    codec = export(model, folder, {})
    encoded = codec.encode(kodak_crop()[:77, :120])  # ŷ of 5 x 8, ẑ of 2 x 2
    tensors = safetensors.numpy.load((folder / WEIGHTS_FILE).read_bytes())
    return Coded(request.param, tensors, codec, encoded)


def test_the_page_is_of_the_version_that_is_written():
    assert f"version {VERSION}\n" in PAGE.splitlines(keepends=True)[0]
    assert [field[0] for field in FIELDS] == [
        "magic", "version", "fingerprint", "flags", "level", "width", "height", "smallest latent", "span",
        "profile length", "length", "checksum", "profile", "payload",
    ]  # fmt: skip


def test_level_and_gray_are_where_the_page_says():
    for level, is_gray in ((None, False), (0, False), (1792, True), (None, True)):
        values = read_header(pack(Header(b"8 bytes!", 300, 200, -5, 9, b"", level, is_gray), b"payload.")).values
        assert values.get("level") == level
        assert bool(values.get("flags", 0) & 2) == is_gray
        assert ("flags" in values) == (level is not None or is_gray)


def test_latents_are_scaled_as_the_page_says():
    gains = variable_codec().model.gains
    level = 1.375
    a, o = gains.gain.double().numpy(), gains.offset.double().numpy()
    i = min(int(level), len(a) - 2)
    t = level - i
    expected = np.exp((1 - t) * (o[i] - a[i]) + t * (o[i + 1] - a[i + 1]))
    assert np.allclose(variable_codec().transforms.gain_after(level).numpy(), expected, rtol=1e-5)


def test_a_profile_is_where_the_page_says():
    plain = pack(Header(b"8 bytes!", 300, 200, -5, 9), b"payload.")
    profiled = read_header(with_icc(plain, b"an ICC profile" * 50))
    assert zlib.decompress(profiled.profile) == b"an ICC profile" * 50
    assert profiled.payload == b"payload."
    assert read_header(plain).profile == b""


def test_a_reader_written_from_the_page_gets_every_latent(coded):
    reading = read_header(coded.encoded.data)
    values, words = reading.values, Words(reading.payload)
    assert (values["width"], values["height"]) == (120, 77)
    a = values["smallest latent"]
    size = (len(coded.encoded.y_hat), 5, 8)
    y, z, escapes = read_latents(words, coded.variant, coded.tensors, size, a, values["span"])
    assert np.array_equal(y, coded.encoded.y_hat.numpy())
    assert (y.min(), y.max()) == (a, a + values["span"])
    if coded.encoded.z_hat is not None:
        assert np.array_equal(z, coded.encoded.z_hat.numpy())
    assert not words.words
    if coded.variant.entropy_model != "factorized":
        assert escapes >= 40, "none behind a window"
        assert y.max() > 128, "no high piece"
    if coded.variant.entropy_model != "context":
        table = y if coded.variant.entropy_model == "factorized" else z
        size, lowest = (coded.tensors[f"tables.prior.{name}"] for name in ("sizes", "lowest"))
        assert (table < lowest[:, None, None]).any() or (table >= (lowest + size - 1)[:, None, None]).any(), "no escape"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_weights_are_as_the_page_says(dtype, tmp_path):
    export(load_golden("joint"), tmp_path / "m", {}, dtype=dtype)
    tensors = safetensors.torch.load_file(tmp_path / "m" / WEIGHTS_FILE)
    for name, wanted in load_model(tmp_path / "m").state_dict().items():
        meant = tensors[name].double()
        if f"{name}.exponent" in tensors:
            assert dtype == "int8"
            meant = meant * 2.0 ** tensors[f"{name}.exponent"].double()
        live = wanted.flatten(2)[:, :, :12] if name == "g_cm.weight" else wanted
        assert torch.equal(meant, live.double()), name


@pytest.mark.parametrize("name", ["joint", "mixture", "variable"])
def test_a_reader_written_from_the_page_reads_the_golden_files(name, tmp_path):
    codec = export(load_golden(name), tmp_path / "m", {})
    tensors = safetensors.numpy.load((tmp_path / "m" / WEIGHTS_FILE).read_bytes())
    data = (GOLDEN / f"{name}.jahp").read_bytes()
    decoded, reading = codec.decode(data), read_header(data)
    variant = Variant("joint", "gaussian", 3 if name == "mixture" else 1)
    height, width = (-(-reading.values[side] // 16) for side in ("height", "width"))
    a = reading.values["smallest latent"]
    size = (len(decoded.y_hat), height, width)
    y, z, _ = read_latents(Words(reading.payload), variant, tensors, size, a, reading.values["span"])
    sums = (GOLDEN / "SHA256SUMS").read_text()
    for array, key in ((y, "y_hat"), (z, "z_hat")):
        assert f"{hashlib.sha256(array.astype('<i4').tobytes()).hexdigest()}  {name}.{key}\n" in sums


def test_the_fingerprint_covers_what_the_page_says(coded):
    variant, tensors = coded.variant, coded.tensors
    digest = hashlib.sha256(repr((variant.entropy_model, 8, 12, variant.family, variant.num_components)).encode())

    def add(array: np.ndarray, kind: str = "<f8") -> None:
        digest.update(np.ascontiguousarray(array.astype(kind)).tobytes())

    for number in range(7):
        for name in ("weight", "bias") if number % 2 == 0 else ("beta", "gamma"):
            add(tensors[f"g_s.{number}.{name}"], "<f4")
    if variant.entropy_model != "context":
        add(tensors["tables.prior.lowest"])
        add(tensors["tables.prior.masses"])
    if variant.entropy_model != "factorized":
        for name in ("scales", "thresholds"):
            add(tensors[f"tables.latents.{name}"])
        add(cumulatives(variant, tensors))
        add(tensors["tables.latents.exponential"])
    for layer in layers_of(variant, tensors).values():
        for array in (layer.W, layer.b, layer.gamma):
            add(array, "<f4")
        add(np.array(layer.slope))
    assert digest.digest()[:8] == coded.codec.fingerprint == read_header(coded.encoded.data).fingerprint


def test_the_header_has_the_sizes_that_the_page_gives():
    text = " ".join(PAGE.split())
    smallest = len(pack(Header(b"8 bytes!", 1, 1, 0, 0), b""))
    usual = len(pack(Header(b"8 bytes!", 16383, 16383, -63, 63, b"", 7 * 256, True), bytes(2**21 - 4))) - (2**21 - 4)
    assert f"{smallest} to 41 bytes; {usual} at most" in text
    assert 41 == 4 + 1 + 8 + 1 + 3 + 5 * 3 + 5 + 4
    assert DEFAULT_MAX_PIXELS == 2**25
    assert "accepts 2^25 pixels" in text
    assert f"and {max_steps(DEFAULT_MAX_PIXELS)} decoding steps" in text
