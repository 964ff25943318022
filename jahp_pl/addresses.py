"""Distinguishes addresses (URLs) from paths, and shows them without secrets."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

_SCHEME = re.compile(r"[\w+.{},-]+://")
"""Start of an address; braces list alternatives. A setting such as data.train=[http://HOST/] is not an address."""

HTTP_SCHEMES = ("http", "https")


def is_address(text: str) -> bool:
    """Check whether text is an address, such as https://HOST/NAME, file:///NAME or {s3,gs}://BUCKET/NAME, not a path.

    `Path` would take an address for a file of a similar name, because it joins repeated slashes.
    """
    return _SCHEME.match(text) is not None


def is_remote(text: str) -> bool:
    """Check whether an entry of `data.train` is a command or an address: neither a path nor a file: URL."""
    return text.startswith("pipe:") or (is_address(text) and scheme_of(text) != "file")


def scheme_of(address: str) -> str:
    """Return what precedes the first colon, in lower case."""
    return address.partition(":")[0].lower()


def without_credentials(text: str) -> str:
    """Remove user, password and query values (which may be signatures) from an address; return other text unchanged."""
    if not is_address(text):
        return text
    try:
        parts = urlsplit(text)
    except ValueError:  # malformed, so that the credentials cannot be identified
        return f"{scheme_of(text)}:..."
    query = "..." if parts.query else ""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))
