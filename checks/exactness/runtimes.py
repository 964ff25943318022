# ruff: noqa: T201
"""Checks that torch, onnxruntime and a browser decode each other's files to the same latents.

    python -m checks.exactness.runtimes --images data/kodak --output results/runtimes-exact.json

Every runtime encodes the images, and every runtime decodes all files. The browser is left out if there is no Chromium
or no web/vendor (`make web`), and for models that are not joint.
"""

from __future__ import annotations

import argparse
import base64
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from checks.images import add_kodak_images, chosen_images
from jahp_pl.codec.codec import Codec
from jahp_pl.files.atomic import write_json
from jahp_pl.images.io import decode_rgb
from jahp_pl.measurement.provenance import provenance
from jahp_pl.model_io.export import export
from jahp_pl.model_io.load import load_codec
from jahp_pl.runtime.codec import RuntimeCodec
from jahp_pl.runtime.load import load_runtime
from tests.support import web_page
from tests.support.browser import CHROMIUM, Page, chromium
from tests.support.codec_models import MIXTURE, codec_of

Samples = npt.NDArray[np.uint8]


class Read(NamedTuple):
    """Result of decoding a file in one runtime."""

    latents: npt.NDArray[np.int32]
    """All of y_hat, then all of z_hat, flattened."""
    pixels: Samples
    """Image, (3, H, W) uint8."""


class Runtime(Protocol):
    """Interface of the three runtimes."""

    def encode(self, image: Samples) -> bytes:
        """Encode an image (H, W, 3) uint8 to a file."""

    def decode(self, data: bytes) -> Read:
        """Decode a file."""


class Library:
    """The codec of torch or onnxruntime."""

    def __init__(self, codec: Codec | RuntimeCodec) -> None:
        self.codec = codec

    def encode(self, image: Samples) -> bytes:
        """See `Runtime`."""
        return self.codec.compress(image)

    def decode(self, data: bytes) -> Read:
        """See `Runtime`."""
        decoded = self.codec.decode(data)
        parts = [np.asarray(part).ravel() for part in (decoded.y_hat, decoded.z_hat) if part is not None]
        return Read(np.concatenate(parts), np.asarray(decoded.image))


class Browser:
    """The page in Chromium."""

    def __init__(self, page: Page, site: web_page.Site) -> None:
        self.page, self.site = page, site

    def encode(self, image: Samples) -> bytes:
        """See `Runtime`."""
        height, width, _ = image.shape
        rgb = web_page.js_bytes(np.ascontiguousarray(image.transpose(2, 0, 1)).tobytes())
        values = f"{{ rgb: {rgb}, width: {width}, height: {height}, isGray: false }}"
        web_page.ask_worker(self.page, self.site, f"ask('analyze', {values})")
        found = web_page.ask_worker(self.page, self.site, "ask('encode', { quality: 60 })")
        return base64.b64decode(str(found["data"]))

    def decode(self, data: bytes) -> Read:
        """See `Runtime`."""
        found = web_page.ask_worker(self.page, self.site, f"ask('decode', {{ data: {web_page.js_bytes(data)} }})")
        parts = [web_page.array_of(found[name], "<i4", -1) for name in ("yHat", "zHat")]
        header = found["header"]
        return Read(np.concatenate(parts), web_page.array_of(found["rgb"], "u1", 3, header["height"], header["width"]))


@contextmanager
def runtimes(model: Path) -> Iterator[dict[str, Runtime]]:
    """Start every runtime that is available here, and yield them by name, loaded with an export."""
    codec = load_codec(model)
    found: dict[str, Runtime] = {"torch": Library(codec), "onnxruntime": Library(load_runtime(model, threads=1))}
    with ExitStack() as stack:
        if CHROMIUM is not None and web_page.VENDOR.exists() and codec.model.config.entropy_model == "joint":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            web_page.script("build").build(web_page.VENDOR, folder, model)
            site = web_page.Site(folder, codec)
            stack.callback(site.stop)
            found["browser"] = Browser(stack.enter_context(chromium()), site)
        yield found


def measure_differences(model: Path, paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Code the images; after each, yield the differences so far, by the runtimes that encoded and decoded."""
    with runtimes(model) as found:
        names = list(found)
        pairs = {f"{writer} -> {reader}": [0, 0] for writer in names for reader in names}
        num_latents = files_equal = 0
        for number, path in enumerate(paths, start=1):
            image = decode_rgb(path)
            files = {name: runtime.encode(image) for name, runtime in found.items()}
            files_equal += len(set(files.values())) == 1
            reads = {data: {name: runtime.decode(data) for name, runtime in found.items()} for data in files.values()}
            for writer, data in files.items():
                expected = reads[data]["torch"]
                num_latents += len(expected.latents)
                for reader, read in reads[data].items():
                    pair = pairs[f"{writer} -> {reader}"]
                    pair[0] += int((read.latents != expected.latents).sum())
                    pair[1] = max(pair[1], int(np.abs(read.pixels.astype(int) - expected.pixels).max()))
            print(path.name, pairs, flush=True)
            yield {
                "images": number, "latents": num_latents, "images_whose_files_are_equal": files_equal,
                "different_latents": {name: latents for name, (latents, _) in pairs.items()},
                "largest_difference_of_pixels": {name: pixels for name, (_, pixels) in pairs.items()},
            }  # fmt: skip


def main() -> None:
    """Measure the bundled variable-rate model and a single-rate mixture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_kodak_images(parser)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="use every Nth image [1]")
    parser.add_argument(
        "--model", nargs="+", default=["joint-psnr", "mixture"], metavar="M",
        help="bundled models or exports; mixture is a small untrained one [joint-psnr mixture]",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, required=True, help="result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    paths = [image.source for image in chosen_images(arguments)][:: arguments.every]
    content: dict[str, Any] = provenance(["python", *sys.argv]) | {"models": {}}
    with tempfile.TemporaryDirectory() as folder:
        for number, name in enumerate(arguments.model):
            path = Path(folder) / str(number)
            codec = codec_of(MIXTURE) if name == "mixture" else load_codec(name)
            codec = export(codec.model, path, {}, dtype="float32", tables=codec.tables())
            config = codec.model.config
            about = {
                "entropy_model": config.entropy_model,
                "num_components": config.num_components,
                "num_levels": config.num_levels,
            }
            for found in measure_differences(path, paths):
                content["models"][name] = about | found
                write_json(arguments.output, content)


if __name__ == "__main__":
    main()
