"""Shapes of a model's weights without torch, named as in the state_dict of `model.CompressionModel`."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from jahp_pl.config import BUILT_IN, ModelConfig
from jahp_pl.density_layout import DensityLayout

PRIOR_WIDTHS = (1, 3, 3, 3, 3, 1)
"""Widths of the layers that `entropy_model.FactorizedDensity` has for each channel."""
_Shapes = Mapping[str, tuple[int, ...]]


class Shape(NamedTuple):
    """Shape of a weight."""

    shape: tuple[int, ...]


def check_parts(config: ModelConfig) -> None:
    """Check that all parts of a model are the package's own, not registered ones.

    Raises:
        ValueError: if the density or a network is not one of the package's own.
    """
    for setting, known in BUILT_IN.items():
        if (part := getattr(config, setting)) not in known:
            words = f"model.{setting}={part}: the onnx runtime has only {', '.join(known)}"
            raise ValueError(f"{words}; use the torch runtime")


def weight_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Return the shapes of all weights of a model.

    Args:
        config: architecture.

    Raises:
        ValueError: see `check_parts`.
    """
    check_parts(config)
    N, M, E = config.num_filters, config.num_latents, config.entropy_channels
    has_hyperprior, has_context = config.has_hyperprior, config.has_context
    num_parameters = DensityLayout(config).num_blocks * config.num_components * M
    shapes = {**_transform("g_a", (3, N, N, N, M), False), **_transform("g_s", (M, N, N, N, 3), True)}
    if has_hyperprior:
        num_psi = 2 * M if has_context else num_parameters
        widths = (N, N) if config.entropy_model == "scale_hyperprior" else (E, E * 3 // 2)
        shapes |= {**_layer("h_a.0", M, N, 3), **_layer("h_a.2", N, N, 5), **_layer("h_a.4", N, N, 5)}
        shapes |= {**_layer("h_s.0", N, widths[0], 5, True), **_layer("h_s.2", *widths, 5, True)}
        shapes |= _layer("h_s.4", widths[1], num_psi, 3)
    if has_context:
        widths = (E * 10 // 3, E * 8 // 3)
        shapes |= {**_layer("g_cm", M, 2 * M, 5), **_layer("g_ep.0", 4 * M if has_hyperprior else 2 * M, widths[0], 1)}
        shapes |= {**_layer("g_ep.2", *widths, 1), **_layer("g_ep.4", widths[1], num_parameters, 1)}
    if config.entropy_model != "context":
        shapes |= _prior(N if has_hyperprior else M)
    if config.num_levels > 1:
        shapes |= {f"gains.{name}": (config.num_levels, M) for name in ("gain", "offset")}
    return {name: Shape(shape) for name, shape in shapes.items()}


def _layer(name: str, num_in: int, num_out: int, side: int, is_transposed: bool = False) -> _Shapes:
    """Return the shapes of a convolution."""
    channels = (num_in, num_out) if is_transposed else (num_out, num_in)
    return {f"{name}.weight": (*channels, side, side), f"{name}.bias": (num_out,)}


def _transform(name: str, widths: tuple[int, ...], is_transposed: bool) -> _Shapes:
    """Return the shapes of g_a or g_s: convolutions with a GDN after each but the last."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (num_in, num_out) in enumerate(pairwise(widths)):
        shapes |= _layer(f"{name}.{2 * number}", num_in, num_out, 5, is_transposed)
        if number < len(widths) - 2:
            gdn = f"{name}.{2 * number + 1}"
            shapes |= {f"{gdn}.beta": (num_out,), f"{gdn}.gamma": (num_out, num_out)}
    return shapes


def _prior(num_channels: int) -> _Shapes:
    """Return the shapes of the prior."""
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (num_in, num_out) in enumerate(pairwise(PRIOR_WIDTHS)):
        shapes[f"prior.matrices.{number}"] = (num_channels, num_out, num_in)
        shapes[f"prior.biases.{number}"] = (num_channels, num_out, 1)
        if number < len(PRIOR_WIDTHS) - 2:
            shapes[f"prior.factors.{number}"] = (num_channels, num_out, 1)
    return shapes
