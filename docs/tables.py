"""Write the tables of README.md and docs/ that come from results/: python docs/tables.py [--check].

A table stands between `<!-- table NAME -->` and `<!-- end -->`; NAME is a key of `TABLES`. With `--check` nothing is
written, and the exit status is 1 if a page does not hold what results/ give.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from jahp_pl.report.comparison import compare
from jahp_pl.report.curves import Curve
from jahp_pl.report.read_results import read_curves

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
RESULTS = ROOT / "results"
RECIPE = ROOT / "configs" / "recipe"
MARKED = re.compile(r"(<!-- table (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
Rows = Iterable[Sequence[str]]


def table(header: str, rows: Rows) -> str:
    """Format a table. Each column of the header is `title`, or `title >` for figures aligned to the right."""
    columns = [title.strip() for title in header.split("|")]
    titles = [title.removesuffix(">").rstrip() for title in columns]
    rules = ["---:" if title.endswith(">") else "---" for title in columns]
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, *rows)]
    return "\n".join([lines[0], f"|{'|'.join(rules)}|", *lines[1:]]).replace("|  |", "| |") + "\n"


def result(name: str) -> Any:
    """Read a file of results/."""
    return json.loads((RESULTS / f"{name}.json").read_text())


# One function for each table. -----------------------------------------------------------------------------------------

BESIDE = {
    "JPEG 4:2:0": "classical/jpeg", "WebP": "classical/webp", "JPEG 2000": "classical/jpeg2000",
    "AVIF": "classical/avif", "BPG 4:4:4": "published/bpg444-tfc", "the paper's": "published/mbt2018-tfc-mse",
}  # fmt: skip
BUNDLED_QUALITIES = (1, 20, 40, 60, 80, 100)


def bundled_model() -> str:
    """The bundled model's rate and quality, and the PSNR of other codecs at the same rate."""
    others = [_rates_and_psnr(read_curves([RESULTS / f"{name}.json"])[0]) for name in BESIDE.values()]
    points = {
        point["target"]["quality"]: point["mean"] for point in result("weights/joint-psnr")["curves"][0]["points"]
    }
    rows = []
    for quality in BUNDLED_QUALITIES:
        mean = points[quality]
        own = [f"{mean['file_bpp']:.3f}", f"{mean['file_psnr']:.2f}", f"{mean['file_ms_ssim']:.4f}"]
        rows.append([str(quality), *own, *(_psnr_at(mean["file_bpp"], *curve) for curve in others)])
    return table("`--quality` | bits per pixel | PSNR, dB | MS-SSIM | " + " | ".join(BESIDE), rows)


def _rates_and_psnr(curve: Curve) -> tuple[list[float], list[float]]:
    points = sorted((point.mean.bpp, point.mean.psnr) for point in curve.points if point.mean.psnr is not None)
    return [bpp for bpp, _ in points], [psnr for _, psnr in points]


def _psnr_at(bpp: float, rates: list[float], psnr: list[float]) -> str:
    """Interpolate PSNR over the logarithm of the rate; empty outside the curve."""
    if not rates[0] <= bpp <= rates[-1]:
        return ""
    return f"{np.interp(math.log(bpp), np.log(rates), psnr):.2f}"


def quickstart() -> str:
    """What `make train` gives, and JPEG at no smaller rate."""
    content = result("quickstart")
    mean, jpeg, model = content["mean"], content["beside_mean"], content["provenance"]["model"]
    steps = content["provenance"]["training"]["trainer"]["max_steps"]
    own = f"joint, N = {model['num_filters']}, M = {model['num_latents']}, {steps} steps on 36 photographs"
    rows = [
        (own, f"{mean['file_bpp']:.3f}", f"{mean['file_psnr']:.2f} dB", f"{mean['file_ms_ssim']:.3f}"),
        (f"{jpeg['codec']}, files of no fewer bytes", f"{jpeg['bpp']:.3f}", f"{jpeg['psnr']:.2f} dB",
         f"{jpeg['ms_ssim']:.3f}"),
    ]  # fmt: skip
    return table("| bits per pixel > | PSNR > | MS-SSIM >", rows)


def coding_speed() -> str:
    """Times of the full-size models, and of CompressAI with the same weights."""
    one, three = (result("bench")["models"][name] for name in ("full-1", "full-3"))
    peer, times = one["peer"], one["times"]
    rows = {
        f"{peer['name'].replace(' mbt', chr(39) + 's mbt')}, the same weights": (peer["encode"], peer["decode"]),
        "`jahp`, K = 1": (times["encode"], times["decode"]),
        "of that g_a and h_a, or g_s": (times["g_a"] + times["h_a"], times["g_s"]),
        "g_a, g_s as torch's layers in channels_last": (times["module_g_a"], times["module_g_s"]),
        "`jahp`, K = 3": (three["times"]["encode"], three["times"]["decode"]),
    }
    return table(
        "| encode > | decode >", [(name, *(f"{1000 * s:.0f} ms" for s in pair)) for name, pair in rows.items()]
    )


def training_speed() -> str:
    """Training steps beside CompressAI's, beside a large matrix product and beside their own products."""
    names = {"as configured": "bfloat16", "trainer.channels_last=true": "bfloat16, channels_last"}
    rows = [
        (
            names[row["name"]], f"{row['images_per_second']:.2f}", f"{row['times_peer']:.2f}",
            f"{100 * row['flops'] / row['matrix_flops']:.0f} %",
            f"{100 * row['product_seconds'] / row['seconds']:.0f} %",
        )
        for row in result("bench-train")["mbt2018"]["variants"]
    ]  # fmt: skip
    return table(
        "| crops a second > | times CompressAI's step > | share of a large matrix product's rate >"
        " | share of the step in its own matrix products >",
        rows,
    )


def data_speed() -> str:
    """Crops a second from shards, and from a plain loader."""
    rows = result("bench-data")["rows"]
    plain = rows[0]["per_core"]
    cells = [
        (
            row["name"], f"{row['per_core']:.0f}", f"{row['per_core'] / plain:.2f}",
            f"{100 * row['decode_share']:.0f} %" if row.get("decode_share") is not None else "",
            f"{row['worker_mib']:.0f} MiB",
        )
        for row in rows
    ]  # fmt: skip
    return table(
        "| crops a second on one core > | ratio > | share spent decoding > | memory of a worker alone >", cells
    )


def stream_memory() -> str:
    """Memory of `jahp shards` and of a data worker, over few and many photographs."""
    content = result("streams")
    rows = [
        (name, *(f"{size / 2**20:.0f} MiB" for size in content[key]))
        for name, key in (("`jahp shards`, photographs packed", "shards"), ("a data worker, crops drawn", "worker"))
    ]
    return table("memory after | " + " | ".join(f"{number:,} >" for number in content["photos"]), rows)


LAMBDAS = (0.0018, 0.0035, 0.0067, 0.0130, 0.0250, 0.0483, 0.0932, 0.1800)


def published_rates() -> str:
    """Rate and PSNR of the published models, by lambda."""
    points = [point["mean"] for point in result("published/mbt2018-cai-cpu-mse")["curves"][0]["points"]]
    rows = [
        (f"{lmbda:.4f}".removeprefix("0"), f"{mean['file_bpp']:.2f}", f"{mean['file_psnr']:.1f}")
        for lmbda, mean in zip(LAMBDAS, points, strict=True)
    ]
    return table("`loss.lmbda` | bits per pixel > | PSNR, dB >", rows)


def study_rungs() -> str:
    """BD-rates of the rungs against the scale hyperprior."""
    return _study("Scale hyperprior", lambda title: "," not in title)


def study_mixtures() -> str:
    """BD-rates of mixtures against the joint model with one Gaussian."""
    return _study("Joint", lambda title: title.startswith("Joint,"))


NAMES = {"Scale hyperprior": "the scale hyperprior", "Joint": "the joint model"}


def _study(anchor: str, is_shown: Callable[[str], bool]) -> str:
    curves = {curve.title: curve for curve in read_curves(sorted((RESULTS / "study").glob("*.json")))}
    rows = []
    for title in curves.keys() - {anchor}:
        if is_shown(title):
            compared = compare(curves[anchor], curves[title], "psnr")
            percent = compared.percent["cubic"]
            assert percent is not None
            seeds = "one seed" if compared.spread is None else "{:+.2f} to {:+.2f}".format(*compared.spread)
            rates = (f"{point.mean.bpp:.4f}" for point in curves[title].points)
            rows.append((percent, [title, f"{percent:+.2f} %", seeds, *rates]))
    lambdas = " | ".join(f".{10000 * lmbda:04.0f} >" for lmbda in LAMBDAS[:4])
    header = f"against {NAMES[anchor]}, cubic | BD-rate > | by seed > | {lambdas}"
    return table(header, [cells for _, cells in sorted(rows, key=lambda row: row[0])])


def recipe(date: str) -> str:
    """Changes of the study's start that were measured on one day, best objective first."""
    rows = []
    for path in (RESULTS / "study" / "recipe").glob("*.json"):
        content = json.loads(path.read_text())
        if content["provenance"]["date"] == date:
            change = (RECIPE / f"{path.stem}.yaml").read_text().splitlines()[0].removeprefix("# ")
            link = f"[{path.stem}](../results/study/recipe/{path.name})"
            mean, loss = content["mean"], _objective(content)
            cells = f"{content['provenance']['training']['step']}|{mean['file_bpp']:.4f}|{mean['file_psnr']:.2f}"
            rows.append((loss, [f"{change} ({link})", *cells.split("|"), f"{loss:.4f}"]))
    return table(
        "change | steps > | bits per pixel > | PSNR, dB > | objective >",
        [cells for _, cells in sorted(rows, key=lambda row: row[0])],
    )


def _objective(content: Any) -> float:
    """R + lambda D, the mean over images; D is the squared error on the scale of 255."""
    weight = content["provenance"]["training"]["loss"]["lmbda"] * 255**2
    return fmean(row["file_bpp"] + weight * 10 ** (-row["file_psnr"] / 10) for row in content["images"])


def variable_cost() -> str:
    """One variable-rate model against four models of one rate."""
    names = ("fixed-0.0018", "fixed-0.0067", "fixed-0.025", "fixed-0.0932", "variable")
    curves = {curve.title: curve for curve in read_curves([RESULTS / "rates" / f"{name}.json" for name in names])}
    compared = compare(curves["Four models"], curves["One model"], "psnr")
    percent, span = compared.percent["cubic"], (compared.low, compared.high)
    assert percent is not None
    steps = result("rates/variable")["provenance"]["training"]["step"]
    row = (f"one model, {steps} steps", f"{percent:+.1f} %", f"{span[0]:.2f} to {span[1]:.2f} dB")
    return table("| BD-rate over PSNR, cubic > | range", [row])


def file_excess() -> str:
    """What exact parameters and whole files cost over the cross-entropy under the float model."""
    rows = []
    for name, column in (
        ("exact parameters instead of float ones", "exact_bpp"),
        ("the whole file, with header, checksum and the range coder's end", "file_bpp"),
    ):
        excess = [100 * (image[column] / image["cross_entropy_bpp"] - 1) for image in result("full-1")["images"]]
        rows.append((name, f"{fmean(excess):.3f} %", f"{max(excess):.3f} %"))
    return table("over the cross-entropy under the float model | mean > | worst image >", rows)


def weights_parts() -> str:
    """What hyperprior and context save in the bundled model."""
    rows = []
    for part in result("weights/checks")["parts"]:
        lost = [100 * (part[f"without_{name}"] / part["bpp"] - 1) for name in ("hyperprior", "context")]
        share = f"{100 * part['hyper_share']:.1f} %"
        rows.append([str(part["quality"]), f"{part['bpp']:.3f}", share, *(f"{loss:+.0f} %" for loss in lost)])
    return table("`--quality` > | bits per pixel > | in hyper-latents > | no hyperprior > | no context >", rows)


def weights_contents() -> str:
    """The bundled model and JPEG on images unlike photographs."""
    rows = []
    for one in result("weights/checks")["contents"]:
        sizes, decibels = (
            (one[ours], one[theirs]) for ours, theirs in (("num_bytes", "jpeg_bytes"), ("psnr", "jpeg_psnr"))
        )
        pairs = [(f"{size:,}", f"{value:.1f}") for size, value in zip(sizes, decibels, strict=True)]
        rows.append([one["name"], *pairs[0], *pairs[1]])
    return table("image, 512 x 512 | bytes > | PSNR, dB > | JPEG, bytes > | JPEG, dB >", rows)


def refinement_ablation() -> str:
    """BD-rates of searches against plain rounding."""
    if not (RESULTS / "refinement" / "ablation.json").exists():
        return "Not measured with the bundled model yet.\n"
    rows = [
        (name, f"{row['psnr']:+.1f} %", f"{row['ms_ssim']:+.1f} %", f"{row['seconds']:.1f}")
        for name, row in result("refinement/ablation")["rows"].items()
    ]
    return table("search | BD-rate, PSNR > | BD-rate, MS-SSIM > | CPU seconds >", rows)


RUNTIMES = {"torch": "torch", "onnx": "onnxruntime"}


def runtime_costs() -> str:
    """Time, processor time and memory of each runtime: a cold start, and decoding again."""
    rows = []
    for key, name in RUNTIMES.items():
        cost = result("runtimes")["runtimes"][key]
        row = [name]
        for state in ("cold", "steady"):
            times = (cost[f"{state}_{part}"] for part in ("seconds", "processor_seconds"))
            row += [*(f"{seconds:.2f} s" for seconds in times), f"{cost[f'{state}_megabytes']:.0f} MB"]
        rows.append(row)
    header = "| `jahp decompress` > | on the processor > | memory > | decode again > | on the processor > | memory >"
    return table(header, rows)


def runtime_exactness() -> str:
    """Latents that differ between runtimes, for every writer of the files, and the largest difference of pixels."""
    rows = []
    for name, found in result("runtimes-exact")["models"].items():
        rate = "one rate" if found["num_levels"] == 1 else "variable rate"
        latents, pixels = (found[key].values() for key in ("different_latents", "largest_difference_of_pixels"))
        about = f"`{name}`, {rate}, K = {found['num_components']}"
        figures = (found["images"], f"{found['latents']:,}", len(latents), sum(latents), max(pixels))
        rows.append([about, *map(str, figures)])
    return table("| images > | latents > | pairs of runtimes > | different latents > | pixels, levels >", rows)


TABLES: dict[str, Callable[[], str]] = {
    "bundled-model": bundled_model,
    "quickstart": quickstart,
    "coding-speed": coding_speed,
    "training-speed": training_speed,
    "data-speed": data_speed,
    "stream-memory": stream_memory,
    "published-rates": published_rates,
    "study-rungs": study_rungs,
    "study-mixtures": study_mixtures,
    "runtime-costs": runtime_costs,
    "runtime-exactness": runtime_exactness,
    "recipe-first": lambda: recipe("2026-11-22"),
    "recipe-second": lambda: recipe("2026-11-26"),
    "variable-cost": variable_cost,
    "file-excess": file_excess,
    "refinement-ablation": refinement_ablation,
    "weights-parts": weights_parts,
    "weights-contents": weights_contents,
}


def updated(text: str) -> str:
    """A page with its tables as results/ give them now."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[4]}", text)


def pages() -> Iterator[Path]:
    """Those that may hold tables."""
    yield ROOT / "README.md"
    yield from sorted(DOCS.glob("*.md"))


def stale() -> list[Path]:
    """Pages that do not hold what results/ give."""
    return [page for page in pages() if updated(page.read_text()) != page.read_text()]


def main(arguments: Sequence[str]) -> int:
    """Write the tables, or only check them."""
    if "--check" in arguments:
        found = stale()
        for page in found:
            sys.stderr.write(f"{page.relative_to(ROOT)}: tables differ from results/; run `make tables`\n")
        return 1 if found else 0
    for page in stale():
        page.write_text(updated(page.read_text()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
