"""Files and pictures do not depend on the settings of the calling program."""

from __future__ import annotations

import pytest
import torch

from tests.support.circumstances import CALLER_SETTINGS
from tests.support.codec_models import JOINT, MIXTURE, Variant, codec_of, kodak_patch


@pytest.mark.parametrize("variant", [JOINT, MIXTURE, Variant("factorized"), Variant("scale_hyperprior")], ids=str)
@pytest.mark.parametrize("setting", CALLER_SETTINGS)
def test_files_and_pictures_are_the_same_under_every_setting_of_the_caller(variant: Variant, setting: str) -> None:
    codec, image = codec_of(variant), kodak_patch(50, 70)
    expected = codec.encode(image)
    picture = codec.decompress(expected.data)
    with CALLER_SETTINGS[setting]():
        encoded = codec.encode(image)
        decoded = codec.decode(expected.data)
        assert torch.equal(decoded.y_hat, expected.y_hat)
        assert int((decoded.image.int() - picture.int()).abs().max()) <= 1
        again = codec.decode(encoded.data)
        assert torch.equal(again.y_hat, encoded.y_hat)
        assert encoded.data == expected.data
        assert codec.exact_bits(encoded) == pytest.approx(codec.exact_bits(expected))
