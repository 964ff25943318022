"""A few hundred of the damaged files of `make fuzz` do no harm, and real faults would be detected."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterable
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checks.fuzz import input_kinds, misbehaving, mutate
from checks.fuzz.corpus import PROFILE, SIZES, subjects
from checks.fuzz.input_kinds import INPUT_KINDS
from checks.fuzz.input_worker import read_case
from checks.fuzz.mutate import STRATEGIES, damaged_case, put_together, take_apart
from checks.fuzz.outcome import Outcome
from checks.fuzz.pool import Pool
from checks.fuzz.run import fuzz, summary
from jahp_pl.codec.bitstream import Header, pack
from jahp_pl.errors import JahpError

UNCHECKED = ("flipped_bits", "other_bytes", "truncated", "extended", "spliced", "garbage")
PARTS_FILE = pack(Header(b"8 bytes!", 300, 200, -5, 9, PROFILE), bytes(range(40)))


def test_hundreds_of_damaged_files_decode_or_raise_bitstream_error(tmp_path: Path) -> None:
    tally = fuzz(seed=1, first=0, cases=300, workers=1, state=tmp_path, quiet=True)
    assert tally.failures == []
    assert tally.cases == 300
    report = summary(tally, seed=1, first=0)
    assert report["outcomes"]["refused"] > 200
    assert report["outcomes"]["decoded"] > 3, "none got through: the insides were not reached"
    assert sum("does not decode" in reason for reason in report["refusals"]) == 1
    assert tally == fuzz(seed=1, first=0, cases=300, workers=0, state=tmp_path, quiet=True), "what is done is kept"


def test_damaged_files_derive_from_valid_ones_of_all_sizes_and_models() -> None:
    known = subjects()
    assert len({subject.codec.fingerprint for subject in known}) == len(known) == 7
    for subject in known:
        sizes = [tuple(subject.codec.decode(data).image.shape[1:]) for data in subject.files]
        assert sizes == list(SIZES)


def test_a_case_depends_on_nothing_but_its_seed_and_number() -> None:
    corpus = [[PARTS_FILE], [pack(Header(b"8 others", 3, 2, 0, 0), b"")]]
    cases = [damaged_case(7, number, corpus) for number in range(400)]
    assert cases == [damaged_case(7, number, corpus) for number in range(400)]
    assert cases != [damaged_case(8, number, corpus) for number in range(400)]
    assert {one.strategy for one in cases} == {strategy.__name__ for strategy in STRATEGIES}
    assert {one.subject for one in cases} == {0, 1}


@pytest.mark.parametrize(
    "more", [{}, {"level_steps": 0}, {"level_steps": 700, "is_gray": True}, {"is_gray": True}], ids=str
)
def test_a_file_reassembled_from_its_parts_is_identical(more: dict[str, Any]) -> None:
    data = pack(Header(b"8 bytes!", 300, 200, -5, 9, PROFILE, **more), bytes(range(40)))
    assert put_together(take_apart(data)) == data


def test_damaged_inputs_of_every_kind_are_read_or_refused_in_plain_words(tmp_path: Path) -> None:
    counts = fuzz(seed=1, first=0, cases=64, workers=1, state=tmp_path, target="inputs", quiet=True)
    assert counts.failures == []
    assert set(counts.by_strategy) == set(INPUT_KINDS)
    assert all(sum(counts.by_strategy[kind].values()) == 8 for kind in INPUT_KINDS)
    assert sum(found["decoded"] for found in counts.by_strategy.values()) > 5


def test_the_inputs_of_every_kind_are_valid_before_they_are_mutated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise every case would be refused for the same reason."""
    for name in (
        "mutated_json",
        "mutated_text",
        "mutated_bytes",
        "mutated_tar",
        "mutated_checkpoint",
        "mutated_export",
    ):
        monkeypatch.setattr(input_kinds, name, lambda _, content: content)
    monkeypatch.setattr(input_kinds, "mutated_tree", lambda _, content: content)
    monkeypatch.setattr(input_kinds, "mutated_checkpoint", lambda _, content: saved(content))
    for name in INPUT_KINDS:
        if name not in ("index", "settings", "results"):  # a wrong digest, pairs of numbers, another model
            assert read_case(*input_kinds.input_case(0, 0, (name,))) == ("decoded", ""), name


def saved(content: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (JahpError("config.json: is damaged; export the model again"), "refused"),
        (JahpError("config.json: 'NoneType' object is not subscriptable"), "failed"),
        (JahpError("x" * 2000), "failed"),
        (KeyError("fault"), "failed"),
        (None, "decoded"),
    ],
    ids=str,
)
def test_an_error_in_foreign_words_or_of_another_type_fails(
    error: Exception | None, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_badly(folder: Path) -> None:
        if error is not None:
            raise error

    monkeypatch.setitem(INPUT_KINDS, "metrics", INPUT_KINDS["metrics"]._replace(read=read_badly))
    assert read_case("metrics", {"x": b""})[0] == outcome


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s.__name__ not in UNCHECKED], ids=lambda s: s.__name__)
def test_the_checksum_is_repaired(strategy: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its place depends on lengths in the header, which may be wrong, but some place must hold it."""
    assert callable(strategy)
    for seed in range(20):
        data = strategy(np.random.default_rng(seed), PARTS_FILE, pack(Header(b"8 others", 30, 20, 0, 3), b"payload."))
        places = range(13 + 6, min(len(data) - 3, 13 + 40))
        assert any(
            zlib.crc32(data[:at] + data[at + 4 :]) == int.from_bytes(data[at : at + 4], "little") for at in places
        )


def test_a_case_that_hangs_or_kills_its_process_fails_and_the_others_complete() -> None:
    with Pool(0, 2, misbehaving.work, limit=0.5) as pool:
        outcomes = {outcome.number: outcome for outcome in pool.run(range(8))}
    assert sorted(outcomes) == list(range(8))
    assert {number for number, outcome in outcomes.items() if outcome.result == "failed"} == {1, 3, 5}
    assert "took more than 0.5 s" in outcomes[1].detail
    assert "died: exit code 9" in outcomes[3].detail


class BrokenError(Exception):
    """Error that is not a `BitstreamError`."""


def break_codec(connection: Connection, seed: int) -> None:
    """Run the real worker on a codec with a fault: an error of another type, too much memory, too much time."""
    from checks.fuzz import worker
    from jahp_pl.codec.codec import Codec

    decode, calls = Codec.decode, count()

    def faulty(self: Codec, data: bytes, max_pixels: int = 0) -> object:
        call = next(calls) if max_pixels == mutate.SMALL_PIXELS else -1
        if call == 0:
            raise BrokenError("fault")
        if call == 1:
            np.ones(2**28)  # 2 GiB
        while call == 2:
            pass
        return decode(self, data, max_pixels or 2**27)

    Codec.decode = faulty  # type: ignore[assignment]
    worker.CPU_LIMIT = 1
    worker.work(connection, seed)


def test_another_exception_too_much_memory_and_too_much_time_fail() -> None:
    def run(numbers: Iterable[int]) -> list[Outcome]:
        with Pool(0, 1, break_codec) as pool:
            return list(pool.run(numbers))

    details = [outcome.detail for outcome in run(range(4)) if outcome.result == "failed"]
    assert any("BrokenError: fault" in detail for detail in details)
    assert any("processor time" in detail for detail in details)
    assert any("MemoryError" in detail or "Unable to allocate" in detail for detail in details)
