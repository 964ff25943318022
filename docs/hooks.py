"""What `make docs` does beside MkDocs: the notebook as a page, and what pages link to outside of docs/ as files.

Pages link to the repository as on a code host (`../results/bench.json`). In the site these links lead to copies below
`files/`: JSON and pictures as they are, text as a page that shows it, a folder as a list.
"""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\]\(\.\./([^)#]+)\)")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".sh": "bash", ".toml": "toml"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and files that docs/ does not hold as such."""
    for file in list(files):
        if file.src_uri.endswith(".ipynb"):
            files.remove(file)
            text, pictures = notebook(json.loads(file.content_string), Path(file.src_uri).stem)
            files.append(File.generated(config, f"{file.src_uri}.md", content=text))
            for name, data in pictures.items():
                files.append(File.generated(config, name, content=data))
    pages = [file for file in files if file.src_uri.endswith(".md")]
    for target in sorted({target for file in pages for target in LINK.findall(file.content_string)}):
        _add(files, config, target)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that leave docs/ to the copies."""
    depth = page.file.src_uri.count("/")
    return LINK.sub(lambda match: f"]({'../' * depth}{_place(match[1])})", markdown)


def notebook(content: dict[str, Any], name: str) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in content["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{len(pictures)}.png"
                pictures[picture] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![Output of the cell above]({picture})")
            elif text := "".join(output.get("text", data.get("text/plain", ""))):
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n", pictures


def _place(target: str) -> str:
    path = ROOT / target
    if path.is_dir():
        return f"files/{target}/index.md"
    return f"files/{target}.md" if path.suffix in LANGUAGES else f"files/{target}"


def _add(files: Files, config: MkDocsConfig, target: str) -> None:
    path, place = ROOT / target, _place(target)
    if files.get_file_from_path(place) is not None or not path.exists():  # MkDocs names links to nowhere
        return
    hidden = f"---\nsearch: {{exclude: true}}\n---\n\n# {target}\n\n"
    if path.is_dir():
        names = sorted(child.name for child in path.iterdir() if child.is_file())
        links = "".join(f"- [{name}]({Path(_place(f'{target}/{name}')).name})\n" for name in names)
        content = hidden + links
        files.append(File.generated(config, place, content=content))
        for name in names:
            _add(files, config, f"{target}/{name}")
    elif path.suffix in LANGUAGES:
        content = f"{hidden}````{LANGUAGES[path.suffix]}\n{path.read_text()}````\n"
        files.append(File.generated(config, place, content=content))
    else:
        files.append(File.generated(config, place, abs_src_path=str(path)))
