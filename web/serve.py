"""Serves the page on localhost, with the headers that allow it to use threads; `make web-serve` runs this."""

from __future__ import annotations

import functools
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(SimpleHTTPRequestHandler):
    """Handler that serves the files of a folder, isolated from other origins."""

    extensions_map = {  # noqa: RUF012  as the base class has it
        **SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript", ".wasm": "application/wasm",
    }  # fmt: skip

    def end_headers(self) -> None:
        """Add the headers that `crossOriginIsolated` needs."""
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, format: str, *words: object) -> None:
        """Log nothing."""


def server(port: int = 0, folder: Path = Path(__file__).parent) -> ThreadingHTTPServer:
    """Create a server of a folder on localhost; port 0 stands for any free port."""
    return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=folder))


if __name__ == "__main__":
    with server(int(sys.argv[1]) if len(sys.argv) > 1 else 8000) as running:
        print(f"http://localhost:{running.server_port}/")  # noqa: T201
        running.serve_forever()
