"""The layers allowed in h_s and g_ep: those that the codec can run in integers (docs/exact-arithmetic.md).

A registered network may consist of any number of them; `codec.entropy.networks` converts and runs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from torch import nn

from jahp_pl.config import require

Kind = Literal["upsample", "conv 3x3", "conv 1x1"]
"""A 5x5 transposed convolution of stride 2 (`transforms.upsample`), or a convolution that keeps the size."""
HYPER_SYNTHESIS: tuple[Kind, ...] = ("upsample", "conv 3x3", "conv 1x1")
"""Kinds of layers in h_s."""
ENTROPY_PARAMETERS: tuple[Kind, ...] = ("conv 1x1",)
"""Kinds of layers in g_ep, in which no position may depend on another."""


class ExactLayer(NamedTuple):
    """A convolution, with the nonlinearity that follows it."""

    name: str
    """Name of the network and position in it."""
    kind: Kind
    layer: nn.Conv2d | nn.ConvTranspose2d
    slope: float
    """Slope of the nonlinearity below zero: 1 for none, 0 for ReLU."""


def exact_layers(name: str, network: nn.Sequential, kinds: tuple[Kind, ...]) -> list[ExactLayer]:
    """List the convolutions of a network.

    Args:
        name: name of the network for error messages.
        network: convolutions with bias, each followed by at most one ReLU or LeakyReLU.
        kinds: kinds of convolutions that are allowed.

    Raises:
        ConfigError: if the network contains any other layer, or does not begin and end with a convolution.
    """
    remedy = f"has no integer form; use {', '.join(kinds)} with bias, each followed by at most one ReLU or LeakyReLU"
    found: list[ExactLayer] = []
    can_activate = False
    for position, layer in enumerate(network):
        if can_activate and isinstance(layer, nn.ReLU | nn.LeakyReLU):
            slope = layer.negative_slope if isinstance(layer, nn.LeakyReLU) else 0.0
            found[-1] = found[-1]._replace(slope=float(slope))
            can_activate = False
            continue
        kind = _kind(layer)
        require(kind in kinds, f"{name}.{position}", " ".join(str(layer).split()), remedy)
        assert kind is not None
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        found.append(ExactLayer(f"{name}.{position}", kind, layer, 1.0))
        can_activate = True
    require(can_activate, name, type(network[-1]).__name__ if found else "empty", "must end in a convolution")
    return found


def check_exact(
    name: str, network: nn.Sequential, kinds: tuple[Kind, ...], channels: tuple[int, int], factor: int
) -> nn.Sequential:
    """Return `network` unchanged if the codec can run it in integers.

    Args:
        name: name of the network for error messages.
        network: see `exact_layers`.
        kinds: see `exact_layers`.
        channels: required numbers of input and output channels.
        factor: required factor by which height and width grow from input to output.

    Raises:
        ConfigError: see `exact_layers`; also if the channels or the factor differ.
    """
    layers = exact_layers(name, network, kinds)
    sizes = [channels[0], *(layer.out_channels for _, _, layer, _ in layers)]
    for size, (position, _, layer, _) in zip(sizes, layers, strict=False):
        require(layer.in_channels == size, position, layer, f"must take {size} input channels")
    require(sizes[-1] == channels[1], name, f"{sizes[-1]} outputs", f"must have {channels[1]}")
    require(
        _factor(layers) == factor,
        name,
        f"factor {_factor(layers)}",
        f"height and width must grow by a factor of {factor}",
    )
    return network


def input_rows(kinds: Sequence[Kind], first: int, stop: int) -> list[tuple[int, int]]:
    """Return, for each layer, the range of its input rows that determines rows [first, stop) of the last output.

    Ranges may extend beyond the map, which is padded with zeros.
    """
    found = []
    for kind in reversed(kinds):
        if kind == "upsample":  # output o gets inputs i with |o - 2 i| <= 2
            first, stop = -((2 - first) // 2), (stop + 1) // 2 + 1
        elif kind == "conv 3x3":
            first, stop = first - 1, stop + 1
        found.append((first, stop))
    return found[::-1]


def input_halo(layers: list[ExactLayer]) -> int:
    """Return how many input rows on either side of a row influence the output rows that this row is upsampled to."""
    first, stop = input_rows([layer.kind for layer in layers], 0, _factor(layers))[0]
    return max(-first, stop - 1)


def _factor(layers: list[ExactLayer]) -> int:
    """Return the factor by which height and width grow."""
    return 1 << sum(layer.kind == "upsample" for layer in layers)


def _kind(layer: nn.Module) -> Kind | None:
    """Return the kind of a layer; None if it has no integer form."""
    if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) or layer.bias is None:
        return None
    if layer.groups != 1 or layer.dilation != (1, 1) or layer.padding_mode != "zeros":
        return None
    if isinstance(layer, nn.ConvTranspose2d):
        found = (layer.kernel_size, layer.stride, layer.padding, layer.output_padding)
        return "upsample" if found == ((5, 5), (2, 2), (2, 2), (1, 1)) else None
    if layer.stride != (1, 1):
        return None
    if layer.kernel_size == (1, 1) and layer.padding in ((0, 0), "same"):
        return "conv 1x1"
    return "conv 3x3" if layer.kernel_size == (3, 3) and layer.padding in ((1, 1), "same") else None
