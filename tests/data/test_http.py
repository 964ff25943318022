"""Servers that trickle, never end or redirect elsewhere neither block a reader nor get another server's password."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from jahp_pl.addresses import without_credentials
from jahp_pl.data.index import MAX_INDEX_BYTES, DataError, ShardIndex, Skipped
from jahp_pl.data.remote import open_shard
from jahp_pl.data.shard_reader import ShardReader
from jahp_pl.data.urls import expand_shards
from tests.support.shard_servers import PATIENT, RETRIED, SOON

Handler = http.server.BaseHTTPRequestHandler


@contextmanager
def answering(answer: Callable[[Handler], None]) -> Iterator[int]:
    """Run a server that answers every GET by calling `answer`, and yield its port."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            try:
                answer(self)
            except OSError:  # the reader went away
                self.close_connection = True

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def redirect(port: int, scheme: str = "http") -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"{scheme}://localhost:{port}/x.tar")
        handler.end_headers()
        for _ in range(10**6):  # the body of a redirect, without an end
            handler.wfile.write(bytes(2**16))

    return answer


def test_a_slow_header_is_abandoned_in_time() -> None:
    def drip(handler: Handler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
        for _ in range(600):
            handler.wfile.write(b"a")
            time.sleep(0.05)

    with answering(drip) as port:
        start = time.monotonic()
        with pytest.raises(OSError, match=r"within 0\.3 s, 3 times"):
            open_shard(f"http://127.0.0.1:{port}/x.tar", 0.3)
        assert time.monotonic() - start < SOON


def test_a_password_stays_on_its_host_and_out_of_messages() -> None:
    seen = []

    def note(handler: Handler) -> None:
        seen.append(handler.headers.get("Authorization"))
        handler.send_error(404)

    with ExitStack() as stack:
        second = stack.enter_context(answering(note))
        first = stack.enter_context(answering(redirect(second)))
        for port in (first, second):
            address = f"http://user:secret@127.0.0.1:{port}/x.tar?signature=secret"
            (skipped,) = ShardReader(PATIENT).read([address])
            assert skipped.name == f"http://127.0.0.1:{port}/x.tar?..."
            assert "secret" not in repr(skipped)
        with pytest.raises(DataError) as refusal:
            expand_shards([f"http://user:secret@127.0.0.1:{second}/"], "data.train", PATIENT)
        assert "secret" not in str(refusal.value)
    assert seen == [None, *["Basic dXNlcjpzZWNyZXQ="] * 2]
    assert without_credentials("s3://bucket/x.tar") == "s3://bucket/x.tar"


@pytest.mark.parametrize(
    "address", ["http://[", "http://a..b/x.tar", f"http://{'a' * 64}/x.tar", "http://h:port/x.tar"]
)
def test_a_redirect_to_a_malformed_address_is_one_broken_shard(address: str) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", address)
        handler.end_headers()

    with answering(answer) as port:
        (item,) = ShardReader(RETRIED).read([f"http://127.0.0.1:{port}/x.tar"])
    assert isinstance(item, Skipped)
    assert "address" in item.detail or "port" in item.detail


def test_characters_beyond_ascii_are_sent_quoted_once() -> None:
    asked = []

    def answer(handler: Handler) -> None:
        asked.append(handler.path)
        handler.send_response(200)
        handler.end_headers()

    with answering(answer) as port, open_shard(f"http://127.0.0.1:{port}/größe 1%20\udcff.tar?a=ü", PATIENT):
        pass
    assert asked == ["/gr%C3%B6%C3%9Fe%201%20%FF.tar?a=%C3%BC"]


def test_an_index_with_a_name_that_no_file_can_have_is_damaged() -> None:
    shard = {"name": "\ud800.tar", "samples": 1, "bytes": 1, "sha256": "0" * 64}
    content = {"format": "jahp-shards", "version": 1, "pixels": 1, "skipped": [], "shards": [shard]}
    with pytest.raises(DataError, match="is damaged"):
        ShardIndex.parse(json.dumps(content).encode(), "index.json")


def test_redirects_stay_on_http() -> None:
    with answering(redirect(1, "ftp")) as port, pytest.raises(OSError, match="redirected to ftp:"):
        open_shard(f"http://127.0.0.1:{port}/x.tar", RETRIED)


def test_an_index_without_an_end_is_refused() -> None:
    def endless(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(10**4):
            handler.wfile.write(b" " * 2**20)

    with answering(endless) as port, pytest.raises(DataError, match=f"exceeds the maximum of {MAX_INDEX_BYTES} bytes"):
        expand_shards([f"http://127.0.0.1:{port}/"], "data.train", PATIENT)
