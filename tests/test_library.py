"""The package as a library: it takes and returns images of every kind, runs in threads, and imports no more than it
needs."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import jahp_pl
from jahp_pl.codec import lockstep
from jahp_pl.codec.bitstream import BitstreamError, unpack
from jahp_pl.codec.codec import Codec
from jahp_pl.model_io.export import export
from jahp_pl.model_io.load import load_codec
from tests.support.codec_models import GOLDEN, JOINT, codec_of, kodak_crop, load_golden
from tests.support.profiles import DISPLAY_P3

IMAGE = kodak_crop()[:70, :100]


def test_public_names_are_those_of_their_modules():
    assert jahp_pl.load_codec is load_codec
    assert jahp_pl.Codec is Codec
    assert jahp_pl.BitstreamError is BitstreamError
    assert jahp_pl.__version__ == version("jahp_pl")
    with pytest.raises(AttributeError, match="no attribute 'load_modle'"):
        _ = jahp_pl.load_modle


def test_pillow_images_arrays_and_tensors_give_one_file():
    codec = codec_of(JOINT)
    data = codec.compress(IMAGE)
    assert codec.compress(Image.fromarray(IMAGE)) == data
    assert codec.compress(torch.tensor(IMAGE).movedim(-1, 0)) == data


def test_an_image_is_returned_in_the_requested_type():
    codec = codec_of(JOINT)
    data = codec.compress(IMAGE)
    tensor, array, image = (
        codec.decompress(data),
        codec.decompress(data, as_="numpy"),
        codec.decompress(data, as_="pil"),
    )
    assert tensor.shape == (3, 70, 100)
    assert tensor.dtype == torch.uint8
    assert array.shape == (70, 100, 3)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert np.array_equal(array, tensor.movedim(0, -1).numpy())
    assert (image.mode, image.size, image.info) == ("RGB", (100, 70), {})
    assert np.array_equal(np.asarray(image), array)
    with pytest.raises(ValueError, match=r"as_='jpeg': must be 'tensor', 'numpy' or 'pil'"):
        codec.decompress(data, as_="jpeg")


def test_several_images_give_the_same_files_and_images_as_one_by_one(monkeypatch):
    codec = codec_of(JOINT)
    images = [kodak_crop(name)[:40, :width] for name, width in [("kodim01", 50), ("kodim05", 33), ("kodim20", 64)]]
    files = codec.compress_all(images)
    assert files == [codec.compress(image) for image in images]
    alone = [codec.decompress(data, as_="numpy") for data in files]
    for limit in (1, 40 * 84, 2**23):  # in lockstep: none, two, all
        monkeypatch.setattr(lockstep, "LOCKSTEP_PIXELS", limit)
        together = codec.decompress_all(iter(files), as_="numpy")
        assert all(np.array_equal(a, b) for a, b in zip(together, alone, strict=True))
    assert codec.decompress_all([]) == codec.compress_all([]) == []


def test_a_batch_is_a_sequence_of_images():
    codec, batch = codec_of(JOINT), np.stack([kodak_crop(name)[:32, :48] for name in ("kodim01", "kodim05")])
    files = [codec.compress(image) for image in batch]
    assert codec.compress_all(batch) == files
    assert codec.compress_all(torch.from_numpy(batch).movedim(-1, 1)) == files


def test_a_pillow_image_of_any_mode_is_coded_as_by_the_command():
    codec, image = codec_of(JOINT), Image.fromarray(IMAGE)
    gray = image.convert("L")
    assert codec.compress(gray) == codec.compress(np.asarray(gray.convert("RGB")))
    opaque = image.convert("RGBA")
    assert codec.compress(opaque) == codec.compress(IMAGE)
    turned = image.copy()
    turned.getexif()[0x0112] = 3
    assert codec.compress(turned) == codec.compress(np.ascontiguousarray(IMAGE[::-1, ::-1]))
    opaque.putpixel((3, 3), (0, 0, 0, 7))
    with pytest.raises(ValueError, match="transparent pixels"):
        codec.compress(opaque)


def test_a_color_profile_round_trips_with_a_pillow_image():
    codec, image = codec_of(JOINT), Image.fromarray(IMAGE)
    image.info["icc_profile"] = DISPLAY_P3
    data = codec.compress(image)
    assert unpack(data)[0].icc == DISPLAY_P3
    assert codec.decompress(data, as_="pil").info["icc_profile"] == DISPLAY_P3
    assert torch.equal(codec.decompress(data), codec.decompress(codec.compress(IMAGE)))
    image.info["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert codec.compress(image) == codec.compress(IMAGE)


@pytest.mark.parametrize("image", [None, "photo.png", [[0]], b"jahp"], ids=repr)
def test_inputs_that_are_not_images_are_refused_by_name(image):
    with pytest.raises(ValueError, match=f"an image must be .* not {type(image).__name__}"):
        codec_of(JOINT).compress(image)


@pytest.mark.parametrize("name", ["joint", "mixture"])
def test_threads_that_share_a_codec_get_the_same_results_as_alone(name):
    codec, names = Codec(load_golden(name)), ("kodim01", "kodim05", "kodim13", "kodim20")
    images = [kodak_crop(name, 96, 160 - 16 * number) for number, name in enumerate(names)]
    files = codec.compress_all(images)
    pictures = codec.decompress_all(files)

    def there_and_back(number: int) -> bool:
        data = codec.compress(images[number])
        return data == files[number] and torch.equal(codec.decompress(data), pictures[number])

    with ThreadPoolExecutor(len(names)) as pool:
        assert all(pool.map(there_and_back, [*range(len(names))] * 3))


DECODE = """
import sys
import jahp_pl
assert not {"torch", "numpy", "PIL"} & set(sys.modules), "import jahp_pl must be free"
codec = jahp_pl.load_codec(sys.argv[1])
image = codec.decompress(open(sys.argv[2], "rb").read())
for name in ("lightning", "wandb", "webdataset", "omegaconf", "torchmetrics", "matplotlib", "PIL", "torch._dynamo"):
    if name in sys.modules:
        print(name)
print(tuple(image.shape))
"""

COMMAND = """
import sys
from jahp_pl.cli.main import main
main(["decompress", sys.argv[2], "-o", sys.argv[3], "--model", sys.argv[1]])
for name in ("lightning", "wandb", "webdataset", "omegaconf", "torchmetrics", "matplotlib", "torch._dynamo"):
    assert name not in sys.modules, name
"""


def test_the_command_decodes_without_training_dependencies(tmp_path):
    export(load_golden("joint"), tmp_path / "model", {})
    command = [sys.executable, "-c", COMMAND, tmp_path / "model", GOLDEN / "joint.jahp", tmp_path / "out.png"]
    child = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 0, child.stderr


SEARCH = """
import sys
from jahp_pl.cli.main import main
main(["compress", sys.argv[1], "-o", sys.argv[2]])
assert "torch._dynamo" not in sys.modules, "it takes a second to import"
"""


def test_the_search_for_better_latents_does_not_import_torchs_compiler(tmp_path):
    Image.new("RGB", (64, 64), "teal").save(tmp_path / "image.png")
    command = [sys.executable, "-c", SEARCH, tmp_path / "image.png", tmp_path / "image.jahp"]
    child = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 0, child.stderr


def test_an_export_is_loaded_and_a_file_decoded_without_training_dependencies(tmp_path):
    export(load_golden("joint"), tmp_path / "model", {})
    command = [sys.executable, "-c", DECODE, str(tmp_path / "model"), str(GOLDEN / "joint.jahp")]
    child = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert child.returncode == 0, child.stderr
    header, _ = unpack((GOLDEN / "joint.jahp").read_bytes())
    assert child.stdout.strip() == str((3, header.height, header.width))
