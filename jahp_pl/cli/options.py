"""Functions that define commands, and options that several commands share."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jahp_pl.addresses import is_address
from jahp_pl.cli.errors import CommandError
from jahp_pl.model_io.export_config import METRICS
from jahp_pl.model_io.runtimes import RUNTIMES
from jahp_pl.text import shortened

MODEL = (
    "an export (see `jahp export`), a run folder, a checkpoint, a bundled model (see `jahp info`), or hf://USER/NAME"
)
"""Description of what --model accepts."""
MAX_DIGITS = 18
"""Number of digits that a whole number may have; it then fits into 64 bits wherever it is passed on."""
MAX_THREADS = 1024
"""Largest number of threads that --threads accepts."""


def group(subparsers: Any, name: str, title: str) -> Any:
    """Add a command that has subcommands, and return its own subparsers."""
    parser = subparsers.add_parser(name, help=title, description=title[0].upper() + title[1:] + ".")
    return parser.add_subparsers(title="commands", metavar="WHAT", required=True)


def command(
    subparsers: Any, name: str, run: Callable[[argparse.Namespace], None], title: str, examples: str
) -> argparse.ArgumentParser:
    """Add a command.

    Args:
        subparsers: subparsers of the command line, or of a `group`.
        name: name of the command.
        run: function that runs the command.
        title: one-line description, in the imperative and without a full stop.
        examples: example commands, one per line.
    """
    lines = textwrap.indent(textwrap.dedent(examples), "  ")
    parser: argparse.ArgumentParser = subparsers.add_parser(
        name,
        help=title,
        description=title[0].upper() + title[1:] + ".",
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="print errors only, and no progress")
    parser.add_argument("-v", "--verbose", action="store_true", help="show the tracebacks of errors")
    return parser


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the options for the device and its resources."""
    add_import(parser)
    parser.add_argument(
        "--device", default="cpu", metavar="D", help="device that runs the networks: cpu, cuda, mps or auto [cpu]"
    )
    parser.add_argument("--threads", type=num_threads, metavar="N", help="CPU threads [one per core]")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="precision of g_a and g_s [float32]"
    )
    parser.add_argument(
        "--memory",
        type=positive,
        default=1024,
        metavar="MIB",
        help="memory for g_a and g_s in MiB; larger images are processed in tiles [1024]",
    )


def add_runtime(parser: argparse.ArgumentParser) -> None:
    """Add the option --runtime."""
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        help="library that runs the networks; onnx starts faster, but reads only exports, runs only on the CPU and has "
        "no search (--effort) [torch if it is installed]",
    )


def add_import(parser: argparse.ArgumentParser) -> None:
    """Add --import, for modules that register parts of the model."""
    parser.add_argument(
        "--import",
        action="append",
        default=[],
        dest="modules",
        metavar="FILE.py",
        help="first import this Python file or module, which registers a part of the model (docs/extending.md); may be "
        "repeated",
    )


def add_images(
    parser: argparse.ArgumentParser, text: str = "images, or folders of them", required: bool = True
) -> None:
    """Add --images, which may be repeated."""
    parser.add_argument(
        "--images", type=local_path, nargs="+", action="extend", required=required, metavar="IN", help=text
    )  # fmt: skip


def add_limit(parser: argparse.ArgumentParser) -> None:
    """Add --limit, for images to measure on."""
    parser.add_argument("--limit", type=positive, metavar="N", help="use the first N images only")


EFFORT = (
    "effort of the search for latents that need fewer bits at equal quality; 0 does not search. With the bundled "
    "models, 1 takes 4.4 s for 0.4 megapixels on one core with AVX-512 and bfloat16 instructions, and 20 s on one with "
    "only AVX2; 2, 3, 4, 5 and 6 take about 1.6, 3, 8, 45 and 150 times as long. See docs/refinement.md for the gain"
)


def add_effort(parser: argparse.ArgumentParser, default: int | None, default_text: str) -> None:
    """Add the option --effort."""
    parser.add_argument(
        "--effort", type=int, choices=range(7), default=default, metavar="0..6", help=f"{EFFORT} [{default_text}]"
    )


def add_files(parser: argparse.ArgumentParser, what: str, default: str, where: str = "beside the inputs") -> None:
    """Add inputs, outputs, the model, and the options of `add_machine`.

    Args:
        parser: parser of a command.
        what: help text for the inputs.
        default: help text that says which model is used without --model.
        where: help text that says where outputs go without --output.
    """
    parser.add_argument("inputs", nargs="+", type=local_path, metavar="IN", help=what)
    add_output(parser, "OUT", f"file, folder for several outputs, or - for standard output [{where}]", required=False)
    add_force(parser, "overwrite existing outputs; without it, finished files of an input folder are skipped")
    parser.add_argument("--model", metavar="M", help=f"{MODEL} [{default}]")
    add_runtime(parser)
    add_machine(parser)


def add_target(parser: argparse.ArgumentParser) -> None:
    """Add the mutually exclusive targets of a variable-rate model, and --metric."""
    parser.add_argument("--metric", choices=METRICS, help="use the bundled model trained for this metric [psnr]")
    section = parser.add_argument_group("target (one of them, for variable-rate models)")
    targets = section.add_mutually_exclusive_group()
    targets.add_argument("--quality", type=float, metavar="Q", help="quality from 1 (smallest files) to 100 [60]")
    targets.add_argument("--bpp", type=float, metavar="B", help="bits per pixel of each file, met within 1 %%")
    targets.add_argument("--size", type=num_bytes, metavar="BYTES", help="maximum size of each file, e.g. 50k or 1.5M")
    targets.add_argument("--psnr", type=float, metavar="DB", help="minimum PSNR of each image in dB")


def add_new_folder(parser: argparse.ArgumentParser) -> None:
    """Add the options of commands that create a folder."""
    add_output(parser, "DIR", "folder to create")
    add_force(parser, "replace the folder if this command made it")


def add_output(parser: argparse.ArgumentParser, kind: str, what: str, required: bool = True) -> None:
    """Add -o and --output; argparse accepts --out, the former name, as an abbreviation."""
    parser.add_argument("-o", "--output", type=local_path, required=required, metavar=kind, help=what)


def add_force(parser: argparse.ArgumentParser, what: str, *former: str) -> None:
    """Add -f, --force and the option's former names."""
    parser.add_argument("-f", "--force", *former, action="store_true", help=what)


def check_results_path(out: Path) -> None:
    """Refuse an unusable path for the results before anything is computed.

    Raises:
        CommandError: if the path does not end in .json, or is a folder.
    """
    if out.suffix != ".json" or out.is_dir():
        raise CommandError(f"--output {out}: must be the name of a file that ends in .json")


def local_path(text: str) -> Path:
    """Parse a path; refuse an address."""
    if is_address(text):
        raise argparse.ArgumentTypeError(
            f"{shortened(text)}: is an address; give the path of a file or folder on this machine"
        )
    return Path(text)


def positive(text: str) -> int:
    """Parse a whole number of at least 1 and at most `MAX_DIGITS` digits."""
    if not _is_whole(text) or int(text) < 1:
        limit = f", of at most {MAX_DIGITS} digits" if text.isdecimal() and len(text) > MAX_DIGITS else ""
        raise argparse.ArgumentTypeError(f"{shortened(text)}: must be a whole number of at least 1{limit}")
    return int(text)


def _is_whole(text: str) -> bool:
    """Check whether text is a whole number of at most `MAX_DIGITS` digits."""
    return text.isdecimal() and len(text) <= MAX_DIGITS


def num_threads(text: str) -> int:
    """Parse a number of threads, limited because the process crashes if the system cannot start them all."""
    if positive(text) > MAX_THREADS:
        raise argparse.ArgumentTypeError(f"{shortened(text)}: must be at most {MAX_THREADS}")
    return int(text)


def num_bytes(text: str) -> int:
    """Parse a size in bytes; k or kB means a thousand and M or MB a million, in upper or lower case."""
    number = text.lower().removesuffix("b")
    unit = {"k": 1000, "m": 1_000_000}.get(number[-1:], 1)
    try:
        size = float(number if unit == 1 else number[:-1]) * unit
    except ValueError:
        size = 0.0
    if not 1 <= size < 2**40:
        raise argparse.ArgumentTypeError(f"{shortened(text)}: must be a size in bytes, e.g. 40000, 50k, 50kB or 1.5M")
    return int(size)


def part(text: str) -> tuple[int, int]:
    """Parse "I/N", e.g. 3/16, to the number of a part, counted from 1, and the number of parts."""
    number, _, count = text.partition("/")
    if not (_is_whole(number) and _is_whole(count) and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{shortened(text)}: must be I/N with I from 1 to N, e.g. 3/16")
    return int(number), int(count)
