"""The optimizer, its learning rate, and the seed of the noise of each step.

The noise and, without a time limit, the learning rate are functions of the step alone, so that a run resumes exactly.
"""

from __future__ import annotations

import math

import numpy as np
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


def learning_rate(config: OptimConfig, step: int, max_steps: int, time_share: float = 0.0) -> float:
    """Compute the learning rate of one optimizer step.

    It rises linearly from 0 and reaches the peak at the last step of the warm-up. It then stays there, or falls along a
    half cosine to `final_factor` times the peak. The cosine advances with steps or with time, whichever is further
    along, so that a run limited by time anneals too.

    Args:
        config: peak, warm-up and schedule.
        step: number of optimizer steps already done.
        max_steps: optimizer steps of the whole run.
        time_share: training time relative to the time limit, from 0 to 1; 0 without a limit.
    """
    rate = config.learning_rate
    if step < config.warmup_steps:
        rate *= (step + 1) / config.warmup_steps
    if config.schedule == "cosine":
        steps_left = max(1, max_steps - config.warmup_steps)
        progress = min(1.0, max((step - config.warmup_steps) / steps_left, time_share, 0.0))
        # peak * (f + (1 - f) (1 + cos(pi progress)) / 2)
        rate *= config.final_factor + (1 - config.final_factor) * (1 + math.cos(math.pi * progress)) / 2
    return rate


def seed_noise(*entropy: int) -> None:
    """Seed torch's random generators on all devices.

    Args:
        entropy: the seed of the run, then numbers that identify the use of the noise, e.g. rank and step.
    """
    torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
