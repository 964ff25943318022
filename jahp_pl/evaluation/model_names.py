"""Names the models of one evaluation, and checks them before any is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from jahp_pl.evaluation import EvaluationError
from jahp_pl.files.atomic import resolved
from jahp_pl.model_io.checkpoint import find_checkpoint
from jahp_pl.model_io.export_config import is_export
from jahp_pl.model_io.pretrained import locate_model


def model_name(model: str) -> str:
    """Return the last part of a model's path or name, without a file's suffix."""
    path = resolved(model)
    return path.stem if path.is_file() else path.name


def name_models(models: Sequence[str]) -> list[str]:
    """Return the `model_name` of each model, after checking that all are different.

    Args:
        models: paths or names, see `pretrained.locate_model`.

    Raises:
        EvaluationError: if a model is given twice, or two models have the same name.
        CheckpointError, ExportError: if there is no such model.
    """
    names, weights = [model_name(model) for model in models], [_weights_of(model) for model in models]
    for i, j in combinations(range(len(models)), 2):
        if weights[i].samefile(weights[j]):
            both = models[i] if models[i] == models[j] else f"{models[i]} and {models[j]}"
            raise EvaluationError(f"--model {both}: is the same model twice; give each model once")
        if names[i].lower() == names[j].lower():  # some file systems ignore case
            raise EvaluationError(
                f"--model {models[i]} {models[j]}: both models are called {names[i]}, so their files would share a "
                "folder; evaluate them one by one, or rename one"
            )
    return names


def _weights_of(model: str) -> Path:
    """Return the file or folder with a model's weights."""
    path = locate_model(model)
    return path if is_export(path) else find_checkpoint(path)
