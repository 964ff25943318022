"""All pages of docs/: links are valid, settings exist, code is run by a test, the site builds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import jahp_pl
from jahp_pl.config import Config
from tests.support import pages
from tests.support.browser import CHROMIUM, chromium

NAMES = sorted(path.stem for path in pages.DOCS.glob("*.md"))
RUN_BY = {
    "compressai": "docs/test_compressai.py", "data": "docs/test_data.py",
    "exact-arithmetic": "docs/test_exact_arithmetic.py",
    "extending": "docs/test_extending.py", "guide": "docs/test_guide.py", "index": "docs/test_pages.py",
    "library": "docs/test_library.py", "python": "docs/test_python.py", "refinement": "docs/test_refinement.py",
    "scaling": "docs/test_scaling.py", "sweeps": "sweeping/test_file.py",
}  # fmt: skip
"""Test that runs the code of each page."""


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files(name: str) -> None:
    for link in pages.links(pages.read(name)):
        assert (pages.DOCS / link).exists(), link


@pytest.mark.parametrize("name", NAMES)
def test_the_settings_that_a_page_names_exist(name: str) -> None:
    config = Config()
    for section, key in re.findall(r"\b(model|loss|data|optim|trainer|coding|wandb)\.(\w+)=", pages.read(name)):
        assert hasattr(getattr(config, section), key), f"{section}.{key}"


@pytest.mark.parametrize("name", NAMES)
def test_code_is_run_by_a_test(name: str) -> None:
    if pages.blocks(pages.read(name)):
        text = (pages.ROOT / "tests" / RUN_BY[name]).read_text()
        assert f'"{name}"' in text or f'"{name}.md"' in text
    else:
        assert name not in RUN_BY


def test_every_name_in_the_map_of_the_paper_is_in_the_files_beside_it() -> None:
    rows = [line for line in pages.read("paper").splitlines() if line.startswith("| ") and "](../" in line]
    assert len(rows) >= 15
    for row in rows:
        files = {*re.findall(r"\]\(\.\./([^)#]+\.py)\)", row), "jahp_pl/model.py", "jahp_pl/config/model.py"}
        text = "".join((pages.ROOT / file).read_text() for file in files)
        for name in re.findall(r"`([\w.]+)[(`]", row):
            assert re.search(rf"\b{name.split('.')[-1]}\b", text), name


def test_the_commands_of_the_first_page_are_run_by_other_tests() -> None:
    commands = pages.commands(pages.read("index"))
    assert commands[0] == "pip install -e ."  # as the Makefile does
    readme = (pages.ROOT / "README.md").read_text()
    for command in commands[1:]:
        words = command.split()
        assert words[0] == "jahp"
        assert f"jahp {words[1]}" in readme


def test_the_reference_has_every_public_name() -> None:
    listed = re.findall(r"^::: ([\w.]+)$", pages.read("reference"), re.MULTILINE)
    assert len(set(listed)) == len(listed)
    for name in jahp_pl.__all__:
        assert f"{getattr(jahp_pl, name).__module__}.{name}" in listed, name


def test_every_page_is_in_the_navigation() -> None:
    text = (pages.ROOT / "mkdocs.yml").read_text().replace("!ENV", "")
    listed: list[str] = []
    for entry in yaml.safe_load(text)["nav"]:
        for value in entry.values():
            listed += [value] if isinstance(value, str) else [path for part in value for path in part.values()]
    assert sorted(listed) == sorted([*(f"{name}.md" for name in NAMES), "tour.md"])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as built by `make docs`, in another folder."""
    source, folder = tmp_path_factory.mktemp("docs"), tmp_path_factory.mktemp("site")
    make = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    for command in (["docs/assemble.py", str(source)], make):
        done = subprocess.run(
            [sys.executable, *command], cwd=pages.ROOT, env={**os.environ, "JAHP_DOCS": str(source)},
            capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_loads_nothing_from_other_sites(built: Path) -> None:
    for page in built.rglob("*.html"):
        for tag in re.findall(r"<(?:link|script|img|iframe)\b[^>]*>", page.read_text()):
            if 'rel="canonical"' not in tag:
                assert not re.search(r'(?:src|href)="(?:https?:)?//', tag), tag


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_render_without_errors_and_fit_the_screen(built: Path, width: int) -> None:
    with chromium() as page:
        for name in (*NAMES, "tour"):
            page.open(built / f"{name}.html", width, is_ready="document.readyState === 'complete'")
            assert page.run("document.documentElement.scrollWidth") <= width, name
        assert page.complaints == []
