"""The page in web/ compresses, opens, shows and saves pictures in a browser, and explains why it refuses input.

The tests need Chromium, and the files of onnxruntime-web that `make web` puts into web/vendor.
"""

from __future__ import annotations

import base64
import io
import json
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from jahp_pl.images.icc import rgb_to_srgb
from jahp_pl.images.io import decode_rgb
from tests.support.browser import Page, chromium
from tests.support.codec_models import kodak_crop
from tests.support.profiles import DISPLAY_P3
from tests.support.web_page import IS_LOADED, NEEDS_BROWSER, Site, js_bytes

pytestmark = NEEDS_BROWSER


def give(page: Page, name: str, data: bytes, kind: str = "") -> None:
    """Give the page a file, as if the user had chosen it."""
    page.run(
        f"(() => {{ const moved = new DataTransfer(); moved.items.add(new File([{js_bytes(data)}], '{name}', "
        f"{{ type: '{kind}' }})); const input = document.getElementById('file'); input.files = moved.files; "
        "input.dispatchEvent(new Event('change')); })()"
    )


def turn(page: Page, name: str, value: str) -> None:
    """Set a control."""
    page.run(
        f"(() => {{ const control = document.getElementById('{name}'); control.value = '{value}'; "
        "for (const kind of ['input', 'change']) control.dispatchEvent(new Event(kind)); })()"
    )


def status(page: Page, beginning: str, patience: float = 60.0) -> str:
    """Wait until the status of the page has this beginning or is an error, and return it."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        said, is_error = page.run(
            "[document.getElementById('status').textContent, document.getElementById('status').className === 'error']"
        )
        if is_error or said.startswith(beginning):
            return str(said)
        time.sleep(0.1)
    raise AssertionError(f"still says: {said}")


def png(image: npt.NDArray[np.uint8], profile: bytes | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", icc_profile=profile)
    return buffer.getvalue()


def rows(page: Page) -> dict[str, list[str]]:
    table = page.run(
        "Array.from(document.querySelectorAll('#rows tr'), (row) => Array.from(row.cells, (c) => c.textContent))"
    )
    return {label: cells for label, *cells in table}


def link(page: Page, name: str) -> bytes:
    """Download what a link of the page offers."""
    code = f"fetch(document.getElementById('{name}').href).then((r) => r.arrayBuffer())"
    text = page.run(
        f"({code}).then((b) => btoa(Array.from(new Uint8Array(b), (x) => String.fromCharCode(x)).join('')))"
    )
    return base64.b64decode(text)


@contextmanager
def opened(page: Page, site: Site, width: int = 1400) -> Iterator[None]:
    page.complaints.clear()
    page.open(site.url, width, is_ready=IS_LOADED, patience=120)
    assert status(page, "Ready").startswith("Ready")
    yield
    assert page.complaints == []
    assert page.run("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [400, 1400])
def test_a_photograph_is_compressed_compared_and_saved(width: int, page: Page, sites: dict[str, Site]) -> None:
    site, image = sites["variable"], kodak_crop("kodim23", 160, 224)
    with opened(page, site, width):
        give(page, "photo.png", png(image), "image/png")
        assert status(page, "Compressed").startswith("Compressed")
        found = rows(page)
        assert list(found) == ["original", "jahp", "JPEG", "WebP"]
        data = link(page, "saveFile")
        assert found["jahp"][0] == f"{len(data):,}"
        shown = site.codec.decompress(data, as_="numpy")
        saved = np.asarray(Image.open(io.BytesIO(link(page, "savePicture"))).convert("RGB"))
        assert np.abs(saved.astype(int) - shown).max() <= 1
        mse = np.square(saved.astype(float) - image).mean()
        assert found["jahp"][2] == f"{10 * np.log10(255**2 / mse):.2f} dB"
        for label in ("JPEG", "WebP"):
            size = int(found[label][0].replace(",", ""))
            assert size <= len(data) or label in page.run("document.getElementById('facts').textContent")
        turn(page, "quality", "95")
        assert status(page, "Compressed").startswith("Compressed")
        assert len(link(page, "saveFile")) > len(data)


def test_the_divider_and_the_choices_change_the_picture(page: Page, sites: dict[str, Site]) -> None:
    with opened(page, sites["variable"]):
        give(page, "photo.png", png(kodak_crop("kodim23", 64, 96)), "image/png")
        status(page, "Compressed")
        before = page.run("document.getElementById('over').toDataURL()")
        turn(page, "left", "original")
        assert page.run("document.getElementById('over').toDataURL()") != before
        turn(page, "split", "250")
        assert page.run("document.getElementById('over').style.clipPath") == "inset(0px 75% 0px 0px)"
        box = page.run("document.getElementById('stage').getBoundingClientRect().toJSON()")
        page.press(box["x"] + box["width"] * 0.8, box["y"] + 40)
        assert float(page.run("document.getElementById('split').value")) > 700


def test_a_file_is_opened_and_its_picture_saved(page: Page, sites: dict[str, Site]) -> None:
    site = sites["variable"]
    data = site.codec.compress(kodak_crop("kodim05", 100, 120))
    with opened(page, site, 400):
        give(page, "photo.jahp", data)
        assert status(page, "Decoded").startswith("Decoded")
        assert rows(page) == {"decoded": [f"{len(data):,}", f"{8 * len(data) / 12000:.3f}", "–"]}
        saved = np.asarray(Image.open(io.BytesIO(link(page, "savePicture"))).convert("RGB"))
        assert np.abs(saved.astype(int) - site.codec.decompress(data, as_="numpy")).max() <= 1
        assert page.run("getComputedStyle(document.getElementById('controls')).display") == "none"


def shown(page: Page) -> npt.NDArray[np.uint8]:
    """Return the picture on the left, (H, W, 3)."""
    url = page.run("document.getElementById('over').toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGB"))


def test_a_photograph_is_converted_to_srgb_as_its_profile_says(page: Page, sites: dict[str, Site]) -> None:
    image = kodak_crop("kodim23", 64, 96)
    data = png(image, DISPLAY_P3)
    with opened(page, sites["variable"]):
        give(page, "photo.png", data, "image/png")
        assert status(page, "Compressed").startswith("Compressed")
        turn(page, "left", "original")
        found = shown(page).astype(int)
    assert np.abs(found - image).max() > 10
    assert np.abs(found - decode_rgb(data)).max() <= 2
    assert rows(page)["original"][0] == f"{len(data):,}"


def test_the_profile_of_a_file_is_shown_and_kept(page: Page, sites: dict[str, Site]) -> None:
    site, image = sites["variable"], kodak_crop("kodim23", 64, 96)
    with Image.open(io.BytesIO(png(image, DISPLAY_P3))) as photo:
        data = site.codec.compress(photo)
    expected = site.codec.decompress(data, as_="numpy")
    with opened(page, site, 400):
        give(page, "photo.jahp", data)
        assert status(page, "Decoded").startswith("Decoded")
        found = shown(page).astype(int)
        with Image.open(io.BytesIO(link(page, "savePicture"))) as saved:
            assert saved.info["icc_profile"] == DISPLAY_P3
            assert np.abs(np.asarray(saved.convert("RGB")).astype(int) - expected).max() <= 1
    assert np.abs(found - expected).max() > 5  # the tiny model shows little color
    assert np.abs(found - rgb_to_srgb(expected, DISPLAY_P3)).max() <= 3


def test_what_was_asked_for_last_is_shown(page: Page, sites: dict[str, Site]) -> None:
    """Requests may overtake each other: two qualities and then a file are requested before the first answer."""
    site = sites["variable"]
    data = site.codec.compress(kodak_crop("kodim05", 100, 120))
    with opened(page, site):
        give(page, "photo.png", png(kodak_crop("kodim23", 64, 96)), "image/png")
        assert status(page, "Compressed").startswith("Compressed")
        for quality in ("20", "90"):
            turn(page, "quality", quality)
        give(page, "photo.jahp", data)
        give(page, "again.png", png(kodak_crop("kodim19", 80, 64)), "image/png")
        assert status(page, "Compressed").startswith("Compressed")
        assert "64 × 80" in page.run("document.getElementById('facts').textContent")
        turn(page, "quality", "30")
        give(page, "photo.jahp", data)
        assert status(page, "Decoded").startswith("Decoded")
        time.sleep(1)
        assert list(rows(page)) == ["decoded"]


def test_a_gray_picture_stays_gray(page: Page, sites: dict[str, Site]) -> None:
    site = sites["variable"]
    gray = np.repeat(kodak_crop("kodim05", 64, 64)[:, :, :1], 3, axis=2)
    with opened(page, site):
        give(page, "photo.png", png(gray), "image/png")
        status(page, "Compressed")
        red, green, blue = site.codec.decompress(link(page, "saveFile")).numpy()
        assert np.array_equal(red, green)
        assert np.array_equal(red, blue)


@pytest.mark.parametrize(("name", "data"), [("x.jahp", b"no such file"), ("x.png", b"no picture"), ("x.jahp", b"jahp")])
def test_the_page_says_what_is_wrong_and_goes_on(name: str, data: bytes, page: Page, sites: dict[str, Site]) -> None:
    site = sites["variable"]
    with opened(page, site):
        give(page, name, data)
        said = status(page, "never")
        assert said.endswith(".")
        assert "undefined" not in said
        give(page, "photo.jahp", site.codec.compress(kodak_crop("kodim05", 32, 32)))
        assert status(page, "Decoded").startswith(("Decoded", said))
        time.sleep(1)
        assert status(page, "Decoded").startswith("Decoded")


def test_a_browser_without_simd_gets_a_sentence(page: Page, sites: dict[str, Site]) -> None:
    source = "WebAssembly.validate = () => false;"
    script = page._call("Page.addScriptToEvaluateOnNewDocument", source=source)["identifier"]
    try:
        page.open(sites["variable"].url, 400, is_ready="document.getElementById('status').className === 'error'")
    finally:
        page._call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)
    assert "lacks WebAssembly SIMD" in page.run("document.getElementById('status').textContent")


@pytest.mark.parametrize("fault", ["missing", "altered"])
def test_a_model_that_does_not_load_gets_a_sentence(
    fault: str, page: Page, sites: dict[str, Site], tmp_path: Path
) -> None:
    shutil.copytree(sites["variable"].folder, tmp_path / "page")
    weights = tmp_path / "page" / "model" / "model.safetensors"
    if fault == "missing":
        weights.unlink()
    else:
        data = bytearray(weights.read_bytes())
        size = struct.unpack("<Q", data[:8])[0]
        begin = json.loads(data[8 : 8 + size])["g_cm.weight"]["data_offsets"][0]
        data[8 + size + begin + 2] ^= 64
        weights.write_bytes(data)
    site = Site(tmp_path / "page", sites["variable"].codec)
    try:
        page.open(site.url, 400, is_ready=IS_LOADED, patience=60)
        said = page.run("document.getElementById('status').textContent")
    finally:
        site.stop()
    assert ("does not load" if fault == "missing" else "The model is damaged") in said


def test_the_page_works_offline_once_loaded(sites: dict[str, Site], tmp_path: Path) -> None:
    shutil.copytree(sites["variable"].folder, tmp_path / "page")
    site = Site(tmp_path / "page", sites["variable"].codec)
    data = site.codec.compress(kodak_crop("kodim05", 64, 64))
    with chromium() as alone:
        alone.open(site.url, 1000, is_ready=IS_LOADED, patience=60)
        alone.run("navigator.serviceWorker.ready.then(() => true)")
        assert alone.run("document.getElementById('offline').hidden") is False
        site.stop()
        for address in (site.url, site.url.removesuffix("index.html")):
            alone.open(address, 1000, is_ready=IS_LOADED, patience=60)
            give(alone, "photo.jahp", data)
            assert status(alone, "Decoded").startswith("Decoded")
            give(alone, "photo.png", png(kodak_crop("kodim05", 64, 64)), "image/png")
            assert status(alone, "Compressed").startswith("Compressed")
