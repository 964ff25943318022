"""The last layer of g_s as a convolution at half the resolution, followed by a shuffle of its channels to pixels.

A transposed convolution of stride 2 reads a different part of its kernel at each parity of row and column. These four
parts become kernels of one ordinary convolution (Shi et al. 2016, "Is the deconvolution layer the same as a
convolutional layer?"). It multiplies some zeros, but for 3 output channels it takes half the time.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

TAPS = (((0, 4), (1, 2), (2, 0)), ((1, 3), (2, 1)))
"""For even and for odd outputs: each position in the 3-tap kernel, with the position in the 5-tap kernel from which its
value is taken."""
UPSAMPLE = ((5, 5), (2, 2), (2, 2), (1, 1), (1, 1), 1)
"""Kernel size, stride, padding, output padding, dilation and groups of `transforms.upsample`."""


class SubpixelConvolution(nn.Module):
    """A 5x5 transposed convolution of stride 2, see `transforms.upsample`: (B, in, H, W) -> (B, out, 2 H, 2 W).

    Args:
        layer: convolution to copy.
    """

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        weight = layer.weight.detach()
        num_in, num_out = weight.shape[:2]
        kernel = weight.new_zeros(num_out, 2, 2, num_in, 3, 3)
        for row_parity, row_taps in enumerate(TAPS):
            for column_parity, column_taps in enumerate(TAPS):
                for row, from_row in row_taps:
                    for column, from_column in column_taps:
                        kernel[:, row_parity, column_parity, :, row, column] = weight[:, :, from_row, from_column].t()
        self.kernel = nn.Parameter(kernel.flatten(0, 2), requires_grad=False)
        bias = None if layer.bias is None else layer.bias.detach().repeat_interleave(4)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve; the result is in float32."""
        return F.pixel_shuffle(F.conv2d(x, self.kernel, self.bias, padding=1).float(), 2)


def with_subpixel_end(g_s: nn.Sequential) -> nn.Sequential:
    """Return g_s with its last layer, if it is an `upsample`, as a `SubpixelConvolution`; other layers are shared."""
    *layers, last = g_s
    if isinstance(last, nn.ConvTranspose2d) and _shape(last) == UPSAMPLE:
        last = SubpixelConvolution(last)
    return nn.Sequential(*layers, last)


def _shape(layer: nn.ConvTranspose2d) -> tuple[object, ...]:
    return (
        layer.kernel_size, layer.stride, layer.padding, layer.output_padding, layer.dilation, layer.groups,
    )  # fmt: skip
