"""Reads checkpoints without Lightning, and rebuilds the model. Never runs pickled code."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jahp_pl.config import ConfigError, model_from_dict
from jahp_pl.config.parts import UnknownPartError
from jahp_pl.errors import JahpError, first_line, is_memory_shortage
from jahp_pl.files.json_content import FINITE, first_mismatch, is_json
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.build import build_model, meta_state_dict
from jahp_pl.model_io.checkpoint_files import LAST, checkpoint_in
from jahp_pl.model_io.export_config import FACTS_SHAPE
from jahp_pl.model_io.tensor_layout import first_difference
from jahp_pl.ops import is_finite

CHECKPOINT_FORMAT_KEY = "jahp_pl_format"
"""Key that marks a checkpoint as one of this project; its value is `CHECKPOINT_FORMAT`."""
CHECKPOINT_FORMAT = 1
"""Version of the layout; newer ones are refused."""
HYPER_PARAMETERS = "hyper_parameters"
"""Key of the configuration, as plain nested dicts (`config.to_dict`)."""
MODEL_PREFIX, AVERAGE_PREFIX = "model.", "average."
"""Prefixes in `state_dict` of the trained weights and of their moving average, which may be absent."""

_CHECKPOINT_SHAPE = {
    CHECKPOINT_FORMAT_KEY: int,
    HYPER_PARAMETERS: FACTS_SHAPE | {"model": {}},
    "state_dict": {},
    "global_step?": int,
    "training?": {"seconds": FINITE, "skipped_steps": int, "validation_due?": bool},
}
"""Shape of a checkpoint, see `json_content.first_mismatch`."""
_RESUMABLE_SHAPE = {
    HYPER_PARAMETERS: {"model": {}, "loss": {}, "data": {}, "trainer": {}, "optim": {"ema_decay": FINITE}},
    "global_step": int,
    "training": {},
    "callbacks": {},
}
"""Shape of a checkpoint from which a run can be resumed, see `json_content.first_mismatch`."""
_DAMAGE_ERRORS = (
    RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError,
    AssertionError, zipfile.BadZipFile, zlib.error, struct.error,
)  # fmt: skip
"""Exceptions that reading a damaged file may raise."""


class CheckpointError(JahpError, ValueError):
    """An unusable checkpoint; the message is one line that names the file and the reason."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that is damaged or incomplete, unlike an intact one that this program cannot use."""


def find_checkpoint(path: str | Path) -> Path:
    """Resolve a path to a checkpoint: the file itself, or a run folder's best checkpoint, otherwise its last.

    Raises:
        CheckpointError: if there is none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    found = checkpoint_in(path)
    if found is None:
        raise CheckpointError(f"{path}: has no checkpoint; give a run folder that `jahp train` made, or a .ckpt file")
    return found


class NewestCheckpoint(NamedTuple):
    """The newest intact checkpoint of a run."""

    path: Path
    content: dict[str, Any]
    """Result of `read_checkpoint`."""
    damage: DamagedCheckpointError | None
    """Error that last.ckpt raised, if an earlier checkpoint is used in its place."""


def read_newest(folder: Path) -> NewestCheckpoint | None:
    """Read last.ckpt, or the newest earlier one that is intact; None if there is none at all.

    Args:
        folder: `checkpoints` folder of a run.

    Raises:
        CheckpointError: if all are damaged, or the newest is unusable for another reason, see `read_checkpoint`.
    """
    last = folder / LAST
    earlier = [path for path in folder.glob("last-*.ckpt") if path.stem.removeprefix("last-").isdecimal()]
    damage = None
    for path in (last, *sorted(earlier, key=lambda path: int(path.stem.removeprefix("last-")))):
        if not path.exists():
            continue
        try:
            content = read_checkpoint(path)
            if missing := first_mismatch(content, _RESUMABLE_SHAPE):
                raise CheckpointError(f"{path}: lacks {missing}, so the run cannot be resumed; choose another name=...")
            return NewestCheckpoint(path, content, damage)
        except DamagedCheckpointError as error:
            damage = damage or error
    if damage is not None:
        raise damage
    return None


def check_readable(path: Path) -> None:
    """Check that a checkpoint exists and may be opened; otherwise, its readers would call it damaged.

    Raises:
        CheckpointError: if it does not exist.
        OSError: if it may not be read.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; check the path")
    path.open("rb").close()


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read the whole content of a checkpoint, with tensors on the CPU.

    Raises:
        CheckpointError: if it is missing, damaged, not written by this project, or written by a newer version of it.
        OSError: if it may not be read.
    """
    path = Path(path)
    check_readable(path)
    if not zipfile.is_zipfile(path):
        is_beside_one = path.suffix != ".ckpt" and checkpoint_in(path.parent) is not None
        remedy = f"did you mean its folder, {path.parent}?" if is_beside_one else "use another one"
        raise DamagedCheckpointError(f"{path}: is not a checkpoint, or is cut short; {remedy}")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise CheckpointError(f"{path}: is compressed, which torch.save never does; use another one")
            if changed := archive.testzip():  # torch does not verify checksums
                raise zipfile.BadZipFile(f"{changed} does not match its checksum")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: contains more than tensors and plain values, so jahp_pl did not write it; use another one"
        ) from None
    except CheckpointError:
        raise
    except _DAMAGE_ERRORS as error:
        if is_memory_shortage(error):
            raise CheckpointError(f"{path}: not enough memory to read it ({first_line(error)}); free some") from None
        is_clear = isinstance(error, OSError | RuntimeError | zipfile.BadZipFile | zlib.error)
        reason = first_line(error) if is_clear else "its data is malformed"
        raise DamagedCheckpointError(f"{path}: is damaged ({reason}); use another one") from None
    if not isinstance(content, dict) or CHECKPOINT_FORMAT_KEY not in content:
        raise CheckpointError(f"{path}: is not a checkpoint of jahp_pl; give a .ckpt file that `jahp train` wrote")
    mismatch = first_mismatch(content, _CHECKPOINT_SHAPE)
    if mismatch or not is_json(content[HYPER_PARAMETERS]):
        mismatch = mismatch or HYPER_PARAMETERS
        raise CheckpointError(f"{path}: does not have the layout of a jahp_pl checkpoint ({mismatch}); use another one")
    if content[CHECKPOINT_FORMAT_KEY] > CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"{path}: format {content[CHECKPOINT_FORMAT_KEY]} is newer than this jahp_pl reads; upgrade jahp_pl"
        )
    return content


class RunCounters(NamedTuple):
    """Counters of a run that its checkpoints hold in addition to Lightning's own."""

    seconds: float
    """Training time over all sessions in seconds, including validation."""
    skipped_steps: int
    """Number of optimizer steps that were skipped."""
    validation_due: bool
    """Whether a validation of the checkpoint's step started but did not finish."""

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> RunCounters:
        """Read the counters from the content of a checkpoint (see `read_checkpoint`).

        Raises:
            LookupError: if it has none, because only a model was saved.
        """
        found = content["training"]
        return cls(float(found["seconds"]), found["skipped_steps"], bool(found.get("validation_due", False)))

    def entries(self) -> dict[str, Any]:
        """Return the entries of a checkpoint that Lightning does not write: these counters and the format."""
        return {CHECKPOINT_FORMAT_KEY: CHECKPOINT_FORMAT, "training": self._asdict()}


@contextmanager
def restore_errors(path: str | Path) -> Iterator[None]:
    """Convert errors in the block, which restores an object from a checkpoint, to one with a one-line message.

    Raises:
        CheckpointError: if the content does not fit its configuration.
    """
    try:
        yield
    except (ConfigError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{path}: does not fit its configuration ({reason}); use another one") from None


def load_checkpoint_model(path: str | Path, average: bool = True) -> CompressionModel:
    """Load the trained model, in evaluation mode on the CPU.

    Args:
        path: a checkpoint of a training run.
        average: use the moving average of the weights if there is one, as validation does.

    Raises:
        CheckpointError: see `read_checkpoint`; also if the weights do not fit the stored architecture.
    """
    content = read_checkpoint(path)
    try:
        config = model_from_dict(content[HYPER_PARAMETERS]["model"])
    except UnknownPartError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be read ({error}); use another one") from None
    state = content["state_dict"].items()
    weights = {key: value for key, value in state if isinstance(key, str) and isinstance(value, Tensor)}
    has_average = any(key.startswith(AVERAGE_PREFIX) for key in weights)
    prefix = AVERAGE_PREFIX if average and has_average else MODEL_PREFIX
    weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    if difference := first_difference(meta_state_dict(config), weights):
        raise CheckpointError(f"{path}: does not fit its own configuration: {difference}; use another one")
    if unusable := next((name for name, tensor in weights.items() if not is_plain_tensor(tensor)), None):
        raise CheckpointError(f"{path}: {unusable} is not finite or not a plain tensor; use an earlier checkpoint")
    return build_model(config, weights)


def training_facts(path: Path) -> dict[str, Any]:
    """Collect facts about the training run of a checkpoint, as plain values: its progress and settings, without paths.

    Args:
        path: a checkpoint of a training run.

    Raises:
        CheckpointError: see `read_checkpoint`.
    """
    content = read_checkpoint(path)
    settings = content.get(HYPER_PARAMETERS, {})
    seconds = content.get("training", {}).get("seconds")
    facts = {"step": content.get("global_step")} | ({} if seconds is None else {"seconds": round(seconds)})
    facts |= {name: settings[name] for name in ("seed", "loss", "optim", "trainer") if name in settings}
    data: dict[str, Any] = settings.get("data", {})
    optim: dict[str, Any] = settings.get("optim", {})
    if isinstance(start := optim.get("start_from"), str):
        facts["optim"] = optim | {"start_from": Path(start).name}
    return facts | {"data": {name: data[name] for name in ("crop_size", "batch_size") if name in data}}


def is_plain_tensor(tensor: Tensor) -> bool:
    """Check that a tensor is dense, real, finite, on the CPU, and within its storage (a view may claim more)."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
        return False
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return False
    return is_finite(tensor)
