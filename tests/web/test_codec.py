"""The page in web/ codes torch's latents to the last bit in a browser, and refuses bad files.

The tests need Chromium, and the files of onnxruntime-web that `make web` puts into web/vendor.
"""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
import pytest
import torch

from jahp_pl.codec.bitstream import BitstreamError, Header, pack
from jahp_pl.codec.entropy.range_coder import Writer
from jahp_pl.model_io.load import load_codec
from tests.support.browser import Page
from tests.support.codec_models import kodak_crop
from tests.support.web_page import IS_LOADED, NEEDS_BROWSER, WEB, Site, array_of, ask_worker, js_bytes

pytestmark = NEEDS_BROWSER


@pytest.mark.parametrize("name", ["variable", "mixture"])
@pytest.mark.parametrize("size", [(150, 219), (16, 16), (1, 40), (420, 100)])
def test_the_page_reads_torchs_files_to_the_last_bit(
    name: str, size: tuple[int, int], page: Page, sites: dict[str, Site]
) -> None:
    site, (height, width) = sites[name], size
    file = site.codec.encode(kodak_crop("kodim05", height, width))
    found = ask_worker(page, site, f"ask('decode', {{ data: {js_bytes(file.data)} }})")
    assert np.array_equal(array_of(found["yHat"], "<i4", *file.y_hat.shape), file.y_hat.numpy())
    assert file.z_hat is not None
    assert np.array_equal(array_of(found["zHat"], "<i4", *file.z_hat.shape), file.z_hat.numpy())
    shown = array_of(found["rgb"], "u1", 3, height, width).astype(int)
    assert np.abs(shown - site.codec.decode(file.data).image.numpy()).max() <= 1


@pytest.mark.parametrize("name", ["variable", "mixture"])
def test_torch_reads_the_pages_files_to_the_last_bit(name: str, page: Page, sites: dict[str, Site]) -> None:
    site, image = sites[name], kodak_crop("kodim19", 150, 219)
    planes = np.ascontiguousarray(image.transpose(2, 0, 1))
    values = f"{{ rgb: {js_bytes(planes.tobytes())}, width: 219, height: 150, isGray: false }}"
    ask_worker(page, site, f"ask('analyze', {values})")
    for quality in (1, 60, 100):
        found = ask_worker(page, site, f"ask('encode', {{ quality: {quality} }})")
        data = base64.b64decode(found["data"])
        decoded = site.codec.decode(data)
        assert np.array_equal(array_of(found["yHat"], "<i4", *decoded.y_hat.shape), decoded.y_hat.numpy())
        assert np.abs(array_of(found["rgb"], "u1", 3, 150, 219).astype(int) - decoded.image.numpy()).max() <= 1
        # The latents of g_a are floats, a few of which may round to the other side.
        level = {} if name == "mixture" else {"quality": quality}
        ours = site.codec.compress(image, **level)
        assert len(data) == pytest.approx(len(ours), rel=0.01)


def test_latents_beyond_a_piece_and_escapes_come_back(page: Page, sites: dict[str, Site]) -> None:
    """Torch writes the payloads directly, because no image has such latents."""
    numbers = np.random.default_rng(1)
    for name, factor in (("variable", 3), ("variable", 300), ("mixture", 300)):
        codec = sites[name].codec
        y_hat = torch.from_numpy((numbers.integers(-40, 41, (12, 5, 6)) * factor).astype(np.int32))
        z_hat = torch.from_numpy((numbers.integers(-20, 21, (8, 2, 2)) * factor**2).astype(np.int32))
        writer = Writer()
        codec._write(writer, y_hat, z_hat)
        level_steps = 256 if name == "variable" else None
        header = Header(codec.fingerprint, 96, 80, int(y_hat.min()), int(y_hat.max()), level_steps=level_steps)
        found = ask_worker(page, sites[name], f"ask('decode', {{ data: {js_bytes(pack(header, writer.payload()))} }})")
        assert np.array_equal(array_of(found["yHat"], "<i4", 12, 5, 6), y_hat.numpy())
        assert np.array_equal(array_of(found["zHat"], "<i4", 8, 2, 2), z_hat.numpy())


def test_the_pages_range_coder_writes_constrictions_bytes(page: Page, sites: dict[str, Site]) -> None:
    """The page reads the latents of a file that torch wrote, and writes them again."""
    site = sites["variable"]
    file = site.codec.encode(kodak_crop("kodim23", 96, 112))
    code = f"""(async () => {{
      const {{ Codec }} = await import('/codec.js');
      const {{ Writer }} = await import('/range_coder.js');
      const codec = await Codec.load(() => {{}});
      const {{ header, yHat, zHat }} = await codec.decode({js_bytes(file.data)});
      const writer = new Writer();
      codec.writeHyper(writer, zHat, 4);
      await codec.writeLatents(writer, yHat, zHat, 6, 7, header.lowest, header.highest);
      const payload = writer.payload();
      return payload.length === header.payload.length && payload.every((byte, i) => byte === header.payload[i]);
    }})()"""
    page.open(site.url, 1000, is_ready=IS_LOADED, patience=120)
    assert page.run(code) is True


@pytest.mark.parametrize("fault", ["other model", "cut", "altered", "level", "large", "empty"])
def test_bad_files_get_a_sentence(fault: str, page: Page, sites: dict[str, Site]) -> None:
    site = sites["variable"]
    data = site.codec.compress(kodak_crop("kodim05", 48, 64))
    if fault == "other model":
        data = sites["mixture"].codec.compress(kodak_crop("kodim05", 48, 64))
    data = {
        "cut": data[:-8], "altered": data[:-1] + bytes([data[-1] ^ 1]), "empty": b"",
        "level": checked(data[:14] + b"\xff\x7f" + data[16:]),
        "large": checked(data[:16] + b"\xff\xff\x03\xff\xff\x03" + data[18:]),
    }.get(fault, data)  # fmt: skip
    said = ask_worker(page, site, f"ask('decode', {{ data: {js_bytes(data)} }})")
    assert isinstance(said, str), "an error"
    assert not said.startswith("Something went wrong"), said
    assert said.endswith(".")


def test_a_damaged_payload_is_refused_by_both_or_read_as_the_same(page: Page, sites: dict[str, Site]) -> None:
    codec = sites["variable"].codec
    data = codec.compress(kodak_crop("kodim05", 48, 64))
    refused = 0
    for place in range(4, len(data) - 40, 9):
        damaged = checked(data[: len(data) - place] + bytes([data[-place] ^ 0x5A]) + data[len(data) - place + 1 :])
        found = ask_worker(page, sites["variable"], f"ask('decode', {{ data: {js_bytes(damaged)} }})")
        try:
            y_hat = codec.decode(damaged).y_hat
        except BitstreamError:
            refused += 1
            assert isinstance(found, str)
            assert not found.startswith("Something went wrong"), found
        else:
            assert np.array_equal(array_of(found["yHat"], "<i4", *y_hat.shape), y_hat.numpy())
    assert refused


def checked(data: bytes) -> bytes:
    """Correct the checksum of a file of version 2."""
    start = 14
    for _ in range(7):  # level, width, height, smallest latent, span, length of the profile, length
        while data[start] & 128:
            start += 1
        start += 1
    crc = zlib.crc32(data[start + 4 :], zlib.crc32(data[:start]))
    return data[:start] + struct.pack("<I", crc) + data[start + 4 :]


def test_the_bundled_model_reads_a_kodak_image_to_the_last_bit(page: Page) -> None:
    codec = load_codec(WEB / "model")
    site = Site(WEB, codec)
    try:
        for name in ("kodim05", "kodim23"):
            file = codec.encode(kodak_crop(name, 512, 512))
            found = ask_worker(page, site, f"ask('decode', {{ data: {js_bytes(file.data)} }})")
            assert np.array_equal(array_of(found["yHat"], "<i4", *file.y_hat.shape), file.y_hat.numpy())
            shown = array_of(found["rgb"], "u1", 3, 512, 512).astype(int)
            assert np.abs(shown - codec.decode(file.data).image.numpy()).max() <= 1
    finally:
        site.stop()
