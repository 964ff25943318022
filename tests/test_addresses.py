"""Addresses are distinguished from paths, and shown without secrets."""

from __future__ import annotations

import pytest

from jahp_pl.addresses import is_address, is_remote, without_credentials


@pytest.mark.parametrize("text", ["https://host/a.tar", "s3://bucket/{00..17}.tar", "file:///a", "{http,https}://h/a"])
def test_a_scheme_makes_an_address(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    ["a.tar", "/a/http://host/b", "a/b://c", "://a", "C:\\a", "data.train=[http://host/]", "a:b.tar", "pipe:cat a", ""],
)
def test_other_text_is_no_address(text: str) -> None:
    assert not is_address(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/a.tar", True),
        ("pipe:cat a", True),
        ("file:///a", False),
        ("FILE:///a", False),
        ("file:a", False),
        ("/a.tar", False),
    ],
)
def test_commands_and_addresses_of_other_machines_are_remote(text: str, expected: bool) -> None:
    assert is_remote(text) == expected


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:secret@host:80/a.tar?signature=secret", "http://host:80/a.tar?..."),
        ("http://[user:secret@host", "http:..."),
        ("s3://bucket/a.tar", "s3://bucket/a.tar"),
        ("/photos/who?/a.tar", "/photos/who?/a.tar"),
        ("pipe:cat a", "pipe:cat a"),
    ],
)
def test_addresses_are_shown_without_secrets(address: str, shown: str) -> None:
    assert without_credentials(address) == shown
