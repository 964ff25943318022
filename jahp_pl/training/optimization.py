"""Creates the optimizer, restores it, and sets the learning rates of its groups."""

from __future__ import annotations

import torch
from torch.optim import Adam, Optimizer

from jahp_pl.config import OptimConfig
from jahp_pl.model import CompressionModel
from jahp_pl.training.soap import Soap


def make_optimizer(model: CompressionModel, config: OptimConfig) -> Optimizer:
    """Create one optimizer for all weights: `Soap`, or a fused Adam, a single kernel that can skip a step without
    waiting for the host.

    A group's learning rate is `learning_rate` times its "factor"; the transforms have a factor of their own.
    """
    # Frozen weights are included because a later session may train them.
    transforms = [parameter for network in model.transforms for parameter in network.parameters()]
    known = {id(parameter) for parameter in transforms}
    others = [parameter for parameter in model.parameters() if id(parameter) not in known]
    groups = [{"params": others, "factor": 1.0}, {"params": transforms, "factor": config.transform_factor}]
    if config.optimizer == "soap":
        return Soap(groups, lr=config.learning_rate)
    return Adam(groups, lr=config.learning_rate, fused=True)


def adapt_restored(optimizer: Optimizer, fresh: Optimizer) -> None:
    """Adapt an optimizer that was restored from a checkpoint to this session's settings.

    Args:
        optimizer: optimizer with the restored state.
        fresh: optimizer that this session would start with.
    """
    # Use this session's factors, which `allow_changes` may have changed, instead of the restored ones.
    for group, fresh_group in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        group["factor"] = fresh_group["factor"]
    # Fused Adam treats weights and moments as flat memory, so moments saved in another memory format are converted.
    if isinstance(optimizer, Adam):
        for parameter, state in optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = torch.empty_like(parameter).copy_(state[name])


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    """Set the learning rate of every group to `rate` times its factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["factor"] * rate
