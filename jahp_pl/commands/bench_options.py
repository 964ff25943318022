"""The options of `jahp bench`; `benching` does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jahp_pl.commands import benching
from jahp_pl.commands.options import MODEL, add_images, add_machine, command, group, positive


def add_benches(table: Any) -> None:
    """bench and its commands."""
    benches = group(table, "bench", "measure the speed of coding, training, or reading data")

    p = command(benches, "coding", benching.coding, "time coding, stage by stage, beside the transforms alone", """\
        jahp bench coding --model joint-psnr --images data/kodak --limit 4
        jahp bench coding --model models/full models/full-mix3 --images data/kodak --out bench.json""")  # fmt: skip
    p.add_argument("--model", nargs="+", required=True, metavar="M", help=f"each a {MODEL}")
    add_images(p)
    p.add_argument("--rounds", type=positive, default=5, metavar="N", help="of which the median counts [5]")
    p.add_argument("--out", type=Path, metavar="R.json", help="results")
    p.add_argument(
        "--peer",
        metavar="COMMAND",
        help="another program to time with the weights of the first model",
    )
    add_machine(p)

    p = command(benches, "train", benching.train, "time training steps, beside the machine's matrix products", """\
        jahp bench train configs/quickstart.yaml
        jahp bench train configs/mbt2018.yaml --variant trainer.channels_last=true
        jahp bench train configs/mbt2018.yaml --variant 'trainer.channels_last=true optim.ema_decay=0'""")  # fmt: skip
    p.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help="as for `jahp train`")
    p.add_argument(
        "--variant", action="append", default=[], metavar="'KEY=VALUE ...'", help="time it with these as well; again"
    )
    p.add_argument("--steps", type=positive, default=5, metavar="N", help="of each in each round [5]")
    p.add_argument("--rounds", type=positive, default=5, metavar="N", help="of which the median counts [5]")
    p.add_argument("--threads", type=positive, metavar="N", help="of the processor [one per core]")
    p.add_argument("--out", type=Path, metavar="R.json", help="results")
    p.add_argument("--peer", metavar="COMMAND", help="another program whose steps to time")

    p = command(benches, "data", benching.data, "crops per second from shards and from files", """\
        jahp bench data configs/mbt2018.yaml --images data/photos/train
        jahp bench data data.crops_per_photo=8 --images ~/photos --out bench-data.json""")  # fmt: skip
    p.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help="crops, batches, workers; data.train")
    p.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of photographs to make shards of")
    p.add_argument("--batches", type=positive, default=25, metavar="N", help="timed at a time [25]")
    p.add_argument("--rounds", type=positive, default=5, metavar="N", help="of which the median counts [5]")
    p.add_argument("--out", type=Path, metavar="R.json", help="results")
