"""docs/images.md is correct: a small file for each row is read as it says."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pillow_heif
import pytest
from PIL import Image, UnidentifiedImageError

from jahp_pl.images import heif
from jahp_pl.images.io import ImageError, convert_image, convert_rgb, decode_rgb, is_plain_jpeg, load_rgb
from jahp_pl.images.matrix_profiles import BT709, Chromaticities, rgb_profile
from tests.support.colored_files import CASES, GRAY, P3, RGB, png

PAGE = Path(__file__).parents[2] / "docs" / "images.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().splitlines()
    if line.startswith("|") and not line.startswith("|---")
][1:]
TABLE = {(row[0], row[1], row[2]): row[3] for row in ROWS}


def psnr(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    return float(10 * np.log10(255**2 / max(1e-6, ((a.astype(float) - b.astype(float)) ** 2).mean())))


def test_the_page_has_a_row_for_every_case() -> None:
    assert list(TABLE) == list(CASES)


@pytest.mark.parametrize("key", CASES, ids=", ".join)
def test_every_row_of_the_page_holds(key: tuple[str, str, str]) -> None:
    case, outcome = CASES[key](), TABLE[key]
    if case.meant is None:
        with pytest.raises(ImageError, match=r"^file: .*; (convert|give|use) ") as refused:
            convert_rgb(case.data, "file")
        assert outcome == "refused"
        assert "\n" not in str(refused.value)
        with pytest.raises(ImageError, match=r"^file: "):
            load_rgb(case.data, "file")
        return
    converted = convert_rgb(case.data)
    assert outcome == (f"right; lost: {', '.join(converted.lost)}" if converted.lost else "right")
    assert psnr(converted.rgb, case.meant) > 40
    assert np.array_equal(np.asarray(load_rgb(case.data)), converted.rgb)
    if key[0] == "JPEG":
        assert is_plain_jpeg(case.data) == (psnr(decode_rgb(case.data), RGB) > 40)


@pytest.mark.parametrize(
    "key", [key for key in CASES if "converted to sRGB" in TABLE[key] and "gray" not in key[0]], ids=", ".join
)
def test_kept_profiles_have_the_intended_colors(key: tuple[str, str, str]) -> None:
    """The decoded pixels come with a profile, in whatever form the file stated its colors."""
    case = CASES[key]()
    kept = convert_rgb(case.data, max_icc=2**20)
    assert kept.icc
    assert "converted to sRGB" not in " ".join(kept.lost)
    buffer = io.BytesIO()
    Image.fromarray(kept.rgb).save(buffer, "PNG", icc_profile=kept.icc)
    assert case.meant is not None
    assert psnr(decode_rgb(buffer.getvalue()), case.meant) > 40


def test_a_heic_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(RGB)).save(buffer, quality=100, chroma=444, exif=exif.tobytes())
    assert psnr(decode_rgb(buffer.getvalue()), np.rot90(RGB, -1)) > 40


def test_without_its_plugin_heic_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif, "is_installed", lambda: False)
    assert heif.readable_suffixes() == frozenset()
    monkeypatch.setattr(Image, "open", failing_open)
    with pytest.raises(ImageError, match=r"photo\.heic: not an image, .*pip install 'jahp_pl\[heif\]'"):
        decode_rgb(b"anything", "photo.heic")


def failing_open(*_: object) -> None:
    raise UnidentifiedImageError


def test_transparency_in_16_bits_is_refused_where_it_would_be_lost() -> None:
    for depth in ("16", "4"):
        with pytest.raises(ImageError, match="transparent pixels"):
            convert_rgb(CASES["PNG, gray", "tRNS", depth]().data, flatten=False)


def test_a_loaded_pillow_image_is_read_like_its_file() -> None:
    for key in (("PNG", "cHRM", "8"), ("PNG", "cICP, e.g. Display P3", "8"), ("AVIF", "nclx, e.g. Display P3", "8")):
        with Image.open(io.BytesIO(CASES[key]().data)) as image:
            assert psnr(convert_image(image).rgb, P3) > 40
    with Image.open(io.BytesIO(CASES["PNG", "cHRM", "8"]().data)) as image:
        image.load()  # Pillow keeps gAMA and cHRM
        assert psnr(convert_image(image).rgb, P3) > 40


def test_an_srgb_chunk_and_a_profile_take_precedence_over_gamma() -> None:
    for sooner in ((b"sRGB", b"\0"), (b"cICP", bytes([1, 13, 0, 1]))):
        data = png(RGB, 8, 2, sooner, (b"gAMA", (100000).to_bytes(4, "big")))
        assert np.array_equal(decode_rgb(data), RGB)


def test_a_gray_profile_takes_gray_with_alpha_too() -> None:
    rows = np.stack([GRAY, np.full_like(GRAY, 255)], -1)
    gamma = (b"gAMA", (100000).to_bytes(4, "big"))
    assert np.array_equal(decode_rgb(png(rows, 8, 4, gamma)), decode_rgb(png(GRAY, 8, 0, gamma)))


@pytest.mark.parametrize(
    "points",
    [
        BT709._replace(red=(0.3, 0.6)),
        BT709._replace(white=(0.9, 0.05)),
        Chromaticities((0, 0), (0, 0), (0, 0), (0, 0)),
    ],
)
def test_impossible_primaries_make_no_profile(points: Chromaticities) -> None:
    with pytest.raises(ValueError, match=r"primaries|white|chromaticity"):
        rgb_profile(points, (2.2, 2.2, 2.2), "no")


@pytest.mark.parametrize(
    "key", [key for key in CASES if key[0].split(",")[0] in ("AVIF", "JPEG 2000", "BMP", "PNG")], ids=", ".join
)
def test_cut_and_altered_files_give_an_image_or_an_image_error(key: tuple[str, str, str]) -> None:
    data, generator = CASES[key]().data, np.random.default_rng(0)
    for trial in range(40):
        spoiled = bytearray(data[: len(data) - 7 * (trial % 5)])
        for place in generator.integers(0, min(len(spoiled), 700), 3):
            spoiled[place] = generator.integers(256)
        try:
            outcome = f"cut: {decode_rgb(bytes(spoiled), 'cut').shape}"
        except ImageError as error:
            outcome = str(error)
        assert outcome.startswith("cut: ")
