"""Defines the option for the images on which checks measure."""

from __future__ import annotations

import argparse
from pathlib import Path

from jahp_pl.cli.options import add_images
from jahp_pl.evaluation.image_set import Original, find_originals


def add_kodak_images(parser: argparse.ArgumentParser) -> None:
    """Add --images, with the Kodak set as its default."""
    add_images(parser, "images, or folders of them [data/kodak]", required=False)


def chosen_images(arguments: argparse.Namespace, limit: int | None = None) -> list[Original]:
    """Find the images that --images names, at most the first `limit`.

    Raises:
        EvaluationError: if a path is missing, or a folder has no image.
    """
    return find_originals(arguments.images or [Path("data/kodak")], limit)
