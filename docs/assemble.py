"""Assembles the sources of the site of `make docs`: python docs/assemble.py build/docs.

Pages link to the repository as on a code host (`../results/bench.json`). In the site these links lead to copies below
`files/`: JSON unchanged, text as a page that shows it, a folder as a list. The notebook becomes a page. The result is
plain Markdown, so no page depends on the program that converts it to HTML.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
LINK = re.compile(r"\]\(\.\./([^)#]+)\)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".toml": "toml"}
HIDDEN = "---\nsearch: {exclude: true}\n---\n\n"


def assemble(target: Path) -> None:
    """Write everything into a folder, replacing its contents."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    linked: set[str] = set()
    for path in sorted(DOCS.iterdir()):
        if path.suffix in (".md", ".ipynb"):
            text = path.read_text()
            if path.suffix == ".ipynb":
                text = page_of_notebook(json.loads(text), path.stem, target)
            linked |= set(LINK.findall(text))
            text = LINK.sub(lambda match: f"]({_place(match[1])})", text)
            text = re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", text)
            (target / path.stem).with_suffix(".md").write_text(text)
        elif path.is_file() and path.suffix != ".py":
            shutil.copy(path, target)
    for name in sorted(linked):
        _add(target, name)


def page_of_notebook(notebook: dict[str, Any], name: str, target: Path) -> str:
    """Convert a notebook to Markdown; its images are written beside it."""
    parts: list[str] = []
    num_pictures = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{num_pictures}.png"
                num_pictures += 1
                (target / picture).write_bytes(base64.b64decode("".join(data["image/png"])))
                parts.append(f"![What the cell above shows]({picture})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


def _place(name: str) -> str:
    """Return the place of the copy of a file or folder of the repository."""
    path = ROOT / name
    if path.is_dir():
        return f"files/{name}/index.md"
    return f"files/{name}.md" if path.suffix in LANGUAGES else f"files/{name}"


def _add(target: Path, name: str) -> None:
    path, place = ROOT / name, target / _place(name)
    place.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        inside = sorted(child.name for child in path.iterdir() if child.is_file())
        links = "".join(f"- [{child}]({Path(_place(f'{name}/{child}')).name})\n" for child in inside)
        place.write_text(f"{HIDDEN}# {name}\n\n{links}")
        for child in inside:
            _add(target, f"{name}/{child}")
    elif path.suffix in LANGUAGES:
        place.write_text(f"{HIDDEN}# {name}\n\n````{LANGUAGES[path.suffix]}\n{path.read_text()}````\n")
    else:
        shutil.copy(path, place)


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
