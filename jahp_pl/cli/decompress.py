"""`jahp decompress`: decodes files, folders and streams.

Files are decoded in groups (`decode_ahead`), and images are written while the next ones are decoded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jahp_pl.cli import job_plan, output
from jahp_pl.cli.codecs import Decoders
from jahp_pl.cli.decode_ahead import DecodeAhead
from jahp_pl.cli.errors import CommandError
from jahp_pl.cli.job_plan import STREAM, Job, JobError
from jahp_pl.cli.jobs import Finish, FinishedOutput, run_jobs
from jahp_pl.cli.options import add_files, command, positive
from jahp_pl.cli.streams import read_source, write_target
from jahp_pl.codec.bitstream import DECODED_SUFFIX, FILE_SUFFIX

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from jahp_pl.images.io import RGB


def decompress(arguments: argparse.Namespace) -> None:
    """Decompress .jahp files to images."""
    from concurrent.futures import ThreadPoolExecutor

    try:
        jobs = job_plan.plan(
            arguments.inputs, arguments.output, ".png", {FILE_SUFFIX}, arguments.force, suffix_beside=DECODED_SUFFIX
        )
    except JobError:
        _refuse_other_files(arguments.inputs)
        raise
    for job in jobs:
        _format_of(job)
    with ThreadPoolExecutor(1) as writer:  # its exit finishes writes that were begun, even after an interrupt
        decompressor = _Decompressor(
            Decoders(arguments), jobs, writer, arguments.max_pixels, arguments.max_seconds, arguments.force
        )
        run_jobs("decompress", jobs, decompressor.begin)


def _refuse_other_files(inputs: Sequence[Path]) -> None:
    """Refuse inputs that are not .jahp files before anything about their outputs is checked.

    Raises:
        BitstreamError: if an input is not a .jahp file.
    """
    from jahp_pl.codec.bitstream import MAX_PIXELS, BitstreamError, unpack

    for path in filter(Path.is_file, inputs):
        if not job_plan.is_compressed(path):
            try:
                unpack(read_source(path), MAX_PIXELS)
            except BitstreamError as error:
                raise BitstreamError(f"{path}: {error}") from None


class _Decompressor:
    """Options of `jahp decompress`, and the files that are being decoded with them.

    Args:
        decoders: source of the codec for each file.
        jobs: all jobs in order.
        writer: executor that encodes and writes images while the next ones are decoded.
        max_pixels: maximum number of pixels of an image; None for the default.
        max_seconds: maximum time to decode one file; None for no limit. With a limit, files are decoded one by one.
        force: whether to remake images that already exist.
    """

    def __init__(
        self,
        decoders: Decoders,
        jobs: Sequence[Job],
        writer: Executor,
        max_pixels: int | None,
        max_seconds: int | None,
        force: bool,
    ) -> None:
        from jahp_pl.codec.bitstream import DEFAULT_MAX_PIXELS

        self._decoders, self._writer, self._force = decoders, writer, force
        self._max_pixels, self._max_seconds = max_pixels or DEFAULT_MAX_PIXELS, max_seconds
        self._ahead = DecodeAhead(jobs, self._max_pixels, self._is_wanted)

    def begin(self, job: Job) -> Finish | None:
        """Decompress one file and begin to write its image; return None if the image already exists.

        Raises:
            BitstreamError: if the file cannot be decoded.
        """
        from jahp_pl.codec.bitstream import BitstreamError, unpack

        data, name = read_source(job.source), output.name_of(job.source)
        try:
            if not self._is_wanted(job, data):
                return None
            header, _ = unpack(data, self._max_pixels)
            codec = self._decoders.find(header.fingerprint)
            if self._max_seconds is None:
                image = self._ahead.image(job, data, codec)
            else:
                image = codec.decompress(data, self._max_pixels, as_="numpy", max_seconds=self._max_seconds)
        except (BitstreamError, CommandError) as error:
            raise BitstreamError(f"{name}: {error}".replace("raise max_", "raise --max-")) from None
        return self._writer.submit(_write_image, job, image, header.icc, len(data)).result

    def _is_wanted(self, job: Job, data: bytes) -> bool:
        """Check whether the image of a file with this content has yet to be made.

        Raises:
            JobError, BitstreamError: as for `job_plan.is_done` and `_has_size_of`.
        """
        return self._force or not job.is_resumable or not job_plan.is_done(job, lambda path: _has_size_of(path, data))


def _write_image(job: Job, image: RGB, icc: bytes, num_bytes: int) -> FinishedOutput:
    """Encode and write the image (H, W, 3) that was decoded from a file of `num_bytes` bytes.

    Raises:
        ImageError: if the format of the output cannot hold the image.
    """
    from jahp_pl.images.io import ImageError
    from jahp_pl.images.writing import LOSSY_FORMATS, encode_rgb

    format_name = _format_of(job)
    try:
        content = encode_rgb(image, _suffix_of(job), icc)
    except ImageError as error:
        raise ImageError(f"{output.name_of(job.target, 'output')}: {error}") from None
    write_target(job.target, content)
    height, width, _ = image.shape
    note = f", with some loss in {format_name}" if format_name in LOSSY_FORMATS else ""
    return FinishedOutput(f"{width} x {height}{note}", num_bytes, height * width)


def _suffix_of(job: Job) -> str:
    return ".png" if job.target == STREAM else job.target.suffix


def _format_of(job: Job) -> str:
    """Return Pillow's name of the format of an output.

    Raises:
        ImageError: if there is no such format, or it cannot hold every image.
    """
    from jahp_pl.images.io import ImageError
    from jahp_pl.images.writing import output_format

    try:
        return output_format(_suffix_of(job))
    except ImageError as error:
        raise ImageError(f"{job.target}: {error}") from None


def _has_size_of(path: Path, data: bytes) -> bool:
    """Check whether a file is an image of the size that a .jahp file with content `data` states.

    Raises:
        BitstreamError: if the .jahp file is damaged.
    """
    from jahp_pl.codec.bitstream import MAX_PIXELS, unpack
    from jahp_pl.images.io import ImageError, image_size

    header, _ = unpack(data, MAX_PIXELS)
    try:
        return image_size(path) == (header.width, header.height)
    except ImageError:
        return False


def add_decompress(subparsers: Any) -> None:
    """Add the command `decompress`."""
    p = command(subparsers, "decompress", decompress, "decompress .jahp files to PNG, or to the format of OUT", """\
        jahp decompress photo.jahp
        jahp decompress photo.jahp -o photo.webp
        jahp decompress compressed/ -o restored/
        jahp decompress photo.jahp --model runs/quickstart""")  # fmt: skip
    add_files(
        p,
        ".jahp files, folders of them, or - for standard input",
        "the bundled model that made the file",
        "NAME.decoded.png beside each input",
    )
    p.add_argument("--max-pixels", type=positive, metavar="N", help="refuse files of larger images [33554432]")
    p.add_argument(
        "--max-seconds", type=positive, metavar="S", help="refuse files that take longer to decode [no limit]"
    )
