"""Pillow opens, loads and saves .jahp files like any other format."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from jahp_pl import pillow
from jahp_pl.codec.bitstream import with_icc
from jahp_pl.images.io import ImageError, decode_rgb
from jahp_pl.model_io import pretrained
from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import CONFIG_FILE
from tests.support.codec_models import GOLDEN, JOINT, codec_of, kodak_crop, load_golden, variable_model
from tests.support.latent_searches import searching
from tests.support.profiles import DISPLAY_P3

PIXELS = kodak_crop()[:60, :90]


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """No models registered by earlier tests, and no bundled ones."""
    monkeypatch.setattr(pretrained, "BUNDLED_FOLDER", Path("nowhere"))
    monkeypatch.delenv(pillow.MODEL_VARIABLE, raising=False)
    monkeypatch.setattr(pillow, "MODELS", pillow.Models())


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A folder with two exports."""
    folder = tmp_path_factory.mktemp("exports")
    for name in ("joint", "mixture"):
        export(load_golden(name), folder / name, {})
    return folder


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jahp"
    path.write_bytes(codec_of(JOINT).compress(PIXELS))
    return path


def decoded() -> np.ndarray:
    codec = codec_of(JOINT)
    return codec.decompress(codec.compress(PIXELS), as_="numpy")


def test_a_registered_model_saves_and_loads(tmp_path):
    codec = pillow.register(codec_of(JOINT))
    path = tmp_path / "photo.jahp"
    Image.fromarray(PIXELS).save(path)
    assert path.read_bytes() == codec.compress(PIXELS)
    with Image.open(path) as image:
        assert (image.format, image.mode, image.size) == ("JAHP", "RGB", (90, 60))
        assert image.get_format_mimetype() == "image/x-jahp"
        assert np.array_equal(np.asarray(image), decoded())
    assert image.fp is None


def test_a_model_given_when_saving_is_known_when_loading(exports, tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "photo.jahp", model=exports / "joint")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "photo.jahp")), decoded())
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, "JAHP", model=codec_of(JOINT))
    assert buffer.getvalue() == (tmp_path / "photo.jahp").read_bytes()


@pytest.mark.parametrize("place", ["joint", "."], ids=["the export", "a folder of exports"])
def test_the_model_comes_from_the_environment(place, exports, photo, monkeypatch):
    monkeypatch.setenv(pillow.MODEL_VARIABLE, str(exports / place))
    assert np.array_equal(np.asarray(Image.open(photo)), decoded())


def test_the_environment_says_what_to_save_with(exports, photo, tmp_path, monkeypatch):
    pillow.register(load_codec_of_mixture())
    monkeypatch.setenv(pillow.MODEL_VARIABLE, str(exports / "joint"))
    Image.fromarray(PIXELS).save(tmp_path / "again.jahp")
    assert (tmp_path / "again.jahp").read_bytes() == photo.read_bytes()


def load_codec_of_mixture():
    from jahp_pl.codec.codec import Codec

    return Codec(load_golden("mixture"))


OPEN = """
import sys
import jahp_pl.pillow
from PIL import Image
print(Image.open(sys.argv[1]).size)
assert "torch" not in sys.modules
"""


def test_opening_takes_neither_model_nor_torch(photo):
    child = subprocess.run(
        [sys.executable, "-c", OPEN, str(photo)], capture_output=True, text=True, timeout=60, check=False
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.strip() == "(90, 60)"


@pytest.mark.parametrize("place", [None, "mixture", "."], ids=["none", "another", "only others in the folder"])
def test_without_its_model_a_file_opens_and_loading_says_what_to_do(place, exports, photo, tmp_path, monkeypatch):
    if place is not None:
        shutil.copytree(exports / "mixture", tmp_path / "models" / "mixture")
        monkeypatch.setenv(pillow.MODEL_VARIABLE, str(tmp_path / "models" / place))
    with Image.open(photo) as image:
        for _ in range(2):
            with pytest.raises(OSError, match=r"photo\.jahp: .* made with model \w{16}, .*; set JAHP_MODEL") as caught:
                image.load()
        assert "\n" not in str(caught.value)
        pillow.register(codec_of(JOINT))
        assert np.array_equal(np.asarray(image), decoded())


def test_a_model_that_cannot_be_loaded_is_named(photo, exports, tmp_path, monkeypatch):
    monkeypatch.setenv(pillow.MODEL_VARIABLE, str(tmp_path / "nowhere"))
    with (
        Image.open(photo) as image,
        pytest.raises(OSError, match="nowhere: no such export, run folder"),
    ):
        image.load()
    damaged = shutil.copytree(exports / "joint", tmp_path / "damaged")
    (damaged / CONFIG_FILE).write_text("{}")
    monkeypatch.setenv(pillow.MODEL_VARIABLE, str(damaged))
    with (
        Image.open(photo) as image,
        pytest.raises(
            OSError,
            match=r"damaged.config\.json: does not belong to a jahp_pl export; give a folder that `jahp export` made$",
        ),
    ):
        image.load()


def test_saving_without_a_model_or_with_two_says_what_to_do(tmp_path):
    image = Image.fromarray(PIXELS)
    with pytest.raises(OSError, match=r"photo\.jahp: no models are bundled with this jahp_pl; give one"):
        image.save(tmp_path / "photo.jahp")
    pillow.register(codec_of(JOINT))
    pillow.register(load_codec_of_mixture())
    with pytest.raises(OSError, match="2 models are registered"):
        image.save(tmp_path / "photo.jahp")
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_cannot_be_kept_is_refused(tmp_path):
    with pytest.raises(OSError, match=r"photo\.jahp: transparent pixels"):
        Image.new("RGBA", (20, 20)).save(tmp_path / "photo.jahp", model=codec_of(JOINT))


def test_a_color_profile_is_known_when_opened_and_kept_when_saved(photo, tmp_path):
    photo.write_bytes(with_icc(photo.read_bytes(), DISPLAY_P3))
    pillow.register(codec_of(JOINT))
    with Image.open(photo) as image:
        assert image.info["icc_profile"] == DISPLAY_P3
        image.save(tmp_path / "copy.jahp")
        image.save(tmp_path / "plain.jahp", icc_profile=None)
        image.save(tmp_path / "copy.png")
    for name, profile in {"copy.jahp": DISPLAY_P3, "copy.png": DISPLAY_P3, "plain.jahp": None}.items():
        with Image.open(tmp_path / name) as image:
            assert image.info.get("icc_profile") == profile
    Image.fromarray(PIXELS).save(tmp_path / "given.jahp", icc_profile=DISPLAY_P3)
    assert (tmp_path / "given.jahp").read_bytes() == photo.read_bytes()


def test_other_bytes_are_refused_when_opened():
    data, rng = (GOLDEN / "joint.jahp").read_bytes(), np.random.default_rng(0)
    for one in (data + b"x", b"jahp" + bytes(1000), b"jahp" + rng.bytes(1000)):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(one))


def test_a_damaged_file_is_named_with_what_is_wrong(photo):
    photo.write_bytes(photo.read_bytes()[:-9])
    with pytest.raises(UnidentifiedImageError, match=r"photo\.jahp: the file is cut short"):
        Image.open(photo)


def test_an_image_too_large_for_pillow_is_refused_before_it_takes_memory():
    from jahp_pl.codec.bitstream import Header, pack

    bomb = pack(Header(b"8 bytes!", 65535, 65535, 0, 0), b"")
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(bomb))


def test_a_payload_that_does_not_decode_is_an_error_when_loaded(photo):
    from jahp_pl.codec.bitstream import pack, unpack

    codec = pillow.register(codec_of(JOINT))
    header, payload = unpack(photo.read_bytes())
    forged = pack(header, np.random.default_rng(1).bytes(len(payload)))
    assert header.fingerprint == codec.fingerprint
    with Image.open(io.BytesIO(forged)) as image, pytest.raises(OSError, match="an incompatible program made the file"):
        image.load()


def test_the_package_reads_jahp_files_through_pillow(photo):
    with pytest.raises(ImageError, match=r"photo\.jahp: .*set JAHP_MODEL"):
        decode_rgb(photo)
    pillow.register(codec_of(JOINT))
    assert np.array_equal(decode_rgb(photo), decoded())


@pytest.mark.usefixtures("one_thread")
def test_pillow_searches_on_request(tmp_path: Path) -> None:
    codec = searching(JOINT)
    image = Image.fromarray(kodak_crop("kodim05")[:96, :96])
    image.save(tmp_path / "a.jahp", model=codec, effort=1)
    assert (tmp_path / "a.jahp").read_bytes() == codec.compress(image, effort=1)


def test_pillow_saves_to_a_target(tmp_path: Path) -> None:
    export(variable_model(), tmp_path / "model", {}, dtype="int8")
    codec, path = pillow.register(tmp_path / "model"), tmp_path / "photo.jahp"
    for target in ({"quality": 30}, {"size": 5000}):
        Image.fromarray(kodak_crop()).save(path, **target)  # type: ignore[arg-type]
        assert path.read_bytes() == codec.compress(kodak_crop(), **target)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="quality 0: must be from 1"):
        Image.fromarray(kodak_crop()).save(path, quality=0)
