"""docs/extending.md is correct: without any change to the package, its files add an accurate density and an accurate
transform that train, export and code.
"""

from __future__ import annotations

import math
import pickle
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
from torch import nn

import jahp_pl
from jahp_pl.codec.codec import Codec
from jahp_pl.codec.entropy import hyper_strips
from jahp_pl.codec.entropy.networks import ExactHyperSynthesis
from jahp_pl.config import PARTS, ConfigError, EntropyModelName, ModelConfig, model_from_dict
from jahp_pl.context import ENTROPY_NETWORKS, register_entropy_network
from jahp_pl.distributions import DENSITIES, log_mass, register_density
from jahp_pl.extensions import import_modules
from jahp_pl.hyperprior import HYPER_TRANSFORMS, HyperAnalysis, HyperTransforms, register_hyper_transform
from jahp_pl.images.io import decode_rgb
from jahp_pl.model import CompressionModel
from jahp_pl.model_io.export_config import ExportError
from jahp_pl.transforms import TRANSFORMS, upsample
from tests import test_transforms
from tests.codec.transforms import test_runner
from tests.support import pages
from tests.support.commands import run
from tests.support.raw_outputs import raw_outputs
from tests.support.tiny_runs import NOTHING_CODED, PHOTOS, SMALL

PAGE = pages.read("extending")
BLOCKS = pages.blocks(PAGE)
NAMES = ("secant", "residual", "deeper")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the files, in which the test runs; what they register is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        shown = re.search(rf"`{name}\.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
        assert shown
        (tmp_path / f"{name}.py").write_text(shown[1])
    yield tmp_path
    forget()


def forget() -> None:
    """Forget everything that importing the files has registered."""
    for name in NAMES:
        for table in (DENSITIES, TRANSFORMS, HYPER_TRANSFORMS, ENTROPY_NETWORKS):
            table.pop(name, None)  # type: ignore[attr-defined]
        sys.modules.pop(name, None)
    for names in PARTS.values():
        names[:] = [name for name in names if name not in NAMES]


def exact(v: float, sigma: float) -> mpmath.mpf:
    """Compute log P of the unit bin at distance v from the mean, to at least forty digits."""

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
def test_all_at_once_train_export_and_code_as_the_page_shows(
    files: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(pages.ROOT / "configs", "configs")
    image = decode_rgb(PHOTOS / "val" / "dogs.jpg")[:200, :300]
    Image.fromarray(image).save("photo.png")
    train, export, compress = (line.replace("'", "").split()[1:] for line in pages.commands(PAGE))
    train = [word.replace("residual.py]", "residual.py,deeper.py]") for word in train]
    train += ["model.hyper_transform=deeper", "model.entropy_network=deeper"]
    export, compress = [*export, "--import", "deeper.py"], [*compress, "--import", "deeper.py"]
    small = [*SMALL, *NOTHING_CODED, f"data.train=[{shards / 'train'}]", f"data.val=[{shards / 'val'}]"]
    assert run(*train, *small, "trainer.max_steps=4", "model.num_components=2") == 0
    assert "--images data/kodak --import secant.py --import residual.py --import deeper.py)" in capsys.readouterr().out
    for command in (export, compress):
        forget()
        assert run(*(word for word in command if word != "--import" and not word.endswith(".py"))) == 2
        assert "must be one of" in (told := capsys.readouterr().err)
        assert told.rstrip().endswith("with --import FILE.py in other commands"), "no other remedy is named"
        assert run(*command) == 0
    codec = jahp_pl.load_codec("models/mine")
    config = codec.model.config
    assert (config.transform, config.likelihood) == ("residual", "secant")
    assert (config.hyper_transform, config.entropy_network) == ("deeper", "deeper")
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


@pytest.mark.parametrize("entropy_model", ["scale_hyperprior", "mean_scale_hyperprior", "context", "joint"])
def test_deeper_networks_code_with_the_parameters_of_the_model_on_every_entropy_model(
    files: Path, entropy_model: EntropyModelName
) -> None:
    import_modules(["deeper.py"])
    torch.manual_seed(1)
    model = CompressionModel(
        ModelConfig(entropy_model, 12, 12, hyper_transform="deeper", entropy_network="deeper")
    ).eval()
    with torch.no_grad():
        model.g_a[-1].weight.mul_(40)
    codec = Codec(model)
    image = torch.from_numpy(np.array(decode_rgb(PHOTOS / "val" / "dogs.jpg")[:208, :301])).movedim(-1, 0)
    coded = codec.encode(image)
    decoded = pickle.loads(pickle.dumps(codec)).decode(coded.data)
    assert torch.equal(decoded.y_hat, coded.y_hat)
    assert int(coded.y_hat.abs().max()) > 1
    with torch.no_grad():
        psi = [] if model.h_s is None or coded.z_hat is None else [model.h_s(coded.z_hat[None].float())[..., :13, :19]]
        joined = torch.cat([*psi, *([] if model.g_cm is None else [model.g_cm(coded.y_hat[None].float())])], dim=1)
        raw = (joined if model.g_ep is None else model.g_ep(joined))[0].flatten(1).T
    error = (raw_outputs(codec, coded.y_hat, coded.z_hat) * 2.0**-12 - raw).abs()
    assert float(error.max()) < 2.0**-8 * float(raw.abs().max())
    others = {Codec(CompressionModel(ModelConfig(entropy_model, 12, 12))).fingerprint, codec.fingerprint}
    assert len(others) == 2


def test_strips_and_tiles_of_deeper_networks_leave_no_seams(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_modules(["deeper.py"])
    torch.manual_seed(1)
    model = CompressionModel(ModelConfig("joint", 12, 12, hyper_transform="deeper")).eval()
    assert model.h_a is not None
    assert model.h_s is not None
    h_s = ExactHyperSynthesis(model.h_s)
    z_hat = torch.randint(-20, 20, (12, 12, 5), dtype=torch.int32)
    ((_, whole),) = h_s.strips(z_hat, 47, 19)
    monkeypatch.setattr(hyper_strips, "STRIP_POSITIONS", 1)
    strips = list(h_s.strips(z_hat, 47, 19))
    assert len(strips) == 12
    assert torch.equal(torch.cat([rows for _, rows in strips]), whole)
    for network, size, factor in ((model.h_a, 128, 1), (model.h_s, 32, 4)):
        x = torch.randn(1, 12, size, size, requires_grad=True)
        out = network(x)
        middle = out.shape[-1] // 2
        out[0, 0, middle : middle + 4 * factor, middle].sum().backward()
        assert x.grad is not None
        rows = x.grad[0].abs().amax(dim=(0, 2)).nonzero()[:, 0] * factor
        step = 4 if factor == 1 else 1
        reached = max(middle * step - int(rows.min()), int(rows.max()) - step * (middle + 4 * factor - 1))
        assert 9 - 4 <= reached <= 9 + 3, reached


def test_a_layer_without_an_integer_form_is_refused_when_the_model_is_built(files: Path) -> None:
    def refused(h_s: nn.Module, words: str) -> None:
        register_hyper_transform("deeper", HyperTransforms(HyperAnalysis, lambda *_: h_s, 7))  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=words):
            CompressionModel(ModelConfig("joint", 4, 6, hyper_transform="deeper"))

    import_modules(["deeper.py"])
    up = (upsample(4, 4), nn.ReLU(), upsample(4, 4), nn.ReLU())
    for wrong in (
        nn.Tanh(), nn.Conv2d(4, 12, 5, padding=2), nn.Conv2d(4, 12, 3), nn.Conv2d(4, 12, 1, bias=False),
        nn.Conv2d(4, 12, 1, groups=2), nn.Conv2d(4, 12, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 12, 1, stride=2), nn.ConvTranspose2d(4, 12, 4, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Sequential(nn.Conv2d(4, 12, 1), nn.ReLU()),
    ):  # fmt: skip
        refused(nn.Sequential(*up, wrong), r"h_s\.4=.*: has no integer form; use upsample, conv 3x3, conv 1x1 with b")
    refused(nn.Sequential(*up, nn.Conv2d(5, 12, 1)), r"h_s\.4=.*: must take 4 input channels")
    refused(nn.Sequential(*up, nn.Conv2d(4, 5, 1)), "h_s=5 outputs: must have 12")
    refused(nn.Sequential(*up[:2], nn.Conv2d(4, 12, 1)), "h_s=factor 2: height and width must grow by a factor of 4")
    refused(nn.Sequential(*up), "h_s=ReLU: must end in a convolution")
    refused(nn.Sequential(), "h_s=empty: must end in a convolution")
    register_entropy_network("deeper", lambda _, a, b: nn.Sequential(nn.Conv2d(a, b, 3, padding=1)))
    with pytest.raises(ConfigError, match=r"g_ep\.0=.*: has no integer form; use conv 1x1 with bias"):
        CompressionModel(ModelConfig("joint", 4, 6, entropy_network="deeper"))


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
    with pytest.raises(ConfigError, match=r"model\.hyper_transform=deeper: must be one of conv; for your own, import"):
        model_from_dict({"hyper_transform": "deeper"})


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
