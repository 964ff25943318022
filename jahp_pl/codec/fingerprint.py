"""The fingerprint of a model: what a file says of the weights and tables that can read it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from torch import Tensor

from jahp_pl.codec.bitstream import FINGERPRINT_BYTES
from jahp_pl.codec.entropy.latent_coder import LatentCoder
from jahp_pl.codec.entropy.prior_tables import PriorTables
from jahp_pl.model import CompressionModel


def fingerprint(model: CompressionModel, prior: PriorTables | None, latents: LatentCoder | None) -> bytes:
    """First 8 bytes of the SHA-256 of all that a decoder uses; g_a and h_a may differ, files stay readable."""
    config = model.config  # of it, what a decoder depends on; settings of training do not make other files
    words: tuple[str | int, ...] = (
        config.rung, config.num_filters, config.num_latents, config.likelihood, config.num_components
    )  # fmt: skip
    if config.transform != "gdn":  # files and models are older than this setting
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
