"""Decodes the files of `jahp decompress` in groups in lockstep, which is faster than one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from jahp_pl.cli.job_plan import Job
from jahp_pl.cli.streams import read_source
from jahp_pl.errors import JahpError

if TYPE_CHECKING:
    from jahp_pl.codec.bitstream import BitstreamError
    from jahp_pl.images.io import RGB
    from jahp_pl.runtime.codec import AnyCodec

GROUP_PIXELS = 2**22
"""Maximum number of pixels of a group. Ten images of 768 x 512 bring most of the gain in speed, and need no more memory
than a single image of this size."""
MAX_LOOK_AHEAD = 64
"""Number of following jobs that are considered for a group."""


class _Member(NamedTuple):
    """File of a group."""

    job: Job
    data: bytes


class DecodeAhead:
    """Decoder that returns the images of jobs one by one, but decodes following jobs together with the current one.

    Args:
        jobs: all jobs, in the order in which `image` is called for them; calls may skip some.
        max_pixels: maximum number of pixels of an image; larger ones are refused.
        is_wanted: returns whether the image of a job has yet to be made; if it raises, the job joins no group.
    """

    def __init__(self, jobs: Sequence[Job], max_pixels: int, is_wanted: Callable[[Job, bytes], bool]) -> None:
        self._upcoming = deque(jobs)
        self._max_pixels, self._is_wanted = max_pixels, is_wanted
        self._group: deque[_Member] = deque()
        self._images: Iterator[RGB | BitstreamError] = iter(())

    def image(self, job: Job, data: bytes, codec: AnyCodec) -> RGB:
        """Return the image of a job, (H, W, 3) uint8.

        Args:
            job: one of the jobs; calls must follow their order.
            data: content of its file.
            codec: codec for the file.

        Raises:
            BitstreamError: if the file cannot be decoded.
        """
        member = _Member(job, data)
        while self._group and self._group[0] != member:  # another program has made its image, or changed the file
            self._take()
        if not self._group:
            self._group = deque(self._group_from(member))
            self._images = _decoded(codec, [one.data for one in self._group], self._max_pixels)
        found = self._take()
        if isinstance(found, Exception):
            raise found
        return found

    def _take(self) -> RGB | BitstreamError:
        """Remove the first file of the group and return its image."""
        try:
            self._group.popleft()
            return next(self._images)
        except BaseException:  # the iterator has ended, so the other files must be decoded in another group
            self._group.clear()
            raise

    def _group_from(self, first: _Member) -> Iterator[_Member]:
        """Yield a file, then the files of later jobs that the same codec decodes."""
        from jahp_pl.codec.bitstream import unpack

        while self._upcoming and self._upcoming.popleft() is not first.job:
            pass
        yield first
        header, _ = unpack(first.data, self._max_pixels)
        num_pixels, fingerprint = header.width * header.height, header.fingerprint
        for job in islice(self._upcoming, MAX_LOOK_AHEAD):
            try:
                data = read_source(job.source)
                header, _ = unpack(data, self._max_pixels)
                is_wanted = job.obstacle is None and self._is_wanted(job, data)
            except (OSError, JahpError):  # reported when this job is decoded
                continue
            if is_wanted and header.fingerprint == fingerprint:
                num_pixels += header.width * header.height
                if num_pixels > GROUP_PIXELS:
                    return
                yield _Member(job, data)


def _decoded(codec: AnyCodec, files: Sequence[bytes], max_pixels: int) -> Iterator[RGB | BitstreamError]:
    """Yield the image of each file, (H, W, 3) uint8, or its error; after an error, files are decoded one by one."""
    import numpy as np

    from jahp_pl.codec.bitstream import BitstreamError

    num_done = 0
    try:
        for decoded in codec.decode_each(files, max_pixels):
            yield np.ascontiguousarray(np.moveaxis(np.asarray(decoded.image), 0, -1))
            num_done += 1
    except BitstreamError as error:
        if len(files) == 1:
            yield error
            return
    for data in files[num_done:]:
        yield from _decoded(codec, [data], max_pixels)
