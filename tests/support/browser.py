"""A headless Chromium, driven over its debugging pipe: pages from disk, screen sizes, clicks, console messages."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    "--remote-debugging-pipe",
)
REPORT_IS_READY = "document.readyState === 'complete' && document.documentElement.dataset.ready === 'yes'"


class Page:
    """Tab of a browser."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._rest, self._last = read, write, b"", 0
        self._session: str | None = None
        self._origin = "file:"
        self.complaints: list[str] = []
        """Errors and warnings of the console, exceptions, and requests that left the page."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def open(
        self,
        page: Path | str,
        width: int,
        height: int = 900,
        dark: bool = False,
        is_ready: str = REPORT_IS_READY,
        patience: int = 10,
    ) -> None:
        """Show a file or an address at a screen size, and wait until an expression in the page is true."""
        self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        url = page if isinstance(page, str) else page.resolve().as_uri()
        self._origin = "/".join(url.split("/")[:3]) + "/"
        self._call("Page.navigate", url=url)
        for _ in range(patience * 20):
            time.sleep(0.05)
            if self._call("Runtime.evaluate", expression=is_ready, returnByValue=True)["result"].get("value"):
                return
        raise AssertionError(f"the page is not ready; {self.complaints}")

    def run(self, script: str) -> Any:
        """Evaluate an expression in the page, and wait for two frames for its effects."""
        frames = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
        code = f"(async () => {{ const value = ({script}); await {frames}; return value; }})()"
        answer = self._call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def press(self, x: float, y: float, to: tuple[float, float] | None = None) -> None:
        """Press the mouse button at a position in the window, drag to another position if given, and release it."""
        end = to or (x, y)
        for kind, (px, py) in (
            ("mouseMoved", (x, y)),
            ("mousePressed", (x, y)),
            ("mouseMoved", end),
            ("mouseReleased", end),
        ):
            button = "none" if kind == "mouseMoved" and (px, py) == (x, y) else "left"
            self._call("Input.dispatchMouseEvent", type=kind, x=px, y=py, button=button, buttons=1, clickCount=1)

    def move(self, x: float, y: float) -> None:
        """Move the mouse."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def screenshot(self, path: Path) -> None:
        """Save the whole page as PNG."""
        data = self._call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, **parameters: Any) -> Any:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return answer["result"]
            self._record(answer.get("method"), answer.get("params", {}))

    def _next(self) -> Any:
        while b"\0" not in self._rest:
            chunk = os.read(self._read, 2**20)
            assert chunk, "Chromium has ended"
            self._rest += chunk
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def _record(self, method: str | None, parameters: dict[str, Any]) -> None:
        """Add an event to `complaints` if it is an error or a warning."""
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        if method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(parameters["args"]))
        if method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(str(parameters["entry"]))
        if method == "Network.requestWillBeSent":
            url = parameters["request"]["url"]
            if not url.startswith(("data:", "file:", "about:", "blob:", self._origin)):
                self.complaints.append(f"request to {url}")


@contextmanager
def chromium() -> Iterator[Page]:
    """Start a browser with one page; it ends with the block."""
    assert CHROMIUM is not None
    to_browser, write = os.pipe()
    read, from_browser = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The pipe is file descriptors 3 and 4 of the browser.
        shell = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$0" "$@"'
        command = ["/bin/bash", "-c", shell, CHROMIUM, *_FLAGS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            command, pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        try:
            yield Page(read, write)
        finally:
            process.kill()
            process.wait()
            os.close(read)
            os.close(write)
