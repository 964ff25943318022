"""`jahp compress`: codes files, folders and streams.

Heavy imports happen inside the functions, so that `jahp --help` is instant.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jahp_pl.cli import job_plan, output
from jahp_pl.cli.codecs import open_any_codec
from jahp_pl.cli.errors import CommandError
from jahp_pl.cli.job_plan import Job, JobError
from jahp_pl.cli.jobs import FinishedOutput, run_jobs
from jahp_pl.cli.options import add_effort, add_files, add_target, command
from jahp_pl.cli.streams import read_source, write_target
from jahp_pl.codec.bitstream import FILE_SUFFIX
from jahp_pl.text import count_of

if TYPE_CHECKING:
    from torch import Tensor

    from jahp_pl.codec.arrays import IntArray
    from jahp_pl.codec.latents import Encoded
    from jahp_pl.codec.targets import Target
    from jahp_pl.runtime.codec import AnyCodec

    AnyEncoded = Encoded[Tensor] | Encoded[IntArray]

DEFAULT_EFFORT = 1
"""Default effort of the search: it takes seconds and brings most of the possible gain."""


def compress(arguments: argparse.Namespace) -> None:
    """Compress images to .jahp files."""
    from jahp_pl.codec.bitstream import MAX_ICC_BYTES
    from jahp_pl.codec.targets import Target, check_target
    from jahp_pl.images.io import SUFFIXES

    try:
        jobs = job_plan.plan(arguments.inputs, arguments.output, FILE_SUFFIX, SUFFIXES, arguments.force)
    except JobError:
        _refuse_other_files(arguments.inputs)
        raise
    if (suffix := jobs[0].target.suffix.lower()) in SUFFIXES:  # only -o can have given it
        raise CommandError(
            f"--output {jobs[0].target}: would be a .jahp file, not a {suffix[1:]} image; end its name in .jahp"
        )
    target = Target(arguments.quality, arguments.bpp, arguments.size, arguments.psnr)
    codec = open_any_codec(arguments)
    check_target(target, codec.num_levels)
    max_icc = 0 if arguments.srgb else MAX_ICC_BYTES
    compressor = _Compressor(
        codec, target, _effort(arguments.effort, codec), max_icc, arguments.flatten, arguments.verify
    )

    def work(job: Job) -> FinishedOutput | None:
        if job.is_resumable and not arguments.force and job_plan.is_done(job, lambda _: compressor.has_made(job)):
            return None
        return compressor.make(job)

    _report_unread_images(arguments.inputs, SUFFIXES)
    unseen = [name for name in ("effort", "psnr") if getattr(arguments, name) is not None]
    run_jobs("compress", jobs, work, [f"--{name}" for name in unseen])


class _Compressor(NamedTuple):
    """Options of `jahp compress`, and the functions that apply them to one image."""

    codec: AnyCodec
    target: Target
    effort: int
    """Effort of the search for better latents."""
    max_icc: int
    """Maximum size of an ICC profile to keep, in bytes; the colors of images with a larger one become sRGB."""
    flatten: bool
    """Whether to put transparent pixels on white instead of refusing them."""
    verify: bool
    """Whether to decode every file before it is written."""

    def has_made(self, job: Job) -> bool:
        """Check whether a job's target was made with this model and, if a file shows them, with the same options."""
        from jahp_pl.codec.bitstream import MAX_PIXELS, BitstreamError, unpack
        from jahp_pl.codec.rate_control import may_meet_target
        from jahp_pl.images.io import kept_profile

        data = job.target.read_bytes()
        try:
            header, _ = unpack(data, MAX_PIXELS)
            icc = kept_profile(job.source, max_icc=self.max_icc)
            if header.fingerprint != self.codec.fingerprint or header.icc != icc:
                return False
            if not may_meet_target(header, len(data), self.target, self.codec.num_levels):
                return False
            if self.verify:
                self.codec.decode(data, MAX_PIXELS)
        except BitstreamError:
            return False
        return True

    def make(self, job: Job) -> FinishedOutput:
        """Compress one image.

        Raises:
            CommandError: if verification finds that the file decodes to something else.
            ImageError: if the image cannot be read or compressed.
        """
        from jahp_pl.codec.bitstream import MAX_SIDE
        from jahp_pl.images.io import ImageError, TransparencyError, convert_rgb

        name = output.name_of(job.source)
        try:
            rgb, lost, icc = convert_rgb(read_source(job.source), name, self.flatten, self.max_icc)
        except TransparencyError as error:
            raise ImageError(f"{error}, or use --flatten to put them on white") from None
        height, width, _ = rgb.shape
        if max(height, width) > MAX_SIDE:
            raise ImageError(f"{name}: has {width} x {height} pixels, but sides go up to {MAX_SIDE}; cut it into tiles")
        try:
            with output.search_bar(self.effort, name) as progress:
                encoded = self.codec.encode(rgb, self.target, effort=self.effort, progress=progress, icc=icc)
        except ValueError as error:
            raise ImageError(f"{name}: {error}") from None
        if self.verify:
            _verify(self.codec, encoded, name)
        write_target(job.target, encoded.data)
        description = self._describe(encoded, height, width, lost, icc)
        return FinishedOutput(description, len(encoded.data), height * width)

    def _describe(self, encoded: AnyEncoded, height: int, width: int, lost: Sequence[str], icc: bytes) -> str:
        """Describe a file in one line: size, colors, what was lost, quality, and what decoding it needs."""
        from jahp_pl.codec.bitstream import DEFAULT_MAX_PIXELS
        from jahp_pl.codec.limits import required_max_pixels
        from jahp_pl.codec.targets import quality_of
        from jahp_pl.images.icc import profile_name

        num_bytes = len(encoded.data)
        words = [f"{num_bytes} bytes, {8 * num_bytes / (height * width):.4f} bpp"]
        words += [f"colors: {profile_name(icc)}"] if icc else []
        words += [f"lost: {loss}" for loss in lost]
        if encoded.level is not None:
            words.append(f"quality {quality_of(encoded.level, self.codec.num_levels):.1f}")
        if encoded.psnr is not None:
            words.append(f"PSNR {encoded.psnr:.2f} dB")
        words += ["verified"] if self.verify else []
        if (needed := required_max_pixels(height, width)) > DEFAULT_MAX_PIXELS:
            words.append(f"decompress it with --max-pixels {needed}")
        return "; ".join(words)


def _report_unread_images(inputs: Sequence[Path], suffixes: Collection[str]) -> None:
    """Report the image files in input folders that are left out because their formats are not supported."""
    from jahp_pl.images import heif

    if kinds := job_plan.count_unread_images(inputs, suffixes):
        counts = ", ".join(f"{count} {suffix}" for suffix, count in kinds.items())
        remedy = f"convert them to PNG first{heif.install_hint(kinds)}"
        output.say(f"left out, because these formats are not supported: {counts}; {remedy}", file=sys.stderr)


def _refuse_other_files(inputs: Sequence[Path]) -> None:
    """Refuse inputs that are not images before anything about their outputs is checked.

    Raises:
        CommandError: if an input is a .jahp file.
        ImageError: if an input is not an image.
    """
    from jahp_pl.images.io import image_size

    for path in filter(Path.is_file, inputs):
        if job_plan.is_compressed(path):
            raise CommandError(f"{path}: is already a .jahp file; `jahp decompress` turns it into an image")
        image_size(path)


def _effort(effort: int | None, codec: AnyCodec) -> int:
    """Return the value of --effort, or the default: 1 if the codec can search, otherwise 0.

    A search needs a model with a training objective, enough memory, and a runtime that computes gradients.

    Raises:
        CommandError: if --effort asks for a search and the runtime has none.
    """
    if codec.runtime == "onnx":
        from jahp_pl.runtime.codec import NO_SEARCH

        if effort:
            raise CommandError(f"--effort {effort}: {NO_SEARCH}")
        return 0
    if effort is not None:
        return effort
    from jahp_pl.codec.search.refinement import smallest_search_bytes

    can_search = (
        codec.objective is not None and smallest_search_bytes(codec.model.config) <= codec.transforms.memory_limit
    )
    return DEFAULT_EFFORT if can_search else 0


def _verify(codec: AnyCodec, encoded: AnyEncoded, name: str) -> None:
    """Decode a file before it is written, and compare its latents and pixels with the encoder's.

    Raises:
        CommandError: if latents or pixels differ.
    """
    import numpy as np

    from jahp_pl.codec.bitstream import MAX_PIXELS
    from jahp_pl.codec.encoder import is_gray, to_gray
    from jahp_pl.codec.latents import count_mismatches

    decoded = codec.decode(encoded.data, MAX_PIXELS)
    if wrong := count_mismatches(encoded, decoded):
        raise CommandError(
            f"{name}: {count_of(wrong, 'latent')} decoded differently, nothing was written; report this bug"
        )
    shown = np.asarray(decoded.image)
    _, height, width = shown.shape
    expected = codec.reconstruct(np.asarray(encoded.y_hat), height, width, encoded.level)
    expected = to_gray(expected) if is_gray(shown) else expected
    # The tiles may be cut differently, so a sample halfway between two 8-bit values may round either way.
    if wrong := int((np.abs(shown.astype(np.int16) - expected) > 1).sum()):
        raise CommandError(
            f"{name}: {count_of(wrong, 'sample')} decoded differently, nothing was written; report this bug"
        )


def add_compress(subparsers: Any) -> None:
    """Add the command `compress`."""
    p = command(subparsers, "compress", compress, "compress images to .jahp files", """\
        jahp compress photo.png
        jahp compress photo.png --quality 80
        jahp compress photo.png --size 50k
        jahp compress *.jpg scans/ -o compressed/ --bpp 0.5 --verify
        jahp compress - < photo.png > photo.jahp
        jahp compress photo.png --model runs/quickstart""")  # fmt: skip
    add_files(p, "images, folders of them, or - for standard input", "the bundled model for --metric")
    add_target(p)
    add_effort(p, None, "1, or 0 if the model, the runtime or --memory does not allow a search")
    p.add_argument("--flatten", action="store_true", help="put transparent pixels on white instead of refusing them")
    p.add_argument("--srgb", action="store_true", help="convert colors to sRGB instead of keeping their ICC profile")
    p.add_argument("--verify", action="store_true", help="decode and compare every file before it is written")
