"""`jahp info`: describes .jahp files and models. Heavy imports happen inside the functions."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jahp_pl.cli import job_plan, output
from jahp_pl.cli.errors import INPUT_ERRORS
from jahp_pl.cli.job_plan import STREAM, JobError
from jahp_pl.cli.job_queue import Failure
from jahp_pl.cli.jobs import print_failures
from jahp_pl.cli.options import add_import, add_runtime, command
from jahp_pl.cli.streams import read_source
from jahp_pl.codec.bitstream import FILE_SUFFIX
from jahp_pl.model_io.checkpoint_files import checkpoint_in
from jahp_pl.model_io.pretrained import (
    NO_MODELS,
    BundledModel,
    bundled_models,
    bundled_with_fingerprint,
    default_model,
    locate_model,
)
from jahp_pl.model_io.runtimes import Runtime, default_runtime
from jahp_pl.text import count_of


def info(arguments: argparse.Namespace) -> None:
    """Describe files and models, or list the bundled models."""
    if not arguments.paths:
        output.say(*_bundled_table())
        return
    paths: list[Path] = []
    failures: list[Failure] = []
    for name in arguments.paths:
        try:
            paths += _described_paths(name)
        except INPUT_ERRORS as error:
            if len(arguments.paths) == 1:
                raise
            failures.append(Failure(Path(name), str(error)))
    num_all, is_first = len(paths) + len(failures), True
    for path in paths:
        try:
            rows = _describe_file(path) if _is_compressed(path) else _describe_model(path, arguments.runtime)
        except INPUT_ERRORS as error:
            if num_all == 1:
                raise
            failures.append(Failure(path, str(error)))
            continue
        if num_all > 1:
            output.say(f"{'' if is_first else chr(10)}{path}")
        is_first = False
        for name, value in rows.items():
            output.say(f"{name:15} {value}")
    print_failures("info", failures, num_all)


def _bundled_table() -> list[str]:
    """Format a table with one line per bundled model and measured quality."""
    from jahp_pl.model_io.export_config import read_config

    models = bundled_models()
    if not models:
        return [NO_MODELS]
    width = max(len(model.name) for model in models)
    lines = [f"{'name':{width}}  quality  bits per pixel     PSNR  MS-SSIM     MB  fingerprint       measured on"]
    for model in models:
        config = read_config(model.folder)
        results = config.get("results") or {}
        size = sum(path.stat().st_size for path in model.folder.iterdir()) / 1e6
        for number, point in enumerate(results.get("points") or [results]):
            figures, images = " " * 11 + "not measured" + " " * 8, ""
            if point:
                similarity = "      -" if point["ms_ssim"] is None else f"{point['ms_ssim']:7.4f}"
                figures = f"{point['bpp']:14.4f} {point['psnr']:5.2f} dB  {similarity}"
                images = f"  {results['images']}, {count_of(results['count'], 'image')}"
            quality = f"{point['quality']:7g}" if "quality" in point else " " * 6 + "-"
            name = model.name if number == 0 else ""
            rest = f" {size:6.2f}  {config['fingerprint']}{images}" if number == 0 else ""
            lines.append(f"{name:{width}}  {quality}  {figures}{rest}")
    return [*lines, f"default, without --model: {default_model().name}"]


def _described_paths(name: str) -> list[Path]:
    """Resolve a name to a .jahp file or a model; resolve any other folder to all files and models below it.

    Raises:
        JobError: if there is no such .jahp file, if the folder has no file or model, or if the name is an image.
        ExportError: if there is no such model.
    """
    path = Path(name) if _is_compressed(Path(name)) else locate_model(name)
    if path != STREAM and not path.exists():
        raise JobError(f"{path}: no such file; check the path")
    if path != STREAM and not (path.is_file() or path.is_dir()):
        raise JobError(f"{path}: is not a regular file; give - and redirect it to standard input")
    if path.is_file() and not _is_compressed(path):
        from jahp_pl.images.io import SUFFIXES

        if path.suffix.lower() in SUFFIXES:
            raise JobError(f"{path}: is an image, not a .jahp file or a model; compress it first")
    found = list(_below(path)) if path.is_dir() else [path]
    if not found:
        raise JobError(f"{path}: has no checkpoint, export or .jahp file; give another folder")
    return found


def _is_compressed(path: Path) -> bool:
    """Check whether a path is a .jahp file, by its name or by its first bytes."""
    return path.suffix == FILE_SUFFIX or path == STREAM or job_plan.is_compressed(path)


def _below(folder: Path) -> Iterator[Path]:
    """Yield a folder itself if it is a model, otherwise the models and .jahp files below it."""
    from jahp_pl.model_io.export_config import is_export

    if is_export(folder) or checkpoint_in(folder) is not None:
        yield folder
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():  # a link to a folder above would never end
            yield from _below(path)
        elif path.suffix == FILE_SUFFIX and path.is_file():
            yield path


def _describe_file(path: Path) -> dict[str, str]:
    """Describe a .jahp file by its header: labels and values to print.

    Raises:
        BitstreamError: if the file is damaged.
    """
    from jahp_pl.codec.bitstream import MAX_PIXELS, BitstreamError, unpack, with_icc
    from jahp_pl.codec.level_steps import to_level

    data = read_source(path)
    try:
        header, payload = unpack(data, MAX_PIXELS)
    except BitstreamError as error:
        raise BitstreamError(f"{output.name_of(path)}: {error}") from None
    maker = bundled_with_fingerprint(header.fingerprint)
    colors, plain = "sRGB", with_icc(data, b"")
    if header.icc:
        from jahp_pl.images.icc import profile_name

        stored = len(data) - len(plain)
        colors = (
            f"{profile_name(header.icc)}, an ICC profile of {len(header.icc)} bytes that takes {stored} in the file"
        )
    return {
        "image": f"{header.width} x {header.height} pixels",
        "size": f"{len(data)} bytes, {8 * len(data) / (header.width * header.height):.4f} bits per pixel",
        "header": f"{len(plain) - len(payload)} bytes",
        "colors": colors,
        **({} if header.level_steps is None else _level_row(to_level(header.level_steps), maker)),
        "made with model": header.fingerprint.hex() + (f" ({maker.name})" if maker is not None else ""),
        "latents": f"from {header.latent_min} to {header.latent_max}",
    }


def _level_row(level: float, maker: BundledModel | None) -> dict[str, str]:
    """Describe a file's rate level, as a quality too if a bundled model made it and its number of levels is known."""
    from jahp_pl.codec.targets import quality_of

    if maker is None:
        return {"level": f"{level:g}"}
    return {"quality": f"{quality_of(level, maker.rates.num_levels):.1f} (rate level {level:g})"}


def _describe_model(path: Path, runtime: Runtime | None) -> dict[str, str]:
    """Describe a model: labels and values to print.

    Raises:
        CheckpointError, ExportError, UnusableModelError: if the model cannot be used.
    """
    import dataclasses

    from jahp_pl.model_io.export_config import is_export, read_config

    if (runtime or default_runtime()) == "onnx":
        from jahp_pl.runtime.load import load_runtime

        found = load_runtime(path)
        config, fingerprint, num_parameters = found.config, found.fingerprint, found.num_parameters
        rows, exported = {"export": str(path)}, read_config(path)
    else:
        from jahp_pl.model_io.checkpoint import find_checkpoint, training_facts
        from jahp_pl.model_io.load import load_codec

        codec = load_codec(path)
        config, fingerprint = codec.model.config, codec.fingerprint
        num_parameters = sum(p.numel() for p in codec.model.parameters())
        rows = {"export": str(path)} if is_export(path) else {"checkpoint": str(find_checkpoint(path))}
        exported = read_config(path) if is_export(path) else {"facts": training_facts(find_checkpoint(path))}
    rows["fingerprint"] = fingerprint.hex()
    if (same := bundled_with_fingerprint(fingerprint)) is not None:
        rows["bundled as"] = same.name
    rows["parameters"] = f"{num_parameters:,}"
    rows |= {key: str(value) for key, value in dataclasses.asdict(config).items()}
    facts = exported.get("facts", {})
    rows |= {"dtype": str(exported["dtype"])} if "dtype" in exported else {}
    return rows | _training_rows(facts) | _result_rows(exported.get("results") or {})


def _training_rows(facts: dict[str, Any]) -> dict[str, str]:
    """Describe how the model was trained: trade-off, history and length of the last run first, then its settings."""
    left, rows, loss = dict(facts), {}, facts.get("loss")
    if isinstance(loss, dict) and "lmbda" in loss:
        del left["loss"]
        highest = f" to {loss['lmbda_max']}" if loss.get("lmbda_max") is not None else ""
        rows["lambda"] = f"{loss['lmbda']}{highest} ({loss.get('distortion', 'mse')})"
    if (note := left.pop("note", None)) is not None:
        rows["note"] = f"{note}"
    steps, seconds, optim = left.pop("step", None), left.pop("seconds", None), facts.get("optim")
    if steps is not None:
        start = optim.get("start_from") if isinstance(optim, dict) else None
        duration = f" in {_duration(seconds)}" if isinstance(seconds, int | float) else ""
        name, origin = ("trained for", "") if start is None else ("last run", f", from the weights of {start}")
        rows[name] = f"{count_of(steps, 'step')}{duration}{origin}"
    return rows | {key: _settings(value) if isinstance(value, dict) else str(value) for key, value in left.items()}


def _duration(seconds: float) -> str:
    """Write a time in seconds, minutes or hours, e.g. "9.5 minutes"."""
    if seconds < 60:
        return f"{seconds:.1f} seconds"
    return f"{seconds / 60:.1f} minutes" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} hours"


def _settings(section: dict[str, Any]) -> str:
    """Write a section of settings as on the command line; null for None, true and false in lower case."""
    return " ".join(f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in section.items())


def _result_rows(results: dict[str, Any]) -> dict[str, str]:
    """Describe the measured rate and quality, in one row per quality setting."""
    rows = {"measured on": f"{results['images']}, {count_of(results['count'], 'image')}"} if "images" in results else {}
    for point in results.get("points") or ([results] if "bpp" in results else []):
        name = f"  quality {point['quality']:g}" if "quality" in point else "  figures"
        similarity = "" if point.get("ms_ssim") is None else f", MS-SSIM {point['ms_ssim']:.4f}"
        rows[name] = f"{point['bpp']:.4f} bits per pixel, {point['psnr']:.2f} dB{similarity}"
    return rows


def add_info(subparsers: Any) -> None:
    """Add the command `info`."""
    p = command(subparsers, "info", info, "describe .jahp files and models, or list the bundled models", """\
        jahp info
        jahp info joint-psnr
        jahp info photo.jahp
        jahp info runs/quickstart models/
        jahp info compressed/*.jahp""")  # fmt: skip
    p.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help=".jahp files, - for standard input, models, or folders of any of them [lists the bundled models]",
    )
    add_runtime(p)
    add_import(p)
