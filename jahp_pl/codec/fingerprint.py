"""Computes the model fingerprint, which ties a file to the weights and tables that can decode it. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.bitstream import FINGERPRINT_BYTES
from jahp_pl.config import ModelConfig


def fingerprint(config: ModelConfig, arrays: Iterable[npt.NDArray[np.generic]]) -> bytes:
    """Hash everything that a decoder uses, i.e. all but g_a and h_a; return the first 8 bytes of the SHA-256.

    Args:
        config: architecture. Only settings that a decoder depends on are hashed, not those of training.
        arrays: weights of g_s, gains, tables of the prior, tables of the latents and integer layers, in this order; the
            model may lack some of them.
    """
    words: tuple[str | int, ...] = (
        config.entropy_model, config.num_filters, config.num_latents, config.likelihood, config.num_components
    )  # fmt: skip
    if config.transform != "gdn":  # older files and models do not have this setting
        words += (config.transform,)
    words += tuple(name for name in (config.hyper_transform, config.entropy_network) if name != "conv")
    if config.num_levels > 1:
        words += ("levels", config.num_levels)
    digest = hashlib.sha256(repr(words).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).data)
    return digest.digest()[:FINGERPRINT_BYTES]
