"""CompressAI's checkpoints become this project's models; anything else is refused by name and never executed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jahp_pl.cli.main import main
from jahp_pl.config import EntropyModelName
from jahp_pl.model_io import compressai
from jahp_pl.model_io.checkpoint import CheckpointError
from jahp_pl.model_io.export import load_export
from jahp_pl.model_io.load import load_codec
from tests.support.compressai_states import M, N, in_their_names, model_of

ENTROPY_MODELS: tuple[EntropyModelName, ...] = ("factorized", "scale_hyperprior", "mean_scale_hyperprior", "joint")


@pytest.mark.parametrize("entropy_model", ENTROPY_MODELS)
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize("flat", [False, True], ids=["new names", "old names"])
def test_a_checkpoint_becomes_the_model_with_the_same_weights(entropy_model, nested, flat, tmp_path):
    model = model_of(entropy_model)
    state = in_their_names(model, flat)
    content = {"epoch": 3, "state_dict": state, "optimizer": {"lr": 1e-4}, "loss": torch.ones(())} if nested else state
    torch.save(content, tmp_path / "c.pth.tar")
    loaded = compressai.load_compressai(tmp_path / "c.pth.tar")
    assert loaded.config == model.config
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_files_of_torchs_older_layout_are_read_too(tmp_path):
    torch.save(in_their_names(model_of("joint")), tmp_path / "old.pth.tar", _use_new_zipfile_serialization=False)
    assert compressai.load_compressai(tmp_path / "old.pth.tar").config.entropy_model == "joint"


def test_the_names_of_a_parallel_training_are_understood(tmp_path):
    state = {f"module.{name}": tensor for name, tensor in in_their_names(model_of("joint")).items()}
    torch.save({"state_dict": state}, tmp_path / "c.pth")
    assert compressai.load_compressai(tmp_path / "c.pth").config.entropy_model == "joint"


def test_the_command_leaves_an_export_that_codes(tmp_path, capsys):
    torch.save(in_their_names(model_of("joint")), tmp_path / "mbt2018.pth.tar")
    main(["import-compressai", str(tmp_path / "mbt2018.pth.tar"), "--out", str(tmp_path / "m")])
    assert f"joint, N = {N}, M = {M}" in capsys.readouterr().out
    assert load_export(tmp_path / "m").facts == {"source": "mbt2018.pth.tar", "trained_with": "CompressAI"}
    codec = load_codec(tmp_path / "m")
    image = torch.randint(0, 256, (3, 33, 47), dtype=torch.uint8)
    encoded = codec.encode(image)
    assert torch.equal(codec.decode(encoded.data).y_hat, encoded.y_hat)


class Bomb:
    """Object that pickles to a call which would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("new_layout", [True, False])
def test_pickled_code_is_refused_and_not_run(new_layout, tmp_path):
    mark, path = tmp_path / "was-run", tmp_path / "bomb.pth"
    torch.save({"state_dict": Bomb(mark)}, path, _use_new_zipfile_serialization=new_layout)
    with pytest.raises(CheckpointError, match=r"bomb\.pth: .*never run"):
        compressai.load_compressai(path)
    path.write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(CheckpointError, match=r"bomb\.pth"):
        compressai.load_compressai(path)
    assert not mark.exists()


def without(name: str) -> dict[str, Tensor]:
    state = in_their_names(model_of("joint"))
    del state[name]
    return state


FOREIGN = {
    "another network": ({"conv1.weight": torch.zeros(3, 3)}, "no weights of bmshj2018"),
    "no state dict": ([torch.zeros(3)], "has no state dict"),
    "numbers": ({"state_dict": 5}, "has no state dict"),
    "scalar layers": ({"g_a.0.weight": torch.zeros(()), "g_a.6.weight": torch.zeros(())}, "no weights of bmshj2018"),
    "missing tensor": (without("g_s.0.bias"), r"joint model, but g_s\.0\.bias is missing"),
    "extra tensor": (in_their_names(model_of("joint")) | {"lmbda": torch.ones(1)}, "is unknown"),
    "misshapen": (in_their_names(model_of("joint")) | {"h_a.0.bias": torch.ones(1)}, r"h_a\.0\.bias has shape"),
}


@pytest.mark.parametrize(("content", "words"), FOREIGN.values(), ids=FOREIGN)
def test_other_models_are_refused_with_the_path(content, words, tmp_path):
    torch.save(content, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match=words) as caught:
        compressai.load_compressai(tmp_path / "c.pth")
    assert "\n" not in str(caught.value)


def test_damaged_and_missing_files_are_refused_in_one_line(tmp_path, capsys):
    torch.save(in_their_names(model_of("joint")), tmp_path / "whole.pth")
    data = (tmp_path / "whole.pth").read_bytes()
    for name, content in {
        "half": data[: len(data) // 2],
        "empty": b"",
        "text": b"hello",
        "image": b"\x89PNG\r\n",
    }.items():
        path = tmp_path / f"{name}.pth"
        path.write_bytes(content)
        with pytest.raises(SystemExit) as caught:
            main(["import-compressai", str(path), "--out", str(tmp_path / "m")])
        assert caught.value.code == 2
        error = capsys.readouterr().err.strip()
        assert f"{name}.pth" in error
        assert "\n" not in error
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        compressai.load_compressai(tmp_path / "nowhere.pth")
    assert not (tmp_path / "m").exists()
