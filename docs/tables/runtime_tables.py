"""Makes the tables of docs/runtimes.md."""

from __future__ import annotations

from markdown_table import table
from result_files import result

from jahp_pl.config import with_current_names
from jahp_pl.model_io.pretrained import bundled_models

RUNTIMES = {"torch": "torch", "onnx": "onnxruntime"}


def runtime_costs() -> str:
    """Tabulate wall time, CPU time and memory of each runtime, for a cold start and for decoding again."""
    rows = []
    for key, name in RUNTIMES.items():
        cost = result("runtimes")["runtimes"][key]
        row = [name]
        for state in ("cold", "steady"):
            times = (cost[f"{state}_{part}"] for part in ("seconds", "processor_seconds"))
            row += [*(f"{seconds:.2f} s" for seconds in times), f"{cost[f'{state}_megabytes']:.0f} MB"]
        rows.append(row)
    header = "| `jahp decompress` > | CPU time > | memory > | decoding again > | CPU time > | memory >"
    return table(header, rows)


def runtime_exactness() -> str:
    """Tabulate the latents that differ between the runtimes that wrote and read a file, and the largest pixel
    difference."""
    rows, names = [], {model.name for model in bundled_models()}
    for name, found in result("runtimes-exact")["models"].items():
        rate = "one rate" if found["num_levels"] == 1 else "variable rate"
        latents, pixels = (found[key].values() for key in ("different_latents", "largest_difference_of_pixels"))
        about = f"{with_current_names(found, 'model')['entropy_model']}, {rate}, K = {found['num_components']}"
        about = f"`{name}`: {about}" if name in names else about  # others cannot be looked up
        figures = (found["images"], f"{found['latents']:,}", len(latents), sum(latents), max(pixels))
        rows.append([about, *map(str, figures)])
    return table(
        "| images > | latents > | pairs of runtimes > | different latents > | largest pixel difference >", rows
    )
