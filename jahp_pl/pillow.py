"""A Pillow plugin: with `import jahp_pl.pillow`, Pillow opens and saves .jahp files.

    Image.open("photo.jahp")                      size and colour profile at once; pixels, hence a model, when loaded
    image.save("photo.jahp", quality=80)          from 1, the smallest files, to 100; or bpp=, size= (bytes), psnr= (dB)
    image.save("photo.jahp", model="models/m")    without it, with the one registered, else a bundled one
    image.save("photo.jahp", effort=2)            smaller for seconds of search, see `Codec.compress`

Pillow finds no plugins by itself, so the import has to be made. A file is decoded by the model with its fingerprint:
one that was registered or used before; or JAHP_MODEL in the environment, which names a model or a folder of exports; or
a bundled one.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from jahp_pl.codec.bitstream import MAGIC, MAX_SIDE, BitstreamError, unpack
from jahp_pl.errors import JahpError
from jahp_pl.model_io.export_config import Metric, is_export, stated_fingerprint
from jahp_pl.model_io.pretrained import locate, of_fingerprint

if TYPE_CHECKING:
    from jahp_pl.codec.codec import Codec

FORMAT = "JAHP"
SUFFIX = ".jahp"
MODEL_VARIABLE = "JAHP_MODEL"
ASKED = ("quality", "bpp", "size", "psnr", "effort")
"""What `Image.save` may ask of a file, see `Codec.compress`."""


class NoModelError(JahpError, LookupError):
    """The model that is needed is not at hand; one line says what to do."""


class Models:
    """Codecs at hand, by fingerprint. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._codecs: dict[bytes, Codec] = {}
        self._paths: dict[Path, Codec] = {}

    def add(self, model: Codec | str | os.PathLike[str]) -> Codec:
        """Keep a codec, or that of a model as `exports.folder.load_codec` takes it, which is loaded once.

        Raises:
            ExportError, CheckpointError, FreezeError: see `exports.folder.load_codec`.
        """
        with self._lock:
            codec = self._load(locate(_word(model))) if isinstance(model, str | os.PathLike) else model
            self._codecs[codec.fingerprint] = codec
            return codec

    def find(self, fingerprint: bytes) -> Codec:
        """The codec that decodes a file.

        Raises:
            NoModelError: it is not at hand.
            ExportError, CheckpointError, FreezeError: JAHP_MODEL or a bundled model cannot be loaded.
        """
        with self._lock:
            folder = os.environ.get(MODEL_VARIABLE)
            if fingerprint not in self._codecs and folder and (path := _candidate(Path(folder), fingerprint)):
                self.add(path)
            if fingerprint in self._codecs:
                return self._codecs[fingerprint]
            if model := of_fingerprint(fingerprint):
                return self._load(model.folder)
        raise NoModelError(
            f"the file was made with model {fingerprint.hex()}, which is neither at hand nor bundled; set "
            f"{MODEL_VARIABLE} to its folder, or call jahp_pl.pillow.register with it"
        )

    def only(self) -> Codec:
        """The codec to save with where none is named: that of JAHP_MODEL, or else the only one at hand, or else a
        bundled one.

        Raises:
            NoModelError: there are several at hand.
            ExportError, CheckpointError, FreezeError: JAHP_MODEL cannot be loaded, or none is bundled.
        """
        with self._lock:
            if folder := os.environ.get(MODEL_VARIABLE):
                return self.add(folder)
            if len(self._codecs) == 1:
                return next(iter(self._codecs.values()))
            if not self._codecs:
                return self.bundled(None)
        raise NoModelError(f"{len(self._codecs)} models at hand to save with; give model=, or set {MODEL_VARIABLE}")

    def bundled(self, metric: Metric | None) -> Codec:
        """A bundled one.

        Raises:
            ExportError: there is none for that metric.
        """
        with self._lock:
            return self._load(locate(None, metric))

    def _load(self, path: Path) -> Codec:
        from jahp_pl.model_io.load import load_codec  # with torch, which opening a file does not need

        path = path.resolve()
        if path not in self._paths:
            self._paths[path] = load_codec(path)
        return self._paths[path]


MODELS = Models()
"""Of this process, as Pillow's own table of formats is."""


def register(model: Codec | str | os.PathLike[str]) -> Codec:
    """Let Pillow decode and save with this model.

    Args:
        model: a codec, or what `exports.folder.load_codec` takes.

    Raises:
        ExportError, CheckpointError, FreezeError: see `exports.folder.load_codec`.
    """
    return MODELS.add(model)


class JahpImageFile(ImageFile.ImageFile):
    """A .jahp file: checked when it is opened, decoded when it is loaded.

    Raises:
        UnidentifiedImageError: when opened, damaged or cut short; the message says how.
        OSError: when loaded, no model of its fingerprint is at hand, or the payload is none of this model.
    """

    format = FORMAT
    format_description = "Learned image compression (jahp_pl)"
    _data: bytes | None = None

    def _open(self) -> None:
        assert self.fp is not None
        data = self.fp.read()
        try:
            header, _ = unpack(data, MAX_SIDE**2)  # Pillow has a limit of its own
        except BitstreamError as error:
            raise UnidentifiedImageError(f"{_name(self.filename)}{error}") from None
        self._size, self._mode = (header.width, header.height), "RGB"
        if header.icc:
            self.info["icc_profile"] = header.icc
        self._data, self._fingerprint = data, header.fingerprint

    def load(self) -> Any:
        """See `PIL.Image.Image.load`."""
        if self._data is not None:
            try:
                codec = MODELS.find(self._fingerprint)
                limit = max(self.width * self.height, Image.MAX_IMAGE_PIXELS or MAX_SIDE**2)  # Pillow checked the size
                pixels = codec.decompress(self._data, limit, as_="pil")
            except (NoModelError, ValueError) as error:
                raise OSError(f"{_name(self.filename)}{error}") from None
            if self.fp is not None and self._exclusive_fp:
                self.fp.close()
            self.im, self.fp, self._data = pixels.im, None, None
        return super().load()


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Of `Image.save`; its arguments are `model`, as `register` takes it, or `metric`, the fields of `Target`,
    `effort` and `icc_profile`."""
    options: dict[str, Any] = image.encoderinfo
    if "icc_profile" in options and options["icc_profile"] != image.info.get("icc_profile"):
        image = image.copy()
        image.info["icc_profile"] = options["icc_profile"]
    try:
        codec = _chosen(options.get("model"), options.get("metric"))
        data = codec.compress(image, **{name: options[name] for name in ASKED if name in options})
    except (NoModelError, ValueError) as error:
        raise OSError(f"{_name(filename)}{error}") from None
    file.write(data)


def _chosen(model: Codec | str | os.PathLike[str] | None, metric: Metric | None) -> Codec:
    if model is not None and metric is not None:
        raise NoModelError("metric= picks one of the bundled models; leave out either it or model=")
    if model is not None:
        return MODELS.add(model)
    return MODELS.only() if metric is None else MODELS.bundled(metric)


def _candidate(path: Path, fingerprint: bytes) -> Path | None:
    """What may be the model of that fingerprint: among exports, one or a folder of them, only that which says so."""
    exports = [folder for folder in (path, *sorted(path.glob("*/"))) if is_export(folder)]
    if not exports:
        return path
    return next((folder for folder in exports if stated_fingerprint(folder) == fingerprint), None)


def _word(model: str | os.PathLike[str]) -> str | Path:
    return model if isinstance(model, str) else Path(model)


def _name(filename: str | bytes) -> str:
    return f"{os.fsdecode(filename)}: " if filename else ""


def _accept(prefix: bytes) -> bool:
    return prefix.startswith(MAGIC)


Image.register_open(FORMAT, JahpImageFile, _accept)
Image.register_save(FORMAT, _save)
Image.register_extension(FORMAT, SUFFIX)
Image.register_mime(FORMAT, "image/x-jahp")
