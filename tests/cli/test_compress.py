"""`jahp compress` and `jahp decompress` with folders, single files and streams; `--verify` and `--force`."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from jahp_pl.codec.codec import Codec
from jahp_pl.model_io.load import load_codec
from tests.support.codec_models import kodak_crop
from tests.support.commands import files, run
from tests.support.profiles import DISPLAY_P3


def test_a_folder_round_trips_with_its_tree_of_names(model, photos, tmp_path):
    coded, restored = tmp_path / "coded", tmp_path / "restored"
    assert run("compress", photos, "-o", coded, "--model", model) == 0
    assert files(coded) == ["one.jahp", "sub/two.jahp"]
    assert run("decompress", coded, "-o", restored, "--model", model) == 0
    assert files(restored) == files(photos)
    codec = load_codec(model)
    for name in files(photos):
        expected = codec.decompress((coded / name).with_suffix(".jahp").read_bytes())
        with Image.open(restored / name) as image:
            assert np.array_equal(np.asarray(image), expected.movedim(0, -1).numpy())


def test_finished_outputs_are_skipped_unless_forced(model, photos, capsys):
    command = ("compress", photos, "--model", model)
    assert run(*command) == 0
    before = {path: path.stat().st_mtime_ns for path in photos.rglob("*.jahp")}
    (photos / "one.jahp").unlink()
    capsys.readouterr()
    assert run(*command) == 0
    assert "1 of 2 was done already" in capsys.readouterr().out
    second = photos / "sub" / "two.jahp"
    assert second.stat().st_mtime_ns == before[second]
    assert run(*command, "--force") == 0
    assert second.stat().st_mtime_ns > before[second]


def test_an_output_made_with_other_options_does_not_count_as_done(model, tmp_path, capsys):
    folder = tmp_path / "wide"
    folder.mkdir()
    Image.fromarray(kodak_crop()[:40, :50]).save(folder / "wide.png", icc_profile=DISPLAY_P3)
    Image.fromarray(kodak_crop()[:40, :50]).save(folder / "plain.png")
    for first, second in (((), ("--srgb",)), (("--srgb",), ())):
        assert run("compress", folder, "--model", model, *first, "--force") == 0
        assert run("compress", folder, "--model", model, *first) == 0
        assert "2 of 2 were done already" in capsys.readouterr().out
        assert run("compress", folder, "--model", model, *second) == 2
        shown = capsys.readouterr()
        message = f"{folder / 'wide.png'}: {folder / 'wide.jahp'}: exists and was not made by this model with these"
        assert message in shown.err
        assert "1 of 2 was done already" in shown.out


def test_an_output_of_another_model_or_older_than_its_input_does_not_count_as_done(model, photos, capsys):
    assert run("compress", photos, "--model", model) == 0
    one, two = photos / "one.jahp", photos / "sub" / "two.jahp"
    data = bytearray(one.read_bytes())
    data[5] ^= 1  # in the fingerprint; the checksum is wrong then, too
    one.write_bytes(data)
    os.utime(two, (1, 1))
    assert run("compress", photos, "--model", model) == 2
    error = capsys.readouterr().err
    assert "was not made by this model" in error
    assert "older" in error
    assert one.read_bytes() == data


def test_decompressing_beside_the_originals_does_not_touch_them(model, photos):
    originals = {path: path.read_bytes() for path in photos.rglob("*.png")}
    assert run("compress", photos, "--model", model) == 0
    assert run("decompress", photos, "--model", model) == 0
    assert all(path.read_bytes() == data for path, data in originals.items())
    assert {path.with_suffix(".decoded.png") for path in originals} == set(photos.rglob("*.decoded.png"))


def test_one_bad_image_is_named_at_the_end_and_the_others_are_done(model, photos, tmp_path, capsys):
    (photos / "bad.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    assert run("compress", photos, "-o", out, "--model", model) == 2
    assert files(out) == ["one.jahp", "sub/two.jahp"]
    lines = capsys.readouterr().err.strip().splitlines()
    assert "bad.png: not an image" in lines[-2]
    assert lines[-1] == "jahp: compress: 1 of 3 failed, see above; the others are done"


def test_a_damaged_file_among_others_is_named_and_the_others_are_done(model, photos, tmp_path, capsys):
    coded, out = tmp_path / "coded", tmp_path / "out"
    run("compress", photos, "-o", coded, "--model", model)
    (coded / "one.jahp").write_bytes((coded / "one.jahp").read_bytes()[:-4])
    assert run("decompress", coded, "-o", out, "--model", model) == 2
    assert "one.jahp: the file is cut short" in capsys.readouterr().err
    assert files(out) == ["sub/two.png"]


def test_standard_input_and_output_carry_the_same_bytes_as_files(model, photos):
    one = photos / "one.png"
    run("compress", one, "--model", model)
    command = [sys.executable, "-m", "jahp_pl"]
    options = ["--model", str(model), "--threads", "1"]
    coded = subprocess.run(
        [*command, "compress", "-", *options], input=one.read_bytes(), capture_output=True, check=True
    )
    assert coded.stdout == one.with_suffix(".jahp").read_bytes()
    back = subprocess.run([*command, "decompress", "-", *options], input=coded.stdout, capture_output=True, check=True)
    run("decompress", one.with_suffix(".jahp"), "-o", photos / "back.png", "--model", model)
    assert back.stdout == (photos / "back.png").read_bytes()


def test_verify_accepts_files_that_decode(model, photos, capsys):
    assert run("compress", photos, "--model", model, "--verify") == 0
    assert capsys.readouterr().out.count("verified") == 2


@pytest.mark.parametrize("altered", ["y_hat", "z_hat", "image"])
def test_verify_writes_nothing_if_one_value_decodes_differently(altered, model, photos, monkeypatch, capsys):
    decode = Codec.decode

    def faulty(self, *arguments):
        decoded = decode(self, *arguments)
        value = getattr(decoded, altered).clone()
        value[0, 0, 0] ^= 2
        return decoded._replace(**{altered: value})

    monkeypatch.setattr(Codec, "decode", faulty)
    assert run("compress", photos / "one.png", "--model", model, "--verify") == 2
    assert "decoded differently" in capsys.readouterr().err
    assert files(photos) == ["one.png", "sub/two.png"]


def test_a_missing_device_is_named(model, photos, capsys):
    for device in ("nonsense", "cuda:77"):
        assert run("compress", photos, "--model", model, "--device", device) == 2
        assert f"--device {device}" in capsys.readouterr().err


def test_the_number_of_threads_is_the_requested_one(model, photos):
    threads = torch.get_num_threads()
    try:
        for number in (1, 2):
            assert run("compress", photos / "one.png", "--model", model, "--threads", number, "--force") == 0
            assert torch.get_num_threads() == number
    finally:
        torch.set_num_threads(threads)
    assert run("compress", photos, "--model", model, "--threads", "0") == 2


def test_a_folder_ends_with_a_summary(model, photos, capsys):
    assert run("compress", photos, "--model", model) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    sizes = [path.stat().st_size for path in photos.rglob("*.jahp")]
    bpp = 8 * sum(sizes) / (70 * 101 + 64 * 50)
    assert last.startswith(f"2 files, {sum(sizes)} bytes, {bpp:.4f} bpp, ")
    assert last.endswith(" s")
    assert run("decompress", photos, "--model", model) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"2 files, {sum(sizes)} bytes, {bpp:.4f} bpp, ")


def test_two_files_with_the_same_name_do_not_stop_the_others(model, photos, capsys):
    with Image.open(photos / "one.png") as image:
        image.save(photos / "one.bmp")
    assert run("compress", photos, "--model", model) == 2
    output = capsys.readouterr()
    assert not (photos / "one.jahp").exists()
    assert (photos / "sub" / "two.jahp").exists()
    assert output.err.count(f"one.bmp: has the same output as {photos / 'one.png'}, ") == 1
    assert output.err.count(f"one.png: has the same output as {photos / 'one.bmp'}, ") == 1
    assert "2 of 3 failed" in output.err
