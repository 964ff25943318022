"""Images as files of any format, and the pixels that a file must give back."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image


def encode(image: Image.Image, file_format: str, **options: object) -> bytes:
    """Return the file that Pillow writes in a format."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Return (H, W, 3) by Pillow's own conversion, which heeds neither profiles nor transparency."""
    return np.asarray(image.convert("RGB"))
