"""Codes images with packages of the extra `classical`: HEVC stills, JPEG XL, VVC. Each is imported on first use."""

from __future__ import annotations

import importlib.metadata
import io
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from jahp_pl.evaluation import EvaluationError
from jahp_pl.images.io import RGB


class MissingPackageError(EvaluationError):
    """Error that a codec's package is not installed."""


_CONVERSION = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


def hevc(chroma: int) -> Callable[[RGB, int], bytes]:
    """Create an encoder of (H, W, 3) uint8 to HEIF files with x265, for chroma 420 or 444."""
    # x265's chroma QP table is meant for 4:2:0; at 4:4:4 it gives chroma too few bits, which lowers the RGB PSNR.
    offset = {"x265:cbqpoffs": "-3", "x265:crqpoffs": "-3"} if chroma == 444 else {}

    def encode(image: RGB, quality: int) -> bytes:
        with _needed("pillow-heif"):
            import pillow_heif
        buffer = io.BytesIO()
        file = pillow_heif.from_pillow(Image.fromarray(image))
        file.save(buffer, quality=quality, chroma=chroma, enc_params={"tune": "psnr", **offset})
        return buffer.getvalue()

    return encode


def decode_hevc(data: bytes) -> RGB:
    """Decode a HEIF file to (H, W, 3) uint8."""
    with _needed("pillow-heif"):
        import pillow_heif
    return np.array(pillow_heif.open_heif(io.BytesIO(data)).to_pillow().convert("RGB"))


def hevc_settings() -> str:
    """Describe the HEVC encoder."""
    with _needed("pillow-heif"):
        import pillow_heif
    info = pillow_heif.libheif_info()
    return f"{info['HEIF']} in libheif {info['libheif']}, tuned for PSNR, chroma QP - 3 at 4:4:4"


def encode_jxl(image: RGB, quality: int) -> bytes:
    """Encode (H, W, 3) uint8 to a JPEG XL file."""
    with _needed("pillow-jxl-plugin"):
        import pillow_jxl  # noqa: F401  (registers the format with Pillow)
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JXL", quality=quality, effort=7, lossless=False)
    return buffer.getvalue()


def decode_jxl(data: bytes) -> RGB:
    """Decode a JPEG XL file to (H, W, 3) uint8."""
    with _needed("pillow-jxl-plugin"):
        import pillow_jxl  # noqa: F401  (registers the format with Pillow)
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def jxl_settings() -> str:
    """Describe the JPEG XL encoder."""
    with _needed("pillow-jxl-plugin"):
        import pillow_jxl  # noqa: F401
    return f"libjxl in pillow-jxl-plugin {importlib.metadata.version('pillow-jxl-plugin')}, effort 7"


def encode_vvc(image: RGB, qp: int) -> bytes:
    """Encode (H, W, 3) uint8 to a bare VVC stream of one intra picture; odd sides are padded by one line."""
    height, width = image.shape[:2]
    even = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    source = f"-f rawvideo -pix_fmt rgb24 -s {even.shape[1]}x{even.shape[0]} -i -"
    to_yuv = f"-vf scale=out_color_matrix=bt709:out_range=full:{_CONVERSION} -pix_fmt yuv420p10le"
    coder = f"-c:v libvvenc -preset medium -qpa 0 -qp {qp} -threads 1 -f vvc -"
    return _ffmpeg(f"{source} {to_yuv} {coder}", even.tobytes())


def decode_vvc(data: bytes) -> RGB:
    """Decode a bare VVC stream of one picture to (H, W, 3) uint8."""
    to_rgb = f"-vf scale=in_color_matrix=bt709:in_range=full:{_CONVERSION} -pix_fmt rgb24"
    picture = _ffmpeg(f"-threads 1 -f vvc -i - {to_rgb} -c:v ppm -f image2pipe -", data)
    with Image.open(io.BytesIO(picture)) as image:
        return np.array(image)


def vvc_settings() -> str:
    """Describe the VVC encoder."""
    with _needed("imageio-ffmpeg"):
        import imageio_ffmpeg
    version = imageio_ffmpeg.get_ffmpeg_version()
    return f"libvvenc in FFmpeg {version}, medium, no perceptual QP, BT.709 10 bits, one thread, bare stream"


@contextmanager
def _needed(package: str) -> Iterator[None]:
    """Convert an ImportError of the block to an error that names the package."""
    try:
        yield
    except ImportError:
        raise MissingPackageError(
            f"this codec needs {package}, which is not installed; pip install 'jahp_pl[classical]'"
        ) from None


def _ffmpeg(options: str, data: bytes) -> bytes:
    """Run FFmpeg on bytes, and return what it writes."""
    with _needed("imageio-ffmpeg"):
        import imageio_ffmpeg
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-nostdin", *options.split()]
    result = subprocess.run(command, input=data, capture_output=True, check=False)
    if result.returncode or not result.stdout:
        reason = result.stderr.decode(errors="replace").strip().splitlines()
        raise EvaluationError(f"FFmpeg failed: {reason[0] if reason else 'no output'}; leave out this codec")
    return result.stdout
