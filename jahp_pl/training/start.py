"""Builds the model that a run starts with, and reads the networks that it starts from (`optim.start_from`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn

from jahp_pl.config import Config, ConfigError
from jahp_pl.initialization.warm_start import copy_networks, initialize, latent_scale
from jahp_pl.initialization.widening import can_widen, widen
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.load import load_model


def read_start(config: Config) -> dict[str, nn.Module] | None:
    """Read the networks of `optim.start_from`, by name; None if it is not set.

    `optim.start_networks` selects some of them. From a run, the averaged weights are taken if there are any.

    Raises:
        CheckpointError, ExportError: if the model cannot be read.
        ConfigError: if none of its networks fits.
    """
    source = config.optim.start_from
    if source is None:
        return None
    start = load_model(source)
    if can_widen(start.config, config.model):
        start = widen(start, config.model)
    networks = dict(start.named_children())
    if config.optim.start_networks == "transforms":
        networks = {name: network for name, network in networks.items() if network in start.transforms}
    if not copy_networks(CompressionModel(config.model), networks):
        raise ConfigError(
            f"optim.start_from={source}: none of its networks fits this model; use its widths, model.num_filters="
            f"{start.config.num_filters} and model.num_latents={start.config.num_latents}, or start from another model"
        )
    return networks


class StartingModel(NamedTuple):
    """The model before its first step."""

    model: CompressionModel
    copied_networks: list[str]
    """Names of the networks whose weights were copied."""


def build_starting_model(config: Config, start: Mapping[str, nn.Module] | None) -> StartingModel:
    """Build the model of a configuration with its initial weights; what the configuration freezes needs no gradient.

    Args:
        config: the whole experiment.
        start: networks that replace the initial weights, by name (see `read_start`); None for none.
    """
    model = CompressionModel(config.model)
    if model.gains is not None:
        model.gains.initialize(config.loss)
    copied: list[str] = []
    if config.optim.initialization == "klt":
        copied = initialize(model, latent_scale(config.loss), start=start)
    elif start is not None:
        copied = copy_networks(model, start)
    for transform in model.transforms:
        transform.requires_grad_(config.optim.transforms_learn)
    if model.h_a is not None and config.model.quantization == "rounded":
        model.h_a.requires_grad_(False)  # rounding passes no gradient
    if config.optim.search_effort:  # only the decoder learns
        model.g_a.requires_grad_(False)
        if model.gains is not None:
            model.gains.gain.requires_grad_(False)
    if config.trainer.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return StartingModel(model, copied)
