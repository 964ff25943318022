"""Pages of docs/ as tests see them: their blocks of code and their links."""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.support import ROOT as ROOT

DOCS = ROOT / "docs"


class Block(NamedTuple):
    """Code between fences."""

    language: str
    """What the fence says; empty where it says nothing: shell commands."""
    text: str


def read(name: str) -> str:
    """A page by its name."""
    return (DOCS / f"{name}.md").read_text()


def blocks(page: str) -> list[Block]:
    """All of them, in their order."""
    return [Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)]


def commands(page: str) -> list[str]:
    """Lines of its shell blocks, without what they say behind a #."""
    lines = [line for block in blocks(page) if block.language in ("", "sh") for line in block.text.splitlines()]
    return [line.split("  #")[0].rstrip() for line in lines if line.strip()]


def links(page: str) -> list[str]:
    """Targets within the repository, relative to docs/."""
    return re.findall(r"\]\((?!https?:)([^)#\s]+)\)", page)
