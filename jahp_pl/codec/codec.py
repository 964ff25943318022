"""Codec: an image to the bytes of a file and back, for every rung, density and size."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jahp_pl import hyperprior, transforms
from jahp_pl.codec import refinement
from jahp_pl.codec.bitstream import (
    LEVEL_STEPS,
    BitstreamError,
    Header,
    unpack,
)
from jahp_pl.codec.devices import on_cpu
from jahp_pl.codec.encoder import Encoded, ImageEncoder, to_gray
from jahp_pl.codec.entropy.latent_coder import LatentCoder, Span, Task
from jahp_pl.codec.entropy.latent_tables import LatentTables
from jahp_pl.codec.entropy.networks import ExactContextNetwork, ExactHyperSynthesis
from jahp_pl.codec.entropy.prior_tables import PriorTables
from jahp_pl.codec.entropy.range_coder import Reader, Writer
from jahp_pl.codec.entropy.table_checks import below, check_finite
from jahp_pl.codec.entropy.torch_settings import again_if_disturbed
from jahp_pl.codec.fingerprint import fingerprint
from jahp_pl.codec.image_types import Kind, from_pixels, to_pixels
from jahp_pl.codec.limits import ACCEPTED_PIXELS, check_steps
from jahp_pl.codec.lockstep import groups
from jahp_pl.codec.rate_control import encode_to_target
from jahp_pl.codec.targets import Target, check_target
from jahp_pl.codec.transforms.runner import MEMORY_LIMIT, PixelTransforms, Precision
from jahp_pl.config import LossConfig
from jahp_pl.model import CompressionModel

if TYPE_CHECKING:
    from PIL import Image

    from jahp_pl.codec.image_types import Picture

PRIOR, LATENTS = "prior.", "latents."
"""Prefixes of the names in `Codec.tables`."""

Array = npt.NDArray[np.uint8]


class Decoded(NamedTuple):
    """What a file holds."""

    image: Tensor
    """(3, H, W) uint8."""
    y_hat: Tensor
    """(M, h, w) int32."""
    z_hat: Tensor | None
    """(N, ceil(h / 4), ceil(w / 4)) int32."""
    icc: bytes = b""
    """Colour profile of the image; empty for sRGB."""
    level: float | None = None
    """Level of rate; None for a model of one rate."""


class Codec:
    """Compresses images with a trained model.

    Guarantees: `decompress(compress(image))` on any machine with the same frozen model has the latents that the encoder
    had, to the last bit, and the image is the model's own evaluation-mode reconstruction (to the rounding of float32),
    clipped and rounded to 8 bits. A file is decoded by this model's weights or refused. Stateless between calls: no
    table is ever updated.

    Args:
        model: trained weights, copied and frozen in float32; later training does not change the codec. All networks run
            on the device the model is on, range coding on the CPU.
        tables: `tables()` of a codec of the same model; None makes them on this machine, whose exp may differ from
            another's in the last bit.
        precision: of the convolutions of g_a and g_s. It changes the latents that the encoder finds and the last bits
            of the decoder's pixels, never whether a file decodes.
        memory_limit: bytes that the transforms may take at a time, beside the image and its latents; large images then
            pass through in overlapping tiles, without seams.
        objective: what the model was trained for, which a search for better latents goes on to minimize; None makes
            every effort above 0 an error.

    Raises:
        FreezeError: weights that are not finite or beyond exact arithmetic, or tables of another model.
        ValueError: a memory limit that not even a single tile fits.
    """

    @on_cpu()
    def __init__(
        self,
        model: CompressionModel,
        tables: Mapping[str, Tensor] | None = None,
        precision: Precision = "float32",
        memory_limit: int = MEMORY_LIMIT,
        objective: LossConfig | None = None,
    ) -> None:
        check_finite(model)
        self.objective = objective
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.precision = precision
        self.device = next(self.model.parameters()).device
        self.pixels = PixelTransforms(self.model, precision, memory_limit)
        self.prior: PriorTables | None = None
        if self.model.prior is not None:
            self.prior = PriorTables(self.model.prior, below(PRIOR, tables))
        self.latents: LatentCoder | None = None
        if model.config.rung != "factorized":
            m = self.model
            h_s = ExactHyperSynthesis(m.h_s) if m.h_s is not None else None
            context = None
            if m.g_cm is not None and m.g_ep is not None:
                context = ExactContextNetwork(m.g_cm, m.g_ep, has_psi=h_s is not None)
            frozen = LatentTables(m.density, m.config.num_latents, below(LATENTS, tables))
            self.latents = LatentCoder(h_s, context, frozen)
        self.fingerprint = fingerprint(self.model, self.prior, self.latents)

    def __reduce__(self) -> tuple[type[Codec], tuple[object, ...]]:
        """To other processes and by deepcopy travels what a codec is made of; it is made anew there."""
        return type(self), (self.model, self.tables(), self.precision, self.pixels.memory_limit, self.objective)

    def __repr__(self) -> str:
        config = self.model.config
        return (
            f"<Codec {self.fingerprint.hex()}: {config.rung}, N = {config.num_filters}, M = {config.num_latents}, "
            f"on {self.device}>"
        )

    @property
    def num_levels(self) -> int:
        """Levels of rate; 1 for a model of one rate."""
        return self.model.config.num_levels

    def compress(
        self,
        image: Picture,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        size: int | None = None,
        psnr: float | None = None,
        effort: int = 0,
    ) -> bytes:
        """Image -> file.

        Args:
            image: (3, H, W) uint8 tensor, (H, W, 3) uint8 array, or Pillow image; sides from 1 to 65535. Numbers are
                taken for sRGB; a Pillow image of any kind is made RGB as `jahp compress` does, and its colour profile
                goes into the file.
            quality, bpp, size, psnr: for a variable-rate model, at most one of them, see `targets.Target`; without any,
                a quality of 60.
            effort: of the search for better latents, see `refinement.EFFORTS`; 0 rounds them, up to 6 takes minutes.

        Raises:
            TargetError: what is asked for cannot be had; the message says what can.
            ValueError: another shape or type, transparent pixels, latents beyond 16 bits, or an effort that does not
                exist or that lacks an objective.
        """
        return self.encode(image, Target(quality, bpp, size, psnr), effort=effort).data

    def compress_all(
        self,
        images: Iterable[Picture],
        *,
        quality: float | None = None,
        bpp: float | None = None,
        size: int | None = None,
        psnr: float | None = None,
        effort: int = 0,
    ) -> list[bytes]:
        """Several images, in their order: a list, a (B, 3, H, W) tensor, a (B, H, W, 3) array; see `compress`.

        Raises:
            ValueError: as `compress`.
        """
        target = Target(quality, bpp, size, psnr)
        return [self.encode(image, target, effort=effort).data for image in images]

    @overload
    def decompress(self, data: bytes, max_pixels: int = ..., *, as_: Literal["tensor"] = ...) -> Tensor: ...
    @overload
    def decompress(self, data: bytes, max_pixels: int = ..., *, as_: Literal["numpy"]) -> Array: ...
    @overload
    def decompress(self, data: bytes, max_pixels: int = ..., *, as_: Literal["pil"]) -> Image.Image: ...
    def decompress(
        self, data: bytes, max_pixels: int = ACCEPTED_PIXELS, *, as_: Kind = "tensor"
    ) -> Tensor | Array | Image.Image:
        """File -> image.

        Args:
            data: the whole file.
            max_pixels: largest image to accept; memory is taken in proportion to the size that the file claims, and
                time in proportion to that or to the steps of `limits.max_steps`.
            as_: "tensor" for (3, H, W) uint8 on the CPU, "numpy" for (H, W, 3) uint8, "pil" for a Pillow image, which
                alone tells the file's colour profile, as its `info["icc_profile"]`.

        Raises:
            BitstreamError: no valid file of this model; the message says what to do.
        """
        decoded = self.decode(data, max_pixels)
        return from_pixels(decoded.image, decoded.icc, as_)

    @overload
    def decompress_all(
        self, files: Iterable[bytes], max_pixels: int = ..., *, as_: Literal["tensor"] = ...
    ) -> list[Tensor]: ...
    @overload
    def decompress_all(
        self, files: Iterable[bytes], max_pixels: int = ..., *, as_: Literal["numpy"]
    ) -> list[Array]: ...
    @overload
    def decompress_all(
        self, files: Iterable[bytes], max_pixels: int = ..., *, as_: Literal["pil"]
    ) -> list[Image.Image]: ...
    def decompress_all(
        self, files: Iterable[bytes], max_pixels: int = ACCEPTED_PIXELS, *, as_: Kind = "tensor"
    ) -> list[Tensor] | list[Array] | list[Image.Image]:
        """Several files, in their order, some in lockstep at a time; see `decompress`.

        Raises:
            BitstreamError: one of them is no valid file of this model.
        """
        decoded = (one for group in groups(files, max_pixels) for one in self.decode_all(group, max_pixels))
        return [from_pixels(one.image, one.icc, as_) for one in decoded]  # type: ignore[return-value]

    @on_cpu()
    @again_if_disturbed
    @torch.inference_mode()
    def encode(
        self,
        image: Picture,
        target: Target | None = None,
        *,
        effort: int = 0,
        progress: refinement.Progress | None = None,
        icc: bytes | None = None,
    ) -> Encoded:
        """As `compress`, with the latents.

        Args:
            image: see `compress`.
            target: what is asked of the file; None asks for nothing.
            effort: see `compress`.
            progress: called after each step of a search.
            icc: colour profile of the image; None takes that of a Pillow image, and sRGB otherwise.

        Raises:
            TargetError, ValueError: see `compress`.
        """
        target = target or Target()
        check_target(target, self.num_levels)
        search = refinement.search_of(effort, self.objective)
        x, own_icc = to_pixels(image)
        icc = own_icc if icc is None else icc

        refine: refinement.Refiner | None = None
        if search is not None and self.objective is not None:
            refine = refinement.Refiner(self.model, self.pixels, x, self.objective, search, progress)
        encoder = ImageEncoder(self.pixels, self._write, self.fingerprint, x, icc, refine)
        return encoder.encode(None) if self.num_levels == 1 else encode_to_target(encoder, target, self.num_levels)

    def decode(self, data: bytes, max_pixels: int = ACCEPTED_PIXELS) -> Decoded:
        """As `decompress`, with the latents."""
        return self.decode_all([data], max_pixels)[0]

    @on_cpu()
    @again_if_disturbed
    @torch.inference_mode()
    def decode_all(self, files: Sequence[bytes], max_pixels: int = ACCEPTED_PIXELS) -> list[Decoded]:
        """Several files in lockstep, which takes less time for each than one by one, and the memory of all.

        Args:
            files: at least one.
            max_pixels: largest image to accept.

        Raises:
            BitstreamError: one of them is no valid file of this model.
        """
        opened = [self._open(data, max_pixels) for data in files]
        if self.latents is None:
            assert self.prior is not None
            y_hats = [self.prior.read(task.reader, task.height, task.width) for _, task in opened]
        else:
            y_hats = self.latents.read([task for _, task in opened])
        decoded = []
        for (header, task), y_hat in zip(opened, y_hats, strict=True):
            task.reader.finish()
            if not header.latent_min <= int(y_hat.min()) <= int(y_hat.max()) <= header.latent_max:
                raise BitstreamError("the latents leave the range that the header gives; the file was made differently")
            level = None if header.level is None else header.level / LEVEL_STEPS
            image = self.pixels.synthesise(y_hat, header.height, header.width, level)
            image = to_gray(image) if header.is_gray else image
            decoded.append(Decoded(image, y_hat, task.z_hat, header.icc, level))
        return decoded

    @again_if_disturbed
    def exact_bits(self, coded: Encoded | Decoded) -> float:
        """Cross-entropy of the latents under the codec's exact parameters, in bits. The file is longer by the ending of
        the range coder and the header."""
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

    def _open(self, data: bytes, max_pixels: int) -> tuple[Header, Task]:
        """Check a file and read its side information."""
        header, payload = unpack(data, max_pixels)
        if header.fingerprint != self.fingerprint:
            raise BitstreamError(
                f"the file was made with model {header.fingerprint.hex()}, this one is {self.fingerprint.hex()}; "
                "decode it with the weights that made it"
            )
        if (header.level is None) != (self.num_levels == 1) or (header.level or 0) > (
            self.num_levels - 1
        ) * LEVEL_STEPS:
            raise BitstreamError(
                "the file names a level of rate that this model does not have; it was made differently"
            )
        h, w = -(-header.height // transforms.STRIDE), -(-header.width // transforms.STRIDE)
        if self.latents is not None and self.latents.context is not None:
            check_steps(h, w, max_pixels)
        reader, z_hat = Reader(payload), None
        if self.latents is not None and self.prior is not None:
            z_hat = self.prior.read(reader, -(-h // hyperprior.STRIDE), -(-w // hyperprior.STRIDE))
        return header, Task(reader, h, w, z_hat, Span(header.latent_min, header.latent_max))

    @on_cpu()
    def tables(self) -> dict[str, Tensor]:
        """What was made with exp and erf when the model was frozen, to be kept beside its weights, by name."""
        tables = {} if self.prior is None else {f"{PRIOR}{k}": v for k, v in self.prior.frozen().items()}
        if self.latents is not None:
            tables |= {f"{LATENTS}{k}": v for k, v in self.latents.tables.frozen().items()}
        return tables
