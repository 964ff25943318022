"""Downloaded shards are cached whole, once for all processes, within a size limit; damage is detected and repaired."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from jahp_pl.data.cache import ShardCache
from jahp_pl.data.index import DataError, Skipped
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.shard_reader import Photo, ShardReader
from jahp_pl.data.shards import write_shards
from jahp_pl.data.urls import expand_shards
from jahp_pl.files.locks import hold_lock
from tests.support.shard_servers import ShardServer, serving

PHOTOS = Path(__file__).parents[2] / "data" / "photos"
LIMIT = 0.5
FIRST = "shard-000000.tar"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four shards of one photograph each."""
    write_shards([PHOTOS / "val"], tmp_path / "source", ShardOptions(shuffle=False, shard_samples=1))
    return tmp_path / "source"


@pytest.fixture
def server(source: Path) -> Iterator[ShardServer]:
    with serving(source) as running:
        yield running


def cache(server: ShardServer, folder: Path, is_indexed: bool = True, max_bytes: int = 10**9) -> ShardCache:
    index = expand_shards([server.address()], "data.train").index_entries if is_indexed else {}
    server.requests.clear()
    return ShardCache(folder / "cache", max_bytes, LIMIT, index)


def read(shards: ShardCache, url: str) -> bytes:
    with shards.open(url) as file:
        return file.read()


def kept(folder: Path) -> list[Path]:
    return [path for path in (folder / "cache").iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("is_indexed", [True, False])
def test_a_shard_is_downloaded_once(server: ShardServer, source: Path, tmp_path: Path, is_indexed: bool) -> None:
    shards = cache(server, tmp_path, is_indexed)
    for _ in range(3):
        assert read(shards, server.address(FIRST)) == (source / FIRST).read_bytes()
    assert server.requests == {f"GET {FIRST}": 1}
    assert len(kept(tmp_path)) == 1


def test_a_cached_shard_is_compared_with_the_index_on_every_open(
    server: ShardServer, source: Path, tmp_path: Path
) -> None:
    """An equal size proves nothing: the shard may have been published anew, or the disk may have lost a bit."""
    url, data = server.address(FIRST), (source / FIRST).read_bytes()
    assert read(cache(server, tmp_path), url) == data
    (file,) = kept(tmp_path)
    file.write_bytes(data[:1000] + bytes([data[1000] ^ 1]) + data[1001:])
    assert read(cache(server, tmp_path), url) == data
    write_shards([PHOTOS / "val"], source, ShardOptions(seed=1, shard_samples=1), overwrite=True)
    other = (source / FIRST).read_bytes() + bytes(10240)
    padded = data + bytes(len(other) - len(data))
    (source / FIRST).write_bytes(other)
    index = (source / "index.json").read_text()
    for shard in json.loads(index)["shards"][:1]:
        index = index.replace(shard["sha256"], hashlib.sha256(other).hexdigest())
        index = index.replace(f'"bytes": {shard["bytes"]}', f'"bytes": {len(other)}')
    (source / "index.json").write_text(index)
    next(iter(kept(tmp_path))).write_bytes(padded)
    assert read(cache(server, tmp_path), url) == other


def test_without_a_cache_a_download_that_differs_from_its_index_is_broken(server: ShardServer, source: Path) -> None:
    index_entries = expand_shards([server.address()], "data.train").index_entries
    url, data = server.address(FIRST), bytearray((source / FIRST).read_bytes())
    (photo,) = ShardReader(LIMIT, index_entries=index_entries).read([url])
    assert isinstance(photo, Photo)
    data[-1] ^= 1  # after the end mark, which no tar reader checks
    (source / FIRST).write_bytes(data)
    reader = ShardReader(LIMIT, index_entries=index_entries)
    photo, skipped = reader.read([url])
    assert isinstance(photo, Photo)
    assert skipped == Skipped(url, "broken", "does not match its index.json")
    assert reader.take_counts().broken_shards == 1


def test_two_folders_with_the_same_names_are_not_mixed_up(server: ShardServer, source: Path, tmp_path: Path) -> None:
    (source / "other").mkdir()
    shutil.copy(source / "shard-000001.tar", source / "other" / FIRST)
    shards = cache(server, tmp_path)
    assert read(shards, server.address(f"other/{FIRST}")) == (source / "shard-000001.tar").read_bytes()
    assert read(shards, server.address(FIRST)) == (source / FIRST).read_bytes()


def open_often(url: str, folder: str, start, sizes) -> None:  # type: ignore[no-untyped-def]
    start.wait()
    shards = ShardCache(Path(folder), 10**9, 5.0, {})
    for _ in range(3):
        with shards.open(url) as file:
            sizes.put(len(file.read()))


def test_processes_wait_for_the_one_that_downloads(server: ShardServer, source: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    start, sizes = context.Barrier(4), context.Queue()
    arguments = (server.address(FIRST), str(tmp_path / "cache"), start, sizes)
    processes = [context.Process(target=open_often, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    found = [sizes.get(timeout=30) for _ in range(12)]
    for process in processes:
        process.join()
    assert set(found) == {(source / FIRST).stat().st_size}
    assert server.requests == {f"GET {FIRST}": 1}


@pytest.mark.parametrize("is_indexed", [True, False])
@pytest.mark.parametrize("fault", ["hang", "503"])
def test_a_download_that_fails_leaves_nothing(
    server: ShardServer, tmp_path: Path, fault: str, is_indexed: bool
) -> None:
    shards = cache(server, tmp_path, is_indexed)
    server.faults[FIRST] = (fault, 3)
    with pytest.raises(OSError, match="3 times in a row"):
        shards.open(server.address(FIRST))
    assert kept(tmp_path) == []
    shards.open(server.address(FIRST)).close()


def test_a_shard_that_differs_from_the_index_is_never_used(server: ShardServer, source: Path, tmp_path: Path) -> None:
    shards = cache(server, tmp_path)
    data = bytearray((source / FIRST).read_bytes())
    data[2000] ^= 1
    (source / FIRST).write_bytes(data)
    with pytest.raises(OSError, match=r"downloaded 2 times, does not match its index\.json"):
        shards.open(server.address(FIRST))
    assert kept(tmp_path) == []


def test_without_an_index_a_shard_that_is_damaged_at_its_origin_gives_what_it_holds(
    server: ShardServer, source: Path, tmp_path: Path
) -> None:
    (source / FIRST).write_bytes((source / FIRST).read_bytes()[:5000])
    reader = ShardReader(LIMIT, cache(server, tmp_path, is_indexed=False))
    for _ in range(2):
        [item] = reader.read([server.address(FIRST)])
        assert isinstance(item, Skipped)
        assert "dogs" in item.detail
    assert server.requests == {f"GET {FIRST}": 2}  # the second shows that the origin is damaged
    assert [path.suffix for path in kept(tmp_path)] == [".cut"]


@pytest.mark.parametrize("is_indexed", [True, False])
@pytest.mark.parametrize("damage", ["cut short", "a header lost", "emptied"])
def test_a_shard_damaged_in_the_cache_is_downloaded_again_and_no_photograph_is_lost(
    server: ShardServer, source: Path, tmp_path: Path, damage: str, is_indexed: bool
) -> None:
    write_shards([PHOTOS / "val"], source, ShardOptions(shuffle=False), overwrite=True)
    url = server.address(FIRST)
    reader = ShardReader(LIMIT, cache(server, tmp_path, is_indexed))
    names = [item.name for item in reader.read([url])]
    assert len(names) == 4
    [path] = kept(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "a header lost":
        third = data.index(b"00000002_peaks")
        data[third : third + 512] = bytes([7]) * 512
    path.write_bytes({"cut short": data[: len(data) // 2], "a header lost": data, "emptied": b""}[damage])
    items = list(reader.read([url]))
    assert [item.name for item in items] == names
    assert all(isinstance(item, Photo) for item in items)
    assert server.requests == {f"GET {FIRST}": 2}
    assert path.read_bytes() == (source / FIRST).read_bytes()


def test_the_folder_stays_within_its_bound_and_keeps_what_was_used_last(
    server: ShardServer, source: Path, tmp_path: Path
) -> None:
    urls = [server.address(f"shard-00000{i}.tar") for i in range(4)]
    sizes = [(source / f"shard-00000{i}.tar").stat().st_size for i in range(4)]
    shards = cache(server, tmp_path, max_bytes=sum(sizes) - 1)
    for url in urls[:3]:
        read(shards, url)
    for age, path in enumerate(sorted(kept(tmp_path), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (1000 + age, 1000 + age))
    read(shards, urls[0])
    read(shards, urls[3])
    assert sum(path.stat().st_size for path in kept(tmp_path)) < sum(sizes)
    server.requests.clear()
    for url in (urls[0], urls[2], urls[3]):
        read(shards, url)
    assert not server.requests
    read(shards, urls[1])
    assert server.requests == {"GET shard-000001.tar": 1}


def test_a_shard_larger_than_the_bound_is_still_read(server: ShardServer, source: Path, tmp_path: Path) -> None:
    shards = cache(server, tmp_path, max_bytes=1)
    for name in (FIRST, "shard-000001.tar"):
        assert read(shards, server.address(name)) == (source / name).read_bytes()
    assert len(kept(tmp_path)) == 1


def test_leftovers_of_a_killed_process_are_overwritten_or_removed(server: ShardServer, tmp_path: Path) -> None:
    shards = cache(server, tmp_path)
    read(shards, server.address(FIRST))
    [path] = kept(tmp_path)
    path.rename(path.with_suffix(".part"))
    read(shards, server.address(FIRST))
    assert kept(tmp_path) == [path]
    path.with_name("gone.part").touch()
    read(shards, server.address("shard-000001.tar"))
    assert not path.with_name("gone.part").exists()


def test_a_download_in_progress_stays_whatever_the_clock_says(server: ShardServer, tmp_path: Path) -> None:
    shards = cache(server, tmp_path)
    part = tmp_path / "cache" / "other.part"
    with hold_lock(part.with_suffix(".lock")):
        part.touch()
        os.utime(part, (1000, 1000))
        read(shards, server.address(FIRST))
        assert part.exists()
    read(shards, server.address("shard-000001.tar"))
    assert not part.exists()


def test_a_folder_that_cannot_be_written_ends_the_stream_with_the_setting_named(
    server: ShardServer, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file in its place")
    reader = ShardReader(LIMIT, cache(server, tmp_path))
    with pytest.raises(DataError, match=rf"data\.cache_dir: {tmp_path / 'cache'}: cannot be written"):
        list(reader.read([server.address(FIRST)]))


def test_local_shards_are_not_copied(source: Path, tmp_path: Path) -> None:
    reader = ShardReader(LIMIT, ShardCache(tmp_path / "cache", 10**9, LIMIT, {}))
    assert len(list(reader.read([str(source / FIRST)]))) == 1
    assert not (tmp_path / "cache").exists()
