# ruff: noqa: T201
"""Trains CompressAI 1.2.8's mbt2018 with the steps of its own training example, for `jahp bench train --peer`.

    python -m checks.parity.steps BATCH CROP STEPS THREADS

For each line on standard input, it takes STEPS steps and prints one JSON object.
"""

from __future__ import annotations

import json
import sys
import time
from statistics import fmean

import torch

from checks.parity import oracle

NUM_WARMUP = 1


def main(batch: str, crop: str, steps: str, threads: str) -> None:
    """Take steps on command."""
    from compressai.losses import RateDistortionLoss  # imports torchvision, so `oracle` must be imported first

    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    net = oracle.CLASSES["joint"](192, 192).train()
    main_parameters = [p for name, p in net.named_parameters() if not name.endswith(".quantiles")]
    quantiles = [p for name, p in net.named_parameters() if name.endswith(".quantiles")]
    optimizer, aux_optimizer = torch.optim.Adam(main_parameters, lr=1e-4), torch.optim.Adam(quantiles, lr=1e-3)
    criterion = RateDistortionLoss(lmbda=0.013)
    x = torch.rand(int(batch), 3, int(crop), int(crop))

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        aux_optimizer.zero_grad()
        criterion(net(x), x)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        net.aux_loss().backward()
        aux_optimizer.step()
        return time.perf_counter() - start

    for _ in sys.stdin:
        for _ in range(NUM_WARMUP):
            step()
        seconds = fmean(step() for _ in range(int(steps)))
        print(json.dumps({"name": "CompressAI 1.2.8 mbt2018", "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
