"""The index of a folder of shards is checked before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from jahp_pl.data.index import DataError, ShardIndex


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "damaged"),
        ("[]", "damaged"),
        ('{"format": "jahp-shards", "version": 1}', "damaged"),
        ('{"format": "other"}', "not an index of shards"),
        ('{"format": "jahp-shards", "version": 2, "shards": []}', "later version"),
    ],
)
def test_an_unusable_index_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(DataError, match=rf"index\.json: .*{message}"):
        ShardIndex.load(tmp_path)
