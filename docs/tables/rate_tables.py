"""Makes the tables of rates and distortions, one function per table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import fmean

import numpy as np
from markdown_table import table
from result_files import LAMBDAS, RESULTS, result

from jahp_pl.report.bd_rate import bd_rate
from jahp_pl.report.comparison import compare_curves
from jahp_pl.report.curves import Curve, Measure
from jahp_pl.report.read_results import read_curves

OTHER_CODECS = {
    "JPEG 4:2:0": "classical/jpeg", "WebP": "classical/webp", "JPEG 2000": "classical/jpeg2000",
    "AVIF": "classical/avif", "BPG 4:4:4": "published/bpg444-tfc", "paper's model": "published/mbt2018-tfc-mse",
}  # fmt: skip
ANCHORS = {
    "JPEG 4:2:0": ("bd-rates.md", "classical/jpeg"),
    "JPEG 2000": ("bd-rates-jpeg2000.md", "classical/jpeg2000"),
    "BPG 4:4:4": ("bd-rates-bpg.md", "published/bpg444-tfc"),
}
"""Codecs that the models are compared with: page with all BD-rates, results file."""
COMPARED_MODELS: tuple[tuple[str, Measure, str], ...] = (
    ("`joint-psnr` at equal PSNR", "psnr", "refinement/effort1"),
    ("`joint-psnr --effort 0` at equal PSNR", "psnr", "weights/joint-psnr"),
    ("the paper's model at equal PSNR", "psnr", "published/mbt2018-tfc-mse"),
    ("`joint-ms-ssim` at equal MS-SSIM", "ms_ssim", "weights/joint-ms-ssim"),
    ("the paper's model at equal MS-SSIM", "ms_ssim", "published/mbt2018-tfc-ms-ssim"),
)
BUNDLED_QUALITIES = (1, 20, 40, 60, 80, 100)


def bundled_model() -> str:
    """Tabulate the bundled model's rate and quality, and the PSNR of other codecs at the same rate."""
    others = [_rates_and_psnr(read_curves([RESULTS / f"{name}.json"])[0]) for name in OTHER_CODECS.values()]
    points = _means("refinement/effort1")
    rows = []
    for quality in BUNDLED_QUALITIES:
        mean = points[quality]
        own = [f"{mean['file_bpp']:.3f}", f"{mean['file_psnr']:.2f}", f"{mean['file_ms_ssim']:.4f}"]
        rows.append([str(quality), *own, *(_psnr_at(mean["file_bpp"], *curve) for curve in others)])
    return table("`--quality` | bits per pixel | PSNR, dB | MS-SSIM | " + " | ".join(OTHER_CODECS), rows)


def bundled_savings() -> str:
    """Tabulate the BD-rates of the bundled and the published models against classical codecs."""
    anchors = [read_curves([RESULTS / f"{anchor}.json"])[0] for _, anchor in ANCHORS.values()]
    rows = []
    for name, measure, path in COMPARED_MODELS:
        curve = read_curves([RESULTS / f"{path}.json"])[0]
        percents = [compare_curves(anchor, curve, measure).percent["cubic"] for anchor in anchors]
        rows.append([name, *(f"{percent:+.1f} %" for percent in percents if percent is not None)])
    titles = (f"[{title}](results/weights/{page}) >" for title, (page, _) in ANCHORS.items())
    return table("bits needed, compared with | " + " | ".join(titles), rows)


def _rates_and_psnr(curve: Curve) -> tuple[list[float], list[float]]:
    points = sorted((point.mean.bpp, point.mean.psnr) for point in curve.points if point.mean.psnr is not None)
    return [bpp for bpp, _ in points], [psnr for _, psnr in points]


def _psnr_at(bpp: float, rates: list[float], psnr: list[float]) -> str:
    """Interpolate PSNR over the logarithm of the rate; empty outside the curve."""
    if not rates[0] <= bpp <= rates[-1]:
        return ""
    return f"{np.interp(math.log(bpp), np.log(rates), psnr):.2f}"


def quickstart() -> str:
    """Tabulate the result of `make train`, and of JPEG in files that are at least as large."""
    content = result("quickstart")
    mean, jpeg, model = content["mean"], content["beside_mean"], content["provenance"]["model"]
    steps = content["provenance"]["training"]["trainer"]["max_steps"]
    own = f"joint, N = {model['num_filters']}, M = {model['num_latents']}, {steps} steps on 36 photographs"
    rows = [
        (own, f"{mean['file_bpp']:.3f}", f"{mean['file_psnr']:.2f} dB", f"{mean['file_ms_ssim']:.3f}"),
        (f"{jpeg['codec']}, files at least as large", f"{jpeg['bpp']:.3f}", f"{jpeg['psnr']:.2f} dB",
         f"{jpeg['ms_ssim']:.3f}"),
    ]  # fmt: skip
    return table("| bits per pixel > | PSNR > | MS-SSIM >", rows)


def published_rates() -> str:
    """Tabulate rate and PSNR of the published models, by lambda."""
    points = [point["mean"] for point in result("published/mbt2018-cai-cpu-mse")["curves"][0]["points"]]
    rows = [
        (f"{lmbda:.4f}".removeprefix("0"), f"{mean['file_bpp']:.2f}", f"{mean['file_psnr']:.1f}")
        for lmbda, mean in zip(LAMBDAS, points, strict=True)
    ]
    return table("`loss.lmbda` | bits per pixel > | PSNR, dB >", rows)


def variable_cost() -> str:
    """Tabulate the BD-rate of one variable-rate model against four single-rate models."""
    names = ("fixed-0.0018", "fixed-0.0067", "fixed-0.025", "fixed-0.0932", "variable")
    curves = {curve.title: curve for curve in read_curves([RESULTS / "rates" / f"{name}.json" for name in names])}
    compared = compare_curves(curves["Four models"], curves["One model"], "psnr")
    percent, span = compared.percent["cubic"], (compared.low, compared.high)
    assert percent is not None
    steps = result("rates/variable")["provenance"]["training"]["step"]
    row = (f"one model, {steps} steps", f"{percent:+.1f} %", f"{span[0]:.2f} to {span[1]:.2f} dB")
    return table("| BD-rate over PSNR, cubic > | range", [row])


def file_excess() -> str:
    """Tabulate how much exact parameters and whole files cost above the cross-entropy under the float model."""
    rows = []
    for name, column in (
        ("exact parameters instead of float ones", "exact_bpp"),
        ("the whole file, with header, checksum and the range coder's end", "file_bpp"),
    ):
        excess = [100 * (image[column] / image["cross_entropy_bpp"] - 1) for image in result("full-1")["images"]]
        rows.append((name, f"{fmean(excess):.3f} %", f"{max(excess):.3f} %"))
    return table("over the cross-entropy under the float model | mean > | worst image >", rows)


def weights_parts() -> str:
    """Tabulate how much hyperprior and context save in the bundled model."""
    rows = []
    for part in result("weights/checks")["parts"]:
        lost = [100 * (part[f"without_{name}"] / part["bpp"] - 1) for name in ("hyperprior", "context")]
        share = f"{100 * part['hyper_share']:.1f} %"
        rows.append([str(part["quality"]), f"{part['bpp']:.3f}", share, *(f"{loss:+.0f} %" for loss in lost)])
    return table("`--quality` > | bits per pixel > | in hyper-latents > | no hyperprior > | no context >", rows)


def weights_transforms() -> str:
    """Tabulate how much rounding adds to the error of the bundled model's transforms."""
    parts = result("weights/checks")["parts"]
    rows = [
        [str(part["quality"]), *(f"{part[column]:.2f} dB" for column in ("psnr", "unrounded_psnr"))] for part in parts
    ]
    return table("`--quality` > | PSNR > | without rounding >", rows)


def weights_contents() -> str:
    """Tabulate size and PSNR of the bundled model and of JPEG on images that are unlike photographs."""
    rows = []
    for one in result("weights/checks")["contents"]:
        sizes, decibels = (
            (one[ours], one[theirs]) for ours, theirs in (("num_bytes", "jpeg_bytes"), ("psnr", "jpeg_psnr"))
        )
        pairs = [(f"{size:,}", f"{value:.1f}") for size, value in zip(sizes, decibels, strict=True)]
        rows.append([one["name"], *pairs[0], *pairs[1]])
    return table("image, 512 x 512 | bytes > | PSNR, dB > | JPEG, bytes > | JPEG, dB >", rows)


def refinement_efforts() -> str:
    """Tabulate each measured effort's BD-rates against plain rounding, and its time to encode an image."""
    plain = _means("weights/joint-psnr")
    rows: list[Sequence[str]] = [("0", "", "", _mean_seconds(plain.values()))]
    for path in sorted((RESULTS / "refinement").glob("effort*.json")):
        means = _means(f"refinement/{path.stem}")
        gains = [
            bd_rate(
                [(plain[quality]["file_bpp"], plain[quality][measure]) for quality in means],
                [(mean["file_bpp"], mean[measure]) for mean in means.values()],
                "cubic",
            ).percent
            for measure in ("file_psnr", "file_ms_ssim_db")
        ]
        effort = path.stem.removeprefix("effort")
        rows.append((effort, *(f"{gain:+.1f} %" for gain in gains), _mean_seconds(means.values())))
    return table("effort | BD-rate, PSNR > | BD-rate, MS-SSIM > | seconds to encode >", rows)


def _means(name: str) -> dict[float, dict[str, float]]:
    """Return the means over images of a results file, by quality setting."""
    return {point["target"]["quality"]: point["mean"] for point in result(name)["curves"][0]["points"]}


def _mean_seconds(means: Iterable[dict[str, float]]) -> str:
    return f"{fmean(mean['encode_seconds'] for mean in means):.1f}"


def refinement_savings() -> str:
    """Tabulate the BD-rates of `joint-psnr` against other codecs, without a search and with the default one."""
    efforts = [read_curves([RESULTS / f"{name}.json"])[0] for name in ("weights/joint-psnr", "refinement/effort1")]
    measures: tuple[Measure, ...] = ("psnr", "ms_ssim")
    rows = []
    for title, path in OTHER_CODECS.items():
        anchor = read_curves([RESULTS / f"{path}.json"])[0]
        percents = [compare_curves(anchor, one, measure).percent["cubic"] for measure in measures for one in efforts]
        rows.append([title, *("" if percent is None else f"{percent:+.1f} %" for percent in percents)])
    header = "compared with | PSNR, effort 0 > | PSNR, effort 1 > | MS-SSIM, effort 0 > | MS-SSIM, effort 1 >"
    return table(header, rows)


def refinement_ablation() -> str:
    """Tabulate the BD-rates of searches against plain rounding."""
    if not (RESULTS / "refinement" / "ablation.json").exists():
        return "Not measured with the bundled model yet.\n"
    rows = [
        (name, f"{row['psnr']:+.1f} %", f"{row['ms_ssim']:+.1f} %", f"{row['seconds']:.1f}")
        for name, row in result("refinement/ablation")["rows"].items()
    ]
    return table("search | BD-rate, PSNR > | BD-rate, MS-SSIM > | CPU seconds >", rows)
