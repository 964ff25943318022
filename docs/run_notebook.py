"""Runs a notebook in a fresh kernel and stores its outputs: python docs/run_notebook.py docs/tour.ipynb."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def executed(path: Path) -> nbformat.NotebookNode:
    """Return the notebook with new outputs; a failing cell raises."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", record_timing=False,
        extra_arguments=["--log-level=ERROR"], resources={"metadata": {"path": str(path.parent)}},
    )  # fmt: skip
    client.execute()
    notebook.metadata = {key: notebook.metadata[key] for key in ("kernelspec",)}
    return notebook


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.write_text(nbformat.writes(executed(target)) + "\n")
