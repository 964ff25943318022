"""A codec can be copied and sent to other processes, and torch's defaults do not affect it."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import jahp_pl
from jahp_pl.codec.codec import Codec
from tests.support.codec_models import (
    JOINT,
    MIXTURE,
    ONE_OF_EACH,
    Variant,
    codec_of,
    kodak_crop,
    load_golden,
    variable_model,
)

CROP = np.ascontiguousarray(kodak_crop()[:40, :56])


@pytest.fixture
def shared_codec(request: pytest.FixtureRequest) -> Codec:
    """The codec of a variant; its model is trained on first use, at the latest by this fixture."""
    return codec_of(request.param)


@pytest.fixture
def another_device() -> Iterator[None]:
    """Make a default device stand in for "cuda" on a machine without a GPU: creating any tensor on it fails."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda codec: pickle.loads(pickle.dumps(codec))])
def test_a_copy_is_the_same_codec(variant: Variant, copied) -> None:
    codec = codec_of(variant)
    other = copied(codec)
    assert other is not codec
    assert other.fingerprint == codec.fingerprint
    data = other.compress(CROP)
    assert data == codec.compress(CROP)
    assert torch.equal(other.decompress(data), codec.decompress(data))


def test_a_copy_keeps_precision_and_memory_limit() -> None:
    codec = Codec(load_golden("joint"), precision="bfloat16", memory_limit=2**28)
    other = pickle.loads(pickle.dumps(codec))
    assert (other.precision, other.transforms.memory_limit) == ("bfloat16", 2**28)


def test_a_pool_of_spawned_processes_codes_with_one_codec() -> None:
    codec = codec_of(JOINT)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(codec.compress, (CROP,)) == codec.compress(CROP)


@pytest.mark.usefixtures("shared_codec", "another_device")  # in this order
@pytest.mark.parametrize("shared_codec", ONE_OF_EACH, ids=str, indirect=True)
def test_the_default_device_does_not_affect_coding(shared_codec: Codec) -> None:
    codec = shared_codec
    encoded = codec.encode(CROP)
    assert codec.exact_bits(encoded) > 0
    decoded = codec.decode(encoded.data)
    assert torch.equal(decoded.y_hat, encoded.y_hat)
    assert torch.equal(codec.transforms.synthesize(encoded.y_hat, 40, 56), decoded.image)
    assert codec.decompress(encoded.data, as_="pil").size == (56, 40)
    assert Codec(codec.model).fingerprint == codec.fingerprint
    assert all(table.device.type == "cpu" for table in codec.tables().values())


@pytest.mark.usefixtures("another_device")
def test_the_default_device_does_not_affect_loading(tmp_path) -> None:
    codec = jahp_pl.load_codec("joint-psnr")
    assert codec.decompress(codec.compress(CROP)).device.type == "cpu"
    assert next(jahp_pl.load_model("joint-psnr").parameters()).device.type == "cpu"


def test_repr_describes_the_codec() -> None:
    codec = codec_of(MIXTURE)
    assert repr(codec) == f"<Codec {codec.fingerprint.hex()}: joint, N = 8, M = 12, on cpu>"


def test_dir_lists_the_public_names() -> None:
    assert set(jahp_pl.__all__) <= set(dir(jahp_pl))


FORKED = """
import multiprocessing, sys
import numpy, torch
from tests.support.codec_models import JOINT, codec_of
torch.set_num_threads(2)
codec, image = codec_of(JOINT), numpy.zeros((256, 256, 3), numpy.uint8)
expected = codec.compress(image)

def work(threads):
    torch.set_num_threads(threads)
    try:
        return codec.compress(image) == expected
    except RuntimeError as error:
        return str(error)

with multiprocessing.get_context("fork").Pool(1) as pool:
    print(*pool.map_async(work, [2, 1]).get(timeout=60), sep="\\n")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_process_says_so_instead_of_hanging_and_its_remedy_helps() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED], capture_output=True, text=True, timeout=120, check=False
    )
    refused, helped = done.stdout.splitlines()
    assert "forked after a codec had been used" in refused
    assert "get_context('spawn')" in refused
    assert helped == "True"


@pytest.mark.parametrize("variant", [*ONE_OF_EACH, None], ids=str)
def test_the_default_type_of_numbers_does_not_affect_coding(variant: Variant | None) -> None:
    codec = Codec(variable_model()) if variant is None else codec_of(variant)
    data, crop = codec.compress(CROP), torch.from_numpy(CROP).movedim(-1, 0)
    image = codec.decompress(data)
    torch.set_default_dtype(torch.float64)
    try:
        assert codec.compress(crop) == data
        assert torch.equal(codec.decompress(data), image)
        assert Codec(codec.model).compress(crop) == data
    finally:
        torch.set_default_dtype(torch.float32)
