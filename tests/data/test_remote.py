"""Shards come from servers and commands, or fail in time; nothing waits forever."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jahp_pl.data.index import DataError
from jahp_pl.data.prepare import ShardOptions
from jahp_pl.data.remote import READ_BYTES, open_shard
from jahp_pl.data.shard_reader import Photo, ShardReader
from jahp_pl.data.shards import write_shards
from jahp_pl.data.urls import expand_shards
from tests.support.shard_servers import PATIENT, RETRIED, SOON, ShardServer, serving

PHOTOS = Path(__file__).parents[2] / "data" / "photos"
LIMIT = 0.5
"""Seconds that a block may take from a server that hangs."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "val"
    write_shards([PHOTOS / "val"], out, ShardOptions(shuffle=False, shard_samples=2))
    return out


@pytest.fixture
def server(shards: Path) -> Iterator[ShardServer]:
    with serving(shards) as running:
        yield running


def read(url: str, timeout: float = PATIENT) -> bytes:
    with open_shard(url, timeout) as stream:
        return stream.read()


FIRST = "shard-000000.tar"


def test_a_shard_comes_from_a_server_byte_for_byte(server: ShardServer, shards: Path) -> None:
    data = (shards / FIRST).read_bytes()
    assert len(data) > READ_BYTES
    assert read(server.address(FIRST)) == data
    assert server.requests == {f"GET {FIRST}": 1}


@pytest.mark.parametrize("fault", ["close early", "hang in the middle", "hang", "503", "429"])
def test_a_temporary_fault_costs_only_time(server: ShardServer, shards: Path, fault: str) -> None:
    server.faults[FIRST] = (fault, 2)
    assert read(server.address(FIRST), 2 * LIMIT if "hang" in fault else RETRIED) == (shards / FIRST).read_bytes()
    assert server.requests[f"GET {FIRST}"] == 3


def test_a_server_without_ranges_starts_over(server: ShardServer, shards: Path) -> None:
    with open_shard(server.address(FIRST), PATIENT) as stream:
        start = stream.read(READ_BYTES)
        server.faults[FIRST] = ("no ranges", 1)
        stream.raw._disconnect()  # type: ignore[attr-defined]
        assert start + stream.read() == (shards / FIRST).read_bytes()
    assert server.requests[f"GET {FIRST}"] == 2


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("hang", "nothing or too little received within 0.5 s, 3 times in a row"),
        ("drip", "nothing or too little received within 0.5 s, 3 times in a row"),
        ("hang in the middle", "nothing or too little received within 0.5 s, 3 times in a row"),
        ("503", "HTTP status 503, 3 times in a row"),
        ("403", "HTTP status 403"),
    ],
)
def test_a_permanent_fault_ends_within_its_time(server: ShardServer, fault: str, message: str) -> None:
    server.faults[FIRST] = (fault, 99)
    start = time.monotonic()
    with pytest.raises(OSError, match=f"^{message}$"):
        read(server.address(FIRST), LIMIT)
    assert time.monotonic() - start < SOON


def test_a_shard_that_changes_while_it_is_read_is_refused(shards: Path, tmp_path: Path) -> None:
    shutil.copy(shards / FIRST, tmp_path)
    with serving(tmp_path) as server, open_shard(server.address(FIRST), RETRIED) as stream:
        stream.read(READ_BYTES)
        stream.raw._disconnect()  # type: ignore[attr-defined]
        (tmp_path / FIRST).write_bytes((shards / FIRST).read_bytes() + bytes(512))
        with pytest.raises(OSError, match="changed on the server"):
            stream.read()


def test_a_login_in_the_address_is_sent_as_such(server: ShardServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    answer = server.RequestHandlerClass.answer  # type: ignore[attr-defined]

    def record(handler, with_body: bool) -> None:  # type: ignore[no-untyped-def]
        sent.append(handler.headers.get("Authorization"))
        answer(handler, with_body)

    monkeypatch.setattr(server.RequestHandlerClass, "answer", record)
    read(server.address(FIRST).replace("127.0.0.1", "me:a%20b@127.0.0.1"))
    assert sent == [f"Basic {base64.b64encode(b'me:a b').decode()}"]


def test_a_command_that_hangs_is_stopped_with_all_it_started(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"the command returned nothing or too little within 2 s"):
        read(f"pipe:echo $$ > '{tmp_path}/pid'; sleep 77 | cat", 2.0)
    assert time.monotonic() - start < SOON
    group = (tmp_path / "pid").read_text().strip()
    while time.monotonic() - start < 2 * SOON and running(group):
        time.sleep(0.02)
    assert running(group) == []


def running(group: str) -> list[str]:
    """Return the states of the processes of a group that are still running."""
    states = subprocess.run(["ps", "-o", "stat=", "-g", group], capture_output=True, text=True, check=False).stdout
    return [state for state in states.split() if not state.startswith("Z")]


def test_a_command_that_fails_after_its_output_is_an_error(shards: Path) -> None:
    assert read(f"pipe:cat '{shards / FIRST}'") == (shards / FIRST).read_bytes()
    with pytest.raises(OSError, match="the command failed with status 3"):
        read(f"pipe:cat '{shards / FIRST}'; exit 3")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://me:secret@host/x.tar", "ftp://host/x.tar: addresses with ftp: are not supported; use a path, http"),
        ("FTP://host/x.tar", "addresses with ftp: are not supported"),
        ("carrier-pigeon://roof/", "addresses with carrier-pigeon: are not supported"),
        ("s3://bucket/x.tar", "needs the command aws, which is not installed; install it"),
        ("gs://bucket/x.tar", "needs the command gsutil, which is not installed; install it"),
        ("http:///x.tar", r"is not a valid address \(it names no host\); correct it"),
        ("http://[::1/x.tar", "is not a valid address .*; correct it"),
        ("https://host:99999/", "is not a valid address .*; correct it"),
        ("https://a..b/x.tar", "is not a valid address .*; correct it"),
        (f"https://{'a' * 64}/x.tar", "is not a valid address .*; correct it"),
        ("https://host/\ud800.tar", "is not a valid address .*; correct it"),
        ("pipe:cat x\0.tar", r"is not a valid address \(it contains a null character\); correct it"),
    ],
)
def test_an_address_that_nothing_can_read_is_refused_at_once(
    url: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DataError, match=f"data.val: .*{message}"):
        expand_shards([url], "data.val", PATIENT)
    with pytest.raises(OSError, match=message.removeprefix("ftp://host/x.tar: ")):
        open_shard(url, PATIENT)


def test_a_stream_left_in_the_middle_leaves_no_process(tmp_path: Path) -> None:
    stream = open_shard(f"pipe:echo $$ > '{tmp_path}/pid'; cat /dev/zero", PATIENT)
    assert stream.read(10) == bytes(10)
    stream.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.skipif(shutil.which("aws") is None, reason="needs the aws command")
def test_shards_come_from_s3(server: ShardServer, shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test server answers the requests of `aws s3 cp`; a bucket is one of its folders."""
    (shards / "bucket").mkdir(exist_ok=True)
    shutil.copy(shards / FIRST, shards / "bucket")
    for name, value in {
        "AWS_ENDPOINT_URL": server.address(), "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert read(f"s3://bucket/{FIRST}", PATIENT) == (shards / FIRST).read_bytes()
    with pytest.raises(OSError, match="the command failed with status 1"):
        read("s3://bucket/gone.tar", PATIENT)


def test_a_url_of_a_folder_means_the_shards_of_its_index(server: ShardServer) -> None:
    for end in ("", "index.json"):
        shards = expand_shards([server.address(end)], "data.train", PATIENT)
        assert shards.urls == [server.address(f"shard-00000{i}.tar") for i in range(2)]
        assert [shards.index_entries[url].samples for url in shards.urls] == [2, 2]


def test_a_shard_whose_server_hangs_is_one_broken_item_and_the_next_is_read(server: ShardServer) -> None:
    server.faults[FIRST] = ("hang", 99)
    urls = expand_shards([server.address()], "data.val", PATIENT).urls
    items = list(ShardReader(2 * LIMIT).read(urls))
    assert [(item.name, isinstance(item, Photo)) for item in items] == [
        (urls[0], False), (f"{urls[1]}/00000002_peaks.jpg", True), (f"{urls[1]}/00000003_stonehenge.jpg", True)
    ]  # fmt: skip
