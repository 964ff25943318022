"""Files that are decoded together give what each gives alone."""

from __future__ import annotations

import pytest
import torch

from jahp_pl.codec.bitstream import BitstreamError, pack, unpack
from tests.support.codec_models import IMAGE_SIZES, JOINT, ONE_OF_EACH, Variant, codec_of, kodak_patch


@pytest.mark.parametrize("variant", ONE_OF_EACH, ids=str)
def test_files_in_lockstep_decode_as_alone(variant: Variant) -> None:
    codec = codec_of(variant)
    files = [codec.compress(kodak_patch(*size)) for size in IMAGE_SIZES]
    for data, together in zip(files, codec.decode_all(files), strict=True):
        alone = codec.decode(data)
        assert torch.equal(together.y_hat, alone.y_hat)
        assert torch.equal(together.image, alone.image)
        assert (together.z_hat is None) == (alone.z_hat is None)
        assert together.z_hat is None or alone.z_hat is None or torch.equal(together.z_hat, alone.z_hat)


def test_one_damaged_file_among_several_is_refused() -> None:
    codec = codec_of(JOINT)
    files = [codec.compress(kodak_patch(*size)) for size in IMAGE_SIZES]
    header, payload = unpack(files[2])
    for damaged in (files[2][:-1], pack(header, payload[:-4] + b"\xa5" * 4), pack(header, payload * 2)):
        with pytest.raises(BitstreamError):
            codec.decode_all([*files[:2], damaged, *files[3:]])
