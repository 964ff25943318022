"""Pictures of a report are made by the codecs of its models."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from jahp_pl.report.curves import Curve, CurvePoint, QualityRow
from jahp_pl.report.previews import make_comparisons
from tests.support.codec_models import JOINT, codec_of, kodak_crop


def test_a_target_of_another_version_does_not_stop_a_picture(tmp_path: Path) -> None:
    codec, fingerprint = codec_of(JOINT), codec_of(JOINT).fingerprint.hex()
    Image.fromarray(kodak_crop()[:70, :101]).save(tmp_path / "a.png")
    row = QualityRow("a", 0.5, 30.0, None)
    raw = {"provenance": {"fingerprint": fingerprint}, "target": {"butteraugli": 1.5}}
    curve = Curve("Joint", "model", (CurvePoint("", row, {"a": row}, raw=raw),), frozenset({"a"}))
    (comparison,) = make_comparisons([curve], tmp_path, {"a": "chosen by hand"}, 0.25, {fingerprint: codec})
    (item,) = comparison.items
    assert item.pixels.shape == (70, 101, 3)
