"""The command line. Heavy imports happen inside the commands, so that `jahp --help` is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jahp_pl.codec.codec import Codec

EXAMPLES = """\
examples:
  jahp shards ~/photos --out shards/mine
  jahp train configs/mbt2018.yaml 'data.train=[shards/mine]' loss.lmbda=0.0067
  jahp evaluate --model runs/mbt2018 --images data/kodak --beside jpeg
  jahp compress photo.png --model runs/mbt2018
  jahp decompress photo.jahp --model runs/mbt2018

`jahp COMMAND --help` says more about each."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit: 0 done, 2 input that cannot be used (one line says why), 130 interrupted."""
    parsed = _parser().parse_args(arguments)
    try:
        parsed.run(parsed)
    except KeyboardInterrupt:
        sys.exit(_fail("interrupted", 130))
    except Exception as error:
        if not isinstance(error, _expected_errors()):
            raise
        sys.exit(_fail(str(error).strip() or type(error).__name__, 2))


def _fail(message: str, status: int) -> int:
    print(f"jahp: {' '.join(message.split())}", file=sys.stderr)
    return status


def _expected_errors() -> tuple[type[Exception], ...]:
    """Errors about what the user gave, whose message is for the user; anything else is a bug and keeps its
    traceback."""
    from jahp_pl.checkpoint import CheckpointError
    from jahp_pl.codec.bitstream import BitstreamError
    from jahp_pl.codec.exact import FreezeError
    from jahp_pl.config import ConfigError
    from jahp_pl.data.images import ImageError
    from jahp_pl.data.index import DataError
    from jahp_pl.evaluation.images import EvaluationError

    return (BitstreamError, CheckpointError, ConfigError, DataError, EvaluationError, FreezeError, ImageError, OSError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jahp",
        description="Learned image compression with joint autoregressive and hierarchical priors.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    p = _command(commands, "shards", _shards, "turn photographs into shards to train on", """\
        jahp shards ~/photos more/*.tif --out shards/mine
        jahp shards old-shards/*.tar --out shards/mine --overwrite""")  # fmt: skip
    p.add_argument("sources", nargs="+", metavar="SRC", help="folders, image files, or tar files")
    p.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for shard-*.tar and index.json")
    p.add_argument("--overwrite", action="store_true", help="replace an existing folder of shards")
    p.add_argument("--min-side", type=int, default=256, metavar="PX", help="skip photographs with a shorter side [256]")
    p.add_argument("--max-side", type=int, metavar="PX", help="scale larger photographs down to this side")
    p.add_argument(
        "--quality", type=int, metavar="Q", help="store as JPEG of this quality where not lossless [lossless]"
    )
    p.add_argument("--shard-samples", type=int, default=500, metavar="N", help="photographs per shard [500]")
    p.add_argument("--seed", type=int, default=0, help="of the order [0]")
    p.add_argument("--in-order", action="store_true", help="keep the order of names, for validation sets")

    p = _command(commands, "train", _train, "train, resume, validate with real files", """\
        jahp train configs/quickstart.yaml
        jahp train configs/mbt2018.yaml configs/overlays/mixture3.yaml name=mix3 loss.lmbda=0.0067
        jahp train configs/mbt2018.yaml 'data.train=[shards/mine]' wandb.mode=offline
        jahp train --keys""")  # fmt: skip
    p.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help="merged from left to right")
    p.add_argument("--keys", action="store_true", help="list every setting with its default, then exit")

    p = _command(commands, "evaluate", _evaluate, "code images to real files and measure", """\
        jahp evaluate --model runs/quickstart --images data/kodak
        jahp evaluate --model runs/quickstart --images data/kodak --beside jpeg --picture kodak.png""")  # fmt: skip
    _add_model(p)
    p.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of images (or one image)")
    p.add_argument("--out", type=Path, metavar="R.json", help="results; files go beside it [evaluation/IMAGES.json]")
    p.add_argument("--beside", choices=("jpeg", "jpeg444"), help="compare with this codec at no fewer bytes per image")
    p.add_argument("--picture", type=Path, metavar="P.png", help="originals beside reconstructions")
    p.add_argument("--limit", type=int, metavar="N", help="only the first N images")

    p = _command(commands, "compress", _compress, "image -> .jahp", """\
        jahp compress photo.png --model runs/quickstart
        jahp compress *.jpg -o compressed/ --model runs/quickstart""")  # fmt: skip
    _add_files(p, "images")
    p = _command(commands, "decompress", _decompress, ".jahp -> PNG, or what the output's suffix says", """\
        jahp decompress photo.jahp --model runs/quickstart
        jahp decompress photo.jahp -o photo.webp --model runs/quickstart""")  # fmt: skip
    _add_files(p, ".jahp files")
    p = _command(commands, "info", _info, "what is inside a .jahp file or a checkpoint", """\
        jahp info photo.jahp
        jahp info runs/quickstart""")  # fmt: skip
    p.add_argument("file", type=Path)
    return parser


def _command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], None], title: str, examples: str
) -> argparse.ArgumentParser:
    lines = "\n".join(f"  {line.strip()}" for line in examples.splitlines())
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=title,
        description=title[0].upper() + title[1:] + ".",
        epilog=f"examples:\n{lines}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, required=True, metavar="M", help="run folder or checkpoint")
    parser.add_argument("--device", default="cpu", help="where the transforms run [cpu]")


def _add_files(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("inputs", nargs="+", type=Path, metavar="IN", help=what)
    parser.add_argument("-o", "--output", type=Path, metavar="OUT", help="file, or folder for several inputs")
    parser.add_argument("--force", action="store_true", help="overwrite outputs that exist")
    _add_model(parser)


def _shards(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from jahp_pl.data.index import count_by_reason
    from jahp_pl.data.shards import ShardOptions, write_shards

    options = ShardOptions(
        min_side=arguments.min_side, max_side=arguments.max_side, quality=arguments.quality,
        shard_samples=arguments.shard_samples, seed=arguments.seed, shuffle=not arguments.in_order,
    )  # fmt: skip
    with tqdm(unit=" photos", desc="shards", leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = write_shards(
            arguments.sources, arguments.out, options, overwrite=arguments.overwrite, progress=progress
        )
    print(
        f"{arguments.out}: {report.num_samples} photographs ({report.num_pixels / 1e6:.0f} megapixels) in "
        f"{report.num_shards} shards, {report.num_bytes / 1e6:.1f} MB; {report.num_as_is} stored as they were"
    )
    if report.skipped:
        counts = ", ".join(f"{count} {reason}" for reason, count in count_by_reason(report.skipped).items() if count)
        print(f"skipped {counts}; all are named in {arguments.out / 'index.json'}, the first:")
        for skipped in report.skipped[:5]:
            print(f"  {skipped.name}: {skipped.detail}")


def _train(arguments: argparse.Namespace) -> None:
    from jahp_pl.config import all_keys, load

    if arguments.keys:
        for key, meaning in all_keys().items():
            print(f"{key}\n    {meaning}")
        return
    config = load(arguments.settings)
    from jahp_pl.training.run import train

    result = train(config)
    print(f"trained: {result.run_dir}  (next: jahp evaluate --model {result.run_dir} --images data/kodak)")


def _evaluate(arguments: argparse.Namespace) -> None:
    from tqdm import tqdm

    from jahp_pl.evaluation.images import ImageResult, evaluate, find_images, save
    from jahp_pl.evaluation.table import format_table, summarise

    images = find_images(arguments.images)[: arguments.limit]
    codec = _codec(arguments)
    out: Path = arguments.out or Path("evaluation") / f"{arguments.images.resolve().stem}.json"
    files = out.with_suffix("")
    with tqdm(total=len(images), unit=" images", desc="evaluate", leave=False, disable=None) as bar:

        def progress(result: ImageResult) -> None:
            bar.set_postfix_str(f"{result.row.name} {result.row.file_psnr:.2f} dB")
            bar.update()

        evaluation = evaluate(codec, images, files, arguments.beside, progress)
    save(evaluation, out)
    print(format_table(evaluation), summarise(evaluation), sep="\n\n")
    print(f"\nfiles    {files}/*.jahp\nresults  {out}")
    if arguments.picture is not None:
        from jahp_pl.evaluation.picture import draw_evaluation

        draw_evaluation(evaluation, images, files, codec, arguments.beside, arguments.picture)
        print(f"picture  {arguments.picture}")


def _compress(arguments: argparse.Namespace) -> None:
    from jahp_pl.data.images import decode_rgb
    from jahp_pl.files import write_atomically

    outputs = _outputs(arguments, ".jahp")
    codec = _codec(arguments)
    for source, target in zip(arguments.inputs, outputs, strict=True):
        rgb = decode_rgb(source)
        data = codec.compress(rgb)
        write_atomically(target, data)
        print(f"{source} -> {target}: {len(data)} bytes, {8 * len(data) / (rgb.shape[0] * rgb.shape[1]):.4f} bpp")


def _decompress(arguments: argparse.Namespace) -> None:
    from jahp_pl.data.images import save_rgb

    outputs = _outputs(arguments, ".png")
    codec = _codec(arguments)
    for source, target in zip(arguments.inputs, outputs, strict=True):
        image = codec.decompress(source.read_bytes())
        save_rgb(image.permute(1, 2, 0).numpy(), target)
        print(f"{source} -> {target}: {image.shape[2]} x {image.shape[1]}")


def _info(arguments: argparse.Namespace) -> None:
    if arguments.file.is_file() and arguments.file.suffix == ".jahp":
        from jahp_pl.codec.bitstream import unpack

        data = arguments.file.read_bytes()
        header, payload = unpack(data)
        rows = {
            "image": f"{header.width} x {header.height} pixels",
            "size": f"{len(data)} bytes, {8 * len(data) / (header.width * header.height):.4f} bits per pixel",
            "header": f"{len(data) - len(payload)} bytes",
            "made by model": header.fingerprint.hex(),
            "latents": f"from {header.latent_min} to {header.latent_max}",
        }
    else:
        import dataclasses

        from jahp_pl.checkpoint import find_checkpoint, load_model
        from jahp_pl.codec.codec import Codec

        checkpoint = find_checkpoint(arguments.file)
        codec = Codec(load_model(checkpoint))
        config = dataclasses.asdict(codec.model.config)
        rows = {"checkpoint": str(checkpoint), "fingerprint": codec.fingerprint.hex()}
        rows["parameters"] = f"{sum(p.numel() for p in codec.model.parameters()):,}"
        rows |= {key: str(value) for key, value in config.items()}
    for name, value in rows.items():
        print(f"{name:15} {value}")


def _codec(arguments: argparse.Namespace) -> Codec:
    from jahp_pl.checkpoint import find_checkpoint, load_model
    from jahp_pl.codec.codec import Codec

    return Codec(load_model(find_checkpoint(arguments.model)).to(arguments.device))


def _outputs(arguments: argparse.Namespace, suffix: str) -> list[Path]:
    """Where each input goes: -o FILE for one, -o FOLDER for many, beside the input without -o.

    Raises:
        FileNotFoundError, FileExistsError, FileExistsError: before anything is written.
    """
    inputs, output = arguments.inputs, arguments.output
    if output is not None and len(inputs) == 1 and not output.is_dir() and output.suffix:
        targets = [output]
    else:
        targets = [(output or source.parent) / f"{source.stem}{suffix}" for source in inputs]
    for source, target in zip(inputs, targets, strict=True):
        if not source.is_file():
            raise FileNotFoundError(f"{source}: no such file")
        if target.exists() and not arguments.force:
            raise FileExistsError(f"{target}: exists; --force overwrites it")
    if len(set(targets)) < len(targets):
        raise FileExistsError("two inputs would be written to one output; rename one or give them folders of their own")
    return targets
