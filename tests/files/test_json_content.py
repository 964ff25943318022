"""JSON from other programs is parsed or refused with one error, and the first mismatch in its content is found."""

from __future__ import annotations

import os

import pytest

from jahp_pl.files.json_content import MAX_FILE_BYTES, Nullable, first_mismatch, parse, read

SHAPE = {"name": str, "mean": {"bpp": float, "psnr?": Nullable(float)}, "counts?": [int], "rest?": None}
GOOD = {"name": "a", "mean": {"bpp": 1, "psnr": None, "more": {}}, "counts": [1, 2], "rest": [{}]}


def test_content_of_the_expected_shape_fits():
    assert first_mismatch(GOOD, SHAPE) is None
    assert first_mismatch({"name": "a", "mean": {"bpp": float("nan")}}, SHAPE) is None


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (None, "its content"),
        ([], "its content"),
        ({}, "name"),
        (GOOD | {"name": 1}, "name"),
        (GOOD | {"name": None}, "name"),
        (GOOD | {"mean": []}, "mean"),
        (GOOD | {"mean": {}}, "mean.bpp"),
        (GOOD | {"mean": {"bpp": "1"}}, "mean.bpp"),
        (GOOD | {"mean": {"bpp": True}}, "mean.bpp"),
        (GOOD | {"mean": {"bpp": 10**30}}, "mean.bpp"),
        (GOOD | {"mean": {"bpp": 1.0, "psnr": []}}, "mean.psnr"),
        (GOOD | {"counts": 1}, "counts"),
        (GOOD | {"counts": [1, 2.0]}, "counts[1]"),
    ],
)
def test_the_first_part_of_another_shape_is_named(content, place):
    assert first_mismatch(content, SHAPE) == place


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 200_000, b'{"a":' * 100_000, b"\xff\xfe\x00", b"1" * 10_000])
def test_invalid_json_is_one_error(data):
    with pytest.raises(ValueError, match=r"."):
        parse(data)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.json")
    with pytest.raises(ValueError, match="not a regular file"):
        read(tmp_path / "x.json")


def test_a_file_that_would_fill_memory_is_refused(tmp_path):
    (tmp_path / "x.json").touch()
    os.truncate(tmp_path / "x.json", MAX_FILE_BYTES + 1)  # a sparse file, which takes no space
    with pytest.raises(ValueError, match="more than the maximum"):
        read(tmp_path / "x.json")
