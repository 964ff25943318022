"""docs/extending.md is correct: its files add an accurate density and an accurate transform that train, export and code
without a change of the package.
"""

from __future__ import annotations

import math
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from PIL import Image

import jahp_pl
from jahp_pl.config import PARTS, ConfigError, ModelConfig, model_from_dict
from jahp_pl.distributions import DENSITIES, log_mass, register_density
from jahp_pl.extensions import import_modules
from jahp_pl.images.io import decode_rgb
from jahp_pl.model_io.export_config import ExportError
from jahp_pl.transforms import TRANSFORMS
from tests import test_transforms
from tests.codec.transforms import test_runner
from tests.support import pages
from tests.support.commands import run
from tests.support.tiny_runs import NOTHING_CODED, PHOTOS, SMALL

PAGE = pages.read("extending")
BLOCKS = pages.blocks(PAGE)
NAMES = ("secant", "residual")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with both files, in which the test runs; what they register is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        shown = re.search(rf"`{name}\.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
        assert shown
        (tmp_path / f"{name}.py").write_text(shown[1])
    yield tmp_path
    forget()


def forget() -> None:
    """Restore what a process knows that did not import the files."""
    for name, table in zip(NAMES, (DENSITIES, TRANSFORMS), strict=True):
        table.pop(name, None)  # type: ignore[attr-defined]
        sys.modules.pop(name, None)
    for names in PARTS.values():
        names[:] = [name for name in names if name not in NAMES]


def exact(v: float, sigma: float) -> mpmath.mpf:
    """log P of a bin, in forty digits and more."""

    def cumulative(t: mpmath.mpf) -> mpmath.mpf:
        return mpmath.atan(mpmath.exp(mpmath.pi * t / 2)) * 2 / mpmath.pi

    with mpmath.workdps(60 + int(1.4 * v / sigma)):
        return mpmath.log(cumulative((0.5 - v) / mpmath.mpf(sigma)) - cumulative((-0.5 - v) / mpmath.mpf(sigma)))


def test_the_density_is_accurate_from_the_peak_to_the_far_tails(files: Path) -> None:
    import_modules(["secant.py"])
    for sigma in (0.064, 0.5, 3.0, 100.0):
        distances = torch.tensor([0.0, 0.3, 0.5, 1.0, 2.0, 7.0, 40.0], dtype=torch.float64, requires_grad=True)
        found = log_mass("secant", distances, torch.zeros(()).double(), torch.tensor(sigma, dtype=torch.float64))
        found.sum().backward()
        for v, value in zip(distances.tolist(), found.tolist(), strict=True):
            assert value == pytest.approx(float(exact(v, sigma)), rel=1e-9, abs=1e-12)
        assert distances.grad is not None
        assert torch.isfinite(distances.grad).all()
        narrow = log_mass("secant", torch.tensor([1e4]), torch.zeros(()), torch.tensor(sigma))
        assert torch.isfinite(narrow).all()


def test_the_transform_reaches_as_far_as_it_says_and_leaves_no_seams(files: Path) -> None:
    import_modules(["residual.py"])
    test_transforms.test_an_input_influences_outputs_exactly_within_the_reach("residual")
    test_runner.test_tiles_leave_no_seam("residual", (333, 517), "float32")


@pytest.mark.usefixtures("one_thread")
def test_both_at_once_train_export_and_code_as_the_page_shows(
    files: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pages.ROOT / "configs", "configs")
    image = decode_rgb(PHOTOS / "val" / "dogs.jpg")[:200, :300]
    Image.fromarray(image).save("photo.png")
    train, export, compress = (line.replace("'", "").split()[1:] for line in pages.commands(PAGE))
    small = [*SMALL, *NOTHING_CODED, f"data.train=[{shards / 'train'}]", f"data.val=[{shards / 'val'}]"]
    assert run(*train, *small, "trainer.max_steps=4", "model.num_components=2") == 0
    assert "--images data/kodak --import secant.py --import residual.py)" in capsys.readouterr().out
    for command in (export, compress):
        forget()
        assert run(*(word for word in command if word != "--import" and not word.endswith(".py"))) == 2
        assert "must be one of" in (told := capsys.readouterr().err)
        assert "--import" in told
        assert run(*command) == 0
    codec = jahp_pl.load_codec("models/mine")
    assert (codec.model.config.transform, codec.model.config.likelihood) == ("residual", "secant")
    coded = codec.encode(image)
    decoded = codec.decode(coded.data)
    assert torch.equal(decoded.y_hat, coded.y_hat)
    x = torch.from_numpy(np.array(image)).movedim(-1, 0)[None].float() / 255
    with torch.no_grad():
        output = codec.model(x)
    bits = float(output.bits_y.sum() + output.bits_z.sum())
    assert 8 * len(coded.data) < 1.01 * bits + 8 * 36
    assert (decoded.image.float() / 255 - output.x_hat[0].clamp(0, 1)).abs().max() < 1.1 / 255
    forget()
    with pytest.raises(ExportError, match=r"model\.likelihood=secant"):
        jahp_pl.load_codec("models/mine")
    with pytest.raises(jahp_pl.JahpError, match=r"model\.likelihood=secant"):
        jahp_pl.CompressionModule.load_from_checkpoint("runs/mine/checkpoints/last.ckpt")
    assert not set(NAMES) & set(sys.modules), "nothing is imported by itself"


def test_what_cannot_be_imported_or_registered_is_refused_in_one_line(files: Path) -> None:
    (files / "broken.py").write_text("1 / 0\n")
    for module, words in (("broken.py", "ZeroDivisionError"), ("nowhere.py", "No such file"), ("no.such", "No module")):
        with pytest.raises(ConfigError, match=words):
            jahp_pl.load_config(f"imports=[{module}]")
    assert "broken" not in sys.modules
    for name in ("gaussian", "two words"):
        with pytest.raises(ConfigError, match="must be an identifier that is not taken"):
            register_density(name, DENSITIES["laplace"])
    with pytest.raises(ConfigError, match="must be one of gaussian, laplace, logistic; for your own, import"):
        ModelConfig(likelihood="secant")
    with pytest.raises(ConfigError, match=r"model\.transform"):
        model_from_dict({"transform": "residual"})


def test_a_file_is_imported_once_and_no_other_takes_its_name(files: Path) -> None:
    import_modules(["secant.py", str(files / "secant.py")])
    (files / "other").mkdir()
    shutil.copy("secant.py", "other/secant.py")
    with pytest.raises(ConfigError, match="another module named secant is already imported"):
        import_modules(["other/secant.py"])


def test_the_three_numbers_of_the_page_are_right() -> None:
    def tail(t: float) -> float:
        return float(mpmath.atan(mpmath.exp(-mpmath.pi * t / 2)) * 2 / mpmath.pi)

    assert "scale_min=0.064, reach=7.2, extent=11.0" in PAGE
    assert 2 * tail(0.5 / 0.064) == pytest.approx(5.5e-6, rel=0.1)
    assert math.log2(2 * tail(7.2)) == pytest.approx(-16, abs=0.05)
    assert f"F(-11) is 2^{math.log2(tail(11)):.1f}" in PAGE
