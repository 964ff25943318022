"""Checkpoints without Lightning: what is in them, and the model back from one. No pickled code is ever run."""

from __future__ import annotations

import pickle
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from jahp_pl.config import ConfigError, ModelConfig, model_from_dict
from jahp_pl.errors import JahpError
from jahp_pl.model import CompressionModel

FORMAT_KEY = "jahp_pl_format"
"""Marks a checkpoint as ours; the value is `FORMAT`."""
FORMAT = 1
"""Version of the layout; a reader refuses newer ones."""
HYPER_PARAMETERS = "hyper_parameters"
"""Where the configuration lies, as plain nested dicts (`config.to_dict`)."""
MODEL, AVERAGE = "model.", "average."
"""Prefixes in `state_dict` of the trained weights and of their moving average, which is there only if one was kept."""


_CONTENT = {HYPER_PARAMETERS: dict, "state_dict": dict}
_DAMAGES = (
    RuntimeError, OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError,
    AssertionError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What reading a file that anybody may have made ends in."""


class CheckpointError(JahpError, ValueError):
    """A checkpoint that cannot be used; the message is one line that names the file and says why."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint that was whole once, or never came to be."""


def find_checkpoint(path: str | Path) -> Path:
    """The checkpoint that a person means: a file itself, or the best one of a run folder, else its last.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    found = _candidate(path)
    if found is None:
        raise CheckpointError(f"{path}: holds no checkpoint; give a run folder that `jahp train` made, or a .ckpt file")
    return found


def has_checkpoint(folder: Path) -> bool:
    """Whether `find_checkpoint` finds one in this folder."""
    return _candidate(folder) is not None


def _candidate(folder: Path) -> Path | None:
    paths = (folder / place / name for place in ("checkpoints", ".") for name in ("best.ckpt", "last.ckpt"))
    return next((path for path in paths if path.is_file()), None)


class Newest(NamedTuple):
    """The newest checkpoint of a run that is whole."""

    path: Path
    content: dict[str, Any]
    """See `read_checkpoint`."""
    complaint: DamagedCheckpointError | None
    """What is wrong with last.ckpt, where this is an older one."""


def earlier_checkpoint(folder: Path, number: int) -> Path:
    """The checkpoint so many saves before last.ckpt; `BestAndLast` keeps some."""
    return folder / (f"last-{number}.ckpt" if number else "last.ckpt")


def read_newest(folder: Path) -> Newest | None:
    """last.ckpt, or the newest one before it that is not damaged; None where there is none at all.

    Args:
        folder: `checkpoints` of a run.

    Raises:
        CheckpointError: all are damaged, or the newest is of another kind, see `read_checkpoint`.
    """
    last = folder / "last.ckpt"
    earlier = [path for path in folder.glob("last-*.ckpt") if path.stem.removeprefix("last-").isdecimal()]
    complaint = None
    for path in (last, *sorted(earlier, key=lambda path: int(path.stem.removeprefix("last-")))):
        if not path.exists():
            continue
        try:
            return Newest(path, read_checkpoint(path), complaint)
        except DamagedCheckpointError as error:
            complaint = complaint or error
    if complaint is not None:
        raise complaint
    return None


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Everything in a checkpoint, tensors on the CPU.

    Raises:
        CheckpointError: missing, damaged, not written by this project, or by a newer version of it.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    if not zipfile.is_zipfile(path):
        raise DamagedCheckpointError(f"{path}: no checkpoint, or cut short; use another one")
    try:
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise CheckpointError(f"{path}: compressed, as torch.save never writes it; not written by jahp_pl")
            if changed := archive.testzip():  # torch compares no checksums
                raise zipfile.BadZipFile(f"{changed} is not what was written")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(f"{path}: holds more than tensors and plain values; not written by jahp_pl") from None
    except CheckpointError:
        raise
    except _DAMAGES as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DamagedCheckpointError(f"{path}: damaged ({reason}); use another one") from None
    if not isinstance(content, dict) or FORMAT_KEY not in content:
        raise CheckpointError(f"{path}: not a checkpoint of jahp_pl")
    if type(content[FORMAT_KEY]) is not int or any(
        not isinstance(content.get(key), kind) for key, kind in _CONTENT.items()
    ):
        raise CheckpointError(f"{path}: not laid out like a checkpoint of jahp_pl; use another one")
    if content[FORMAT_KEY] > FORMAT:
        raise CheckpointError(f"{path}: format {content[FORMAT_KEY]} is newer than this jahp_pl reads; upgrade it")
    return content


def is_validation_due(content: dict[str, Any]) -> bool:
    """Whether the run was cut off in the validation of this checkpoint's step.

    Args:
        content: see `read_checkpoint`.
    """
    return bool(content["training"].get("validation_due", False))


def load_model(path: str | Path, average: bool = True) -> CompressionModel:
    """The trained model, in evaluation mode on the CPU.

    Args:
        path: a checkpoint of a training run.
        average: take the moving average of the weights where there is one, as validation did.

    Raises:
        CheckpointError: see `read_checkpoint`; also weights that do not fit the stated architecture, naming the first
            that differs.
    """
    content = read_checkpoint(path)
    try:
        config = model_from_dict(content[HYPER_PARAMETERS]["model"])
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be read: {error}") from None
    state = content["state_dict"].items()
    weights = {key: value for key, value in state if isinstance(key, str) and isinstance(value, Tensor)}
    has_average = any(key.startswith(AVERAGE) for key in weights)
    prefix = AVERAGE if average and has_average else MODEL
    weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    if difference := first_difference(shapes_of(config), weights):
        raise CheckpointError(f"{path}: does not fit its own configuration: {difference}")
    if unusable := next((name for name, tensor in weights.items() if not is_usable(tensor)), None):
        raise CheckpointError(f"{path}: {unusable} is not finite, or no plain tensor; use an earlier checkpoint")
    model = CompressionModel(config).float()  # whatever the default dtype
    model.load_state_dict(weights)
    return model.eval().requires_grad_(False)


def shapes_of(config: ModelConfig) -> dict[str, Tensor]:
    """Tensors of the names and shapes that a model has, without memory, whatever sizes its configuration asks for.

    The one of sizes beyond all that torch can count is empty, so that nothing fits it.
    """
    try:
        with torch.device("meta"):
            return CompressionModel(config).state_dict()
    except (RuntimeError, OverflowError, TypeError):
        return {}


def is_usable(tensor: Tensor) -> bool:
    """Whether this holds its numbers itself, dense, real and finite; a view may claim more than there is."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.device.type != "cpu":
        return False
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return False
    return bool(torch.isfinite(tensor).all())


def first_difference(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> str | None:
    """The first tensor that is missing, unknown or of another shape, in words; None where all fit."""
    for name, tensor in wanted.items():
        if name not in found:
            return f"{name} is missing"
        if found[name].shape != tensor.shape:
            return f"{name} has shape {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
    unknown = next((name for name in found if name not in wanted), None)
    return f"{unknown} is unknown" if unknown is not None else None
