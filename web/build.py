"""Generates the folders that the page needs beside it; `make web` runs this.

vendor/   onnxruntime-web, from `dist` of its npm package
model/    an export, unchanged
graphs/   ONNX graphs without weights, graphs.json with the names of each graph's weights, and files.json with the names
          of all files that the page needs offline
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from jahp_pl.model_io.export_config import CONFIG_FILE, WEIGHTS_FILE, ExportError
from jahp_pl.model_io.pretrained import locate_model
from jahp_pl.runtime import entropy_graphs, transform_graphs
from jahp_pl.runtime.load import load_runtime
from jahp_pl.runtime.weights import read_export

WEB = Path(__file__).parent
PAGE = ("index.html", "style.css", *sorted(path.name for path in WEB.glob("*.js")))
"""Files of the page that are not generated."""
VENDOR = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def build(vendor: Path, out: Path = WEB, model: str | Path | None = None) -> None:
    """Make the three folders, and copy the page to `out` if it is another folder.

    Args:
        vendor: folder with the files of onnxruntime-web.
        out: folder of the page.
        model: joint model to use, see `locate_model`.

    Raises:
        ExportError: if there is no such model, or it is not joint.
    """
    for name in PAGE if out != WEB else ():
        shutil.copy(WEB / name, out)
    folder = locate_model(model)
    codec = load_runtime(folder)
    if codec.config.entropy_model != "joint":
        raise ExportError(f"{folder}: is a {codec.config.entropy_model} model; the page runs joint models only")
    for name in ("vendor", "model", "graphs"):
        shutil.rmtree(out / name, ignore_errors=True)
        (out / name).mkdir()
    for name in VENDOR:
        shutil.copy(vendor / name, out / "vendor")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        shutil.copy(folder / name, out / "model")
    state, (h_s, context) = read_export(folder).state, codec.networks.integer_networks
    assert context is not None
    graphs = {
        "analysis": transform_graphs.analysis(state),
        "hyper_analysis": transform_graphs.hyper_analysis(state, magnitudes=False),
        "hyper_synthesis": entropy_graphs.hyper_synthesis(h_s, context.from_psi),
        "context": entropy_graphs.context(context, is_wide=False),
        "context_wide": entropy_graphs.context(context, is_wide=True),
        "synthesis": transform_graphs.synthesis(state),
    }
    for name, graph in graphs.items():
        (out / "graphs" / f"{name}.onnx").write_bytes(graph.to_bytes())
    names = {name: list(graph.weights) for name, graph in graphs.items()}
    (out / "graphs" / "graphs.json").write_text(json.dumps(names, indent=1) + "\n")
    made = (path for name in ("vendor", "model", "graphs") for path in sorted((out / name).iterdir()))
    files = [*PAGE, *(path.relative_to(out).as_posix() for path in made)]
    (out / "graphs" / "files.json").write_text(json.dumps(files, indent=1) + "\n")


if __name__ == "__main__":
    try:
        build(Path(sys.argv[1]), model=sys.argv[2] if len(sys.argv) > 2 else None)
    except ExportError as error:
        sys.exit(f"{error}")
