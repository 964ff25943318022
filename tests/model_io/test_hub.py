"""Models on the Hugging Face Hub, tested without a network but with the client's real cache and signatures."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from unittest.mock import create_autospec

import pytest
from PIL import Image

import jahp_pl
from jahp_pl.codec.codec import Codec
from jahp_pl.model_io import pretrained
from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, ExportError
from tests.support.codec_models import load_golden
from tests.support.commands import run

huggingface_hub = pytest.importorskip("huggingface_hub")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "mine"
    export(load_golden("joint"), path, {})
    return path


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Use a cache for this test alone and no network, as with HF_HUB_OFFLINE=1."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def cached(folder, tmp_path):
    """Create what huggingface_hub leaves in its cache of user/mine after a download."""
    place = tmp_path / "cache" / "models--user--mine"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    shutil.copytree(folder, place / "snapshots" / COMMIT)
    return place / "snapshots" / COMMIT


@pytest.mark.usefixtures("cached")
def test_a_model_of_the_hub_is_loaded_and_named_like_any_other(tmp_path, capsys):
    for name in ("hf://user/mine", "hf://user/mine@main", f"hf://user/mine@{COMMIT}"):
        assert jahp_pl.load_codec(name).fingerprint == Codec(load_golden("joint")).fingerprint
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "photo.png")
    assert run("compress", tmp_path / "photo.png", "--model", "hf://user/mine", "--verify") == 0
    assert run("info", "hf://user/mine") == 0
    assert Codec(load_golden("joint")).fingerprint.hex() in capsys.readouterr().out


def test_downloads_from_the_hub_are_validated_like_every_export(cached):
    data = bytearray((cached / WEIGHTS_FILE).read_bytes())
    data[1000] ^= 1
    (cached / WEIGHTS_FILE).write_bytes(data)
    with pytest.raises(ExportError, match="altered or cut short"):
        jahp_pl.load_codec("hf://user/mine")


@pytest.mark.parametrize("name", ["hf://user/unknown", "hf://user/mine@v9", "hf://not a name", "hf://"])
@pytest.mark.usefixtures("cached")
def test_a_model_that_cannot_be_fetched_is_named_in_one_line(name):
    with pytest.raises(ExportError) as caught:
        jahp_pl.load_codec(name)
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)


class Server:
    """Server that stores pushed files in a folder; its methods have exactly the parameters of HfApi's methods."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.api = create_autospec(huggingface_hub.HfApi, instance=True)
        self.api.create_repo.side_effect = self.create
        self.api.upload_folder.side_effect = self.upload

    def create(self, repo_id, *, private=None, exist_ok=False):
        (self.place / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        return huggingface_hub.RepoUrl(f"{huggingface_hub.constants.ENDPOINT}/{repo_id}")

    def upload(self, *, repo_id, folder_path, allow_patterns, commit_message):
        for name in allow_patterns:
            shutil.copy(Path(folder_path) / name, self.place / repo_id)


def test_an_export_is_pushed_with_its_card_and_loads_from_what_was_pushed(folder, tmp_path, monkeypatch):
    server = Server(tmp_path / "server")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: server.api)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "notes.txt").write_text("mine")
    address = pretrained.push(copy, "user/mine")
    assert address.endswith("user/mine")
    pushed = tmp_path / "server" / "user" / "mine"
    assert {path.name for path in pushed.iterdir()} == {CARD_FILE, CONFIG_FILE, WEIGHTS_FILE}
    assert jahp_pl.load_codec(pushed).fingerprint == Codec(load_golden("joint")).fingerprint
    pretrained.push(folder, "user/mine")  # pushing again works


def test_a_card_has_the_head_that_the_hub_reads(folder):
    head = huggingface_hub.ModelCard((folder / CARD_FILE).read_text()).data
    assert head.library_name == "jahp_pl"
    assert "image-compression" in head.tags


def test_a_failed_push_is_reported_in_one_line(folder, tmp_path):
    with pytest.raises(ExportError, match="is not an export; make one"):
        pretrained.push(tmp_path, "user/mine")
    with pytest.raises(ExportError, match="user/mine: "):
        pretrained.push(folder, "user/mine")  # there is no network


def test_without_the_package_one_line_says_how_to_get_it(folder, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for call in (lambda: pretrained.push(folder, "user/mine"), lambda: jahp_pl.load_codec("hf://user/mine")):
        with pytest.raises(ExportError, match=r"pip install 'jahp_pl\[hub\]'"):
            call()
