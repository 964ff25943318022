"""An ICC profile for tests, built from the standard."""

from __future__ import annotations

import struct


def matrix_profile(primaries: dict[str, tuple[float, float, float]], curve: list[float]) -> bytes:
    """Build an RGB matrix profile according to ICC.1:2001, with sRGB's tone curve."""

    def s15(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(v * 65536)) for v in values)

    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in curve]
    tone = (
        b"curv\0\0\0\0" + struct.pack(">I", len(linear)) + b"".join(struct.pack(">H", round(v * 65535)) for v in linear)
    )
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"wide\0" + bytes(78)
    tags = {b"desc": text, b"cprt": b"text\0\0\0\0none\0", b"wtpt": s15((0.9642, 1.0, 0.8249))}
    for letter, xyz in primaries.items():
        tags[letter.encode() + b"XYZ"], tags[letter.encode() + b"TRC"] = s15(xyz), tone
    table, body = b"", b""
    for tag, content in tags.items():
        table += tag + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I", 132 + len(table) + len(body)) + b"lcms\x02\x10\0\0mntrRGB XYZ " + bytes(12) + b"acsp"
    header += bytes(28) + b"".join(struct.pack(">i", round(v * 65536)) for v in (0.9642, 1.0, 0.8249))
    return header + bytes(128 - len(header)) + struct.pack(">I", len(tags)) + table + body


DISPLAY_P3 = matrix_profile(
    {"r": (0.51512, 0.24120, -0.00105), "g": (0.29198, 0.69225, 0.04189), "b": (0.15710, 0.06657, 0.78407)},
    curve=[i / 255 for i in range(256)],
)
"""Profile with the primaries of Display P3, adapted to D50, and sRGB's curve; its name is "wide"."""
