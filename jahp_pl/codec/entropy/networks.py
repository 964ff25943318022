"""Runs the entropy-parameter networks h_s, g_cm and g_ep in exact arithmetic (`fixed_point`).

h_s depends on no latent and runs once per image, some rows at a time. g_cm and g_ep run once per wavefront in the
decoder, where reading the weights dominates the time; therefore the hyperprior's half of g_ep's first layer is computed
in advance for the whole image.

Guarantees: for equal integer inputs the outputs are equal to the last bit, for any batch, order, thread count, library,
instruction set or device, provided that matrix products accumulate in the precision of their operands
(`torch_settings` ensures that).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jahp_pl.codec.arrays import Float32Array
from jahp_pl.codec.entropy.byte_product import ByteProduct, byte_product_if_faster
from jahp_pl.codec.entropy.fixed_point import FixedPointLayer, quantize, to_torch
from jahp_pl.codec.entropy.hyper_strips import hyper_strips
from jahp_pl.codec.entropy.integer_layers import (
    CONVOLUTION_TAPS,
    FRACTION_BITS,
    HYPER_LATENT_CLAMP,
    RAW_CLAMP,
    UPSAMPLING_TAPS,
    Tap,
    TrainedLayer,
    conv_taps,
    convert_context,
    convert_hyper_synthesis,
)
from jahp_pl.context import ContextPrediction
from jahp_pl.exact_layers import (
    ENTROPY_PARAMETERS,
    HYPER_SYNTHESIS,
    ExactLayer,
    exact_layers,
    input_halo,
    input_rows,
)


class ExactHyperSynthesis:
    """h_s in integer arithmetic.

    Args:
        network: trained h_s; its device is used.

    Raises:
        UnusableModelError: if weights are not finite or too large.
    """

    def __init__(self, network: nn.Sequential) -> None:
        self.device = next(network.parameters()).device
        found = exact_layers("h_s", network, HYPER_SYNTHESIS)
        self.kinds, self.halo = [layer.kind for layer in found], input_halo(found)
        integer_layers = convert_hyper_synthesis([_trained(layer) for layer in found])
        self.layers = [to_torch(layer).to(self.device) for layer in integer_layers]

    def strips(self, z_hat: Tensor, height: int, width: int) -> Iterator[tuple[int, Tensor]]:
        """Compute psi for (height, width) latents from z_hat (N, hz, wz), some rows at a time.

        Yields:
            The index of the first row, and psi from that row on, (rows * width, F) float32.
        """
        for strip in hyper_strips(height, width, z_hat.shape[1], self.halo):
            x = self.psi(z_hat[:, strip.top : strip.bottom].to(self.device), strip.kept)
            yield strip.first, x[:, :width].flatten(0, 1)

    def blocks(self, num_rows: int) -> Iterator[slice]:
        """Split rows of psi into blocks of the size at which the next layer multiplies fastest."""
        return self.layers[-1].blocks(num_rows)

    def psi(self, z_hat: Tensor, rows: slice | None = None) -> Tensor:
        """Compute psi from z_hat.

        Args:
            z_hat: (N, hz, wz), integers on this device.
            rows: rows of psi to compute; None for all.

        Returns:
            (rows, 4 wz, F) float32; (4 hz, 4 wz, F) if `rows` is None.
        """
        x = z_hat.clamp(-HYPER_LATENT_CLAMP, HYPER_LATENT_CLAMP).float().permute(1, 2, 0)
        needed = [] if rows is None else [*input_rows(self.kinds, rows.start, rows.stop), (rows.start, rows.stop)]
        top = 0  # row of the map with which x begins
        for number, (kind, layer) in enumerate(zip(self.kinds, self.layers, strict=True)):
            if needed:
                x, top = _cropped(x, top, needed[number])
            top *= 2 if kind == "upsample" else 1
            if kind == "upsample":
                x = _upsample(x, layer)
            elif kind == "conv 3x3":
                x = _correlate(_shifted(x), x.shape, layer, CONVOLUTION_TAPS)
            else:
                x = layer(quantize(x.flatten(0, 1))).view(*x.shape[:2], -1)
        return _cropped(x, top, needed[-1])[0] if needed else x


def _cropped(x: Tensor, top: int, rows: tuple[int, int]) -> tuple[Tensor, int]:
    """Crop x (h, w, C), whose first row is row `top` of a map, to the part of rows [first, stop) that it contains.

    Returns:
        The cropped map and its new top.
    """
    first, stop = max(rows[0], top), min(rows[1], top + len(x))
    return x[first - top : stop - top], first


def _shifted(x: Tensor) -> dict[tuple[int, int], Tensor]:
    """Quantize x (h, w, in) and shift it by each offset (row, column) from 0 to 2, where 1 is no shift.

    Outside x, values are 0. Because x is padded and its positions are flattened, a shift is a slice: nothing is copied.
    Each result is (h * (w + 2), in); the last two positions of each row are meaningless.
    """
    height, width, _ = x.shape
    padded = F.pad(x, (0, 0, 1, 1, 1, 2)).flatten(0, 1)  # one extra row, because the last slice exceeds the others
    rows = quantize(padded)
    count, stride = height * (width + 2), width + 2
    return {(row, column): rows[row * stride + column :][:count] for row in range(3) for column in range(3)}


def _correlate(
    shifted: Mapping[tuple[int, int], Tensor],
    shape: torch.Size,
    layer: FixedPointLayer,
    taps: Sequence[Tap],
) -> Tensor:
    """Convolve x (h, w, in) with some taps, using its shifts, and apply the nonlinearity: (h, w, out).

    Args:
        shifted: result of `_shifted`.
        shape: shape of x.
        layer: layer to apply.
        taps: taps in the order in which to add their products.
    """
    height, width, _ = shape
    blocks = []
    for block in layer.blocks(height * (width + 2)):
        out = layer.bias
        for row, column, number in taps:
            out = layer.add(out, shifted[row, column][block], number)
        blocks.append(layer.activate(out))
    return torch.cat(blocks).view(height, width + 2, -1)[:, :width]


def _upsample(x: Tensor, layer: FixedPointLayer) -> Tensor:
    """Apply the 5x5 transposed convolution of stride 2 by `UPSAMPLING_TAPS`: (h, w, in) -> (2 h, 2 w, out)."""
    shifted = _shifted(x)
    by_row = [
        torch.stack([_correlate(shifted, x.shape, layer, taps) for taps in of_row], dim=2) for of_row in UPSAMPLING_TAPS
    ]
    return torch.stack(by_row, dim=1).flatten(2, 3).flatten(0, 1)


class ExactContextNetwork:
    """g_cm and g_ep in integer arithmetic, at any set of positions: one gather and four matrix products.

    Encoder and decoder call the same function, with many wavefronts or a single one at a time.

    Args:
        g_cm: trained context prediction; its device is used.
        g_ep: trained entropy parameter network.
        has_psi: whether the first inputs of g_ep come from a hyperprior.

    Raises:
        UnusableModelError: if weights are not finite or too large.
    """

    def __init__(self, g_cm: ContextPrediction, g_ep: nn.Sequential, has_psi: bool) -> None:
        self.device = g_cm.weight.device
        side = g_cm.kernel_size[0]
        assert g_cm.bias is not None
        taps = conv_taps(_array(g_cm.weight))[: side**2 // 2]  # in raster order, before the center
        layers = [_trained(layer) for layer in exact_layers("g_ep", g_ep, ENTROPY_PARAMETERS)]
        converted = convert_context(TrainedLayer("g_cm", taps, _array(g_cm.bias), 1.0), side, layers, has_psi)
        self.offsets = converted.offsets
        self.context = to_torch(converted.context).to(self.device)
        self.layers = [to_torch(layer).to(self.device) for layer in converted.layers]
        self.from_psi = None if converted.from_psi is None else to_torch(converted.from_psi).to(self.device)

    @cached_property
    def byte_context(self) -> ByteProduct | None:
        """g_cm's product for latents that fit a byte; None if this processor has no faster one than in float32."""
        return byte_product_if_faster(self.context.integers()[0], self.context.grid)

    def precompute(self, psi: Tensor) -> Tensor:
        """Compute the hyperprior's half of g_ep's first layer, bias included: (positions, 2M) -> (positions, 10M/3).

        The result does not depend on any latent.
        """
        assert self.from_psi is not None
        return self.from_psi(quantize(psi))

    def raw(self, pieces: Sequence[Tensor], from_psi: Tensor | None) -> Tensor:
        """Compute the raw entropy parameters at P positions.

        Args:
            pieces: latents at the live taps in raster order, as one piece (P, 12 M) or as two whose sum is the latents:
                integers from -2^7 to 2^7, and multiples of 2^8. A piece of dtype uint8 is meant for `byte_context`.
            from_psi: (P, 10M/3) result of `precompute` at these positions; None without a hyperprior.

        Returns:
            (P, outputs) float32 integers, see `to_raw`.
        """
        x = self.context.bias
        for rows in pieces:
            if rows.dtype == torch.uint8:
                assert self.byte_context is not None
                x = self.byte_context(rows).add_(x)
            else:
                x = self.context.add(x, rows)
        for layer in self.layers:
            x = layer(quantize(x), from_psi)
            from_psi = None  # only the first layer reads psi
        return to_raw(x)


def to_raw(outputs: Tensor) -> Tensor:
    """Convert float32 network outputs in place to integers in steps of 2^-12, clamped to +-`RAW_CLAMP`."""
    return outputs.mul_(2.0**FRACTION_BITS).round_().clamp_(-RAW_CLAMP, RAW_CLAMP)


def _trained(exact: ExactLayer) -> TrainedLayer:
    name, kind, layer, slope = exact
    assert layer.bias is not None
    return TrainedLayer(name, conv_taps(_array(layer.weight), kind == "upsample"), _array(layer.bias), slope)


def _array(tensor: Tensor) -> Float32Array:
    array: Float32Array = tensor.detach().cpu().float().numpy()
    return array
