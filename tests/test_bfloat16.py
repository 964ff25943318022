"""The choice between bfloat16 and float32."""

from __future__ import annotations

import torch

from jahp_pl.bfloat16 import prefers_bfloat16


def test_the_choice_does_not_depend_on_the_load_or_on_the_callers_settings() -> None:
    cpu = torch.device("cpu")
    first = prefers_bfloat16(cpu)
    with torch.autocast("cpu", torch.bfloat16):
        assert prefers_bfloat16(cpu) is first
    assert prefers_bfloat16(cpu) is first


def test_amx_always_prefers_bfloat16() -> None:
    if torch.cpu.get_capabilities().get("amx_bf16", False):
        assert prefers_bfloat16(torch.device("cpu"))


def test_other_devices_compute_in_float32() -> None:
    assert not prefers_bfloat16(torch.device("meta"))
