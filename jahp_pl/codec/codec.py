"""Codec: an image to the bytes of a file and back, for every rung, density and size."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from jahp_pl import hyperprior, transforms
from jahp_pl.codec.bitstream import LATENT_MAX, LATENT_MIN, MAX_PIXELS, BitstreamError, Header, pack, unpack
from jahp_pl.codec.coder import Reader, Writer
from jahp_pl.codec.exact import ExactContextNetwork, ExactHyperSynthesis
from jahp_pl.codec.fingerprint import fingerprint
from jahp_pl.codec.latent_coder import LatentCoder, Span, Task
from jahp_pl.codec.latent_tables import LatentTables
from jahp_pl.codec.pictures import Kind, from_pixels, to_pixels
from jahp_pl.codec.pixels import MEMORY_LIMIT, PixelTransforms, Precision
from jahp_pl.codec.precision import again_if_disturbed
from jahp_pl.codec.prior_tables import PriorTables
from jahp_pl.model import CompressionModel

if TYPE_CHECKING:
    from PIL import Image

    from jahp_pl.codec.pictures import Picture

PRIOR, LATENTS = "prior.", "latents."
"""Prefixes of the names in `Codec.tables`."""
LOCKSTEP_PIXELS = 2**23
"""Of images that `Codec.decompress_all` decodes at a time: their entropy parameters take 90 MB at 192 latents."""

Array = npt.NDArray[np.uint8]


class Encoded(NamedTuple):
    """A file and what went into it."""

    data: bytes
    """The whole file."""
    y_hat: Tensor
    """(M, h, w) int32: the latents in it."""
    z_hat: Tensor | None
    """(N, ceil(h / 4), ceil(w / 4)) int32: the hyper-latents in it."""
    header_bytes: int
    """Bytes of the file that are not payload."""


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

    Raises:
        FreezeError: weights that are not finite or beyond exact arithmetic, or tables of another model.
        ValueError: a memory limit that not even a single tile fits.
    """

    def __init__(
        self,
        model: CompressionModel,
        tables: Mapping[str, Tensor] | None = None,
        precision: Precision = "float32",
        memory_limit: int = MEMORY_LIMIT,
    ) -> None:
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        self.device = next(self.model.parameters()).device
        self.pixels = PixelTransforms(self.model, precision, memory_limit)
        self.prior: PriorTables | None = None
        if self.model.prior is not None:
            self.prior = PriorTables(self.model.prior, _below(PRIOR, tables))
        self.latents: LatentCoder | None = None
        if model.config.rung != "factorized":
            m = self.model
            h_s = ExactHyperSynthesis(m.h_s) if m.h_s is not None else None
            context = None
            if m.g_cm is not None and m.g_ep is not None:
                context = ExactContextNetwork(m.g_cm, m.g_ep, has_psi=h_s is not None)
            frozen = LatentTables(m.density, m.config.num_latents, _below(LATENTS, tables))
            self.latents = LatentCoder(h_s, context, frozen)
        self.fingerprint = fingerprint(self.model, self.prior, self.latents)

    def compress(self, image: Picture) -> bytes:
        """Image -> file.

        Args:
            image: (3, H, W) uint8 tensor, (H, W, 3) uint8 array, or Pillow image; sides from 1 to 65535. Numbers are
                taken for sRGB; a Pillow image of any kind is made RGB as `jahp compress` does, and its colour profile
                goes into the file.

        Raises:
            ValueError: another shape or type, transparent pixels, or latents beyond 16 bits.
        """
        return self.encode(image).data

    def compress_all(self, images: Iterable[Picture]) -> list[bytes]:
        """Several images, in their order: a list, a (B, 3, H, W) tensor, a (B, H, W, 3) array.

        Raises:
            ValueError: as `compress`.
        """
        return [self.compress(image) for image in images]

    @overload
    def decompress(self, data: bytes, max_pixels: int = ..., *, as_: Literal["tensor"] = ...) -> Tensor: ...
    @overload
    def decompress(self, data: bytes, max_pixels: int = ..., *, as_: Literal["numpy"]) -> Array: ...
    @overload
    def decompress(self, data: bytes, max_pixels: int = ..., *, as_: Literal["pil"]) -> Image.Image: ...
    def decompress(
        self, data: bytes, max_pixels: int = MAX_PIXELS, *, as_: Kind = "tensor"
    ) -> Tensor | Array | Image.Image:
        """File -> image.

        Args:
            data: the whole file.
            max_pixels: largest image to accept; memory is taken in proportion to the size that the file claims.
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
        self, files: Iterable[bytes], max_pixels: int = MAX_PIXELS, *, as_: Kind = "tensor"
    ) -> list[Tensor] | list[Array] | list[Image.Image]:
        """Several files, in their order, some in lockstep at a time; see `decompress`.

        Raises:
            BitstreamError: one of them is no valid file of this model.
        """
        groups = _groups(files, max_pixels)
        decoded = (one for group in groups for one in self.decode_all(group, max_pixels))
        return [from_pixels(one.image, one.icc, as_) for one in decoded]  # type: ignore[return-value]

    @again_if_disturbed
    @torch.inference_mode()
    def encode(self, image: Picture) -> Encoded:
        """As `compress`, with the latents."""
        x, icc = to_pixels(image)
        y = self.pixels.analyse(x)
        y_hat = _to_integers(y)
        z_hat = _to_integers(self.pixels.hyper_analyse(y)) if self.model.h_a is not None else None
        writer = Writer()
        self._write(writer, y_hat, z_hat)
        payload = writer.payload()
        header = Header(self.fingerprint, x.shape[-1], x.shape[-2], int(y_hat.min()), int(y_hat.max()), icc)
        data = pack(header, payload)
        return Encoded(data, y_hat, z_hat, len(data) - len(payload))

    def decode(self, data: bytes, max_pixels: int = MAX_PIXELS) -> Decoded:
        """As `decompress`, with the latents."""
        return self.decode_all([data], max_pixels)[0]

    @again_if_disturbed
    @torch.inference_mode()
    def decode_all(self, files: Sequence[bytes], max_pixels: int = MAX_PIXELS) -> list[Decoded]:
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
            image = self.pixels.synthesise(y_hat, header.height, header.width)
            decoded.append(Decoded(image, y_hat, task.z_hat, header.icc))
        return decoded

    @again_if_disturbed
    def exact_bits(self, coded: Encoded | Decoded) -> float:
        """Cross-entropy of the latents under the codec's exact parameters, in bits. The file is longer by the ending of
        the range coder and the header."""
        writer = Writer(measure=True)
        self._write(writer, coded.y_hat, coded.z_hat)
        return writer.bits

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
        h, w = -(-header.height // transforms.STRIDE), -(-header.width // transforms.STRIDE)
        reader, z_hat = Reader(payload), None
        if self.latents is not None and self.prior is not None:
            z_hat = self.prior.read(reader, -(-h // hyperprior.STRIDE), -(-w // hyperprior.STRIDE))
        return header, Task(reader, h, w, z_hat, Span(header.latent_min, header.latent_max))

    def tables(self) -> dict[str, Tensor]:
        """What was made with exp and erf when the model was frozen, to be kept beside its weights, by name."""
        tables = {} if self.prior is None else {f"{PRIOR}{k}": v for k, v in self.prior.frozen().items()}
        if self.latents is not None:
            tables |= {f"{LATENTS}{k}": v for k, v in self.latents.tables.frozen().items()}
        return tables


def _groups(files: Iterable[bytes], max_pixels: int) -> Iterator[list[bytes]]:
    """Files in runs of about `LOCKSTEP_PIXELS`."""
    group: list[bytes] = []
    num_pixels = 0
    for data in files:
        header, _ = unpack(data, max_pixels)
        if group and num_pixels + header.width * header.height > LOCKSTEP_PIXELS:
            yield group
            group, num_pixels = [], 0
        group.append(data)
        num_pixels += header.width * header.height
    if group:
        yield group


def _below(prefix: str, tables: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    """Those whose name starts with the prefix, without it."""
    if tables is None:
        return None
    return {name.removeprefix(prefix): table for name, table in tables.items() if name.startswith(prefix)}


def _to_integers(latents: Tensor) -> Tensor:
    """(1, C, h, w) -> the nearest integers, (C, h, w) int32 on the CPU."""
    rounded = torch.round(latents[0]).cpu()
    if not bool(torch.isfinite(rounded).all()):
        raise ValueError("the model gives latents that are not finite; its weights are damaged or have diverged")
    if float(rounded.abs().max()) > LATENT_MAX:
        raise ValueError(f"latents beyond {LATENT_MIN} to {LATENT_MAX}; the model has diverged")
    return rounded.to(torch.int32)
