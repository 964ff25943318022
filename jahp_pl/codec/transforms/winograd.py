"""Computes 5x5 convolutions of stride 2, down and up, with 3.3 times fewer multiplications.

The method is that of Winograd (1980) and of Lavin & Gray (2016).

A 5x5 kernel of stride 2 splits into four kernels of stride 1, one for each parity of row and column of the finer grid,
with 3x3, 3x2, 2x3 and 2x2 taps. For an output of 4x4 positions from 6x6 inputs d,

    Y = A^T [(G g G^T) * (B^T d B)] A

computes the convolution with a 3x3 kernel g by 36 products per pair of channels instead of 144. Over many tiles and all
channels, each of these products is a matrix product, and both transforms are products with one small matrix. A
dimension of two taps needs only five of the six points; the one dropped is 0 if the first tap is missing (up), and
infinity if the last one is (down).

With the points 0, +-3/4, +-3/2, infinity, rounding errors in float32 are about twice those of the plain sum (measured
at 192 channels: 1.4e-6 of the standard deviation, plain 0.4e-6 to 0.8e-6); with the usual 0, +-1, +-2, four times.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jahp_pl.codec.transforms.gdn import MatrixGDN, Scratch

TILE = 4
"""Positions of the coarse grid that a tile covers along each axis."""
PATCH = TILE + 2
"""Input positions of a tile along each axis."""
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)
"""Points at which polynomials are evaluated; infinity is the sixth."""
DROPPED_UP, DROPPED_DOWN = 0, 5
"""Index of the point that a dimension of two taps does not need."""


class Basis(NamedTuple):
    """One-dimensional transforms between positions and points, in float64."""

    outputs: Tensor
    """A^T: (4, 6)."""
    taps: Tensor
    """G: (6, 3)."""
    inputs: Tensor
    """B^T: (6, 6)."""


def toom_cook_basis() -> Basis:
    """Compute the matrices for `POINTS`: transposed polynomial multiplication by evaluation and interpolation."""
    outputs = torch.zeros(TILE, PATCH, dtype=torch.float64)
    taps = torch.zeros(PATCH, 3, dtype=torch.float64)
    inputs = torch.zeros(PATCH, PATCH, dtype=torch.float64)
    for i, point in enumerate(POINTS):
        others = [q for q in POINTS if q != point]
        powers = torch.tensor([point**k for k in range(TILE)], dtype=torch.float64)
        outputs[:, i] = powers
        taps[i] = powers[:3] / torch.tensor([point - q for q in others], dtype=torch.float64).prod()
        inputs[i, :-1] = _polynomial(others)
    outputs[-1, -1] = taps[-1, -1] = 1
    inputs[-1] = _polynomial(POINTS)
    # Moving a power of two from inputs to taps costs no accuracy and keeps both near 1.
    scale = torch.exp2(inputs.abs().amax(1, keepdim=True).log2().round())
    return Basis(outputs, taps * scale, inputs / scale)


def _polynomial(roots: Sequence[float]) -> Tensor:
    """Return the coefficients of prod(x - root), constant first."""
    coefficients = torch.ones(1, dtype=torch.float64)
    for root in roots:
        shifted = F.pad(coefficients, (1, 0))
        shifted[:-1] -= root * coefficients
        coefficients = shifted
    return coefficients


class _Parity(NamedTuple):
    """The part of a kernel for one parity of row and column of the finer grid."""

    row: int
    column: int
    products: slice
    """The products, of all 36, that it uses."""
    kernels: Tensor
    """(number of products, in, out): G g G^T."""


class _StridedConvolution:
    """Base of both directions: the transforms, with the 36 products in an order that suits all parities."""

    def __init__(self, kernel: Tensor, bias: Tensor, dropped: int, gdn: MatrixGDN | None) -> None:
        basis = toom_cook_basis()
        kept = [i for i in range(PATCH) if i != dropped]
        # In this order, the products of each parity are consecutive.
        order = [(dropped, j) for j in kept] + [(i, j) for i in kept for j in kept]
        order += [(i, dropped) for i in kept] + [(dropped, dropped)]
        products = {(0, 0): slice(0, 36), (0, 1): slice(0, 30), (1, 0): slice(5, 35), (1, 1): slice(5, 30)}

        def pairs(matrix: Tensor) -> Tensor:  # (6, n) -> (36, n * n)
            return torch.stack([torch.kron(matrix[i], matrix[j]) for i, j in order]).to(kernel.device)

        self.inputs, self.outputs = pairs(basis.inputs).float(), pairs(basis.outputs.t()).t().float().contiguous()
        self.num_in, self.num_out = kernel.shape[:2]
        self.bias, self.gdn = bias.detach().float().clone(), gdn
        by_tap = kernel.permute(2, 3, 0, 1).double().flatten(2)
        at_points, padded, odd = pairs(basis.taps), F.pad(by_tap, (0, 0, 1, 1, 1, 1)), 1 if dropped else -1
        self.parities = []
        for (row, column), chosen in products.items():
            kernels = at_points[chosen] @ _every_other_tap(padded, 1 + odd * row, 1 + odd * column)
            kernels = kernels.float().view(-1, self.num_in, self.num_out)
            self.parities.append(_Parity(row, column, chosen, kernels))

    def _finish(self, y: Tensor, out: Tensor, num_rows: int, scratch: Scratch) -> None:
        """Add the bias to y (16, T * out), apply GDN, and write to `out` (rows, 4, columns, 4, C)."""

        def spatial(matrix: Tensor) -> Tensor:
            return matrix.view(TILE, TILE, num_rows, -1, self.num_out).permute(2, 0, 3, 1, 4)

        rows = y.view(-1, self.num_out)
        rows += self.bias
        if self.gdn is None:
            out.copy_(spatial(rows))
        else:
            torch.mul(spatial(rows), spatial(self.gdn.factors(rows, scratch)), out=out)

    def _patches(self, x: Tensor, scratch: Scratch) -> Tensor:
        """Collect the overlapping patches of x (4 n + 2, 4 m + 2, in), position first: (36, n * m * in)."""
        view = x.unfold(0, PATCH, TILE).unfold(1, PATCH, TILE).permute(3, 4, 0, 1, 2)
        patches = scratch("patches", *view.shape)
        return patches.copy_(view).view(PATCH * PATCH, -1)


class Upsampling(_StridedConvolution):
    """Transposed 5x5 convolution of stride 2 with an optional GDN, computed by strips of tiles.

    Args:
        conv: convolution from `transforms.upsample`; its weights are copied.
        gdn: the GDN that follows; None if there is none.
    """

    TILE_IN, TILE_OUT, BORDER = TILE, 2 * TILE, 1

    def __init__(self, conv: nn.ConvTranspose2d, gdn: MatrixGDN | None) -> None:
        assert conv.bias is not None
        # A transposed convolution gathers from the coarse grid with the flipped kernel.
        super().__init__(conv.weight.detach().flip(2, 3), conv.bias, DROPPED_UP, gdn)

    def convolve_strip(self, x: Tensor, out: Tensor, scratch: Scratch) -> None:
        """Convolve a strip of n x m tiles.

        Args:
            x: (4 n + 2, 4 m + 2, in), with one extra position on each side.
            out: (8 n, 8 m, out), overwritten; last dimension contiguous.
            scratch: working memory.
        """
        n, m = x.shape[0] // TILE, x.shape[1] // TILE
        at_points = scratch("at_points", PATCH**2, n * m, self.num_in)
        torch.mm(self.inputs, self._patches(x, scratch), out=at_points.view(PATCH**2, -1))
        finer = out.view(n, TILE, 2, m, TILE, 2, self.num_out)
        for row, column, chosen, kernels in self.parities:
            products = scratch("products", len(kernels), n * m, self.num_out)
            torch.bmm(at_points[chosen], kernels, out=products)
            y = scratch("y", TILE**2, n * m * self.num_out)
            torch.mm(self.outputs[:, chosen], products.view(len(kernels), -1), out=y)
            self._finish(y, finer[:, :, row, :, :, column], n, scratch)


class Downsampling(_StridedConvolution):
    """5x5 convolution of stride 2 with an optional GDN, computed by strips of tiles.

    Args:
        conv: convolution from `transforms.downsample`; its weights are copied.
        gdn: the GDN that follows; None if there is none.
    """

    TILE_IN, TILE_OUT, BORDER = 2 * TILE, TILE, 2

    def __init__(self, conv: nn.Conv2d, gdn: MatrixGDN | None) -> None:
        assert conv.bias is not None
        super().__init__(conv.weight.detach().transpose(0, 1), conv.bias, DROPPED_DOWN, gdn)

    def convolve_strip(self, x: Tensor, out: Tensor, scratch: Scratch) -> None:
        """Convolve a strip of n x m tiles.

        Args:
            x: (8 n + 4, 8 m + 4, in), with two extra positions on each side.
            out: (4 n, 4 m, out), overwritten; last dimension contiguous.
            scratch: working memory.
        """
        n, m = x.shape[0] // (2 * TILE), x.shape[1] // (2 * TILE)
        products = scratch("products", PATCH**2, n * m, self.num_out)
        for row, column, chosen, kernels in self.parities:
            at_points = scratch("at_points", len(kernels), n * m, self.num_in)
            patches = self._patches(x[row::2, column::2], scratch)
            torch.mm(self.inputs[chosen], patches, out=at_points.view(len(kernels), -1))
            if len(kernels) == PATCH**2:  # the first parity uses all products
                torch.bmm(at_points, kernels, out=products)
            else:
                products[chosen].baddbmm_(at_points, kernels)
        y = scratch("y", TILE**2, n * m * self.num_out)
        torch.mm(self.outputs, products.view(PATCH**2, -1), out=y)
        self._finish(y, out.view(n, TILE, m, TILE, self.num_out), n, scratch)


def _every_other_tap(kernel: Tensor, row: int, column: int) -> Tensor:
    """Take 3 x 3 taps, two apart, of a padded kernel (7, 7, in * out), starting at (row, column): (9, in * out)."""
    return kernel[row : row + 5 : 2, column : column + 5 : 2].flatten(0, 1)
