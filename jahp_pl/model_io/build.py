"""Builds a model from its configuration and weights, without drawing initial values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from jahp_pl.config import ModelConfig
from jahp_pl.model import CompressionModel


class _SkipRandomInit(TorchFunctionMode):
    """Mode that leaves new weights uninitialized, because random numbers would take longer than reading a model."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch, unless it would draw the initial values of a weight."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").endswith(("uniform_", "normal_")):
            return kwargs["tensor"] if "tensor" in kwargs else args[0]  # `torch.nn.init` names all arguments
        return func(*args, **kwargs)


def build_model(config: ModelConfig, weights: Mapping[str, Tensor]) -> CompressionModel:
    """Build a model with given weights, in evaluation mode on the CPU.

    Args:
        config: architecture.
        weights: state dict of the same architecture; float32 tensors are used without a copy, others are converted.
    """
    with _SkipRandomInit():
        model = CompressionModel(config).float()  # whatever the default dtype
    model.load_state_dict({name: weight.float() for name, weight in weights.items()}, assign=True)
    return model.eval().requires_grad_(False)


def meta_state_dict(config: ModelConfig) -> dict[str, Tensor]:
    """Return a model's state dict on the meta device, which takes no memory, whatever the sizes in the configuration.

    If the sizes exceed what torch supports, the dict is empty, so that no weights fit it.
    """
    try:
        with torch.device("meta"):
            return CompressionModel(config).state_dict()
    except (RuntimeError, OverflowError, TypeError):
        return {}
