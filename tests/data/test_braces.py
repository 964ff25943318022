"""Brace patterns are counted before they are expanded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from webdataset.shardlists import expand_urls

from jahp_pl.data.braces import count_names
from jahp_pl.data.index import DataError
from jahp_pl.data.urls import expand_shards


@pytest.mark.parametrize(
    "pattern",
    ["a.tar", "{000..017}.tar", "{3..-2}", "{0..9..4}", "{a,b,c}", "{a,{1..3}}-{x,y}", "{one}", "a{b{1..2}}", "{a,}"],
)
def test_the_count_is_that_of_the_names(pattern: str) -> None:
    assert count_names(pattern) == len(expand_urls(pattern))


@pytest.mark.parametrize("pattern", ["{0000..9999}{0000..9999}", "{0..99999999}", 30 * "{a,b}"])
@pytest.mark.parametrize("prefix", ["", "http://localhost/"])
def test_a_pattern_for_more_names_than_any_corpus_has_shards_is_refused_at_once(prefix: str, pattern: str) -> None:
    began = time.process_time()
    with pytest.raises(DataError, match=r"data\.train: .*expands to [\d,]+ names"):
        expand_shards([f"{prefix}{pattern}.tar"], "data.train")
    assert time.process_time() - began < 1


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x.tar", "~shards", "file:~nobody-of-this-name"])
def test_a_name_may_begin_with_a_tilde(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="~"):
        expand_shards([name], "data.train")
    (tmp_path / "~shards").mkdir()
    (tmp_path / "~shards" / "a.tar").write_bytes(bytes(10240))
    assert expand_shards(["~shards/*.tar"], "data.train").urls == [str(tmp_path / "~shards" / "a.tar")]
