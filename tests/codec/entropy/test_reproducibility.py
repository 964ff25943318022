"""Exact networks give the same bits under every setting of the caller, and in processes with other kernels."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy.range_coder import Writer
from tests.support import ROOT
from tests.support.circumstances import CALLER_SETTINGS
from tests.support.codec_models import GOLDEN, JOINT, MIXTURE, Variant, codec_of, load_golden, model_of
from tests.support.raw_outputs import raw_outputs


def some_latents(variant: Variant, height: int = 9, width: int = 14) -> tuple[Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(1)
    y_hat = torch.randint(-40, 41, (12, height, width), generator=generator, dtype=torch.int32)
    shape = (8, -(-height // 4), -(-width // 4))
    z_hat = torch.randint(-15, 16, shape, generator=generator, dtype=torch.int32)
    return y_hat, None if variant.entropy_model == "context" else z_hat


@pytest.mark.parametrize("variant", [JOINT, MIXTURE, Variant("scale_hyperprior"), Variant("context")], ids=str)
@pytest.mark.parametrize("setting", CALLER_SETTINGS)
def test_raw_outputs_and_fingerprint_are_equal_under_every_setting_of_the_caller(
    variant: Variant, setting: str
) -> None:
    y_hat, z_hat = some_latents(variant)
    expected = raw_outputs(codec_of(variant), y_hat, z_hat)
    with CALLER_SETTINGS[setting]():
        codec = Codec(model_of(variant))
        assert codec.fingerprint == codec_of(variant).fingerprint
        assert torch.equal(raw_outputs(codec, y_hat, z_hat), expected)


CHILD = """
from tests.codec.entropy.test_reproducibility import summary
print(summary())
"""


def summary() -> str:
    """Hash (SHA-256) what fixed latents give: raw outputs, fingerprints, payloads and decoded latents."""
    digest = hashlib.sha256()
    for name in ("joint", "mixture"):
        codec = Codec(load_golden(name))
        assert codec.prior is not None
        assert codec.latents is not None
        for scale in (1, 40):
            y_hat, z_hat = some_latents(JOINT)
            assert z_hat is not None
            raw = raw_outputs(codec, scale * y_hat, z_hat) + 0.0  # the sign of a zero is not guaranteed
            writer = Writer()
            codec.prior.write(writer, z_hat)
            codec.latents.write(writer, scale * y_hat, z_hat)
            digest.update(raw.numpy().tobytes() + codec.fingerprint + writer.payload())
        stored = codec.decode((GOLDEN / f"{name}.jahp").read_bytes())
        digest.update(stored.y_hat.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(
    "environment",
    [
        {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "OMP_NUM_THREADS": "1"},
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "SSE41", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"},
    ],
    ids=["oldest instructions", "other instructions and two threads"],
)
def test_another_process_with_other_kernels_gives_the_same_bytes(environment: dict[str, str]) -> None:
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.strip() == summary()
