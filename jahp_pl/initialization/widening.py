"""Widens a trained model: more latents, so that further training can spend bits on what the old latents cannot hold.

At high rates the number of latents M limits the quality, because no rate restores what g_a discards. The widened model
computes the same old latents, and from these the same reconstruction and the same probabilities, because no old part
reads a new one:

    g_a                    its new outputs are the part of the residual x - g_s(g_a(x)) that its last features predict
    g_s, h_a, g_cm, g_ep   their weights from the new latents and features are zero
    gains, sigma           a new latent takes those of an old one with a small deviation, and is scaled to that
                           deviation; its mean is 0

Training then has to find weights that use the new latents; docs/weights-training.md reports one attempt. The
statistics come from synthetic images, as in `initialization.warm_start`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jahp_pl.config import BUILT_IN, ModelConfig
from jahp_pl.density_layout import DensityLayout
from jahp_pl.initialization.textures import pink_images
from jahp_pl.model import CompressionModel
from jahp_pl.strides import STRIDE

NUM_BATCHES = 24
"""Batches of synthetic images for the statistics of the residual."""
BATCH_SIZE = 10
"""Images in each batch."""
IMAGE_SIDE = 256
"""Height and width of these images in pixels."""
KERNEL_SIDE = 5
"""Side of the kernel of g_a's last layer."""
RIDGE = 1e-4
"""Regularization of the regression, relative to the mean square of the features."""


def can_widen(start: ModelConfig, config: ModelConfig) -> bool:
    """Return whether `widen` can make a model of `config` from a model of `start`.

    The two may differ only in `num_latents`, which must grow, and in `quantization`. The hidden layers of h_s and g_ep
    keep their widths, so `config.entropy_width` must be the number of channels that `start` has there. All networks
    must be the package's own.
    """
    grown = replace(
        start, num_latents=config.num_latents, entropy_width=config.entropy_width, quantization=config.quantization
    )
    return (
        start.num_latents < config.num_latents
        and start.entropy_channels == config.entropy_channels
        and grown == config
        and all(getattr(config, setting) in names for setting, names in BUILT_IN.items())
    )


@torch.no_grad()
def widen(start: CompressionModel, config: ModelConfig) -> CompressionModel:
    """Make a model with more latents that computes what `start` computes.

    Args:
        start: trained model.
        config: architecture to make, see `can_widen`.

    Raises:
        ValueError: if `can_widen` is false.
    """
    if not can_widen(start.config, config):
        raise ValueError("config is not start.config with more latents; see can_widen")
    model = CompressionModel(config)
    num_old, num_new = start.config.num_latents, config.num_latents
    layers = dict(model.named_modules())
    old_state = start.state_dict()
    for name, tensor in model.state_dict().items():
        is_transposed = isinstance(layers[name.rpartition(".")[0]], nn.ConvTranspose2d)
        _embed(tensor, old_state[name], num_old, num_new, output_axis=int(is_transposed and tensor.dim() > 1))
    _add_latents(model, start)
    return model


def _embed(new: Tensor, old: Tensor, num_old: int, num_new: int, output_axis: int) -> None:
    """Write the old weights to their places in a new tensor; the old outputs ignore all other inputs.

    Args:
        new: tensor to change, with the axes of `old`; some are longer.
        old: trained tensor.
        num_old, num_new: M before and after.
        output_axis: axis of the outputs; the weights from other inputs to old outputs become zero.
    """
    places = [_places(length, num_old, num_new) if length != wide else torch.arange(length)
              for length, wide in zip(old.shape, new.shape, strict=True)]  # fmt: skip
    new.index_fill_(output_axis, places[output_axis], 0)
    new[torch.meshgrid(*places, indexing="ij")] = old


def _places(length: int, num_old: int, num_new: int) -> Tensor:
    """Return the new indices of the channels along an axis that consists of blocks of M, when M grows."""
    return (torch.arange(length // num_old)[:, None] * num_new + torch.arange(num_old)).flatten()


def _add_latents(model: CompressionModel, start: CompressionModel) -> None:
    """Initialize the new outputs of g_a, and the gains and densities of the new latents.

    The old latents that vary least are the donors of gains and densities.
    """
    num_old, num_added = start.config.num_latents, model.config.num_latents - start.config.num_latents
    statistics = _residual_statistics(start)
    order = statistics.latent_std.argsort()  # more latents can be added than there are
    donors = order[torch.arange(num_added) % num_old].flip(0)
    predictors = _predictors_of_residual(statistics, num_added)
    scales = statistics.latent_std[donors] / predictors.std
    if start.gains is not None and model.gains is not None:
        scales /= start.gains.gain[-1, donors].exp()
        for table in (model.gains.gain, model.gains.offset):
            table[:, num_old:] = table[:, donors]
    last = model.g_a[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.weight[num_old:] = (predictors.weights * scales[:, None]).view(num_added, *last.weight.shape[1:])
    last.bias[num_old:] = -predictors.mean * scales
    _copy_densities(model, donors)


def _copy_densities(model: CompressionModel, donors: Tensor) -> None:
    """Give the last latents of a model the densities of `donors` (added latents,), but a mean of 0."""
    num_old = model.config.num_latents - len(donors)
    if model.config.entropy_model == "factorized":
        assert model.prior is not None
        for parameter in model.prior.parameters():
            parameter[num_old:] = parameter[donors]
        return
    head = (model.g_ep or model.h_s)[-1]  # type: ignore[index]
    assert isinstance(head, nn.Conv2d)
    assert head.bias is not None
    layout = DensityLayout(model.config)
    for tensor in (head.weight, head.bias):
        blocks = tensor.view(layout.num_blocks, layout.num_components, model.config.num_latents, -1)
        blocks[:, :, num_old:] = blocks[:, :, donors]
        if layout.has_means:
            blocks[1, :, num_old:] = 0


class ResidualStatistics(NamedTuple):
    """Second moments of the inputs of g_a's last layer and of the residuals of reconstructions, over synthetic images.

    The inputs are patches of 5 x 5 features (F numbers) followed by a 1. The residual x - x_hat of unrounded latents is
    taken in blocks of 16 x 16 pixels, one for each position of the latents.
    """

    gram: Tensor
    """(F + 1, F + 1): mean products of inputs; float64."""
    cross: Tensor
    """(F + 1, 3 * 16^2): mean products of inputs and residual; float64."""
    latent_std: Tensor
    """(M,): standard deviation of the latents, at the highest level if there are levels."""


def _residual_statistics(model: CompressionModel) -> ResidualStatistics:
    """Collect the statistics of a trained model."""
    *features_of, last = model.g_a
    assert isinstance(last, nn.Conv2d)
    level = None if model.gains is None else torch.full((BATCH_SIZE,), model.config.level_at(1.0))
    num_inputs = KERNEL_SIDE**2 * last.in_channels + 1
    gram, cross = torch.zeros(num_inputs, num_inputs), torch.zeros(num_inputs, 3 * STRIDE**2)
    squares, num_positions = torch.zeros(model.config.num_latents), 0
    for seed in range(NUM_BATCHES):
        x = pink_images(BATCH_SIZE, IMAGE_SIDE, seed)
        features = nn.Sequential(*features_of)(x)
        y = last(features)
        y = y if model.gains is None or level is None else y * model.gains.before_rounding(level)
        residual = F.pixel_unshuffle(x - model.synthesize(y, IMAGE_SIDE, IMAGE_SIDE, level), STRIDE).flatten(2)
        patches = F.unfold(features, KERNEL_SIDE, padding=KERNEL_SIDE // 2, stride=2)  # (B, F, h w)
        inputs = F.pad(patches, (0, 0, 0, 1), value=1.0).transpose(1, 2).flatten(0, 1)
        gram += inputs.T @ inputs
        cross += inputs.T @ residual.transpose(1, 2).flatten(0, 1)
        squares += (y - y.mean((0, 2, 3), keepdim=True)).square().sum((0, 2, 3))
        num_positions += len(inputs)
    return ResidualStatistics(
        gram.double() / num_positions, cross.double() / num_positions, (squares / num_positions).sqrt()
    )


class Predictors(NamedTuple):
    """Linear functions of the inputs of g_a's last layer, and statistics of their outputs; float32."""

    weights: Tensor
    """(count, F)."""
    mean: Tensor
    """(count,)."""
    std: Tensor
    """(count,)."""


def _predictors_of_residual(statistics: ResidualStatistics, count: int) -> Predictors:
    """Find the functions that best predict the residual, in order of decreasing variance of their predictions.

    This is reduced-rank regression: the principal axes of the prediction by ridge regression.
    """
    gram, cross, _ = statistics
    damped = gram + RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(damped, cross)
    axes = torch.linalg.eigh(weights.T @ gram @ weights).eigenvectors.flip(1)[:, :count]
    rows = (weights @ axes).T[:, :-1]
    mean = rows @ gram[:-1, -1]
    variance = (rows @ gram[:-1, :-1] * rows).sum(1) - mean.square()
    return Predictors(rows.float(), mean.float(), variance.clamp(min=1e-20).sqrt().float())
