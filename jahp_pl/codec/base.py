"""`BaseCodec`: the methods that codecs have in common, whatever library runs the networks. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar, overload

from jahp_pl.codec.arrays import Samples
from jahp_pl.codec.decoder import DecodedLatents
from jahp_pl.codec.latents import Decoded, Encoded, Integers, Rgb
from jahp_pl.codec.limits import Deadline
from jahp_pl.codec.lockstep import decode_in_groups
from jahp_pl.codec.targets import Target

if TYPE_CHECKING:
    from PIL import Image

    from jahp_pl.codec.image_types import ImageKind
    from jahp_pl.codec.search.refinement import Progress

Input = TypeVar("Input")
"""Type of the images that a codec compresses."""


class BaseCodec(ABC, Generic[Input, Rgb, Integers]):
    """Base class of the codecs, which compress images to the bytes of files and decompress them."""

    default_kind: ClassVar[ImageKind]
    """Kind of image that `decompress` returns by default."""

    @property
    @abstractmethod
    def num_levels(self) -> int:
        """Number of rate levels; 1 for a single-rate model."""

    @abstractmethod
    def encode(
        self,
        image: Input,
        target: Target | None = None,
        *,
        effort: int = 0,
        progress: Progress | None = None,
        icc: bytes | None = None,
        measure: bool = False,
    ) -> Encoded[Integers]:
        """Compress an image and return the file together with its latents.

        Args:
            image: see `compress`.
            target: size, quality or rate of the file; None for the default.
            effort: see `compress`.
            progress: called after each step of a search.
            icc: ICC profile of the image; None takes the profile of a Pillow image, and sRGB for all other images.
            measure: whether to measure `Encoded.bits`, which takes a few percent longer.

        Raises:
            TargetError, ValueError: see `compress`.
        """

    @abstractmethod
    def _read_latents(
        self, files: Sequence[bytes], max_pixels: int | None, deadline: Deadline
    ) -> list[DecodedLatents[Integers]]:
        """Read the latents of several files in lockstep, before the deadline; see `decode_all`."""

    @abstractmethod
    def _reconstruct(self, latents: DecodedLatents[Integers], deadline: Deadline) -> Decoded[Rgb, Integers]:
        """Compute the image of a file before the deadline."""

    def _decode_group(
        self, files: Sequence[bytes], max_pixels: int | None, deadline: Deadline
    ) -> Iterator[Decoded[Rgb, Integers]]:
        """Decode several files in lockstep, before the deadline; yield each one once its image is complete."""
        for latents in self._read_latents(files, max_pixels, deadline):
            yield self._reconstruct(latents, deadline)

    @abstractmethod
    def _to_kind(self, decoded: Decoded[Rgb, Integers], kind: ImageKind) -> Any:
        """Convert a decoded image to the requested kind.

        Raises:
            ValueError: if this codec does not return this kind.
        """

    def compress(
        self,
        image: Input,
        *,
        quality: float | None = None,
        bpp: float | None = None,
        size: int | None = None,
        psnr: float | None = None,
        effort: int = 0,
    ) -> bytes:
        """Compress an image to the bytes of a file.

        Args:
            image: (H, W, 3) uint8 array, Pillow image, or, with torch, (3, H, W) uint8 tensor; sides from 1 to 65535.
                Tensors and arrays are taken as sRGB. A Pillow image of any mode is converted to RGB as by
                `jahp compress`, and its color profile is kept in the file.
            quality: from 1 (smallest files) to 100. At most one of quality, bpp, size and psnr may be given, and only
                for a variable-rate model; without any of them, its quality is 60.
            bpp: bits per pixel of the file, met within 1 %.
            size: maximum size of the file in bytes.
            psnr: minimum PSNR of the decoded image in dB.
            effort: effort of the search for latents that need fewer bits, from 0 (plain rounding) to 6 (minutes), see
                docs/refinement.md. Without torch, it must be 0.

        Raises:
            TargetError: if the model cannot meet the target; the message says what is possible.
            ValueError: if the shape or type is wrong, pixels are transparent, latents exceed 16 bits, or the effort is
                out of range or not supported: a search needs torch, and a model that records the lambda it was trained
                with.
        """
        return self.encode(image, Target(quality, bpp, size, psnr), effort=effort).data

    def compress_all(
        self,
        images: Iterable[Input],
        *,
        quality: float | None = None,
        bpp: float | None = None,
        size: int | None = None,
        psnr: float | None = None,
        effort: int = 0,
    ) -> list[bytes]:
        """Compress several images in order: a list, a (B, 3, H, W) tensor or a (B, H, W, 3) array; see `compress`.

        Raises:
            ValueError: see `compress`.
        """
        target = Target(quality, bpp, size, psnr)
        return [self.encode(image, target, effort=effort).data for image in images]

    @overload
    def decompress(
        self, data: bytes, max_pixels: int | None = ..., *, as_: Literal["numpy"], max_seconds: float | None = ...
    ) -> Samples: ...
    @overload
    def decompress(
        self, data: bytes, max_pixels: int | None = ..., *, as_: Literal["pil"], max_seconds: float | None = ...
    ) -> Image.Image: ...
    @overload
    def decompress(
        self,
        data: bytes,
        max_pixels: int | None = ...,
        *,
        as_: Literal["tensor"] | None = ...,
        max_seconds: float | None = ...,
    ) -> Rgb: ...
    def decompress(
        self,
        data: bytes,
        max_pixels: int | None = None,
        *,
        as_: ImageKind | None = None,
        max_seconds: float | None = None,
    ) -> Any:
        """Decompress a file to an image.

        Args:
            data: the whole file.
            max_pixels: maximum number of pixels to accept. Memory grows with the size that the file declares; time
                grows with this size or with the number of decoding steps, see `limits.max_steps`. None accepts 4096
                pixels per byte of the file, but at least one million and at most 34 million.
            as_: "tensor" for (3, H, W) uint8 on the CPU, the default with torch; "numpy" for (H, W, 3) uint8, the
                default without torch; "pil" for a Pillow image, the only kind that keeps the file's color profile, in
                `info["icc_profile"]`.
            max_seconds: time limit in seconds; None for no limit. See `decode_all`.

        Raises:
            BitstreamError: if the data is not a valid file of this model, the image exceeds `max_pixels`, or the time
                is up; the message says what to do.
            ValueError: if `as_` is not a kind of image that this codec returns.
        """
        return self._to_kind(self.decode(data, max_pixels, max_seconds), self.default_kind if as_ is None else as_)

    @overload
    def decompress_all(
        self,
        files: Iterable[bytes],
        max_pixels: int | None = ...,
        *,
        as_: Literal["numpy"],
        max_seconds: float | None = ...,
    ) -> list[Samples]: ...
    @overload
    def decompress_all(
        self,
        files: Iterable[bytes],
        max_pixels: int | None = ...,
        *,
        as_: Literal["pil"],
        max_seconds: float | None = ...,
    ) -> list[Image.Image]: ...
    @overload
    def decompress_all(
        self,
        files: Iterable[bytes],
        max_pixels: int | None = ...,
        *,
        as_: Literal["tensor"] | None = ...,
        max_seconds: float | None = ...,
    ) -> list[Rgb]: ...
    def decompress_all(
        self,
        files: Iterable[bytes],
        max_pixels: int | None = None,
        *,
        as_: ImageKind | None = None,
        max_seconds: float | None = None,
    ) -> list[Any]:
        """Decompress several files in order, a group of them in lockstep at a time; see `decompress`.

        Args:
            files: whole files.
            max_pixels: see `decompress`.
            as_: see `decompress`.
            max_seconds: time limit in seconds for all files together; None for no limit.

        Raises:
            BitstreamError: if one of them is not a valid file of this model, or the time is up.
            ValueError: if `as_` is not a kind of image that this codec returns.
        """
        kind = self.default_kind if as_ is None else as_
        return [self._to_kind(decoded, kind) for decoded in self.decode_each(files, max_pixels, max_seconds)]

    def decode(
        self, data: bytes, max_pixels: int | None = None, max_seconds: float | None = None
    ) -> Decoded[Rgb, Integers]:
        """Decompress a file and return the image (3, H, W) together with its latents; see `decompress`."""
        return self.decode_all([data], max_pixels, max_seconds)[0]

    def decode_all(
        self, files: Sequence[bytes], max_pixels: int | None = None, max_seconds: float | None = None
    ) -> list[Decoded[Rgb, Integers]]:
        """Decode several files in lockstep: faster per file than one by one, but all of them are in memory at once.

        Args:
            files: at least one file.
            max_pixels: see `decompress`.
            max_seconds: time limit in seconds for all files together; None for no limit. It is checked between steps,
                so the call may take one step or one tile longer.

        Raises:
            BitstreamError: if one of them is not a valid file of this model, or the time is up.
            ForkError, PrecisionError: see `Codec.encode`.
        """
        return list(self._decode_group(files, max_pixels, Deadline(max_seconds)))

    def decode_each(
        self, files: Iterable[bytes], max_pixels: int | None = None, max_seconds: float | None = None
    ) -> Iterator[Decoded[Rgb, Integers]]:
        """Decode any number of files in order, a group of them in lockstep at a time.

        Args:
            files: whole files, which are taken from the iterable a group at a time.
            max_pixels: see `decompress`.
            max_seconds: time limit in seconds for all files together; None for no limit.

        Yields:
            Each decoded file once its image is complete. The latents of all files of a group are read before its first
            image is computed, so if those of one file are invalid, no image of the group is yielded.

        Raises:
            BitstreamError, ForkError, PrecisionError: see `decode_all`.
        """
        return decode_in_groups(self._decode_group, files, max_pixels, max_seconds)
