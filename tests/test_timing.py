"""Comparison of the times of calls."""

from __future__ import annotations

from jahp_pl.timing import TRIALS, shortest_times


def test_functions_take_turns_and_each_gets_its_own_time() -> None:
    called: list[str] = []
    times = shortest_times(lambda: called.append("first"), lambda: called.append("second"))
    assert called == ["first", "second"] * TRIALS
    assert len(times) == 2
    assert min(times) >= 0
