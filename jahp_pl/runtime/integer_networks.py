"""Converts h_s, g_cm and g_ep of an export to integers: the counterpart of `codec.entropy.networks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from jahp_pl.codec.arrays import Float32Array
from jahp_pl.codec.entropy.integer_layers import (
    IntegerContext,
    IntegerLayer,
    TrainedLayer,
    conv_taps,
    convert_context,
    convert_hyper_synthesis,
)
from jahp_pl.config import ModelConfig

LEAKY_SLOPE = 0.01
"""Slope of the LeakyReLUs in h_a, h_s and g_ep, torch's default."""
KERNEL_SIDE = 5
"""Side of the kernel of g_cm."""


class IntegerNetworks(NamedTuple):
    """The networks that determine probabilities, in integers."""

    h_s: list[IntegerLayer]
    """Empty without a hyperprior."""
    context: IntegerContext | None
    """g_cm and g_ep; None without a context model."""

    def layers(self) -> list[IntegerLayer]:
        """Return all layers in the order of the fingerprint."""
        if self.context is None:
            return self.h_s
        from_psi = [] if self.context.from_psi is None else [self.context.from_psi]
        return [*self.h_s, self.context.context, *self.context.layers, *from_psi]


def convert_networks(config: ModelConfig, state: Mapping[str, Float32Array]) -> IntegerNetworks:
    """Convert the networks of an entropy model other than `factorized`.

    Args:
        config: architecture.
        state: weights by name.

    Raises:
        UnusableModelError: if weights are not finite or too large for exact arithmetic.
        KeyError: if a weight is missing.
    """
    magnitudes, h_s, context = config.entropy_model == "scale_hyperprior", [], None
    if config.has_hyperprior:
        slope = 0.0 if magnitudes else LEAKY_SLOPE
        h_s = convert_hyper_synthesis([
            _trained(state, "h_s.0", slope, is_transposed=True),
            _trained(state, "h_s.2", slope, is_transposed=True),
            _trained(state, "h_s.4", 1.0),
        ])  # fmt: skip
    if config.has_context:
        live = state["g_cm.weight"].transpose(2, 1, 0)  # (12, M, 2M)
        g_cm = TrainedLayer("g_cm", live, state["g_cm.bias"], 1.0)
        g_ep = [_trained(state, f"g_ep.{position}", 1.0 if position == 4 else LEAKY_SLOPE) for position in (0, 2, 4)]
        context = convert_context(g_cm, KERNEL_SIDE, g_ep, config.has_hyperprior)
    return IntegerNetworks(h_s, context)


def _trained(state: Mapping[str, Float32Array], name: str, slope: float, is_transposed: bool = False) -> TrainedLayer:
    taps = conv_taps(state[f"{name}.weight"], is_transposed)
    return TrainedLayer(name, taps, state[f"{name}.bias"], slope)
