"""What every decoder checks before and after it reads latents, whatever its networks run in. No torch."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from jahp_pl.codec.bitstream import LEVEL_STEPS, BitstreamError, Header, unpack
from jahp_pl.codec.entropy.range_coder import IntArray, Reader
from jahp_pl.codec.entropy.symbol_coder import LatentRange
from jahp_pl.codec.limits import check_steps
from jahp_pl.strides import HYPER_STRIDE, STRIDE


class WithLatents(Protocol):
    """An encoder's or a decoder's result, as arrays or as tensors on the CPU."""

    @property
    def y_hat(self) -> Any:
        """(M, h, w)."""

    @property
    def z_hat(self) -> Any:
        """(N, ceil(h / 4), ceil(w / 4)); None without side information."""


class Opened(NamedTuple):
    """A file whose header can be believed."""

    header: Header
    payload: bytes
    shape: tuple[int, int]
    """Height and width of the latents."""
    hyper_shape: tuple[int, int]
    """Those of the hyper-latents."""
    span: LatentRange
    """Range of the latents."""


def open_file(data: bytes, max_pixels: int, fingerprint: bytes, num_levels: int, has_context: bool) -> Opened:
    """Check a file against the model that is to read it.

    Args:
        data: the whole file.
        max_pixels: largest image to accept.
        fingerprint: of the model.
        num_levels: of the model.
        has_context: whether latents are read step by step.

    Raises:
        BitstreamError: no file of this model, or too large.
    """
    header, payload = unpack(data, max_pixels)
    if header.fingerprint != fingerprint:
        raise BitstreamError(
            f"the file was made with model {header.fingerprint.hex()}, but this is {fingerprint.hex()}; "
            "decode it with the model that made it"
        )
    if (header.level is None) != (num_levels == 1) or (header.level or 0) > (num_levels - 1) * LEVEL_STEPS:
        raise BitstreamError(
            "the file states a rate level that this model does not have; an incompatible program made the file"
        )
    height, width = -(-header.height // STRIDE), -(-header.width // STRIDE)
    if has_context:
        check_steps(height, width, max_pixels)
    hyper_shape = -(-height // HYPER_STRIDE), -(-width // HYPER_STRIDE)
    span = LatentRange(header.latent_min, header.latent_max)
    return Opened(header, payload, (height, width), hyper_shape, span)


def check_latents(header: Header, reader: Reader, y_hat: IntArray) -> float | None:
    """Check that a payload held these latents and nothing else; the level of rate, None for a model of one rate.

    Raises:
        BitstreamError: it did not.
    """
    reader.finish()
    if not header.latent_min <= int(y_hat.min()) <= int(y_hat.max()) <= header.latent_max:
        raise BitstreamError("the latents exceed the range stated in the header; an incompatible program made the file")
    return None if header.level is None else header.level / LEVEL_STEPS


def mismatches(encoded: WithLatents, decoded: WithLatents) -> int:
    """Count the latents and hyper-latents that were decoded differently; all of an array whose shape differs."""
    pairs = [(encoded.y_hat, decoded.y_hat)]
    if encoded.z_hat is not None and decoded.z_hat is not None:
        pairs.append((encoded.z_hat, decoded.z_hat))
    arrays = [(np.asarray(a), np.asarray(b)) for a, b in pairs]
    return sum(int((a != b).sum()) if a.shape == b.shape else a.size for a, b in arrays)
