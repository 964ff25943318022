"""Convert a table of published points on Kodak to one results file for each curve: python from_csv.py TABLE.csv

Columns: codec, metric_optimised (mse, ms-ssim, l1, ssim, none), quality_or_lambda, bpp, psnr_db, ms_ssim, source
(REPOSITORY:PATH of the figures). Every figure is the mean over the 24 images as published; MS-SSIM is also converted to
decibels.
"""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from collections import defaultdict
from pathlib import Path

TITLES = {
    "mbt2018-tfc": "Minnen 2018 joint (authors)",
    "mbt2018-paper": "Minnen 2018 joint (paper)",
    "mbt2018-cai-cuda": "Minnen 2018 joint (CompressAI)",
    "mbt2018-mean-tfc": "Minnen 2018 mean & scale (authors)",
    "mbt2018-mean-cai-cuda": "Minnen 2018 mean & scale (CompressAI)",
    "mbt2018-mean+SGA-yang2020": "Yang 2020 mean & scale + SGA",
    "bmshj2018-hyperprior-tfc": "Ballé 2018 hyperprior (authors)",
    "bmshj2018-hyperprior-cai-cuda": "Ballé 2018 hyperprior (CompressAI)",
    "bls2017-factorized-tfc(bmshj2018-factorized)": "Ballé 2018 factorized (authors)",
    "bmshj2018-factorized-cai-cuda": "Ballé 2018 factorized (CompressAI)",
    "jpeg420-tfc": "JPEG 4:2:0 (published)",
    "jpeg2000-openjpeg-tfc": "JPEG 2000, OpenJPEG (published)",
    "jpeg2000-kakadu-tfc": "JPEG 2000, Kakadu (published)",
    "webp-tfc": "WebP (published)",
    "bpg444-tfc": "BPG 4:4:4 (published)",
    "bpg420-tfc": "BPG 4:2:0 (published)",
    "vtm-cai": "VVC, VTM (published)",
    "hm-cai": "HEVC, HM (published)",
    "av1-cai": "AV1 (published)",
    "ms2020-cc10-tfc": "Minnen 2020 channel-wise (authors)",
    "cheng2020-anchor-cai-cuda": "Cheng 2020 anchor (CompressAI)",
    "cheng2020-attn-cai-cuda": "Cheng 2020 attention (CompressAI)",
    "lee2019-authors": "Lee 2019 (authors)",
    "elic2022-paper": "ELIC 2022 (paper)",
    "mlicpp-authors": "MLIC++ (authors)",
}


def main(table: Path, folder: Path) -> None:
    """Write all files."""
    rows = defaultdict(list)
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["codec"], row["metric_optimised"]].append(row)
    for (codec, metric), points in rows.items():
        name = codec if metric == "none" else f"{codec}-{metric}"
        title = TITLES.get(codec, codec) + ("" if metric in ("none", "mse") else f", for {metric.upper()}")
        curve = {
            "name": name,
            "title": title,
            "kind": "published",
            "images": "kodak",
            "optimised_for": metric,
            "source": points[0]["source"],
            "points": [_point(row) for row in sorted(points, key=lambda row: float(row["bpp"]))],
        }
        path = folder / f"{re.sub(r'[^a-z0-9.]+', '-', name.lower()).strip('-')}.json"
        path.write_text(json.dumps({"curves": [curve]}, indent=1, ensure_ascii=False) + "\n")


def _point(row: dict[str, str]) -> dict[str, object]:
    mean = {"file_bpp": float(row["bpp"])}
    if row["psnr_db"]:
        mean["file_psnr"] = float(row["psnr_db"])
    if row["ms_ssim"]:
        mean["file_ms_ssim"] = float(row["ms_ssim"])
        mean["file_ms_ssim_db"] = round(-10 * math.log10(1 - mean["file_ms_ssim"]), 4)
    return {"quality": row["quality_or_lambda"], "mean": mean}


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent)
