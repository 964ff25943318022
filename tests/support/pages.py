"""Reads pages of docs/: their blocks of code, commands and links."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.support import ROOT as ROOT

DOCS = ROOT / "docs"


class Block(NamedTuple):
    """Block of code between fences."""

    language: str
    """Word after the opening fence; empty for shell commands."""
    text: str


def read(name: str) -> str:
    """Read a page by its name without suffix."""
    return (DOCS / f"{name}.md").read_text()


def blocks(page: str) -> list[Block]:
    """List the blocks of code of a page, in order."""
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)]


def commands(page: str) -> list[str]:
    """List the lines of a page's shell blocks, without their comments."""
    lines = [line for block in blocks(page) if block.language in ("", "sh") for line in block.text.splitlines()]
    return [line.split("  #")[0].rstrip() for line in lines if line.strip()]


def links(page: str) -> list[str]:
    """List the targets of a page's links within the repository, relative to docs/."""
    return re.findall(r"\]\((?!https?:)([^)#\s]+)\)", page)
