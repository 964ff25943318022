"""The parts of decoding that all runtimes share: checks before the networks run, and the image afterwards. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple

from jahp_pl.codec.arrays import IntArray, Samples
from jahp_pl.codec.bitstream import INCOMPATIBLE_FILE, BitstreamError, Header, unpack
from jahp_pl.codec.encoder import to_gray
from jahp_pl.codec.entropy.range_coder import Reader
from jahp_pl.codec.entropy.symbol_coder import DecodeTask, LatentRange
from jahp_pl.codec.latents import Integers
from jahp_pl.codec.level_steps import highest_level_steps, to_level
from jahp_pl.codec.limits import accepted_pixels, check_steps
from jahp_pl.strides import HYPER_STRIDE, STRIDE

Synthesize = Callable[[IntArray, int, int, "float | None"], Samples]
"""Runs g_s: y_hat (M, h, w), height and width in pixels, rate level -> (3, height, width)."""


class OpenedFile(NamedTuple):
    """A file whose header has been checked."""

    header: Header
    payload: bytes
    shape: tuple[int, int]
    """Height and width of the latents."""
    hyper_shape: tuple[int, int]
    """Height and width of the hyper-latents."""
    latent_range: LatentRange
    """Range of the latents, as stated in the header."""


class DecodedLatents(NamedTuple, Generic[Integers]):
    """The latents of a file, from which its image can be reconstructed."""

    file: OpenedFile
    task: DecodeTask[Integers]
    y_hat: Integers
    """(M, h, w) int32."""


class Reconstruction(NamedTuple):
    """The image of a file, and the rate level at which it was coded."""

    image: Samples
    """(3, H, W) uint8."""
    level: float | None
    """Rate level; None for a single-rate model."""


def open_file(
    data: bytes, max_pixels: int | None, fingerprint: bytes, num_levels: int, has_context: bool
) -> OpenedFile:
    """Check a file against the model that is to decode it, before anything is allocated.

    Args:
        data: the whole file.
        max_pixels: maximum number of pixels to accept; None for the default, see `limits`.
        fingerprint: fingerprint of the codec.
        num_levels: number of rate levels of the model; 1 for a single-rate model.
        has_context: whether the model has a context model, so that latents are decoded step by step.

    Raises:
        BitstreamError: if the data is not a valid file of this model, or the image is too large.
    """
    header, payload = unpack(data, accepted_pixels(data, max_pixels))
    if header.fingerprint != fingerprint:
        raise BitstreamError(
            f"the file was made with model {header.fingerprint.hex()}, but this is {fingerprint.hex()}; "
            "decode it with the model that made it"
        )
    is_single_rate, level_steps = header.level_steps is None, header.level_steps or 0
    if is_single_rate != (num_levels == 1) or level_steps > highest_level_steps(num_levels):
        raise BitstreamError(f"the file declares a rate level that this model does not have; {INCOMPATIBLE_FILE}")
    height, width = -(-header.height // STRIDE), -(-header.width // STRIDE)
    if has_context:
        check_steps(height, width, max_pixels)
    hyper_shape = -(-height // HYPER_STRIDE), -(-width // HYPER_STRIDE)
    latent_range = LatentRange(header.latent_min, header.latent_max)
    return OpenedFile(header, payload, (height, width), hyper_shape, latent_range)


def reconstruct_image(header: Header, reader: Reader, y_hat: IntArray, synthesize: Synthesize) -> Reconstruction:
    """Compute the image of a file from its latents, after checking that the payload held them and nothing else.

    Args:
        header: header of the file.
        reader: reader of the payload, after the last latent.
        y_hat: (M, h, w), from the payload.
        synthesize: runs g_s.

    Raises:
        BitstreamError: if data is left in the payload, or a latent is outside the range in the header.
    """
    reader.finish()
    if not header.latent_min <= int(y_hat.min()) <= int(y_hat.max()) <= header.latent_max:
        raise BitstreamError(f"the latents exceed the range stated in the header; {INCOMPATIBLE_FILE}")
    level = to_level(header.level_steps)
    image = synthesize(y_hat, header.height, header.width, level)
    return Reconstruction(to_gray(image) if header.is_gray else image, level)
