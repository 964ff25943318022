"""The fastest number of threads is found while a loop runs, and the caller's number is restored."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from jahp_pl.codec.entropy.thread_tuner import MAX_SLOW_STEPS, SLOW_FACTOR, TRIAL_STEPS, ThreadTuner


@pytest.fixture
def threads() -> Iterator[None]:
    """Use eight threads, however many cores the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


class Machine:
    """Simulated clock on which a step's duration depends on the number of threads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> None:
        self.now, self.seconds = 0.0, seconds
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def run(self, tuner: ThreadTuner, steps: int) -> list[int]:
        """Return the threads in use at each step."""
        used = []
        for _ in range(steps):
            tuner.step()
            used.append(torch.get_num_threads())
            self.now += self.seconds[used[-1]]
        return used


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("fastest", [1, 2, 4, 8])
def test_the_fastest_number_is_found_and_kept(fastest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {count: 1.0 if count == fastest else 1.5 for count in (1, 2, 4, 8)})
    with ThreadTuner() as tuner:
        used = machine.run(tuner, 4 * TRIAL_STEPS + 50)
    assert set(used[: 4 * TRIAL_STEPS]) == {1, 2, 4, 8}
    assert set(used[4 * TRIAL_STEPS + 1 :]) == {fastest}
    assert torch.get_num_threads() == 8


@pytest.mark.usefixtures("threads")
def test_a_single_slow_step_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {1: 3.0, 2: 2.0, 4: 1.0, 8: 2.0})
    with ThreadTuner() as tuner:
        machine.run(tuner, 3)
        machine.now += 1000
        machine.run(tuner, 4 * TRIAL_STEPS)
        assert torch.get_num_threads() == 4
        for _ in range(5):
            machine.now += 1000
            machine.run(tuner, MAX_SLOW_STEPS - 1)
        assert torch.get_num_threads() == 4


@pytest.mark.usefixtures("threads")
def test_steps_that_stay_slow_lead_back_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, {1: 3.0, 2: 2.0, 4: 1.0, 8: 2.0})
    with ThreadTuner() as tuner:
        machine.run(tuner, 4 * TRIAL_STEPS + 5)
        assert torch.get_num_threads() == 4
        machine.seconds[4] = 3.0 * SLOW_FACTOR + 0.1  # another process takes the cores
        used = machine.run(tuner, MAX_SLOW_STEPS + 5)
        assert used[: MAX_SLOW_STEPS - 1] == [4] * (MAX_SLOW_STEPS - 1)
        assert used[-1] == 1
        machine.seconds[1] = 100.0
        assert set(machine.run(tuner, 20)) == {1}, "for the rest"
    assert torch.get_num_threads() == 8


@pytest.mark.usefixtures("threads")
def test_the_callers_number_is_restored_after_an_error() -> None:
    def fail() -> None:
        with ThreadTuner() as tuner:
            for _ in range(5):
                tuner.step()
            raise KeyError("inside")

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == 8


@pytest.mark.parametrize("count", [1, 2, 3])
def test_never_more_threads_than_the_caller_has(count: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        with ThreadTuner() as tuner:
            used = set()
            for _ in range(60):
                tuner.step()
                used.add(torch.get_num_threads())
        assert used <= set(range(1, count + 1))
        assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
