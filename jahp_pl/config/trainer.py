"""Settings of the run's length, hardware and intervals: the section `trainer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jahp_pl.config.checks import require


@dataclass
class TrainerConfig:
    """Length of the run, hardware, and intervals between logging and between validations."""

    max_steps: int = 1_000_000
    """Total number of optimizer steps; there are no epochs."""
    max_time: str | None = None
    """Maximum training time over all sessions, as DD:HH:MM:SS; the run then ends even if steps are left. A cosine
    schedule anneals toward whichever limit comes first."""
    session_time: str | None = None
    """Maximum time of one session, as DD:HH:MM:SS, for jobs of limited length. The session then stops with a
    checkpoint, and the same command resumes the run. Steps, schedule and result are the same as without stops."""
    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    """Hardware to train on; auto uses a GPU if there is one."""
    devices: int = 1
    """Number of training processes (ranks) per machine, one per GPU; on a CPU, any number."""
    num_nodes: int = 1
    """Number of machines."""
    precision: Literal["auto", "32-true", "bf16-mixed"] = "auto"
    """auto uses bf16-mixed if the hardware is faster in bfloat16 than in float32, otherwise 32-true."""
    deterministic: bool = False
    """Use only deterministic operations of torch, and fail if an operation has no deterministic version."""
    val_every_steps: int = 5000
    """Optimizer steps between two validations."""
    log_every_steps: int = 50
    """Optimizer steps between two rows of metrics."""
    keep_checkpoints: int = 2
    """Number of recent checkpoints to keep; if the newest is damaged, the run resumes from the one before."""
    max_skipped_steps: int = 20
    """Stop the run after this many consecutive optimizer steps with a non-finite loss or gradient."""
    compile: bool = False
    """Compile the forward pass of training with torch.compile: takes minutes at the start and makes steps faster."""
    channels_last: bool = False
    """Keep images and transforms in channels_last memory format."""

    def __post_init__(self) -> None:
        for name in (
            "max_steps", "devices", "num_nodes", "val_every_steps", "log_every_steps", "keep_checkpoints",
            "max_skipped_steps",
        ):  # fmt: skip
            require(getattr(self, name) >= 1, f"trainer.{name}", getattr(self, name), "must be at least 1")
        for name in ("max_time", "session_time"):
            parts = (getattr(self, name) or "0:0:0:1").split(":")
            require(
                len(parts) == 4 and all(p.isdecimal() for p in parts) and int("".join(parts)) > 0,
                f"trainer.{name}",
                getattr(self, name),
                "must have the form DD:HH:MM:SS, e.g. 00:00:10:00 for ten minutes; put ten days or more in quotes, "
                'like "10:00:00:00", because YAML would read a number',
            )

    @property
    def num_ranks(self) -> int:
        """Number of processes that train together, over all nodes."""
        return self.devices * self.num_nodes

    def max_seconds(self) -> float:
        """Return `max_time` in seconds; infinity if it is not set."""
        return _to_seconds(self.max_time)

    def session_seconds(self) -> float:
        """Return `session_time` in seconds; infinity if it is not set."""
        return _to_seconds(self.session_time)

    def is_over(self, steps: int, seconds: float) -> bool:
        """Check whether a run that has done this many steps in this many seconds has reached either limit."""
        return steps >= self.max_steps or seconds >= self.max_seconds()


def _to_seconds(time: str | None) -> float:
    if time is None:
        return float("inf")
    days, hours, minutes, seconds = (int(part) for part in time.split(":"))
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
