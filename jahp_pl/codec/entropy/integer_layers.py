"""Converts trained layers to the integers that the codec multiplies, for every runtime. No torch.

Weights become integers on a grid per output channel, the finest for which every sum is proved to fit 24 bits: the sum
of |weights| times the largest input stays below 2^24, so float32 holds every partial sum exactly (`fixed_point`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from jahp_pl.codec.arrays import Float32Array, Float64Array
from jahp_pl.errors import JahpError

FLOAT32_EXACT = 2**24
"""float32 holds every integer up to this one."""
LARGEST_INPUT = 2**10
"""Inputs are integers from -2^10 to 2^10, i.e. 11 bits."""
ROW_MIN, ROW_MAX = 2.0**-40, 2.0**40
"""Bounds of the largest magnitude in a row of activations: smaller rows are scaled as if it were `ROW_MIN`, and larger
numbers are clamped."""
MAX_GRID_EXPONENT = 32
"""Grid steps are between 2^-32 and 2^32, so that all scales are ordinary floats."""
FRACTION_BITS = 12
"""Raw entropy parameters are integers in steps of 2^-12."""
RAW_CLAMP = 2**24
"""Limit of the raw parameters in these steps, i.e. +-4096."""
HYPER_LATENT_CLAMP = 2**24
"""Limit of the hyper-latents that enter h_s; float32 does not hold all integers beyond."""
LATENT_RADIX = 2**8
"""Latents up to +-128 enter g_cm unchanged, larger ones in two pieces: y = 2^8 high + low."""

Weights = Float32Array | Float64Array


class Tap(NamedTuple):
    """One weight matrix of a convolution, and the input that it multiplies."""

    row: int
    """Row of the input relative to the position, from 0 to 2; 1 is the same row."""
    column: int
    """Column of the input relative to the position, in the same way."""
    number: int
    """Index of the weights, see `conv_taps`."""


CONVOLUTION_TAPS = tuple(Tap(row, column, 3 * row + column) for row in range(3) for column in range(3))
"""Taps of a 3x3 convolution, in the order in which their products are added."""
# Output o = 2 i - 2 + k: even outputs use taps k = 0, 2, 4 of the inputs at o / 2 + 1, o / 2 and o / 2 - 1; odd ones
# use k = 1, 3.
_AXIS_TAPS = (((2, 0), (1, 2), (0, 4)), ((2, 1), (1, 3)))
UPSAMPLING_TAPS = tuple(
    tuple(tuple(Tap(row, column, 5 * i + j) for row, i in rows for column, j in columns) for columns in _AXIS_TAPS)
    for rows in _AXIS_TAPS
)
"""Taps of a 5x5 transposed convolution of stride 2 as four convolutions, by the parity of the output's row and column,
in the order in which their products are added."""


class UnusableModelError(JahpError, ValueError):
    """A model from which no codec can be built: its sums would not be exact, or its tables are invalid.

    The message names the layer or the table.
    """


class IntegerLayer(NamedTuple):
    """A linear layer, or a convolution as one linear layer per tap, in integers."""

    weight: Float32Array
    """(taps, in, out) integers, in units of `grid` per output channel."""
    bias: Float32Array
    """(out,)."""
    grid: Float32Array
    """(out,), powers of two: value of one integer step of a weight."""
    slope: float
    """Slope of the following nonlinearity below zero: 1 for none, 0 for ReLU."""

    def fingerprint_arrays(self) -> Iterator[npt.NDArray[np.generic]]:
        """Yield everything that determines the output, for the fingerprint."""
        yield from (self.weight, self.bias, self.grid, np.array(self.slope))


class TrainedLayer(NamedTuple):
    """A layer as it was trained, with the slope of the nonlinearity that follows it."""

    name: str
    weight: Weights
    """(taps, in, out), see `conv_taps`."""
    bias: Weights
    """(out,)."""
    slope: float


class IntegerContext(NamedTuple):
    """g_cm and g_ep in integers."""

    context: IntegerLayer
    """g_cm as one linear layer with 12 M inputs."""
    layers: list[IntegerLayer]
    """g_ep, whose first layer lacks the inputs from h_s."""
    from_psi: IntegerLayer | None
    """The part of g_ep's first layer that reads h_s, with the bias; None without a hyperprior."""
    offsets: list[tuple[int, int]]
    """Row and column of each live tap of g_cm relative to the position, in raster order."""


def convert_layer(
    name: str, weight: Weights, bias: Weights | None, slope: float, largest_input: int = LARGEST_INPUT
) -> IntegerLayer:
    """Round a layer to the finest grids for which all sums are proved to fit 24 bits.

    Args:
        name: name of the layer for error messages.
        weight: (taps, in, out) trained weights.
        bias: (out,) trained biases; None for none.
        slope: slope below zero of the nonlinearity that follows the layer; 1 for none.
        largest_input: largest magnitude of the integers that the layer is applied to.

    Raises:
        UnusableModelError: if weights are not finite or so large that no grid is left, or the inputs are too many.
    """
    num_inputs = weight.shape[1]
    bias = np.zeros(weight.shape[-1]) if bias is None else bias
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise UnusableModelError(f"{name}: has weights that are not finite; train again from an earlier checkpoint")
    # Rounding may add half a step per input to a sum, so the limit is lowered by that much.
    room = FLOAT32_EXACT // largest_input - num_inputs // 2 - 1
    if room < 2**6:
        raise UnusableModelError(f"{name}: {num_inputs} inputs are too many for exact sums; use narrower layers")
    taps = [np.asarray(tap) for tap in weight]  # converted to float64 one at a time, to save memory
    sums = np.stack([np.abs(tap, dtype=np.float64).sum(axis=0) for tap in taps])
    # Powers of two by frexp and Python's arithmetic, which are exact; a vectorized log2 or exp2 may miss them.
    largest = (sums.max(axis=0) / room).tolist()
    exponents = [max(math.frexp(value)[1], -MAX_GRID_EXPONENT) if value else 0 for value in largest]
    if max(exponents) > MAX_GRID_EXPONENT:
        raise UnusableModelError(f"{name}: weights up to {np.abs(weight).max():.2e} are too large; train again")
    grid = np.array([2.0**exponent for exponent in exponents], dtype=np.float32)
    integers = np.empty(weight.shape, dtype=np.float32)
    for tap, out in zip(taps, integers, strict=True):
        np.rint(tap * (1 / grid), out=out)  # exact: powers of two
        # A sum of magnitudes that reaches the limit reaches it in float32 too, because rounding is monotone.
        reached = int(np.abs(out).sum(axis=0).max()) * largest_input
        assert reached < FLOAT32_EXACT, f"{name}: {reached} grid steps"
    return IntegerLayer(integers, bias.astype(np.float32), grid, slope)


def conv_taps(weight: Float32Array, is_transposed: bool = False) -> Float32Array:
    """Arrange the weights of a convolution by tap, in raster order.

    Args:
        weight: (out, in, height, width); (in, out, height, width) for a transposed convolution.
        is_transposed: whether the convolution is transposed.

    Returns:
        (height * width, in, out).
    """
    by_tap = weight.transpose((2, 3, 0, 1) if is_transposed else (2, 3, 1, 0))
    return np.ascontiguousarray(by_tap).reshape(-1, *by_tap.shape[2:])


def convert_hyper_synthesis(layers: Sequence[TrainedLayer]) -> list[IntegerLayer]:
    """Convert h_s to integers: two transposed convolutions, then an ordinary one.

    Raises:
        UnusableModelError: see `convert_layer`.
    """
    return [convert_layer(*layer) for layer in layers]


def convert_context(g_cm: TrainedLayer, side: int, g_ep: Sequence[TrainedLayer], has_psi: bool) -> IntegerContext:
    """Convert g_cm and g_ep to integers.

    Args:
        g_cm: convolution that holds only the taps before the center of its kernel.
        side: side of the kernel in taps.
        g_ep: layers of the entropy parameter network.
        has_psi: whether the first inputs of g_ep come from a hyperprior.

    Raises:
        UnusableModelError: see `convert_layer`.
    """
    num_taps, num_latents, num_outputs = g_cm.weight.shape
    offsets = [(tap // side - side // 2, tap % side - side // 2) for tap in range(num_taps)]
    joined = g_cm.weight.reshape(1, num_taps * num_latents, num_outputs)
    context = convert_layer(g_cm.name, joined, g_cm.bias, 1.0, LATENT_RADIX // 2)
    first, *others = g_ep
    weight, from_psi = first.weight, None
    if has_psi:
        num_psi = weight.shape[1] - num_outputs
        from_psi = convert_layer(first.name, weight[:, :num_psi], first.bias, 1.0)
        weight = weight[:, num_psi:]
    layers = [convert_layer(first.name, weight, None if has_psi else first.bias, first.slope)]
    return IntegerContext(context, layers + [convert_layer(*layer) for layer in others], from_psi, offsets)
