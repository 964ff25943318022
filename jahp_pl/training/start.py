"""The networks that a run starts from, where `optim.start_from` names a model."""

from __future__ import annotations

from torch import nn

from jahp_pl.config import Config, ConfigError
from jahp_pl.exports.folder import load_model
from jahp_pl.initialization.start import take_networks
from jahp_pl.model import CompressionModel


def read_start(config: Config) -> dict[str, nn.Module] | None:
    """Networks of the model of `optim.start_from`, by name, as `optim.start_networks` has them; None where there is
    none. Of a run, the average of its weights where there is one.

    Raises:
        CheckpointError, ExportError: it cannot be read.
        ConfigError: no network of it fits.
    """
    source = config.optim.start_from
    if source is None:
        return None
    start = load_model(source)
    networks = dict(start.named_children())
    if config.optim.start_networks == "transforms":
        networks = {name: networks[name] for name in ("g_a", "g_s", "gains") if name in networks}
    if not take_networks(CompressionModel(config.model), networks):
        raise ConfigError(
            f"optim.start_from={source}: no network of it has the layers of this model; its model.num_filters is "
            f"{start.config.num_filters}, its model.num_latents {start.config.num_latents}"
        )
    return networks
