"""The codec without torch: files of images and back, in numpy and onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.array_images import Kind, array_from, image_from
from jahp_pl.codec.encoder import Encoded, ImageEncoder, Samples, to_gray
from jahp_pl.codec.entropy.channel_tables import ChannelTables
from jahp_pl.codec.entropy.freezing import (
    Float32Array,
    FloatArray,
    FreezeError,
    FrozenContext,
    FrozenLayer,
    TrainedLayer,
    conv_taps,
    freeze_context,
    freeze_hyper_synthesis,
)
from jahp_pl.codec.entropy.range_coder import IntArray, Reader, Writer
from jahp_pl.codec.entropy.symbol_coder import DecodeTask, LatentRange, SymbolCoder, common_range
from jahp_pl.codec.entropy.window_tables import WindowTables
from jahp_pl.codec.fingerprint import fingerprint
from jahp_pl.codec.limits import ACCEPTED_PIXELS, Deadline
from jahp_pl.codec.lockstep import lockstep_groups
from jahp_pl.codec.opening import check_latents, open_file
from jahp_pl.codec.rate_control import encode_to_target
from jahp_pl.codec.targets import Target, check_target
from jahp_pl.config import ModelConfig
from jahp_pl.density_layout import BOUNDS, DensityLayout
from jahp_pl.model_io.export_config import ExportError, Metric, is_export
from jahp_pl.model_io.pretrained import locate
from jahp_pl.runtime.graphs import LEAKY
from jahp_pl.runtime.networks import EntropyNetworks, TransformNetworks
from jahp_pl.runtime.pixels import MEMORY_LIMIT, RuntimeAnalysed, RuntimeTransforms
from jahp_pl.runtime.weights import read_weights

if TYPE_CHECKING:
    from PIL import Image

NO_SEARCH = "onnxruntime only rounds latents; use effort 0, or the torch runtime"
KERNEL_SIDE = 5
"""Of g_cm."""


class RuntimeDecoded(NamedTuple):
    """What a file holds."""

    image: Samples
    """(3, H, W)."""
    y_hat: IntArray
    """(M, h, w)."""
    z_hat: IntArray | None
    """(N, ceil(h / 4), ceil(w / 4))."""
    icc: bytes = b""
    """Colour profile of the image; empty for sRGB."""
    level: float | None = None
    """Level of rate; None for a model of one rate."""


class RuntimeCodec:
    """Compresses images with an export, in onnxruntime.

    Guarantees: it decodes the files of `codec.Codec` of the same model to the same latents, to the last bit, and the
    other way round; pixels are those of torch to the rounding of float32, at most one level apart. Stateless between
    calls.

    Args:
        config: architecture; the transform must be the paper's.
        state: weights by name, see `weights.StoredModel`.
        tables: that freezing made, see `Codec.tables`.
        threads: of the processor; 0 for one per core.

    Raises:
        FreezeError: weights beyond exact arithmetic, or tables of another model.
        ValueError: if a transform or a density is not one of the package's own.
    """

    runtime: ClassVar[Literal["onnx"]] = "onnx"
    """What its networks run in."""

    def __init__(
        self, config: ModelConfig, state: Mapping[str, Float32Array], tables: Mapping[str, FloatArray], threads: int = 0
    ) -> None:
        for part, known in ((config.transform, ("gdn",)), (config.likelihood, tuple(BOUNDS))):
            if part not in known:
                raise ValueError(f"{part}: onnxruntime has only {', '.join(known)}; use the torch runtime")
        self.config = config
        self.num_parameters = sum(state[name].size for name in state)
        """Of all networks, but for the masked taps of g_cm."""
        gain, offset = (state.get(f"gains.{name}") for name in ("gain", "offset"))
        networks = TransformNetworks(state, config.rung == "scale_hyperprior", threads)
        self.pixels = RuntimeTransforms(networks, config, gain, offset, MEMORY_LIMIT)
        self._prior: ChannelTables | None = None
        if config.rung != "context":
            num_channels = config.num_latents if config.rung == "factorized" else config.num_filters
            self._prior = ChannelTables(num_channels, _below("prior.", tables))
        self._coder: SymbolCoder | None = None
        self.networks = EntropyNetworks([], None, threads)
        if config.rung != "factorized":
            self._coder = SymbolCoder(
                WindowTables(DensityLayout(config), config.num_latents, _below("latents.", tables))
            )
            self.networks = EntropyNetworks(*_frozen(config, state), threads)
        self.fingerprint = fingerprint(config, self._decoder_arrays(state))

    def __repr__(self) -> str:
        return f"<RuntimeCodec {self.fingerprint.hex()}: {self.config.rung}, in onnxruntime>"

    @property
    def num_levels(self) -> int:
        """Levels of rate; 1 for a model of one rate."""
        return self.config.num_levels

    def compress(
        self,
        image: Samples | Image.Image,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        size: int | None = None,
        psnr: float | None = None,
        effort: int = 0,
    ) -> bytes:
        """Image -> file, see `Codec.compress`; an array (H, W, 3) uint8 or a Pillow image, and `effort` 0."""
        return self.encode(image, Target(quality, bpp, size, psnr), effort=effort).data

    def encode(
        self,
        image: Samples | Image.Image,
        target: Target | None = None,
        *,
        effort: int = 0,
        progress: object = None,
        icc: bytes | None = None,
    ) -> Encoded[IntArray]:
        """As `compress`, with the latents.

        Raises:
            TargetError, ValueError: see `Codec.compress`.
        """
        target = target or Target()
        check_target(target, self.num_levels)
        if effort:
            raise ValueError(f"effort {effort}: {NO_SEARCH}")
        rgb, own_icc = array_from(image)
        analysed = RuntimeAnalysed(self.pixels, np.ascontiguousarray(rgb.transpose(2, 0, 1)))
        encoder = ImageEncoder(analysed, self._write, self.fingerprint, own_icc if icc is None else icc)
        return encoder.encode(None) if self.num_levels == 1 else encode_to_target(encoder, target, self.num_levels)

    @overload
    def decompress(
        self, data: bytes, max_pixels: int = ..., *, as_: Literal["numpy"] = ..., max_seconds: float | None = ...
    ) -> Samples: ...
    @overload
    def decompress(
        self, data: bytes, max_pixels: int = ..., *, as_: Literal["pil"], max_seconds: float | None = ...
    ) -> Image.Image: ...
    def decompress(
        self,
        data: bytes,
        max_pixels: int = ACCEPTED_PIXELS,
        *,
        as_: Kind = "numpy",
        max_seconds: float | None = None,
    ) -> Samples | Image.Image:
        """Decompress a file, see `Codec.decompress`: "numpy" returns (H, W, 3) uint8, "pil" a Pillow image.

        Raises:
            BitstreamError: if the data is not a valid file of this model; the message says what to do.
        """
        decoded = self.decode(data, max_pixels, max_seconds)
        return image_from(decoded.image, decoded.icc, as_)

    def decompress_all(self, files: Iterable[bytes], max_pixels: int = ACCEPTED_PIXELS) -> list[Samples]:
        """Several files, in their order, some in lockstep at a time: (H, W, 3) uint8 each.

        Raises:
            BitstreamError: one of them is no valid file of this model.
        """
        decoded = (one for group in lockstep_groups(files, max_pixels) for one in self.decode_all(group, max_pixels))
        return [np.ascontiguousarray(one.image.transpose(1, 2, 0)) for one in decoded]

    def decode(
        self, data: bytes, max_pixels: int = ACCEPTED_PIXELS, max_seconds: float | None = None
    ) -> RuntimeDecoded:
        """Decompress a file and return the image together with its latents; see `decompress`."""
        return self.decode_all([data], max_pixels, max_seconds)[0]

    def decode_all(
        self, files: Sequence[bytes], max_pixels: int = ACCEPTED_PIXELS, max_seconds: float | None = None
    ) -> list[RuntimeDecoded]:
        """Decode several files in lockstep; see `Codec.decode_all`.

        Raises:
            BitstreamError: if one of them is not a valid file of this model, or the time is up.
        """
        deadline = Deadline(max_seconds)
        has_context = self.networks.context is not None
        opened = [open_file(data, max_pixels, self.fingerprint, self.num_levels, has_context) for data in files]
        tasks: list[DecodeTask[IntArray]] = []
        for one in opened:
            reader, z_hat = Reader(one.payload), None
            if self._coder is not None and self._prior is not None:
                z_hat = self._prior.read_channels(reader, *one.hyper_shape)
            tasks.append(DecodeTask(reader, *one.shape, z_hat, one.span))
        decoded = []
        for one, task, y_hat in zip(opened, tasks, self._read(tasks, deadline.check), strict=True):
            deadline.check()
            header = one.header
            level = check_latents(header, task.reader, y_hat)
            image = self.pixels.synthesise(y_hat, header.height, header.width, level)
            image = to_gray(image) if header.is_gray else image
            decoded.append(RuntimeDecoded(image, y_hat, task.z_hat, header.icc, level))
        return decoded

    def reconstruct(self, y_hat: IntArray, height: int, width: int, level: float | None) -> Samples:
        """g_s: latents (M, h, w) -> (3, height, width), before `to_gray`."""
        return self.pixels.synthesise(y_hat, height, width, level)

    def _read(self, tasks: Sequence[DecodeTask[IntArray]], check: Callable[[], None]) -> list[IntArray]:
        if self._coder is None:
            assert self._prior is not None
            return [self._prior.read_channels(task.reader, task.height, task.width) for task in tasks]
        span = common_range(tasks)
        shapes = [(task.height, task.width) for task in tasks]
        z_hats = [task.z_hat for task in tasks]
        frame = self.networks.frame(shapes, z_hats, span, self.config.num_latents)
        return self._coder.read_frame(tasks, frame, check)

    def _write(self, writer: Writer, y_hat: IntArray, z_hat: IntArray | None) -> None:
        if self._coder is None:
            assert self._prior is not None
            self._prior.write_channels(writer, y_hat)
            return
        if self._prior is not None and z_hat is not None:
            self._prior.write_channels(writer, z_hat)
        span = LatentRange(int(y_hat.min()), int(y_hat.max()))
        frame = self.networks.frame([(y_hat.shape[1], y_hat.shape[2])], [z_hat], span, self.config.num_latents)
        self._coder.write_frame(writer, frame, y_hat, span)

    def _decoder_arrays(self, state: Mapping[str, Float32Array]) -> Iterator[npt.NDArray[np.generic]]:
        """All that a decoder uses, for the fingerprint."""
        for position in range(7):
            names = ("weight", "bias") if position % 2 == 0 else ("beta", "gamma")
            yield from (state[f"g_s.{position}.{name}"] for name in names)
        if self.num_levels > 1:
            yield from (state[f"gains.{name}"] for name in ("gain", "offset"))
        if self._prior is not None:
            yield from self._prior.arrays()
        if self._coder is not None:
            yield from self._coder.tables.arrays()
        for layer in self.networks.layers():
            yield from layer.arrays()


def load_runtime(model: str | Path | None = None, *, metric: Metric | None = None, threads: int = 0) -> RuntimeCodec:
    """The codec of a bundled model or an export, in onnxruntime.

    Args:
        model: the path of an export, or the name of a bundled model; None takes a bundled one.
        metric: what the bundled model was trained for; None takes the first. Not together with a model.
        threads: of the processor; 0 for one per core.

    Raises:
        ExportError: no usable export there.
    """
    path = locate(model, metric)
    if not is_export(path):
        raise ExportError(f"{path}: onnxruntime reads exports only; make one with `jahp export`")
    stored = read_weights(path)
    try:
        codec = RuntimeCodec(stored.config, stored.state, stored.tables, threads)
    except (FreezeError, ValueError) as error:
        raise ExportError(f"{path}: {error}") from None
    except (KeyError, IndexError) as error:
        raise ExportError(f"{path}: model.safetensors does not fit config.json: {error} is missing") from None
    if codec.fingerprint != stored.fingerprint:
        raise ExportError(
            f"{path}: freezes to model {codec.fingerprint.hex()}, but was exported as {stored.fingerprint.hex()}; use "
            "the jahp_pl that exported it, or export the model again"
        )
    return codec


def _frozen(config: ModelConfig, state: Mapping[str, Float32Array]) -> tuple[list[FrozenLayer], FrozenContext | None]:
    """h_s, g_cm and g_ep, if the rung has them."""
    magnitudes, h_s, context = config.rung == "scale_hyperprior", [], None
    if config.rung != "context":
        slope = 0.0 if magnitudes else LEAKY
        h_s = freeze_hyper_synthesis([
            _trained(state, "h_s.0", slope, is_transposed=True),
            _trained(state, "h_s.2", slope, is_transposed=True),
            _trained(state, "h_s.4", 1.0),
        ])  # fmt: skip
    if config.rung in ("context", "joint"):
        live = state["g_cm.weight"].transpose(2, 1, 0)  # (12, M, 2M)
        g_cm = TrainedLayer("g_cm", live, state["g_cm.bias"], 1.0)
        g_ep = [_trained(state, f"g_ep.{position}", 1.0 if position == 4 else LEAKY) for position in (0, 2, 4)]
        context = freeze_context(g_cm, KERNEL_SIDE, g_ep, config.rung == "joint")
    return h_s, context


def _trained(state: Mapping[str, Float32Array], name: str, slope: float, is_transposed: bool = False) -> TrainedLayer:
    taps = conv_taps(state[f"{name}.weight"], is_transposed)
    return TrainedLayer(name, taps, state[f"{name}.bias"], slope)


def _below(prefix: str, tables: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    return {name.removeprefix(prefix): table for name, table in tables.items() if name.startswith(prefix)}
