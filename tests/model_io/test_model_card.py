"""The model card and the results in an export."""

from __future__ import annotations

import json

import pytest

from jahp_pl.model_io.export import export, export_from, load_export
from jahp_pl.model_io.export_config import CARD_FILE, ExportError
from jahp_pl.model_io.load import load_codec
from tests.support.codec_models import load_golden
from tests.support.exports import FACTS, RESULTS


@pytest.fixture
def results(original, tmp_path):
    """Write the part of the results of `jahp evaluate` that an export reads."""
    mean = {"file_bpp": 0.25, "file_psnr": 30.5, "file_ms_ssim": 0.95, "file_ms_ssim_db": 13.01}
    images = [{"name": f"kodim{number:02}.png"} for number in range(1, 25)]
    content = {"mean": mean, "images": images, "provenance": {"fingerprint": load_codec(original).fingerprint.hex()}}
    path = tmp_path / "r.json"
    path.write_text(json.dumps(content))
    return path


def test_the_card_of_a_model_that_started_from_another_says_so(original, tmp_path):
    facts = FACTS | {"step": 50, "optim": {"start_from": "first"}, "note": "Ten hours in all."}
    export(load_golden("joint"), tmp_path / "m", facts)
    training = (tmp_path / "m" / CARD_FILE).read_text().split("## Training\n\n")[1]
    assert training.startswith(
        "Ten hours in all.\n\nThe last run, which started from the weights of `first`:\n\n| | |\n"
    )
    assert "| steps | 50 |" in training
    assert "The last run" not in (original / CARD_FILE).read_text()


def test_results_of_the_model_go_into_config_and_card(results, original, folder, tmp_path):
    export_from(original, tmp_path / "rated", results=results)
    stored = load_export(tmp_path / "rated").results
    assert stored == RESULTS
    assert "| Kodak (24 images) | 0.2500 | 30.50 dB | 0.9500 |" in (tmp_path / "rated" / CARD_FILE).read_text()
    export_from(tmp_path / "rated", tmp_path / "rated", overwrite=True)
    assert load_export(tmp_path / "rated").results == stored, "kept with the model"
    export_from(tmp_path / "rated", tmp_path / "half", dtype="bfloat16")
    assert load_export(tmp_path / "half").results is None, "of other weights"
    with pytest.raises(ExportError, match=r"r\.json: has results of model \w{16}, but this model is"):
        export_from(tmp_path / "half", tmp_path / "wrong", results=results)
    assert not (tmp_path / "wrong").exists()


def test_results_that_cannot_be_read_are_named(original, tmp_path):
    mean, own = {"file_bpp": 0.3, "file_psnr": None, "file_ms_ssim": None}, load_codec(original).fingerprint.hex()
    unmeasured = json.dumps({"mean": mean, "images": [{"name": "a.png"}], "provenance": {"fingerprint": own}})
    for text in ("", "[]", "{}", '{"mean": 3, "provenance": {"fingerprint": "00"}}', unmeasured, "[" * 100_000):
        (tmp_path / "r.json").write_text(text)
        with pytest.raises(ExportError, match=r"r\.json: has no results of `jahp evaluate`"):
            export_from(original, tmp_path / "rated", results=tmp_path / "r.json")
    with pytest.raises(ExportError, match=r"nowhere\.json: cannot be read"):
        export_from(original, tmp_path / "rated", results=tmp_path / "nowhere.json")


def test_the_card_says_what_the_model_is_and_how_to_use_it(run_folder, tmp_path):
    codec = export_from(run_folder, tmp_path / "mine")
    card = (tmp_path / "mine" / CARD_FILE).read_text()
    for words in (
        "# mine\n",
        "N = 8, M = 12",
        "| lambda | 0.02 |",
        "| steps | 11 |",
        "jahp compress photo.png --model mine",
    ):
        assert words in card
    assert codec.fingerprint.hex() in card
    assert "/home/me" not in card
