"""Processes that run at once share the machine."""

from __future__ import annotations

import pytest

from jahp_pl.sweeping.processes import environments


def test_workers_share_gpus_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert environments(1, 1) == [{}]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in environments(3, 2)] == ["0,1", "2,3", "0,1"]
    assert all(int(share["OMP_NUM_THREADS"]) >= 1 for share in environments(3, 2))
    assert all("CUDA_VISIBLE_DEVICES" not in share for share in environments(3, 0))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in environments(2, 1)] == ["5", "7"]
