"""`jahp evaluate` leaves files, results and a picture."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tests.support import ROOT
from tests.support.commands import run


def test_evaluate_leaves_files_results_and_a_picture(model_file, tmp_path, capsys):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (3, 4):
        with Image.open(ROOT / "data" / "kodak" / f"kodim{number:02}.png") as image:
            image.crop((0, 0, 192, 200)).save(folder / f"{number}.png")
    out, picture = tmp_path / "r.json", tmp_path / "r.png"
    assert run(
        "evaluate", "--model", model_file, "--images", folder, "--out", out, "--compare", "jpeg", "--picture", picture
    ) == 0  # fmt: skip
    results = json.loads(out.read_text())
    assert [image["name"] for image in results["images"]] == ["3.png", "4.png"]
    for image in results["images"]:
        size = (tmp_path / "r" / image["name"]).with_suffix(".jahp").stat().st_size
        assert image["file_bytes"] == size
        assert image["file_bpp"] == pytest.approx(8 * size / (192 * 200))
        assert image["beside"]["bpp"] > 0
        assert image["mismatched_symbols"] == 0
    assert results["mean"]["file_psnr"] == pytest.approx(np.mean([i["file_psnr"] for i in results["images"]]))
    assert "every latent came back as it was written" in capsys.readouterr().out
    with Image.open(picture) as drawn:
        assert drawn.width > 600


def test_evaluate_keeps_images_with_the_same_stem_apart(model_file, tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    with Image.open(ROOT / "data" / "kodak" / "kodim05.png") as image:
        for number, name in enumerate(("a.png", "sub/a.png", "sub/b.png")):
            image.crop((0, 0, 32 + 16 * number, 40)).save(folder / name)

    def evaluated(out):
        assert run("evaluate", "--model", model_file, "--images", folder, "--out", tmp_path / f"{out}.json") == 0
        rows = json.loads((tmp_path / f"{out}.json").read_text())["images"]
        made = {str(p.relative_to(tmp_path / out)): p.stat().st_size for p in (tmp_path / out).rglob("*.jahp")}
        return {row["name"]: row["file_bytes"] for row in rows}, made

    rows, made = evaluated("stems")
    assert set(made) == {"a.jahp", "sub/a.jahp", "sub/b.jahp"}
    assert {name.replace(".png", ".jahp"): size for name, size in rows.items()} == made
    with Image.open(folder / "a.png") as image:
        image.crop((0, 0, 20, 20)).save(folder / "a.bmp")
    rows, made = evaluated("suffixes")
    assert set(made) == {"a.bmp.jahp", "a.png.jahp", "sub/a.png.jahp", "sub/b.png.jahp"}
    assert {f"{name}.jahp": size for name, size in rows.items()} == made
