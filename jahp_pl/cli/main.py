"""The command line: the parser of every command, and error reporting. The other files of this package run them."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

from jahp_pl.cli import compress, evaluate, models, shared, sweep, train
from jahp_pl.cli.bench import add_benches
from jahp_pl.cli.options import (
    MODEL,
    add_effort,
    add_files,
    add_force,
    add_images,
    add_import,
    add_model,
    add_out,
    add_output,
    add_runtime,
    add_target,
    command,
    part,
    positive,
)
from jahp_pl.extensions import import_modules
from jahp_pl.text import printable

EXAMPLES = """\
examples:
  jahp shards ~/photos -o shards/mine
  jahp train configs/mbt2018.yaml 'data.train=[shards/mine]' loss.lmbda=0.0067
  jahp sweep sweeps/ladder.yaml --workers 2
  jahp evaluate --model runs/mbt2018 --images data/kodak --beside jpeg
  jahp compress photo.png
  jahp decompress photo.jahp -o again.png
  jahp compress photo.png --model runs/mbt2018
  jahp export runs/mbt2018 -o models/mbt2018

`jahp COMMAND --help` says more about each."""

CLASSICAL = (
    *("jpeg", "jpeg-plain", "jpeg444", "jpeg2000", "jpeg2000-53", "webp", "avif", "avif444"),
    *("hevc", "hevc444", "jxl", "vvc"),
)
"""Names in `evaluation.classical.CODECS`, repeated here so that the parser need not import them."""
DTYPES = ("float32", "bfloat16", "int8")
"""`model_io.tensors.DTYPES`, repeated for the same reason."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit.

    The status is 0 on success, 2 for unusable input (with a one-line message), 130 after an interrupt, 128 + N if
    signal N stopped a training that can continue, and 141 if the reader of the output is gone.
    """
    shared.open_streams()
    parsed = _parse(arguments)
    shared.QUIET.set(parsed.quiet)
    shared.wait_passively()
    try:
        with shared.signals_as_errors() if parsed.run not in (train.train, sweep.sweep) else nullcontext():
            if modules := getattr(parsed, "modules", []):
                import_modules(modules)
            parsed.run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted", 130))
    except BrokenPipeError:
        _close_output()
        sys.exit(141)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "jahp_pl":
            raise
        _close_output()
        sys.exit(_fail(f"this command needs {error.name}, which is not installed; see `pip install jahp_pl`", 2))
    except shared.INPUT_ERRORS as error:
        _close_output()
        if parsed.verbose:
            traceback.print_exc()
        sys.exit(_fail(str(error).strip() or type(error).__name__, 2))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments, allowing settings before and after options, which argparse alone refuses."""
    parser = _parser()
    if "_ARGCOMPLETE" in os.environ:  # a shell that completes a command sets it
        import argcomplete

        argcomplete.autocomplete(parser)
    parsed, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(parsed, "settings") or any(word.startswith("-") for word in rest)):
        parsed.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        parsed.settings = [*parsed.settings, *rest]
    return parsed


def _close_output() -> None:
    """Flush standard output, or redirect it to nowhere if that fails; otherwise Python would retry at exit and
    complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int) -> int:
    shared.say(f"jahp: {' '.join(message.split())}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(printable(message + self._suggestion(message)))

    def _suggestion(self, message: str) -> str:
        """Suggest the command, option or value that was probably meant."""
        if found := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message):
            word, known = found[1], [choice.strip("' ") for choice in found[2].split(",")]
        elif found := re.match(r"unrecognized arguments:.*?(--[^\s=]+)", message):
            word, known = found[1], re.findall(r"--[a-z][a-z-]*", self.format_help())
        else:
            return ""
        close = difflib.get_close_matches(word, known, n=1)
        return f"; did you mean {close[0]}?" if close else ""


class _Version(argparse.Action):
    """Prints the version; looking it up takes a moment, so it is done on request."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        shared.say(f"jahp {version('jahp_pl')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jahp",
        description="Learned image compression with joint autoregressive and hierarchical priors.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, then exit")
    table = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    p = command(table, "shards", train.shards, "turn photographs into shards to train on", """\
        jahp shards ~/photos more/*.tif -o shards/mine
        jahp shards ~/photos --tile 1024 --quality 95 --part 3/16 -o shards/mine-03
        jahp shards old-shards/*.tar -o shards/mine --overwrite""")  # fmt: skip
    p.add_argument("sources", nargs="+", metavar="SRC", help="folders, image files, or tar files")
    add_output(p, "DIR", "folder for shard-*.tar and index.json")
    add_force(p, "replace an existing folder of shards", "--overwrite")
    p.add_argument("--min-side", type=int, default=256, metavar="PX", help="skip photographs with a shorter side [256]")
    p.add_argument("--max-side", type=int, metavar="PX", help="scale larger photographs down to this side")
    p.add_argument(
        "--max-pixels", type=positive, default=2**26, metavar="N", help="skip photographs with more pixels [67108864]"
    )
    p.add_argument("--tile", type=int, metavar="PX", help="cut photographs with over 2 PX x PX pixels into such tiles")
    p.add_argument(
        "--quality", type=int, metavar="Q", help="JPEG quality of photographs that are not stored unchanged [lossless]"
    )
    p.add_argument("--shard-samples", type=int, default=500, metavar="N", help="photographs per shard [500]")
    p.add_argument("--part", type=part, default=(1, 1), metavar="I/N", help="pack only the I-th of N parts")
    p.add_argument("--seed", type=int, default=0, help="seed of the order [0]")
    p.add_argument("--in-order", action="store_true", help="keep the order of names, for validation sets")

    p = command(table, "train", train.train, "train, resume, validate with real files", """\
        jahp train configs/quickstart.yaml
        jahp train configs/mbt2018.yaml configs/overlays/mixture3.yaml name=mix3 loss.lmbda=0.0067
        jahp train configs/mbt2018.yaml 'data.train=[shards/mine]' wandb.mode=offline
        jahp train --keys""")  # fmt: skip
    p.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help="merged from left to right")
    p.add_argument("--keys", action="store_true", help="list every setting with its default, then exit")

    p = command(table, "sweep", sweep.sweep, "run all points of a W&B sweep file here, without a server", """\
        jahp sweep sweeps/ladder.yaml --list
        jahp sweep sweeps/lambda.yaml --workers 4 'data.train=[shards/mine]' trainer.max_steps=100000
        jahp sweep sweeps/mixture.yaml configs/overlays/anneal.yaml output_dir=runs/mixture-short""")  # fmt: skip
    p.add_argument("file", type=Path, metavar="FILE.yaml", help="sweep file, as for `wandb sweep`")
    p.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help="settings for all points")
    p.add_argument("--workers", type=positive, default=1, metavar="N", help="points at once, sharing the GPUs [1]")
    p.add_argument("--list", action="store_true", help="print the command of each point known so far, then exit")

    p = command(table, "evaluate", evaluate.evaluate, "code images to real files and measure", """\
        jahp evaluate --model joint-psnr --images data/kodak
        jahp evaluate --model joint-psnr --images data/kodak --quality 5 20 40 60 80 95
        jahp evaluate --model runs/quickstart --images data/kodak --beside jpeg --picture kodak.png""")  # fmt: skip
    add_model(p)
    add_images(p)
    add_output(p, "R.json", "results; the files go beside it [evaluation/IMAGES-MODEL.json]", required=False)
    add_effort(p, 0, "0")
    p.add_argument("--beside", choices=("jpeg", "jpeg444"), help="compare with this codec at no fewer bytes per image")
    p.add_argument("--picture", type=Path, metavar="P.png", help="picture of originals and reconstructions")
    p.add_argument(
        "--quality", type=float, nargs="+", metavar="Q", help="of a variable-rate model; several qualities give a curve"
    )
    p.add_argument("--curve", metavar="NAME", help="curve to which `jahp report` adds the result [named by the model]")

    p = command(table, "classical", evaluate.classical, "code images with JPEG, AVIF, ... at many qualities", """\
        jahp classical --codec jpeg jpeg2000 webp avif --images data/kodak -o classical.json
        jahp classical --codec hevc444 jxl vvc --images data/kodak -o modern.json""")  # fmt: skip
    p.add_argument("--codec", nargs="+", required=True, choices=CLASSICAL, metavar="NAME", help=", ".join(CLASSICAL))
    add_images(p)
    add_output(p, "R.json", "results; existing points are kept")
    add_force(p, "measure them again; the old ones stay until all are done")
    p.add_argument("--threads", type=positive, default=1, metavar="N", help="for MS-SSIM; codecs use one [1]")

    p = command(table, "report", evaluate.report, "results -> plots, BD-rates, a page; or training curves", """\
        jahp report results/classical results/published/mbt2018-tfc-mse.json -o report --anchor jpeg
        jahp report results/study results/classical -o report --anchor jpeg2000 \\
            --images data/kodak --model runs/joint runs/factorized
        jahp report runs/mbt2018""")  # fmt: skip
    p.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="R.json",
        help="results of evaluate or classical, folders of them, or run folders",
    )
    add_output(p, "DIR", "folder for report.html, bd-rates.md and plots, or for training.png", required=False)
    p.add_argument("--anchor", metavar="NAME", help="curve to compare with, or part of its name [first]")
    p.add_argument("--images", type=Path, metavar="DIR", help="originals; shows pictures at equal rate")
    p.add_argument("--model", nargs="+", default=[], metavar="M", help="models that decode the pictures")
    p.add_argument("--show", nargs="+", default=[], metavar="NAME", help="images to show [two, chosen by rate]")
    p.add_argument("--rate", type=float, default=0.25, metavar="BPP", help="mean rate of the pictures [0.25]")
    add_import(p)
    p.add_argument("--title", default="Rate-distortion report", help="title of the page")

    p = command(table, "compress", compress.compress, "images -> .jahp", """\
        jahp compress photo.png
        jahp compress photo.png --quality 80
        jahp compress photo.png --size 50k
        jahp compress *.jpg scans/ -o compressed/ --bpp 0.5 --verify
        jahp compress - < photo.png > photo.jahp
        jahp compress photo.png --model runs/quickstart""")  # fmt: skip
    add_files(p, "images, folders of them, or - for standard input", "the bundled one")
    add_target(p)
    add_effort(p, None, "1; 0 for a model that does not state its lambda")
    p.add_argument("--flatten", action="store_true", help="put transparent pixels on white instead of refusing them")
    p.add_argument("--srgb", action="store_true", help="convert colours to sRGB instead of keeping their ICC profile")
    p.add_argument("--verify", action="store_true", help="decode and compare every file before it is written")

    p = command(table, "decompress", compress.decompress, ".jahp -> PNG, or the format of the output's suffix", """\
        jahp decompress photo.jahp
        jahp decompress photo.jahp -o photo.webp
        jahp decompress compressed/ -o restored/
        jahp decompress photo.jahp --model runs/quickstart""")  # fmt: skip
    add_files(
        p,
        ".jahp files, folders of them, or - for standard input",
        "the bundled one that made the file",
        "IN.decoded.png",
    )
    p.add_argument("--max-pixels", type=positive, metavar="N", help="largest image to accept [33554432]")
    p.add_argument("--max-seconds", type=positive, metavar="S", help="longest time to accept for a file [any]")

    add_benches(table)

    p = command(table, "info", models.info, "describe .jahp files and models, or list the bundled models", """\
        jahp info
        jahp info joint-psnr
        jahp info photo.jahp
        jahp info runs/quickstart models/
        jahp info compressed/*.jahp""")  # fmt: skip
    add_runtime(p)
    p.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="files, - for standard input, models, or folders that contain any [the bundled models]",
    )

    add_import(p)

    p = command(table, "export", models.export, "a trained model -> a folder to keep and to share", """\
        jahp export runs/mbt2018 -o models/mbt2018
        jahp export runs/mbt2018 --dtype bfloat16 -o models/half
        jahp export models/half --results evaluation/kodak.json -o models/half --force""")  # fmt: skip
    p.add_argument("model", metavar="M", help=MODEL)
    add_out(p)
    add_import(p)
    p.add_argument("--dtype", choices=DTYPES, help="of the weights; the last two are smaller [float32, or unchanged]")
    p.add_argument("--results", type=Path, metavar="R.json", help="results of this model to include")
    p.add_argument("--note", metavar="TEXT", help="sentence about the training for the model card")

    p = command(table, "graphs", models.graphs, "a model's networks -> ONNX and torch.export graphs", """\
        jahp graphs models/mbt2018 -o graphs/mbt2018""")  # fmt: skip
    p.add_argument("model", metavar="M", help=MODEL)
    add_out(p)
    add_import(p)

    p = command(table, "import-compressai", models.import_compressai, "CompressAI's weights -> an export", """\
        jahp import-compressai mbt2018.pth.tar -o models/mbt2018
        jahp compress photo.png --model models/mbt2018""")  # fmt: skip
    p.add_argument("checkpoint", type=Path, metavar="CKPT", help="file written by torch.save")
    add_out(p)
    return parser
