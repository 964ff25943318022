"""The model fingerprint, which ties a file to the weights and tables that can decode it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from torch import Tensor

from jahp_pl.codec.bitstream import FINGERPRINT_BYTES
from jahp_pl.codec.entropy.latent_coder import LatentCoder
from jahp_pl.codec.entropy.prior_tables import PriorTables
from jahp_pl.model import CompressionModel


def fingerprint(model: CompressionModel, prior: PriorTables | None, latents: LatentCoder | None) -> bytes:
    """Hash everything that a decoder uses to the first 8 bytes of a SHA-256; g_a and h_a do not count."""
    config = model.config  # only the settings that a decoder depends on; training settings do not count
    words: tuple[str | int, ...] = (
        config.rung, config.num_filters, config.num_latents, config.likelihood, config.num_components
    )  # fmt: skip
    if config.transform != "gdn":  # older files and models do not have this setting
        words += (config.transform,)
    if config.num_levels > 1:
        words += ("levels", config.num_levels)
    digest = hashlib.sha256(repr(words).encode())
    for tensor in _decoder_tensors(model, prior, latents):
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.digest()[:FINGERPRINT_BYTES]


def _decoder_tensors(
    model: CompressionModel, prior: PriorTables | None, latents: LatentCoder | None
) -> Iterator[Tensor]:
    yield from model.g_s.state_dict().values()
    if model.gains is not None:
        yield from model.gains.state_dict().values()
    if prior is not None:
        yield from prior.tensors()
    if latents is not None:
        yield from latents.tables.tensors()
        for layer in latents.layers():
            yield from layer.tensors()
