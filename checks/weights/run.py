# ruff: noqa: T201
"""Measures how much each part of a trained model saves, and how it codes unusual images: `make weights-checks`.

    python -m checks.weights.run joint-psnr --images data/kodak --output results/weights/checks.json

The first table counts the bits of the same integer latents under the float model three times: as they are coded; with
every hyper-latent at its most probable value, at no cost; and with a context network that reads zeros. It also gives
the PSNR of the coded images, and the PSNR without rounding the latents; the error that remains then is the transforms'
own. The second table compares files of synthetic images with the best JPEG that is no larger.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from checks.images import chosen_images, parse_model_and_images
from jahp_pl.codec.codec import Codec
from jahp_pl.files.atomic import write_json
from jahp_pl.hyperprior import crop_to
from jahp_pl.images.io import decode_rgb
from jahp_pl.measurement.provenance import provenance
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.load import load_codec
from jahp_pl.quality import psnr, to_uint8

QUALITIES = (1, 20, 40, 60, 80, 100)
CONTENT_QUALITY = 60
SIDE = 512
"""Height and width of the synthetic images in pixels."""


class PartRates(NamedTuple):
    """Bits per pixel of a set of images at one quality, with and without parts of the model."""

    quality: int
    bpp: float
    """Bits per pixel with all parts, without headers."""
    hyper_share: float
    """Share of the bits that hyper-latents take, from 0 to 1."""
    without_hyperprior: float
    """Bits per pixel with the most probable hyper-latents, which cost nothing."""
    without_context: float
    """Bits per pixel with a context of zeros."""
    psnr: float
    """Mean PSNR in dB of the images from integer latents."""
    unrounded_psnr: float
    """Mean PSNR in dB of the images from latents before rounding."""


class Content(NamedTuple):
    """Results for one image that is not a photograph."""

    name: str
    num_bytes: int
    """Size of the model's file in bytes."""
    psnr: float
    """PSNR of the model's file in dB."""
    jpeg_bytes: int
    jpeg_psnr: float
    """PSNR in dB of the best JPEG (4:2:0) that is no larger than the model's file; otherwise, of the smallest JPEG."""


@torch.inference_mode()
def measure_parts(model: CompressionModel, images: list[Tensor], quality: int) -> PartRates:
    """Count the bits of all images with and without hyperprior and context, and measure their PSNR."""
    level = torch.tensor([model.config.level_at((quality - 1) / 99)])
    totals, num_pixels = np.zeros(6), 0
    for image in images:
        y = model.analyze(image[None].float() / 255, level)
        assert model.h_a is not None
        assert model.prior is not None
        y_hat, z_hat = torch.round(y), torch.round(model.h_a(y))
        whole = model.bits(y_hat, z_hat)
        probable = most_probable(model, z_hat)
        totals += [
            float(whole.y.sum() + whole.z.sum()),
            float(whole.z.sum()),
            float(model.bits(y_hat, probable).y.sum()),
            float(bits_without_context(model, y_hat, z_hat).sum() + whole.z.sum()),
            reconstruction_psnr(model, y_hat, image, level),
            reconstruction_psnr(model, y, image, level),
        ]
        num_pixels += image.shape[1] * image.shape[2]
    bits, hyper_bits, without_hyperprior, without_context, from_integers, unrounded = totals.tolist()
    return PartRates(
        quality, bits / num_pixels, hyper_bits / bits, without_hyperprior / num_pixels, without_context / num_pixels,
        from_integers / len(images), unrounded / len(images),
    )  # fmt: skip


def reconstruction_psnr(model: CompressionModel, y: Tensor, image: Tensor, level: Tensor) -> float:
    """Return the PSNR in dB of the 8-bit image that g_s makes of latents y (1, M, h, w), which need not be integers."""
    x_hat = model.synthesize(y, image.shape[1], image.shape[2], level)
    return float(psnr(image[None], to_uint8(x_hat)))


def most_probable(model: CompressionModel, z_hat: Tensor) -> Tensor:
    """Return hyper-latents of the shape of z_hat (1, N, h, w) that all have their channel's most probable value."""
    assert model.prior is not None
    reach = int(z_hat.abs().max()) + 1
    values = torch.arange(-reach, reach + 1.0)[None, None, None].expand(1, z_hat.shape[1], 1, -1)
    likeliest = values[0, 0, 0][model.prior.bits(values.contiguous()).argmin(-1)]  # (1, N, 1)
    return likeliest[..., None].expand_as(z_hat)


def bits_without_context(model: CompressionModel, y_hat: Tensor, z_hat: Tensor) -> Tensor:
    """Return the bits of each latent if the context network reads zeros in place of its neighbors."""
    assert model.h_s is not None
    assert model.g_cm is not None
    assert model.g_ep is not None
    features = [crop_to(model.h_s(z_hat), y_hat), model.g_cm(torch.zeros_like(y_hat))]
    return model.density.bits(y_hat, model.density.parameters(model.g_ep(torch.cat(features, dim=1))))


def contents() -> Iterator[tuple[str, Image.Image]]:
    """Make images that are unlike photographs."""
    rows, columns = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    page = Image.new("RGB", (SIDE, SIDE), "white")
    text = "The quick brown fox jumps over the lazy dog. 0123456789 (a + b)^2 = a^2 + 2ab + b^2; "
    draw = ImageDraw.Draw(page)
    for line in range(SIDE // 16 - 2):
        draw.text((16, 16 + 16 * line), (text * 2)[line : line + 78], "black", ImageFont.load_default(12))
    yield "page of text", page
    screen = Image.new("RGB", (SIDE, SIDE), "#f0f0f0")
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, SIDE, 40), "#2d5d9b")
    draw.text((12, 10), "File  Edit  View  Help", "white", ImageFont.load_default(16))
    for number in range(12):
        top = 60 + 36 * number
        draw.rectangle((20, top, 180, top + 26), "#ffffff", "#808080")
        draw.text((28, top + 5), f"item {number}: {number**3}", "#202020", ImageFont.load_default(13))
        draw.rectangle((200, top, 200 + 24 * number, top + 26), ("#c03030", "#30a040", "#e0a020")[number % 3])
    yield "screenshot", screen
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    yield "noise", Image.fromarray(noise)
    zone = np.cos(math.pi / SIDE * ((rows - SIDE / 2) ** 2 + (columns - SIDE / 2) ** 2))
    yield "zone plate", Image.fromarray((127.5 + 127.5 * zone).astype(np.uint8)).convert("RGB")
    hues = np.stack([255 * columns / SIDE, np.full_like(rows, 255), 255 - rows / 8], axis=-1).astype(np.uint8)
    yield "saturated colors", Image.fromarray(hues, mode="HSV").convert("RGB")
    yield "black", Image.new("RGB", (SIDE, SIDE), "black")
    yield "white", Image.new("RGB", (SIDE, SIDE), "white")


def measure_content(codec: Codec, name: str, image: Image.Image) -> Content:
    """Code one image with the model, and as a JPEG that is no larger."""
    target = {"quality": CONTENT_QUALITY} if codec.num_levels > 1 else {}
    data = codec.compress(image, **target)
    jpegs = [jpeg(image, quality) for quality in range(1, 101)]
    fitting = [one for one in jpegs if len(one) <= len(data)] or [min(jpegs, key=len)]
    best = max(fitting, key=len)
    original = np.asarray(image)
    shown = np.asarray(Image.open(io.BytesIO(best)).convert("RGB"))
    decoded = codec.decompress(data, as_="numpy")
    return Content(name, len(data), capped_psnr(original, decoded), len(best), capped_psnr(original, shown))


def jpeg(image: Image.Image, quality: int) -> bytes:
    """Encode an image as a JPEG with optimized tables, 4:2:0."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def capped_psnr(original: np.ndarray[Any, Any], shown: np.ndarray[Any, Any]) -> float:
    """Return the PSNR in dB, at most 99, because it is infinite for equal images."""
    return min(float(psnr(*(torch.from_numpy(one.copy()) for one in (original, shown)))), 99.0)


def main() -> None:
    """Measure, print both tables and write them."""
    arguments = parse_model_and_images(__doc__)
    torch.set_num_threads(1)
    codec = load_codec(arguments.model)
    images = [torch.from_numpy(decode_rgb(one.source)).permute(2, 0, 1) for one in chosen_images(arguments)]
    parts = []
    print("quality   bits per pixel   z, % of bits   without hyperprior   without context    PSNR   unrounded")
    for quality in QUALITIES if codec.num_levels > 1 else (1,):
        one = measure_parts(codec.model, images, quality)
        parts.append(one)
        lost = [100 * (bpp / one.bpp - 1) for bpp in (one.without_hyperprior, one.without_context)]
        print(
            f"{quality:7}   {one.bpp:14.4f}   {100 * one.hyper_share:12.2f}   {lost[0]:+16.1f} %   {lost[1]:+13.1f} %"
            f"   {one.psnr:5.2f}   {one.unrounded_psnr:9.2f}"
        )
    made = []
    print(f"\n{'content':<18}   bytes     PSNR   JPEG bytes     PSNR")
    for name, image in contents():
        content = measure_content(codec, name, image)
        made.append(content)
        ours = f"{content.num_bytes:7}   {content.psnr:6.2f}"
        theirs = f"{content.jpeg_bytes:10}   {content.jpeg_psnr:6.2f}"
        print(f"{name:<18} {ours}   {theirs}")
    if arguments.output is not None:
        result = {
            "provenance": provenance(),
            "model": arguments.model,
            "parts": [one._asdict() for one in parts],
            "contents": [one._asdict() for one in made],
        }
        write_json(arguments.output, result)


if __name__ == "__main__":
    main()
