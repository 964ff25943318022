"""Sends HTTP(S) requests with a total deadline, redirects only within http(s), and credentials only for their own host.

A socket's timeout restarts with every byte. Here a response is read through a file with a deadline, which covers
everything from the name lookup to the last byte of the header, including redirects and proxies.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import time
import urllib.error
import urllib.request
from typing import IO, Any, cast
from urllib.parse import urlsplit, urlunsplit

from jahp_pl.addresses import HTTP_SCHEMES
from jahp_pl.errors import first_line


class DeadlineReader(io.RawIOBase):
    """A raw file that reads from a socket until a deadline.

    Attributes:
        end: deadline in seconds of the monotonic clock; may be changed.
    """

    def __init__(self, sock: socket.socket, end: float) -> None:
        self._socket, self.end = sock, end
        self._file = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        """Return True, so that `io.BufferedReader` accepts this file."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read some bytes; raise TimeoutError after the deadline."""
        left = self.end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return self._file.readinto(buffer)

    def close(self) -> None:
        """Close the file; the socket is closed with its connection."""
        self._file.close()
        super().close()


class Response(http.client.HTTPResponse):
    """A response whose `deadline.end` limits all further reading."""

    def __init__(self, end: float, sock: socket.socket, *arguments: Any, **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self.fp.close()
        self.deadline = DeadlineReader(sock, end)
        self.fp = io.BufferedReader(self.deadline)


def open_url(url: str, headers: dict[str, str], timeout: float) -> Response:
    """Send a GET request, and return the response when its header has arrived.

    Args:
        url: http or https, without credentials.
        headers: headers of the request; an Authorization header is only sent to the host of `url`.
        timeout: seconds for everything together: name lookups, connections, redirects and the header.

    Raises:
        urllib.error.HTTPError: if the status is not a success; the caller closes it.
        OSError, http.client.HTTPException: for all other failures, such as a redirect to a malformed address.
    """
    end = time.monotonic() + timeout
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(), urllib.request.UnknownHandler(), urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(), _Redirects(), _Http(end), _Https(end),
    ):  # fmt: skip
        opener.add_handler(handler)
    request = urllib.request.Request(url, headers=headers)
    try:
        return cast(Response, opener.open(request, timeout=timeout))
    except ValueError as error:  # of the host name's encoding, or of a redirect's address
        raise urllib.error.URLError(f"malformed address: {first_line(error)}") from None


class _Http(urllib.request.HTTPHandler):
    def __init__(self, end: float) -> None:
        super().__init__()
        self._end = end

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_connection, http.client.HTTPConnection, self._end), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, end: float) -> None:
        super().__init__()
        self._end = end

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(functools.partial(_connection, http.client.HTTPSConnection, self._end), req)


def _connection(kind: type[http.client.HTTPConnection], end: float, host: str, **more: Any) -> Any:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    connection = kind(host, **(more | {"timeout": left}))
    connection.response_class = functools.partial(Response, end)  # type: ignore[assignment]
    return connection


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        fp.close()  # the base class would read it to the end
        before, after = urlsplit(req.full_url), urlsplit(newurl)
        if after.scheme not in HTTP_SCHEMES:
            raise urllib.error.URLError(f"redirected to {after.scheme}:, which is not followed")
        clean = urlunsplit(after._replace(netloc=after.netloc.rpartition("@")[2]))
        request = super().redirect_request(req, fp, code, msg, headers, clean)
        if request is not None and (before.scheme, before.netloc) != (after.scheme, after.netloc):
            request.remove_header("Authorization")
        return request
