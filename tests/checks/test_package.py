"""The distributions contain exactly what they should. `make package` installs and tries them."""

from __future__ import annotations

import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from checks.package.build import ROOT, Distributions, build


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Distributions:
    return build(tmp_path_factory.mktemp("dist"))


def test_the_wheel_holds_every_file_of_the_package_and_no_others(built: Distributions) -> None:
    names = {name for name in zipfile.ZipFile(built.wheel).namelist() if ".dist-info/" not in name}
    files = (path for path in (ROOT / "jahp_pl").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert names == {str(path.relative_to(ROOT)) for path in files}
    assert {"jahp_pl/py.typed", "jahp_pl/report/web/page.js"} <= names


def test_the_wheel_has_entry_point_license_and_python_version(built: Distributions) -> None:
    wheel = zipfile.ZipFile(built.wheel)
    info = {Path(name).name: wheel.read(name).decode() for name in wheel.namelist() if ".dist-info/" in name}
    assert "jahp = jahp_pl.cli.main:main" in info["entry_points.txt"]
    assert "Apache License" in info["LICENSE"]
    assert "Requires-Python: >=3.11" in info["METADATA"]


def test_the_sdist_has_what_the_wheel_is_built_from(built: Distributions) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "README.md", "LICENSE", "jahp_pl/py.typed"} <= names


def test_make_install_adds_the_package_as_a_path() -> None:
    """Type checkers and editors read paths in .pth files, but do not follow import hooks."""
    files = Path(sysconfig.get_path("purelib")).glob("*jahp_pl*.pth")
    paths = [line for file in files for line in file.read_text().splitlines()]
    if not paths:
        pytest.skip("not installed by `make install`")
    assert [Path(line) for line in paths] == [ROOT]
