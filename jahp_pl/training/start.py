"""Reads the networks that a run starts from (`optim.start_from`)."""

from __future__ import annotations

from torch import nn

from jahp_pl.config import Config, ConfigError
from jahp_pl.initialization.warm_start import copy_networks
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
        networks = {name: networks[name] for name in ("g_a", "g_s", "gains") if name in networks}
    if not copy_networks(CompressionModel(config.model), networks):
        raise ConfigError(
            f"optim.start_from={source}: none of its networks fits this model; use its widths, model.num_filters="
            f"{start.config.num_filters} and model.num_latents={start.config.num_latents}, or start from another model"
        )
    return networks
