# ruff: noqa: T201
"""Compares the numbers of parameters of this project's models with CompressAI's and with published numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from checks.parity import oracle
from jahp_pl.config import ModelConfig
from jahp_pl.model import CompressionModel

SIZES = ((128, 192), (192, 192), (192, 320))
"""(N, M) of the published models."""

PUBLISHED_COUNTS = {
    "factorized": (2_998_147, 5_793_795, 7_030_531),
    "scale_hyperprior": (5_075_843, 10_144_899, 11_816_323),
    "mean_scale_hyperprior": (7_028_003, 11_269_539, 17_561_699),
    "joint": (9_888_931, 14_130_467, 25_504_596),
}
"""Parameters of CompressAI's models, by `SIZES`. They include three quantiles per channel of the factorized density,
which this project finds by bisection instead."""


class Count(NamedTuple):
    """Number of parameters of one model at one size."""

    entropy_model: str
    num_filters: int
    num_latents: int
    compressai: int
    """Number in CompressAI's model, without quantiles; for `context`, computed from the parts of mbt2018."""
    ours: int
    published: int | None
    """Published number, without quantiles; None for `context`."""

    @property
    def is_equal(self) -> bool:
        """Whether all known numbers are equal."""
        return self.ours == self.compressai and self.published in (None, self.ours)


def count_parameters() -> Iterator[Count]:
    """Count the parameters of every model at every published size."""
    for index, (N, M) in enumerate(SIZES):
        for entropy_model, build in oracle.CLASSES.items():
            theirs = build(N, M)
            quantiles = theirs.entropy_bottleneck.quantiles.numel()
            published = PUBLISHED_COUNTS[entropy_model][index] - quantiles
            yield Count(
                entropy_model, N, M, num_parameters(theirs) - quantiles, count_ours(entropy_model, N, M), published
            )
        # `theirs` is mbt2018; without side information, h_a, h_s, the prior and g_ep's 2M inputs for psi are absent.
        side = sum(num_parameters(net) for net in (theirs.h_a, theirs.h_s, theirs.entropy_bottleneck))
        side += 2 * M * theirs.entropy_parameters[0].out_channels
        yield Count("context", N, M, num_parameters(theirs) - side, count_ours("context", N, M), None)


def num_parameters(module: torch.nn.Module) -> int:
    """Count the parameters of `module`."""
    return sum(p.numel() for p in module.parameters())


def count_ours(entropy_model: Any, num_filters: int, num_latents: int) -> int:
    """Count the parameters of this project's model."""
    return num_parameters(CompressionModel(ModelConfig(entropy_model, num_filters, num_latents)))


def print_counts(counts: Sequence[Count]) -> None:
    """Print the numbers of parameters beside CompressAI's."""
    print(f"{'parameters (without quantiles)':34}{'CompressAI':>12}{'ours':>12}")
    for c in counts:
        verdict = "" if c.is_equal else "  DIFFERS"
        print(f"{c.entropy_model:22}{c.num_filters:5},{c.num_latents:4}  {c.compressai:12,}{c.ours:12,}{verdict}")
