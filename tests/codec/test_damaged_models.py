"""Models with impossible numbers are refused when a codec is built, and the range coder never ends the process."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from jahp_pl.codec.bitstream import BitstreamError
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy.integer_layers import UnusableModelError
from jahp_pl.codec.entropy.range_coder import Reader, Writer
from tests.support.codec_models import JOINT, ONE_OF_EACH, Variant, codec_of, model_of

FALLING = np.array([[5.0, -3.0, 2.0, 1.0], [1.0, 2.0, -9.0, 3.0]])


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused_in_every_network(variant: Variant, value: float) -> None:
    networks = {name.split(".")[0] for name, _ in model_of(variant).named_parameters()}
    for network in networks:
        model = model_of(variant)
        name, parameter = next((n, p) for n, p in model.named_parameters() if n.startswith(f"{network}."))
        with torch.no_grad():
            before = parameter.flatten()[-1].clone()
            parameter.flatten()[-1] = value
        try:
            with pytest.raises(UnusableModelError, match=f"{name}: has weights that are not finite"):
                Codec(model)
        finally:
            with torch.no_grad():
                parameter.flatten()[-1] = before


@pytest.mark.parametrize("name", ["latents.cumulative", "latents.exponential", "latents.scales", "latents.thresholds"])
def test_altered_tables_are_refused(name: str) -> None:
    codec = codec_of(JOINT)
    table = codec.tables()[name]
    for spoiled in (table.flip(0), table * 2**20, table * 0):
        with pytest.raises(UnusableModelError, match="table"):
            Codec(codec.model, codec.tables() | {name: spoiled})


def test_altered_masses_of_the_prior_are_refused() -> None:
    codec = codec_of(JOINT)
    masses = codec.tables()["prior.masses"]
    for spoiled in (masses * 1e300, masses * 4, masses * 0, -masses):
        with pytest.raises(UnusableModelError, match="table"):
            Codec(codec.model, codec.tables() | {"prior.masses": spoiled})


@pytest.mark.parametrize("masses", [FALLING, FALLING * np.nan, FALLING * np.inf, FALLING * 0], ids=str)
def test_a_panic_of_the_range_coder_becomes_bitstream_error(masses: npt.NDArray[np.float64]) -> None:
    written, read = set(), set()
    for seed in range(20):
        generator = np.random.default_rng(seed)
        try:
            Writer().write_rows(generator.integers(0, 4, 2).astype(np.int32), masses)
        except ValueError as error:
            written.add(str(error))
        try:
            Reader(generator.bytes(16)).read_rows(masses)
        except BitstreamError as error:
            read.add(str(error))
    assert len(written) <= 1
    assert len(read) <= 1
    assert written | read
