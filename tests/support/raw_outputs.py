"""Raw outputs of the exact networks for whole maps of latents."""

from __future__ import annotations

import torch
from torch import Tensor

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy.latent_coder import TorchLatentBatch
from jahp_pl.codec.entropy.symbol_coder import LatentRange
from jahp_pl.codec.torch_settings import full_precision


def raw_outputs(codec: Codec, y_hat: Tensor, z_hat: Tensor | None) -> Tensor:
    """Compute the raw parameters of a whole map, (positions, outputs) in raster order."""
    coder = codec.latents
    assert coder is not None
    _, height, width = y_hat.shape
    with full_precision(coder.device):
        batch = TorchLatentBatch(coder, [(height, width)], [z_hat], LatentRange(int(y_hat.min()), int(y_hat.max())))
        ranks = batch.order.ranks[0]
        rows = torch.empty(height * width, len(y_hat), dtype=torch.int32)
        rows[ranks] = y_hat.flatten(1).T
        batch.insert(0, rows.numpy())
        return batch.raw(0, height * width)[ranks]
