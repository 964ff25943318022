# ruff: noqa: T201
"""Codes large and long images on the command line within 4 GiB; each must decode to the model's reconstruction.

python -m checks.fuzz.large MODEL [SIZE...] --output results/large.json

The images are mosaics of Kodak. `jahp compress --verify` decodes before it writes; `jahp decompress` then decodes in a
process of its own.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from checks.images import add_kodak_images, chosen_images
from checks.processes import run_command
from jahp_pl.files.atomic import write_json
from jahp_pl.images.io import decode_rgb
from jahp_pl.measurement.provenance import provenance

SIZES = (
    "1x65535", "65535x16", "4001x3", "4000x3000", "30000x500", "17x50000", "6000x4000", "3999x9001", "7001x5003",
    "8192x6144",
)  # fmt: skip
"""Sizes as WIDTHxHEIGHT, up to 50 megapixels."""
BYTES = 2**32
"""Peak memory that a process may use, in bytes."""


def mosaic(images: list[Path], width: int, height: int) -> Image.Image:
    """Build a mosaic of as many landscape photographs as needed."""
    tiles = [rgb for rgb in map(decode_rgb, images) if rgb.shape[1] > rgb.shape[0]]
    h, w = tiles[0].shape[:2]
    rows = [
        np.concatenate([tiles[(row + column) % len(tiles)] for column in range(-(-width // w))], axis=1)[:, :width]
        for row in range(-(-height // h))
    ]
    return Image.fromarray(np.concatenate(rows)[:height])


def code_mosaic(model: str, size: str, images: list[Path], folder: Path) -> dict[str, Any]:
    """Compress and decompress one image, and measure both."""
    width, height = map(int, size.split("x"))
    source, file, back = folder / "image.ppm", folder / "image.jahp", folder / "back.png"
    mosaic(images, width, height).save(source)
    encoding = run_command("compress", str(source), "-o", str(file), "--verify", "--model", model, "--force")
    decoding = run_command("decompress", str(file), "-o", str(back), "--model", model, "--force")
    with Image.open(back) as decoded, Image.open(source) as original:
        assert decoded.size == original.size
        wrong = np.asarray(decoded, dtype=np.float32) - np.asarray(original, dtype=np.float32)
    return {
        "size": size,
        "megapixels": width * height / 1e6,
        "bpp": 8 * file.stat().st_size / (width * height),
        "psnr": float(20 * np.log10(255) - 10 * np.log10(np.square(wrong).mean(dtype=np.float64))),
        "compress_seconds": encoding.seconds,
        "decompress_seconds": decoding.seconds,
        "compress_bytes": encoding.bytes,
        "decompress_bytes": decoding.bytes,
    }


def main() -> None:
    """Code images of all sizes; the exit status is 1 if one takes too much memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="a bundled model's name, an export, a run or a checkpoint")
    parser.add_argument(
        "sizes", nargs="*", default=SIZES, metavar="WIDTHxHEIGHT", help="sizes [those of the docstring]"
    )
    add_kodak_images(parser)
    parser.add_argument("-o", "--output", type=Path, help="result")
    arguments = parser.parse_args()
    images, rows = [image.source for image in chosen_images(arguments)], []
    Image.MAX_IMAGE_PIXELS = None
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.sizes:
            row = code_mosaic(arguments.model, size, images, Path(folder))
            rows.append(row)
            print(
                f"{size:>12}: {row['bpp']:.3f} bpp, {row['psnr']:.2f} dB; compress --verify "
                f"{row['compress_seconds']:.0f} s {row['compress_bytes'] / 2**20:.0f} MiB, decompress "
                f"{row['decompress_seconds']:.0f} s {row['decompress_bytes'] / 2**20:.0f} MiB",
                flush=True,
            )
    if arguments.output is not None:
        content = provenance(["python", "-m", "checks.fuzz.large", *sys.argv[1:]]) | {
            "model": arguments.model,
            "images": rows,
        }
        write_json(arguments.output, content)
    most = max(max(row["compress_bytes"], row["decompress_bytes"]) for row in rows)
    print(f"at most {most / 2**20:.0f} MiB; allowed: {BYTES / 2**20:.0f} MiB")
    sys.exit(most > BYTES)


if __name__ == "__main__":
    main()
