"""Settings come from defaults, files and pairs, in this order, and survive as plain data."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any

import pytest
import torch

from jahp_pl.config import Config, ConfigError, ModelConfig, model_from_dict, to_dict
from jahp_pl.settings import all_keys, load_config


def look_up(config: Config, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


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


# Derived values -------------------------------------------------------------------------------------------------------


def test_max_time_is_days_hours_minutes_seconds() -> None:
    assert load_config("trainer.max_time=01:02:03:04").trainer.max_seconds() == 86400 + 2 * 3600 + 3 * 60 + 4
    assert load_config().trainer.max_seconds() == float("inf")


def test_the_time_of_a_session_is_not_that_of_the_run() -> None:
    settings = load_config("trainer.session_time=00:00:01:00").trainer
    assert (settings.session_seconds(), settings.max_seconds()) == (60, float("inf"))
    assert not settings.is_over(1, 61)


def test_levels_are_evenly_spaced_from_the_lowest_to_the_highest() -> None:
    config = ModelConfig(num_levels=5)
    assert [config.level_at(share) for share in (0.0, 0.25, 1.0)] == [0, 1, 4]
    assert config.level_at(torch.tensor([0.0, 0.5])).tolist() == [0, 2]
    assert [config.share_of(level) for level in (0, 1, 4)] == [0, 0.25, 1]


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
