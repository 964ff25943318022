"""Finds the color space of an image file beyond the ICC profile that Pillow provides.

Every description is converted to an ICC profile, so that littleCMS converts every image. High dynamic range is refused,
because 8 bits require a choice of tone mapping.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

from jahp_pl.errors import JahpError
from jahp_pl.images.boxes import find_boxes, primary_properties
from jahp_pl.images.matrix_profiles import (
    ADOBE_RGB,
    BT709,
    CICP_GAMMAS,
    CICP_HDR,
    CICP_PRIMARIES,
    D65,
    SRGB_CURVE,
    Chromaticities,
    gray_profile,
    nearest_gamma,
    rgb_profile,
)

_MAX_LEADING_BYTES = 2**24
"""Number of bytes at the start of a file that are searched for color information."""
_GRAY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_EXIF_INTEROP, _INTEROP_INDEX, _ADOBE_RGB = 0xA005, 1, "R03"
_UNSPECIFIED = 2
"""Code point of ITU-T H.273."""
_TIFF_TRANSFER, _TIFF_WHITE, _TIFF_PRIMARIES = 301, 318, 319


class ColorError(JahpError, ValueError):
    """Colors that cannot be converted; the message is one line."""


class ColorSpace(NamedTuple):
    """Color space of an image."""

    icc: bytes = b""
    """ICC profile; empty for sRGB."""
    origin: str = ""
    """Where the profile comes from, in a few words."""
    ignored: str = ""
    """Color information in the file that is ignored, in a few words; empty if there is none."""


def color_space_of(image: Image.Image) -> ColorSpace:
    """Determine the color space of an image from its file or, if it is already loaded, from what Pillow has kept.

    Args:
        image: opened by Pillow; the position in its file is preserved.

    Raises:
        ColorError: if the image has high dynamic range or an unknown color space.
    """
    found = next(_descriptions(image), ColorSpace())
    if found.icc and (transfer := _icc_transfer(found.icc)) in CICP_HDR:
        raise ColorError(_hdr(CICP_HDR[transfer]))
    return found


def _descriptions(image: Image.Image) -> Iterator[ColorSpace]:
    """Yield the color descriptions of the file in order of precedence."""
    data = leading_bytes(image) if image.format in ("AVIF", "BMP", "JPEG2000", "PNG") else b""
    if image.format == "PNG":
        yield from _of_cicp_chunk(data, image)
    profile = image.info.get("icc_profile") or _late_profile(image)
    if profile:
        yield ColorSpace(profile, "a color profile")
    elif getattr(image, "icclist", None):
        yield ColorSpace(ignored="a color profile with missing parts")
    if image.format == "AVIF":
        yield from _of_avif(data, image)
    elif image.format == "HEIF":
        yield from _of_heif(image)
    elif image.format == "JPEG2000":
        yield from _of_jpeg_2000(data)
    elif image.format == "BMP":
        yield from _of_bmp(data, image)
    elif image.format == "TIFF":
        yield from _of_tiff(image)
    elif image.format in ("JPEG", "MPO") and _is_adobe_rgb(image):
        yield _matrix(image, ADOBE_RGB, (2.2, 2.2, 2.2), "Exif: Adobe RGB", exact=True)
    if "srgb" not in image.info:
        yield from _of_gamma(image)


def leading_bytes(image: Image.Image) -> bytes:
    """Return up to 16 MiB from the start of the image's file; empty if the file is not available."""
    file = getattr(image, "fp", None)
    if file is None or not getattr(image, "tile", None):
        return b""
    try:
        position = file.tell()
        file.seek(0)
        data: bytes = file.read(_MAX_LEADING_BYTES)
        file.seek(position)
    except (OSError, ValueError):  # closed, or not seekable
        return b""
    return data


def _late_profile(image: Image.Image) -> bytes:
    """Join the parts of an ICC profile that follow the frame header of a JPEG, which Pillow leaves out."""
    parts = sorted(getattr(image, "icclist", []))
    is_whole = parts and all(len(p) > 14 and p[12] == i and p[13] == len(parts) for i, p in enumerate(parts, 1))
    return b"".join(part[14:] for part in parts) if is_whole else b""


def _of_cicp_chunk(data: bytes, image: Image.Image) -> Iterator[ColorSpace]:
    """Describe the colors in the cICP chunk of a PNG."""
    start = 8
    while start + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        if kind == b"IDAT":
            return
        if kind == b"cICP" and size == 4:
            primaries, transfer, matrix, full_range = data[start + 8 : start + 12]
            if matrix or not full_range:
                raise ColorError("the PNG is in YCbCr or narrow range, which is not supported; convert it to sRGB")
            yield _of_cicp(primaries, transfer, image, "cICP")
            return
        start += 12 + size


def _of_cicp(primaries: int, transfer: int, image: Image.Image, origin: str) -> ColorSpace:
    """Describe the colors of a pair of code points of ITU-T H.273."""
    if transfer in CICP_HDR:
        raise ColorError(_hdr(CICP_HDR[transfer]))
    if transfer not in CICP_GAMMAS or primaries not in CICP_PRIMARIES:
        raise ColorError(
            f"primaries {primaries} with transfer {transfer} (ITU-T H.273) are not supported; convert the image to sRGB"
        )
    gamma = CICP_GAMMAS[transfer]
    return _matrix(image, CICP_PRIMARIES[primaries], (gamma,) * 3, origin, exact=True)


def _of_avif(data: bytes, image: Image.Image) -> Iterator[ColorSpace]:
    """Describe the colors of the primary item, if they are code points."""
    for kind, content in primary_properties(data):
        if kind == b"colr" and content[:4] == b"nclx" and len(content) >= 10:
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            yield _of_cicp(primaries, transfer, image, "nclx")


def _of_heif(image: Image.Image) -> Iterator[ColorSpace]:
    nclx = image.info.get("nclx_profile")
    if nclx and nclx["color_primaries"] != _UNSPECIFIED:
        yield _of_cicp(nclx["color_primaries"], nclx["transfer_characteristics"], image, "nclx")


def _of_jpeg_2000(data: bytes) -> Iterator[ColorSpace]:
    """Describe the colors in the first colr box."""
    for content in find_boxes(data, b"jp2h", b"colr"):
        if content[:1] in (b"\2", b"\3"):
            yield ColorSpace(content[3:], "a color profile")
        elif content[:1] == b"\1" and len(content) >= 7:
            (space,) = struct.unpack_from(">I", content, 3)
            if space not in (0, 12, 15, 16, 17, 18):  # bilevel, CMYK, sRGB, gray, sYCC
                raise ColorError(f"JPEG 2000 color space {space} is not supported; convert the image to sRGB")
            yield ColorSpace()
        return


def _of_bmp(data: bytes, image: Image.Image) -> Iterator[ColorSpace]:
    """Describe the colors in the header of a BMP of version 4 or 5."""
    if len(data) < 122 or int.from_bytes(data[14:18], "little") < 108:
        return
    (kind,) = struct.unpack_from("<I", data, 70)
    if kind == 0 and any(data[74:110]):  # LCS_CALIBRATED_RGB
        points = struct.unpack_from("<9i", data, 74)
        sums = [sum(points[i : i + 3]) or 1 for i in (0, 3, 6)]
        red, green, blue = ((points[3 * i] / s, points[3 * i + 1] / s) for i, s in enumerate(sums))
        gammas = [nearest_gamma(value / 65536) for value in struct.unpack_from("<3I", data, 110)]
        yield _matrix(image, Chromaticities(D65, red, green, blue), tuple(gammas), "BMP: calibrated RGB")
    elif len(data) >= 138 and kind in (0x4C494E4B, 0x4D424544):  # LINK, MBED
        offset, size = struct.unpack_from("<II", data, 126)
        profile = data[14 + offset : 14 + offset + size]
        is_inside = kind == 0x4D424544 and 0 < size == len(profile)
        yield ColorSpace(profile, "a color profile") if is_inside else ColorSpace(ignored="a linked color profile")


def _of_tiff(image: Image.Image) -> Iterator[ColorSpace]:
    """Describe the colors in the tags of a TIFF."""
    tags = getattr(image, "tag_v2", {})
    if _TIFF_TRANSFER in tags:
        yield ColorSpace(ignored="a transfer function of TIFF")
    primaries = [float(value) for value in tags.get(_TIFF_PRIMARIES, ())]
    white = [float(value) for value in tags.get(_TIFF_WHITE, D65)]
    if len(primaries) == 6 and len(white) == 2:
        points = [(primaries[i], primaries[i + 1]) for i in (0, 2, 4)]
        chromaticities = Chromaticities((white[0], white[1]), *points)
        yield _matrix(image, chromaticities, (SRGB_CURVE,) * 3, "TIFF: primaries")


def _is_adobe_rgb(image: Image.Image) -> bool:
    """Check for DCF 2.0's mark of Adobe RGB, the interoperability index; such cameras write no profile."""
    try:
        index = image.getexif().get_ifd(_EXIF_INTEROP).get(_INTEROP_INDEX)
    except Exception:  # noqa: BLE001  damaged metadata raises nearly every type, and must not make the image unreadable
        return False
    return isinstance(index, str) and index.rstrip("\0") == _ADOBE_RGB


def _of_gamma(image: Image.Image) -> Iterator[ColorSpace]:
    """Describe the colors of a PNG's gAMA and cHRM."""
    gamma, points = image.info.get("gamma"), image.info.get("chromaticity")
    if not gamma and not points:
        return
    exponent = nearest_gamma(1 / gamma) if gamma else SRGB_CURVE
    chromaticities = BT709
    if points and len(points) == 8:
        white, red, green, blue = ((points[i], points[i + 1]) for i in (0, 2, 4, 6))
        chromaticities = Chromaticities(white, red, green, blue)
    names = " and ".join(name for name, value in (("gAMA", gamma), ("cHRM", points)) if value)
    yield _matrix(image, chromaticities, (exponent,) * 3, names)


def _matrix(
    image: Image.Image,
    chromaticities: Chromaticities,
    gammas: tuple[float, ...],
    origin: str,
    exact: bool = False,
) -> ColorSpace:
    """Make a profile from primaries and exponents; make none if they are sRGB's.

    Args:
        exact: whether the numbers come from a table. Numbers from a file may be invalid, and are then ignored.
    """
    is_srgb_curve = set(gammas) == {SRGB_CURVE}
    if is_srgb_curve and (image.mode in _GRAY or chromaticities == BT709):
        return ColorSpace()
    try:
        if image.mode in _GRAY:
            return ColorSpace(gray_profile(gammas[0], origin), origin)
        red, green, blue = gammas
        return ColorSpace(rgb_profile(chromaticities, (red, green, blue), origin), origin)
    except ValueError:
        if exact:
            raise
        return ColorSpace(ignored=f"invalid primaries or gamma ({origin})")


def _icc_transfer(profile: bytes) -> int:
    """Return the transfer function code point of a profile (ICC.1:2022, cicpTag); 2 if it has none."""
    count = int.from_bytes(profile[128:132], "big")
    for start in range(132, min(132 + 12 * count, len(profile) - 11), 12):
        if profile[start : start + 4] == b"cicp":
            place = int.from_bytes(profile[start + 4 : start + 8], "big")
            return profile[place + 9] if place + 9 < len(profile) else 2
    return 2


def _hdr(name: str) -> str:
    """Format the message about an image of high dynamic range."""
    return f"high dynamic range ({name}) does not fit 8 bits; convert the image to sRGB with tone mapping"
