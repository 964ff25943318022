"""Decoding in groups and writing in the background change neither images nor error messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jahp_pl.cli import decode_ahead
from jahp_pl.codec.bitstream import Header, pack, unpack
from jahp_pl.codec.codec import Codec
from jahp_pl.model_io.load import load_codec
from tests.support.codec_models import kodak_crop
from tests.support.commands import run

SIZES = [(40, 50), (33, 64), (64, 33), (17, 90)]


@pytest.fixture
def coded(model, tmp_path):
    """A folder with 0.jahp to 3.jahp, images of different sizes."""
    folder, codec = tmp_path / "coded", load_codec(model)
    folder.mkdir()
    for number, (height, width) in enumerate(SIZES):
        (folder / f"{number}.jahp").write_bytes(codec.compress(kodak_crop()[number : number + height, :width]))
    return folder


@pytest.fixture
def groups(monkeypatch):
    """List of the number of files in each group that was decoded."""
    found, original = [], Codec.decode_each

    def decode_each(self, files, *arguments):
        found.append(len(files))
        return original(self, files, *arguments)

    monkeypatch.setattr(Codec, "decode_each", decode_each)
    return found


def check(folder: Path, out: Path, model: Path, names: str) -> None:
    """Check that these images, and no others, were written, and equal what each file gives when decoded alone."""
    codec = load_codec(model)
    assert sorted(path.stem for path in out.iterdir()) == sorted(names)
    for name in names:
        expected = codec.decompress((folder / f"{name}.jahp").read_bytes(), as_="numpy")
        with Image.open(out / f"{name}.png") as image:
            assert np.array_equal(np.asarray(image), expected)


@pytest.mark.parametrize(("limit", "sizes"), [(1, [1, 1, 1, 1]), (40 * 50 + 33 * 64, [2, 2]), (2**22, [4])])
def test_a_folder_is_decoded_in_groups_of_limited_size(monkeypatch, model, coded, groups, tmp_path, limit, sizes):
    monkeypatch.setattr(decode_ahead, "GROUP_PIXELS", limit)
    assert run("decompress", coded, "-o", tmp_path / "out", "--model", model) == 0
    assert groups == sizes
    check(coded, tmp_path / "out", model, "0123")


def test_a_file_that_does_not_decode_does_not_stop_its_group(model, coded, groups, tmp_path, capsys):
    header, payload = unpack((coded / "1.jahp").read_bytes())
    (coded / "1.jahp").write_bytes(pack(header, payload + bytes(8)))  # all latents are correct, but data is left over
    (coded / "2.jahp").write_bytes((coded / "2.jahp").read_bytes()[:-1])
    assert run("decompress", coded, "-o", tmp_path / "out", "--model", model) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "1.jahp: the payload does not decode" in lines[-3]
    assert "2.jahp: the file is cut short" in lines[-2]
    assert lines[-1] == "jahp: decompress: 2 of 4 failed, see above; the others are done"
    assert groups == [3, 1, 1]
    check(coded, tmp_path / "out", model, "03")


def test_images_that_exist_are_left_out_of_a_group(model, coded, groups, tmp_path):
    out = tmp_path / "out"
    assert run("decompress", coded, "-o", out, "--model", model) == 0
    written = (out / "0.png").stat().st_mtime_ns
    for number in (1, 3):
        (out / f"{number}.png").unlink()
    assert run("decompress", coded, "-o", out, "--model", model) == 0
    assert groups == [4, 2]
    assert (out / "0.png").stat().st_mtime_ns == written
    check(coded, out, model, "0123")


def test_with_a_time_limit_for_each_file_none_is_decoded_with_others(model, coded, groups, tmp_path):
    assert run("decompress", coded, "-o", tmp_path / "out", "--model", model, "--max-seconds", "60") == 0
    assert groups == []
    check(coded, tmp_path / "out", model, "0123")


def test_an_interrupt_leaves_the_images_whose_writing_had_begun(monkeypatch, model, coded, tmp_path):
    original = decode_ahead.DecodeAhead.image

    def image(self, job, *arguments):
        if job.source.stem == "2":
            raise KeyboardInterrupt
        return original(self, job, *arguments)

    monkeypatch.setattr(decode_ahead.DecodeAhead, "image", image)
    assert run("decompress", coded, "-o", tmp_path / "out", "--model", model) == 130
    check(coded, tmp_path / "out", model, "01")


def test_a_disk_that_fails_while_an_image_is_written_is_reported_for_that_image(model, coded, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "1.png" / "in the way").mkdir(parents=True)
    assert run("decompress", coded, "-o", out, "--model", model, "--force") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1] == "jahp: decompress: 1 of 4 failed, see above; the others are done"
    assert "1.png" in lines[-2]
    assert sorted(path.name for path in out.iterdir() if path.is_file()) == ["0.png", "2.png", "3.png"]


def test_an_output_of_few_colors_is_refused_before_decoding_and_a_loss_is_named(model, coded, tmp_path, capsys, groups):
    for suffix in (".gif", ".ico", ".pdf", ".txt"):
        target = tmp_path / f"x{suffix}"
        assert run("decompress", coded / "0.jahp", "-o", target, "--model", model) == 2
        assert f"{target}: '{suffix}': " in capsys.readouterr().err
        assert not target.exists()
    assert groups == []
    for suffix, note in ((".jpg", ", with some loss in JPEG\n"), (".webp", "40\n")):
        assert run("decompress", coded / "0.jahp", "-o", tmp_path / f"x{suffix}", "--model", model) == 0
        assert capsys.readouterr().out.endswith(note)


def test_a_file_of_another_suffix_is_decoded_at_any_size_that_is_allowed(model, tmp_path, capsys):
    """Only the model is wrong about this file of 144 megapixels."""
    path = tmp_path / "vast.bin"
    path.write_bytes(pack(Header(bytes(8), 12_000, 12_000, 0, 0), b""))
    arguments = ("decompress", path, "-o", tmp_path / "vast.png", "--model", model, "--max-pixels", "150000000")
    assert run(*arguments) == 2
    assert "the file was made with model 0000000000000000" in capsys.readouterr().err
