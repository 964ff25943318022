"""Every file in configs/ loads, and changes what it is for."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from jahp_pl.config import ModelConfig
from jahp_pl.settings import load_config
from tests.support import ROOT

CONFIGS = ROOT / "configs"
BASES = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted((CONFIGS / "overlays").glob("*.yaml"))
RECIPE = sorted(set((CONFIGS / "recipe").glob("*.yaml")) - {CONFIGS / "recipe" / "start.yaml"})


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
