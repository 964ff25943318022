"""Small files with color information or a rare layout, built by the formats' standards: one for each row of the table
in docs/images.md, with the intended image.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pillow_heif
from PIL import Image, ImageCms

from tests.support.image_files import encode
from tests.support.profiles import DISPLAY_P3

Floats = npt.NDArray[np.float64]
Levels = npt.NDArray[np.uint8]

SIDE = 32
_Y, _X = np.mgrid[0:SIDE, 0:SIDE]
RGB: Levels = np.stack([8 * _X, 8 * _Y, 255 - 8 * _X], -1).astype(np.uint8)
GRAY: Levels = (8 * _X).astype(np.uint8)
P3_TO_SRGB = np.array([[1.22494, -0.22494, 0], [-0.04206, 1.04206, 0], [-0.01964, -0.07864, 1.09828]])
ADOBE_TO_SRGB = np.array([[1.39836, -0.39836, 0], [0, 1, 0], [0, -0.04293, 1.04293]])
BT2020_TO_SRGB = np.array([[1.66049, -0.58764, -0.07285], [-0.12455, 1.13290, -0.00835], [-0.01815, -0.10058, 1.11873]])


class Case(NamedTuple):
    """A file and the intended image."""

    data: bytes
    meant: npt.NDArray[np.generic] | None = None
    """Intended sRGB levels; None if the file must be refused."""


def shown(light: Floats) -> Floats:
    """Convert linear light to sRGB levels."""
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.maximum(light, 1e-9) ** (1 / 2.4) - 0.055)


def light(levels: npt.NDArray[np.generic]) -> Floats:
    """Convert sRGB levels to linear light."""
    code = levels.astype(float) / 255
    linear: Floats = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return linear


def chunk(kind: bytes, data: bytes) -> bytes:
    """Build a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows: npt.NDArray[np.generic], depth: int, color: int, *extra: tuple[bytes, bytes], width: int = SIDE) -> bytes:
    """Build a PNG with additional chunks."""
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0))
    body = b"".join(chunk(*one) for one in extra) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + body


def tiff(planes: list[bytes], bits: int, photometric: int, order: str = "<", **more: object) -> bytes:
    """Build an uncompressed TIFF with one strip per plane; `samples` per pixel, by default the number of planes."""
    samples = int(str(more.get("samples", len(planes))))
    entries = [(256, 4, [SIDE]), (257, 4, [SIDE]), (258, 3, [bits] * samples), (259, 3, [1]), (262, 3, [photometric])]
    start = 8
    entries.append((273, 4, [start + sum(map(len, planes[:i])) for i in range(len(planes))]))
    entries += [(277, 3, [samples]), (278, 4, [SIDE]), (279, 4, [len(p) for p in planes])]
    entries.append((284, 3, [2 if len(planes) > 1 else 1]))
    rationals = more.get("rationals", {})
    assert isinstance(rationals, dict)
    entries += [(tag, 5, values) for tag, values in sorted(rationals.items())]
    if more.get("is_signed"):
        entries.append((339, 3, [2] * samples))
    end = start + sum(map(len, planes))
    base, extra, table = end + 2 + 12 * len(entries) + 4, b"", b""
    for tag, kind, values in entries:
        if kind == 5:
            packed = b"".join(struct.pack(order + "II", round(v * 10000), 10000) for v in values)
        else:
            packed = struct.pack(order + {3: "H", 4: "I"}[kind] * len(values), *values)
        where = packed.ljust(4, b"\0")
        if len(packed) > 4:
            where, extra = struct.pack(order + "I", base + len(extra)), extra + packed
        table += struct.pack(order + "HHI", tag, kind, len(values)) + where
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", end)
    return head + b"".join(planes) + struct.pack(order + "H", len(entries)) + table + bytes(4) + extra


def fits(values: npt.NDArray[np.generic], *cards: str) -> bytes:
    """Build a FITS file of samples, bottom row first, with additional header cards."""
    height, width = values.shape
    bits = 8 * values.itemsize
    axes = ["NAXIS   = 2", f"NAXIS1  = {width}", f"NAXIS2  = {height}"]
    head = "".join(card.ljust(80) for card in ("SIMPLE  = T", f"BITPIX  = {bits:20}", *axes, *cards, "END"))
    data = values[::-1].tobytes()
    return head.encode().ljust(2880) + data.ljust(-(-len(data) // 2880) * 2880, b"\0")


def encoded(levels: Levels, kind: str, **options: object) -> bytes:
    """Encode with Pillow."""
    return encode(Image.fromarray(levels), kind, **options)


def heic(primaries: int, transfer: int, icc: bytes = b"", is_deep: bool = False) -> bytes:
    """Encode `RGB` as HEIC of 8 or 10 bits."""
    image = pillow_heif.from_pillow(Image.fromarray(RGB))
    if is_deep:
        image = pillow_heif.from_bytes("RGB;16", (SIDE, SIDE), (RGB.astype(np.uint16) * 257).tobytes())
    if icc:
        image.info["icc_profile"] = icc
    buffer = io.BytesIO()
    image.save(buffer, quality=100, chroma=444, color_primaries=primaries, transfer_characteristics=transfer)
    return buffer.getvalue()


def avif(primaries: int, transfer: int) -> bytes:
    """Encode with Pillow, and change the code points of the nclx box."""
    data = encoded(RGB, "AVIF", quality=100, subsampling="4:4:4")
    place = data.index(b"colrnclx") + 8
    return data[:place] + struct.pack(">HH", primaries, transfer) + data[place + 4 :]


def jpeg_with_late_profile(data: bytes) -> bytes:
    """Move the APP2 segment of a JPEG to a place after the frame header."""
    i, before, late = 2, b"", b""
    while data[i + 1] != 0xDA:
        size = struct.unpack(">H", data[i + 2 : i + 4])[0] + 2
        if data[i + 1] == 0xE2:
            late += data[i : i + size]
        else:
            before += data[i : i + size]
        i += size
    return data[:2] + before + late + data[i:]


def jp2(*boxes: tuple[bytes, bytes], drop: bytes = b"") -> bytes:
    """Encode a lossless JPEG 2000 with Pillow, and add boxes to its header or remove those of one type."""
    data = encoded(RGB, "JPEG2000", irreversible=False)
    place = data.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", data, place)
    old, start = data[place + 8 : place + size], 0
    content = b""
    while start < len(old):
        (length,) = struct.unpack_from(">I", old, start)
        content += b"" if old[start + 4 : start + 8] == drop else old[start : start + length]
        start += length
    content += b"".join(struct.pack(">I", 8 + len(one)) + kind + one for kind, one in boxes)
    return data[:place] + struct.pack(">I", 8 + len(content)) + b"jp2h" + content + data[place + size :]


def bmp(kind: int, gamma: float = 0, profile: bytes = b"") -> bytes:
    """Build a BMP of version 5 with the primaries of Display P3."""
    rows = RGB[::-1, :, ::-1].tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, SIDE, SIDE, 1, 24, 0, len(rows), 2835, 2835, 0, 0) + bytes(16)
    points = [0.680, 0.320, 0, 0.265, 0.690, 0.045, 0.150, 0.060, 0.790] if kind == 0 else [0] * 9
    head += struct.pack("<I9i3I", kind, *(round(p * 2**30) for p in points), *[round(gamma * 65536)] * 3)
    head += struct.pack("<IIII", 4, 124 + len(rows) if profile else 0, len(profile), 0)
    return b"BM" + struct.pack("<IHHI", 138 + len(rows) + len(profile), 0, 0, 138) + head + rows + profile


def subsampled_jp2(width: int) -> bytes:
    """Build the header of a file whose chroma has half the size; its pixels are not read."""
    data = bytearray(encoded(RGB[:, :width], "JPEG2000"))
    place = data.index(b"\xff\x4f\xff\x51") + 42
    data[place + 4 : place + 6] = data[place + 7 : place + 9] = b"\2\2"
    return bytes(data)


CHRM_P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
CHRM_SRGB = struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
P3 = shown(light(RGB) @ P3_TO_SRGB.T)
DEEP = RGB.astype(np.uint16) * 257
_THREE = [np.ascontiguousarray(DEEP[..., c]).tobytes() for c in range(3)]
_BIG = [np.ascontiguousarray(DEEP[..., c]).astype(">u2").tobytes() for c in range(3)]
_HOLE = (slice(8, 24), slice(8, 24))
_GRAY16 = (GRAY.astype(np.uint16) * 257).astype(">u2")
_GRAY16[_HOLE] = 0
_ON_WHITE = np.where(_GRAY16 == 0, 255, GRAY)[..., None].repeat(3, -1)
_ADOBE = shown((RGB / 255.0) ** 2.2 @ ADOBE_TO_SRGB.T)


def _gray4(level: int) -> Case:
    """Build a PNG with 4 bits per sample and a transparent `level`."""
    samples = (_X // 2).astype(np.uint8)
    meant = np.where(samples == level, 255, samples * 17)[..., None].repeat(3, -1)
    return Case(png(samples[:, 0::2] << 4 | samples[:, 1::2], 4, 0, (b"tRNS", struct.pack(">H", level))), meant)


def _gray12() -> Case:
    samples = (_X * 132).astype(np.uint16)  # up to 4092
    pairs = samples.reshape(SIDE, -1, 2)
    packed = np.stack([pairs[..., 0] >> 4, (pairs[..., 0] & 15) << 4 | pairs[..., 1] >> 8, pairs[..., 1] & 255], -1)
    return Case(tiff([packed.astype(np.uint8).tobytes()], 12, 1), (samples / 4095 * 255)[..., None].repeat(3, -1))


def _exif_adobe() -> Case:
    exif = Image.Exif()
    exif[0x8769] = {0xA001: 0xFFFF, 0xA005: {1: "R03"}}
    return Case(encoded(RGB, "JPEG", quality=100, subsampling=0, exif=exif), _ADOBE)


def _pq_profile() -> bytes:
    """Build a profile that names PQ in a cicp tag."""
    content = b"cicp\0\0\0\0\x09\x10\0\1"
    (count,) = struct.unpack_from(">I", DISPLAY_P3, 128)
    table, rest = DISPLAY_P3[132 : 132 + 12 * count], DISPLAY_P3[132 + 12 * count :]
    moved = b"".join(
        table[i : i + 4] + struct.pack(">I", struct.unpack_from(">I", table, i + 4)[0] + 12) + table[i + 8 : i + 12]
        for i in range(0, len(table), 12)
    )
    entry = b"cicp" + struct.pack(">II", len(DISPLAY_P3) + 12, len(content))
    data = DISPLAY_P3[:128] + struct.pack(">I", count + 1) + moved + entry + rest + content
    return struct.pack(">I", len(data)) + data[4:]


_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
_ICC = b"\2\0\0" + DISPLAY_P3
_PERMUTED = struct.pack(">H9H", 3, 0, 0, 3, 1, 0, 2, 2, 0, 1)
_PRIMARIES = {318: [0.3127, 0.3290], 319: [0.68, 0.32, 0.265, 0.69, 0.15, 0.06]}

CASES: dict[tuple[str, str, str], Callable[[], Case]] = {
    ("PNG", "nothing, or sRGB", "8"): lambda: Case(png(RGB, 8, 2, (b"sRGB", b"\0")), RGB),
    ("PNG", "iCCP", "8"): lambda: Case(encoded(RGB, "PNG", icc_profile=DISPLAY_P3), P3),
    ("PNG", "iCCP of PQ or HLG", "8"): lambda: Case(encoded(RGB, "PNG", icc_profile=_pq_profile())),
    ("PNG", "gAMA near 1/2.2", "8"): lambda: Case(png(RGB, 8, 2, (b"gAMA", struct.pack(">I", 45455))), RGB),
    ("PNG", "gAMA", "8"): lambda: Case(png(RGB, 8, 2, (b"gAMA", struct.pack(">I", 100000))), shown(RGB / 255.0)),
    ("PNG, gray", "gAMA", "8"): lambda: Case(
        png(GRAY, 8, 0, (b"gAMA", struct.pack(">I", 100000))), shown(GRAY / 255.0)[..., None].repeat(3, -1)
    ),
    ("PNG", "gAMA and cHRM of sRGB", "8"): lambda: Case(
        png(RGB, 8, 2, (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", CHRM_SRGB)), RGB
    ),
    ("PNG", "cHRM", "8"): lambda: Case(png(RGB, 8, 2, (b"cHRM", CHRM_P3)), P3),
    ("PNG", "cHRM that is impossible", "8"): lambda: Case(png(RGB, 8, 2, (b"cHRM", bytes(31) + b"\1")), RGB),
    ("PNG", "cICP, e.g. Display P3", "8"): lambda: Case(png(RGB, 8, 2, (b"cICP", bytes([12, 13, 0, 1]))), P3),
    ("PNG", "cICP of PQ or HLG", "8"): lambda: Case(png(RGB, 8, 2, (b"cICP", bytes([9, 16, 0, 1])))),
    ("PNG", "cICP of narrow range", "8"): lambda: Case(png(RGB, 8, 2, (b"cICP", bytes([1, 13, 0, 0])))),
    ("PNG", "gAMA", "16"): lambda: Case(
        png(DEEP.astype(">u2"), 16, 2, (b"gAMA", struct.pack(">I", 100000))), shown(RGB / 255.0)
    ),
    ("PNG, gray", "tRNS", "16"): lambda: Case(png(_GRAY16, 16, 0, (b"tRNS", bytes(2))), _ON_WHITE),
    ("PNG, gray", "tRNS", "4"): lambda: _gray4(5),
    ("PNG", "tRNS", "16"): lambda: Case(png(DEEP.astype(">u2"), 16, 2, (b"tRNS", bytes(6)))),
    ("JPEG", "ICC", "8"): lambda: Case(encoded(RGB, "JPEG", quality=100, subsampling=0, icc_profile=DISPLAY_P3), P3),
    ("JPEG", "ICC behind the frame header", "8"): lambda: Case(
        jpeg_with_late_profile(encoded(RGB, "JPEG", quality=100, subsampling=0, icc_profile=DISPLAY_P3)), P3
    ),
    ("JPEG", "Exif: Adobe RGB", "8"): _exif_adobe,
    ("JPEG", "ICC that is damaged", "8"): lambda: Case(
        encoded(RGB, "JPEG", quality=100, subsampling=0, icc_profile=b"none"), RGB
    ),
    ("AVIF", "nclx of sRGB or BT.709", "8"): lambda: Case(avif(1, 13), RGB),
    ("AVIF", "nclx, e.g. Display P3", "8"): lambda: Case(avif(12, 13), P3),
    ("AVIF", "nclx of BT.2020", "8"): lambda: Case(avif(9, 14), shown(light(RGB) @ BT2020_TO_SRGB.T)),
    ("AVIF", "nclx of PQ or HLG", "8"): lambda: Case(avif(9, 18)),
    ("HEIC", "nclx of sRGB or BT.709", "8"): lambda: Case(heic(1, 13), RGB),
    ("HEIC", "nclx, e.g. Display P3", "8"): lambda: Case(heic(12, 13), P3),
    ("HEIC", "nclx of PQ or HLG", "8"): lambda: Case(heic(9, 16)),
    ("HEIC", "ICC", "8"): lambda: Case(heic(1, 13, DISPLAY_P3), P3),
    ("HEIC", "nclx of sRGB or BT.709", "10"): lambda: Case(heic(1, 13, is_deep=True), RGB),
    ("BMP", "calibrated RGB of version 4 or 5", "8"): lambda: Case(bmp(0, 2.2), P3),
    ("BMP", "embedded ICC", "8"): lambda: Case(bmp(0x4D424544, profile=DISPLAY_P3), P3),
    ("BMP", "linked ICC", "8"): lambda: Case(bmp(0x4C494E4B, profile=b"c:\\p.icc\0"), RGB),
    ("WebP", "ICC", "8"): lambda: Case(encoded(RGB, "WEBP", lossless=True, icc_profile=DISPLAY_P3), P3),
    ("TIFF", "ICC", "8"): lambda: Case(encoded(RGB, "TIFF", icc_profile=DISPLAY_P3), P3),
    ("TIFF", "primaries", "8"): lambda: Case(tiff([RGB.tobytes()], 8, 2, samples=3, rationals=_PRIMARIES), P3),
    ("TIFF, planes", "nothing", "16"): lambda: Case(tiff(_THREE, 16, 2), RGB),
    ("TIFF, planes, big-endian", "nothing", "16"): lambda: Case(tiff(_BIG, 16, 2, ">"), RGB),
    ("TIFF, CMYK in planes", "nothing", "16"): lambda: Case(tiff([*_THREE, _THREE[0]], 16, 5)),
    ("TIFF, gray", "nothing", "12"): _gray12,
    ("TIFF, gray, white is 0", "nothing", "16"): lambda: Case(
        tiff([(GRAY.astype("<u2") * 257).tobytes()], 16, 0), 255 - GRAY[..., None].repeat(3, -1)
    ),
    ("TIFF, gray, signed", "nothing", "8"): lambda: Case(tiff([(GRAY // 2).tobytes()], 8, 1, is_signed=True)),
    ("TIFF, gray, signed", "nothing", "16"): lambda: Case(
        tiff([(GRAY.astype("<i2") * 128).tobytes()], 16, 1, is_signed=True)
    ),
    ("TIFF, YCbCr, uncompressed", "nothing", "8"): lambda: Case(tiff([RGB.tobytes()], 8, 6, samples=3)),
    ("JPEG 2000", "sRGB", "8"): lambda: Case(jp2(), RGB),
    ("JPEG 2000", "ICC", "8"): lambda: Case(jp2((b"colr", _ICC), drop=b"colr"), P3),
    ("JPEG 2000", "another color space", "8"): lambda: Case(
        jp2((b"colr", b"\1\0\0" + struct.pack(">I", 21)), drop=b"colr")
    ),
    ("JPEG 2000, channels in another order", "sRGB", "8"): lambda: Case(jp2((b"cdef", _PERMUTED))),
    ("JPEG 2000, subsampled, odd sides", "sYCC", "8"): lambda: Case(subsampled_jp2(31)),
    ("FITS", "nothing", "8"): lambda: Case(fits(GRAY), GRAY[..., None].repeat(3, -1)),
    ("FITS", "nothing", "16"): lambda: Case(fits((GRAY * 257.0 - 32768).astype(">i2"), "BZERO   = 32768")),
    ("PGM, dark", "nothing", "16"): lambda: Case(
        b"P5 %d %d 65535\n" % (SIDE, SIDE) + GRAY.astype(">u2").tobytes(), np.rint(GRAY / 257)[..., None].repeat(3, -1)
    ),
    ("PPM", "nothing", "16"): lambda: Case(b"P6 %d %d 65535\n" % (SIDE, SIDE) + DEEP.astype(">u2").tobytes(), RGB),
}
"""Functions that make the cases, by format, color information and bits per sample."""
