"""Builds ICC profiles from primaries and exponents, for images that state these instead of a profile.

littleCMS then converts every image in the same way.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

SRGB_CURVE = 0.0
"""Represents sRGB's piecewise curve in place of a gamma."""
GAMMA_TOLERANCE = 0.05
"""Relative tolerance for a gamma to count as sRGB's. Writers put 1/2.2 into sRGB files; libpng and browsers do not
convert such files either."""

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])

Chromaticity = tuple[float, float]
"""x and y of CIE 1931."""
Floats = npt.NDArray[np.float64]


class Chromaticities(NamedTuple):
    """Chromaticities of white and the primaries."""

    white: Chromaticity
    red: Chromaticity
    green: Chromaticity
    blue: Chromaticity


D65 = (0.3127, 0.3290)
BT709 = Chromaticities(D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
ADOBE_RGB = Chromaticities(D65, (0.640, 0.330), (0.210, 0.710), (0.150, 0.060))
_BT601_525 = Chromaticities(D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
_C = (0.310, 0.316)

CICP_PRIMARIES = {
    1: BT709,
    2: BT709,  # unspecified
    4: Chromaticities(_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: Chromaticities(D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: _BT601_525,
    7: _BT601_525,
    8: Chromaticities(_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: Chromaticities(D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    11: Chromaticities((0.314, 0.351), *_P3),
    12: Chromaticities(D65, *_P3),
    22: Chromaticities(D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""ITU-T H.273, table 2."""
CICP_GAMMAS = {
    **dict.fromkeys((1, 2, 6, 13, 14, 15), SRGB_CURVE),  # browsers and players show BT.709's curve as sRGB's
    4: 2.2,
    5: 2.8,
    8: 1.0,
}
"""ITU-T H.273, table 3: exponent that converts samples to light."""
CICP_HDR = {16: "PQ", 18: "HLG"}


def rgb_profile(chromaticities: Chromaticities, gammas: tuple[float, float, float], name: str) -> bytes:
    """Build a matrix profile (ICC.1:2001).

    Args:
        chromaticities: white and primaries, not yet adapted to D50.
        gammas: exponents for red, green and blue, or `SRGB_CURVE`.
        name: name of the profile, in ASCII.

    Raises:
        ValueError: if the primaries are collinear, white is outside them, or an exponent is not positive.
    """
    matrix = _to_d50(chromaticities)
    tags = {f"{letter}XYZ": _xyz(column) for letter, column in zip("rgb", matrix.T, strict=True)}
    tags |= {f"{letter}TRC": _curve(gamma) for letter, gamma in zip("rgb", gammas, strict=True)}
    return _profile(b"RGB ", tags, name)


def gray_profile(gamma: float, name: str) -> bytes:
    """Build a profile for gray images; arguments and errors as in `rgb_profile`."""
    return _profile(b"GRAY", {"kTRC": _curve(gamma)}, name)


def nearest_gamma(exponent: float) -> float:
    """Return `SRGB_CURVE` if the exponent is within `GAMMA_TOLERANCE` of 2.2, otherwise the exponent."""
    return SRGB_CURVE if abs(exponent / 2.2 - 1) <= GAMMA_TOLERANCE else exponent


def _to_d50(chromaticities: Chromaticities) -> Floats:
    """Compute the matrix (3, 3) from linear RGB to XYZ relative to D50, with Bradford adaptation."""
    if min(y for _, y in chromaticities) <= 0:
        raise ValueError("a chromaticity with y = 0")
    white, *primaries = (np.array([x / y, 1.0, (1 - x - y) / y]) for x, y in chromaticities)
    columns = np.stack(primaries, axis=1)
    if abs(np.linalg.det(columns)) < 1e-4:
        raise ValueError("primaries on a line")
    scales = np.linalg.solve(columns, white)  # the scaled primaries add up to white
    if scales.min() <= 0:
        raise ValueError("a white point outside the primaries")
    # Bradford adaptation: to cone responses, scaled so that white becomes D50, and back to XYZ.
    adapt = np.diag((_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white))
    matrix: Floats = np.linalg.inv(_BRADFORD) @ adapt @ _BRADFORD @ (columns * scales)
    if np.abs(matrix).max() > 8:
        raise ValueError("primaries that no display has")
    return matrix


def _curve(gamma: float) -> bytes:
    """Encode a tone curve."""
    if gamma == SRGB_CURVE:
        codes = np.arange(1024) / 1023  # light as a function of the sample, IEC 61966-2-1
        light = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
        table: bytes = np.rint(light * 65535).astype(">u2").tobytes()
        return b"curv\0\0\0\0" + struct.pack(">I", 1024) + table
    if not 0.1 <= gamma <= 10:
        raise ValueError(f"an exponent of {gamma:.3g}")
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def _xyz(values: tuple[float, ...] | Floats) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(float(v) * 65536) for v in values))


def _profile(space: bytes, tags: dict[str, bytes], name: str) -> bytes:
    """Assemble a profile: header, table of tags, tags."""
    text = name.encode("ascii") + b"\0"
    common = {
        "desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        "cprt": b"text\0\0\0\0none\0",
        "wtpt": _xyz(_D50),
    }
    table, body = b"", b""
    start = 132 + 12 * (len(common) + len(tags))
    offsets: dict[bytes, int] = {}
    for tag, content in (common | tags).items():
        if content not in offsets:  # equal curves are stored once
            offsets[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        table += tag.encode() + struct.pack(">II", offsets[content], len(content))
    header = struct.pack(">I", start + len(body)) + b"lcms\x02\x10\0\0mntr" + space + b"XYZ " + bytes(12) + b"acsp"
    header += bytes(28) + struct.pack(">3i", *(round(v * 65536) for v in _D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(common) + len(tags)) + table + body
