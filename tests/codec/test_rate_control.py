"""One variable-rate model writes files of a given quality, size, rate or PSNR."""

from __future__ import annotations

import itertools
import math
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jahp_pl import pillow
from jahp_pl.codec.bitstream import BitstreamError, Header, pack, unpack
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.rate_control import may_meet_target
from jahp_pl.codec.targets import Target, TargetError, find_level, quality_of, steps_of
from jahp_pl.config import LossConfig
from jahp_pl.model_io.export import export
from jahp_pl.model_io.load import load_codec
from jahp_pl.quality import psnr
from tests.support.codec_models import JOINT, codec_of, kodak_crop, variable_codec, variable_model
from tests.support.commands import run
from tests.support.profiles import DISPLAY_P3

IMAGE = kodak_crop()
CODEC = variable_codec()


def file_psnr(data: bytes) -> float:
    original = torch.from_numpy(IMAGE.copy()).movedim(-1, 0)
    return float(psnr(original, CODEC.decompress(data)))


def test_size_and_psnr_rise_over_thirty_qualities() -> None:
    files = [CODEC.compress(IMAGE, quality=quality) for quality in np.linspace(1, 100, 31)]
    sizes, fidelities = [len(file) for file in files], [file_psnr(file) for file in files]
    for lower, higher in itertools.pairwise(sizes):
        assert higher > 0.999 * lower
    for worse, better in itertools.pairwise(fidelities):
        assert better > worse - 0.02
    assert sizes[-1] > 2 * sizes[0]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.7, 0.95])
def test_a_size_is_never_exceeded_and_nearly_met(share: float) -> None:
    smallest, largest = (len(CODEC.compress(IMAGE, quality=quality)) for quality in (1, 100))
    size = round(smallest * (largest / smallest) ** share)
    assert 0.98 * size <= len(CODEC.compress(IMAGE, size=size)) <= size


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_rate_is_met_within_one_percent(share: float) -> None:
    smallest, largest = (len(CODEC.compress(IMAGE, quality=quality)) for quality in (1, 100))
    bpp = 8 * smallest * (largest / smallest) ** share / (IMAGE.shape[0] * IMAGE.shape[1])
    data = CODEC.compress(IMAGE, bpp=bpp)
    assert 8 * len(data) / (IMAGE.shape[0] * IMAGE.shape[1]) == pytest.approx(bpp, rel=0.01)


def test_a_psnr_is_reached_and_barely_exceeded() -> None:
    low, high = (file_psnr(CODEC.compress(IMAGE, quality=quality)) for quality in (1, 100))
    wanted = (low + high) / 2
    file = CODEC.encode(IMAGE, Target(psnr=wanted))
    assert wanted <= file_psnr(file.data) < wanted + 0.1
    assert file.psnr == pytest.approx(file_psnr(file.data), abs=1e-3)
    assert CODEC.encode(IMAGE, Target(quality=20)).psnr is None


def test_the_psnr_that_an_error_names_can_be_reached() -> None:
    with pytest.raises(TargetError, match="psnr 90") as refused:
        CODEC.compress(IMAGE, psnr=90)
    best = float(str(refused.value).split()[-3])
    assert best <= file_psnr(CODEC.compress(IMAGE, psnr=best)) < best + 0.1


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"size": 1}, "size 1 byte: the smallest file of this image has"),
        ({"size": 40}, "size 40 bytes: the smallest file of this image has"),
        ({"bpp": 1e-3}, "bpp 0.001: this image takes at least .* bits per pixel; ask for more"),
        ({"bpp": 23.0}, "bpp 23: this image takes at most .* bits per pixel; ask for less"),
        ({"psnr": 90.0}, r"psnr 90 dB: this image reaches (.*) dB at most; ask for psnr \1 or less"),
        ({"quality": 0.5}, r"quality 0.5: must be from 1 \(smallest files\) to 100"),
        ({"quality": 101}, "quality 101: must be from 1"),
        ({"size": 0}, "size 0: must be positive"),
        ({"bpp": math.inf}, "bpp inf: must be positive and finite"),
        ({"quality": 50, "size": 1000}, "quality and size: cannot be combined; give only one of them"),
    ],
)
def test_an_unreachable_target_is_refused_with_the_possible_range(target: dict[str, float], words: str) -> None:
    with pytest.raises(TargetError, match=words):
        CODEC.compress(IMAGE, **target)  # type: ignore[arg-type]


def test_a_rate_beyond_files_that_are_equal_at_all_levels_is_refused() -> None:
    model = variable_model()
    with torch.no_grad():
        model.g_a[-1].weight.zero_()
        model.g_a[-1].bias.zero_()  # as if the image had no detail: all latents are 0
    codec = Codec(model)
    rate = 8 * len(codec.compress(IMAGE)) / (IMAGE.shape[0] * IMAGE.shape[1])
    with pytest.raises(TargetError, match=r"this image takes at most .* bits per pixel; ask for less"):
        codec.compress(IMAGE, bpp=1.5 * rate)
    with pytest.raises(TargetError, match=r"this image takes at least .* bits per pixel; ask for more"):
        codec.compress(IMAGE, bpp=0.5 * rate)


def test_a_single_rate_model_refuses_every_target() -> None:
    for target in (Target(quality=50), Target(bpp=0.5), Target(size=1000), Target(psnr=30), Target(level=0)):
        with pytest.raises(TargetError, match="has a single rate"):
            codec_of(JOINT).encode(IMAGE, target)


def test_the_default_quality_is_sixty() -> None:
    assert CODEC.compress(IMAGE) == CODEC.compress(IMAGE, quality=60)


def test_quality_and_level_convert_both_ways() -> None:
    for quality in (1, 33.3, 100):
        steps = steps_of(Target(quality=quality), 8)
        assert steps is not None
        assert quality_of(steps / 256, 8) == pytest.approx(quality, abs=0.03)


def test_a_search_ends_when_no_level_is_left_between_two() -> None:
    tried: list[int] = []

    def stairs(level: int) -> float:
        tried.append(level)
        return float(level > 1000)

    probes = find_level(stairs, 0.5, 1792, 5, 0.01, lambda value: False)
    assert len(tried) == len(set(tried)) <= 20
    assert probes[0].value == 0
    assert probes[-1].value == 1


@pytest.mark.parametrize("level", [None, 4 * 256, 65535])
def test_a_level_outside_the_models_range_is_refused(level: int | None) -> None:
    header, payload = unpack(CODEC.compress(IMAGE))
    forged = pack(
        Header(header.fingerprint, header.width, header.height, header.latent_min, header.latent_max, b"", level),
        payload,
    )
    with pytest.raises(BitstreamError, match="states a rate level that this model does not have"):
        CODEC.decode(forged)


def test_a_level_in_a_file_of_a_single_rate_model_is_refused() -> None:
    codec = codec_of(JOINT)
    header, payload = unpack(codec.compress(IMAGE))
    forged = pack(
        Header(header.fingerprint, header.width, header.height, header.latent_min, header.latent_max, b"", 0), payload
    )
    with pytest.raises(BitstreamError, match="states a rate level that this model does not have"):
        codec.decode(forged)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "variable"
    export(variable_model(), folder, {"loss": {"lmbda": 0.002, "lmbda_max": 0.1}}, dtype="int8")
    return folder


def test_an_export_keeps_the_gains_to_the_last_bit(model: Path) -> None:
    gains = load_codec(model).model.gains
    assert gains is not None
    assert torch.equal(gains.gain, CODEC.model.gains.gain)  # type: ignore[union-attr]


def test_the_command_line_accepts_each_target(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    codec, source, coded = load_codec(model), tmp_path / "photo.png", tmp_path / "photo.jahp"
    for options, expected in (
        ([], codec.compress(IMAGE)),
        (["--quality", 90], codec.compress(IMAGE, quality=90)),
        (["--size", "2k"], codec.compress(IMAGE, size=2000)),
        (["--bpp", 0.15], codec.compress(IMAGE, bpp=0.15)),
        (["--psnr", 19], codec.compress(IMAGE, psnr=19)),
    ):
        assert run("compress", source, "--model", model, "--force", "--verify", *options) == 0
        assert coded.read_bytes() == expected
    *others, by_psnr = capsys.readouterr().out.splitlines()
    assert "; quality " in others[0]
    assert not any("PSNR" in line for line in others)
    assert "; PSNR 19." in by_psnr
    assert run("info", coded) == 0
    assert "level  " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([], ["--quality", 61]),
        (["--quality", 30], []),
        (["--size", "2k"], ["--size", "3k"]),
        (["--size", "2k"], ["--size", 1900]),
        (["--bpp", 0.15], ["--bpp", 0.17]),
        (["--bpp", 0.15], ["--quality", 60]),
    ],
)
def test_a_rerun_with_another_target_does_not_count_files_as_done(
    first: list[object], second: list[object], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    command = ["compress", tmp_path, "--model", model]
    assert run(*command, *first) == 0
    data = (tmp_path / "photo.jahp").read_bytes()
    capsys.readouterr()
    assert run(*command, *first) == 0
    assert "1 of 1 was done already; --force" in capsys.readouterr().out
    assert run(*command, *second) == 2
    assert "was not made by this model with these options; --force overwrites it" in capsys.readouterr().err
    assert (tmp_path / "photo.jahp").read_bytes() == data
    assert run(*command, *second, "--force") == 0
    assert (tmp_path / "photo.jahp").read_bytes() != data


def test_options_that_a_file_does_not_show_are_named_when_finished_files_are_kept(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(IMAGE[:64, :96]).save(tmp_path / "photo.png")
    assert run("compress", tmp_path, "--model", model, "--psnr", 17) == 0
    capsys.readouterr()
    assert run("compress", tmp_path, "--model", model, "--psnr", 19, "--effort", 0) == 0
    assert "perhaps with another --effort or --psnr, which a file does not show; --force" in capsys.readouterr().out


@pytest.mark.parametrize("size", [1500, 2000, 2400])
@pytest.mark.parametrize("effort", [0, 1])
def test_a_file_that_meets_a_target_is_recognized(size: int, effort: int) -> None:
    codec = Codec(CODEC.model, objective=LossConfig(lmbda=0.002, lmbda_max=0.1))
    for target in (Target(size=size), Target(bpp=8 * size / IMAGE[..., 0].size)):
        data = codec.encode(IMAGE, target, effort=effort).data
        header = unpack(data)[0]
        assert may_meet_target(header, len(data), target, 4)
        assert not may_meet_target(header, len(data) + size // 20, target, 4)
        assert not may_meet_target(header, len(data) - size // 20, target, 4)


def test_the_largest_file_of_a_model_meets_every_larger_size() -> None:
    data = CODEC.encode(IMAGE, Target(size=10_000)).data
    assert len(data) < 5000
    assert may_meet_target(unpack(data)[0], len(data), Target(size=10_000), 4)


def test_the_largest_size_counts_the_color_profile(model: Path, tmp_path: Path) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "wide.png", icc_profile=DISPLAY_P3)
    assert run("compress", tmp_path / "wide.png", "--model", model, "--size", 3000) == 0
    data = (tmp_path / "wide.jahp").read_bytes()
    assert unpack(data)[0].icc == DISPLAY_P3
    assert 2900 < len(data) <= 3000


@pytest.mark.parametrize("options", [["--quality", 50, "--size", "4k"], ["--size", "big"], ["--quality", 300]])
def test_the_command_line_refuses_in_one_line(
    options: list[object], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "photo.png")
    with suppress(SystemExit):
        assert run("compress", tmp_path / "photo.png", "--model", model, *options) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "photo.jahp").exists()


def test_pillow_saves_to_a_target(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pillow, "MODELS", pillow.Models())
    codec, path = pillow.register(model), tmp_path / "photo.jahp"
    for target in ({"quality": 30}, {"size": 5000}):
        Image.fromarray(IMAGE).save(path, **target)  # type: ignore[arg-type]
        assert path.read_bytes() == codec.compress(IMAGE, **target)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="quality 0: must be from 1"):
        Image.fromarray(IMAGE).save(path, quality=0)


def test_evaluate_makes_one_curve_from_several_qualities(model: Path, tmp_path: Path) -> None:
    Image.fromarray(IMAGE[:64, :96]).save(tmp_path / "photo.png")
    out = tmp_path / "r.json"
    command = ["evaluate", "--model", model, "--images", tmp_path / "photo.png", "--out", out]
    assert run(*command, "--quality", 5, 60, 95) == 0
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == ["quality-5", "quality-60", "quality-95"]
    assert run("report", out, "--out", tmp_path / "report") == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Joint, variable rate" in page
    assert run(*command, "--quality", 5, 60, 95) == 0  # results of the same model may be replaced
    exported = tmp_path / "with-results"
    assert run("export", model, "--out", exported, "--results", out) == 0
    assert "| 60 |" in (exported / "README.md").read_text()


@pytest.mark.parametrize("codec", [CODEC, codec_of(JOINT)], ids=["variable", "fixed"])
def test_a_gray_photograph_stays_gray(codec: Codec) -> None:
    gray = np.repeat(IMAGE[:, :, 1:2], 3, axis=2)
    decoded = codec.decompress(codec.compress(gray))
    assert torch.equal(decoded[0], decoded[1])
    assert torch.equal(decoded[0], decoded[2])
    coded, (height, width, _) = codec.encode(gray), gray.shape
    plain = codec.transforms.synthesize(coded.y_hat, height, width, coded.level)
    assert not torch.equal(plain[0], plain[1])
    original = torch.from_numpy(gray.copy()).movedim(-1, 0)
    assert float(psnr(original, decoded)) > float(psnr(original, plain))
    assert unpack(codec.compress(gray))[0].is_gray
    assert not unpack(codec.compress(IMAGE))[0].is_gray
