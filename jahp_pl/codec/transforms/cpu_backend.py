"""Runs the paper's g_a and g_s in float32 on a CPU, in strips, so that no map as large as the image is stored.

Three of the four layers are `winograd` convolutions. The layer at the image (3 -> N, N -> 3) is one matrix product with
the 75 taps of its kernel. Nothing at half the image's resolution or finer is ever stored as a whole:

    g_a:  uint8 strip -> its 75 taps -> product, GDN -> strip at 1/2 -> whole at 1/4 -> whole at 1/8 -> y
    g_s:  y_hat -> whole at 1/8 -> whole at 1/4 -> strip at 1/2 -> product -> sum of its 75 taps -> uint8 strip
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from jahp_pl.codec.transforms.gdn import MatrixGDN, Scratch
from jahp_pl.codec.transforms.winograd import PATCH, TILE, Downsampling, Upsampling
from jahp_pl.layers import GDN
from jahp_pl.quality import to_uint8

TILES_PER_STRIP = 144
"""Approximate number of Winograd tiles per strip: enough for efficient matrix products, few enough for caches."""
FIRST_LAYER_POSITIONS = 4096
"""Approximate number of positions at half the image's resolution that the first layer computes at a time."""
NUM_TAPS = 75
"""Rows times columns times channels of a 5x5 kernel at the image."""


def cpu_bytes(height: int, width: int, num_filters: int, num_latents: int) -> int:
    """Bound the bytes that g_a or g_s needs for (height, width) latents: maps, buffers and the image."""
    widest = max(num_filters, num_latents)
    rows, columns = -(-height // 2) * 2, -(-width // 2) * 2  # whole tiles
    maps = (16 + 4 + 1) * (rows + 1) * (columns + 1) * widest
    num_tiles = columns * max(1, round(TILES_PER_STRIP / columns))
    tile = (3 * PATCH**2 + 3 * TILE**2) * widest + 64 * (NUM_TAPS + 1 + 4 * 12) + 100 * num_filters
    first = max(FIRST_LAYER_POSITIONS, 8 * columns) * (3 * num_filters + NUM_TAPS + 1)
    return 4 * (maps + num_tiles * tile + first) + 3 * 256 * height * width


class PaddedMap:
    """A map (height, width, C) with a border of zeros, large enough for whole tiles.

    Args:
        height, width: size of the map.
        num_channels: C.
        border: rows and columns of zeros around it; bottom and right are extended so that the inside is a multiple of
            8.
        device: device of the map.
    """

    def __init__(self, height: int, width: int, num_channels: int, border: int, device: torch.device) -> None:
        self.height, self.width, self.border = height, width, border
        sides = (-(-side // (2 * TILE)) * 2 * TILE + 2 * border for side in (height, width))
        self.data = torch.empty(*sides, num_channels, dtype=torch.float32, device=device)

    def window(self, top: int, height: int, width: int, around: int) -> Tensor:
        """View `height` rows from `top` on and `width` columns from 0 on, with `around` more of each on either side."""
        offset = self.border - around
        return self.data[top + offset :][: height + 2 * around, offset : offset + width + 2 * around]

    def map(self) -> Tensor:
        """Return the map without its border, (height, width, C)."""
        return self.window(0, self.height, self.width, 0)

    def clear_surroundings(self) -> None:
        """Zero the border and whatever tiles wrote beyond the map."""
        bottom, right = self.border + self.height, self.border + self.width
        for part in (self.data[: self.border], self.data[bottom:], self.data[:, : self.border], self.data[:, right:]):
            part.zero_()


class CpuAnalysis:
    """g_a on a CPU, with uint8 images as input.

    Args:
        g_a: trained network; its weights are copied.
    """

    def __init__(self, g_a: nn.Sequential) -> None:
        first, *others = _with_gdn(g_a)
        conv, gdn = first
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        assert gdn is not None
        self.gdn = gdn
        # A 76th tap, always one, adds the bias.
        taps = conv.weight.detach().float().permute(2, 3, 1, 0).reshape(NUM_TAPS, -1) / 255
        self.first = torch.cat([taps, conv.bias.detach().float()[None]])
        self.layers = [Downsampling(layer, gdn) for layer, gdn in others if isinstance(layer, nn.Conv2d)]

    def __call__(self, image: Tensor) -> Tensor:
        """Compute y (H / 16, W / 16, M) float32 of an image (3, H, W) uint8, H and W multiples of 16."""
        scratch = Scratch(image.device)
        x = self._quarter(image, scratch)
        for layer in self.layers[1:]:
            x = _convolve(layer, x, scratch)
        return x.map()

    def _quarter(self, image: Tensor, scratch: Scratch) -> PaddedMap:
        """Apply the first two layers: (3, H, W) -> (H / 4, W / 4, N)."""
        layer, (height, width) = self.layers[0], (image.shape[1] // 2, image.shape[2] // 2)
        quarter = PaddedMap(height // 2, width // 2, layer.num_out, layer.BORDER, image.device)
        strips = list(_strips(quarter.height, quarter.width))
        full = layer.TILE_IN * strips[0][1]
        half, filled = PaddedMap(full, width, layer.num_in, layer.BORDER, image.device), 0
        half.clear_surroundings()
        for top, num_rows, num_columns in strips:
            first = layer.TILE_IN * top - layer.BORDER  # row of the map in row 0 of half.data
            if top:  # the last four rows of the previous strip are the first four of this one
                half.data[:4] = half.data[full : full + 4]
            step = layer.TILE_IN * num_rows
            stop = min(first + step + 4, height)
            for start, end in _pieces(filled, stop, max(1, FIRST_LAYER_POSITIONS // width)):
                self._half_rows(image, start, end, half.data[start - first : end - first, 2 : 2 + width], scratch)
            half.data[stop - first :] = 0
            filled = stop
            rows = half.data[: step + 4, : num_columns * layer.TILE_IN + 4]
            layer.convolve_strip(rows, quarter.window(top * TILE, num_rows * TILE, num_columns * TILE, 0), scratch)
        quarter.clear_surroundings()
        return quarter

    def _half_rows(self, image: Tensor, start: int, stop: int, out: Tensor, scratch: Scratch) -> None:
        """Apply the first layer: write rows `start` to `stop` of (H / 2, W / 2, N) into `out`."""
        top, bottom, num_rows, width = 2 * start - 2, 2 * stop + 1, stop - start, image.shape[2]
        pixels = scratch("pixels", 3, bottom - top, width + 4).zero_()
        seen = image[:, max(top, 0) : bottom]
        pixels[:, max(-top, 0) :][:, : seen.shape[1], 2:-2] = seen
        taps = scratch("taps", NUM_TAPS + 1, num_rows * (width // 2))
        windows = pixels.unfold(1, 5, 2).unfold(2, 5, 2).permute(3, 4, 0, 1, 2)  # (5, 5, 3, rows, W / 2)
        taps[:-1].view(windows.shape).copy_(windows)
        taps[-1] = 1
        filters = torch.mm(taps.t(), self.first, out=scratch("filters", taps.shape[1], self.first.shape[1]))
        torch.mul(filters.view(out.shape), self.gdn.factors(filters, scratch).view(out.shape), out=out)


class CpuSynthesis:
    """g_s on a CPU, with uint8 images as output.

    Args:
        g_s: trained network; its weights are copied.
    """

    def __init__(self, g_s: nn.Sequential) -> None:
        *others, (conv, _) = _with_gdn(g_s)
        assert isinstance(conv, nn.ConvTranspose2d)
        assert conv.bias is not None
        self.last = conv.weight.detach().float().permute(2, 3, 1, 0).reshape(NUM_TAPS, -1).contiguous()
        self.bias = conv.bias.detach().float().clone()
        self.layers = [Upsampling(layer, gdn) for layer, gdn in others if isinstance(layer, nn.ConvTranspose2d)]

    def __call__(self, y_hat: Tensor) -> Tensor:
        """Reconstruct (3, 16 h, 16 w) uint8 from y_hat (h, w, M) of any numeric type."""
        scratch = Scratch(y_hat.device)
        height, width, num_latents = y_hat.shape
        x = PaddedMap(height, width, num_latents, self.layers[0].BORDER, y_hat.device)
        x.map().copy_(y_hat)
        x.clear_surroundings()
        for layer in self.layers[:-1]:
            x = _convolve(layer, x, scratch)
        return self._image(x, scratch)

    def _image(self, quarter: PaddedMap, scratch: Scratch) -> Tensor:
        """Apply the last two layers: (H / 4, W / 4, N) -> (3, H, W) uint8."""
        layer, height, width = self.layers[-1], 2 * quarter.height, 2 * quarter.width
        image = torch.empty(3, 2 * height, 2 * width, dtype=torch.uint8, device=quarter.data.device)
        pairs = image.view(3, height, 2, width, 2).permute(2, 4, 0, 1, 3)  # (2, 2, 3, H / 2, W / 2)
        carried: Tensor | None = None
        for top, num_rows, num_columns in _strips(quarter.height, quarter.width):
            half = scratch("half", layer.TILE_OUT * num_rows, layer.TILE_OUT * num_columns, layer.num_out)
            layer.convolve_strip(
                quarter.window(top * TILE, num_rows * TILE, num_columns * TILE, layer.BORDER), half, scratch
            )
            first = top * layer.TILE_OUT
            sums = self._sums(half[: height - first], width, carried, scratch)
            # Row 0 of the sums is row first - 1 of the map; the last two rows are incomplete until the next strip.
            stop = height if first + len(half) >= height else first + len(half) - 1
            start = max(first - 1, 0)
            done = sums[:, :, :, start - first + 1 : stop - first + 1, 1:-1]
            pairs[:, :, :, start:stop] = to_uint8(done)
            carried = sums[:, :, :, -2:].clone()
        return image

    def _sums(self, half: Tensor, width: int, carried: Tensor | None, scratch: Scratch) -> Tensor:
        """Apply and sum up the last layer: rows of (H / 2, W / 2, N) -> (2, 2, 3, rows + 2, W / 2 + 2).

        The first two dimensions are the parities of row and column of the image. There is one extra position on each
        side, where taps reach beyond the strip. The first two rows start with what the previous strip `carried` over.
        """
        num_rows, num_columns, num_filters = half.shape
        taps = scratch("taps", NUM_TAPS, num_rows * num_columns)
        torch.mm(self.last, half.reshape(-1, num_filters).t(), out=taps)
        by_tap = taps.view(5, 5, 3, num_rows, num_columns)[..., :width]
        sums = scratch("sums", 2, 2, 3, num_rows + 2, width + 2)
        sums.copy_(self.bias[:, None, None].expand_as(sums))
        if carried is not None:
            sums[:, :, :, :2] = carried
        for row in range(5):
            for column in range(5):
                plane = sums[row % 2, column % 2, :, row // 2 :, column // 2 :]
                plane[:, :num_rows, :width] += by_tap[row, column]
        return sums


def _convolve(layer: Upsampling | Downsampling, x: PaddedMap, scratch: Scratch) -> PaddedMap:
    """Apply a whole layer in strips."""
    height, width = (side * layer.TILE_OUT // layer.TILE_IN for side in (x.height, x.width))
    out = PaddedMap(height, width, layer.num_out, layer.BORDER, x.data.device)
    coarse = out if layer.TILE_OUT == TILE else x
    for top, num_rows, num_columns in _strips(coarse.height, coarse.width):
        before, after = (
            canvas.window(top * tile, num_rows * tile, num_columns * tile, around)
            for canvas, tile, around in ((x, layer.TILE_IN, layer.BORDER), (out, layer.TILE_OUT, 0))
        )
        layer.convolve_strip(before, after, scratch)
    out.clear_surroundings()
    return out


def _strips(height: int, width: int) -> Iterator[tuple[int, int, int]]:
    """Yield, for each strip of a coarse map, its first row and how many rows and columns of tiles it has."""
    num_rows, num_columns = -(-height // TILE), -(-width // TILE)
    step = max(1, round(TILES_PER_STRIP / num_columns))
    for top in range(0, num_rows, step):
        yield top, min(step, num_rows - top), num_columns


def _pieces(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    for low in range(start, stop, size):
        yield low, min(low + size, stop)


def _with_gdn(transform: nn.Sequential) -> list[tuple[nn.Module, MatrixGDN | None]]:
    """List the convolutions, each with the GDN that follows it."""
    layers = [*transform, None]
    return [
        (layer, MatrixGDN(after) if isinstance(after, GDN) else None)
        for layer, after in pairwise(layers)
        if layer is not None and not isinstance(layer, GDN)
    ]
