"""Write the tables of README.md and docs/ that come from results/: python docs/tables [--check].

A table is delimited by `<!-- table NAME -->` and `<!-- end -->`; NAME is a key of `TABLES`. With `--check`, nothing is
written, and the exit status is 1 if a table on any page differs from results/.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import rate_tables as rates
import runtime_tables as runtimes
import speed_tables as speed
import study_tables as study
from result_files import ROOT

DOCS = ROOT / "docs"
MARKED = re.compile(r"(<!-- table (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

TABLES: dict[str, Callable[[], str]] = {
    "bundled-model": rates.bundled_model,
    "bundled-savings": rates.bundled_savings,
    "quickstart": rates.quickstart,
    "coding-speed": speed.coding_speed,
    "training-speed": speed.training_speed,
    "data-speed": speed.data_speed,
    "stream-memory": speed.stream_memory,
    "published-rates": rates.published_rates,
    "study-entropy-models": study.study_entropy_models,
    "study-mixtures": study.study_mixtures,
    "runtime-costs": runtimes.runtime_costs,
    "runtime-exactness": runtimes.runtime_exactness,
    "recipe-first": lambda: study.recipe("2026-11-22"),
    "recipe-second": lambda: study.recipe("2026-11-26"),
    "variable-cost": rates.variable_cost,
    "file-excess": rates.file_excess,
    "refinement-efforts": rates.refinement_efforts,
    "refinement-savings": rates.refinement_savings,
    "refinement-ablation": rates.refinement_ablation,
    "weights-parts": rates.weights_parts,
    "weights-transforms": rates.weights_transforms,
    "weights-contents": rates.weights_contents,
}


def updated(text: str) -> str:
    """Return the text of a page with its tables regenerated from results/."""
    return MARKED.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[4]}", text)


def pages() -> Iterator[Path]:
    """Yield the pages that may have tables."""
    yield ROOT / "README.md"
    yield from sorted(DOCS.glob("*.md"))


def stale() -> list[Path]:
    """Return the pages whose tables differ from results/."""
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
