"""A file whose checksum is valid, but whose contents were never encoded, does no harm."""

from __future__ import annotations

import contextlib
import resource
import time
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from jahp_pl.codec.bitstream import BitstreamError, Header, pack, unpack
from jahp_pl.codec.codec import Codec
from tests.support.codec_models import JOINT, ONE_OF_EACH, Variant, codec_of, kodak_crop, kodak_patch, variable_codec


def forged(codec: Codec, rng: np.random.Generator) -> Iterator[bytes]:
    """Build files with a valid fingerprint and checksum, but contents that were never encoded."""
    true = codec.compress(kodak_patch(64, 48))
    header, payload = unpack(true)
    for length in (0, 1, 2, 3, 10, 200):
        yield pack(header, rng.bytes(4 * length))
    yield pack(header, b"\xff" * len(payload))
    yield pack(header, b"\x00" * len(payload))
    yield pack(header, payload[:-4])
    yield pack(header, payload + b"\x00\x00\x00\x00")
    yield pack(header, payload + payload)
    for _ in range(12):
        at = int(rng.integers(len(payload)))
        yield pack(header, payload[:at] + bytes([payload[at] ^ int(rng.integers(1, 256))]) + payload[at + 1 :])
    for width, height in [(1, 1), (64, 200), (200, 48), (640, 1)]:
        yield pack(Header(header.fingerprint, width, height, header.latent_min, header.latent_max), payload)
    for lowest, highest in [(0, 0), (-1, 0), (32767, 32767), (-32768, -32768), (-300, 300)]:
        yield pack(Header(header.fingerprint, 64, 48, lowest, highest), payload)


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_a_forged_payload_gives_an_image_or_bitstream_error(variant: Variant) -> None:
    codec = codec_of(variant)
    refused = 0
    for data in forged(codec, np.random.default_rng(0)):
        try:
            decoded = codec.decode(data)
        except BitstreamError:
            refused += 1
        else:
            header, _ = unpack(data)
            assert decoded.image.shape == (3, header.height, header.width)
            assert header.latent_min <= int(decoded.y_hat.min()) <= int(decoded.y_hat.max()) <= header.latent_max
    assert refused > 5


def test_a_header_that_promises_a_vast_image_takes_no_memory() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for side in (11_586, 65_535):
        data = pack(Header(codec_of(JOINT).fingerprint, side, side, -5, 5), bytes(64))
        with pytest.raises(BitstreamError, match="raise max_pixels"):
            codec_of(JOINT).decode(data)
    small = codec_of(JOINT).compress(kodak_patch(20, 20))
    with pytest.raises(BitstreamError, match="20 x 20 pixels, more than the 399 accepted"):
        codec_of(JOINT).decompress(small, max_pixels=399)
    assert codec_of(JOINT).decompress(small, max_pixels=400).shape == (3, 20, 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "kilobytes"


@pytest.mark.parametrize("variant", [v for v in ONE_OF_EACH if v.entropy_model != "factorized"], ids=str)
def test_a_header_that_promises_a_vast_range_takes_no_more_time_or_memory(variant: Variant) -> None:
    """Tables are as wide as their windows, whatever range the header states; this range would take 600 MB."""
    codec = codec_of(variant)
    true, payload = unpack(codec.compress(kodak_patch(160, 160)))
    seconds, peaks = [], []
    for lowest, highest in [(-30, 30), (-30, 30), (-32768, 32767)]:
        data = pack(Header(true.fingerprint, 160, 160, lowest, highest), payload)
        tracemalloc.start()
        start = time.process_time()
        # An escape decodes to another value than was written; later latents may then need windows of any width.
        with contextlib.suppress(BitstreamError):
            codec.decode(data)
        seconds.append(time.process_time() - start)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.5 * peaks[1] + 2_000_000
    assert seconds[2] < 3 * seconds[1] + 0.1


@pytest.mark.parametrize("level", [None, 4 * 256, 65535])
def test_a_level_outside_the_models_range_is_refused(level: int | None) -> None:
    codec = variable_codec()
    header, payload = unpack(codec.compress(kodak_crop()))
    forged = pack(
        Header(header.fingerprint, header.width, header.height, header.latent_min, header.latent_max, b"", level),
        payload,
    )
    with pytest.raises(BitstreamError, match="declares a rate level that this model does not have"):
        codec.decode(forged)


def test_a_level_in_a_file_of_a_single_rate_model_is_refused() -> None:
    codec = codec_of(JOINT)
    header, payload = unpack(codec.compress(kodak_crop()))
    forged = pack(
        Header(header.fingerprint, header.width, header.height, header.latent_min, header.latent_max, b"", 0), payload
    )
    with pytest.raises(BitstreamError, match="declares a rate level that this model does not have"):
        codec.decode(forged)
