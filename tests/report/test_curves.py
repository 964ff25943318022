"""Curves are read from results files, BD-rates of published curves are correct, and unfit files are refused."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest

from jahp_pl.config import with_current_names
from jahp_pl.evaluation import EvaluationError
from jahp_pl.report.bd_rate import INTERPOLATIONS, CurveError, bd_rate, rate_at
from jahp_pl.report.comparison import compare_curves, format_bd_rate_table
from jahp_pl.report.curves import find_curve
from jahp_pl.report.read_results import read_curves
from tests.support.permissions import forbid

RESULTS = Path(__file__).parents[2] / "results"
PUBLISHED = RESULTS / "published"


@pytest.mark.parametrize(
    ("anchor", "expected"),
    [
        ("bmshj2018-hyperprior-tfc-mse", -15.73),
        ("jpeg420-tfc", -59.68),
        ("jpeg2000-openjpeg-tfc", -34.80),
        ("bpg444-tfc", -8.98),
    ],
)
def test_bd_rates_of_the_published_curves_are_the_known_ones(anchor, expected):
    joint, other = read_curves([PUBLISHED / "mbt2018-tfc-mse.json", PUBLISHED / f"{anchor}.json"])
    result = bd_rate(other.values("psnr"), joint.values("psnr"), "cubic")
    assert math.isclose(result.percent, expected, abs_tol=0.05)
    assert result.low == max(other.values("psnr")[0][1], joint.values("psnr")[0][1])
    assert result.high == min(other.values("psnr")[-1][1], joint.values("psnr")[-1][1])


def test_every_published_curve_reads_and_names_its_source():
    curves = read_curves([PUBLISHED])
    assert len(curves) == len(list(PUBLISHED.glob("*.json"))) > 80
    assert len({curve.title for curve in curves}) == len(curves)
    assert all(":" in curve.source and len(curve.images) == 24 for curve in curves)


LINE = [(0.1, 28.0), (0.2, 30.0), (0.4, 32.0), (0.8, 34.0), (1.6, 36.0)]


@pytest.mark.parametrize("method", INTERPOLATIONS)
def test_half_the_rate_at_every_quality_is_minus_fifty_percent(method):
    half = [(rate / 2, value) for rate, value in LINE]
    assert math.isclose(bd_rate(LINE, half, method).percent, -50, rel_tol=1e-9)
    assert math.isclose(bd_rate(half, LINE, method).percent, 100, rel_tol=1e-9)
    assert abs(bd_rate(LINE, LINE, method).percent) < 1e-9


def test_curves_without_common_quality_are_refused():
    higher = [(rate, value + 20) for rate, value in LINE]
    with pytest.raises(CurveError, match=r"the curve has 48.00 to 56.00 dB, the anchor 28.00 to 36.00 dB"):
        bd_rate(LINE, higher, "cubic")


def test_three_points_are_too_few_for_cubic_and_the_other_methods_remain():
    with pytest.raises(CurveError, match="cubic needs 4 points, the curve has 3 points; PCHIP and Akima remain"):
        bd_rate(LINE, LINE[:3], "cubic")
    for method in ("pchip", "akima"):
        assert abs(bd_rate(LINE, LINE[:3], method).percent) < 1e-9
    with pytest.raises(CurveError, match="PCHIP needs 2 points, the curve has 1 point; no method remains"):
        bd_rate(LINE, LINE[:1], "pchip")


def test_quality_that_falls_as_the_rate_rises_is_refused():
    with pytest.raises(CurveError, match="quality must rise"):
        bd_rate(LINE, [*LINE[:3], (0.5, 31.0)], "pchip")


def test_the_rate_at_the_quality_of_a_point_is_its_own_and_none_outside_the_curve():
    assert rate_at(LINE, [27.9, 28.0, 32.0, 33.0, 36.0, 36.1]) == [
        None,
        pytest.approx(0.1),
        pytest.approx(0.4),
        pytest.approx(0.4 * math.sqrt(2)),
        pytest.approx(1.6),
        None,
    ]


@pytest.fixture
def evaluation():
    """Return the content of one results file."""
    return json.loads((RESULTS / "ladder" / "joint-1.json").read_text(), object_hook=with_current_names)


def write(folder: Path, name: str, content) -> Path:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content))
    return path


def with_facts(content, lmbda: float, rate: float, seed: int = 0, **provenance):
    content = copy.deepcopy(content)
    content["mean"]["file_bpp"] *= rate
    content["provenance"] |= {"training": {"seed": seed, "loss": {"lmbda": lmbda, "distortion": "mse"}}} | provenance
    return content


def test_evaluations_of_one_architecture_become_one_curve_by_rate(evaluation, tmp_path):
    for number, rate in enumerate((2, 1, 4)):
        write(tmp_path, str(number), with_facts(evaluation, 0.01 * rate, rate))
    (curve,) = read_curves([tmp_path])
    assert (curve.title, curve.kind) == ("Joint", "model")
    assert [point.quality for point in curve.points] == ["λ = 0.01", "λ = 0.02", "λ = 0.04"]
    assert len(curve.images) == 24
    assert len(curve.values("ms_ssim", "kodim05")) == 3


def test_mixtures_and_named_curves_are_apart(evaluation, tmp_path):
    other = copy.deepcopy(evaluation)
    other["provenance"]["model"]["num_components"] = 3
    write(tmp_path, "a", with_facts(evaluation, 0.01, 1))
    write(tmp_path, "c", with_facts(other, 0.01, 1))
    write(tmp_path, "d", with_facts(evaluation, 0.01, 1, curve="Mine"))
    assert sorted(curve.title for curve in read_curves([tmp_path])) == ["Joint", "Joint, K = 3", "Mine"]


def ladder(evaluation, tmp_path, entropy_model: str, factors: dict[int, float]) -> None:
    """Write results at four rates for each seed; the rates are those of an ideal curve times the seed's factor."""
    for seed, factor in factors.items():
        for step in range(4):
            content = with_facts(evaluation, 0.01 * 2**step, 2**step * factor, seed)
            content["provenance"]["model"]["entropy_model"] = entropy_model
            for row in (content["mean"], *content["images"]):
                row["file_psnr"] += 2 * step
            write(tmp_path, f"{entropy_model}-{seed}-{step}", content)


def test_seeds_are_averaged_and_their_spread_is_reported(evaluation, tmp_path):
    ladder(evaluation, tmp_path, "scale_hyperprior", {1: 1.0, 2: 1.1})
    ladder(evaluation, tmp_path, "joint", {1: 0.8, 2: 0.99})
    anchor, joint = read_curves([tmp_path])
    assert [curve.title for curve in (anchor, joint)] == ["Scale hyperprior", "Joint"]
    assert "mean of seeds 1 and 2" in joint.source
    assert [point.quality for point in joint.points] == ["λ = 0.01", "λ = 0.02", "λ = 0.04", "λ = 0.08"]
    first = evaluation["mean"]["file_bpp"]
    assert joint.points[0].mean.bpp == pytest.approx(first * (0.8 + 0.99) / 2)
    compared = compare_curves(anchor, joint, "psnr")
    assert compared.percent["cubic"] == pytest.approx(100 * (0.895 / 1.05 - 1))
    assert compared.spread == pytest.approx((-20.0, -10.0))
    head, _, row = format_bd_rate_table([anchor, joint], anchor, "psnr")
    assert head.endswith("| range, dB | cubic by seed, % |")
    assert row.endswith("| -20.00 to -10.00 |")


def test_a_seed_that_the_anchor_lacks_does_not_count(evaluation, tmp_path):
    ladder(evaluation, tmp_path, "scale_hyperprior", {1: 1.0, 2: 1.1})
    ladder(evaluation, tmp_path, "joint", {1: 0.8, 3: 0.9})
    anchor, joint = read_curves([tmp_path])
    assert compare_curves(anchor, joint, "psnr").spread is None


def test_results_of_different_images_are_refused(evaluation, tmp_path):
    fewer = copy.deepcopy(evaluation)
    del fewer["images"][6]
    with pytest.raises(EvaluationError, match=r"first difference: kodim07\); a comparison needs results of the same"):
        read_curves([PUBLISHED / "mbt2018-tfc-mse.json", write(tmp_path, "fewer", fewer)])
    whole = write(tmp_path, "whole", evaluation)
    with pytest.raises(EvaluationError, match=r"covers 24 images, .* 23; a curve needs"):
        read_curves([tmp_path / "fewer.json", whole])


def test_other_images_with_the_same_names_are_refused(evaluation, tmp_path):
    hashed, other, turned = (copy.deepcopy(evaluation) for _ in range(3))
    for number, (row, another) in enumerate(zip(hashed["images"], other["images"], strict=True)):
        row["pixels"], another["pixels"] = f"a{number}", f"a{number}"
    other["images"][3]["pixels"] = "b3"
    turned["images"][7] |= {"width": 512, "height": 769}
    paths = [
        write(tmp_path, name, with_facts(content, 0.01, 1, curve=name))
        for name, content in (("plain", evaluation), ("hashed", hashed), ("other", other), ("turned", turned))
    ]
    assert len(read_curves(paths[:2])) == 2
    with pytest.raises(EvaluationError, match="kodim04 is one image in the results of hashed, but another in those of"):
        read_curves(paths[:3])
    with pytest.raises(EvaluationError, match="kodim08 is one image in the results of plain, but another in those of"):
        read_curves([paths[0], paths[3]])


def test_a_curve_of_points_on_different_images_is_refused(tmp_path):
    content = json.loads((RESULTS / "classical" / "webp.json").read_text())
    del content["curves"][0]["points"][2]["images"][1]
    with pytest.raises(EvaluationError, match=r"half\.json: the points of WebP cover different images"):
        read_curves([write(tmp_path, "half", content)])


def test_different_models_are_not_mistaken_for_seeds_of_one(evaluation, tmp_path):
    wider = with_facts(evaluation, 0.01, 2, seed=2)
    wider["provenance"]["model"]["num_filters"] = 192
    paths = [write(tmp_path, "a", with_facts(evaluation, 0.01, 1, seed=1)), write(tmp_path, "b", wider)]
    with pytest.raises(EvaluationError, match=r"b\.json and .*a\.json have different .*num_filters: 192, \d+"):
        read_curves(paths)
    wider["provenance"]["curve"] = "Wider"
    write(tmp_path, "b", wider)
    assert [curve.title for curve in read_curves(paths)] == ["Joint", "Wider"]


def test_a_rate_without_all_seeds_is_reported(evaluation, tmp_path):
    ladder(evaluation, tmp_path, "joint", {1: 0.8, 2: 0.9})
    (tmp_path / "joint-2-3.json").unlink()
    (joint,) = read_curves([tmp_path])
    assert joint.source.startswith("mean of seeds 1 and 2; λ = 0.08 is of seed 1 alone; ")


def spoiled(change) -> str:
    content = json.loads((RESULTS / "ladder" / "joint-1.json").read_text())
    content["provenance"]["training"] = {"loss": {"lmbda": 0.01, "distortion": "mse"}}
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "neither by"),
        ('{"mean": {}, "images": [], "provenance": {}}', "mean.file_bpp is missing"),
        ('{"curves": [{"title": "x"}]}', r"curves\[0\].name is missing"),
        ('{"curves": [1]}', "damaged"),
        ('{"curves": [{"title": "x", "name": "x", "kind": "classical", "points": []}]}', "x has no points"),
        (spoiled(lambda c: c["provenance"].pop("model")), "without 'model'"),
        (spoiled(lambda c: c.update(provenance="x")), "damaged"),
        (spoiled(lambda c: c.update(mean=None)), "damaged"),
        (spoiled(lambda c: c.update(images=["a"])), "damaged"),
        (spoiled(lambda c: c["images"].append(c["images"][0])), "two images are called kodim01"),
        (spoiled(lambda c: c["provenance"]["training"]["loss"].update(lmbda="x")), "damaged"),
        (spoiled(lambda c: c["images"][0].update(file_bpp="0.3")), "damaged"),
        (spoiled(lambda c: c["images"][0].update(file_bpp=None)), "damaged"),
        (spoiled(lambda c: c["mean"].update(file_bpp=0)), "file_bpp of mean is 0"),
        (spoiled(lambda c: c["mean"].update(file_bpp=10**400)), "damaged, mean.file_bpp"),
        (spoiled(lambda c: c["mean"].update(file_bpp=1e300)), r"file_bpp of mean is 1e\+300"),
        (spoiled(lambda c: c["mean"].update(file_psnr=1e300)), r"the quality of mean is 1e\+300 dB"),
        (spoiled(lambda c: c["images"][0].update(file_ms_ssim=1 - 1e300)), "the quality of kodim01 is -3000 dB"),
        (spoiled(lambda c: c["mean"].update(rate={"y": math.nan})), "damaged, mean.rate.y"),
        (spoiled(lambda c: c.update(bpp_per_channel={"y": [math.inf], "z": []})), r"damaged, bpp_per_channel.y\[0\]"),
        (spoiled(lambda c: c["images"][0].update(name="../../private.png")), "../../private leads out of its folder"),
        (spoiled(lambda c: c["images"][0].update(name="/private.png")), "/private leads out of its folder"),
        (spoiled(lambda c: c.update(folder="..")), r"\.\. leads out of its folder"),
        (spoiled(lambda c: c["mean"].update(rate={"y": None})), "damaged, mean.rate.y"),
        (spoiled(lambda c: c.update(bpp_per_channel={"y": ["x"], "z": []})), r"damaged, bpp_per_channel.y\[0\]"),
        (spoiled(lambda c: c.update(bpp_per_channel={"y": []})), "damaged, bpp_per_channel.z"),
        (spoiled(lambda c: c.update(target={"quality": "60"})), "damaged, target.quality"),
        (spoiled(lambda c: c.update(folder=["a"])), "damaged, folder"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_files_without_results_are_named(text, complaint, tmp_path):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(EvaluationError, match=rf"odd\.json: .*{complaint}"):
        read_curves([path])


def test_values_that_are_not_numbers_count_as_unknown(evaluation, tmp_path):
    evaluation["mean"] |= {"file_psnr": math.inf, "file_ms_ssim": math.nan}
    evaluation["images"][0] |= {"encode_seconds": math.nan}
    (joint,) = read_curves([write(tmp_path, "a", evaluation)])
    assert joint.values("psnr") == joint.values("ms_ssim") == []
    assert joint.points[0].seconds is not None
    assert all(map(math.isfinite, joint.points[0].seconds))


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(EvaluationError, match="nowhere: no such results file"):
        read_curves([tmp_path / "nowhere"])
    with pytest.raises(EvaluationError, match="has no results"):
        read_curves([tmp_path])


def test_a_folder_of_results_that_cannot_be_listed_is_not_called_empty(tmp_path, monkeypatch):
    forbid(monkeypatch, tmp_path)
    with pytest.raises(PermissionError):
        read_curves([tmp_path])


def test_a_curve_is_found_by_title_codec_or_part_of_the_title():
    curves = read_curves([PUBLISHED / f"{name}.json" for name in ("mbt2018-tfc-mse", "jpeg420-tfc", "bpg444-tfc")])
    assert find_curve(curves, "bpg").title == "BPG 4:4:4 (published)"
    with pytest.raises(EvaluationError, match=r"anchor '4:': matches several .*JPEG 4:2:0"):
        find_curve(curves, "4:")
    with pytest.raises(EvaluationError, match="anchor 'gif': matches none"):
        find_curve(curves, "gif")
