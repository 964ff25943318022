"""The model that a run starts from, where `optim.start_from` names one."""

from __future__ import annotations

from pathlib import Path

from jahp_pl.checkpoint import find_checkpoint, load_model
from jahp_pl.config import Config, ConfigError
from jahp_pl.export import is_export, load_export
from jahp_pl.initialization import take_networks
from jahp_pl.model import CompressionModel


def read_start(config: Config) -> CompressionModel | None:
    """The model of `optim.start_from`, of a run the average of its weights where there is one; None where it names
    none.

    Raises:
        CheckpointError, ExportError: it cannot be read.
        ConfigError: no network of it fits.
    """
    if config.optim.start_from is None:
        return None
    path = Path(config.optim.start_from)
    start = load_export(path).model if is_export(path) else load_model(find_checkpoint(path))
    if not take_networks(CompressionModel(config.model), start):
        raise ConfigError(
            f"optim.start_from={path}: no network of it has the layers of this model; its model.num_filters is "
            f"{start.config.num_filters}, its model.num_latents {start.config.num_latents}"
        )
    return start
