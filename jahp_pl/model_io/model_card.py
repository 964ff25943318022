"""Writes the README.md of an export: what the model is, how it was trained, its results, how to use it.

Rates and distortions are means from a results file of `jahp evaluate`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jahp_pl.config import ModelConfig
from jahp_pl.files import json_content
from jahp_pl.images.kodak import KODAK_NAMES
from jahp_pl.model_io.export_config import RESULTS_SHAPE, ExportError
from jahp_pl.text import count_of

DESCRIPTIONS = {
    "factorized": "a factorized prior (Ballé et al. 2018)",
    "scale_hyperprior": "a scale hyperprior (Ballé et al. 2018)",
    "mean_scale_hyperprior": "a mean and scale hyperprior (Minnen et al. 2018)",
    "context": "a context model without hyperprior (Minnen et al. 2018)",
    "joint": "joint autoregressive and hierarchical priors (Minnen et al. 2018)",
}
FAMILY_NAMES = {"gaussian": "Gaussian", "laplace": "Laplace"}
"""Families of densities that are named after people."""
FRONT_MATTER = """\
---
library_name: jahp_pl
tags:
- image-compression
- safetensors
---
"""
USAGE = """\
## How to use it

```
jahp compress photo.png --model {name}
jahp decompress photo.jahp --model {name}
```

```python
import jahp_pl

codec = jahp_pl.load_codec("{name}")
data = codec.compress(image)  # Pillow image, (H, W, 3) uint8 array or (3, H, W) uint8 tensor, any size
restored = codec.decompress(data, as_="pil")
```

`{name}` is the path of this folder, or the model's name if it comes with jahp_pl. Only the model that made a file
decodes it: its files contain the fingerprint `{fingerprint}`, which covers everything that a decoder uses.
`model.safetensors` and `config.json` contain no code and are checked before they are used.
"""


def format_card(
    name: str,
    config: ModelConfig,
    num_parameters: int,
    fingerprint: bytes,
    facts: Mapping[str, Any],
    results: Mapping[str, Any] | None,
) -> str:
    """Write the model card in Markdown.

    Args:
        name: name of the folder.
        config: architecture.
        num_parameters: number of parameters of all networks.
        fingerprint: fingerprint of the codec.
        facts: facts about the training, see `checkpoint.training_facts`; unknown ones are omitted.
        results: result of `read_evaluation_results`.
    """
    mixture = f"{config.num_components}-component " if config.num_components > 1 else ""
    family = FAMILY_NAMES.get(config.likelihood, config.likelihood)
    density = "" if config.entropy_model == "factorized" else f"; {mixture}{family} latents"
    rates = f"; {config.num_levels} rate levels and all rates between them" if config.num_levels > 1 else ""
    lines = [
        FRONT_MATTER + f"# {name}",
        "",
        f"A learned image codec: {DESCRIPTIONS[config.entropy_model]}, N = {config.num_filters}, "
        f"M = {config.num_latents}{density}{rates}; {num_parameters:,} parameters. Made with jahp_pl.",
        *_training(facts),
        *_table(results),
        "",
        USAGE.format(name=name, fingerprint=fingerprint.hex()),
    ]
    return "\n".join(lines)


def _training(facts: Mapping[str, Any]) -> list[str]:
    """Write the section about the training from the facts that are known."""
    loss, data, optim = (_mapping(facts, key) for key in ("loss", "data", "optim"))
    rows = {
        "steps": facts.get("step"),
        "lambda": _lambda_range(loss),
        "distortion": loss.get("distortion"),
        "crops per step": data.get("batch_size"),
        "crops seen": _product(facts.get("step"), data.get("batch_size")),
        "hours": _hours(facts.get("seconds")),
        "side of a crop": data.get("crop_size"),
        "learning rate": optim.get("learning_rate"),
        "seed": facts.get("seed"),
        "trained with": facts.get("trained_with"),
    }
    known = [f"| {name} | {value} |" for name, value in rows.items() if value is not None]
    if not known:
        return []
    note = [str(facts["note"]), ""] if facts.get("note") else []
    start = optim.get("start_from")
    scope = [] if start is None else [f"The last run, which started from the weights of `{start}`:", ""]
    return ["", "## Training", "", *note, *scope, "| | |", "|---|---|", *known]


def _product(steps: Any, crops: Any) -> str | None:
    return f"{steps * crops:,}" if isinstance(steps, int) and isinstance(crops, int) else None


def _hours(seconds: Any) -> str | None:
    return f"{seconds / 3600:.1f}" if isinstance(seconds, int | float) else None


def _lambda_range(loss: Mapping[str, Any]) -> str | None:
    if (lmbda := loss.get("lmbda")) is None:
        return None
    return f"{lmbda} to {loss['lmbda_max']}" if loss.get("lmbda_max") is not None else f"{lmbda}"


def _table(results: Mapping[str, Any] | None) -> list[str]:
    """Write the section with the results, one row per quality."""
    if not results:
        return []
    points = results.get("points")
    first = "quality" if points else "images"
    images = f"{results['images']} ({count_of(results['count'], 'image')})"
    rows = []
    for point in points or [results]:
        similarity = "-" if point["ms_ssim"] is None else f"{point['ms_ssim']:.4f}"
        name = f"{point['quality']:g}" if points else images
        rows.append(f"| {name} | {point['bpp']:.4f} | {point['psnr']:.2f} dB | {similarity} |")
    where = f" over {images}," if points else ""
    return [
        "", "## What it reaches", "", f"| {first} | bits per pixel | PSNR | MS-SSIM |", "|---|---|---|---|", *rows,
        "", f"Means{where} of real files, with their headers; the PSNR is that of the decoded 8-bit images.",
    ]  # fmt: skip


def _mapping(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = facts.get(key)
    return value if isinstance(value, Mapping) else {}


def read_evaluation_results(path: Path, fingerprint: bytes) -> dict[str, Any]:
    """Read the results for a model card from a file of `jahp evaluate`.

    Args:
        path: a file of `jahp evaluate`.
        fingerprint: fingerprint of the model that the results must belong to.

    Returns:
        Image set, number of images, and means: bits per pixel of whole files, PSNR in dB, MS-SSIM from 0 to 1 and in
            dB. With several qualities, the means are those of the middle one, and "points" lists all.

    Raises:
        ExportError: if the file cannot be read, has another format, or belongs to another model.
    """
    try:
        content = json_content.read(path)
        models: dict[bytes, list[dict[str, Any]]] = {}
        for curve in content.get("curves", [{"points": [content]}]):
            for point in curve["points"]:
                models.setdefault(bytes.fromhex(point["provenance"]["fingerprint"]), []).append(point)
        first, *_ = models.values()
        points = models.get(fingerprint, first)
        names = [Path(image["name"]).stem for image in points[0]["images"]]
        results = {
            "images": "Kodak" if set(names) == KODAK_NAMES else "other images",
            "count": len(names),
            **_figures(points[len(points) // 2]["mean"]),
            "date": points[0]["provenance"].get("date"),
        }
        if "curves" in content and "target" in points[0]:
            results["points"] = [{"quality": p["target"]["quality"]} | _figures(p["mean"]) for p in points]
        if mismatch := json_content.first_mismatch(results, RESULTS_SHAPE):
            raise ValueError(mismatch)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror or error}); check the path") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ExportError(f"{path}: has no results of `jahp evaluate`; give a JSON file that it wrote") from None
    if fingerprint not in models:
        others = " and ".join(one.hex() for one in models)
        raise ExportError(
            f"{path}: has results of model {others}, but this model is {fingerprint.hex()}; evaluate this model"
        )
    return results


def _figures(mean: Mapping[str, Any]) -> dict[str, float | None]:
    values = {name: mean[f"file_{name}"] for name in ("bpp", "psnr", "ms_ssim")} | {
        "ms_ssim_db": mean.get("file_ms_ssim_db")
    }
    return {name: None if value is None else float(value) for name, value in values.items()}
