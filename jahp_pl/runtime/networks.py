"""The networks of a codec in onnxruntime: sessions, made when they are first needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnxruntime

from jahp_pl.codec.entropy.freezing import LATENT_RADIX, Float32Array, FrozenContext, FrozenLayer
from jahp_pl.codec.entropy.hyper_strips import hyper_strips
from jahp_pl.codec.entropy.range_coder import IntArray
from jahp_pl.codec.entropy.symbol_coder import LatentRange
from jahp_pl.codec.entropy.wavefront import Schedule, schedule
from jahp_pl.runtime import graphs
from jahp_pl.runtime.graphs import Network


class Session:
    """A network, ready to run.

    Args:
        network: graph and weights.
        is_exact: no optimization may change it.
        threads: of the processor; 0 for one per core.
        keeps_memory: between its runs, which are faster then.
    """

    def __init__(self, network: Network, is_exact: bool, threads: int, keeps_memory: bool = True) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # of warnings there is one for each weight without a file
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_DISABLE_ALL if is_exact else levels.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = keeps_memory
        options.enable_mem_pattern = False  # plans for shapes seen before, and with them a second arena
        names = list(network.graph.weights)
        self._values = [
            onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(network.weights[name])) for name in names
        ]
        options.add_external_initializers(names, self._values)
        self._session = onnxruntime.InferenceSession(
            network.graph.to_bytes(), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, **inputs: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """The only output."""
        (output,) = self._session.run(None, inputs)
        result: npt.NDArray[np.generic] = output
        return result


class EntropyNetworks:
    """h_s, g_cm and g_ep on integers.

    Args:
        h_s: frozen layers; empty on the context rung.
        context: frozen g_cm and g_ep; None for the rungs without context.
        threads: see `Session`.
    """

    def __init__(self, h_s: Sequence[FrozenLayer], context: FrozenContext | None, threads: int) -> None:
        self.h_s, self.context, self._threads = h_s, context, threads

    def layers(self) -> list[FrozenLayer]:
        """All, in the order of the fingerprint."""
        if self.context is None:
            return list(self.h_s)
        from_psi = [] if self.context.from_psi is None else [self.context.from_psi]
        return [*self.h_s, self.context.context, *self.context.layers, *from_psi]

    @cached_property
    def hyper_start(self) -> Session:
        """See `graphs`."""
        from_psi = None if self.context is None else self.context.from_psi
        return Session(graphs.hyper_start(self.h_s, from_psi), True, self._threads, keeps_memory=False)

    @cached_property
    def narrow(self) -> Session:
        """See `graphs`: latents in one piece."""
        assert self.context is not None
        return Session(graphs.context(self.context, wide=False), True, self._threads)

    @cached_property
    def wide(self) -> Session:
        """See `graphs`: latents in two pieces."""
        assert self.context is not None
        return Session(graphs.context(self.context, wide=True), True, self._threads)

    def frame(
        self, shapes: Sequence[tuple[int, int]], z_hats: Sequence[IntArray | None], span: LatentRange, num_latents: int
    ) -> RuntimeFrame:
        """See `symbol_coder.Frame`.

        Args:
            shapes: height and width of each map of latents.
            z_hats: side information of each; None without.
            span: range of the latents that will be shown.
            num_latents: M.
        """
        return RuntimeFrame(self, shapes, z_hats, span, num_latents)


class RuntimeFrame:
    """`symbol_coder.Frame` in onnxruntime; see `EntropyNetworks.frame`."""

    def __init__(
        self,
        networks: EntropyNetworks,
        shapes: Sequence[tuple[int, int]],
        z_hats: Sequence[IntArray | None],
        span: LatentRange,
        num_latents: int,
    ) -> None:
        self._networks = networks
        context = networks.context
        self.schedule: Schedule = schedule(shapes, [] if context is None else context.offsets)
        count = sum(height * width for height, width in shapes)
        num_pieces = 1 if max(-span.lowest, span.highest) <= LATENT_RADIX // 2 else 2
        # Row 0 stands for everything outside of the images.
        self._y = np.zeros((num_pieces, count + 1, num_latents), dtype=np.float32)
        self._start: Float32Array | None = None
        for ranks, (height, width), z_hat in zip(self.schedule.ranks, shapes, z_hats, strict=True):
            if z_hat is None:
                continue
            for strip in hyper_strips(height, width, z_hat.shape[1]):
                seen = z_hat[:, strip.top : strip.bottom].transpose(1, 2, 0).astype(np.float32)
                rows = networks.hyper_start(z_hat=np.ascontiguousarray(seen))[strip.kept, :width]
                rows = rows.reshape(-1, rows.shape[-1])
                if self._start is None:
                    self._start = np.empty((count, rows.shape[1]), dtype=np.float32)
                self._start[ranks[strip.first * width : strip.first * width + len(rows)]] = rows

    def parameters(self, start: int, stop: int) -> Float32Array:
        """Raw parameters of positions by rank."""
        inputs = {} if self._start is None else {"start": self._start[start:stop]}
        if self._networks.context is None:
            return inputs["start"]
        taps = self.schedule.taps[start:stop].ravel()
        pieces = [piece.take(taps, axis=0).reshape(stop - start, -1) for piece in self._y]
        if len(pieces) == 1:
            raw = self._networks.narrow(latents=pieces[0], **inputs)
        else:
            raw = self._networks.wide(low=pieces[0], high=pieces[1], **inputs)
        return raw.astype(np.float32, copy=False)

    def show(self, start: int, symbols: IntArray) -> None:
        """Make latents (P, M) visible, those of ranks from `start` on."""
        rows = slice(start + 1, start + 1 + len(symbols))
        self._y[0, rows] = symbols
        if len(self._y) == 2:
            self._y[1, rows] = np.rint(self._y[0, rows] * np.float32(1 / LATENT_RADIX))
            self._y[0, rows] -= np.float32(LATENT_RADIX) * self._y[1, rows]


class TransformNetworks:
    """g_a, h_a and g_s, each a session from its first use on.

    Args:
        state: weights by name.
        magnitudes: see `graphs.hyper`.
        threads: see `Session`.
    """

    def __init__(self, state: Mapping[str, Float32Array], magnitudes: bool, threads: int) -> None:
        self._state, self._magnitudes, self._threads = state, magnitudes, threads

    @cached_property
    def g_a(self) -> Session:
        """(1, 3, H, W) uint8 -> (1, M, H / 16, W / 16)."""
        return self._session(graphs.analysis)

    @cached_property
    def h_a(self) -> Session:
        """(1, M, h, w) -> (1, N, ceil(h / 4), ceil(w / 4))."""
        return self._session(lambda state: graphs.hyper(state, self._magnitudes))

    @cached_property
    def g_s(self) -> Session:
        """(1, M, h, w) -> (1, 3, 16 h, 16 w) uint8."""
        return self._session(graphs.synthesis)

    def _session(self, build: Callable[[Mapping[str, Float32Array]], Network]) -> Session:
        return Session(build(self._state), False, self._threads)
