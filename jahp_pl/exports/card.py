"""The README.md of an export: what the model is, how it was trained, what it reaches, how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jahp_pl.config import ModelConfig

RUNGS = {
    "factorized": "a factorized prior (Ballé et al. 2018)",
    "scale_hyperprior": "a scale hyperprior (Ballé et al. 2018)",
    "mean_scale_hyperprior": "a mean and scale hyperprior (Minnen et al. 2018)",
    "context": "a context model without hyperprior (Minnen et al. 2018)",
    "joint": "joint autoregressive and hierarchical priors (Minnen et al. 2018)",
}
HEAD = """\
---
library_name: jahp_pl
tags:
- image-compression
- safetensors
---
"""
USE = """\
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

`{name}` is the path of this folder, or the model's name where it comes with jahp_pl. A file is decoded by the model
that made it and by no other: it names fingerprint `{fingerprint}`, which covers all that a decoder uses.
`model.safetensors` and `config.json` are checked before they are used; no code is in them.
"""


def card(
    name: str,
    config: ModelConfig,
    num_parameters: int,
    fingerprint: bytes,
    facts: Mapping[str, Any],
    results: Mapping[str, Any] | None,
) -> str:
    """Markdown.

    Args:
        name: of the folder.
        config: architecture.
        num_parameters: of all networks.
        fingerprint: of the codec.
        facts: about the training, see `folder.training_facts`; what is not known is left out.
        results: see `results.read_results`.
    """
    mixture = f"mixtures of {config.num_components} " if config.num_components > 1 else ""
    density = "" if config.rung == "factorized" else f"; latents are {mixture}{config.likelihood}"
    rates = f"; {config.num_levels} levels of rate and all between them" if config.num_levels > 1 else ""
    lines = [
        HEAD + f"# {name}",
        "",
        f"A learned image codec: {RUNGS[config.rung]}, N = {config.num_filters}, M = {config.num_latents}{density}"
        f"{rates}; "
        f"{num_parameters:,} parameters. Made with jahp_pl.",
        *_training(facts),
        *_table(results),
        "",
        USE.format(name=name, fingerprint=fingerprint.hex()),
    ]
    return "\n".join(lines)


def _training(facts: Mapping[str, Any]) -> list[str]:
    loss, data, optim = (_mapping(facts, key) for key in ("loss", "data", "optim"))
    rows = {
        "steps": facts.get("step"),
        "lambda": _range(loss),
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
    note = ["", str(facts["note"])] if facts.get("note") else []
    return ["", "## Training", "", "| | |", "|---|---|", *known, *note] if known else []


def _product(steps: Any, crops: Any) -> str | None:
    return f"{steps * crops:,}" if isinstance(steps, int) and isinstance(crops, int) else None


def _hours(seconds: Any) -> str | None:
    return f"{seconds / 3600:.1f}" if isinstance(seconds, int | float) else None


def _range(loss: Mapping[str, Any]) -> str | None:
    if (lmbda := loss.get("lmbda")) is None:
        return None
    return f"{lmbda} to {loss['lmbda_max']}" if loss.get("lmbda_max") is not None else f"{lmbda}"


def _table(results: Mapping[str, Any] | None) -> list[str]:
    if not results:
        return []
    points = results.get("points")
    first = "quality" if points else "images"
    images = f"{results['images']}, {results['count']}"
    rows = []
    for point in points or [results]:
        similarity = "-" if point["ms_ssim"] is None else f"{point['ms_ssim']:.4f}"
        name = f"{point['quality']:g}" if points else images
        rows.append(f"| {name} | {point['bpp']:.4f} | {point['psnr']:.2f} dB | {similarity} |")
    where = f" over {images}" if points else ""
    return [
        "", "## What it reaches", "", f"| {first} | bits per pixel | PSNR | MS-SSIM |", "|---|---|---|---|", *rows,
        "", f"Means{where} over real files, the header included; PSNR of each decoded 8-bit image.",
    ]  # fmt: skip


def _mapping(facts: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = facts.get(key)
    return value if isinstance(value, Mapping) else {}
