"""The model that a run starts from, where `optim.start_from` names one."""

from __future__ import annotations

from jahp_pl.config import Config, ConfigError
from jahp_pl.exports.folder import load_model
from jahp_pl.initialization.start import take_networks
from jahp_pl.model import CompressionModel


def read_start(config: Config) -> CompressionModel | None:
    """The model of `optim.start_from`, of a run the average of its weights where there is one; None where it names
    none.

    Raises:
        CheckpointError, ExportError: it cannot be read.
        ConfigError: no network of it fits.
    """
    source = config.optim.start_from
    if source is None:
        return None
    start = load_model(source)
    if not take_networks(CompressionModel(config.model), start):
        raise ConfigError(
            f"optim.start_from={source}: no network of it has the layers of this model; its model.num_filters is "
            f"{start.config.num_filters}, its model.num_latents {start.config.num_latents}"
        )
    return start
