"""Options that several commands share, and functions that define commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jahp_pl.model_io.export_config import METRICS
from jahp_pl.model_io.runtimes import RUNTIMES

MODEL = "name of a bundled model (see `jahp info`), export, run folder, checkpoint, or hf://USER/NAME"
"""Description of what --model accepts."""


def group(table: Any, name: str, title: str) -> Any:
    """Add a command with subcommands."""
    parser = table.add_parser(name, help=title, description=title[0].upper() + title[1:] + ".")
    return parser.add_subparsers(title="commands", metavar="WHAT", required=True)


def command(
    table: Any, name: str, run: Callable[[argparse.Namespace], None], title: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command with its function, its title and its examples, one per line."""
    lines = "\n".join(f"  {line.strip()}" for line in examples.splitlines())
    parser: argparse.ArgumentParser = table.add_parser(
        name,
        help=title,
        description=title[0].upper() + title[1:] + ".",
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print only errors, no progress")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the traceback of an error")
    return parser


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add --model and the options of `add_machine`."""
    parser.add_argument("--model", required=True, metavar="M", help=MODEL)
    add_machine(parser)


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the options for the device and its resources."""
    add_import(parser)
    parser.add_argument(
        "--device", default="cpu", metavar="D", help="device of the networks: cpu, cuda, mps or auto [cpu]"
    )
    parser.add_argument("--threads", type=positive, metavar="N", help="processor threads [one per core]")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="precision of the transforms [float32]"
    )
    parser.add_argument(
        "--memory",
        type=positive,
        default=1024,
        metavar="MIB",
        help="memory of the transforms and their tiles [1024]",
    )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add --runtime."""
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="library of the networks: torch, or onnx, which starts sooner, on a CPU and without --effort [torch if "
        "it is installed]",
    )


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add --import, for modules that register parts of the model."""
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        dest="modules",
        metavar="FILE.py",
        help="first import this file or module, which registers parts of the model; may be repeated",
    )


def add_images(parser: argparse.ArgumentParser) -> None:
    """Add the options for images to measure on."""
    parser.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of images (or one image)")
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N images")


EFFORT = (
    "how long to search for latents that need fewer bits at equal quality; 0 does not search. For 0.4 megapixels on "
    "one core, 1 takes about 4 s with the bundled models; 2, 3, 4, 5 and 6 take 2, 4, 8, 50 and 170 "
    "times as long; see docs/refinement.md for the gain"
)


def add_effort(parser: argparse.ArgumentParser, default: int | None, default_text: str) -> None:
    """Add --effort."""
    parser.add_argument(
        "--effort", type=int, choices=range(7), default=default, metavar="0..6", help=f"{EFFORT} [{default_text}]"
    )


def add_files(parser: argparse.ArgumentParser, what: str, default: str, where: str = "beside the inputs") -> None:
    """Add inputs and outputs, the model, and the options of `add_machine`.

    Args:
        parser: parser of a command.
        what: description of the inputs.
        default: description of the model without --model.
        where: description of the place of outputs without --output.
    """
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IN", help=what)
    add_output(parser, "OUT", f"a file, a folder for several, or - [{where}]", required=False)
    add_force(parser, "overwrite existing outputs; otherwise finished files of a folder are kept")
    parser.add_argument("--model", metavar="M", help=f"{MODEL} [{default}]")
    add_runtime(parser)
    add_machine(parser)


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add the mutually exclusive targets of a variable-rate model, and --metric."""
    parser.add_argument("--metric", choices=METRICS, help="metric that the bundled model was trained for [psnr]")
    targets = parser.add_mutually_exclusive_group()
    targets.add_argument("--quality", type=float, metavar="Q", help="from 1 (smallest files) to 100 [60]")
    targets.add_argument("--bpp", type=float, metavar="B", help="bits per pixel, met within 1 %%")
    targets.add_argument("--size", type=num_bytes, metavar="BYTES", help="maximum size of a file, e.g. 50k or 1.5M")
    targets.add_argument("--psnr", type=float, metavar="DB", help="minimum PSNR in dB")


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the options for a folder to create."""
    add_output(parser, "DIR", "folder to create")
    add_force(parser, "replace an existing export")


def add_output(parser: argparse.ArgumentParser, kind: str, what: str, required: bool = True) -> None:
    """Add -o or --output; argparse accepts the former --out as an abbreviation."""
    parser.add_argument("-o", "--output", type=Path, required=required, metavar=kind, help=what)


def add_force(parser: argparse.ArgumentParser, what: str, *former: str) -> None:
    """Add -f or --force, and its former names."""
    parser.add_argument("-f", "--force", *former, action="store_true", help=what)


def positive(text: str) -> int:
    """Parse a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number of at least 1")
    return int(text)


def num_bytes(text: str) -> int:
    """Parse a size in bytes; k and M mean a thousand and a million."""
    unit = {"k": 1000, "m": 1_000_000}.get(text[-1:].lower(), 1)
    try:
        size = float(text if unit == 1 else text[:-1]) * unit
    except ValueError:
        size = 0.0
    if not 1 <= size < 2**40:
        raise argparse.ArgumentTypeError(f"{text}: must be a size in bytes, e.g. 40000, 50k or 1.5M")
    return int(size)


def part(text: str) -> tuple[int, int]:
    """Parse I/N."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text}: must read I/N with I from 1 to N, e.g. 3/16")
    return int(number), int(count)
