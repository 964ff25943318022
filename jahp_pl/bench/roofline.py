"""Computes a lower bound of the time of a training step: the time of its convolutions and of GDN's matrix products.

The bound shows how much of a step is spent on anything else, and how far the library's convolutions are from the speed
of large matrix products.
"""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jahp_pl.layers import GDN
from jahp_pl.model import CompressionModel


class LayerCall(NamedTuple):
    """Layer that a forward pass runs, with its input."""

    layer: nn.Conv2d | nn.ConvTranspose2d | GDN
    x: Tensor
    """Random tensor with the shape, dtype and memory format of the layer's input."""
    needs_weight_grad: bool
    """Whether the layer's weights need a gradient."""
    needs_input_grad: bool
    """Whether the layer's input needs a gradient because earlier layers learn."""


@torch.no_grad()
def record_layer_calls(model: CompressionModel, x: Tensor, reconstruct: bool) -> list[LayerCall]:
    """List all convolutions and GDNs that `model` runs for a batch `x` (B, 3, H, W), in order.

    Args:
        model: model to run.
        x: images.
        reconstruct: whether the model also runs g_s.
    """
    calls: list[LayerCall] = []

    def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | GDN)
        needs_weight_grad = any(parameter.requires_grad for parameter in layer.parameters())
        needs_input_grad = any(call.needs_weight_grad for call in calls)
        calls.append(LayerCall(layer, torch.randn_like(inputs[0]), needs_weight_grad, needs_input_grad))

    layers = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | GDN)]
    hooks = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        model(x, reconstruct=reconstruct)
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def product_seconds(calls: list[LayerCall], dtype: torch.dtype, rounds: int = 3) -> float:
    """Measure the total seconds of the calls, each forward and backward; GDN runs in float32, as in training."""
    return sum(median(_seconds_of_product(call, dtype) for _ in range(rounds + 1)) for call in calls)


def _seconds_of_product(call: LayerCall, dtype: torch.dtype) -> float:
    layer = call.layer
    if isinstance(layer, GDN):
        beta, gamma = layer.beta_gamma()
        x, weight, bias = call.x.float(), gamma.detach()[:, :, None, None], beta.detach()
    else:
        assert layer.bias is not None
        x, weight, bias = (tensor.detach().to(dtype) for tensor in (call.x, layer.weight, layer.bias))
    differentiated = ([weight, bias] if call.needs_weight_grad else []) + ([x] if call.needs_input_grad else [])
    for tensor in differentiated:
        tensor.requires_grad_()
    synchronize(x.device)
    start = time.perf_counter()
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        if isinstance(layer, GDN):
            y = F.conv2d(x, weight, bias)
        elif isinstance(layer, nn.Conv2d):
            y = F.conv2d(x, weight, bias, layer.stride, layer.padding)
        else:
            padding, extra = layer.padding, layer.output_padding
            assert not isinstance(padding, str)
            y = F.conv_transpose2d(x, weight, bias, layer.stride, padding, extra)
        if differentiated:
            torch.autograd.grad(y, differentiated, torch.ones_like(y))
    synchronize(x.device)
    return time.perf_counter() - start


def matrix_flops(device: torch.device, dtype: torch.dtype, rounds: int = 5) -> float:
    """Measure the floating-point operations per second of a large square matrix product, the practical maximum."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    seconds = []
    for number in range(rounds + 1):
        synchronize(device)
        start = time.perf_counter()
        left @ right
        synchronize(device)
        if number:  # the first one warms up
            seconds.append(time.perf_counter() - start)
    return 2 * side**3 / median(seconds)


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
