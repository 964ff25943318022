"""Opens the codec that a command's options ask for."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from jahp_pl.cli.errors import CommandError
from jahp_pl.cli.process import without_garbage_collection
from jahp_pl.model_io.export_config import Metric
from jahp_pl.model_io.pretrained import NO_MODELS, bundled_models, bundled_names, bundled_with_fingerprint, locate_model
from jahp_pl.model_io.runtimes import default_runtime

if TYPE_CHECKING:
    from jahp_pl.codec.codec import Codec
    from jahp_pl.runtime.codec import AnyCodec


@without_garbage_collection()
def open_codec(arguments: argparse.Namespace, model: str | Path | None = None) -> Codec:
    """Open the codec for --model or --metric, --device, --threads, --precision and --memory.

    Args:
        arguments: arguments with these options; --metric may be missing.
        model: replaces --model.

    Raises:
        CommandError: if the device is unavailable, the memory too small, or --metric given together with --model.
        ExportError: if there is no such model.
    """
    path = locate_model(model or arguments.model, _metric(arguments))  # first, because importing torch takes seconds
    import torch

    from jahp_pl.codec.devices import DeviceError
    from jahp_pl.codec.transforms.runner import MemoryLimitError
    from jahp_pl.model_io.load import load_codec

    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.device == "auto":
        arguments.device = "cuda" if torch.cuda.is_available() else "mps" if torch.mps.is_available() else "cpu"
    limit = arguments.memory * 2**20
    try:
        return load_codec(path, arguments.device, arguments.precision, limit)
    except DeviceError as error:
        raise CommandError(f"--{error} or auto") from None
    except MemoryLimitError as error:
        raise CommandError(f"--memory {arguments.memory}: {error}") from None


@without_garbage_collection()
def open_any_codec(arguments: argparse.Namespace, model: str | Path | None = None) -> AnyCodec:
    """Open the codec as `open_codec` does, but in the runtime that --runtime asks for.

    Raises:
        CommandError, ExportError: as for `open_codec`; also if the runtime lacks an option or is not installed.
    """
    if (arguments.runtime or default_runtime()) == "torch":
        return open_codec(arguments, model)
    for option, allowed in (("device", ("cpu", "auto")), ("precision", ("float32",))):
        if (value := getattr(arguments, option)) not in allowed:
            raise CommandError(f"--{option} {value}: the onnx runtime has {allowed[0]} only; use --runtime torch")
    if importlib.util.find_spec("onnxruntime") is None:
        raise CommandError("the onnx runtime is not installed; install it with: pip install 'jahp_pl[runtime]'")
    from jahp_pl.runtime.load import load_runtime

    codec = load_runtime(model or arguments.model, metric=_metric(arguments), threads=arguments.threads or 0)
    codec.transforms.memory_limit = min(codec.transforms.memory_limit, arguments.memory * 2**20)
    return codec


def _metric(arguments: argparse.Namespace) -> Metric | None:
    """Return the value of --metric, if the command has it.

    Raises:
        CommandError: if --model is given too.
    """
    metric: Metric | None = getattr(arguments, "metric", None)
    if metric is not None and arguments.model is not None:
        raise CommandError("--metric picks one of the bundled models; leave out either it or --model")
    return metric


class Decoders:
    """Source of the codec for each file: the model of --model, or the bundled model that made the file.

    Args:
        arguments: arguments of a command that decodes.

    Raises:
        CommandError, ExportError: as for `open_codec`; also if no model is given and none is bundled.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._codecs: dict[bytes, AnyCodec] = {}
        self._only = None if arguments.model is None else open_any_codec(arguments)
        if self._only is None and not bundled_models():
            raise CommandError(NO_MODELS)

    def find(self, fingerprint: bytes) -> AnyCodec:
        """Return the codec for a file with this model fingerprint.

        With --model, that codec is always returned; it refuses files with another fingerprint when it decodes them.

        Raises:
            CommandError: if no bundled model has the fingerprint.
        """
        if self._only is not None:
            return self._only
        if fingerprint not in self._codecs:
            model = bundled_with_fingerprint(fingerprint)
            if model is None:
                raise CommandError(
                    f"made with model {fingerprint.hex()}, which is not bundled ({bundled_names()}); give "
                    "the model that made it with --model"
                )
            self._codecs[fingerprint] = open_any_codec(self._arguments, model.folder)
        return self._codecs[fingerprint]
