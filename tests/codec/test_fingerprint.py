"""A fingerprint distinguishes models by what decodes, and by nothing else."""

from __future__ import annotations

import pytest
import torch

from jahp_pl.codec.bitstream import BitstreamError
from jahp_pl.codec.codec import Codec
from jahp_pl.config import ModelConfig
from jahp_pl.model import CompressionModel
from tests.support.codec_models import JOINT, MIXTURE, codec_of, kodak_patch, load_golden


def test_a_file_of_another_model_is_refused_with_both_fingerprints() -> None:
    data = codec_of(JOINT).compress(kodak_patch(20, 20))
    made_with, this = (codec_of(variant).fingerprint.hex() for variant in (JOINT, MIXTURE))
    with pytest.raises(BitstreamError, match=f"model {made_with}, but this is {this}; decode it with"):
        codec_of(MIXTURE).decode(data)


def test_the_fingerprint_covers_what_decodes_and_nothing_else() -> None:
    first = codec_of(JOINT).fingerprint
    # The last parameter of each network.
    names = {name.split(".")[0]: name for name, _ in load_golden("joint").named_parameters()}
    assert set(names) == {"g_a", "g_s", "h_a", "h_s", "g_cm", "g_ep", "prior"}
    for name in names.values():
        model = load_golden("joint")
        with torch.no_grad():
            changed = model.get_parameter(name)
            changed.copy_(changed + 0.5 * changed.abs().max() + 0.1)
        same = Codec(model).fingerprint == first
        assert same == name.startswith(("g_a", "h_a")), name
    state = load_golden("joint").state_dict()
    mixed = CompressionModel(ModelConfig("joint", 8, 12, quantization="mixed"))
    mixed.load_state_dict(state)
    assert Codec(mixed).fingerprint == first, "how it was trained does not matter"
