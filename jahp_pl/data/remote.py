"""Opens shards from paths and addresses, with a time limit on every wait.

| address | read by |
|---|---|
| path | this process |
| http:, https: | this process; resumes where a connection broke off |
| s3: | `aws s3 cp URL -`, which must be installed and have its credentials |
| pipe: | the shell |
| gs:, hf:, ais:, sftp:, ftps:, scp: | the command that webdataset's gopen uses |

webdataset 1.0.2 itself reads http through curl without a limit on silence, retries into a pipe that already has bytes,
and does not support s3.

Guarantees: a read returns `READ_BYTES` bytes or the rest of the shard, or raises an OSError, within `TRIES` attempts of
a few timeouts each: one from the connection to the last byte of the header, one for each `READ_BYTES`. Only a name
server that hangs may take longer, up to the limit of the system's resolver.
"""

from __future__ import annotations

import base64
import http.client
import importlib.util
import io
import os
import select
import shutil
import signal
import string
import subprocess
import time
import urllib.error
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from webdataset.gopen import Pipe, gopen, gopen_schemes, rewrite_url

from jahp_pl.addresses import HTTP_SCHEMES, is_remote, scheme_of
from jahp_pl.data.http import Response, open_url
from jahp_pl.errors import first_line

TRIES = 3
"""Consecutive connections without progress after which http and https give up."""
READ_BYTES = 256 * 2**10
"""Bytes that must arrive within the timeout; a server that trickles one byte a second also counts as hung."""

_RETRIED_STATUSES = (408, 425, 429, *range(500, 600))
_SUCCESS_STATUSES = (0, 128 + signal.SIGPIPE)
_COMMANDS = {"s3": "aws", "gs": "gsutil", "ais": "ais", "hf": "curl", "sftp": "curl", "ftps": "curl", "scp": "curl"}
"""Command that each scheme needs; http, https and pipe need none."""


def check_address(url: str) -> None:
    """Refuse an address that this machine has no means to read, without connecting to anything.

    Raises:
        OSError: if the scheme is unsupported, its command is missing, or the address is malformed.
    """
    scheme = scheme_of(rewrite_url(url))
    if scheme != "s3" and scheme not in gopen_schemes:
        raise OSError(f"addresses with {scheme}: are not supported; use a path, http, https, s3 or pipe")
    if scheme in _COMMANDS and shutil.which(_COMMANDS[scheme]) is None:
        raise OSError(f"needs the command {_COMMANDS[scheme]}, which is not installed; install it")
    if scheme == "hf" and importlib.util.find_spec("huggingface_hub") is None:
        raise OSError("needs huggingface_hub, which is not installed; pip install 'jahp_pl[hub]'")
    try:
        if "\0" in os.fsdecode(os.fsencode(url)):  # encoding fails for characters that no address can have
            raise ValueError("it contains a null character")
        if scheme in HTTP_SCHEMES:
            if not ((host := urlsplit(url).hostname) and urlsplit(url).port != 0):
                raise ValueError("it names no host")
            host.encode("idna")
    except ValueError as error:
        raise OSError(f"is not a valid address ({first_line(error)}); correct it") from None


def open_shard(url: str, timeout: float) -> BinaryIO:
    """Open a shard for one pass from front to back, and read its first bytes.

    Args:
        url: absolute path or address.
        timeout: seconds that `READ_BYTES` may take.

    Raises:
        OSError: if the shard is missing, refused, too slow or truncated; reading raises it too. A premature end is an
            error if the server or the command reveals it.
    """
    if not is_remote(url):
        return Path(url).open("rb")
    check_address(url)
    url = rewrite_url(url)  # webdataset's rewriting by GOPEN_REWRITE
    is_http = scheme_of(url) in HTTP_SCHEMES
    raw = _HttpStream(url, timeout) if is_http else _CommandStream(_start_command(url), timeout)
    stream = io.BufferedReader(raw, READ_BYTES)
    try:
        stream.peek(1)
    except BaseException:
        stream.close()
        raise
    return cast(BinaryIO, stream)


class _HttpStream(io.RawIOBase):
    """A download by http or https, which resumes where a connection broke off."""

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        host, path, query = parts.netloc.rpartition("@")[2], _quoted(parts.path), _quoted(parts.query)
        self._url = urlunsplit(parts._replace(netloc=host, path=path, query=query))
        self._headers = {}
        if parts.username is not None:
            login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            code = base64.b64encode(login.encode(errors="surrogateescape")).decode()
            self._headers["Authorization"] = f"Basic {code}"
        self._timeout, self._position = timeout, 0
        self._length: int | None = None
        self._response: Response | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as asked for, or up to the end; after a failure, request the rest again."""
        failure = ""
        for attempt in range(TRIES):
            time.sleep(attempt * min(1.0, self._timeout / 10))
            try:
                count = self._receive(memoryview(buffer))
            except urllib.error.HTTPError as error:
                failure = f"HTTP status {error.code}"
                error.close()
                if error.code not in _RETRIED_STATUSES:
                    raise OSError(failure) from None
            except TimeoutError:
                failure = f"nothing or too little received within {self._timeout:g} s"
            except urllib.error.URLError as error:
                failure = str(getattr(error.reason, "strerror", None) or error.reason)
            except (OSError, http.client.HTTPException) as error:
                failure = first_line(error)
            else:
                self._position += count
                return count
            self._disconnect()
        raise OSError(f"{failure}, {TRIES} times in a row")

    def _receive(self, view: memoryview) -> int:
        """Fill the buffer from the connection, opening one if there is none; return the number of bytes."""
        deadline, count = time.monotonic() + self._timeout, 0
        if self._response is None:
            self._response = self._connect()
        self._response.deadline.end = deadline
        while count < len(view):
            data = self._response.read1(len(view) - count)
            view[count : count + len(data)] = data
            count += len(data)
            if not data:
                if self._length is not None and self._position + count < self._length:
                    raise ConnectionError(f"ended after {self._position + count} of {self._length} bytes")
                break
            if time.monotonic() > deadline:
                raise TimeoutError
        return count

    def _connect(self) -> Response:
        """Request the rest of the shard from the current position."""
        headers = self._headers | ({"Range": f"bytes={self._position}-"} if self._position else {})
        response = open_url(self._url, headers, self._timeout)
        start = self._position if response.status == http.client.PARTIAL_CONTENT else 0
        length = None if response.length is None else start + response.length
        if self._position and length != self._length:
            response.close()
            raise OSError("changed on the server while it was read")
        self._length = length
        while start < self._position:  # the server does not support ranges
            response.deadline.end = time.monotonic() + self._timeout
            skipped = len(response.read1(min(READ_BYTES, self._position - start)))
            if not skipped:
                response.close()
                raise ConnectionError(f"ended after {start} of {self._length} bytes")
            start += skipped
        return response

    def _disconnect(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def close(self) -> None:
        self._disconnect()
        super().close()


def _quoted(part: str) -> str:
    """Write spaces and characters beyond ASCII as %XX; what is written so already stays."""
    return quote(part, safe=string.punctuation, errors="surrogateescape")


def _start_command(url: str) -> Pipe:
    """Run the command of an address in its own process group, so that all of its processes can be stopped."""
    options = {"mode": "rb", "bufsize": 0, "start_new_session": True, "stdin": subprocess.DEVNULL}
    if url.startswith("pipe:"):
        return Pipe(url.removeprefix("pipe:"), shell=True, **options)
    if url.startswith("s3:"):
        return Pipe(["aws", "s3", "cp", "--only-show-errors", url, "-"], **options)
    try:
        return gopen(url, "rb", 0)
    except ValueError as error:
        raise OSError(f"is not a valid address ({first_line(error)}); correct it") from None


class _CommandStream(io.RawIOBase):
    """The output of a command."""

    def __init__(self, pipe: Pipe, timeout: float) -> None:
        self._process: subprocess.Popen[bytes] = pipe.proc
        self._pipe, self._timeout = pipe, timeout

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Read as many bytes as asked for, or up to the end if the command succeeds."""
        view, deadline, count = memoryview(buffer), time.monotonic() + self._timeout, 0
        output = self._pipe.stream.fileno()
        poll = select.poll()
        poll.register(output, select.POLLIN)
        while count < len(view):
            if not poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
                raise TimeoutError(f"the command returned nothing or too little within {self._timeout:g} s")
            data = os.read(output, len(view) - count)
            if not data:
                self._check_end()
                break
            view[count : count + len(data)] = data
            count += len(data)
        return count

    def _check_end(self) -> None:
        try:
            status = self._process.wait(self._timeout)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the command did not end within {self._timeout:g} s") from None
        if status not in _SUCCESS_STATUSES:
            raise OSError(f"the command failed with status {status}")

    def close(self) -> None:
        if not self.closed and self._process.returncode is None:
            with suppress(OSError):
                is_leader = os.getpgid(self._process.pid) == self._process.pid
                (os.killpg if is_leader else os.kill)(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._pipe.stream.close()
        super().close()
