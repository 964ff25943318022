"""Local servers of shards, working and faulty ones, and functions that damage shards."""

from __future__ import annotations

import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENT = 60.0
"""Time limit in seconds for reads that must succeed, however busy the machine is."""
RETRIED = 3.0
"""Time limit in seconds for reads that fail at first; the pauses before they are tried again grow with it."""
SOON = 15.0
"""Seconds within which a read that must fail has failed, on a busy machine too; it would otherwise take far longer."""


class ShardServer(http.server.ThreadingHTTPServer):
    """Serves the files of a folder; `faults` maps a path to a fault and the number of its repetitions."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), ShardHandler)
        self.folder = folder
        self.faults: dict[str, tuple[str, int]] = {}
        self.requests: Counter[str] = Counter()
        self.closing = threading.Event()

    def address(self, name: str = "") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def fault(self, name: str) -> str:
        kind, left = self.faults.get(name, ("", 0))
        if left:
            self.faults[name] = (kind, left - 1)
        return kind if left else ""


class ShardHandler(http.server.BaseHTTPRequestHandler):
    server: ShardServer

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        name = self.path.lstrip("/")
        self.server.requests[f"{self.command} {name}"] += 1
        fault = self.server.fault(name) if with_body else ""
        if fault == "hang":
            self.server.closing.wait()
            return
        path = self.server.folder / name
        if fault.isdecimal() or not path.is_file():
            self.send_error(int(fault or 404))
            return
        data, start = path.read_bytes(), 0
        asked = self.headers.get("Range")
        if asked and fault != "no ranges":
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last or len(data) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(data)}")
            body = data[start : end + 1]
        else:
            self.send_response(200)
            body = data
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Sun, 22 Nov 2026 00:00:00 GMT")
        self.send_header("ETag", '"1"')
        self.end_headers()
        if with_body:
            self.send_body(body, fault)

    def send_body(self, body: bytes, fault: str) -> None:
        """Send the body of an answer, as slowly or incompletely as the fault requires."""
        try:
            if fault == "close early":
                self.wfile.write(body[: len(body) // 2])
            elif fault == "hang in the middle":
                self.wfile.write(body[: len(body) // 2])
                self.server.closing.wait()
            elif fault == "drip":
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.02)
            else:
                self.wfile.write(body)
        except OSError:
            pass

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(folder: Path) -> Iterator[ShardServer]:
    with ShardServer(folder) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
