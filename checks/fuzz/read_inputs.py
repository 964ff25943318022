"""Reads the files of each kind of input as the program does."""

from __future__ import annotations

import functools
import json
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from jahp_pl.cli.info import _describe_model
from jahp_pl.codec.bitstream import BitstreamError
from jahp_pl.data.prepare import ShardOptions, prepare
from jahp_pl.data.shard_reader import ShardReader
from jahp_pl.data.sources import find_photos
from jahp_pl.data.urls import expand_shards
from jahp_pl.errors import JahpError
from jahp_pl.evaluation.model_results import read_fingerprints
from jahp_pl.model_io.checkpoint import read_newest
from jahp_pl.model_io.load import load_codec
from jahp_pl.model_io.model_card import read_evaluation_results
from jahp_pl.report.read_results import read_curves
from jahp_pl.report.training_curves import draw_training, read_series
from jahp_pl.report.write import write_report
from jahp_pl.runtime.load import load_runtime
from jahp_pl.settings import load_config
from jahp_pl.sweeping.file import read_sweep
from jahp_pl.sweeping.results import write_sweep_results
from jahp_pl.sweeping.sweep import Sweep
from jahp_pl.sweeping.table import format_sweep_table
from tests.support.codec_models import kodak_crop


def _all_of(*steps: Any) -> None:
    """Call all functions, though some refuse; raise the last refusal."""
    refusal = None
    for step in steps:
        try:
            step()
        except JahpError as error:
            refusal = error
    if refusal is not None:
        raise refusal


@functools.cache
def _pixels() -> Any:
    return kodak_crop()[:20, :33]


def _code(codec: Any) -> None:
    """Compress and decompress an image; a codec of odd weights may refuse, but not fail."""
    try:
        codec.decompress(codec.compress(_pixels()))
    except ValueError as error:
        if not isinstance(error, BitstreamError) and "diverged" not in str(error):
            raise


def read_checkpoint_file(folder: Path) -> None:
    """Load the codec of a checkpoint, describe the model, and continue the run."""
    path = folder / "last.ckpt"
    _all_of(lambda: read_newest(folder), lambda: _describe_model(path, "torch"), lambda: _code(load_codec(path)))


def read_export(folder: Path) -> None:
    """Load the codec of an export with both runtimes, and describe it."""
    _all_of(
        lambda: _code(load_codec(folder)), lambda: _code(load_runtime(folder)),
        lambda: _describe_model(folder, "torch"), lambda: _describe_model(folder, "onnx"),
    )  # fmt: skip


def read_index(folder: Path) -> None:
    """Read the first photographs of a folder of shards."""
    shards = expand_shards([str(folder)], "data.train")
    list(islice(ShardReader().read(shards.urls), 10))


def read_archive(folder: Path) -> None:
    """Read the photographs of an archive for `jahp shards`, and as a shard."""
    path = folder / "photos.tar"

    def pack() -> None:
        for photo in find_photos([path]).photos[:20]:
            prepare(photo, ShardOptions(min_side=16))

    _all_of(pack, lambda: list(islice(ShardReader().read([str(path)]), 20)))


def read_settings(folder: Path) -> None:
    """Load a file of settings, or pairs."""
    path = folder / "settings.yaml"
    if path.exists():
        load_config(path)
    else:
        _all_of(*(functools.partial(load_config, line) for line in (folder / "pairs.txt").read_text().split("\n")))


def read_results(folder: Path) -> None:
    """Report results, and read them for a model card and before they are replaced."""
    paths = [folder / "a.json", folder / "b.json"]

    def report() -> None:
        curves = read_curves(paths)
        if (folder / "is-drawn").stat().st_size:
            write_report(curves, curves[0], folder / "out", "title", "foot")

    _all_of(lambda: read_fingerprints(paths[0]), lambda: read_evaluation_results(paths[0], b"12345678"), report)


def sweep_folder(small: dict[str, Any], metrics: bytes) -> dict[str, bytes]:
    """Make the files of a sweep with two runs, of which the first was trained."""
    names = ("small-lmbda0.01", "small-lmbda0.02")
    runs = [
        {"name": name, "state": "done", "values": {"loss.lmbda": value}, "run_dir": f"runs/{name}", "steps": 90,
         "seconds": 9.5, "metrics": {"val/loss": value, "step": 90}, "error": "", "arguments": ["data.val=[x]"]}
        for name, value in zip(names, (0.01, 0.02), strict=True)
    ]  # fmt: skip
    results = {"sweep": "small.yaml", "method": "grid", "metric": "val/loss", "goal": "minimize", "best": names[0]}
    return {
        "small.yaml": yaml.safe_dump(small, sort_keys=False).encode(),
        "runs/small.json": json.dumps(results | {"points": runs}).encode(),
        "runs/small.csv": b"name,state,loss.lmbda,steps,seconds,val/loss\nsmall-lmbda0.01,done,0.01,90,9.5,0.01\n",
        "runs/small-lmbda0.01/metrics.csv": metrics,
    }


def read_sweep_folder(folder: Path) -> None:
    """Read a sweep file and the results of earlier sessions, and write them again."""
    sweep = Sweep(read_sweep(folder / "small.yaml"), [f"output_dir={folder / 'runs'}"])
    sweep.restore()
    sweep.read_run_states()
    format_sweep_table(sweep.file, sweep.entries)
    write_sweep_results(sweep.results, sweep.file, sweep.entries)


def read_metrics(folder: Path) -> None:
    """Read and draw the training curves of a run."""
    read_series(folder / "run")
    if (folder / "is-drawn").stat().st_size:
        draw_training([folder / "run"], folder)
