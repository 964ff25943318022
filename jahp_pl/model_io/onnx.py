"""Exports the networks of a codec for other runtimes, each as a torch.export program and an ONNX file.

    encoder             x (B, 3, H, W) in [0, 1], H and W multiples of 16 and >= 32, and gain (M) for a variable-rate
                        model -> y (B, M, H / 16, W / 16) and, with a hyperprior, z (B, N, ceil(H / 64),
                        ceil(W / 64))
    hyper_decoder       z_hat (N, h, w) integers -> start (4 h, 4 w, 10M/3), or raw (4 h, 4 w, F) without context
    entropy_parameters  low, high (P, 12 M) integers, and start (P, 10M/3) with a hyperprior -> raw (P, F)
    decoder             y_hat (B, M, h, w), and gain (M) for a variable-rate model -> x_hat (B, 3, 16 h, 16 w), about
                        [0, 1], not clipped

graphs.json has the gains of each level, for the encoder and for the decoder; between two levels they are geometric.

B, H, W, h, w and P are dynamic; all tensors are float32. `low` and `high` are the pieces of the latents, 2^8 high +
low, at the twelve positions that form a position's context (docs/file-format.md); `raw` is in steps of 2^-12.

Guarantees: hyper_decoder and entropy_parameters use the same integer arithmetic as the codec (`codec.entropy`), and are
bit-identical to it on a runtime that multiplies float32 matrices in float32. The others agree with the model up to
float32 rounding.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy.integer_layers import LATENT_RADIX
from jahp_pl.codec.entropy.networks import ExactContextNetwork, ExactHyperSynthesis, to_raw
from jahp_pl.files.folders import replace_folder
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.export import check_target_folder
from jahp_pl.model_io.export_config import ExportError
from jahp_pl.strides import STRIDE

DESCRIPTION_FILE = "graphs.json"
"""File that describes the graphs and their model."""
MAX_DYNAMIC_SIZE = 2**12
"""Maximum of each dynamic size."""
ONNX, TORCH = ".onnx", ".pt2"
"""Suffixes of the files of a graph."""


class Encoder(nn.Module):
    """g_a, the gain and h_a, as one graph; shapes as in the module's docstring."""

    def __init__(self, model: CompressionModel) -> None:
        super().__init__()
        self.g_a, self.h_a = model.g_a, model.h_a

    def forward(self, x: Tensor, gain: Tensor | None = None) -> tuple[Tensor, ...]:
        """Compute y (B, M, H / 16, W / 16), and z (B, N, ceil(H / 64), ceil(W / 64)) if there is a hyperprior."""
        y = self.g_a(x)
        if gain is not None:
            y = y * gain[:, None, None]
        return (y,) if self.h_a is None else (y, self.h_a(y))


class Decoder(nn.Module):
    """The gain and g_s, as one graph; shapes as in the module's docstring."""

    def __init__(self, model: CompressionModel) -> None:
        super().__init__()
        self.g_s = model.g_s

    def forward(self, y_hat: Tensor, gain: Tensor | None = None) -> Tensor:
        """Compute x_hat (B, 3, 16 h, 16 w), not clipped to [0, 1]."""
        x_hat: Tensor = self.g_s(y_hat if gain is None else y_hat * gain[:, None, None])
        return x_hat


class HyperDecoder(nn.Module):
    """h_s on integers, and the part of g_ep that depends on no latent; shapes as in the module's docstring."""

    def __init__(self, h_s: ExactHyperSynthesis, context: ExactContextNetwork | None) -> None:
        super().__init__()
        self.h_s, self.context = h_s, context

    def forward(self, z_hat: Tensor) -> Tensor:
        """Compute `start` (4 h, 4 w, 10M/3), or `raw` (4 h, 4 w, F) without a context model."""
        psi = self.h_s.psi(z_hat)
        rows = psi.flatten(0, 1)
        rows = to_raw(rows) if self.context is None else self.context.precompute(rows)
        return rows.view(psi.shape[0], psi.shape[1], rows.shape[1])


class EntropyParameterGraph(nn.Module):
    """g_cm and g_ep on integers, at any positions; shapes as in the module's docstring."""

    def __init__(self, context: ExactContextNetwork) -> None:
        super().__init__()
        self.context = context

    def forward(self, low: Tensor, high: Tensor, start: Tensor | None = None) -> Tensor:
        """Compute `raw` (P, F)."""
        return self.context.raw([low, high * LATENT_RADIX], start)


class GraphSpec(NamedTuple):
    """A network, and the information needed to trace it."""

    network: nn.Module
    inputs: dict[str, Tensor]
    """Example inputs by name."""
    sizes: dict[str, dict[int, Any]]
    """Dynamic dimensions of each input."""
    outputs: tuple[str, ...]
    """Names of the outputs."""


def build_graphs(codec: Codec) -> dict[str, GraphSpec]:
    """Return, by name, the graphs listed in the module's docstring that the codec's model has."""
    model, latents = codec.model, codec.latents
    N, M = model.config.num_filters, model.config.num_latents
    batch, height, width, count = (
        Dim(name, min=1, max=MAX_DYNAMIC_SIZE) for name in ("batch", "height", "width", "count")
    )
    rows, columns = Dim("rows", min=2, max=MAX_DYNAMIC_SIZE), Dim("columns", min=2, max=MAX_DYNAMIC_SIZE)
    pixels, both = {0: batch, 2: STRIDE * rows, 3: STRIDE * columns}, {1: height, 2: width}
    gain: dict[str, Tensor] = {} if model.gains is None else {"gain": torch.ones(M)}
    fixed: dict[str, dict[int, Any]] = {name: {} for name in gain}
    made = ("y",) if model.h_a is None else ("y", "z")
    found = {"encoder": GraphSpec(Encoder(model), {"x": torch.rand(2, 3, 96, 80)} | gain, {"x": pixels} | fixed, made)}
    h_s, context = (None, None) if latents is None else (latents.h_s, latents.context)
    if h_s is not None:
        found["hyper_decoder"] = GraphSpec(
            HyperDecoder(h_s, context),
            {"z_hat": torch.ones(N, 2, 3)},
            {"z_hat": both},
            ("raw" if context is None else "start",),
        )
    if context is not None:
        inputs = {name: torch.ones(5, len(context.offsets) * M) for name in ("low", "high")}
        if context.from_psi is not None:
            inputs["start"] = torch.ones(5, len(context.from_psi.bias))
        sizes = {name: {0: count} for name in inputs}
        found["entropy_parameters"] = GraphSpec(EntropyParameterGraph(context), inputs, sizes, ("raw",))
    maps = {0: batch, 2: height, 3: width}
    inputs, sizes = {"y_hat": torch.ones(2, M, 3, 5)} | gain, {"y_hat": maps} | fixed
    found["decoder"] = GraphSpec(Decoder(model), inputs, sizes, ("x_hat",))
    return found


@torch.no_grad()
def to_program(graph: GraphSpec) -> ExportedProgram:
    """Trace a network to a torch.export program with dynamic sizes."""
    sizes = tuple(graph.sizes.values())
    with _quiet():
        return torch.export.export(graph.network.eval(), tuple(graph.inputs.values()), dynamic_shapes=sizes)


def to_onnx(graph: GraphSpec, program: ExportedProgram, properties: Mapping[str, str]) -> bytes:
    """Export an ONNX file that includes the weights.

    Args:
        graph: the network that was traced to `program`.
        program: result of `to_program`.
        properties: entries for the metadata of the file.

    Raises:
        ExportError: if a package is not installed.
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise ExportError("ONNX files need packages that are not installed; pip install 'jahp_pl[graphs]'")
    with _quiet():
        # Runtimes optimize by themselves; the exporter's optimizer would take most of the time.
        onnx = torch.onnx.export(
            program, input_names=list(graph.inputs), output_names=list(graph.outputs),
            dynamo=True, verbose=False, optimize=False,
        )  # fmt: skip
    assert onnx is not None
    onnx.model.metadata_props.update(properties)
    data: bytes = onnx.model_proto.SerializeToString()
    return data


def write_graphs(codec: Codec, folder: Path, overwrite: bool = False) -> list[str]:
    """Write all graphs of a codec to a folder, completely or not at all.

    Args:
        codec: codec on the CPU.
        folder: folder to create.
        overwrite: whether to replace existing graphs; not allowed if the folder contains anything else.

    Returns:
        Names of the graphs; each has a file with suffix `ONNX` and one with `TORCH`.

    Raises:
        ExportError: if the folder exists and may not be replaced, or a package is not installed.
        WriteError: if the folder cannot be written, e.g. because the disk is full.
    """
    found = build_graphs(codec)
    names = {DESCRIPTION_FILE, *(f"{name}{suffix}" for name in found for suffix in (ONNX, TORCH))}
    folder = check_target_folder(folder, names, overwrite)
    description: dict[str, Any] = {
        "fingerprint": codec.fingerprint.hex(),
        "model": dataclasses.asdict(codec.model.config),
    }
    if (gains := codec.model.gains) is not None:
        levels = torch.arange(gains.num_levels)
        for name, values in (("encoder", gains.before_rounding(levels)), ("decoder", gains.after_rounding(levels))):
            description[f"{name}_gain"] = values.flatten(1).tolist()
    contents = {DESCRIPTION_FILE: (json.dumps(description, indent=1) + "\n").encode()}
    for name, graph in found.items():
        program = to_program(graph)
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
        contents[f"{name}{TORCH}"] = buffer.getvalue()
        contents[f"{name}{ONNX}"] = to_onnx(graph, program, {"jahp_pl.fingerprint": codec.fingerprint.hex()})
    replace_folder(folder, contents)
    return list(found)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress torch's messages about optional packages and future changes."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
