"""`jahp bench`: options and implementation. Heavy imports happen inside the functions."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from jahp_pl.cli import output
from jahp_pl.cli.codecs import open_codec
from jahp_pl.cli.options import (
    MODEL,
    add_images,
    add_limit,
    add_machine,
    add_output,
    command,
    group,
    local_path,
    num_threads,
    positive,
)
from jahp_pl.model_io.runtimes import RUNTIMES
from jahp_pl.text import count_of


def bench_coding(arguments: argparse.Namespace) -> None:
    """Time the stages of coding; compare them with the transforms."""
    from jahp_pl.bench.coding import average, coding_table, coding_to_json, measure_coding, measure_peer
    from jahp_pl.evaluation.image_set import find_images
    from jahp_pl.measurement.provenance import provenance

    images = find_images(arguments.images)[: arguments.limit]
    origin = provenance(["jahp", *sys.argv[1:]])
    speeds: dict[str, Any] = {}
    total = len(images) * len(arguments.model)
    with output.bar(total=total, unit=" images", desc="bench coding") as bar:
        for number, model in enumerate(arguments.model):
            codec = open_codec(arguments, model)
            measured = []
            for image in measure_coding(codec, images, arguments.rounds):
                measured.append(image)
                bar.update()
            peer = None
            if arguments.peer is not None and number == 0:
                peer = measure_peer(arguments.peer, codec, images, arguments.rounds)
            speed = average(measured, arguments.rounds, peer)
            with bar.external_write_mode():
                output.say(coding_table(Path(model).name, speed))
            speeds[Path(model).name] = coding_to_json(speed) | {"model": vars(codec.model.config)}
    _save(origin | {"precision": arguments.precision, "models": speeds}, arguments.output)


def bench_train(arguments: argparse.Namespace) -> None:
    """Time training steps."""
    import torch

    from jahp_pl.bench.training import measure_training, training_table, training_to_json
    from jahp_pl.measurement.provenance import provenance
    from jahp_pl.settings import load_config

    origin = provenance(["jahp", *sys.argv[1:]])
    name = load_config(*arguments.settings).name
    threads = arguments.threads or torch.get_num_threads()
    num_ours = 1 + len(arguments.variant)
    total = arguments.rounds * (num_ours + (arguments.peer is not None)) + num_ours  # ours are profiled at the end
    with output.bar(total=total, unit=" measurements", desc="bench train") as bar:

        def progress(what: str) -> None:
            bar.set_postfix_str(what)
            bar.update()

        speeds = measure_training(
            arguments.settings, arguments.variant, arguments.peer, threads, arguments.steps, arguments.rounds, progress
        )
    output.say(training_table(name, speeds))
    _save(origin | {name: training_to_json(speeds)}, arguments.output)


def bench_data(arguments: argparse.Namespace) -> None:
    """Measure crops per second from shards and from image files."""
    import tempfile
    from dataclasses import asdict

    import torch

    from jahp_pl.bench.data import UTILIZATION, loading_table, make_cases, measure_loading, required_speed
    from jahp_pl.evaluation.image_set import find_images
    from jahp_pl.measurement.provenance import provenance
    from jahp_pl.settings import load_config

    config, images = load_config(*arguments.settings), find_images(arguments.images)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        cases = make_cases(config.data, images, Path(folder))
        rounds = measure_loading(cases, config.data, arguments.batches, arguments.rounds)
        rows = list(output.bar(rounds, total=arguments.rounds, desc="bench data"))[-1]
    required, fastest = required_speed(config), max(rows, key=lambda row: row.per_core)
    output.say(
        f"crops of {config.data.crop_size}, {config.data.crops_per_photo} per photograph, batches of "
        f"{config.data.batch_size}, {count_of(config.data.num_workers, 'worker')}, median of "
        f"{count_of(arguments.rounds, 'round')}"
    )
    output.say(loading_table(rows))
    output.say(
        f"an H200 at {UTILIZATION:.0%} of its bfloat16 peak needs {required.crops_per_second:.0f} crops per second of "
        f"{required.flops_per_crop / 1e9:.0f} GFLOP each; 16 such cores give {16 * fastest.per_core:.0f} "
        f"({fastest.name})"
    )
    measured = {
        "data": asdict(config.data), "rounds": arguments.rounds, "batches": arguments.batches,
        "rows": [row._asdict() for row in rows], "h200": required._asdict() | {"utilization": UTILIZATION},
    }  # fmt: skip
    _save(provenance(["jahp", *sys.argv[1:]]) | measured, arguments.output)


def bench_runtimes(arguments: argparse.Namespace) -> None:
    """Measure cold start, steady state and memory of each runtime."""
    from jahp_pl.bench.runtimes import compress_in_process, measure_runtime, runtime_table
    from jahp_pl.measurement.provenance import provenance
    from jahp_pl.model_io.pretrained import locate_model

    model = locate_model(arguments.model)
    data = compress_in_process(arguments.image, str(model))
    costs = {name: measure_runtime(name, str(model), data, arguments.threads, arguments.rounds) for name in RUNTIMES}
    output.say(runtime_table(costs))
    measured = {"image": arguments.image.name, "bytes": len(data), "model": model.name, "threads": arguments.threads}
    measured |= {"rounds": arguments.rounds, "runtimes": {name: cost._asdict() for name, cost in costs.items()}}
    _save(provenance(["jahp", *sys.argv[1:]]) | measured, arguments.output)


def _save(results: dict[str, Any], out: Path | None) -> None:
    from jahp_pl.files.atomic import write_json

    if out is not None:
        write_json(out, results, indent=2)
        output.say(f"\nresults  {out}")


def add_bench(subparsers: Any) -> None:
    """Add `bench` and its subcommands."""
    subparsers = group(subparsers, "bench", "measure the speed of coding, training, data loading or the runtimes")
    _add_coding(subparsers)
    _add_train(subparsers)
    _add_data(subparsers)
    _add_runtimes(subparsers)


def _add_coding(subparsers: Any) -> None:
    p = command(subparsers, "coding", bench_coding, "time the stages of coding; compare them with the transforms", """\
        jahp bench coding --model joint-psnr --images data/kodak --limit 4
        jahp bench coding --model models/full models/full-mix3 --images data/kodak -o bench.json""")  # fmt: skip
    p.add_argument(
        "--model", nargs="+", action="extend", required=True, metavar="M", help=f"one or more models: {MODEL}"
    )
    add_images(p)
    add_limit(p)
    _add_rounds_and_output(p)
    p.add_argument(
        "--peer",
        metavar="COMMAND",
        help="another program to time with the weights of the first model: a command that takes WEIGHTS ROUNDS "
        "THREADS IMAGE... and prints JSON, see jahp_pl/bench/coding.py",
    )
    add_machine(p)


def _add_train(subparsers: Any) -> None:
    p = command(subparsers, "train", bench_train, "time training steps; compare them with matrix products", """\
        jahp bench train configs/quickstart.yaml
        jahp bench train configs/mbt2018.yaml --variant trainer.channels_last=true
        jahp bench train configs/mbt2018.yaml --variant 'trainer.channels_last=true optim.ema_decay=0'""")  # fmt: skip
    _add_settings(p, "as for `jahp train`")
    p.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="'KEY=VALUE ...'",
        help="also time training with these settings changed; may be repeated",
    )
    p.add_argument(
        "--steps", type=positive, default=5, metavar="N", help="steps that each program takes in a round [5]"
    )
    p.add_argument("--threads", type=num_threads, metavar="N", help="CPU threads [one per core]")
    _add_rounds_and_output(p)
    p.add_argument(
        "--peer",
        metavar="COMMAND",
        help="another program whose steps to time: a command that takes BATCH CROP STEPS THREADS and prints JSON, "
        "see jahp_pl/bench/training.py",
    )


def _add_data(subparsers: Any) -> None:
    p = command(subparsers, "data", bench_data, "measure crops per second from shards and from image files", """\
        jahp bench data configs/mbt2018.yaml --images data/photos/train
        jahp bench data data.crops_per_photo=8 --images ~/photos -o bench-data.json""")  # fmt: skip
    _add_settings(p, "as for `jahp train`; crops, batches, workers and data.train matter")
    add_images(p, "photographs to load, as shards and as files, or folders of them")
    p.add_argument("--batches", type=positive, default=25, metavar="N", help="batches per measurement [25]")
    _add_rounds_and_output(p)


def _add_runtimes(subparsers: Any) -> None:
    p = command(subparsers, "runtimes", bench_runtimes, "measure the cold start, speed and memory of each runtime", """\
        jahp bench runtimes --image data/kodak/kodim23.png
        jahp bench runtimes --image data/kodak/kodim23.png --threads 4 -o runtimes.json""")  # fmt: skip
    p.add_argument("--image", type=local_path, required=True, metavar="IMAGE", help="image to compress, then decode")
    p.add_argument("--model", metavar="M", help="name of a bundled model, or an export [the default bundled model]")
    p.add_argument("--threads", type=num_threads, default=1, metavar="N", help="CPU threads [1]")
    _add_rounds_and_output(p)


def _add_settings(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the settings of a training run as positional arguments; `cli.command_line` takes them anywhere."""
    parser.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help=text)


def _add_rounds_and_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rounds", type=positive, default=5, metavar="N", help="number of rounds; the median is used [5]"
    )
    add_output(parser, "R.json", "file for the results", required=False)
