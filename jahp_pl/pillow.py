"""A Pillow plugin: with `import jahp_pl.pillow`, Pillow opens and saves .jahp files.

    Image.open("photo.jahp")                      reads size and color profile; loading the pixels needs a model
    image.save("photo.jahp", quality=80)          from 1 (smallest files) to 100; or bpp=, size= (bytes), psnr= (dB)
    image.save("photo.jahp", model="models/m")    default: the registered model, otherwise a bundled one
    image.save("photo.jahp", effort=2)            spends seconds on a smaller file, see `Codec.compress`

Pillow does not find plugins by itself, so the import is required. A file is decoded by the model with its
fingerprint: one that was registered or used before, the one in the environment variable JAHP_MODEL (a model or a folder
of exports), or a bundled one.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from jahp_pl.codec.bitstream import FILE_SUFFIX, MAGIC, MAX_PIXELS, BitstreamError, unpack
from jahp_pl.codec.limits import size_based_pixel_limit
from jahp_pl.errors import JahpError
from jahp_pl.files.atomic import resolved
from jahp_pl.model_io.export_config import Metric, is_export, read_fingerprint
from jahp_pl.model_io.pretrained import bundled_with_fingerprint, locate_model
from jahp_pl.model_io.runtimes import default_runtime

if TYPE_CHECKING:
    from jahp_pl.runtime.codec import AnyCodec

FORMAT = "JAHP"
MODEL_VARIABLE = "JAHP_MODEL"
NO_LIMIT = "set PIL.Image.MAX_IMAGE_PIXELS = None"
"""Advice for messages: how to lift the limits on the size that a file may state."""
CODEC_OPTIONS = ("quality", "bpp", "size", "psnr", "effort")
"""Options of `Image.save` that are passed on, see `Codec.compress`."""


class NoModelError(JahpError, LookupError):
    """The required model is not available; the message is one line with the remedy."""


class Models:
    """Available codecs by fingerprint. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._codecs: dict[bytes, AnyCodec] = {}
        self._paths: dict[Path, AnyCodec] = {}

    def add(self, model: AnyCodec | str | os.PathLike[str]) -> AnyCodec:
        """Add a codec, or load one from a model as accepted by `jahp_pl.load_codec`; each model is loaded only once.

        Raises:
            ExportError, CheckpointError, UnusableModelError: see `jahp_pl.load_codec`.
        """
        with self._lock:
            codec = self._loaded(locate_model(_name_or_path(model))) if isinstance(model, str | os.PathLike) else model
            self._codecs[codec.fingerprint] = codec
            return codec

    def find(self, fingerprint: bytes) -> AnyCodec:
        """Return the codec that decodes a file.

        Raises:
            NoModelError: if it is not available.
            ExportError, CheckpointError, UnusableModelError: if JAHP_MODEL or a bundled model cannot be loaded.
        """
        with self._lock:
            folder = os.environ.get(MODEL_VARIABLE)
            if fingerprint not in self._codecs and folder and (path := _candidate(Path(folder), fingerprint)):
                self.add(path)
            if fingerprint in self._codecs:
                return self._codecs[fingerprint]
            if model := bundled_with_fingerprint(fingerprint):
                return self._loaded(model.folder)
        raise NoModelError(
            f"the file was made with model {fingerprint.hex()}, which is neither registered nor bundled; set "
            f"{MODEL_VARIABLE} to its folder, or pass it to jahp_pl.pillow.register"
        )

    def default(self) -> AnyCodec:
        """Return the default codec for saving: the one in JAHP_MODEL, otherwise the only registered one, otherwise a
        bundled one.

        Raises:
            NoModelError: if several are registered and JAHP_MODEL is not set.
            ExportError, CheckpointError, UnusableModelError: if JAHP_MODEL cannot be loaded, or none is bundled.
        """
        with self._lock:
            if folder := os.environ.get(MODEL_VARIABLE):
                return self.add(folder)
            if len(self._codecs) == 1:
                return next(iter(self._codecs.values()))
            if not self._codecs:
                return self.bundled(None)
        raise NoModelError(f"{len(self._codecs)} models are registered; give model=, or set {MODEL_VARIABLE}")

    def bundled(self, metric: Metric | None) -> AnyCodec:
        """Return a bundled codec.

        Raises:
            ExportError: if there is none for that metric.
        """
        with self._lock:
            return self._loaded(locate_model(None, metric))

    def _loaded(self, path: Path) -> AnyCodec:
        """Return the codec of a model, which is loaded once."""
        path = resolved(path)
        if path not in self._paths:
            self._paths[path] = _load(path)
        return self._paths[path]


MODELS = Models()
"""Models of this process, global like Pillow's own table of formats."""


def register(model: AnyCodec | str | os.PathLike[str]) -> AnyCodec:
    """Let Pillow decode and save with this model.

    Args:
        model: a codec, or a model as accepted by `jahp_pl.load_codec`.

    Raises:
        ExportError, CheckpointError, UnusableModelError: see `jahp_pl.load_codec`.
    """
    return MODELS.add(model)


class JahpImageFile(ImageFile.ImageFile):
    """A .jahp file: validated when it is opened, decoded when it is loaded.

    Raises:
        UnidentifiedImageError: when opened, if it is damaged or cut short; the message says how.
        OSError: when loaded, if no model with its fingerprint is available, or the payload does not decode.
    """

    format = FORMAT
    format_description = "Learned image compression (jahp_pl)"
    _data: bytes | None = None

    def _open(self) -> None:
        """Read and check the whole file; the pixels are decoded by `load`."""
        assert self.fp is not None
        data = self.fp.read()
        try:
            header, _ = unpack(data, MAX_PIXELS)  # Pillow has its own limit
        except BitstreamError as error:
            raise UnidentifiedImageError(f"{_prefix(self.filename)}{error}") from None
        self._size, self._mode = (header.width, header.height), "RGB"
        if header.icc:
            self.info["icc_profile"] = header.icc
        self._data, self._fingerprint = data, header.fingerprint

    def load(self) -> Any:
        """Decode the pixels, see `PIL.Image.Image.load`."""
        if self._data is not None:
            try:
                codec = MODELS.find(self._fingerprint)
                limit = max(self.width * self.height, Image.MAX_IMAGE_PIXELS or MAX_PIXELS)  # Pillow checked it
                self._check_declared_size(len(self._data))
                pixels = codec.decompress(self._data, limit, as_="pil")
            except (NoModelError, ValueError) as error:
                reason = re.sub("raise max_pixels( to [0-9]+)?", NO_LIMIT, str(error))
                raise OSError(f"{_prefix(self.filename)}{reason}") from None
            if self.fp is not None and self._exclusive_fp:
                self.fp.close()
            self.im, self.fp, self._data = pixels.im, None, None
        return super().load()

    def _check_declared_size(self, num_bytes: int) -> None:
        """Refuse more pixels than a real file of this length has, unless Pillow's limit is switched off."""
        if Image.MAX_IMAGE_PIXELS is not None and self.width * self.height > size_based_pixel_limit(num_bytes):
            raise BitstreamError(
                f"the file declares {self.width} x {self.height} pixels in {num_bytes} bytes, more than a real file "
                f"has; {NO_LIMIT} if you trust it"
            )


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Implement `Image.save` with the options `model` (see `register`) or `metric`, the fields of `Target`, `effort`
    and `icc_profile`."""
    options: dict[str, Any] = image.encoderinfo
    if "icc_profile" in options and options["icc_profile"] != image.info.get("icc_profile"):
        image = image.copy()
        image.info["icc_profile"] = options["icc_profile"]
    try:
        codec = _chosen(options.get("model"), options.get("metric"))
        data = codec.compress(image, **{name: options[name] for name in CODEC_OPTIONS if name in options})
    except (NoModelError, ValueError) as error:
        raise OSError(f"{_prefix(filename)}{error}") from None
    file.write(data)


def _chosen(model: AnyCodec | str | os.PathLike[str] | None, metric: Metric | None) -> AnyCodec:
    """Return the codec that the options of `Image.save` ask for.

    Raises:
        NoModelError: if both are given, or none is and there is no default.
        ExportError, CheckpointError, UnusableModelError: see `Models`.
    """
    if model is not None and metric is not None:
        raise NoModelError("metric= picks one of the bundled models; leave out metric= or model=")
    if model is not None:
        return MODELS.add(model)
    return MODELS.default() if metric is None else MODELS.bundled(metric)


def _candidate(path: Path, fingerprint: bytes) -> Path | None:
    """Find the model that may have a fingerprint; None if there is none.

    Args:
        path: an export or a folder of exports, which is searched for an export that states the fingerprint; any other
            model is returned unchecked.
        fingerprint: fingerprint in a file.
    """
    exports = [folder for folder in (path, *sorted(path.glob("*/"))) if is_export(folder)]
    if not exports:
        return path
    return next((folder for folder in exports if read_fingerprint(folder) == fingerprint), None)


def _load(path: Path) -> AnyCodec:
    """Load a codec in torch, or in onnxruntime if torch is not installed; opening a file imports neither."""
    if default_runtime() == "onnx":
        from jahp_pl.runtime.load import load_runtime

        return load_runtime(path)
    from jahp_pl.model_io.load import load_codec

    return load_codec(path)


def _name_or_path(model: str | os.PathLike[str]) -> str | Path:
    return model if isinstance(model, str) else Path(model)


def _prefix(filename: str | bytes) -> str:
    return f"{os.fsdecode(filename)}: " if filename else ""


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


Image.register_open(FORMAT, JahpImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, FILE_SUFFIX)
Image.register_mime(FORMAT, "image/x-jahp")
