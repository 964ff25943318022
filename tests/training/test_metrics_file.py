"""Rows of metrics.csv are read even if the file is being written, was cut short, or is damaged."""

from __future__ import annotations

import pytest

from jahp_pl.sweeping.run_state import last_values
from jahp_pl.training.loggers import CsvLogger
from jahp_pl.training.metrics_file import read_rows, step_of

GOOD = "step,train/loss,val/loss\n1,0.5,\n2,0.4,0.45\n"
DAMAGES = {
    "cut short": "3,0.3",
    "a field of megabytes": f"3,{'9' * 2_000_000},\n",
    "a quote that is not closed": '3,"' + 200_000 * "x",
    "a step of thousands of digits": f"{'9' * 5000},0.3,\n",
    "a digit that is not decimal": "\u00b2,0.3,\n",
    "too many columns": "3,0.3,0.3,0.3\n",
    "no text": "\x00\udcff,\x00,\n",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_rows_are_left_out(damage, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_bytes((GOOD + damage).encode(errors="surrogateescape"))
    assert [step_of(row) for row in read_rows(path) if step_of(row) is not None] == [1, 2]
    assert last_values(tmp_path)["val/loss"] == 0.45
    logger = CsvLogger(path)
    logger.resume(2)
    logger.log_metrics({"train/loss": 0.3}, step=3)
    assert [step_of(row) for row in read_rows(path)] == [1, 2, 3]
