"""What each command but compress and decompress does with its parsed arguments. Heavy imports happen inside, so that
`jahp --help` is instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jahp_pl import console
from jahp_pl.batch import BatchError, Failure
from jahp_pl.bundled import NONE, bundled, locate, of_quality


def shards(arguments: argparse.Namespace) -> None:
    """Photographs -> shards."""
    from tqdm import tqdm

    from jahp_pl.data.index import count_by_reason
    from jahp_pl.data.preparing import ShardOptions
    from jahp_pl.data.shards import write_shards

    options = ShardOptions(
        min_side=arguments.min_side, max_side=arguments.max_side, tile=arguments.tile, quality=arguments.quality,
        shard_samples=arguments.shard_samples, seed=arguments.seed, shuffle=not arguments.in_order,
        part=arguments.part[0], num_parts=arguments.part[1],
    )  # fmt: skip
    with tqdm(unit=" photos", desc="shards", leave=False, disable=None) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = write_shards(
            arguments.sources, arguments.out, options, overwrite=arguments.overwrite, progress=progress
        )
    kind = "photographs" if arguments.tile is None else "photographs and tiles"
    print(
        f"{arguments.out}: {report.num_samples} {kind} ({report.num_pixels / 1e6:.0f} megapixels) in "
        f"{report.num_shards} shards, {report.num_bytes / 1e6:.1f} MB; {report.num_as_is} stored as they were"
    )
    if report.skipped:
        counts = ", ".join(f"{count} {reason}" for reason, count in count_by_reason(report.skipped).items() if count)
        print(f"skipped {counts}; all are named in {arguments.out / 'index.json'}, the first:")
        for skipped in report.skipped[:5]:
            print(f"  {skipped.name}: {skipped.detail}")


def train(arguments: argparse.Namespace) -> None:
    """Train, or list the settings."""
    from jahp_pl.settings import all_keys, load

    if arguments.keys:
        for key, meaning in all_keys().items():
            print(f"{key}\n    {meaning}")
        return
    with console.one_voice():
        config = load(arguments.settings)
        from jahp_pl.training import is_first_rank
        from jahp_pl.training.run import train as run_training

        result = run_training(config)
    if is_first_rank():
        print(f"trained: {result.run_dir}  (next: jahp evaluate --model {result.run_dir} --images data/kodak)")


def evaluate(arguments: argparse.Namespace) -> None:
    """A model on a folder of images."""
    from tqdm import tqdm

    from jahp_pl.evaluation.images import ImageResult, find_images, plan, save
    from jahp_pl.evaluation.images import evaluate as evaluate_images
    from jahp_pl.evaluation.provenance import command_line
    from jahp_pl.evaluation.table import format_table, summarise

    images = find_images(arguments.images)[: arguments.limit]
    codec = console.open_codec(arguments)
    out: Path = arguments.out or Path("evaluation") / f"{arguments.images.resolve().stem}.json"
    files = out.with_suffix("")
    root: Path = arguments.images if arguments.images.is_dir() else arguments.images.parent
    with tqdm(total=len(images), unit=" images", desc="evaluate", leave=False, disable=None) as bar:

        def progress(result: ImageResult) -> None:
            bar.set_postfix_str(f"{result.row.name} {result.row.file_psnr:.2f} dB")
            bar.update()

        evaluation = evaluate_images(codec, plan(images, root, files), arguments.beside, progress)
    evaluation.provenance["training"] = _training(arguments.model)
    evaluation.provenance["command"] = command_line(["jahp", *sys.argv[1:]])
    if arguments.curve is not None:
        evaluation.provenance["curve"] = arguments.curve
    save(evaluation, out)
    print(format_table(evaluation), summarise(evaluation), sep="\n\n")
    print(f"\nfiles    {files}/\nresults  {out}")
    if arguments.picture is not None:
        from jahp_pl.evaluation.picture import draw_evaluation

        draw_evaluation(evaluation, codec, arguments.beside, arguments.picture)
        print(f"picture  {arguments.picture}")


def _training(model: str) -> dict[str, Any]:
    from jahp_pl.checkpoint import find_checkpoint
    from jahp_pl.export import training_facts
    from jahp_pl.exported import is_export, read_config

    path = locate(model)
    facts: dict[str, Any] = read_config(path)["facts"] if is_export(path) else training_facts(find_checkpoint(path))
    return facts


def info(arguments: argparse.Namespace) -> None:
    """What files and models are; or which models are bundled."""
    if not arguments.paths:
        print(*_bundled_table(), sep="\n")
        return
    things = [thing for name in arguments.paths for thing in _things(name)]
    failures = []
    for number, path in enumerate(things):
        try:
            rows = _describe_file(path) if path.suffix == ".jahp" else _describe_model(path)
        except console.input_errors() as error:
            if len(things) == 1:
                raise
            failures.append(Failure(path, str(error)))
            continue
        if len(things) > 1:
            print(f"{'' if number == 0 else chr(10)}{path}")
        for name, value in rows.items():
            print(f"{name:15} {value}")
    console.tell_failures("info", failures, len(things))


def export(arguments: argparse.Namespace) -> None:
    """A trained model -> a folder."""
    from jahp_pl.export import export_from

    source = locate(arguments.model)
    codec = export_from(source, arguments.out, arguments.force, arguments.dtype, arguments.results)
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(f"{source} -> {arguments.out}: model {codec.fingerprint.hex()}, {size / 1e6:.2f} MB")


def graphs(arguments: argparse.Namespace) -> None:
    """The networks of a model -> graphs for other runtimes."""
    from jahp_pl.export import load_codec
    from jahp_pl.graphs import write_graphs

    codec = load_codec(arguments.model)
    names = write_graphs(codec, arguments.out, arguments.force)
    print(f"{arguments.model} -> {arguments.out}: {', '.join(names)} of model {codec.fingerprint.hex()}")


def import_compressai(arguments: argparse.Namespace) -> None:
    """A CompressAI checkpoint -> a folder."""
    from jahp_pl import compressai
    from jahp_pl.export import export as write_export

    model = compressai.load(arguments.checkpoint)
    facts = {"source": arguments.checkpoint.name, "trained_with": "CompressAI"}
    codec = write_export(model, arguments.out, facts, arguments.force)
    config = model.config
    print(
        f"{arguments.checkpoint} -> {arguments.out}: {config.rung}, N = {config.num_filters}, "
        f"M = {config.num_latents}, model {codec.fingerprint.hex()}"
    )


def _bundled_table() -> list[str]:
    """One line per model that comes with the package, in the order of quality."""
    from jahp_pl.exported import read_config

    models = bundled()
    if not models:
        return [NONE]
    width = max(len(model.name) for model in models)
    lines = [f"quality  {'name':{width}}  bits per pixel     PSNR  MS-SSIM     MB  fingerprint       measured on"]
    for model in models:
        config = read_config(model.folder)
        figures, images = " " * 11 + "not measured" + " " * 8, ""
        if results := config.get("results"):
            similarity = "      -" if results["ms_ssim"] is None else f"{results['ms_ssim']:7.4f}"
            figures = f"{results['bpp']:14.4f} {results['psnr']:5.2f} dB  {similarity}"
            images = f"  {results['images']}, {results['count']}"
        size = sum(path.stat().st_size for path in model.folder.iterdir()) / 1e6
        lines.append(f"{model.quality:7}  {model.name:{width}}  {figures} {size:6.2f}  {config['fingerprint']}{images}")
    return [*lines, f"without --model and --quality: {of_quality(None).name}"]


def _things(name: str) -> list[Path]:
    """A file, an export, a run folder, a bundled model; or all of these below another folder.

    Raises:
        BatchError: a folder with none of them.
        ExportError: there is nothing of that name.
    """
    path = Path(name) if name.endswith(".jahp") else locate(name)
    things = list(_below(path)) if path.is_dir() else [path]
    if not things:
        raise BatchError(f"{path}: holds no checkpoint, export or .jahp file")
    return things


def _below(folder: Path) -> Iterator[Path]:
    from jahp_pl.checkpoint import has_checkpoint
    from jahp_pl.exported import is_export

    if is_export(folder) or has_checkpoint(folder):
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from _below(path)
        elif path.suffix == ".jahp":
            yield path


def _describe_file(path: Path) -> dict[str, str]:
    from jahp_pl.codec.bitstream import MAX_SIDE, BitstreamError, unpack, with_icc
    from jahp_pl.data.profiles import profile_name

    data = path.read_bytes()
    try:
        header, payload = unpack(data, MAX_SIDE**2)
    except BitstreamError as error:
        raise BitstreamError(f"{path}: {error}") from None
    colours, plain = "sRGB", with_icc(data, b"")
    if header.icc:
        stored = len(data) - len(plain)
        colours = (
            f"{profile_name(header.icc)}, an ICC profile of {len(header.icc)} bytes that takes {stored} in the file"
        )
    return {
        "image": f"{header.width} x {header.height} pixels",
        "size": f"{len(data)} bytes, {8 * len(data) / (header.width * header.height):.4f} bits per pixel",
        "header": f"{len(plain) - len(payload)} bytes",
        "colours": colours,
        "made by model": header.fingerprint.hex(),
        "latents": f"from {header.latent_min} to {header.latent_max}",
    }


def _describe_model(path: Path) -> dict[str, str]:
    import dataclasses

    from jahp_pl.checkpoint import find_checkpoint
    from jahp_pl.export import load_codec
    from jahp_pl.exported import is_export, read_config

    codec = load_codec(path)
    rows = {"export": str(path)} if is_export(path) else {"checkpoint": str(find_checkpoint(path))}
    rows["fingerprint"] = codec.fingerprint.hex()
    rows["parameters"] = f"{sum(p.numel() for p in codec.model.parameters()):,}"
    rows |= {key: str(value) for key, value in dataclasses.asdict(codec.model.config).items()}
    told = read_config(path) if is_export(path) else {}
    more = {key: str(told[key]) for key in ("dtype", "results") if key in told}
    return rows | more | {key: str(value) for key, value in told.get("facts", {}).items()}
