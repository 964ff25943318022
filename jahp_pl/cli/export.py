"""`jahp export`, `export-graphs` and `import-compressai`: write models in other forms.

Heavy imports happen inside the functions.
"""

from __future__ import annotations

import argparse
from typing import Any

from jahp_pl.cli import output
from jahp_pl.cli.options import MODEL, add_import, add_new_folder, command, local_path
from jahp_pl.model_io.pretrained import locate_model
from jahp_pl.model_io.tensor_layout import DTYPES


def export(arguments: argparse.Namespace) -> None:
    """Export a trained model to a folder."""
    from jahp_pl.model_io.export import export_from

    source = locate_model(arguments.model)
    codec = export_from(source, arguments.output, arguments.force, arguments.dtype, arguments.results, arguments.note)
    size = sum(path.stat().st_size for path in arguments.output.iterdir())
    output.say(f"{source} -> {arguments.output}: model {codec.fingerprint.hex()}, {size / 1e6:.2f} MB")


def export_graphs(arguments: argparse.Namespace) -> None:
    """Export the networks of a model as graphs for other runtimes."""
    from jahp_pl.model_io.load import load_codec
    from jahp_pl.model_io.onnx import write_graphs

    codec = load_codec(arguments.model)
    names = write_graphs(codec, arguments.output, arguments.force)
    output.say(f"{arguments.model} -> {arguments.output}: {', '.join(names)} of model {codec.fingerprint.hex()}")


def import_compressai(arguments: argparse.Namespace) -> None:
    """Export a CompressAI checkpoint to a folder."""
    from jahp_pl.model_io import compressai
    from jahp_pl.model_io.export import export as write_export

    model = compressai.load_compressai(arguments.checkpoint)
    facts = {"source": arguments.checkpoint.name, "trained_with": "CompressAI"}
    codec = write_export(model, arguments.output, facts, arguments.force)
    config = model.config
    output.say(
        f"{arguments.checkpoint} -> {arguments.output}: {config.entropy_model}, N = {config.num_filters}, "
        f"M = {config.num_latents}, model {codec.fingerprint.hex()}"
    )


def add_export(subparsers: Any) -> None:
    """Add the command `export`."""
    p = command(subparsers, "export", export, "write a trained model to a folder to keep and to share", """\
        jahp export runs/mbt2018 -o models/mbt2018
        jahp export runs/mbt2018 --dtype bfloat16 -o models/half
        jahp export models/half --results evaluation/kodak.json -o models/half --force""")  # fmt: skip
    p.add_argument("model", metavar="M", help=MODEL)
    add_new_folder(p)
    add_import(p)
    p.add_argument(
        "--dtype",
        choices=DTYPES,
        help="type of the stored weights, rounded for smaller files [that of an export, otherwise float32]",
    )
    p.add_argument(
        "--results", type=local_path, metavar="R.json", help="results of `jahp evaluate` for this model, to include"
    )
    p.add_argument("--note", metavar="TEXT", help="sentence about the training, for the model card")


def add_export_graphs(subparsers: Any) -> None:
    """Add the command `export-graphs`."""
    title = "write a model's networks as ONNX and torch.export graphs"
    p = command(subparsers, "export-graphs", export_graphs, title, """\
        jahp export-graphs models/mbt2018 -o graphs/mbt2018""")  # fmt: skip
    p.add_argument("model", metavar="M", help=MODEL)
    add_new_folder(p)
    add_import(p)


def add_import_compressai(subparsers: Any) -> None:
    """Add the command `import-compressai`."""
    p = command(subparsers, "import-compressai", import_compressai, "convert a CompressAI checkpoint to an export", """\
        jahp import-compressai mbt2018.pth.tar -o models/mbt2018
        jahp compress photo.png --model models/mbt2018""")  # fmt: skip
    p.add_argument("checkpoint", type=local_path, metavar="CKPT", help="checkpoint or state dict of CompressAI")
    add_new_folder(p)
