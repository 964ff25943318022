"""Runs the transforms for the codec: uint8 images to latents and back, in bounded memory, on the fastest backend.

Guarantees: for any image size, the result depends on the memory limit only through float32 rounding (relative 1e-5;
rarely, a pixel differs by 1). Up to the same rounding, latents and pixels equal those of
`CompressionModel.analyze` and `synthesize`. Exactness is not needed here: latents are rounded before they are coded,
and pixels are computed after everything is decoded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from jahp_pl.codec.torch_settings import full_precision
from jahp_pl.codec.transforms.cpu_backend import CpuAnalysis, CpuSynthesis, cpu_bytes
from jahp_pl.codec.transforms.tiles import HALO, HYPER_HALO, MIN_TILE_SIDE, choose_tile_size, halo_of, tiles
from jahp_pl.codec.transforms.torch_backend import TorchAnalysis, TorchSynthesis, channels_last, torch_bytes
from jahp_pl.errors import JahpError
from jahp_pl.hyperprior import hyper_transforms_of
from jahp_pl.model import CompressionModel
from jahp_pl.strides import HYPER_STRIDE, STRIDE
from jahp_pl.transforms import transforms_of

Precision = Literal["float32", "bfloat16"]
MEMORY_LIMIT = 2**30
"""Default memory limit in bytes; it suffices for 9 megapixels in one piece on a CPU, at N = M = 192."""


class MemoryLimitError(JahpError, ValueError):
    """A memory limit that is too low for the smallest tile."""


class TileBytes(NamedTuple):
    """Memory that a tile needs, not counting the weights, the whole image and all its latents."""

    num_filters: int
    num_latents: int
    is_on_cpu_backend: bool = True
    """Whether the CPU backend is used, which requires the paper's transforms in float32; otherwise the torch
    backend."""
    halo: int = HALO
    """Latents around a tile that are computed and discarded."""
    hyper_halo: int = HYPER_HALO
    """Hyper-latents around a tile that are computed and discarded."""

    def transforms(self, height: int, width: int) -> int:
        """Bound the bytes of g_a or g_s for (height, width) latents, halo included."""
        if self.is_on_cpu_backend:
            size = cpu_bytes(height, width, self.num_filters, self.num_latents)
        else:
            size = torch_bytes(height, width, self.num_filters, self.num_latents)
        return size * 5 // 4 + 2**24

    def hyper_analysis(self, height: int, width: int) -> int:
        """Bound the bytes of h_a for (height, width) hyper-latents, halo included."""
        return 4 * HYPER_STRIDE**2 * height * width * (2 * self.num_latents + 2 * self.num_filters) * 5 // 4 + 2**24

    def smallest(self) -> int:
        """Return the smallest limit with which any image can be coded."""
        side, hyper_side = MIN_TILE_SIDE + 2 * self.halo, MIN_TILE_SIDE + 2 * self.hyper_halo
        return max(self.transforms(side, side), self.hyper_analysis(hyper_side, hyper_side))


class TransformRunner:
    """Runner of g_a, h_a and g_s of a trained model, for images of any size.

    Args:
        model: trained model, which must not change; its device is used.
        precision: precision of the convolutions of g_a and g_s; GDN and h_a run in float32.
        memory_limit: bytes that a tile may use, see `TileBytes`; on a GPU, bytes of GPU memory.

    Raises:
        MemoryLimitError: if the limit is below `TileBytes.smallest`.
    """

    def __init__(
        self, model: CompressionModel, precision: Precision = "float32", memory_limit: int = MEMORY_LIMIT
    ) -> None:
        self.device = next(model.parameters()).device
        self.config = model.config
        config = model.config
        is_on_cpu_backend = self.device.type == "cpu" and precision == "float32" and config.transform == "gdn"
        self.halo = halo_of(transforms_of(config.transform).reach, STRIDE)
        self.hyper_halo = halo_of(hyper_transforms_of(config.hyper_transform).reach, HYPER_STRIDE)
        self.tile_bytes = TileBytes(
            config.num_filters, config.num_latents, is_on_cpu_backend, self.halo, self.hyper_halo
        )
        if memory_limit < self.tile_bytes.smallest():
            raise MemoryLimitError(
                f"a memory limit of {memory_limit / 2**20:.0f} MiB is too low for this model; give at least "
                f"{-(-self.tile_bytes.smallest() // 2**20)} MiB"
            )
        self.memory_limit = memory_limit
        self._model, self._precision = model, precision
        self._gains = copy.deepcopy(model.gains)
        self._h_a = channels_last(model.h_a, torch.float32) if model.h_a is not None else None

    @cached_property
    def _g_a(self) -> Callable[[Tensor], Tensor]:
        # Arranging the weights takes a tenth of the time of a photograph, so it waits until the transform is needed.
        if self.tile_bytes.is_on_cpu_backend:
            return CpuAnalysis(self._model.g_a)
        return TorchAnalysis(self._model.g_a, _dtype(self._precision))

    @cached_property
    def _g_s(self) -> Callable[[Tensor], Tensor]:
        if self.tile_bytes.is_on_cpu_backend:
            return CpuSynthesis(self._model.g_s)
        return TorchSynthesis(self._model.g_s, _dtype(self._precision))

    @property
    def has_hyperprior(self) -> bool:
        """Whether the model has h_a."""
        return self._h_a is not None

    def analyze(self, image: Tensor) -> Tensor:
        """Apply g_a to an image.

        Args:
            image: (3, H, W) uint8 on the CPU.

        Returns:
            y (1, M, ceil(H / 16), ceil(W / 16)) float32 on the model's device, channels last in memory.
        """
        height, width = (-(-side // STRIDE) for side in image.shape[1:])
        y = torch.empty(height, width, self.config.num_latents, dtype=torch.float32, device=self.device)
        side = choose_tile_size(height, width, self.halo, self._fits(self.tile_bytes.transforms))
        with _inference(self.device):
            for rows, columns in tiles(height, width, side, self.halo):
                seen = image[:, rows.source(STRIDE), columns.source(STRIDE)].to(self.device)
                latents = self._g_a(_padded(seen))
                y[rows.start : rows.stop, columns.start : columns.stop] = latents[rows.kept, columns.kept]
        return y.movedim(-1, 0)[None]

    def hyper_analyze(self, y: Tensor) -> Tensor:
        """Apply h_a to latents.

        Args:
            y: (1, M, h, w) float32 on the model's device, as returned by `analyze`.

        Returns:
            z (1, N, ceil(h / 4), ceil(w / 4)) float32 on the model's device, channels last in memory.

        Raises:
            ValueError: if the model has no side information.
        """
        if self._h_a is None:
            raise ValueError(
                f"the entropy model {self.config.entropy_model} has no h_a; only models with a hyperprior have "
                "hyper-latents"
            )
        height, width = (-(-side // HYPER_STRIDE) for side in y.shape[2:])
        z = torch.empty(height, width, self.config.num_filters, dtype=torch.float32, device=self.device)
        side = choose_tile_size(height, width, self.hyper_halo, self._fits(self.tile_bytes.hyper_analysis))
        with _inference(self.device):
            for rows, columns in tiles(height, width, side, self.hyper_halo):
                seen = y[..., rows.source(HYPER_STRIDE), columns.source(HYPER_STRIDE)]
                latents = self._h_a(seen)[0].movedim(0, -1)
                z[rows.start : rows.stop, columns.start : columns.stop] = latents[rows.kept, columns.kept]
        return z.movedim(-1, 0)[None]

    def scale(self, y: Tensor, level: float | None) -> Tensor:
        """Scale y (1, M, h, w) by the gains of a rate level; return it unchanged for a single-rate model."""
        if self._gains is None or level is None:
            return y
        with _inference(self.device):
            return y * self._gains.before_rounding(torch.tensor([level], device=self.device))

    def gain_after(self, level: float) -> Tensor:
        """Return the factors (M,) of y_hat before g_s; only for a variable-rate model."""
        assert self._gains is not None
        with _inference(self.device):
            return self._gains.after_rounding(torch.tensor([level], device=self.device))[0, :, 0, 0]

    def synthesize(
        self,
        y_hat: Tensor,
        height: int,
        width: int,
        level: float | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """Apply g_s to latents.

        Args:
            y_hat: (M, ceil(height / 16), ceil(width / 16)), integers or floats, on any device.
            height, width: size of the image in pixels.
            level: rate level; None for a single-rate model.
            check: called before each tile; may raise.

        Returns:
            (3, height, width) uint8 on the CPU, clipped and rounded as `quality.to_uint8` does.
        """
        if self._gains is not None and level is not None:
            with _inference(self.device):
                y_hat = y_hat.to(self.device) * self.gain_after(level)[:, None, None]
        image = torch.empty(3, height, width, dtype=torch.uint8, device="cpu")
        _, h, w = y_hat.shape
        side = choose_tile_size(h, w, self.halo, self._fits(self.tile_bytes.transforms))
        with _inference(self.device):
            for rows, columns in tiles(h, w, side, self.halo):
                check()
                seen = y_hat[:, rows.source(1), columns.source(1)].to(self.device)
                part = self._g_s(seen.movedim(0, -1))[:, STRIDE * rows.kept.start :, STRIDE * columns.kept.start :]
                target = image[
                    :, STRIDE * rows.start : STRIDE * rows.stop, STRIDE * columns.start : STRIDE * columns.stop
                ]
                target.copy_(part[:, : target.shape[1], : target.shape[2]])
        return image

    def _fits(self, size: Callable[[int, int], int]) -> Callable[[int, int], bool]:
        return lambda height, width: size(height, width) <= self.memory_limit


def _padded(image: Tensor) -> Tensor:
    """Pad an image (3, H, W) uint8 like `transforms.pad_to_stride`."""
    for dim in (1, 2):
        missing = -image.shape[dim] % STRIDE
        if missing:
            last = image.narrow(dim, image.shape[dim] - 1, 1)
            image = torch.cat([image, last.repeat_interleave(missing, dim)], dim)
    return image


def _dtype(precision: Precision) -> torch.dtype:
    return torch.float32 if precision == "float32" else torch.bfloat16


@contextmanager
def _inference(device: torch.device) -> Iterator[None]:
    """Disable gradients, the caller's autocast and a reduced precision of matrix products.

    Raises:
        PrecisionError: see `full_precision`.
    """
    # On a CPU with AMX, "medium" precision changes pixels by several levels.
    with torch.inference_mode(), full_precision(device):
        yield
