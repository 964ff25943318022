"""Pairs of a codec in torch and the same codec in onnxruntime."""

from __future__ import annotations

import functools
from pathlib import Path

from jahp_pl.codec.codec import Codec
from jahp_pl.model_io.export import export
from jahp_pl.runtime.codec import RuntimeCodec
from jahp_pl.runtime.load import load_runtime
from tests.support.codec_models import Variant, codec_of, variable_codec

VARIABLE = "variable"
"""Stands for the variable-rate model in place of a variant."""


@functools.cache
def pair(variant: Variant | str, folder: Path) -> tuple[Codec, RuntimeCodec]:
    """Export a codec to `folder`/`variant`, and return it in torch and in onnxruntime."""
    codec = variable_codec() if isinstance(variant, str) else codec_of(variant)
    path = folder / str(variant)
    exported = export(codec.model, path, {}, tables=codec.tables())
    return exported, load_runtime(path, threads=1)
