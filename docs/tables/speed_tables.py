"""Makes the tables of times and memory, one function per table."""

from __future__ import annotations

from markdown_table import table
from result_files import result


def coding_speed() -> str:
    """Tabulate the coding times of the full-size models, and of CompressAI with the same weights."""
    one, three = (result("bench")["models"][name] for name in ("full-1", "full-3"))
    peer, times = one["peer"], one["times"]
    rows = {
        f"{peer['name'].replace(' mbt', chr(39) + 's mbt')}, the same weights": (peer["encode"], peer["decode"]),
        "`jahp`, K = 1": (times["encode"], times["decode"]),
        "of which: g_a and h_a; g_s": (times["g_a"] + times["h_a"], times["g_s"]),
        "g_a, g_s as torch's layers in channels_last": (times["module_g_a"], times["module_g_s"]),
        "`jahp`, K = 3": (three["times"]["encode"], three["times"]["decode"]),
    }
    return table(
        "| encode > | decode >", [(name, *(f"{1000 * s:.0f} ms" for s in pair)) for name, pair in rows.items()]
    )


def training_speed() -> str:
    """Compare training steps with CompressAI's, with a large matrix product and with their own matrix products."""
    names = {"as configured": "bfloat16", "trainer.channels_last=true": "bfloat16, channels_last"}
    rows = [
        (
            names[row["name"]], f"{row['images_per_second']:.2f}", f"{row['times_peer']:.2f}",
            f"{100 * row['flops'] / row['matrix_flops']:.0f} %",
            f"{100 * row['product_seconds'] / row['seconds']:.0f} %",
        )
        for row in result("bench-train")["mbt2018"]["variants"]
    ]  # fmt: skip
    return table(
        "| crops a second > | times CompressAI's step > | share of a large matrix product's rate >"
        " | share of the step in its own matrix products >",
        rows,
    )


def data_speed() -> str:
    """Tabulate the crops per second from shards and from a plain loader."""
    rows = result("bench-data")["rows"]
    plain = rows[0]["per_core"]
    cells = [
        (
            row["name"], f"{row['per_core']:.0f}", f"{row['per_core'] / plain:.2f}",
            f"{100 * row['decode_share']:.0f} %" if row.get("decode_share") is not None else "",
            f"{row['worker_mib']:.0f} MiB",
        )
        for row in rows
    ]  # fmt: skip
    return table(
        "| crops a second on one core > | ratio > | share spent decoding > | memory of a worker alone >", cells
    )


def stream_memory() -> str:
    """Tabulate the memory of `jahp shards` and of a data worker after few and after many photographs."""
    content = result("streams")
    rows = [
        (name, *(f"{size / 2**20:.0f} MiB" for size in content[key]))
        for name, key in (("`jahp shards`, photographs packed", "shards"), ("a data worker, crops drawn", "worker"))
    ]
    return table("memory after | " + " | ".join(f"{number:,} >" for number in content["photos"]), rows)
