"""The model fingerprint, which ties a file to the weights and tables that can decode it. No torch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.bitstream import FINGERPRINT_BYTES
from jahp_pl.config import ModelConfig


def fingerprint(config: ModelConfig, arrays: Iterable[npt.NDArray[np.generic]]) -> bytes:
    """Hash everything that a decoder uses to the first 8 bytes of a SHA-256; g_a and h_a do not count.

    Args:
        config: architecture. Only settings that a decoder depends on are hashed; those of training do not count.
        arrays: weights of g_s, gains, tables of the prior, tables of the latents, frozen layers: those that the model
            has, in this order.
    """
    words: tuple[str | int, ...] = (
        config.rung, config.num_filters, config.num_latents, config.likelihood, config.num_components
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
