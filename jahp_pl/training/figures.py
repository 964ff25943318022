"""Draws figures of coded images. It avoids pyplot, and with it windows and global state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from jahp_pl.measurement.roundtrip import CodedImage
from jahp_pl.strides import HYPER_STRIDE, STRIDE
from jahp_pl.text import figure_text

DPI = 120
PANEL = (420, 640)
"""Limits, in pixels, of the longer side of a picture in a figure; pictures are scaled to fit."""
Y_COLOR, Z_COLOR, MUTED = "#2a6f97", "#e07a2f", "#5f6b76"


def comparison_figure(image: CodedImage) -> Figure:
    """Draw the original, the reconstruction with rate and PSNR, the map of bits per pixel, and a table of the file."""
    row = image.row
    longest = max(row.width, row.height)
    scale = min(max(longest, PANEL[0]), PANEL[1]) / longest / DPI
    width, height = max(row.width * scale, 1.6), max(row.height * scale, 1.4)  # inches
    if row.width >= row.height:
        figure = Figure(figsize=(2 * width + 1.4, 2 * height + 1.2), dpi=DPI, layout="constrained")
        panels = figure.subplot_mosaic([["original", "decoded"], ["bits", "file"]])
    else:
        figure = Figure(figsize=(3 * width + 3.9, height + 0.8), dpi=DPI, layout="constrained")
        ratios = [width, width, width, 2.8]
        panels = figure.subplot_mosaic([["original", "decoded", "bits", "file"]], width_ratios=ratios)
    figure.suptitle(figure_text(row.name), fontsize=10, color=MUTED)
    _image_panel(panels["original"], image.original, f"original\n{row.width} x {row.height}")
    _image_panel(
        panels["decoded"], image.decoded, f"decoded from the file\n{row.file_bpp:.3f} bpp, {row.file_psnr:.2f} dB"
    )
    _bit_map_panel(panels["bits"], image)
    _file_table(panels["file"], image)
    return figure


def channel_chart(coded: Sequence[CodedImage]) -> Figure:
    """Draw the bits per pixel of each channel of y, and of z if there is one, sorted; means over images.

    Args:
        coded: at least one image; all coded by the same model.
    """
    panels = [("y", Y_COLOR, _per_channel([(i.bits_y, i.row.width * i.row.height) for i in coded]))]
    if coded[0].bits_z.numel():
        panels.append(("z", Z_COLOR, _per_channel([(i.bits_z, i.row.width * i.row.height) for i in coded])))
    figure = Figure(figsize=(8, 2.6 * len(panels) + 0.5), dpi=DPI, layout="constrained")
    plural = "images" if len(coded) > 1 else "image"
    figure.suptitle(f"bits of each channel, mean of {len(coded)} {plural}", fontsize=10, color=MUTED)
    all_axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axes, (letter, color, values) in zip(all_axes, panels, strict=True):
        total = values.sum()
        ranks = np.arange(1, len(values) + 1)
        axes.bar(ranks, values, width=1.0 if len(values) > 60 else 0.85, color=color, linewidth=0)
        num_most = int(np.searchsorted(np.cumsum(values), 0.9 * total)) + 1
        axes.set_title(
            f"{letter}: {total:.4f} bits per pixel in {len(values)} channels; 90 % of it in {num_most}", fontsize=9
        )
        axes.set_xlim(0.3, len(values) + 0.7)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"channels of {letter}, sorted", fontsize=8)
        axes.set_ylabel("bits per pixel", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def bits_per_pixel(bits_y: Tensor, bits_z: Tensor) -> npt.NDArray[np.float32]:
    """Compute the bits per image pixel at each latent position, with the bits of z spread evenly over its latents.

    Args:
        bits_y: bits of each latent, (M, h, w).
        bits_z: bits of each hyper-latent, (N, ceil(h / 4), ceil(w / 4)); (0, 0, 0) for a model without z.

    Returns:
        Bits per pixel, (h, w).
    """
    spent = bits_y.sum(0)
    if bits_z.numel():
        cells = torch.ones_like(spent)
        side = HYPER_STRIDE
        rows, columns = (torch.arange(n) // side for n in spent.shape)
        # A hyper-latent at the border covers fewer than 16 latents, which share its bits.
        shares = torch.zeros(bits_z.shape[1:]).index_put_((rows[:, None], columns[None]), cells, accumulate=True)
        spent = spent + (bits_z.sum(0) / shares.clamp(min=1))[rows[:, None], columns[None]]
    per_pixel: npt.NDArray[np.float32] = (spent / STRIDE**2).numpy()
    return per_pixel


def _per_channel(images: list[tuple[Tensor, int]]) -> npt.NDArray[np.float32]:
    """Convert bits (C, h, w) with their pixel counts to bits per pixel of each channel, averaged over images and
    sorted."""
    means = torch.stack([bits.sum((1, 2)) / num_pixels for bits, num_pixels in images]).mean(0)
    ordered: npt.NDArray[np.float32] = means.sort(descending=True).values.numpy()
    return ordered


def _bit_map_panel(axes: Axes, image: CodedImage) -> None:
    """Draw the bits per pixel at each latent position, at the scale of the picture next to it."""
    bits = bits_per_pixel(image.bits_y, image.bits_z)
    extent = (-0.5, bits.shape[1] * STRIDE - 0.5, bits.shape[0] * STRIDE - 0.5, -0.5)
    drawn = axes.imshow(bits, cmap="viridis", vmin=0, extent=extent, interpolation="nearest")
    axes.set_xlim(-0.5, image.row.width - 0.5)  # the latents of the padding extend beyond the image
    axes.set_ylim(image.row.height - 0.5, -0.5)
    letters = "y and z" if image.bits_z.numel() else "y"
    _hide_axes(axes, f"where the bits went\n{letters}, {image.row.cross_entropy_bpp:.3f} bpp")
    assert axes.figure is not None
    bar = axes.figure.colorbar(drawn, cax=axes.inset_axes((1.03, 0, 0.035, 1)))
    bar.set_label("bits per pixel", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)


def _file_table(axes: Axes, image: CodedImage) -> None:
    """Write a table of the file's properties."""
    row = image.row
    num_pixels = row.width * row.height
    rows = [
        ("file", f"{row.file_bytes:,} bytes"),
        ("", f"{row.file_bpp:.4f} bpp"),
        ("   header", f"{row.header_bytes} bytes"),
        ("cross-entropy", f"{row.cross_entropy_bpp:.4f} bpp"),
        ("   of y", f"{float(image.bits_y.sum()) / num_pixels:.4f} bpp"),
        ("   of z", f"{float(image.bits_z.sum()) / num_pixels:.4f} bpp"),
        ("PSNR", f"{row.file_psnr:.2f} dB"),
        ("MS-SSIM", "image too small" if row.file_ms_ssim is None else f"{row.file_ms_ssim:.4f}"),
        ("encoded in", f"{row.encode_seconds:.2f} s"),
        ("decoded in", f"{row.decode_seconds:.2f} s"),
    ]
    if not image.bits_z.numel():
        rows = [entry for entry in rows if entry[0].strip() not in ("of y", "of z")]
    axes.axis("off")
    labels, values = "\n".join(label for label, _ in rows), "\n".join(value for _, value in rows)
    for x, text, color in ((0.08, labels, MUTED), (0.52, values, "black")):
        axes.text(x, 0.97, text, fontsize=8.5, color=color, va="top", linespacing=1.7, transform=axes.transAxes)


def _image_panel(axes: Axes, image: Tensor, title: str) -> None:
    axes.imshow(image.permute(1, 2, 0).numpy(), interpolation="antialiased")
    _hide_axes(axes, title)


def _hide_axes(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
