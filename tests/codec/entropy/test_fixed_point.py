"""Integers in float32: every sum is exact, and inputs are rounded to integers of eleven bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from jahp_pl.codec.entropy.fixed_point import FixedPointLayer, quantize
from jahp_pl.codec.entropy.integer_layers import LARGEST_INPUT, ROW_MAX, ROW_MIN
from jahp_pl.codec.packed_weights import pack_weight
from tests.support.integer_layers import convert_layer, largest_sum


def steps_of(values: Tensor) -> Tensor:
    """Compute the value of one integer step for each row, (n, 1), from the row's largest number."""
    largest = values.abs().amax(1, keepdim=True).double().clamp(ROW_MIN, ROW_MAX)
    return torch.exp2(torch.frexp(largest).exponent - 1.0) * 2 / LARGEST_INPUT


def mantissas_of(values: Tensor) -> Tensor:
    """Quantize rows, and return them as multiples of their steps."""
    mantissas = quantize(values).double() / steps_of(values)
    assert torch.equal(mantissas, mantissas.round())
    assert float(mantissas.abs().max()) <= LARGEST_INPUT
    return mantissas


def random_layer(num_in: int = 40, num_out: int = 6, taps: int = 3, slope: float = 1.0) -> FixedPointLayer:
    return convert_layer("any", torch.randn(taps, num_in, num_out), torch.randn(num_out), slope)


# --- sums -------------------------------------------------------------------------------------------------------------


def test_sums_equal_those_of_python_integers_for_random_and_extreme_inputs() -> None:
    layer = random_layer()
    for tap in range(3):
        toward = LARGEST_INPUT * torch.sign(layer.weight[tap]).T  # each output as large as it can become
        random = torch.randint(-LARGEST_INPUT, LARGEST_INPUT + 1, (90, 40))
        inputs = torch.cat([toward, -toward, random, torch.zeros(1, 40)])
        sums = layer.add(torch.zeros(6), inputs.float(), tap) / layer.grid
        weight = layer.integers()[tap].long().tolist()
        expected = [
            [sum(int(x) * w for x, w in zip(row, column, strict=True)) for column in zip(*weight, strict=True)]
            for row in inputs.tolist()
        ]
        assert sums.tolist() == expected
        assert float(sums.abs().max()) <= largest_sum(layer)


def test_a_sum_is_rounded_once_as_ieee_754_says() -> None:
    """Compare with numpy's float32 additions, one number at a time, over the whole range of steps and grids."""
    weight = torch.randn(2, 30, 8) * torch.logspace(-12, 9, 8)
    layer = convert_layer("any", weight, torch.randn(8) * torch.logspace(-9, 12, 8), 0.01)
    x = torch.randn(50, 30) * torch.logspace(-14, 14, 50)[:, None]
    out, steps = layer.add(layer.bias, quantize(x), 1), steps_of(x)
    product = (mantissas_of(x).long() @ layer.integers()[1].long()).numpy().astype(np.float32)
    for i in range(50):
        for o in range(8):
            scaled = product[i, o] * np.float32(steps[i]) * np.float32(layer.grid[o])
            assert np.float32(layer.bias[o]) + scaled == np.float32(out[i, o])
    slope = np.float32(0.01)
    expected = [[v if v > 0 else v * slope for v in row] for row in out.numpy()]
    assert np.array_equal(layer.activate(out).numpy(), np.array(expected))


def test_no_order_of_summation_makes_a_difference() -> None:
    layer = random_layer(num_in=500, taps=1)
    rows = quantize(torch.randn(100, 500) * 7)
    expected = layer(rows)
    for _ in range(5):
        order = torch.randperm(500)
        shuffled = layer._replace(weight=layer.weight[:, order], packed=[pack_weight(layer.weight[0, order])])
        assert torch.equal(shuffled(rows[:, order]), expected)
    one_by_one = torch.zeros(100, 6)
    for i in range(500):
        one_by_one += rows[:, i : i + 1] * layer.weight[0, i]
    assert torch.equal(one_by_one + layer.bias, expected)


@pytest.mark.parametrize("num_out", [6, 7, 640])
@pytest.mark.parametrize("threads", [1, 2])
def test_neither_threads_nor_the_size_of_the_batch_make_a_difference(num_out: int, threads: int) -> None:
    layer = random_layer(num_in=300, num_out=num_out, slope=0.01)
    values, start = torch.randn(200, 300), torch.randn(200, num_out)
    expected = layer(quantize(values), start)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for size in (1, 2, 7, 64, 65, 200):
            parts = [layer(quantize(v), s) for v, s in zip(values.split(size), start.split(size), strict=True)]
            assert torch.equal(torch.cat(parts), expected)
    finally:
        torch.set_num_threads(before)


def test_a_given_start_replaces_the_bias_and_is_not_modified() -> None:
    layer = random_layer(taps=1)
    rows, start = quantize(torch.randn(9, 40)), torch.randn(9, 6)
    kept = start.clone()
    nothing = layer._replace(bias=torch.full((6,), torch.nan))
    assert torch.equal(nothing(rows, start), layer.add(start, rows))
    assert torch.equal(start, kept)
    bias = layer.bias.clone()
    layer(rows)
    assert torch.equal(layer.bias, bias)


# --- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [-40, -39, -20, -1, 0, 1, 9, 10, 11, 30, 40])
def test_powers_of_two_are_exact_and_take_half_the_range(exponent: int) -> None:
    values = torch.tensor([[2.0**exponent, -(2.0 ** (exponent - 9)), 0.0]])
    assert torch.equal(quantize(values), values)
    assert mantissas_of(values).tolist() == [[512.0, -1.0, 0.0]]
    finer = values + 0.5 * values[:, 1:2].abs()
    assert torch.equal(mantissas_of(finer), torch.tensor([[512.0, 0.0, 0.0]]).double()), "halves to even"


def test_integers_of_ten_bits_are_exact() -> None:
    values = torch.randint(-1023, 1024, (500, 5)).float()
    assert torch.equal(quantize(values), values)


def test_rows_are_rounded_to_the_nearest_half_a_step_at_most_and_alone() -> None:
    values = torch.randn(300, 17) * torch.logspace(-11, 11, 300)[:, None]
    rows, kept = quantize(values), values.clone()
    assert torch.equal(values, kept)
    largest = mantissas_of(values).abs().amax(1)
    assert bool(((largest >= LARGEST_INPUT // 2) & (largest <= LARGEST_INPUT)).all())
    assert torch.equal(mantissas_of(values), torch.round(values.double() / steps_of(values)))
    for i in range(0, 300, 37):
        assert torch.equal(quantize(values[i : i + 1])[0], rows[i])


def test_the_largest_mantissa_is_reached_from_below_a_power_of_two() -> None:
    just_below = torch.nextafter(torch.tensor(2.0), torch.tensor(0.0))
    values = torch.tensor([[float(just_below), -float(just_below), 1.0]])
    assert mantissas_of(values).tolist() == [[1024.0, -1024.0, 512.0]]


@pytest.mark.parametrize(
    ("values", "mantissas", "step"),
    [
        ([0.0, -0.0], [0, 0], ROW_MIN), ([1e-42, -1e-45], [0, 0], ROW_MIN),
        ([2.0**-60, 2.0**-41], [0, 256], ROW_MIN),
        ([2.0**41, 1.0], [1024, 0], ROW_MAX), ([-3e38, 2.0**40], [-1024, 512], ROW_MAX),
        ([math.inf, -math.inf], [1024, -1024], ROW_MAX),
    ],
)  # fmt: skip
def test_tiny_inputs_count_little_and_huge_ones_are_clamped(
    values: list[float], mantissas: list[int], step: float
) -> None:
    assert quantize(torch.tensor([values])).tolist() == [[m * step * 2 / LARGEST_INPUT for m in mantissas]]


def test_the_extremes_of_inputs_weights_and_biases_overflow_nothing() -> None:
    layer = convert_layer("any", torch.full((25, 4, 2), 2.0**42), torch.tensor([3.4e38, -3.4e38]), 0.0)
    out = layer.bias
    for tap in range(25):
        out = layer.add(out, quantize(torch.tensor([[math.inf] * 4, [-math.inf] * 4])), tap)
    assert bool(torch.isfinite(layer.activate(out)).all())


def test_numbers_that_are_flushed_to_zero_change_nothing() -> None:
    """A caller may have set torch.set_flush_denormal."""
    layer = convert_layer("any", torch.randn(1, 6, 4) * 1e-9, torch.tensor([1e-41, -1e-39, 0.0, 1e-30]), 0.01)
    values = torch.tensor([[1e-40] * 6, [1e-45, 0, 0, 0, 0, 0], [1e-12] * 6, [1.0] * 6])
    expected = quantize(layer(quantize(values)))
    try:
        torch.set_flush_denormal(True)
        found = quantize(layer(quantize(values)))
    finally:
        torch.set_flush_denormal(False)
    assert torch.equal(found, expected)
