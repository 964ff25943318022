"""Runs the networks of a codec in onnxruntime, each in a session that is created on first use."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import onnxruntime

from jahp_pl.codec.arrays import Float32Array, IntArray
from jahp_pl.codec.entropy.hyper_strips import hyper_strips
from jahp_pl.codec.entropy.integer_layers import LATENT_RADIX
from jahp_pl.codec.entropy.symbol_coder import LatentRange
from jahp_pl.codec.entropy.wavefront import CodingOrder, coding_order
from jahp_pl.runtime import entropy_graphs, transform_graphs
from jahp_pl.runtime.integer_networks import IntegerNetworks
from jahp_pl.runtime.onnx_file import GraphBuilder
from jahp_pl.runtime.transform_graphs import State


class Session:
    """A network that is ready to run.

    Args:
        graph: network with its weights.
        is_exact: whether to forbid optimizations, which may change results in the last bit.
        threads: number of CPU threads; 0 for one per core.
        is_rare: whether the network runs only once or twice per image. If so, it frees its memory after each run, and
            keeps no reordered copy of its weights, which would speed up only products of few rows.
    """

    def __init__(self, graph: GraphBuilder, is_exact: bool, threads: int, is_rare: bool = False) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # errors are raised; warnings would name each weight without a file
        levels = onnxruntime.GraphOptimizationLevel
        options.graph_optimization_level = levels.ORT_DISABLE_ALL if is_exact else levels.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Run in the order in which they were added, operators need half the memory: fewer results wait to be used.
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        options.enable_mem_pattern = False  # it would plan for earlier shapes, and need a second arena
        self._run_options = onnxruntime.RunOptions()
        self._run_options.log_severity_level = 4
        if is_rare:
            options.add_session_config_entry("session.disable_prepacking", "1")
            self._run_options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        self._values = [  # the session refers to them
            onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values)) for values in graph.weights.values()
        ]
        options.add_external_initializers(list(graph.weights), self._values)
        self._session = onnxruntime.InferenceSession(graph.to_bytes(), options, providers=["CPUExecutionProvider"])

    def __call__(self, **inputs: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Run the network on inputs by name, and return its only output."""
        (output,) = self._session.run(None, inputs, self._run_options)
        result: npt.NDArray[np.generic] = output
        return result


class EntropyNetworks:
    """Sessions of h_s, g_cm and g_ep on integers, each created on first use.

    Args:
        integer_networks: layers of the networks.
        threads: see `Session`.
    """

    def __init__(self, integer_networks: IntegerNetworks, threads: int) -> None:
        self.integer_networks, self._threads = integer_networks, threads

    @cached_property
    def hyper_synthesis(self) -> Session:
        """Session of h_s, and of the part of g_ep's first layer that depends on psi; see `entropy_graphs`."""
        context = self.integer_networks.context
        from_psi = None if context is None else context.from_psi
        graph = entropy_graphs.hyper_synthesis(self.integer_networks.h_s, from_psi)
        return Session(graph, True, self._threads, is_rare=True)

    @cached_property
    def context(self) -> Session:
        """Session of g_cm and g_ep for latents of magnitudes up to 2^7; see `entropy_graphs`."""
        assert self.integer_networks.context is not None
        return Session(entropy_graphs.context(self.integer_networks.context, is_wide=False), True, self._threads)

    @cached_property
    def context_wide(self) -> Session:
        """Session of g_cm and g_ep for larger latents, which enter in two pieces; see `entropy_graphs`."""
        assert self.integer_networks.context is not None
        return Session(entropy_graphs.context(self.integer_networks.context, is_wide=True), True, self._threads)

    def batch(
        self,
        shapes: Sequence[tuple[int, int]],
        z_hats: Sequence[IntArray | None],
        latent_range: LatentRange,
        num_latents: int,
    ) -> RuntimeLatentBatch:
        """Prepare images for coding.

        Args:
            shapes: height and width of each image's latents.
            z_hats: (N, ceil(h / 4), ceil(w / 4)) hyper-latents of each; None without a hyperprior.
            latent_range: range of all latents.
            num_latents: M.
        """
        return RuntimeLatentBatch(self, shapes, z_hats, latent_range, num_latents)


class RuntimeLatentBatch:
    """`symbol_coder.LatentBatch` in onnxruntime; see `EntropyNetworks.batch`."""

    def __init__(
        self,
        networks: EntropyNetworks,
        shapes: Sequence[tuple[int, int]],
        z_hats: Sequence[IntArray | None],
        latent_range: LatentRange,
        num_latents: int,
    ) -> None:
        self._networks = networks
        context = networks.integer_networks.context
        self.order: CodingOrder = coding_order(shapes, [] if context is None else context.offsets)
        count = sum(height * width for height, width in shapes)
        # Row 0 represents all positions outside the images.
        self._y = np.zeros((latent_range.num_pieces, count + 1, num_latents), dtype=np.float32)
        self._from_psi: Float32Array | None = None
        for ranks, (height, width), z_hat in zip(self.order.ranks, shapes, z_hats, strict=True):
            if z_hat is None:
                continue
            for strip in hyper_strips(height, width, z_hat.shape[1]):
                seen = z_hat[:, strip.top : strip.bottom].transpose(1, 2, 0).astype(np.float32)
                rows = networks.hyper_synthesis(z_hat=np.ascontiguousarray(seen))[strip.kept, :width]
                rows = rows.reshape(-1, rows.shape[-1])
                if self._from_psi is None:
                    self._from_psi = np.empty((count, rows.shape[1]), dtype=np.float32)
                self._from_psi[ranks[strip.first * width : strip.first * width + len(rows)]] = rows

    def parameters(self, start: int, stop: int) -> Float32Array:
        """Compute the raw parameters of positions by rank: (stop - start, outputs) integers, steps of 2^-12."""
        inputs = {} if self._from_psi is None else {"from_psi": self._from_psi[start:stop]}
        if self._networks.integer_networks.context is None:
            return inputs["from_psi"]
        taps = self.order.taps[start:stop].ravel()
        pieces = [piece.take(taps, axis=0).reshape(stop - start, -1) for piece in self._y]
        if len(pieces) == 1:
            raw = self._networks.context(latents=pieces[0], **inputs)
        else:
            raw = self._networks.context_wide(low=pieces[0], high=pieces[1], **inputs)
        return raw.astype(np.float32, copy=False)

    def insert(self, start: int, symbols: IntArray) -> None:
        """Insert latents (P, M) at ranks from `start` on, so that later positions can use them as context."""
        rows = slice(start + 1, start + 1 + len(symbols))
        self._y[0, rows] = symbols
        if len(self._y) == 2:
            self._y[1, rows] = np.rint(self._y[0, rows] * np.float32(1 / LATENT_RADIX))
            self._y[0, rows] -= np.float32(LATENT_RADIX) * self._y[1, rows]


class TransformNetworks:
    """Sessions of g_a, h_a and g_s, each created on first use.

    Args:
        state: weights by name.
        magnitudes: see `hyperprior.HyperAnalysis`.
        threads: see `Session`.
    """

    def __init__(self, state: State, magnitudes: bool, threads: int) -> None:
        self._state, self._magnitudes, self._threads = state, magnitudes, threads

    @cached_property
    def g_a(self) -> Session:
        """Session of g_a: (1, 3, H, W) uint8 -> (1, M, H / 16, W / 16)."""
        return Session(transform_graphs.analysis(self._state), False, self._threads)

    @cached_property
    def h_a(self) -> Session:
        """Session of h_a: (1, M, h, w) -> (1, N, ceil(h / 4), ceil(w / 4))."""
        return Session(transform_graphs.hyper_analysis(self._state, self._magnitudes), False, self._threads)

    @cached_property
    def g_s(self) -> Session:
        """Session of g_s: (1, M, h, w) and the cuts of `halo_cuts` -> (1, 3, H, W) uint8."""
        return Session(transform_graphs.synthesis(self._state), False, self._threads)
