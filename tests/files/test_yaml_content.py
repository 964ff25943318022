"""YAML from other people is read within bounds of size, depth and what its aliases stand for."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from jahp_pl.config import ConfigError
from jahp_pl.files.yaml_content import MAX_DEPTH, MAX_FILE_BYTES, read
from jahp_pl.settings import load_config
from jahp_pl.sweeping import SweepError
from jahp_pl.sweeping.file import read_sweep

LAUGHS = b"a0: &a0 [lol, lol]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 12)
)
HOSTILE = {
    "aliases": (LAUGHS, f"its aliases stand for more than {MAX_FILE_BYTES} characters"),
    "long aliases": (b"a: &a " + b"x" * 1000 + b"\nb: [" + b"*a, " * 1000 + b"]", "its aliases stand for more than"),
    "merges": (LAUGHS.replace(b"[lol, lol]", b"{x: 1}").replace(b"a11:", b"<<:"), "its aliases stand for more than"),
    "itself": (b"name: &a [x, *a]", "*a stands for a value that contains it"),
    "size": (b"#" * (MAX_FILE_BYTES + 1), f"it has more than {MAX_FILE_BYTES} bytes"),
    "brackets": (b"name: " + b"[" * 200_000, "it is nested too deeply"),
    "dashes": (b"name:\n" + b"- " * 100_000, "it is nested too deeply"),
}


def read_config(path: Path) -> object:
    return load_config(path)


@pytest.mark.parametrize("read_file", [read_config, read_sweep], ids=["configuration", "sweep"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_that_stands_for_too_much_is_refused_at_once(
    kind: str, read_file: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "a.yaml"
    data, reason = HOSTILE[kind]
    path.write_bytes(data)
    start = time.process_time()
    with pytest.raises((ConfigError, SweepError)) as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}: cannot be read as YAML: {reason}")
    assert len(str(caught.value)) < 300
    assert time.process_time() - start < 5


def test_aliases_and_depth_within_the_bounds_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    nested = b"[" * (MAX_DEPTH - 3) + b"]" * (MAX_DEPTH - 3)
    path.write_bytes(b"a: &a {x: [1, 2], y: &b word}\nb: {<<: *a, z: *b}\nc: &c " + nested + b"\nd: *c\n")
    content = yaml.safe_load(read(path))
    assert content["b"] == {"x": [1, 2], "y": "word", "z": "word"}
    assert content["c"] == content["d"]


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ValueError, match="more than"):
        read(Path("/dev/zero"))
