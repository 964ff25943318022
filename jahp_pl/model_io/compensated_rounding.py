"""Rounds kernels to 8 bits so that their errors cancel (GPTQ, Frantar et al. 2023, arXiv:2210.17323).

Rounding each weight of g_a, h_a and g_ep to the nearest integer costs 2 % of the bits at the highest rates. But the
inputs of a layer are strongly correlated, as neighbors in a picture are, so an error in one weight can be compensated
by the others. With X the inputs, as rows, and H = X^T X, the weights w of one output are rounded one after the other;
after each, those that are still to be rounded move so that |X (w - q)|^2 grows as little as possible:

    q_j   = round(w_j / 2^e) 2^e
    w_k  -= (w_j - q_j) U_jk / U_jj   for k > j,   U the upper Cholesky factor of the inverse of H

Inputs come from synthetic images, so that an export needs no photographs. The result is not the same to the last bit on
every machine, so neither is the fingerprint of an export of the same run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jahp_pl.initialization.textures import pink_images
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.tensor_layout import EXPORT_FORMAT, dtype_of
from jahp_pl.model_io.tensors import MAX_INT8, power_of_two, row_exponents
from jahp_pl.strides import STRIDE

SIDE = 256
"""Height and width of the synthetic images, in pixels."""
SAMPLES_PER_WEIGHT = 5
"""Number of sampled input patches for each weight of an output."""
DAMPING = 1e-3
"""Added to the diagonal of H, relative to its mean."""
COLUMNS = 128
"""Weights of each output that are rounded before the others are moved, which saves passes over memory."""
NETWORKS = ("g_a", "h_a", "g_ep")
"""Networks whose kernels are rounded in this way. h_s and g_cm lose nothing by plain rounding."""


@torch.no_grad()
def round_kernels(model: CompressionModel) -> dict[str, Tensor]:
    """Round those kernels of g_a, h_a and g_ep that an int8 export stores in 8 bits.

    Args:
        model: trained weights, on the CPU, in float32, in evaluation mode.

    Returns:
        Rounded kernels by their names in the state dict; `tensors.store` keeps them exactly.
    """
    if not all(bool(tensor.isfinite().all()) for tensor in model.state_dict().values()):
        return {}  # `tensors.store` names the weight
    layers = {
        f"{name}.weight": layer
        for name, layer in model.named_modules()
        if name.startswith(NETWORKS)
        and isinstance(layer, nn.Conv2d)
        and layer.groups == 1
        and layer.dilation == (1, 1)
        and dtype_of(f"{name}.weight", layer.weight.ndim, "int8", EXPORT_FORMAT) == "int8"
    }
    grams = _input_products(model, list(layers.values()))
    return {name: _round(layer.weight, gram) for (name, layer), gram in zip(layers.items(), grams, strict=True)}


def _input_products(model: CompressionModel, layers: list[nn.Conv2d]) -> list[Tensor]:
    """Compute H for each layer, (C, C) with C inputs of each output, over images at all rate levels."""
    grams = [torch.zeros(layer.weight[0].numel(), layer.weight[0].numel()) for layer in layers]
    num_images = max((SAMPLES_PER_WEIGHT * len(gram) * STRIDE**2 // SIDE**2 + 1 for gram in grams), default=0)
    generator = torch.Generator().manual_seed(0)

    def add(gram: Tensor, layer: nn.Conv2d, x: Tensor) -> None:
        patches = F.unfold(x, layer.kernel_size, 1, layer.padding, layer.stride).transpose(1, 2).flatten(0, 1)  # type: ignore[arg-type]
        count = SAMPLES_PER_WEIGHT * len(gram) // num_images + 1
        chosen = patches[torch.randperm(len(patches), generator=generator)[:count]]
        gram += chosen.T @ chosen

    hooks = [
        layer.register_forward_pre_hook(lambda module, inputs, gram=gram: add(gram, module, inputs[0]))
        for gram, layer in zip(grams, layers, strict=True)
    ]
    try:
        for number in range(num_images):
            level_share = number / max(num_images - 1, 1)
            level = None if model.gains is None else torch.tensor([model.config.level_at(level_share)])
            model(pink_images(1, SIDE, number), reconstruct=False, level=level)
    finally:
        for hook in hooks:
            hook.remove()
    return grams


def _round(kernel: Tensor, gram: Tensor) -> Tensor:
    """Round a kernel (out, in, k, k) as this module's docstring describes."""
    step = power_of_two(row_exponents(kernel.flatten(2))).flatten(1)
    weights, rounded = kernel.flatten(1).double(), torch.empty_like(kernel.flatten(1))
    gram = gram.double()
    gram = gram + (DAMPING * gram.diagonal().mean() + 1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram))
    factor = torch.linalg.cholesky(inverse, upper=True)
    for start in range(0, len(gram), COLUMNS):
        end = min(start + COLUMNS, len(gram))
        errors = torch.zeros(len(weights), end - start, dtype=weights.dtype)
        for column in range(start, end):
            size = step[:, column % step.shape[1]]
            rounded[:, column] = (weights[:, column] / size).round().clamp(-MAX_INT8, MAX_INT8) * size
            error = (weights[:, column] - rounded[:, column]) / factor[column, column]
            weights[:, column + 1 : end] -= torch.outer(error, factor[column, column + 1 : end])
            errors[:, column - start] = error
        weights[:, end:] -= errors @ factor[start:end, end:]
    return rounded.view_as(kernel)
