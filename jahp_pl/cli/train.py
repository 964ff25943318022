"""`jahp shards` and `jahp train`: from photographs to a trained model. Heavy imports happen inside."""

from __future__ import annotations

import argparse

from jahp_pl.cli import shared


def shards(arguments: argparse.Namespace) -> None:
    """Pack photographs into shards."""
    from jahp_pl.data.index import count_by_reason
    from jahp_pl.data.prepare import ShardOptions
    from jahp_pl.data.shards import write_shards

    options = ShardOptions(
        min_side=arguments.min_side, max_side=arguments.max_side, max_pixels=arguments.max_pixels,
        tile=arguments.tile, quality=arguments.quality,
        shard_samples=arguments.shard_samples, seed=arguments.seed, shuffle=not arguments.in_order,
        part=arguments.part[0], num_parts=arguments.part[1],
    )  # fmt: skip
    with shared.bar(unit=" photos", desc="shards") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        report = write_shards(
            arguments.sources, arguments.output, options, overwrite=arguments.force, progress=progress
        )
    kind = "photographs" if arguments.tile is None else "photographs and tiles"
    shared.say(
        f"{arguments.output}: {report.num_samples} {kind} ({report.num_pixels / 1e6:.0f} megapixels) in "
        f"{report.num_shards} shards, {report.num_bytes / 1e6:.1f} MB; {report.num_as_is} stored unchanged"
    )
    if report.skipped:
        counts = ", ".join(f"{count} {reason}" for reason, count in count_by_reason(report.skipped).items() if count)
        shared.say(f"skipped {counts}; all are listed in {arguments.output / 'index.json'}, the first:")
        for skipped in report.skipped[:5]:
            shared.say(f"  {skipped.name}: {skipped.detail}")


def train(arguments: argparse.Namespace) -> None:
    """Train, or list the settings."""
    from jahp_pl.settings import all_keys, load

    if arguments.keys:
        for key, meaning in all_keys().items():
            shared.say(f"{key}\n    {meaning}")
        return
    with shared.errors_from_rank_zero():
        config = load(arguments.settings)
        from jahp_pl.training import is_first_rank
        from jahp_pl.training.run import train as run_training

        result = run_training(config, show_progress=not arguments.quiet)
    if not is_first_rank():
        return
    if result.was_finished:
        shared.say(
            f"nothing was left to do: {result.run_dir} is complete after {result.steps} steps; raise "
            "trainer.max_steps or trainer.max_time to continue"
        )
    else:
        shared.say(f"trained: {result.run_dir}  (next: jahp evaluate --model {result.run_dir} --images data/kodak)")
