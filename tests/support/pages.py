"""The pages of docs/: their blocks of code and their links; patches applied to a copy."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PATCH = re.compile(r"^--- a/(?P<path>\S+)\n\+\+\+ b/(?P=path)\n(?P<hunks>.*)", re.DOTALL)


class Block(NamedTuple):
    """A fenced block of code."""

    language: str
    """What the fence says; empty where it says nothing: shell commands."""
    text: str


def read(name: str) -> str:
    """Read a page by its name."""
    return (DOCS / f"{name}.md").read_text()


def blocks(page: str) -> list[Block]:
    """Return all blocks in order."""
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)]


def commands(page: str) -> list[str]:
    """Return the lines of the shell blocks without their comments."""
    lines = [line for block in blocks(page) if block.language in ("", "sh") for line in block.text.splitlines()]
    return [line.split("  #")[0].rstrip() for line in lines if line.strip()]


def links(page: str) -> list[str]:
    """Return link targets within the repository, relative to docs/."""
    return re.findall(r"\]\((?!https?:)([^)#\s]+)\)", page)


def apply(patch: str, folder: Path) -> None:
    """Apply a patch of a page: hunks begin with a bare @@, and each must fit in exactly one place."""
    found = PATCH.match(patch)
    assert found, patch
    path = folder / found["path"]
    text = path.read_text()
    for hunk in found["hunks"].split("@@\n")[1:]:
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        after = "".join(line[1:] for line in lines if line[0] in " +")
        assert text.count(before) == 1, f"{path.name} has {text.count(before)} times:\n{before}"
        text = text.replace(before, after)
    path.write_text(text)
