"""Runs the command line within a test, and lists the files that it leaves."""

from __future__ import annotations

import shlex
from pathlib import Path

from jahp_pl.cli.main import main

SHORTER = {
    # As printed, training and evaluation take minutes to days; these settings shorten them and change nothing else.
    "train": "model.num_filters=8 model.num_latents=12 data.crop_size=32 data.batch_size=2 data.num_workers=0 "
    "trainer.max_steps=2 trainer.val_every_steps=2 data.max_val_images=1 coding.max_images=1 trainer.accelerator=cpu",
    "evaluate": "--limit 1",
    "classical": "--limit 1",
    "bench coding": "--rounds 1",
    "bench train": "model.num_filters=8 model.num_latents=12 data.crop_size=32 data.batch_size=2 data.num_workers=0 "
    "trainer.accelerator=cpu --rounds 1 --steps 1",
}


def run(*arguments: object) -> int:
    """Return the exit status of a command."""
    try:
        main([str(a) for a in arguments])
    except SystemExit as exit_:
        return int(exit_.code or 0)
    return 0


def run_shortened(command: str) -> None:
    """Run a command as printed on pages, with long work shortened; a failure raises SystemExit."""
    _, name, *arguments = shlex.split(command)
    shorter = SHORTER.get(name) or SHORTER.get(" ".join([name, *arguments[:1]]), "")
    main([name, *arguments, *shorter.split()])


def files(folder: Path) -> list[str]:
    """Return the names of all files below a folder, relative to it and sorted."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
