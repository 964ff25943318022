"""The codec in onnxruntime gives torch's files and torch's latents to the last bit, without importing torch."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import pickle
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from PIL import Image

from jahp_pl.cli.codecs import open_any_codec
from jahp_pl.codec.bitstream import BitstreamError
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy.range_coder import Writer
from jahp_pl.codec.targets import Target
from jahp_pl.config import BUILT_IN, PARTS
from jahp_pl.model_io.export import export
from jahp_pl.model_io.export_config import CONFIG, WEIGHTS, ExportError
from jahp_pl.runtime import transform_graphs
from jahp_pl.runtime.codec import RuntimeCodec
from jahp_pl.runtime.load import load_runtime
from jahp_pl.runtime.transforms import MEMORY_LIMIT
from jahp_pl.runtime.weights import read_weights
from tests.support.codec_models import JOINT, KODAK, MIXTURE, ONE_OF_EACH, Variant, codec_of, kodak_crop, variable_codec

VARIABLE = "variable"


@functools.cache
def pair(variant: Variant | str, folder: Path) -> tuple[Codec, RuntimeCodec]:
    """Return a codec in torch and the same codec in onnxruntime."""
    codec = variable_codec() if isinstance(variant, str) else codec_of(variant)
    path = folder / str(variant)
    exported = export(codec.model, path, {}, tables=codec.tables())
    return exported, load_runtime(path, threads=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda codec: pickle.loads(pickle.dumps(codec))])
@pytest.mark.parametrize("variant", [MIXTURE, VARIABLE], ids=str)
def test_copies_write_the_same_files(
    variant: Variant | str, copied: Callable[[RuntimeCodec], RuntimeCodec], folder: Path
) -> None:
    _, codec = pair(variant, folder)
    image, other = kodak_crop("kodim05", 40, 70), copied(codec)
    assert other.fingerprint == codec.fingerprint
    assert other.compress(image) == codec.compress(image)


@pytest.mark.parametrize("variant", [*ONE_OF_EACH, VARIABLE], ids=str)
def test_each_runtime_reads_the_files_of_the_other(variant: Variant | str, folder: Path) -> None:
    ours, theirs = pair(variant, folder)
    assert theirs.fingerprint == ours.fingerprint
    image = kodak_crop("kodim05", 150, 219)
    by_torch, by_runtime = ours.encode(image), theirs.encode(image, measure=True)
    assert by_torch.level == by_runtime.level
    assert by_torch.bits is None
    assert 8 * (len(by_runtime.data) - by_runtime.header_bytes) == pytest.approx(by_runtime.bits, abs=64)
    for data, y_hat, z_hat in (
        (by_torch.data, by_torch.y_hat.numpy(), by_torch.z_hat),
        (by_runtime.data, by_runtime.y_hat, by_runtime.z_hat),
    ):
        here, there = theirs.decode(data), ours.decode(data)
        assert np.array_equal(here.y_hat, y_hat)
        assert np.array_equal(there.y_hat.numpy(), y_hat)
        if z_hat is not None:
            assert here.z_hat is not None
            assert np.array_equal(here.z_hat, np.asarray(z_hat))
        assert here.level == there.level
        assert np.abs(here.image.astype(int) - there.image.numpy()).max() <= 1


@pytest.mark.parametrize("variant", [JOINT, MIXTURE, Variant("context", "laplace", 3)], ids=str)
@pytest.mark.parametrize("factor", [3, 300])
def test_any_latents_give_the_same_payload(variant: Variant, factor: int, folder: Path) -> None:
    """This includes latents of one and two pieces, escapes, and hyper-latents that float32 cannot represent."""
    ours, theirs = pair(variant, folder)
    numbers = np.random.default_rng(0)
    y_hat = (numbers.integers(-40, 41, (12, 11, 14)) * factor).astype(np.int32)
    z_hat = None if variant.entropy_model == "context" else numbers.integers(-20, 21, (8, 3, 4)).astype(np.int32)
    if z_hat is not None and factor > 3:
        z_hat[0, 0, 0], z_hat[1, 1, 1] = 2**30 + 1, -(2**24) - 3
    writers = Writer(), Writer()
    ours._write(writers[0], torch.from_numpy(y_hat), None if z_hat is None else torch.from_numpy(z_hat))
    theirs._write(writers[1], y_hat, z_hat)
    assert writers[0].payload() == writers[1].payload()


def test_a_size_is_met_as_in_torch(folder: Path) -> None:
    _, theirs = pair(VARIABLE, folder)
    image = kodak_crop("kodim23", 160, 160)
    plain = len(theirs.encode(image).data)
    smaller = theirs.encode(image, Target(size=plain * 2 // 3))
    assert len(smaller.data) <= plain * 2 // 3
    assert theirs.decode(smaller.data).level == smaller.level


def test_tiles_leave_no_seams(folder: Path) -> None:
    ours, theirs = pair(JOINT, folder)
    image = kodak_crop("kodim19", 256, 384)
    data = ours.encode(image).data
    expected = theirs.decode(data).image
    before, theirs.transforms.memory_limit = theirs.transforms.memory_limit, 1
    try:
        tiled, again = theirs.decode(data).image, theirs.encode(image)
    finally:
        theirs.transforms.memory_limit = before
    assert np.abs(tiled.astype(int) - expected).max() <= 1
    assert np.mean(again.y_hat != theirs.encode(image).y_hat) < 1e-4


@pytest.mark.parametrize("size", [(18, 47), (33, 9), (17, 34)])
@pytest.mark.parametrize("limit", [1, 10**6])
def test_what_is_cut_off_a_halo_changes_nothing(size: tuple[int, int], limit: int, folder: Path) -> None:
    """This holds even if a tile ends one or two latents before the image does, so that its halo reaches the edge."""
    _, theirs = pair(JOINT, folder)
    y_hat = np.random.default_rng(0).integers(-9, 10, (12, *size)).astype(np.int32)
    height, width = 16 * size[0] - 3, 16 * size[1]
    expected = theirs.reconstruct(y_hat, height, width, None)
    before, theirs.transforms.memory_limit = theirs.transforms.memory_limit, limit
    try:
        tiled = theirs.reconstruct(y_hat, height, width, None)
    finally:
        theirs.transforms.memory_limit = before
    assert np.abs(tiled.astype(int) - expected).max() <= 1
    assert np.mean(tiled != expected) < 1e-3


def test_a_gray_picture_and_its_profile_come_back(folder: Path) -> None:
    _, theirs = pair(JOINT, folder)
    gray = Image.fromarray(kodak_crop("kodim05", 40, 56)).convert("L")
    shown = theirs.decompress(theirs.compress(gray), as_="pil")
    red, green, blue = np.asarray(shown).transpose(2, 0, 1)
    assert np.array_equal(red, green)
    assert np.array_equal(red, blue)


def test_files_in_lockstep_decode_as_they_do_one_by_one(folder: Path) -> None:
    _, theirs = pair(JOINT, folder)
    files = [theirs.compress(kodak_crop(name, 64, 80)) for name in ("kodim05", "kodim19", "kodim23")]
    for one, data in zip(theirs.decode_all(files), files, strict=True):
        assert np.array_equal(one.y_hat, theirs.decode(data).y_hat)
    for image, data in zip(theirs.decompress_all(iter(files)), files, strict=True):
        assert np.array_equal(image, theirs.decompress(data))
    assert [image.size for image in theirs.decompress_all(files, as_="pil")] == [(80, 64)] * 3


def test_several_files_are_given_up_when_their_time_is_over(folder: Path) -> None:
    _, theirs = pair(JOINT, folder)
    data = theirs.compress(kodak_crop("kodim05", 64, 80))
    assert len(theirs.decompress_all([data], max_seconds=60)) == 1
    with pytest.raises(BitstreamError, match=r"longer to decode than the 1e-09 seconds allowed; raise max_seconds"):
        theirs.decompress_all([data], max_seconds=1e-9)


def test_a_search_is_refused(folder: Path) -> None:
    _, theirs = pair(JOINT, folder)
    with pytest.raises(ValueError, match="use effort 0, or the torch runtime"):
        theirs.compress(kodak_crop("kodim05", 32, 32), effort=1)


def test_a_damaged_payload_is_refused_or_decodes_to_its_range(folder: Path) -> None:
    ours, theirs = pair(JOINT, folder)
    data = ours.compress(kodak_crop("kodim05", 64, 64))
    for end in (0, 10, len(data) - 4):
        with pytest.raises(BitstreamError):
            theirs.decode(data[:end])
    _, other = pair(MIXTURE, folder)
    with pytest.raises(BitstreamError, match="decode it with the model that made it"):
        other.decode(data)


# --- exports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_stored_weights_are_those_of_torch(dtype: str, tmp_path: Path) -> None:
    codec = export(codec_of(JOINT).model, tmp_path / "m", {}, dtype=dtype)  # type: ignore[arg-type]
    state = read_weights(tmp_path / "m").state
    for name, tensor in codec.model.state_dict().items():
        expected = tensor.numpy()
        if name == "g_cm.weight":
            expected = expected.reshape(*expected.shape[:2], -1)[:, :, :12]
        assert np.array_equal(state[name], expected), name
    assert load_runtime(tmp_path / "m").fingerprint == codec.fingerprint


@pytest.mark.parametrize(
    ("what", "said"),
    [("weight", "but was exported as"), ("missing", "does not fit config.json"), ("checksum", "altered or cut short")],
)
def test_an_export_that_is_not_whole_is_refused(what: str, said: str, tmp_path: Path) -> None:
    export(codec_of(JOINT).model, tmp_path / "m", {})
    path, config = tmp_path / "m" / WEIGHTS, json.loads((tmp_path / "m" / CONFIG).read_text())
    tensors = safetensors.torch.load(path.read_bytes())
    if what == "weight":
        tensors["g_s.2.bias"][0] += 1
    else:
        del tensors["g_ep.2.bias"]
    path.write_bytes(safetensors.torch.save(tensors))
    if what != "checksum":
        config["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        (tmp_path / "m" / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ExportError, match=said):
        load_runtime(tmp_path / "m")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        b"\x02" + bytes(7) + b"[]",
        b"\x03" + bytes(7) + b"{]}",
        *(
            len(header).to_bytes(8, "little") + header + bytes(16)
            for header in (
                b'{"x": 1}',
                b'{"x": {"dtype": "F32", "shape": [4]}}',
                b'{"x": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}}',
                b'{"x": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}}',
                b'{"x": {"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}}',
                b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [8, 24]}}',
                b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [-1000, -984]}}',
            )
        ),
    ],
)
def test_damaged_weights_are_refused_even_if_the_checksum_fits(data: bytes, tmp_path: Path) -> None:
    export(codec_of(JOINT).model, tmp_path / "m", {})
    (tmp_path / "m" / WEIGHTS).write_bytes(data)
    config = json.loads((tmp_path / "m" / CONFIG).read_text())
    config["sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "m" / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ExportError, match=r"model.safetensors: damaged \(.*\); fetch it again"):
        load_runtime(tmp_path / "m")


@pytest.mark.parametrize("setting", BUILT_IN)
def test_parts_that_only_torch_has_are_refused_by_name(
    setting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(codec_of(JOINT).model, tmp_path / "m", {})
    config = json.loads((tmp_path / "m" / CONFIG).read_text())
    config["model"][setting] = "own"
    data = safetensors.torch.save({"g_a.own": torch.ones(2)})
    (tmp_path / "m" / WEIGHTS).write_bytes(data)
    config["sha256"] = hashlib.sha256(data).hexdigest()
    (tmp_path / "m" / CONFIG).write_text(json.dumps(config))
    with pytest.raises(ExportError, match=f"model.{setting}"):
        load_runtime(tmp_path / "m")
    monkeypatch.setitem(PARTS, setting, [*PARTS[setting], "own"])  # as an import would
    said = f"m: model.{setting}=own: the onnx runtime has only .*; use the torch runtime"
    with pytest.raises(ExportError, match=said):
        load_runtime(tmp_path / "m")


def test_a_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(ExportError, match="reads exports only"):
        load_runtime(tmp_path / "last.ckpt")


# --- graphs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [JOINT, Variant("scale_hyperprior"), VARIABLE], ids=str)
def test_graphs_are_what_the_onnx_package_reads(variant: Variant | str, folder: Path) -> None:
    pair(variant, folder)
    state = read_weights(folder / str(variant)).state
    for graph in (
        transform_graphs.analysis(state),
        transform_graphs.synthesis(state),
        transform_graphs.hyper_analysis(state, magnitudes=False),
    ):
        model = onnx.load_model_from_string(graph.to_bytes())
        names = {one.name for one in model.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL}
        assert names == set(graph.weights)
        for one in model.graph.initializer:  # checked with its numbers in it
            if one.name in names:
                del one.external_data[:]
                one.data_location = onnx.TensorProto.DEFAULT
                assert tuple(one.dims) == graph.weights[one.name].shape
                one.raw_data = graph.weights[one.name].tobytes()
        onnx.checker.check_model(model, full_check=True)


# --- without torch ----------------------------------------------------------------------------------------------------

WITHOUT = """
import sys
for name in ("torch", "lightning", "wandb", "tqdm", "onnx", "omegaconf", "matplotlib", "scipy", "torchmetrics",
             "safetensors"):
    sys.modules[name] = None  # as if it were not installed
"""
COMMANDS = """
from jahp_pl.cli.main import main
for words in {commands}:
    try:
        main(words)
    except SystemExit as end:
        assert end.code in (0, None), (words, end.code)
"""
PLUGIN = """
import numpy as np
from PIL import Image
import jahp_pl.pillow
with Image.open({path!r}) as image:
    image.save("again.jahp", quality=30)
    shown = np.asarray(image)
with Image.open("again.jahp") as image:
    assert image.size == shown.shape[1::-1]
    assert 0 < np.abs(np.asarray(image).astype(int) - shown).mean() < 20
"""


def run(code: str, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=where, capture_output=True, text=True, timeout=300, check=False
    )


def test_a_name_that_needs_torch_says_so_and_names_the_codec_that_does_not(tmp_path: Path) -> None:
    done = run(WITHOUT + "import jahp_pl\njahp_pl.load_codec()", tmp_path)
    assert done.stderr.endswith(
        "ModuleNotFoundError: jahp_pl.load_codec needs torch, which is not installed; pip install jahp_pl, "
        "or use jahp_pl.load_runtime, which needs no torch\n"
    )


def test_commands_and_the_plugin_need_no_torch(tmp_path: Path) -> None:
    Image.fromarray(kodak_crop("kodim23", 128, 160)).save(tmp_path / "photo.png")
    commands = [
        ["compress", "photo.png", "--quality", "40", "--verify"],
        ["decompress", "photo.jahp"],
        ["info"],
        ["info", "photo.jahp", "joint-psnr"],
    ]
    done = run(WITHOUT + COMMANDS.format(commands=commands), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stdout
    assert "parameters" in done.stdout
    ours = Image.open(tmp_path / "photo.decoded.png")
    theirs = load_runtime().decompress((tmp_path / "photo.jahp").read_bytes())
    assert np.array_equal(np.asarray(ours), theirs)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"")
    refused = run(WITHOUT + COMMANDS.format(commands=[["info", "run"]]), tmp_path)
    assert "run: onnxruntime reads exports only; make one with `jahp export`" in refused.stderr
    done = run(WITHOUT + PLUGIN.format(path="photo.jahp"), tmp_path)
    assert done.returncode == 0, done.stderr


def test_memory_limits_the_tiles_of_the_runtime_too() -> None:
    for memory, limit in ((16, 16 * 2**20), (1024, MEMORY_LIMIT)):
        arguments = Namespace(
            runtime="onnx", device="cpu", precision="float32", model="joint-psnr", threads=1, memory=memory
        )
        assert open_any_codec(arguments).transforms.memory_limit == limit


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compress", "photo.png", "--effort", "1"], "jahp: --effort 1: onnxruntime only rounds latents"),
        (["compress", "photo.png", "--device", "cuda"], "jahp: --device cuda: the onnx runtime has cpu only"),
        (["train", "x.yaml"], "jahp: this command needs"),
    ],
)
def test_what_needs_torch_says_so_in_a_line(words: list[str], said: str, tmp_path: Path) -> None:
    Image.fromarray(kodak_crop("kodim23", 32, 32)).save(tmp_path / "photo.png")
    done = run(f"{WITHOUT}\nfrom jahp_pl.cli.main import main\nmain({words!r})", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("model", ["joint-psnr", "joint-ms-ssim"])
def test_kodak_is_equal_to_the_last_bit(model: str) -> None:
    import jahp_pl

    ours, theirs = jahp_pl.load_codec(model), load_runtime(model)
    for path in sorted(KODAK.glob("*.png"))[::6]:
        data = ours.compress(Image.open(path))
        here, there = theirs.decode(data), ours.decode(data)
        assert np.array_equal(here.y_hat, there.y_hat.numpy())
        assert np.abs(here.image.astype(int) - there.image.numpy()).max() <= 1
