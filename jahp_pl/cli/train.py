"""`jahp shards` and `jahp train`: from photographs to a trained model. Heavy imports happen inside the functions."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterable
from typing import Any

from jahp_pl.cli import output
from jahp_pl.cli.errors import errors_from_rank_zero
from jahp_pl.cli.options import add_force, add_output, command, local_path, part, positive
from jahp_pl.text import count_of


def shards(arguments: argparse.Namespace) -> None:
    """Pack photographs into shards."""
    from jahp_pl.data.index import DataError, count_by_reason
    from jahp_pl.data.prepare import ShardOptions
    from jahp_pl.data.shards import write_shards

    options = ShardOptions(
        min_side=arguments.min_side, max_side=arguments.max_side, max_pixels=arguments.max_pixels,
        tile=arguments.tile, quality=arguments.quality,
        shard_samples=arguments.shard_samples, seed=arguments.seed, shuffle=not arguments.in_order,
        part=arguments.part[0], num_parts=arguments.part[1],
    )  # fmt: skip
    with output.bar(unit=" photos", desc="shards") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        try:
            report = write_shards(
                arguments.sources, arguments.output, options, overwrite=arguments.force, progress=progress
            )
        except DataError as error:
            raise DataError(_with_options(str(error), vars(arguments))) from None
    number = report.num_samples
    samples = count_of(number, "photograph") if arguments.tile is None else f"{number} photographs and tiles"
    output.say(
        f"{arguments.output}: {samples} ({report.num_pixels / 1e6:.0f} megapixels) in "
        f"{count_of(report.num_shards, 'shard')}, {report.num_bytes / 1e6:.1f} MB; {report.num_as_is} stored unchanged"
    )
    if report.skipped:
        counts = ", ".join(f"{count} {reason}" for reason, count in count_by_reason(report.skipped).items() if count)
        output.say(f"skipped {counts}; all are listed in {arguments.output / 'index.json'}, the first:")
        for skipped in report.skipped[:5]:
            output.say(f"  {skipped.name}: {skipped.detail}")


def _with_options(message: str, names: Iterable[str]) -> str:
    """Replace the library's arguments in a message by options, e.g. `min_side=256` by `--min-side 256`."""
    for name in names:
        message = re.sub(rf"(?<![\w./=-]){name}=(?=-?\d)", f"--{name.replace('_', '-')} ", message)
    return message


def train(arguments: argparse.Namespace) -> None:
    """Train a model, or list the settings."""
    from jahp_pl.settings import all_keys, load_config

    if arguments.keys:
        for key, meaning in all_keys().items():
            output.say(f"{key}\n    {meaning}")
        return
    with errors_from_rank_zero():
        config = load_config(*arguments.settings)
        from jahp_pl.training import is_first_rank
        from jahp_pl.training.run import train as run_training

        result = run_training(config, show_progress=not arguments.quiet)
    if not is_first_rank():
        return
    if result.was_finished:
        output.say(
            f"nothing was left to do: {result.run_dir} is complete after {count_of(result.steps, 'step')}; raise "
            "trainer.max_steps or trainer.max_time to continue"
        )
    else:
        imports = "".join(f" --import {shlex.quote(module)}" for module in config.imports)
        following = f"jahp evaluate --model {shlex.quote(str(result.run_dir))} --images data/kodak{imports}"
        output.say(f"trained: {result.run_dir}  (next: {following})")


def add_shards(subparsers: Any) -> None:
    """Add the command `shards`."""
    p = command(subparsers, "shards", shards, "pack photographs into shards (tar files) to train on", """\
        jahp shards ~/photos more/*.tif -o shards/mine
        jahp shards ~/photos --tile 1024 --quality 95 --part 3/16 -o shards/mine-03
        jahp shards old-shards/*.tar -o shards/mine --overwrite""")  # fmt: skip
    p.add_argument(
        "sources", nargs="+", type=local_path, metavar="SRC", help="folders, image files, or tar files of images"
    )
    add_output(p, "DIR", "folder to create, for shard-*.tar and index.json")
    add_force(p, "replace an existing folder of shards", "--overwrite")
    p.add_argument("--min-side", type=int, default=256, metavar="PX", help="skip photographs with a shorter side [256]")
    p.add_argument("--max-side", type=int, metavar="PX", help="scale photographs with a longer side down to it")
    p.add_argument(
        "--max-pixels", type=positive, default=2**26, metavar="N", help="skip photographs with more pixels [67108864]"
    )
    p.add_argument(
        "--tile", type=int, metavar="PX", help="cut photographs of more than 2 x PX x PX pixels into tiles of PX x PX"
    )
    p.add_argument(
        "--quality",
        type=int,
        metavar="Q",
        help="JPEG quality for photographs that cannot be stored unchanged [lossless WebP]",
    )
    p.add_argument("--shard-samples", type=int, default=500, metavar="N", help="photographs per shard [500]")
    p.add_argument("--part", type=part, default=(1, 1), metavar="I/N", help="pack only part I of N [1/1]")
    p.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the order of photographs [0]")
    p.add_argument("--in-order", action="store_true", help="order photographs by name, for validation sets")


def add_train(subparsers: Any) -> None:
    """Add the command `train`."""
    p = command(subparsers, "train", train, "train a model, or resume its training", """\
        jahp train configs/quickstart.yaml
        jahp train configs/mbt2018.yaml configs/overlays/mixture3.yaml name=mix3 loss.lmbda=0.0067
        jahp train configs/mbt2018.yaml 'data.train=[shards/mine]' wandb.mode=offline
        jahp train --keys""")  # fmt: skip
    p.add_argument(
        "settings",
        nargs="*",
        metavar="CONFIG.yaml|key=value",
        help="settings; later ones replace earlier ones, and pairs replace files. The same command resumes an "
        "interrupted run",
    )
    p.add_argument("--keys", action="store_true", help="list every setting with its default, then exit")
