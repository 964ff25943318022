"""oneDNN's products of integers are exact under all circumstances, and torch computes them where it is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from jahp_pl.codec import packed_weights
from jahp_pl.codec.packed_weights import multiply, pack_if_faster, pack_weight
from jahp_pl.codec.torch_settings import full_precision
from tests.support.circumstances import changed


def integers(num_rows: int, num_in: int, num_out: int) -> tuple[Tensor, Tensor]:
    """Create rows and weights whose products add up to almost 2^24."""
    rows, weight = torch.randint(-1024, 1025, (num_rows, num_in)), torch.randint(-99, 100, (num_in, num_out))
    weight = weight * (2**14 // num_in) // 100
    assert int((rows.abs() @ weight.abs()).max()) < 2**24
    return rows.float(), weight.float()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("num_rows", [1, 3, 11, 16, 64, 500])
@pytest.mark.parametrize(("num_in", "num_out"), [(1, 1), (7, 5), (144, 24), (640, 512)])
def test_products_of_integers_are_exact(threads: int, num_rows: int, num_in: int, num_out: int) -> None:
    rows, weight = integers(num_rows, num_in, num_out)
    with changed(torch.set_num_threads, threads, torch.get_num_threads()):
        found = multiply(rows, weight, pack_weight(weight))
    assert torch.equal(found.double(), rows.double() @ weight.double())


@pytest.mark.parametrize("is_packed", [True, False])
def test_a_bias_is_added_to_every_row(is_packed: bool) -> None:
    rows, weight = integers(16, 640, 512)
    bias = torch.arange(512.0)
    found = multiply(rows, weight, pack_weight(weight) if is_packed else None, bias)
    assert torch.equal(found.double(), rows.double() @ weight.double() + bias)


def test_lower_precision_of_the_caller_has_no_effect() -> None:
    rows, weight = integers(16, 640, 512)
    with changed(torch.set_float32_matmul_precision, "medium", torch.get_float32_matmul_precision()):
        packed_weights._is_precise.cache_clear()
        packed = pack_weight(weight)
        with full_precision(rows.device):
            assert torch.equal(multiply(rows, weight, packed).double(), rows.double() @ weight.double())


@pytest.mark.parametrize("mode", ["BF16", "ANY"])
def test_lower_precision_of_the_environment_has_no_effect(mode: str) -> None:
    script = """
import torch
from tests.codec.test_packed_weights import integers
from jahp_pl.codec.packed_weights import multiply, pack_weight
rows, weight = integers(16, 640, 512)
print(torch.equal(multiply(rows, weight, pack_weight(weight)).double(), rows.double() @ weight.double()))
"""
    environment = {**os.environ, "ONEDNN_DEFAULT_FPMATH_MODE": mode}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def imprecise_product(rows: Tensor, packed: Tensor, *_: object) -> Tensor:
    return (rows.bfloat16() @ packed.t().bfloat16()).float()


@pytest.mark.parametrize(
    "operations",
    [
        SimpleNamespace(),
        SimpleNamespace(
            _reorder_linear_weight=lambda weight, _: weight,
            _linear_pointwise=SimpleNamespace(default=imprecise_product),
        ),
    ],
    ids=["missing", "imprecise"],
)
def test_torch_multiplies_where_onednn_cannot(monkeypatch: pytest.MonkeyPatch, operations: SimpleNamespace) -> None:
    rows, weight = integers(16, 640, 512)
    monkeypatch.setattr(torch.ops, "mkldnn", operations)
    packed_weights._is_precise.cache_clear()
    try:
        assert pack_weight(weight) is None
        assert torch.equal(multiply(rows, weight, None), torch.mm(rows, weight))
    finally:
        packed_weights._is_precise.cache_clear()


@pytest.mark.parametrize("is_faster", [True, False])
def test_weights_are_packed_only_if_that_is_faster(monkeypatch: pytest.MonkeyPatch, is_faster: bool) -> None:
    rows, weight = integers(16, 640, 512)
    times = [0.1, 0.2] if is_faster else [0.2, 0.1]
    monkeypatch.setattr(packed_weights, "shortest_times", lambda *_: times)
    packed_weights._is_faster.cache_clear()
    try:
        packed = pack_if_faster(weight)
        assert (packed is not None) == (is_faster and pack_weight(weight) is not None)
        assert torch.equal(multiply(rows, weight, packed).double(), rows.double() @ weight.double())
    finally:
        packed_weights._is_faster.cache_clear()
