"""What `jahp bench` measures. Heavy imports happen inside."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from jahp_pl import console


def coding(arguments: argparse.Namespace) -> None:
    """Times of coding beside those of the transforms."""
    import json
    from statistics import fmean

    import torch
    from tqdm import tqdm

    from jahp_pl.evaluation.images import find_images
    from jahp_pl.evaluation.provenance import provenance
    from jahp_pl.evaluation.speed import Speed, mean_times, measure, measure_peer, table, to_json
    from jahp_pl.files import write_atomically

    images = find_images(arguments.images)[: arguments.limit]
    content = provenance(["jahp", *sys.argv[1:]])
    speeds: dict[str, Any] = {}
    total = len(images) * len(arguments.model)
    with tqdm(total=total, unit=" images", desc="bench coding", leave=False, disable=None) as bar:
        for number, path in enumerate(arguments.model):
            codec = console.open_codec(arguments, path)
            measured = []
            for row in measure(codec, images, arguments.rounds):
                measured.append(row)
                bar.update()
            peer = None
            if arguments.peer is not None and number == 0:
                peer = measure_peer(arguments.peer, codec, images, arguments.rounds)
            _, times, bpp, quality = zip(*measured, strict=True)
            speed = Speed(
                len(images),
                arguments.rounds,
                torch.get_num_threads(),
                mean_times(times),
                fmean(bpp),
                fmean(quality),
                peer,
            )
            with tqdm.external_write_mode():
                print(table(path.name, speed))
            speeds[path.name] = to_json(speed) | {"model": vars(codec.model.config)}
    if arguments.out is not None:
        text = json.dumps(content | {"precision": arguments.precision, "models": speeds}, indent=2)
        write_atomically(arguments.out, f"{text}\n".encode())
        print(f"\nresults  {arguments.out}")
