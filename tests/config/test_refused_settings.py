"""Unusable settings are refused by name in one line, with a remedy."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest

from jahp_pl.config import ConfigError
from jahp_pl.settings import load_config


def refusal(*arguments: str | Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(*([str(a) for a in arguments]))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("pair", "named", "remedy"),
    [
        # unknown keys
        ("model.num_filter=5", "model.num_filter", "did you mean model.num_filters?"),
        ("loss.lambda=5", "loss.lambda", "did you mean loss.lmbda?"),
        ("quux=5", "quux", "--keys"),
        ("loss.max_steps=5", "loss.max_steps", "did you mean trainer.max_steps?"),
        ("batch_size=5", "batch_size", "did you mean data.batch_size?"),
        ("lr=5", "lr", "did you mean optim.learning_rate?"),
        ("model.K=5", "model.K", "did you mean model.num_components?"),
        ("optim.lrate=5", "optim.lrate", "did you mean optim."),
        ("trainer.max_epochs=5", "trainer.max_epochs", "did you mean trainer.max_steps?"),
        ("trainer.val_check_interval=5", "trainer.val_check_interval", "did you mean trainer.val_every_steps?"),
        ("data.patch_size=64", "data.patch_size", "did you mean data.crop_size?"),
        ("model.architecture=mbt2018", "model.architecture", "did you mean model.entropy_model?"),
        ("clip_max_norm=1", "clip_max_norm", "did you mean optim.clip_norm?"),
        ("model=5", "model", "model.entropy_model"),
        ("=5", "=5", "write key=value"),
        # wrong types
        ("model.num_filters=many", "model.num_filters", "must be a whole number"),
        ("model.num_filters=1.5", "model.num_filters", "must be a whole number"),
        ("model.num_filters=true", "model.num_filters", "must be a whole number"),
        ("model.num_filters=", "model.num_filters=", "must be a whole number"),
        ("model.num_filters=null", "model.num_filters=", "must be a whole number"),
        ("loss.lmbda=small", "loss.lmbda", "must be a number"),
        ("resume=maybe", "resume=maybe", "must be true or false"),
        ("model.entropy_model=joined", "model.entropy_model=joined", "must be one of factorized, "),
        ("model.likelihood=cauchy", "model.likelihood", "laplace"),
        ("data.train=shards", "data.train", "[a, b]"),
        ("data.train={a: b}", "data.train", "[a, b]"),
        ("data.train=[[a], b]", "data.train", "[a, b]"),
        ("data.train=[a, null]", "data.train", "[a, b]"),
        ("name=[", "name=[", "quote it"),
        ("name=[a]", "name=['a']", "must be a word"),
        ("name=", "name=", "must be a word; leave the setting out"),
        ("seed=", "seed=", "must be a whole number; leave the setting out"),
        ("model.entropy_model=null", "model.entropy_model=", "must be one of factorized, "),
        ("loss.lmbda_max=x", "loss.lmbda_max=x", "must be a number, or null"),
        ("name=???", "name=???", "must be a word"),
        ("data.train=['???']", "data.train=['???']", "[a, b]"),
        (f"seed=0x{'f' * 5000}", "seed=a number with thousands of digits", "fewer digits"),
        (f"seed={'9' * 4000}", f"seed={'9' * 77}...: ", "fewer digits"),
        (f"loss.lmbda={'1' * 400}", f"loss.lmbda={'1' * 77}...: ", "fewer digits"),
        ('output_dir="a\\0b"', r"output_dir='a\x00b'", "must not contain a null character"),
        ('data.train=["a\\0b"]', r"data.train=['a\x00b']", "must not contain a null character"),
        (f"data.train=[0x{'f' * 5000}]", "data.train=a number with thousands of digits", "[a, b]"),
        ("name=${nothing}", "name=${nothing}", "'nothing' not found"),
        ("seed=${name}", "seed=${name}", "could not be converted"),
        ('name="\\UFFFFFFFF"', "name=", "quote it"),
        ("name=" + "[" * 2000, "name=", "quote it"),
        # out of range
        ("model.num_filters=0", "model.num_filters=0", "from 1 to 4096"),
        ("model.num_latents=1000000000", "model.num_latents=1000000000", "from 1 to 4096"),
        ("model.num_latents=-3", "model.num_latents=-3", "from 1"),
        ("model.num_components=0", "model.num_components=0", "from 1 to 16"),
        ("model.num_components=17", "model.num_components=17", "from 1 to 16"),
        ("loss.lmbda=0", "loss.lmbda=0", "positive"),
        ("loss.lmbda=-1", "loss.lmbda=-1", "positive"),
        ("loss.lmbda=nan", "loss.lmbda=nan", "positive"),
        ("loss.lmbda=inf", "loss.lmbda=inf", "finite"),
        ("data.crop_size=0", "data.crop_size=0", "at least 16"),
        ("data.crop_size=100", "data.crop_size=100", "multiple of 16"),
        ("data.batch_size=0", "data.batch_size=0", "from 1 to 65536"),
        ("data.batch_size=99999999999", "data.batch_size=99999999999", "from 1 to 65536"),
        ("data.num_workers=-1", "data.num_workers=-1", "from 0 to 1024"),
        ("data.num_workers=99999", "data.num_workers=99999", "from 0 to 1024"),
        ("data.shuffle_buffer=0", "data.shuffle_buffer=0", "at least 1"),
        ("data.max_val_images=-1", "data.max_val_images=-1", "negative"),
        ("data.crops_per_photo=0", "data.crops_per_photo=0", "at least 1"),
        ("data.timeout=0", "data.timeout=0", "positive"),
        ("data.timeout=inf", "data.timeout=inf", "finite"),
        ("data.cache_bytes=0", "data.cache_bytes=0", "at least 1"),
        ("data.max_broken_share=1.5", "data.max_broken_share=1.5", "from 0 to 1"),
        ("optim.learning_rate=0", "optim.learning_rate=0", "positive"),
        ("optim.learning_rate=inf", "optim.learning_rate=inf", "finite"),
        ("optim.warmup_steps=-1", "optim.warmup_steps=-1", "negative"),
        ("optim.final_factor=1.5", "optim.final_factor=1.5", "from 0 to 1"),
        ("optim.clip_norm=-1", "optim.clip_norm=-1", "negative"),
        ("optim.ema_decay=1", "optim.ema_decay=1", "below 1"),
        ("trainer.max_steps=0", "trainer.max_steps=0", "at least 1"),
        ("trainer.devices=0", "trainer.devices=0", "at least 1"),
        ("trainer.num_nodes=0", "trainer.num_nodes=0", "at least 1"),
        ("trainer.val_every_steps=0", "trainer.val_every_steps=0", "at least 1"),
        ("trainer.log_every_steps=0", "trainer.log_every_steps=0", "at least 1"),
        ("trainer.max_skipped_steps=0", "trainer.max_skipped_steps=0", "at least 1"),
        ("trainer.max_time=10 minutes", "trainer.max_time=10 minutes", "DD:HH:MM:SS"),
        ("trainer.max_time=00:00:00:00", "trainer.max_time=00:00:00:00", "DD:HH:MM:SS"),
        ("trainer.max_time=00:00:-1:00", "trainer.max_time=00:00:-1:00", "DD:HH:MM:SS"),
        ("trainer.max_time=10:00:00:00", "trainer.max_time", "quotes"),
        ("trainer.session_time=an hour", "trainer.session_time=an hour", "DD:HH:MM:SS"),
        ("trainer.devices=3", "data.batch_size=8", "multiple of the 3 processes"),
        ("trainer.num_nodes=16", "data.batch_size=8", "multiple of the 16 processes"),
        ("wandb.tags=['']", "wandb.tags=", "1 to 64 characters"),
        (f"wandb.tags=[a, {65 * 'x'}]", "wandb.tags=", "1 to 64 characters"),
        ("wandb.project=a/b", "wandb.project=a/b", "without / "),
        (f"wandb.project={129 * 'x'}", "wandb.project=x", "at most 128 characters"),
        ("coding.max_images=-1", "coding.max_images=-1", "negative"),
        ("coding.max_pictures=-1", "coding.max_pictures=-1", "negative"),
        ("name=a/b", "name=a/b", "folder name"),
        ("name=''", "name=", "folder name"),
        ("name=..", "name=..", "folder name"),
        ("seed=-1", "seed=-1", "from 0"),
        ("seed=4294967296", "seed=4294967296", "2^32"),
    ],
)
def test_a_bad_pair_is_refused_by_name_with_a_remedy(pair: str, named: str, remedy: str) -> None:
    message = refusal(pair)
    assert named in message
    assert remedy in message


@pytest.mark.parametrize(
    ("text", "named", "remedy"),
    [
        ("model: {num_filter: 5}", "model.num_filter", "did you mean model.num_filters?"),
        ("modle: {num_filters: 5}", "modle", "did you mean model?"),
        ("1: 2", "1:", "--keys"),
        ("model.num_filters: 64", "model.num_filters", "nest the key below `model:`"),
        ("model: 5", "model=5", "a section"),
        ("model:", "model=None", "a section"),
        ("model: [5]", "model=[5]", "a section"),
        ("model: {num_filters: many}", "model.num_filters", "must be a whole number"),
        ("model: {num_filters: [1]}", "model.num_filters", "must be a whole number"),
        ("model: {entropy_model: joined}", "model.entropy_model=joined", "must be one of factorized, "),
        ("data: {train: shards}", "data.train", "[a, b]"),
        ("- a\n- b\n", "", "mapping"),
        ("5", "", "YAML"),
        ("model: [", "", "YAML"),
        ("a: b: c", "", "YAML"),
        ("null: 1", "", "a key is empty, or neither a word nor a number"),
        ("model: {[1]: 2}", "", "a key is a list or a mapping"),
        ("'': 1", "'': no such setting", "--keys"),
        ("x" * 500 + ": 1", "x" * 77 + "...: no such setting", "--keys"),
        ("name: a\nname: b\n", "duplicate key name", "in line 2"),
        ("model: {num_filters: 8,\n  num_filters: 9}", "duplicate key num_filters", "in line 2"),
        ('name: "\\UFFFFFFFF"', "", "YAML"),
        ("name: " + "[" * 2000, "", "YAML"),
        ("seed: 1\nseed: 2", "", "YAML"),
        ("name: !!python/object/apply:os.getcwd []", "", "YAML"),
    ],
)
def test_a_bad_file_is_refused_by_its_path_and_key(
    text: str, named: str, remedy: str, write: typing.Callable[..., str]
) -> None:
    path = write(text)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert named in message
    assert remedy in message


@pytest.mark.parametrize(
    "text", ["model: {num_filters: 0}", "optim: {ema_decay: 1.0}", "loss: {lmbda: .inf}", "seed: -1"]
)
def test_a_value_out_of_range_is_refused_from_a_file_too(text: str, write: typing.Callable[..., str]) -> None:
    section, _, rest = text.partition(": ")
    name = rest.strip("{}").split(":")[0]
    assert (f"{section}.{name}=" if "{" in rest else f"{section}=") in refusal(write(text))


def test_missing_files_folders_and_binary_files_are_named(tmp_path: Path) -> None:
    assert (
        refusal(tmp_path / "none.yaml")
        == f"{tmp_path / 'none.yaml'}: no such file; give the path of a YAML file with settings"
    )
    assert len(refusal("x" * 5000)) < 400
    assert refusal(tmp_path) == f"{tmp_path}: is a folder; give the path of a YAML file with settings"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00seed")
    assert refusal(binary).startswith(f"{binary}: ")


def test_a_file_is_suggested_for_a_mistyped_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    for name in ("quickstart.yaml", "study.yaml"):
        (tmp_path / "configs" / name).touch()
    (tmp_path / "mine.yaml").touch()
    for mistyped in ("configs/quikstart.yaml", "quickstart", "quickstart.yaml", "config/quickstart.yml"):
        assert refusal(mistyped) == f"{mistyped}: no such file; did you mean configs/quickstart.yaml?"
    assert refusal("mein.yaml") == "mein.yaml: no such file; did you mean mine.yaml?"
    assert refusal("other.yaml").endswith("give the path of a YAML file with settings")


@pytest.mark.parametrize("pair", ["model.likelihood=laplace", "model.num_components=2"])
def test_the_factorized_entropy_model_has_no_other_densities(pair: str) -> None:
    assert "model.entropy_model=factorized" in refusal("model.entropy_model=factorized", pair)


def test_a_mistake_anywhere_is_found_though_later_arguments_would_hide_it(write: typing.Callable[..., str]) -> None:
    assert "model.num_filters" in refusal(write("model: {num_filters: x}"), "model.num_filters=64")
