"""Defines the options for the models and images that checks measure."""

from __future__ import annotations

import argparse
from pathlib import Path

from jahp_pl.cli.options import add_images
from jahp_pl.evaluation.image_set import Original, find_originals


def add_kodak_images(parser: argparse.ArgumentParser) -> None:
    """Add --images, with the Kodak set as its default."""
    add_images(parser, "images, or folders of them [data/kodak]", required=False)


def parse_model_and_images(description: str | None) -> argparse.Namespace:
    """Parse the command line of a check that measures one model: a model, --images, and --output for the result."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a bundled model's name, an export, a run or a checkpoint")
    add_kodak_images(parser)
    parser.add_argument("-o", "--output", type=Path, help="result")
    return parser.parse_args()


def chosen_images(arguments: argparse.Namespace, limit: int | None = None) -> list[Original]:
    """Find the images that --images names, at most the first `limit`.

    Raises:
        EvaluationError: if a path is missing, or a folder has no image.
    """
    return find_originals(arguments.images or [Path("data/kodak")], limit)
