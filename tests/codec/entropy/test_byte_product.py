"""Products of bytes are exact, or not used."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from jahp_pl.codec.entropy import byte_product as module
from jahp_pl.codec.entropy.byte_product import ZERO_POINT, ByteProduct, byte_product_if_faster, padded_rows
from tests.support.circumstances import changed

GRID = torch.tensor([2.0**-9, 1.0, 2.0**5])


def weights_of(num_in: int, num_out: int, largest: int) -> tuple[Tensor, Tensor]:
    """Create weights up to `largest` whose sums with 8-bit numbers stay below 2^24, and their grid."""
    weight = torch.randint(-largest, largest + 1, (num_in, num_out)).float()
    weight[0], weight[-1] = largest, -largest
    assert float(weight.abs().sum(0).max()) < 2**17
    return weight, GRID[torch.arange(num_out) % len(GRID)]


def assert_exact(product: ByteProduct, weight: Tensor, grid: Tensor, rows: Tensor) -> None:
    expected = (rows.double() - ZERO_POINT) @ weight.double() * grid.double()
    assert torch.equal(product(rows).double(), expected)


def product_of(weight: Tensor, grid: Tensor) -> ByteProduct:
    """Return the product, or skip the test on a processor that multiplies bytes with saturation."""
    product = ByteProduct(weight, grid)
    rows = module._extreme_rows(weight)
    if not torch.equal(product(rows), torch.mm(rows.float() - ZERO_POINT, weight * grid)):
        pytest.skip("this processor has no exact products of bytes")
    return product


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("num_rows", [1, 3, 12, 16, 40, 200])
@pytest.mark.parametrize(
    ("num_in", "num_out", "largest"), [(1, 1, 32_000), (7, 5, 9000), (144, 24, 700), (2304, 64, 40)]
)
def test_products_are_exact(threads: int, num_rows: int, num_in: int, num_out: int, largest: int) -> None:
    weight, grid = weights_of(num_in, num_out, largest)
    product = product_of(weight, grid)
    with changed(torch.set_num_threads, threads, torch.get_num_threads()):
        for rows in (torch.randint(0, 256, (num_rows, num_in)), torch.full((num_rows, num_in), 255)):
            assert_exact(product, weight, grid, rows.to(torch.uint8))


def test_sums_of_bytes_before_their_zero_is_subtracted_may_exceed_24_bits() -> None:
    weight, grid = torch.full((4096, 8), 31.0), torch.ones(8)
    product = product_of(weight, grid)
    rows = torch.randint(ZERO_POINT - 1, 256, (16, 4096), dtype=torch.int32)
    assert float(rows.double().sum(1).max()) * 31 > 2**24
    assert_exact(product, weight, grid, rows.to(torch.uint8))


def test_weights_wider_than_two_bytes_are_refused() -> None:
    weight = torch.zeros(4, 4)
    weight[1, 2] = 2.0**15 - 128
    assert byte_product_if_faster(weight, torch.ones(4)) is None
    with pytest.raises(ValueError, match="do not fit two bytes"):
        ByteProduct(weight, torch.ones(4))


def saturating(rows: Tensor, *arguments: object) -> Tensor:
    """Multiply as processors without VNNI do: the sum of two products of bytes is cut to 16 bits."""
    packed, scales = arguments[2], arguments[3]
    assert isinstance(packed, Tensor)
    assert isinstance(scales, Tensor)
    products = rows.float()[:, :, None] * packed.t().float()[None]
    sums = products.view(len(rows), -1, 2, packed.shape[0]).sum(2).clamp(-(2**15), 2**15 - 1).sum(1)
    return (sums - ZERO_POINT * packed.t().float().sum(0)) * scales


def test_inexact_products_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, grid = weights_of(144, 24, 700)
    operations = SimpleNamespace(
        qlinear_prepack=lambda weight, _: weight, qlinear_pointwise=SimpleNamespace(default=saturating)
    )
    monkeypatch.setattr(torch.ops, "onednn", operations)
    rows = module._extreme_rows(weight)
    assert ByteProduct(weight, grid)(rows).shape == (16, 24)
    assert not torch.equal(ByteProduct(weight, grid)(rows), torch.mm(rows.float() - ZERO_POINT, weight * grid))
    assert byte_product_if_faster(weight, grid) is None


def test_torch_without_products_of_bytes_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops, "onednn", SimpleNamespace())
    assert byte_product_if_faster(*weights_of(144, 24, 700)) is None


@pytest.mark.parametrize("is_faster", [True, False])
def test_products_of_bytes_are_used_only_if_they_are_faster(monkeypatch: pytest.MonkeyPatch, is_faster: bool) -> None:
    weight, grid = weights_of(144, 24, 700)
    product_of(weight, grid)
    times = [0.1, 0.2] if is_faster else [0.2, 0.1]
    monkeypatch.setattr(module, "shortest_times", lambda *_: times)
    assert (byte_product_if_faster(weight, grid) is not None) is is_faster


@pytest.mark.parametrize("instructions", ["SSE41", "AVX2", "AVX512_CORE"])
def test_instructions_without_vnni_leave_the_product_exact_or_unused(instructions: str) -> None:
    script = """
import torch
from tests.codec.entropy.test_byte_product import assert_exact, weights_of
from jahp_pl.codec.entropy.byte_product import byte_product_if_faster
weight, grid = weights_of(2304, 64, 40)
product = byte_product_if_faster(weight, grid)
if product is not None:
    assert_exact(product, weight, grid, torch.randint(0, 256, (40, 2304)).to(torch.uint8))
print("done")
"""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": instructions, "DNNL_MAX_CPU_ISA": instructions}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "done\n"


@pytest.mark.parametrize("num_rows", [1, 4, 5, 31, 33, 60, 256])
def test_numbers_of_rows_are_rounded_up_to_few(num_rows: int) -> None:
    assert num_rows <= padded_rows(num_rows) < num_rows + 8
    assert len({padded_rows(number) for number in range(1, 257)}) <= 36
