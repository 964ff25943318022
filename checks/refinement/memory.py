# ruff: noqa: T201
"""Checks that the search keeps to --memory on images of mixed content and size: `make refinement-memory`.

    python -m checks.refinement.memory --images data/kodak --output results/refinement/memory.json

Three processes of `jahp compress`, each with one thread, code the smallest image that is searched, 50 images, and one
image of 12 megapixels. A process may use as much memory as the first one, plus --memory, plus 48 bytes per pixel of its
largest image, because --memory does not count the image and its latents.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from checks.fuzz.large import mosaic
from checks.images import add_kodak_images, chosen_images
from checks.processes import ProcessCost, run_command
from jahp_pl.codec.search.refinement import MIN_SEARCHED_SIDE
from jahp_pl.files.atomic import write_json
from jahp_pl.measurement.provenance import provenance

LARGE = (4000, 3000)
"""Width and height of the large image."""
BYTES_PER_PIXEL = 48
"""Bytes per pixel allowed for an image and its latents: 9 for pixels, and three maps of 192 float32 latents for every
256 pixels."""
SHAPES = (
    (64, 64), (1, 1), (63, 400), (65, 64), (400, 65), (64, 1500), (1100, 70), (97, 103), (256, 256), (333, 500),
    (512, 768), (768, 512), (801, 599), (1000, 640), (1280, 720), (128, 130), (300, 80),
)  # fmt: skip
"""Widths and heights of the small images; each of them gets the contents in turn."""


def mixed_images(photographs: list[Path], number: int) -> list[Image.Image]:
    """Build images with each shape and content in turn: crops, mosaics, noise, one color, stripes and text."""
    generator, images = np.random.default_rng(0), []
    for index in range(number):
        width, height = SHAPES[index % len(SHAPES)]
        content = index % 6
        if content < 2:
            start = index % len(photographs)
            images.append(mosaic(photographs[start:] + photographs[:start], width, height))
        elif content == 2:
            images.append(Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)))
        elif content == 3:
            images.append(Image.new("RGB", (width, height), (index * 5 % 256, 128, 255 - index)))
        elif content == 4:
            stripes = np.where((np.arange(width) // (1 + index % 7)) % 2, 255, 0).astype(np.uint8)
            images.append(Image.fromarray(np.broadcast_to(stripes[None, :, None], (height, width, 3)).copy()))
        else:
            images.append(Image.new("RGB", (width, height), "white"))
            for top in range(0, height, 14):
                ImageDraw.Draw(images[-1]).text((2, top), f"line {top}: " + "the quick brown fox " * 20, fill="black")
    return images


def compress_folder(images: list[Image.Image], memory: int, effort: int) -> ProcessCost:
    """Compress images with one process.

    Raises:
        SystemExit: if the process fails or leaves out a file.
    """
    with tempfile.TemporaryDirectory() as folder:
        sources, target = Path(folder, "images"), Path(folder, "files")
        sources.mkdir()
        for index, image in enumerate(images):
            image.save(sources / f"{index}.ppm")
        limits = ["--effort", str(effort), "--memory", str(memory), "--threads", "1"]
        cost = run_command("compress", str(sources), "-o", f"{target}/", *limits)
        if (count := len(list(target.iterdir()))) != len(images):
            sys.exit(f"jahp compress {' '.join(limits)}: {count} files for {len(images)} images")
        return cost


def main() -> None:
    """Run all processes; the exit status is 1 if one takes too much memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_kodak_images(parser)
    parser.add_argument("--number", type=int, default=50, metavar="N", help="small images [50]")
    parser.add_argument("--memory", type=int, default=512, metavar="MIB", help="limit in MiB [512]")
    parser.add_argument("--effort", type=int, default=1, help="effort of the search [1]")
    parser.add_argument("-o", "--output", type=Path, help="result")
    arguments = parser.parse_args()
    photographs = [one.source for one in chosen_images(arguments)]
    sets = {
        "smallest": [mosaic(photographs, MIN_SEARCHED_SIDE, MIN_SEARCHED_SIDE)],
        "mixed": mixed_images(photographs, arguments.number),
        "large": [mosaic(photographs, *LARGE)],
    }
    rows: dict[str, dict[str, object]] = {}
    base, is_exceeded = 0, False
    for name, images in sets.items():
        cost = compress_folder(images, arguments.memory, arguments.effort)
        base = base or cost.bytes
        pixels = max(image.width * image.height for image in images)
        allowed = base + arguments.memory * 2**20 + BYTES_PER_PIXEL * pixels
        is_exceeded |= cost.bytes > allowed
        rows[name] = {
            "images": len(images), "largest_pixels": pixels, "seconds": cost.cpu_seconds,
            "bytes": cost.bytes, "allowed_bytes": allowed,
        }  # fmt: skip
        print(
            f"{name}: {len(images)} images of up to {pixels / 1e6:.2f} megapixels, {cost.cpu_seconds:.0f} CPU s, "
            f"{cost.bytes / 2**20:.0f} MiB; allowed: {allowed / 2**20:.0f} MiB",
            flush=True,
        )
    if arguments.output is not None:
        content = provenance(["python", "-m", "checks.refinement.memory", *sys.argv[1:]]) | {
            "memory": arguments.memory,
            "effort": arguments.effort,
            "sets": rows,
        }
        write_json(arguments.output, content)
    sys.exit(is_exceeded)


if __name__ == "__main__":
    main()
