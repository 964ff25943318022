"""`jahp evaluate`: measures models on images. Heavy imports happen inside the functions."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jahp_pl.cli import output
from jahp_pl.cli.codecs import open_codec
from jahp_pl.cli.errors import CommandError
from jahp_pl.cli.options import (
    MODEL,
    add_effort,
    add_images,
    add_limit,
    add_machine,
    add_output,
    check_results_path,
    command,
    local_path,
)
from jahp_pl.files.atomic import resolved
from jahp_pl.text import count_of

if TYPE_CHECKING:
    from jahp_pl.codec.codec import Codec
    from jahp_pl.codec.targets import Target
    from jahp_pl.evaluation.evaluate import Evaluation, EvaluationTask


def evaluate(arguments: argparse.Namespace) -> None:
    """Evaluate models on images."""
    from jahp_pl.codec.targets import Target
    from jahp_pl.evaluation.evaluate import plan_files, target_folders
    from jahp_pl.evaluation.image_set import find_originals
    from jahp_pl.evaluation.model_names import name_models
    from jahp_pl.evaluation.model_results import read_fingerprints, save_results
    from jahp_pl.files.locks import exclusive

    arguments.model = _leave_out_tables(arguments.model)
    out: Path = arguments.output or _default_out(arguments)
    check_results_path(out)
    _check_names(arguments, out)
    evaluated = read_fingerprints(out)
    images = find_originals(arguments.images, arguments.limit)
    names = name_models(arguments.model)
    codecs = {name: open_codec(arguments, model) for name, model in zip(names, arguments.model, strict=True)}
    extra_provenance = dict(zip(names, _extra_provenance(arguments), strict=True))
    curves = _curves(codecs, extra_provenance, arguments.effort)
    is_default = arguments.output is None
    if is_default and evaluated not in (None, {codec.fingerprint.hex() for codec in codecs.values()}):
        raise CommandError(f"{out}: has results of another model; move it away, or choose another place with --output")
    targets = [Target(quality=quality) for quality in arguments.quality or [None]]
    _check_targets(targets, codecs)
    files = out.with_suffix("")
    folders = {name: target_folders(name if len(names) > 1 else "", targets) for name in names}
    tasks = {name: [plan_files(images, files / folder) for folder in folders[name]] for name in names}
    with exclusive(out):
        evaluations = _measure(arguments, codecs, targets, tasks, extra_provenance)
        save_results(evaluations, folders, curves, out)
    _print(evaluations)
    output.say(f"\nfiles    {files}/\nresults  {out}")
    _print_curves(curves)
    if arguments.picture is not None:
        _draw(evaluations, list(codecs.values()), arguments.compare, arguments.picture)
        output.say(f"picture  {arguments.picture}")


def _leave_out_tables(models: list[str]) -> list[str]:
    """Return the models without the tables of a sweep, which `--model runs/SWEEP/*` matches too."""
    tables = [model for model in models if Path(model).suffix in (".csv", ".json") and Path(model).is_file()]
    if not tables or len(tables) == len(models):
        return models
    output.say(f"left out, because these are not models: {', '.join(tables)}", file=sys.stderr)
    return [model for model in models if model not in tables]


def _curves(codecs: dict[str, Codec], extra_provenance: dict[str, dict[str, Any]], effort: int) -> dict[str, list[str]]:
    """Group models into curves: names of models by title, see `group_models`."""
    from jahp_pl.report.model_curves import group_models

    return group_models(
        {
            name: extra_provenance[name] | {"model": dataclasses.asdict(codec.model.config), "effort": effort}
            for name, codec in codecs.items()
        }
    )


def _measure(
    arguments: argparse.Namespace,
    codecs: dict[str, Codec],
    targets: list[Target],
    tasks: dict[str, list[list[EvaluationTask]]],
    extra_provenance: dict[str, dict[str, Any]],
) -> dict[str, list[Evaluation]]:
    """Code all images with every model for every target, and show the progress.

    Args:
        arguments: arguments of the command.
        codecs: codec of each model, by model name, in the order of --model.
        targets: targets for each model.
        tasks: images to code and files to write, by model name; one list per target.
        extra_provenance: entries to add to the provenance, by model name.

    Returns:
        Evaluations by model name; one per target.
    """
    from jahp_pl.evaluation.evaluate import ImageResult, evaluate_codec
    from jahp_pl.evaluation.image_set import add_name_to_errors

    evaluations: dict[str, list[Evaluation]] = {name: [] for name in codecs}
    total = sum(len(images) for of_model in tasks.values() for images in of_model)
    with output.bar(total=total, unit=" images", desc="evaluate") as bar:

        def progress(result: ImageResult) -> None:
            bar.set_postfix_str(f"{result.row.name} {result.row.file_psnr:.2f} dB")
            bar.update()

        for name, codec in codecs.items():
            for target, of_target in zip(targets, tasks[name], strict=True):
                with add_name_to_errors(name) if len(codecs) > 1 else nullcontext():
                    found = evaluate_codec(codec, of_target, arguments.compare, progress, target, arguments.effort)
                found.provenance.update(extra_provenance[name])
                evaluations[name].append(found)
    return evaluations


def _check_names(arguments: argparse.Namespace, out: Path) -> None:
    """Refuse names that would overwrite or hide each other.

    Raises:
        CommandError: if --picture is the results file or does not end in .png, a quality is given twice, or the
            number of --curve names is neither one nor that of the models, or one of them is empty or has control
            characters.
    """
    if arguments.picture is not None and resolved(arguments.picture) == resolved(out):
        raise CommandError(f"--picture {out}: would overwrite the results; choose another name")
    if arguments.picture is not None and arguments.picture.suffix.lower() != ".png":
        raise CommandError(f"--picture {arguments.picture}: must be the name of a file that ends in .png")
    qualities = [f"{quality:g}" for quality in arguments.quality or []]
    if twice := [quality for quality in qualities if qualities.count(quality) > 1]:
        raise CommandError(f"--quality {twice[0]}: is given twice; give it once")
    curves, num_models = arguments.curve or [], len(arguments.model)
    if unprintable := [name for name in curves if not (name.strip() and name.isprintable())]:
        raise CommandError(f"--curve {unprintable[0]!r}: must be a name of visible characters, without line breaks")
    if len(curves) not in (0, 1, num_models):
        found = f"{len(curves)} for {count_of(num_models, 'model')}"
        raise CommandError(f"--curve {' '.join(curves)}: must be one name, or one per model, but there are {found}")


def _check_targets(targets: list[Target], codecs: dict[str, Codec]) -> None:
    """Refuse --quality before anything is coded if a model cannot code at it.

    Raises:
        CommandError: if one of several models has a single rate and qualities are given.
        TargetError: if the only model has a single rate and a quality is given.
    """
    from jahp_pl.codec.targets import check_target

    fixed = [name for name, codec in codecs.items() if codec.num_levels == 1]
    if fixed and len(codecs) > 1 and any(target.is_given for target in targets):
        is_mixed = len(fixed) < len(codecs)
        remedy = "evaluate models of a single rate in another call, without --quality" if is_mixed else "leave it out"
        raise CommandError(f"--quality: {fixed[0]} has a single rate; {remedy}")
    for target in targets:
        for codec in codecs.values():
            check_target(target, codec.num_levels)


def _print(evaluations: dict[str, list[Evaluation]]) -> None:
    """Print a table of means for several models or qualities, or a table of images for one model at one quality."""
    from jahp_pl.evaluation.table import (
        explain_columns,
        format_curve,
        format_evaluation_table,
        format_model_table,
        summarize,
    )

    first = next(iter(evaluations.values()))
    if len(evaluations) == len(first) == 1:
        output.say(format_evaluation_table(first[0]), "", summarize(first[0]))
        return
    table = format_model_table(evaluations) if len(evaluations) > 1 else format_curve(first)
    output.say(table, "", explain_columns(one for of_model in evaluations.values() for one in of_model))


def _print_curves(curves: dict[str, list[str]]) -> None:
    """Print which models form a curve together."""
    for title, joined in curves.items():
        if len(joined) > 1:
            output.say(f"curve    {title}: {', '.join(joined)}")


def _draw(evaluations: dict[str, list[Evaluation]], codecs: list[Codec], compare: str | None, picture: Path) -> None:
    """Draw the middle quality of each model."""
    from jahp_pl.evaluation.picture import DrawnModel, draw_evaluations

    models = [
        DrawnModel(name if len(codecs) > 1 else codec.model.config.entropy_model, codec, of_model[len(of_model) // 2])
        for (name, of_model), codec in zip(evaluations.items(), codecs, strict=True)
    ]
    draw_evaluations(models, compare, picture)


def _default_out(arguments: argparse.Namespace) -> Path:
    """Return evaluation/IMAGES-MODEL.json, named after the image folders, or the only image, and all models."""
    from jahp_pl.evaluation.model_names import model_name

    several = len(arguments.images) > 1
    places = [path.parent if several and path.is_file() else path for path in arguments.images]
    names = [model_name(str(path)) for path in (*dict.fromkeys(places), *arguments.model)]
    return Path("evaluation") / f"{'-'.join(names)}.json"


def _extra_provenance(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what the provenance of each model's results must include: its training, the command, and --curve."""
    from jahp_pl.measurement.provenance import command_line
    from jahp_pl.model_io.load import read_facts

    curves = arguments.curve or []
    for number, model in enumerate(arguments.model):
        curve = {"curve": curves[number % len(curves)]} if curves else {}
        yield {"training": read_facts(model), "command": command_line(["jahp", *sys.argv[1:]])} | curve


def add_evaluate(subparsers: Any) -> None:
    """Add the command `evaluate`."""
    title = "compress images to real files with models; measure rate and quality"
    p = command(subparsers, "evaluate", evaluate, title, """\
        jahp evaluate --model joint-psnr --images data/kodak
        jahp evaluate --model joint-psnr --images data/kodak --quality 5 20 40 60 80 95
        jahp evaluate --model runs/quickstart --images data/kodak --compare jpeg --picture kodak.png
        jahp evaluate --model joint-psnr joint-ms-ssim --images data/kodak --quality 5 40 80 95
        jahp evaluate --model runs/lambda/* --images data/kodak -o evaluation/lambda.json""")  # fmt: skip
    p.add_argument(
        "--model",
        nargs="+",
        action="extend",
        required=True,
        metavar="M",
        help=f"{MODEL}; models that differ only in lambda form one curve, every other model its own",
    )
    add_machine(p)
    add_images(p)
    add_limit(p)
    add_output(
        p,
        "R.json",
        "file for the results; the compressed files go to a folder beside it [evaluation/IMAGES-MODEL.json]",
        required=False,
    )
    add_effort(p, 0, "0")
    _add_comparison(p)
    _add_curves(p)


def _add_comparison(p: argparse.ArgumentParser) -> None:
    """Add --compare and --picture."""
    for name, text in {
        "--compare": "compare with this codec, in files at least as large",
        "--beside": argparse.SUPPRESS,  # former name
    }.items():
        p.add_argument(name, choices=("jpeg", "jpeg444"), dest="compare", help=text)
    p.add_argument(
        "--picture", type=local_path, metavar="P.png", help="draw originals and reconstructions to this file"
    )


def _add_curves(p: argparse.ArgumentParser) -> None:
    """Add --quality and --curve, which make and name curves."""
    p.add_argument(
        "--quality",
        type=float,
        nargs="+",
        action="extend",
        metavar="Q",
        help="quality of a variable-rate model, from 1 to 100; several qualities make a curve [60]",
    )
    p.add_argument(
        "--curve",
        nargs="+",
        action="extend",
        metavar="NAME",
        help="one name for the curve of all models, or one per model; `jahp report` also joins files of the same name "
        "[a description of each model]",
    )
