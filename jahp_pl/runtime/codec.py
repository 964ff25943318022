"""`RuntimeCodec`: compresses images to the bytes of a file and back without torch, in numpy and onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.array_images import from_array, to_array
from jahp_pl.codec.arrays import Float32Array, Float64Array, IntArray, Samples
from jahp_pl.codec.base import BaseCodec
from jahp_pl.codec.decoder import DecodedLatents, open_file, reconstruct_image
from jahp_pl.codec.encoder import ImageEncoder
from jahp_pl.codec.entropy.channel_tables import ChannelTables
from jahp_pl.codec.entropy.range_coder import Reader, Writer
from jahp_pl.codec.entropy.symbol_coder import DecodeTask, LatentRange, SymbolCoder, common_range
from jahp_pl.codec.entropy.window_tables import WindowTables
from jahp_pl.codec.fingerprint import fingerprint
from jahp_pl.codec.latents import Decoded, Encoded
from jahp_pl.codec.limits import Deadline
from jahp_pl.codec.rate_control import encode_to_target
from jahp_pl.codec.table_names import LATENTS_PREFIX, PRIOR_PREFIX, join_tables, tables_with_prefix
from jahp_pl.codec.targets import Target, check_target
from jahp_pl.config import ModelConfig
from jahp_pl.density_layout import DensityLayout
from jahp_pl.runtime.integer_networks import IntegerNetworks, convert_networks
from jahp_pl.runtime.networks import EntropyNetworks, TransformNetworks
from jahp_pl.runtime.transforms import MEMORY_LIMIT, RuntimeAnalyzedImage, RuntimeTransforms
from jahp_pl.runtime.weight_shapes import check_parts

if TYPE_CHECKING:
    from PIL import Image

    from jahp_pl.codec.codec import Codec
    from jahp_pl.codec.image_types import ImageKind
    from jahp_pl.codec.search.refinement import Progress

NO_SEARCH = "onnxruntime only rounds latents; use effort 0, or the torch runtime"


class RuntimeCodec(BaseCodec["Samples | Image.Image", Samples, IntArray]):
    """Codec of an exported model, whose networks run in onnxruntime.

    Guarantees: it decodes files from the same model's `codec.Codec` to the same latents, to the last bit, and vice
    versa; pixels agree up to float32 rounding, i.e. they differ by at most 1. A codec is stateless: no call changes it.

    Args:
        config: architecture; the transform must be the paper's.
        state: weights by name, see `weights.StoredModel`.
        tables: coding tables, see `Codec.tables`.
        threads: number of CPU threads; 0 for one per core.

    Raises:
        UnusableModelError: if weights are not finite or too large for exact arithmetic, or the tables belong to another
            model.
        KeyError: if a weight or a table is missing.
        ValueError: if the density or a network is not one of the package's own.
    """

    runtime: ClassVar[Literal["onnx"]] = "onnx"
    """Library that runs the networks."""
    default_kind = "numpy"

    def __init__(
        self,
        config: ModelConfig,
        state: Mapping[str, Float32Array],
        tables: Mapping[str, Float64Array],
        threads: int = 0,
    ) -> None:
        check_parts(config)
        self.config = config
        self._state, self._tables, self._threads = state, tables, threads
        gain, offset = (state.get(f"gains.{name}") for name in ("gain", "offset"))
        networks = TransformNetworks(state, config.entropy_model == "scale_hyperprior", threads)
        self.transforms = RuntimeTransforms(networks, config, gain, offset, MEMORY_LIMIT)
        self._prior: ChannelTables | None = None
        if config.entropy_model != "context":
            num_channels = config.num_latents if config.entropy_model == "factorized" else config.num_filters
            self._prior = ChannelTables(num_channels, tables_with_prefix(PRIOR_PREFIX, tables))
        self._coder: SymbolCoder | None = None
        integer_networks = IntegerNetworks([], None)
        if config.entropy_model != "factorized":
            self._coder = SymbolCoder(
                WindowTables(DensityLayout(config), config.num_latents, tables_with_prefix(LATENTS_PREFIX, tables))
            )
            integer_networks = convert_networks(config, state)
        self.networks = EntropyNetworks(integer_networks, threads)
        self.fingerprint = fingerprint(config, self._decoder_arrays(state))

    def __reduce__(self) -> tuple[type[RuntimeCodec], tuple[object, ...]]:
        """Pickle and copy a codec as its constructor's arguments, from which it is rebuilt."""
        return type(self), (self.config, dict(self._state), dict(self._tables), self._threads)

    def __repr__(self) -> str:
        return f"<RuntimeCodec {self.fingerprint.hex()}: {self.config.entropy_model}, in onnxruntime>"

    def table_names(self) -> set[str]:
        """Return the names of the tables that this codec uses, as in `Codec.tables`."""
        prior = {} if self._prior is None else self._prior.tables_to_store()
        latents = {} if self._coder is None else self._coder.tables.tables_to_store()
        return set(join_tables(prior, latents))

    @property
    def num_parameters(self) -> int:
        """Number of parameters of all networks, without the masked taps of g_cm."""
        return sum(self._state[name].size for name in self._state)

    @property
    def num_levels(self) -> int:
        """Number of rate levels; 1 for a single-rate model."""
        return self.config.num_levels

    def encode(
        self,
        image: Samples | Image.Image,
        target: Target | None = None,
        *,
        effort: int = 0,
        progress: Progress | None = None,
        icc: bytes | None = None,
        measure: bool = False,
    ) -> Encoded[IntArray]:
        """Compress an image and return the file together with its latents; see `BaseCodec.encode`.

        `progress` is ignored.

        Raises:
            TargetError: see `compress`.
            ValueError: see `compress`; also if the effort is not 0.
        """
        target = target or Target()
        check_target(target, self.num_levels)
        if effort:
            raise ValueError(f"effort {effort}: {NO_SEARCH}")
        rgb, own_icc = to_array(image)
        analyzed = RuntimeAnalyzedImage(self.transforms, np.ascontiguousarray(rgb.transpose(2, 0, 1)))
        icc = own_icc if icc is None else icc
        encoder = ImageEncoder(analyzed, self._write, self.fingerprint, icc, measure=measure)
        return encode_to_target(encoder, target, self.num_levels)

    def _read_latents(
        self, files: Sequence[bytes], max_pixels: int | None, deadline: Deadline
    ) -> list[DecodedLatents[IntArray]]:
        """Read the latents of several files in lockstep, before the deadline; see `decode_all`."""
        has_context = self.networks.integer_networks.context is not None
        opened = [open_file(data, max_pixels, self.fingerprint, self.num_levels, has_context) for data in files]
        tasks: list[DecodeTask[IntArray]] = []
        for file in opened:
            reader, z_hat = Reader(file.payload), None
            if self._coder is not None and self._prior is not None:
                z_hat = self._prior.read_channels(reader, *file.hyper_shape)
            tasks.append(DecodeTask(reader, *file.shape, z_hat, file.latent_range))
        y_hats = self._read(tasks, deadline.check)
        return [DecodedLatents(*parts) for parts in zip(opened, tasks, y_hats, strict=True)]

    def _reconstruct(self, latents: DecodedLatents[IntArray], deadline: Deadline) -> Decoded[Samples, IntArray]:
        """Compute the image of a file before the deadline."""
        deadline.check()
        file, task, y_hat = latents
        image, level = reconstruct_image(file.header, task.reader, y_hat, self.transforms.synthesize)
        return Decoded(image, y_hat, task.z_hat, file.header.icc, level)

    def _to_kind(self, decoded: Decoded[Samples, IntArray], kind: ImageKind) -> Samples | Image.Image:
        if kind == "tensor":
            raise ValueError(
                "as_='tensor': the onnx runtime has no tensors; use 'numpy' or 'pil', or the torch runtime"
            )
        return from_array(decoded.image, decoded.icc, kind)

    def reconstruct(self, y_hat: IntArray, height: int, width: int, level: float | None) -> Samples:
        """Reconstruct the image from latents (M, h, w): (3, height, width) uint8, before `encoder.to_gray`."""
        return self.transforms.synthesize(y_hat, height, width, level)

    def _read(self, tasks: Sequence[DecodeTask[IntArray]], check: Callable[[], None]) -> list[IntArray]:
        if self._coder is None:
            assert self._prior is not None
            return [self._prior.read_channels(task.reader, task.height, task.width) for task in tasks]
        latent_range = common_range(tasks)
        shapes = [(task.height, task.width) for task in tasks]
        z_hats = [task.z_hat for task in tasks]
        batch = self.networks.batch(shapes, z_hats, latent_range, self.config.num_latents)
        return self._coder.read_batch(tasks, batch, check)

    def _write(self, writer: Writer, y_hat: IntArray, z_hat: IntArray | None) -> None:
        if self._coder is None:
            assert self._prior is not None
            self._prior.write_channels(writer, y_hat)
            return
        if self._prior is not None and z_hat is not None:
            self._prior.write_channels(writer, z_hat)
        latent_range = LatentRange.of(y_hat)
        batch = self.networks.batch([(y_hat.shape[1], y_hat.shape[2])], [z_hat], latent_range, self.config.num_latents)
        self._coder.write_batch(writer, batch, y_hat, latent_range)

    def _decoder_arrays(self, state: Mapping[str, Float32Array]) -> Iterator[npt.NDArray[np.generic]]:
        """Yield everything that a decoder uses, for the fingerprint."""
        for position in range(7):
            names = ("weight", "bias") if position % 2 == 0 else ("beta", "gamma")
            yield from (state[f"g_s.{position}.{name}"] for name in names)
        if self.num_levels > 1:
            yield from (state[f"gains.{name}"] for name in ("gain", "offset"))
        if self._prior is not None:
            yield from self._prior.fingerprint_arrays()
        if self._coder is not None:
            yield from self._coder.tables.fingerprint_arrays()
        for layer in self.networks.integer_networks.layers():
            yield from layer.fingerprint_arrays()


if TYPE_CHECKING:
    AnyCodec = Codec | RuntimeCodec
