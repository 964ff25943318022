"""Loads the codec of an export without torch: the counterpart of `model_io.load.load_codec`."""

from __future__ import annotations

from pathlib import Path

from jahp_pl.codec.entropy.integer_layers import UnusableModelError
from jahp_pl.model_io.export_config import CodecIdentity, ExportError, Metric, check_identity, is_export
from jahp_pl.model_io.pretrained import locate_model
from jahp_pl.runtime.codec import RuntimeCodec
from jahp_pl.runtime.weights import read_export


def load_runtime(model: str | Path | None = None, *, metric: Metric | None = None, threads: int = 0) -> RuntimeCodec:
    """Load the codec of a bundled model or an export, to run in onnxruntime.

    Args:
        model: path of an export, name of a bundled model, or hf://USER/NAME; None takes a bundled model.
        metric: metric that the bundled model was trained for; None takes the default model. It cannot be combined with
            a model.
        threads: number of CPU threads; 0 for one per core.

    Raises:
        ExportError: if there is no such model, or it cannot be used; the message says what to do.
    """
    path = locate_model(model, metric)
    if not is_export(path):
        raise ExportError(f"{path}: onnxruntime reads exports only; make one with `jahp export`")
    stored = read_export(path)
    try:
        codec = RuntimeCodec(stored.config, stored.state, stored.tables, threads)
    except (UnusableModelError, ValueError) as error:
        raise ExportError(f"{path}: {error}") from None
    stated = CodecIdentity(stored.fingerprint, stored.tables)
    check_identity(path, stated, CodecIdentity(codec.fingerprint, codec.table_names()))
    return codec
