"""Graphs for other runtimes agree with the codec: integers to the last bit, images up to float32."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy.fixed_point import quantize
from jahp_pl.codec.entropy.integer_layers import ROW_MAX, ROW_MIN
from jahp_pl.codec.entropy.networks import to_raw
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import ExportError
from jahp_pl.model_io.onnx import DESCRIPTION_FILE, HyperDecoder, build_graphs, to_onnx, write_graphs
from tests.support.codec_models import GOLDEN, JOINT, Variant, codec_of, kodak_crop
from tests.support.commands import run

N, M, TAPS = 8, 12, 12
NAMES = {
    "factorized": ["encoder", "decoder"],
    "scale_hyperprior": ["encoder", "hyper_decoder", "decoder"],
    "mean_scale_hyperprior": ["encoder", "hyper_decoder", "decoder"],
    "context": ["encoder", "entropy_parameters", "decoder"],
    "joint": ["encoder", "hyper_decoder", "entropy_parameters", "decoder"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The output folder of the command for an export."""
    path = tmp_path_factory.mktemp("graphs")
    export(codec_of(JOINT).model, path / "model", {})
    assert run("export-graphs", path / "model", "--out", path / "graphs") == 0
    return path / "graphs"


@pytest.fixture(scope="module")
def runtime(folder):
    """Load one graph in onnxruntime by name: arrays in, tensors out."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    sessions = {p.stem: onnxruntime.InferenceSession(p, options) for p in folder.glob("*.onnx")}

    def compute(name: str, **inputs: torch.Tensor) -> list[torch.Tensor]:
        return [torch.from_numpy(a) for a in sessions[name].run(None, {k: v.numpy() for k, v in inputs.items()})]

    return compute


def test_the_folder_names_its_model(folder, capsys):
    codec = codec_of(JOINT)
    assert json.loads((folder / DESCRIPTION_FILE).read_text())["fingerprint"] == codec.fingerprint.hex()
    expected = {f"{name}{suffix}" for name in NAMES["joint"] for suffix in (".onnx", ".pt2")}
    assert {path.name for path in folder.iterdir()} == {DESCRIPTION_FILE, *expected}
    properties = {entry.key: entry.value for entry in onnx.load(folder / "decoder.onnx").metadata_props}
    assert properties["jahp_pl.fingerprint"] == codec.fingerprint.hex()
    assert run("graphs", folder, "--out", folder) == 2
    with pytest.raises(ExportError, match="exists; --force replaces it"):
        write_graphs(codec, folder)


@pytest.mark.parametrize("entropy_model", NAMES)
def test_every_entropy_model_has_the_graphs_that_it_needs(entropy_model):
    codec = Codec(CompressionModel(Variant(entropy_model).config()).eval())
    found = build_graphs(codec)
    assert list(found) == NAMES[entropy_model]
    for graph in found.values():
        outputs = graph.network(*graph.inputs.values())
        assert len(graph.outputs) == (len(outputs) if isinstance(outputs, tuple) else 1)


@pytest.mark.parametrize("size", [(1, 32, 32), (2, 64, 128), (1, 208, 48)], ids=str)
def test_encoder_and_decoder_agree_with_the_model_at_every_size(size, runtime):
    batch, height, width = size
    image = torch.from_numpy(kodak_crop()[:height, :width].copy()).movedim(-1, 0).float() / 255
    x = torch.stack([image, image.flip(-1)][:batch]).contiguous()
    model = codec_of(JOINT).model
    y, z = runtime("encoder", x=x)
    with torch.no_grad():
        assert y.shape == (batch, M, height // 16, width // 16)
        torch.testing.assert_close(y, model.analyze(x), rtol=0, atol=1e-4 * float(y.abs().max()))
        torch.testing.assert_close(z, model.h_a(y), rtol=0, atol=1e-4 * float(z.abs().max()))
        (x_hat,) = runtime("decoder", y_hat=y.round())
        assert float((x_hat - model.synthesize(y.round(), height, width)).abs().max()) < 1e-4


def integers(*shape: int, largest: float) -> torch.Tensor:
    return (torch.randn(shape) * largest / 2).round().clamp(-largest, largest)


@pytest.mark.parametrize("largest", [0, 3, 300, 2**20, 2**28], ids=str)
def test_the_hyper_decoder_is_equal_to_the_last_bit(largest, runtime):
    coder = codec_of(JOINT).latents
    for height, width in [(1, 1), (1, 7), (5, 2), (8, 12)]:
        z_hat = integers(N, height, width, largest=largest)
        (start,) = runtime("hyper_decoder", z_hat=z_hat)
        psi = torch.cat([psi for _, psi in coder.h_s.strips(z_hat, 4 * height, 4 * width)])
        assert start.shape[:2] == (4 * height, 4 * width)
        assert torch.equal(start.flatten(0, 1), coder.context.precompute(psi))


@pytest.mark.parametrize("largest", [0.0, 1e-30, 1.0, 1e6, 1e30], ids=str)
def test_entropy_parameters_are_equal_to_the_last_bit(largest, runtime):
    context = codec_of(JOINT).latents.context
    for count in (1, 2, 64, 65, 700):
        low, high = (integers(count, TAPS * M, largest=128) for _ in range(2))
        if count == 64:  # the largest possible sums
            worst = context.context.weight[0].sign().T.repeat(count, 1)[:count] * 128
            low, high = worst.contiguous(), -worst
        start = torch.randn(count, len(context.from_psi.bias)) * largest
        (raw,) = runtime("entropy_parameters", low=low, high=high, start=start)
        assert torch.equal(raw, context.raw([low, 256 * high], start))


class OtherRuntime:
    """Other implementation of h_s, g_cm and g_ep, to replace a codec's."""

    byte_context = None  # it multiplies in float32

    def __init__(self, runtime, context) -> None:
        self.runtime, self.offsets = runtime, context.offsets

    def strips(self, z_hat, height, width):
        (start,) = self.runtime("hyper_decoder", z_hat=z_hat.float())
        yield 0, start[:height, :width].flatten(0, 1)

    def blocks(self, num_rows):
        return [slice(0, num_rows)]

    def precompute(self, start):
        return start

    def raw(self, pieces, start):
        low = pieces[0]
        high = pieces[1] / 256 if len(pieces) == 2 else torch.zeros_like(low)
        return self.runtime("entropy_parameters", low=low, high=high, start=start.contiguous())[0]


def test_a_real_file_decodes_with_every_network_in_the_other_runtime(runtime):
    codec, data = Codec(codec_of(JOINT).model), (GOLDEN / "joint.jahp").read_bytes()
    expected = codec.decode(data)
    codec.latents.h_s = codec.latents.context = OtherRuntime(runtime, codec.latents.context)
    decoded = codec.decode(data)
    assert torch.equal(decoded.y_hat, expected.y_hat)
    (x_hat,) = runtime("decoder", y_hat=decoded.y_hat[None].float())
    _, height, width = expected.image.shape
    levels = (x_hat[0, :, :height, :width].clamp(0, 1) * 255).round() - expected.image
    assert int(levels.abs().max()) <= 1


def test_programs_of_torch_export_come_back_from_their_files(folder):
    context = codec_of(JOINT).latents.context
    program = torch.export.load(folder / "entropy_parameters.pt2").module()
    low, start = integers(70, TAPS * M, largest=128), torch.randn(70, len(context.from_psi.bias))
    assert torch.equal(program(low, low, start), context.raw([low, 256 * low], start))


def test_a_hyperprior_alone_gives_raw_parameters():
    coder = codec_of(Variant("mean_scale_hyperprior", "laplace")).latents
    z_hat = integers(N, 3, 2, largest=20)
    raw = HyperDecoder(coder.h_s, None)(z_hat)
    ((_, psi),) = coder.h_s.strips(z_hat, 12, 8)
    assert torch.equal(raw.flatten(0, 1), to_raw(psi.clone()))


def test_powers_by_comparison_are_those_by_bits(monkeypatch):
    exponents = torch.randint(-149, 128, (4000, 1)).double()
    values = (torch.rand(4000, 5, dtype=torch.float64) * 2.0**exponents).float()
    edges = [2.0**e * (1 + d) for e in range(-45, 46) for d in (-(2.0**-24), 0, 2.0**-23)]
    edges += [
        0.0,
        ROW_MIN,
        ROW_MAX,
        float(np.finfo(np.float32).max),
        float(np.finfo(np.float32).tiny),
    ]
    values = torch.cat([values, torch.tensor(edges)[:, None].expand(-1, 5)])
    by_bits = quantize(values)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    by_comparison = quantize(values)
    assert torch.equal(by_comparison, by_bits)


def test_without_its_packages_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ExportError, match=r"pip install 'jahp_pl\[graphs\]'"):
        to_onnx(build_graphs(codec_of(JOINT))["decoder"], None, {})
