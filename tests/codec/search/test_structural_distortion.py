"""The structural distortion of a search orders images as MS-SSIM does."""

from __future__ import annotations

import pytest
import torch

from jahp_pl.codec.search.structural_distortion import StructuralDistortion
from jahp_pl.quality import ms_ssim
from tests.support.latent_searches import picture

pytestmark = pytest.mark.usefixtures("one_thread")


def test_structural_distortion_orders_as_ms_ssim_does() -> None:
    x = picture(256, 256)[None].float() / 255
    structure = StructuralDistortion(x)
    assert float(structure(x)) == pytest.approx(0, abs=1e-5)
    noisy = [(x + sigma * torch.randn(1, 1, 256, 256)).clamp(0, 1) for sigma in (0.02, 0.05, 0.1)]
    for one in noisy:
        assert float(structure(one)) == pytest.approx(1 - float(ms_ssim(one, x)), rel=0.5)
    assert sorted(noisy, key=lambda one: float(structure(one))) == noisy
