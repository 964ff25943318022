# ruff: noqa: T201
"""Compares files of an imported mbt2018 with CompressAI's own strings, on real images: `make parity-files`.

    python -m checks.parity.files RUN... --images data/kodak

For each run's weights, CompressAI (another process, in its own environment) writes a checkpoint in its usual format,
its reconstruction in evaluation mode and the sizes of its strings. This program then imports, exports and loads the
checkpoint as `jahp import-compressai` does, and codes the same images to files. In evaluation mode, CompressAI
reconstructs from round(y), as our files do, but its strings hold round(y - mu) + mu; the table shows which is better,
and by how much.

The model's forward pass must give CompressAI's x_hat. The codec adds in another order than torch's layers, so if a
latent lies very close to the middle between two integers, the file may hold the other integer; such latents are
counted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from checks.images import add_kodak_images, chosen_images
from jahp_pl.files.atomic import write_json
from jahp_pl.images.io import decode_rgb
from jahp_pl.measurement.provenance import provenance
from jahp_pl.model_io import compressai
from jahp_pl.model_io.checkpoint import find_checkpoint, load_checkpoint_model
from jahp_pl.model_io.export import export
from jahp_pl.model_io.load import load_codec
from jahp_pl.quality import psnr

BOUND = 1e-4
"""Maximum deviation of x_hat, for images in [0, 1]."""


def compare_files(run: Path, images: list[Path], python: str, folder: Path) -> dict[str, Any]:
    """Compare one model on all images."""
    model = load_checkpoint_model(find_checkpoint(run))
    torch.save({"model": vars(model.config), "state": model.state_dict()}, folder / "weights.pt")
    command = [python, "-m", "checks.parity.strings", "--to", str(folder), *map(str, images)]
    theirs = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)

    imported = compressai.load_compressai(folder / "mbt2018.pth.tar")
    export(imported, folder / "export", {"source": "mbt2018.pth.tar"}, overwrite=True)
    codec = load_codec(folder / "export")
    rows: list[dict[str, Any]] = []
    for path, their in zip(images, theirs, strict=True):
        image = torch.from_numpy(decode_rgb(path)).permute(2, 0, 1).contiguous()
        encoded = codec.encode(image)
        decoded = codec.decode(encoded.data)
        expected = torch.load(folder / f"{path.stem}.pt", weights_only=True)[0]
        with torch.inference_mode():
            x = image[None].float() / 255
            x_hat, y = codec.model(x).x_hat[0], codec.model.analyze(x)[0]
        turned = y[encoded.y_hat != y.round()]
        pixels = image.shape[1] * image.shape[2]
        rows.append({
            "image": path.name,
            "x_hat_deviation": float((x_hat - expected).abs().max()),
            "latents_rounded_the_other_way": len(turned),
            "their_distance_from_the_middle": max((turned - turned.floor() - 0.5).abs().tolist(), default=0.0),
            "differing_pixels": int((decoded.image != (expected.clamp(0, 1) * 255).round().byte()).sum()),
            "latents_changed": int((decoded.y_hat != encoded.y_hat).sum()),
            "file": {"bpp": 8 * len(encoded.data) / pixels, "psnr": float(psnr(image[None], decoded.image[None]))},
            "strings": {"bpp": their["bpp"], "psnr": their["psnr"]},
        })  # fmt: skip
        print(f"  {path.name}: file {rows[-1]['file']}, strings {rows[-1]['strings']}", flush=True)
    means = {
        kind: {name: fmean(row[kind][name] for row in rows) for name in ("bpp", "psnr")} for kind in ("file", "strings")
    }
    return {"run": run.name, "model": vars(model.config), "mean": means, "images": rows}


def main() -> int:
    """Run the comparison; the exit status is 1 if a bound is exceeded."""
    parser = argparse.ArgumentParser(prog="python -m checks.parity.files", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="trained joint models, K = 1")
    add_kodak_images(parser)
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    parser.add_argument(
        "--python",
        default=".venv-parity/bin/python",
        help="interpreter of an environment with CompressAI (%(default)s)",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("results/parity-files.json"), help="result (%(default)s)"
    )
    options = parser.parse_args()

    images = [image.source for image in chosen_images(options, options.limit)]
    results = []
    for run in options.runs:
        print(run)
        with tempfile.TemporaryDirectory() as folder:
            results.append(compare_files(run, images, options.python, Path(folder)))
        mean = results[-1]["mean"]
        print(f"  mean: file {mean['file']}, strings {mean['strings']}")
    worst = max(row["x_hat_deviation"] for result in results for row in result["images"])
    changed = sum(row["latents_changed"] for result in results for row in result["images"])
    turned = sum(row["latents_rounded_the_other_way"] for result in results for row in result["images"])
    middle = max(row["their_distance_from_the_middle"] for result in results for row in result["images"])
    figures = {"bound": BOUND, "worst_x_hat_deviation": worst, "latents_rounded_the_other_way": turned}
    content = provenance(["python", "-m", "checks.parity.files", *sys.argv[1:]]) | figures | {"models": results}
    write_json(options.output, content, indent=2)
    print(
        f"x_hat within {worst:.1e}, {changed} latents changed, {turned} within {middle:.1e} of the middle between two "
        f"integers rounded the other way; details in {options.output}"
    )
    return 0 if max(worst, middle) <= BOUND and changed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
