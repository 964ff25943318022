"""`Codec`: compresses images to files and back in torch, for every entropy model, density and image size."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from jahp_pl.codec.analyzed_image import TorchAnalyzedImage
from jahp_pl.codec.arrays import IntArray, Samples
from jahp_pl.codec.base import BaseCodec
from jahp_pl.codec.decoder import DecodedLatents, OpenedFile, open_file, reconstruct_image
from jahp_pl.codec.devices import on_cpu
from jahp_pl.codec.encoder import ImageEncoder
from jahp_pl.codec.entropy.integer_layers import UnusableModelError
from jahp_pl.codec.entropy.latent_coder import LatentCoder
from jahp_pl.codec.entropy.latent_tables import LatentTables
from jahp_pl.codec.entropy.networks import ExactContextNetwork, ExactHyperSynthesis
from jahp_pl.codec.entropy.prior_tables import PriorTables
from jahp_pl.codec.entropy.range_coder import Reader, Writer
from jahp_pl.codec.entropy.symbol_coder import DecodeTask
from jahp_pl.codec.fingerprint import fingerprint
from jahp_pl.codec.forks import check_not_forked
from jahp_pl.codec.image_types import from_pixels, to_pixels
from jahp_pl.codec.latents import Decoded, Encoded
from jahp_pl.codec.limits import Deadline
from jahp_pl.codec.rate_control import encode_to_target
from jahp_pl.codec.search import refinement
from jahp_pl.codec.table_names import LATENTS_PREFIX, PRIOR_PREFIX, join_tables, tables_with_prefix
from jahp_pl.codec.targets import Target, check_target
from jahp_pl.codec.torch_settings import retry_if_precision_changed
from jahp_pl.codec.transforms.runner import MEMORY_LIMIT, Precision, TransformRunner
from jahp_pl.config import LossConfig
from jahp_pl.model import CompressionModel
from jahp_pl.ops import is_finite

if TYPE_CHECKING:
    from PIL import Image

    from jahp_pl.codec.image_types import ImageKind, ImageLike


class Codec(BaseCodec["ImageLike", Tensor, Tensor]):
    """Codec of a trained model: compresses images to files and decompresses them.

    Guarantees: on any machine with the same weights and tables, `decompress(compress(image))` recovers the encoder's
    latents to the last bit, and the image is the model's own evaluation-mode reconstruction (up to float32 rounding),
    clipped and rounded to 8 bits. A file of another model is refused. A codec is stateless: no call changes its tables.
    docs/exact-arithmetic.md explains how, docs/file-format.md describes the files.

    Args:
        model: trained model, copied in float32; later training does not change the codec. All networks run on the
            model's device, and range coding on the CPU.
        tables: `tables()` of a codec of the same model. If None, they are computed on this machine, whose exp may
            differ from another machine's in the last bit.
        precision: precision of the convolutions of g_a and g_s. It affects which latents the encoder finds and the last
            bits of the decoded pixels, never whether a file decodes.
        memory_limit: bytes that the transforms may use at a time, in addition to the image and its latents; larger
            images are processed in overlapping tiles, without seams.
        objective: training objective of the model, which the search for better latents minimizes. If None, every effort
            above 0 is an error.

    Attributes:
        fingerprint: 8 bytes that identify the weights and tables; they are in every file.
        model: the copy of the model, in evaluation mode.
        device: device of the networks.
        objective: the argument above.

    Raises:
        UnusableModelError: if weights are not finite or too large for exact arithmetic, or the tables belong to another
            model.
        ValueError: if the precision is unknown.
        MemoryLimitError: if not even one tile fits the memory limit.
    """

    runtime: ClassVar[Literal["torch"]] = "torch"
    """Library that runs the networks."""
    default_kind = "tensor"

    @on_cpu()
    def __init__(
        self,
        model: CompressionModel,
        tables: Mapping[str, Tensor] | None = None,
        precision: Precision = "float32",
        memory_limit: int = MEMORY_LIMIT,
        objective: LossConfig | None = None,
    ) -> None:
        if precision not in get_args(Precision):
            raise ValueError(f"precision {precision!r}: must be one of {', '.join(get_args(Precision))}")
        _check_finite(model)
        self.objective = objective
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.precision = precision
        self.device = next(self.model.parameters()).device
        self.transforms = TransformRunner(self.model, precision, memory_limit)
        self.prior: PriorTables | None = None
        if self.model.prior is not None:
            self.prior = PriorTables(self.model.prior, _stored(tables, PRIOR_PREFIX))
        self.latents: LatentCoder | None = None
        if model.config.entropy_model != "factorized":
            m = self.model
            h_s = ExactHyperSynthesis(m.h_s) if m.h_s is not None else None
            context = None
            if m.g_cm is not None and m.g_ep is not None:
                context = ExactContextNetwork(m.g_cm, m.g_ep, has_psi=h_s is not None)
            latent_tables = LatentTables(m.density, m.config.num_latents, _stored(tables, LATENTS_PREFIX))
            self.latents = LatentCoder(h_s, context, latent_tables)
        self.fingerprint = fingerprint(self.model.config, self._decoder_arrays())

    def __reduce__(self) -> tuple[type[Codec], tuple[object, ...]]:
        """Pickle and copy a codec as its constructor's arguments, from which it is rebuilt."""
        return type(self), (self.model, self.tables(), self.precision, self.transforms.memory_limit, self.objective)

    def __repr__(self) -> str:
        config = self.model.config
        return (
            f"<Codec {self.fingerprint.hex()}: {config.entropy_model}, N = {config.num_filters}, "
            f"M = {config.num_latents}, on {self.device}>"
        )

    @property
    def num_levels(self) -> int:
        """Number of rate levels; 1 for a single-rate model."""
        return self.model.config.num_levels

    @on_cpu()
    @retry_if_precision_changed
    @torch.inference_mode()
    def encode(
        self,
        image: ImageLike,
        target: Target | None = None,
        *,
        effort: int = 0,
        progress: refinement.Progress | None = None,
        icc: bytes | None = None,
        measure: bool = False,
    ) -> Encoded[Tensor]:
        """Compress an image and return the file together with its latents; see `BaseCodec.encode`.

        Raises:
            TargetError, ValueError: see `compress`.
            ForkError: if a parent process had used a codec before this one was forked.
            PrecisionError: if another thread keeps changing torch's float32 matmul precision.
        """
        check_not_forked()
        target = target or Target()
        check_target(target, self.num_levels)
        search = refinement.search_for_effort(effort, self.objective)
        x, own_icc = to_pixels(image)
        icc = own_icc if icc is None else icc
        refiner: refinement.Refiner | None = None
        if search is not None and self.objective is not None:
            refiner = refinement.Refiner(self.model, self.transforms, x, self.objective, search, progress)
        analyzed = TorchAnalyzedImage(self.transforms, x, refiner)
        encoder = ImageEncoder(analyzed, self._write_arrays, self.fingerprint, icc, refiner is not None, measure)
        file = encode_to_target(encoder, target, self.num_levels)
        z_hat = None if file.z_hat is None else torch.from_numpy(file.z_hat)
        y_hat = torch.from_numpy(file.y_hat)
        return Encoded(file.data, y_hat, z_hat, file.header_bytes, file.level, file.psnr, file.bits)

    @on_cpu()
    @retry_if_precision_changed
    @torch.inference_mode()
    def _read_latents(
        self, files: Sequence[bytes], max_pixels: int | None, deadline: Deadline
    ) -> list[DecodedLatents[Tensor]]:
        """Read the latents of several files in lockstep, before the deadline; see `decode_all`."""
        check_not_forked()
        opened = [self._open(data, max_pixels) for data in files]
        if self.latents is None:
            assert self.prior is not None
            y_hats = [self.prior.read(task.reader, task.height, task.width) for _, task in opened]
        else:
            y_hats = self.latents.read([task for _, task in opened], deadline.check)
        return [DecodedLatents(file, task, y_hat) for (file, task), y_hat in zip(opened, y_hats, strict=True)]

    @on_cpu()
    @retry_if_precision_changed
    @torch.inference_mode()
    def _reconstruct(self, latents: DecodedLatents[Tensor], deadline: Deadline) -> Decoded[Tensor, Tensor]:
        """Compute the image of a file before the deadline."""
        file, task, y_hat = latents
        synthesize = functools.partial(self._synthesize, check=deadline.check)
        image, level = reconstruct_image(file.header, task.reader, y_hat.numpy(), synthesize)
        return Decoded(torch.from_numpy(image), y_hat, task.z_hat, file.header.icc, level)

    def _to_kind(self, decoded: Decoded[Tensor, Tensor], kind: ImageKind) -> Tensor | Samples | Image.Image:
        return from_pixels(decoded.image, decoded.icc, kind)

    @on_cpu()
    @torch.inference_mode()
    def reconstruct(self, y_hat: IntArray, height: int, width: int, level: float | None) -> Samples:
        """Apply g_s: latents (M, h, w) -> (3, height, width) uint8, before `encoder.to_gray`."""
        return self._synthesize(y_hat, height, width, level)

    def _synthesize(
        self, y_hat: IntArray, height: int, width: int, level: float | None, check: Callable[[], None] = lambda: None
    ) -> Samples:
        image: Samples = self.transforms.synthesize(torch.from_numpy(y_hat), height, width, level, check).numpy()
        return image

    @retry_if_precision_changed
    def exact_bits(self, coded: Encoded[Tensor] | Decoded[Tensor, Tensor]) -> float:
        """Compute the cross-entropy of the latents under the codec's exact parameters, in bits.

        A file also holds its header and the range coder's final words, which are not counted.

        Args:
            coded: result of `encode` or `decode`.
        """
        writer = Writer(measure=True)
        self._write(writer, coded.y_hat, coded.z_hat)
        return writer.bits

    @on_cpu()
    @torch.inference_mode()
    def _write(self, writer: Writer, y_hat: Tensor, z_hat: Tensor | None) -> None:
        if self.latents is None:
            assert self.prior is not None
            self.prior.write(writer, y_hat)
            return
        if self.prior is not None and z_hat is not None:
            self.prior.write(writer, z_hat)
        self.latents.write(writer, y_hat, z_hat)

    def _write_arrays(self, writer: Writer, y_hat: IntArray, z_hat: IntArray | None) -> None:
        self._write(writer, torch.from_numpy(y_hat), None if z_hat is None else torch.from_numpy(z_hat))

    def _open(self, data: bytes, max_pixels: int | None) -> tuple[OpenedFile, DecodeTask[Tensor]]:
        """Check a file and read its side information."""
        has_context = self.latents is not None and self.latents.context is not None
        opened = open_file(data, max_pixels, self.fingerprint, self.num_levels, has_context)
        reader, z_hat = Reader(opened.payload), None
        if self.latents is not None and self.prior is not None:
            z_hat = self.prior.read(reader, *opened.hyper_shape)
        return opened, DecodeTask(reader, *opened.shape, z_hat, opened.latent_range)

    @on_cpu()
    def tables(self) -> dict[str, Tensor]:
        """Return, by name, the tables that were computed with exp and erf, to be stored with the weights."""
        prior = {} if self.prior is None else self.prior.tables_to_store()
        latents = {} if self.latents is None else self.latents.tables.tables_to_store()
        return {name: torch.from_numpy(table) for name, table in join_tables(prior, latents).items()}

    def _decoder_arrays(self) -> Iterator[npt.NDArray[np.generic]]:
        """Yield everything that a decoder uses, for the fingerprint."""
        for network in (self.model.g_s, self.model.gains):
            for tensor in [] if network is None else network.state_dict().values():
                yield tensor.detach().cpu().numpy()
        if self.prior is not None:
            yield from self.prior.fingerprint_arrays()
        if self.latents is not None:
            yield from self.latents.tables.fingerprint_arrays()
            for layer in self.latents.layers():
                yield from layer.fingerprint_arrays()


def _stored(tables: Mapping[str, Tensor] | None, prefix: str) -> dict[str, npt.NDArray[np.float64]] | None:
    """Select the stored tables of the prior or of the latents, as arrays; None if all are to be computed."""
    return (
        None if tables is None else {name: table.numpy() for name, table in tables_with_prefix(prefix, tables).items()}
    )


def _check_finite(model: nn.Module) -> None:
    """Check that every weight is finite.

    Raises:
        UnusableModelError: if one is not.
    """
    for name, tensor in model.state_dict().items():
        if not is_finite(tensor):
            raise UnusableModelError(
                f"{name}: has weights that are not finite; the model is damaged or diverged; use an earlier checkpoint"
            )
