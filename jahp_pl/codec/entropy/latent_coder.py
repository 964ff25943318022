"""Codes y_hat with the entropy-parameter networks in torch, on any device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jahp_pl.codec.arrays import Float32Array, IntArray
from jahp_pl.codec.entropy.byte_product import HIGHEST, LOWEST, ZERO_POINT
from jahp_pl.codec.entropy.fixed_point import FixedPointLayer
from jahp_pl.codec.entropy.integer_layers import LATENT_RADIX
from jahp_pl.codec.entropy.networks import ExactContextNetwork, ExactHyperSynthesis, to_raw
from jahp_pl.codec.entropy.range_coder import Writer
from jahp_pl.codec.entropy.step_network import FEW_ROWS, LatentArray, StepNetwork
from jahp_pl.codec.entropy.symbol_coder import DecodeTask, LatentRange, SymbolCoder, common_range
from jahp_pl.codec.entropy.thread_tuner import ThreadTuner
from jahp_pl.codec.entropy.wavefront import CodingOrder, coding_order
from jahp_pl.codec.entropy.window_tables import WindowTables
from jahp_pl.codec.torch_settings import full_precision


class LatentCoder(SymbolCoder):
    """`SymbolCoder` that reads and writes tensors, with the networks in torch.

    Args:
        h_s: exact hyper-synthesis; None for `context`.
        context: exact g_cm and g_ep; None without a context model.
        tables: converts raw parameters to tables of masses.
    """

    def __init__(
        self, h_s: ExactHyperSynthesis | None, context: ExactContextNetwork | None, tables: WindowTables
    ) -> None:
        super().__init__(tables)
        self.h_s, self.context = h_s, context
        network = h_s if h_s is not None else context
        assert network is not None
        self.device = network.device

    def layers(self) -> Iterator[FixedPointLayer]:
        """Yield all layers that the symbols depend on, for the fingerprint."""
        if self.h_s is not None:
            yield from self.h_s.layers
        if self.context is not None:
            yield from (self.context.context, *self.context.layers)
            yield from [] if self.context.from_psi is None else [self.context.from_psi]

    def write(self, writer: Writer, y_hat: Tensor, z_hat: Tensor | None) -> None:
        """Append latents to a payload.

        Args:
            writer: payload, which already holds z_hat.
            y_hat: (M, h, w) int32 on the CPU.
            z_hat: (N, ceil(h / 4), ceil(w / 4)) int32 on the CPU; None without side information.
        """
        latent_range = LatentRange.of(y_hat)
        with full_precision(self.device):
            batch = TorchLatentBatch(self, [(y_hat.shape[1], y_hat.shape[2])], [z_hat], latent_range)
            self.write_batch(writer, batch, y_hat.numpy(), latent_range)

    def read(self, tasks: Sequence[DecodeTask[Tensor]], check: Callable[[], None] = lambda: None) -> list[Tensor]:
        """Read the next latents of each image, (M, height, width) int32 each; the images advance in lockstep.

        Args:
            tasks: images whose readers have already read z_hat.
            check: called before each step; may raise.

        Raises:
            BitstreamError: if a payload does not decode, or its latents are out of range.
        """
        latent_range = common_range(tasks)
        with full_precision(self.device), ThreadTuner() as tuner:
            batch = TorchLatentBatch(
                self, [(task.height, task.width) for task in tasks], [task.z_hat for task in tasks], latent_range
            )

            def before_step() -> None:
                tuner.step()
                check()

            return [torch.from_numpy(y_hat) for y_hat in self.read_batch(tasks, batch, before_step)]


class TorchLatentBatch:
    """Latents of several images in coding order, and the raw parameters that they determine.

    Args:
        shapes: height and width of each map of latents.
        z_hats: (N, ceil(h / 4), ceil(w / 4)) hyper-latents of each; None without a hyperprior.
        latent_range: range of all latents.
    """

    def __init__(
        self,
        coder: LatentCoder,
        shapes: Sequence[tuple[int, int]],
        z_hats: Sequence[Tensor | None],
        latent_range: LatentRange,
    ) -> None:
        self.context = context = coder.context
        self.order: CodingOrder = coding_order(shapes, context.offsets if context is not None else [])
        self.taps = torch.from_numpy(self.order.taps).to(coder.device)
        count = sum(height * width for height, width in shapes)
        # Row 0 represents all positions outside the images.
        shape = latent_range.num_pieces, count + 1, coder.tables.num_latents
        self.zero_point = 0
        if context is not None and latent_range.is_within(LOWEST, HIGHEST) and context.byte_context is not None:
            self.zero_point = ZERO_POINT
        dtype = torch.uint8 if self.zero_point else torch.float32
        self.y = torch.full(shape, self.zero_point, dtype=dtype, device=coder.device)
        self.y_array: LatentArray | None = None
        self.step_network: StepNetwork | None = None
        if coder.device.type == "cpu":
            self.y_array = self.y.numpy()
            if isinstance(self.context, ExactContextNetwork):
                self.step_network = StepNetwork(self.context, self.y_array)
        self.from_psi: Tensor | None = None
        for ranks, (height, width), z_hat in zip(self.order.ranks, shapes, z_hats, strict=True):
            if coder.h_s is None or z_hat is None:
                continue
            places = torch.from_numpy(ranks).to(coder.device)
            for first, psi in coder.h_s.strips(z_hat, height, width):
                for block in coder.h_s.blocks(len(psi)):
                    rows = self.context.precompute(psi[block]) if self.context is not None else to_raw(psi[block])
                    if self.from_psi is None:
                        self.from_psi = rows.new_empty(count, rows.shape[1])
                    start = first * width + block.start
                    self.from_psi[places[start : start + len(rows)]] = rows

    def raw(self, start: int, stop: int) -> Tensor:
        """Compute the raw parameters of positions by rank: (stop - start, outputs) float32, in steps of 2^-12."""
        from_psi = self.from_psi[start:stop] if self.from_psi is not None else None
        if self.context is None:
            assert from_psi is not None
            return from_psi
        taps = self.taps[start:stop].flatten()
        pieces = [piece.index_select(0, taps).view(stop - start, -1) for piece in self.y]
        return self.context.raw(pieces, from_psi)

    def parameters(self, start: int, stop: int) -> Float32Array:
        """Return `raw` as an array, which is valid until the next call."""
        if self.step_network is None or stop - start > FEW_ROWS:
            parameters: Float32Array = self.raw(start, stop).cpu().numpy()
            return parameters
        from_psi = None if self.from_psi is None else self.from_psi.numpy()[start:stop]
        return self.step_network.raw(self.order.taps[start:stop], from_psi)

    def insert(self, start: int, symbols: IntArray) -> None:
        """Insert latents (P, M) at ranks from `start` on, so that later positions can use them as context."""
        rows = slice(start + 1, start + 1 + len(symbols))
        if self.y_array is not None and self.zero_point:
            self.y_array[0, rows] = symbols
            self.y_array[0, rows] += np.uint8(self.zero_point)  # modulo 256
            return
        pieces: Sequence[npt.NDArray[np.generic]] = [symbols]
        if len(self.y) == 2:
            high = np.rint(symbols / LATENT_RADIX) * LATENT_RADIX
            pieces = [symbols - high, high]
        for y, piece in zip(self.y if self.y_array is None else self.y_array, pieces, strict=True):
            y[rows] = piece if self.y_array is not None else torch.from_numpy(piece)
