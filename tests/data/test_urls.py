"""Entries of every form name the same shards, and what names none is refused."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path

import pytest

from jahp_pl.data.index import DataError
from jahp_pl.data.pipeline import WholeImages
from jahp_pl.data.urls import expand_shards
from tests.support.photo_shards import names, pack, photo_bytes, same, stream, take, write_val_shards


def test_every_form_of_entry_finds_the_shards(train_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(train_shards / f"shard-{i:06d}.tar") for i in range(4)]
    assert expand_shards([str(train_shards)], "k").urls == paths
    assert expand_shards([f"{train_shards}/*.tar"], "k").urls == paths
    assert expand_shards([f"{train_shards}/shard-{{000000..000003}}.tar"], "k").urls == paths
    assert expand_shards([f"file:{paths[1]}", f"file://{paths[0]}"], "k").urls == [paths[1], paths[0]]
    assert expand_shards(paths[2:], "k").urls == paths[2:]
    monkeypatch.chdir(train_shards)
    assert expand_shards(["shard-00000?.tar"], "k").urls == paths
    assert expand_shards(["pipe:cat {a..c}.tar"], "k").urls == [f"pipe:cat {x}.tar" for x in "abc"]
    assert expand_shards(["https://host/x-{0..1}.tar"], "k").urls == ["https://host/x-0.tar", "https://host/x-1.tar"]


def test_entries_that_match_nothing_are_named(train_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.tar").touch()
    cases = {
        "gone.tar": r"data\.train: .*gone\.tar: no such shard",
        "x-{0..3}.tar": r"x-0\.tar: no such shard",
        "*.tgz": r"no shard matches",
        "folder": r"folder: no index\.json in this folder",
        "empty.tar": r"empty\.tar: is empty",
    }
    for entry, message in cases.items():
        with pytest.raises(DataError, match=message):
            expand_shards([str(tmp_path / entry)], "data.train")
    with pytest.raises(DataError, match=r"data\.train: no shards given"):
        expand_shards([], "data.train")


def test_a_shard_named_in_the_index_but_missing_is_named(tmp_path: Path) -> None:
    folder = Path(write_val_shards(tmp_path))
    (folder / "shard-000001.tar").unlink()
    with pytest.raises(DataError, match=r"shard-000001\.tar: no such shard"):
        expand_shards([str(folder)], "data.val")


def test_names_with_special_characters_are_still_paths(tmp_path: Path) -> None:
    url = pack(tmp_path / "a:b {1} [x] #?.tar", {"a.b.c/photo.jpg": photo_bytes("moon")})
    assert names(list(WholeImages(expand_shards([url], "data.val").urls))) == ["photo"]


def test_shards_come_over_pipes_and_http(train_shards: Path) -> None:
    handler = functools.partial(QuietHandler, directory=str(train_shards))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        web = f"http://127.0.0.1:{server.server_port}/shard-{{000000..000003}}.tar"
        urls = {
            "local": expand_shards([str(train_shards)], "data.val").urls,
            "pipe": expand_shards([f"pipe:cat '{train_shards}'/shard-{{000000..000003}}.tar"], "data.val").urls,
            "http": expand_shards([web], "data.val").urls,
        }
        found = {kind: names(list(WholeImages(given))) for kind, given in urls.items()}
        crops = {kind: take(stream(given), 3) for kind, given in urls.items()}  # ends in the middle of a shard
        server.shutdown()
    assert len(found["local"]) == 36
    assert found["pipe"] == found["http"] == found["local"]
    assert same(crops["pipe"], crops["local"])
    assert same(crops["http"], crops["local"])


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass
