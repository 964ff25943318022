"""Settings come from defaults, files and pairs, in this order; unusable ones are refused by name in one line."""

from __future__ import annotations

import dataclasses
import itertools
import re
import typing
from pathlib import Path
from typing import Any

import pytest
import torch

from jahp_pl.config import Config, ConfigError, ModelConfig, model_from_dict, to_dict
from jahp_pl.settings import all_keys, load_config

CONFIGS = Path(__file__).parent.parent / "configs"
BASES, OVERLAYS = sorted(CONFIGS.glob("*.yaml")), sorted((CONFIGS / "overlays").glob("*.yaml"))
RECIPE = sorted(set((CONFIGS / "recipe").glob("*.yaml")) - {CONFIGS / "recipe" / "start.yaml"})


def look_up(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def refusal(*arguments: str | Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(*([str(a) for a in arguments]))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def write(tmp_path: Path) -> typing.Callable[..., str]:
    """Write a YAML file with this text."""
    numbers = itertools.count()

    def write_file(text: str) -> str:
        path = tmp_path / f"{next(numbers)}.yaml"
        path.write_text(text)
        return str(path)

    return write_file


# What loads -----------------------------------------------------------------------------------------------------------


def test_without_arguments_the_defaults_apply() -> None:
    config = load_config()
    assert config == Config()
    assert (config.model.entropy_model, config.model.num_filters, config.loss.lmbda) == ("joint", 192, 0.013)


def test_files_are_merged_left_to_right_and_pairs_override_them_in_any_position(
    write: typing.Callable[..., str],
) -> None:
    first = write("seed: 1\nmodel: {num_filters: 10, num_latents: 20}\nname: first\n")
    second = write("seed: 2\nmodel: {num_filters: 11}\n")
    config = load_config("name=pair", first, second)
    assert (config.seed, config.model.num_filters, config.model.num_latents, config.name) == (2, 11, 20, "pair")
    assert load_config(second, first).seed == 1
    assert load_config(first, "seed=3", second, "seed=4").seed == 4


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("seed=3", 3),
        ("--seed=3", 3),
        ("loss.lmbda=0.0067", 0.0067),
        ("loss.lmbda=1e-3", 1e-3),
        ("loss.lmbda=2", 2.0),
        ("model.entropy_model=context", "context"),
        ("resume=false", False),
        ("trainer.max_time=00:08:00:00", "00:08:00:00"),
        ('trainer.max_time="10:00:00:00"', "10:00:00:00"),
        ("trainer.max_time=null", None),
        ("wandb.group=null", None),
        ("data.train=[a.tar, b/*.tar]", ["a.tar", "b/*.tar"]),
        ("data.train=[]", []),
        ("data.train=['s-{000..009}.tar']", ["s-{000..009}.tar"]),
        ("wandb.tags=[1, two]", ["1", "two"]),
        ("name=a=b", "a=b"),
        ("name=1", "1"),
    ],
)
def test_a_pair_sets_its_key_and_nothing_else(pair: str, expected: object) -> None:
    config, key = load_config(pair), pair.removeprefix("--").split("=")[0]
    assert look_up(config, key) == expected
    assert type(look_up(config, key)) is type(expected)
    changed = [k for k in all_keys() if look_up(config, k) != look_up(Config(), k)]
    assert changed in ([key], [])


def test_an_empty_file_changes_nothing(write: typing.Callable[..., str]) -> None:
    assert load_config(write("")) == load_config(write("{}")) == load_config(write("# only a comment\n")) == Config()


# What is refused ------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("pair", ["model.likelihood=laplace", "model.num_components=2"])
def test_the_factorized_entropy_model_has_no_other_densities(pair: str) -> None:
    assert "model.entropy_model=factorized" in refusal("model.entropy_model=factorized", pair)


def test_a_mistake_anywhere_is_found_though_later_arguments_would_hide_it(write: typing.Callable[..., str]) -> None:
    assert "model.num_filters" in refusal(write("model: {num_filters: x}"), "model.num_filters=64")


# Derived values -------------------------------------------------------------------------------------------------------


def test_max_time_is_days_hours_minutes_seconds() -> None:
    assert load_config("trainer.max_time=01:02:03:04").trainer.max_seconds() == 86400 + 2 * 3600 + 3 * 60 + 4
    assert load_config().trainer.max_seconds() == float("inf")


def test_the_time_of_a_session_is_not_that_of_the_run() -> None:
    settings = load_config("trainer.session_time=00:00:01:00").trainer
    assert (settings.session_seconds(), settings.max_seconds()) == (60, float("inf"))
    assert not settings.is_over(1, 61)


def test_a_run_writes_below_its_output_folder() -> None:
    assert load_config("name=a", "output_dir=b").run_dir == Path("b/a")


# Plain dictionaries and back ------------------------------------------------------------------------------------------


def test_to_dict_holds_every_setting_as_plain_data_and_survives_a_safe_checkpoint(tmp_path: Path) -> None:
    config = load_config("model.num_components=3", "data.train=[a,b]", "wandb.tags=[t]", "trainer.max_time=00:01:00:00")
    values = to_dict(config)
    torch.save(values, tmp_path / "values.pt")
    loaded = torch.load(tmp_path / "values.pt", weights_only=True)
    assert loaded == values
    for key in all_keys():
        value: Any = loaded
        for part in key.split("."):
            value = value[part]
        assert value == look_up(config, key)
        assert type(value) in (str, int, float, bool, list, type(None))
    assert model_from_dict(loaded["model"]) == config.model


def test_to_dict_is_a_copy() -> None:
    config = load_config("data.train=[a]")
    to_dict(config)["data"]["train"].append("b")
    assert config.data.train == ["a"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"entropy_model": "channelwise"}, "model.entropy_model=channelwise"),
        ({"likelihood": "cauchy"}, "model.likelihood=cauchy"),
        ({"num_filters": "192"}, "model.num_filters=192"),
        ({"num_filters": True}, "model.num_filters=True"),
        ({"num_slices": 10}, "model.num_slices"),
        ({"num_filters": 0}, "model.num_filters=0"),
    ],
)
def test_an_architecture_this_version_does_not_know_is_refused(values: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        model_from_dict(to_dict(Config())["model"] | values)


def test_settings_missing_from_an_old_architecture_take_their_defaults() -> None:
    assert model_from_dict({"num_filters": 5}) == ModelConfig(num_filters=5)


# The schema itself ----------------------------------------------------------------------------------------------------


def test_every_key_is_documented_with_type_and_default() -> None:
    keys = all_keys()
    assert len(keys) > 30
    for key, line in keys.items():
        description = line.partition("] ")[2] if not line.startswith("[list[str]") else line.rpartition("] ")[2]
        assert len(description) > 8, key
        assert description.endswith("."), key
        assert "\n" not in line
    assert keys["model.num_filters"].startswith("[int = 192] N: ")
    assert "factorized|scale_hyperprior" in keys["model.entropy_model"]


def test_every_key_can_be_set_on_the_command_line_to_its_default() -> None:
    for key in all_keys():
        value = look_up(Config(), key)
        text = "null" if value is None else str(value)
        assert load_config(f"{key}={text}") == Config(), key


def test_sections_share_nothing_between_two_configurations() -> None:
    one, other = Config(), Config()
    for f in dataclasses.fields(Config):
        if dataclasses.is_dataclass(getattr(one, f.name)):
            assert getattr(one, f.name) is not getattr(other, f.name)
    assert one.data.train is not other.data.train


# The files that we ship -----------------------------------------------------------------------------------------------


def test_there_are_configurations_for_every_entropy_model() -> None:
    base = str(CONFIGS / "mbt2018.yaml")
    assert {load_config(base, str(path)).model.entropy_model for path in OVERLAYS} == set(
        typing.get_args(typing.get_type_hints(ModelConfig)["entropy_model"])
    )


@pytest.mark.parametrize("path", BASES, ids=lambda p: p.stem)
def test_every_configuration_loads_alone_and_is_named_like_its_file(path: Path) -> None:
    config = load_config(str(path))
    assert config.name == path.stem
    assert config.data.train
    assert config.data.val


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda p: p.stem)
def test_every_overlay_loads_on_the_base_that_it_names_and_changes_it(path: Path) -> None:
    base = re.search(r"Use after (a base|\w+\.yaml)", path.read_text().replace("\n# ", " "))
    name = "mbt2018.yaml" if base is None or base[1] == "a base" else base[1]
    assert load_config(str(CONFIGS / name), str(path)) != load_config(str(CONFIGS / name))


@pytest.mark.parametrize("path", RECIPE, ids=lambda p: p.stem)
def test_every_change_of_the_recipe_loads_after_its_start_and_is_named_like_its_result(path: Path) -> None:
    start = [str(CONFIGS / "study.yaml"), str(CONFIGS / "recipe" / "start.yaml")]
    config = load_config(*start, str(path))
    assert config.name == path.stem
    assert (config == dataclasses.replace(load_config(*start), name=path.stem)) == (path.stem == "unchanged")
    assert (CONFIGS.parent / "results" / "study" / "recipe" / f"{path.stem}.json").exists()


def test_configurations_are_all_found() -> None:
    assert {*BASES, *OVERLAYS, *RECIPE, CONFIGS / "recipe" / "start.yaml"} == set(CONFIGS.rglob("*.y*ml"))
