"""The page in web/ on localhost, and its worker, driven from a test or a check in a browser."""

from __future__ import annotations

import base64
import importlib.util
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from jahp_pl.codec.codec import Codec
from tests.support import ROOT
from tests.support.browser import CHROMIUM, Page

WEB = ROOT / "web"
VENDOR = WEB / "vendor"
"""Folder of onnxruntime-web, which `make web` fills."""
NEEDS_BROWSER = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
    pytest.mark.skipif(not (VENDOR / "ort.wasm.min.mjs").exists(), reason="run `make web` first"),
]
"""Marks of tests in a browser."""
IS_LOADED = "document.documentElement.dataset.ready !== undefined"
_DEFINE_ASK = """(() => {
  const worker = new Worker('/worker.js', { type: 'module' });
  window.ask = (what, values = {}) => new Promise((resolve) => {
    worker.onmessage = ({ data }) => data.progress === undefined && resolve(data);
    worker.postMessage({ id: 1, what, ...values });
  });
  window.text = (array) => btoa(Array.from(new Uint8Array(array.buffer, array.byteOffset, array.byteLength),
    (byte) => String.fromCharCode(byte)).join(''));
})()"""


def script(name: str) -> ModuleType:
    """Import a Python script of web/, which is not a package."""
    spec = importlib.util.spec_from_file_location(f"web_{name}", WEB / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


class Site:
    """The page on localhost, with a model.

    Args:
        folder: result of web/build.py.
        codec: codec of the same model in torch.
    """

    def __init__(self, folder: Path, codec: Codec) -> None:
        self.folder, self.codec = folder, codec
        self.server: ThreadingHTTPServer = script("serve").server(folder=folder)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/index.html"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def js_bytes(data: bytes) -> str:
    """Return the JavaScript expression for these bytes."""
    return f"Uint8Array.from(atob('{base64.b64encode(data).decode()}'), c => c.charCodeAt(0))"


def ask_worker(page: Page, site: Site, expression: str) -> Any:
    """Ask a worker of the site, and return its result with arrays as base64, or its error message.

    Args:
        page: page of a browser; it opens the site unless it already shows it.
        site: site whose worker to ask.
        expression: JavaScript expression that calls `ask(what, values)`, see web/worker.js.
    """
    if page.run("location.href") != site.url or not page.run("'ask' in window"):
        page.open(site.url, 1000, is_ready=IS_LOADED, patience=120)
        page.run(_DEFINE_ASK)
        assert "error" not in page.run("ask('load')")
    names = "['yHat', 'zHat', 'rgb', 'data']"
    packed = f"for (const name of {names}) if (result?.[name]) result[name] = text(result[name]);"
    return page.run(
        f"(async () => {{ const {{ result, error }} = await {expression}; {packed} return result ?? error; }})()"
    )


def array_of(text: str, dtype: str, *shape: int) -> npt.NDArray[Any]:
    """Return an array that `ask_worker` returned as base64."""
    return np.frombuffer(base64.b64decode(text), dtype=dtype).reshape(shape)
