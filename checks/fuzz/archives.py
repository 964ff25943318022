"""Makes tar files of photographs, and mutates their headers, most of them with a right checksum."""

from __future__ import annotations

import io
import tarfile

import numpy as np

from checks.fuzz.content import mutated_bytes
from checks.fuzz.mutate import choose

BLOCK = 512
FIELDS = {"name": (0, 100), "mode": (100, 8), "size": (124, 12), "mtime": (136, 12), "type": (156, 1),
          "link": (157, 100), "magic": (257, 8), "prefix": (345, 155)}  # fmt: skip
"""Offset and length of the fields of a header."""
TYPES = b"01234567\x00LKxgXSDMNVA~"
PAX = (b"size=99999999999", b"size=-1", b"path=../../x.jpg", b"path=\xff\xfe.jpg", b"GNU.sparse.major=1", b"path=",
       b"GNU.sparse.realsize=99999999999999", b"GNU.sparse.map=0,1,2", b"GNU.sparse.size=x", b"x=" + 300 * b"y",
       b"hdrcharset=BINARY", b"mtime=1e99999", b"uid=x")  # fmt: skip


def valid_tar(photo: bytes) -> bytes:
    """Pack a photograph three times, once below a long name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("a.jpg", "folder/" * 20 + "b.jpg", "c.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(photo)
            tar.addfile(info, io.BytesIO(photo))
    return buffer.getvalue()


def mutated_tar(rng: np.random.Generator, data: bytes) -> bytes:
    """Damage bytes, change fields of headers, or insert headers that change the following ones."""
    if rng.random() < 0.2:
        return mutated_bytes(rng, data)
    starts = _headers(data)
    for _ in range(int(rng.integers(1, 4))):
        start = choose(rng, starts)
        if rng.random() < 0.6:
            data = data[:start] + _changed(rng, data[start : start + BLOCK]) + data[start + BLOCK :]
        else:
            data = data[:start] + _extension(rng) * int(choose(rng, (1, 1, 2, 400))) + data[start:]
    return data


def _headers(data: bytes) -> list[int]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [info.offset for info in tar]


def _changed(rng: np.random.Generator, header: bytes) -> bytes:
    start, length = FIELDS[choose(rng, sorted(FIELDS))]
    values = (b"0", b"-1", b"7" * length, b"\x80" + b"\xff" * (length - 1), b"\xff" * length, rng.bytes(length), b"",
              b"\x80" + bytes(max(0, length - 2)) + b"\x05", b" " * length, b"77777777777", b"/x.png")  # fmt: skip
    value = bytes([choose(rng, TYPES)]) if length == 1 else choose(rng, values)
    return _signed(header[:start] + value[:length].ljust(length, b"\0") + header[start + length :])


def _extension(rng: np.random.Generator) -> bytes:
    """Make a header of a long name, or of extended attributes, with its content."""
    kind, content = choose(rng, b"LKxgX"), choose(rng, (b"z.jpg\0", b"", b"\0", 600 * b"y", b"30 size=-5\n", b"9\n"))
    if rng.random() < 0.6:
        record = choose(rng, PAX)
        length = len(record) + 3 + (len(record) > 95)
        content = b"%d %s\n" % (int(choose(rng, (length, length, 0, 10**9))), record)
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = bytes([kind]), len(content)
    header = info.tobuf(format=tarfile.GNU_FORMAT)
    return (_changed(rng, header) if rng.random() < 0.2 else header) + content + bytes(-len(content) % BLOCK)


def _signed(header: bytes) -> bytes:
    """Set the checksum of a header."""
    blank = header[:148] + b" " * 8 + header[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]
