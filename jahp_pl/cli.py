"""The command line: what can be asked for, and how errors are told. `commands` and `coding` do it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jahp_pl import benching, coding, commands, console, reporting, sweep

EXAMPLES = """\
examples:
  jahp shards ~/photos --out shards/mine
  jahp train configs/mbt2018.yaml 'data.train=[shards/mine]' loss.lmbda=0.0067
  jahp sweep sweeps/ladder.yaml --workers 2
  jahp evaluate --model runs/mbt2018 --images data/kodak --beside jpeg
  jahp compress photo.png --model runs/mbt2018
  jahp decompress photo.jahp --model runs/mbt2018
  jahp export runs/mbt2018 --out models/mbt2018

`jahp COMMAND --help` says more about each."""

CLASSICAL = (
    *("jpeg", "jpeg-plain", "jpeg444", "jpeg2000", "jpeg2000-53", "webp", "avif", "avif444"),
    *("hevc", "hevc444", "jxl", "vvc"),
)
"""Names of `evaluation.classical.CODECS`, here so that the parser needs not import them."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 2 input that cannot be used (one line says why), 130 interrupted, 128 + N where
    signal N stopped a training that can go on, 141 if whoever read the output went away."""
    parsed = _parse(arguments)
    try:
        parsed.run(parsed)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted", 130))
    except BrokenPipeError:
        _close_output()
        sys.exit(141)
    except Exception as error:
        if not isinstance(error, console.input_errors()):
            raise
        _close_output()
        sys.exit(_fail(str(error).strip() or type(error).__name__, 2))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Settings may stand before and behind options, which argparse alone would refuse."""
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest and (not hasattr(parsed, "settings") or any(word.startswith("-") for word in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        parsed.settings = [*parsed.settings, *rest]
    return parsed


def _close_output() -> None:
    """Write what is still to be written; where that is not possible, let it go nowhere, or else Python would try again
    when it ends, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int) -> int:
    print(f"jahp: {' '.join(message.split())}", file=sys.stderr)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jahp",
        description="Learned image compression with joint autoregressive and hierarchical priors.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    table = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    p = _command(table, "shards", commands.shards, "turn photographs into shards to train on", """\
        jahp shards ~/photos more/*.tif --out shards/mine
        jahp shards ~/photos --tile 1024 --quality 95 --part 3/16 --out shards/mine-03
        jahp shards old-shards/*.tar --out shards/mine --overwrite""")  # fmt: skip
    p.add_argument("sources", nargs="+", metavar="SRC", help="folders, image files, or tar files")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for shard-*.tar and index.json")
    p.add_argument("--overwrite", action="store_true", help="replace an existing folder of shards")
    p.add_argument("--min-side", type=int, default=256, metavar="PX", help="skip photographs with a shorter side [256]")
    p.add_argument("--max-side", type=int, metavar="PX", help="scale larger photographs down to this side")
    p.add_argument("--tile", type=int, metavar="PX", help="cut photographs of over 2 PX x PX pixels into such tiles")
    p.add_argument(
        "--quality", type=int, metavar="Q", help="store as JPEG of this quality where not lossless [lossless]"
    )
    p.add_argument("--shard-samples", type=int, default=500, metavar="N", help="photographs per shard [500]")
    p.add_argument("--part", type=_part, default=(1, 1), metavar="I/N", help="only the I-th of N parts, one a machine")
    p.add_argument("--seed", type=int, default=0, help="of the order [0]")
    p.add_argument("--in-order", action="store_true", help="keep the order of names, for validation sets")

    p = _command(table, "train", commands.train, "train, resume, validate with real files", """\
        jahp train configs/quickstart.yaml
        jahp train configs/mbt2018.yaml configs/overlays/mixture3.yaml name=mix3 loss.lmbda=0.0067
        jahp train configs/mbt2018.yaml 'data.train=[shards/mine]' wandb.mode=offline
        jahp train --keys""")  # fmt: skip
    p.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help="merged from left to right")
    p.add_argument("--keys", action="store_true", help="list every setting with its default, then exit")

    p = _command(table, "sweep", sweep.sweep, "run all points of a W&B sweep file here, without a server", """\
        jahp sweep sweeps/ladder.yaml --list
        jahp sweep sweeps/lambda.yaml --workers 4 'data.train=[shards/mine]' trainer.max_steps=100000
        jahp sweep sweeps/mixture.yaml configs/overlays/anneal.yaml output_dir=runs/mixture-short""")  # fmt: skip
    p.add_argument("file", type=Path, metavar="FILE.yaml", help="as for `wandb sweep`")
    p.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help="for all points, over the file's")
    p.add_argument("--workers", type=_positive, default=1, metavar="N", help="points at a time, sharing the GPUs [1]")
    p.add_argument("--list", action="store_true", help="print the command of each point known so far, then exit")

    p = _command(table, "evaluate", commands.evaluate, "code images to real files and measure", """\
        jahp evaluate --model runs/quickstart --images data/kodak
        jahp evaluate --model runs/quickstart --images data/kodak --beside jpeg --picture kodak.png""")  # fmt: skip
    _add_model(p)
    p.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of images (or one image)")
    p.add_argument("--out", type=Path, metavar="R.json", help="results; files go beside it [evaluation/IMAGES.json]")
    p.add_argument("--beside", choices=("jpeg", "jpeg444"), help="compare with this codec at no fewer bytes per image")
    p.add_argument("--picture", type=Path, metavar="P.png", help="originals beside reconstructions")
    p.add_argument("--curve", metavar="NAME", help="of the curve that `jahp report` draws through it [by the model]")
    p.add_argument("--limit", type=int, metavar="N", help="only the first N images")

    p = _command(table, "classical", reporting.classical, "code images with JPEG, AVIF, ... at many qualities", """\
        jahp classical --codec jpeg jpeg2000 webp avif --images data/kodak --out classical.json
        jahp classical --codec hevc444 jxl vvc --images data/kodak --out modern.json""")  # fmt: skip
    p.add_argument("--codec", nargs="+", required=True, choices=CLASSICAL, metavar="NAME", help=", ".join(CLASSICAL))
    p.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of images (or one image)")
    p.add_argument("--out", type=Path, required=True, metavar="R.json", help="results; points in it are not done again")
    p.add_argument("--force", action="store_true", help="do points again that are in it")
    p.add_argument("--limit", type=int, metavar="N", help="only the first N images")
    p.add_argument("--threads", type=_positive, default=1, metavar="N", help="for MS-SSIM; codecs have one [1]")

    p = _command(table, "report", reporting.report, "results -> plots, BD-rates and one page to look at", """\
        jahp report results/classical results/published/mbt2018-tfc-mse.json --out report --anchor jpeg
        jahp report results/study results/classical --out report --anchor jpeg2000 \\
            --images data/kodak --model runs/joint runs/factorized""")  # fmt: skip
    p.add_argument(
        "results", nargs="+", type=Path, metavar="R.json", help="of evaluate or classical; or folders of them"
    )
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for report.html, bd-rates.md, plots")
    p.add_argument("--anchor", metavar="NAME", help="curve that others are compared with, or part of its name [first]")
    p.add_argument("--images", type=Path, metavar="DIR", help="originals: show pictures at equal rate")
    p.add_argument("--model", nargs="+", type=Path, default=[], metavar="M", help="models that decode pictures to show")
    p.add_argument("--show", nargs="+", default=[], metavar="NAME", help="images to show [two, chosen by their rate]")
    p.add_argument("--rate", type=float, default=0.25, metavar="BPP", help="mean rate to show pictures at [0.25]")
    p.add_argument("--title", default="Rate-distortion report", help="of the page")

    p = _command(table, "compress", coding.compress, "images -> .jahp", """\
        jahp compress photo.png --model runs/quickstart
        jahp compress *.jpg scans/ -o compressed/ --model runs/quickstart --verify
        jahp compress - < photo.png > photo.jahp --model runs/quickstart""")  # fmt: skip
    _add_files(p, "images, folders of them, or - for standard input")
    p.add_argument("--flatten", action="store_true", help="put transparent pixels on white instead of refusing them")
    p.add_argument("--srgb", action="store_true", help="convert colours to sRGB instead of keeping their ICC profile")
    p.add_argument("--verify", action="store_true", help="decode every file before it is written, and compare")

    p = _command(table, "decompress", coding.decompress, ".jahp -> PNG, or what the output's suffix says", """\
        jahp decompress photo.jahp --model runs/quickstart
        jahp decompress photo.jahp -o photo.webp --model runs/quickstart
        jahp decompress compressed/ -o restored/ --model runs/quickstart""")  # fmt: skip
    _add_files(p, ".jahp files, folders of them, or - for standard input")
    p.add_argument("--max-pixels", type=_positive, metavar="N", help="largest image to accept [134217728]")

    benches = _group(table, "bench", "measure the speed of coding, training, or reading data")

    p = _command(benches, "coding", benching.coding, "time coding, stage by stage, beside the transforms alone", """\
        jahp bench coding --model runs/quickstart --images data/kodak --limit 4
        jahp bench coding --model models/full models/full-mix3 --images data/kodak --out bench.json""")  # fmt: skip
    p.add_argument(
        "--model", nargs="+", type=Path, required=True, metavar="M", help="exports, run folders, checkpoints"
    )
    p.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of images (or one image)")
    p.add_argument("--limit", type=_positive, metavar="N", help="only the first N images")
    p.add_argument("--rounds", type=_positive, default=5, metavar="N", help="of which the median counts [5]")
    p.add_argument("--out", type=Path, metavar="R.json", help="results")
    p.add_argument(
        "--peer",
        metavar="COMMAND",
        help="another program to time with the weights of the first model",
    )
    _add_machine(p)

    p = _command(benches, "train", benching.train, "time training steps, beside the machine's matrix products", """\
        jahp bench train configs/quickstart.yaml
        jahp bench train configs/mbt2018.yaml --variant trainer.channels_last=true
        jahp bench train configs/mbt2018.yaml --variant 'trainer.channels_last=true optim.ema_decay=0'""")  # fmt: skip
    p.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help="as for `jahp train`")
    p.add_argument(
        "--variant", action="append", default=[], metavar="'KEY=VALUE ...'", help="time it with these as well; again"
    )
    p.add_argument("--steps", type=_positive, default=5, metavar="N", help="of each in each round [5]")
    p.add_argument("--rounds", type=_positive, default=5, metavar="N", help="of which the median counts [5]")
    p.add_argument("--threads", type=_positive, metavar="N", help="of the processor [one per core]")
    p.add_argument("--out", type=Path, metavar="R.json", help="results")
    p.add_argument("--peer", metavar="COMMAND", help="another program whose steps to time")

    p = _command(benches, "data", benching.data, "crops per second from shards and from files", """\
        jahp bench data configs/mbt2018.yaml --images data/photos/train
        jahp bench data data.crops_per_photo=8 --images ~/photos --out bench-data.json""")  # fmt: skip
    p.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help="crops, batches, workers; data.train")
    p.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of photographs to make shards of")
    p.add_argument("--batches", type=_positive, default=25, metavar="N", help="timed at a time [25]")
    p.add_argument("--rounds", type=_positive, default=5, metavar="N", help="of which the median counts [5]")
    p.add_argument("--out", type=Path, metavar="R.json", help="results")

    p = _command(table, "info", commands.info, "what is inside .jahp files, exports and checkpoints", """\
        jahp info photo.jahp
        jahp info runs/quickstart models/
        jahp info compressed/*.jahp""")  # fmt: skip
    p.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files, or folders with any of them below")

    p = _command(table, "export", commands.export, "a trained model -> a folder to keep and to give away", """\
        jahp export runs/mbt2018 --out models/mbt2018""")  # fmt: skip
    p.add_argument("checkpoint", type=Path, metavar="CKPT", help="run folder or checkpoint")
    _add_out(p)

    p = _command(table, "graphs", commands.graphs, "a model's networks -> ONNX and torch.export graphs", """\
        jahp graphs models/mbt2018 --out graphs/mbt2018""")  # fmt: skip
    p.add_argument("model", type=Path, metavar="M", help="export, run folder or checkpoint")
    _add_out(p)

    p = _command(table, "import-compressai", commands.import_compressai, "CompressAI's weights -> such a folder", """\
        jahp import-compressai mbt2018.pth.tar --out models/mbt2018
        jahp compress photo.png --model models/mbt2018""")  # fmt: skip
    p.add_argument("checkpoint", type=Path, metavar="CKPT", help="file that torch.save wrote")
    _add_out(p)
    return parser


def _group(table: Any, name: str, title: str) -> Any:
    """A command with commands of its own."""
    parser = table.add_parser(name, help=title, description=title[0].upper() + title[1:] + ".")
    return parser.add_subparsers(title="commands", metavar="WHAT", required=True)


def _command(
    table: Any, name: str, run: Callable[[argparse.Namespace], None], title: str, examples: str
) -> argparse.ArgumentParser:
    lines = "\n".join(f"  {line.strip()}" for line in examples.splitlines())
    parser: argparse.ArgumentParser = table.add_parser(
        name,
        help=title,
        description=title[0].upper() + title[1:] + ".",
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, metavar="M", help="export, run folder or checkpoint")
    _add_machine(parser)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="where the networks run [cpu]")
    parser.add_argument("--threads", type=_positive, metavar="N", help="of the processor [one per core]")
    parser.add_argument(
        "--precision", choices=("float32", "bfloat16"), default="float32", help="of the transforms [float32]"
    )
    parser.add_argument(
        "--memory", type=_positive, default=1024, metavar="MIB", help="for the transforms; limits their tiles [1024]"
    )


def _add_files(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IN", help=what)
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT", help="a file, a folder for several, or - [beside the inputs]"
    )
    parser.add_argument(
        "--force", action="store_true", help="overwrite outputs that exist; without it, what is done in a folder stays"
    )
    _add_model(parser)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to be made")
    parser.add_argument("--force", action="store_true", help="replace an export that is there")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number from 1")
    return int(text)


def _part(text: str) -> tuple[int, int]:
    part, _, count = text.partition("/")
    if not (part.isdecimal() and count.isdecimal() and 1 <= int(part) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text}: must read I/N with I from 1 to N, e.g. 3/16")
    return int(part), int(count)
