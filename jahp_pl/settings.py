"""Builds a `Config` from command-line arguments and YAML files; the only module that imports OmegaConf.

The dataclasses of `config` are the schema. YAML files are overlays, merged from left to right onto the defaults;
`key=value` arguments are applied last. An unknown key, a wrong type or a value out of range is refused by name before
anything starts.

    >>> load_config("model.num_filters=64", "model.num_latents=96").model.num_filters
    64
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import io
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from jahp_pl.config import Config, ConfigError, current_name, require, with_current_names
from jahp_pl.errors import describe_error, first_line
from jahp_pl.extensions import import_modules
from jahp_pl.files.json_content import MAX_WHOLE
from jahp_pl.text import nearest_word, shortened

if TYPE_CHECKING:
    from omegaconf import DictConfig


def load_config(*arguments: str | Path) -> Config:
    """Load the settings of an experiment: defaults, then YAML files, then `key=value` pairs, each from left to right.

        load_config("configs/quickstart.yaml", "loss.lmbda=0.0067")

    Args:
        arguments: paths of YAML files and dotted `section.key=value` pairs, as on the command line. A leading `--`
            of a pair is dropped, because some sweep agents add it.

    Raises:
        ConfigError: if a file is missing or is not a mapping, a key is unknown, a type is wrong, or a value is out
            of range.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from jahp_pl.files import yaml_content

    words = [str(argument) for argument in arguments]
    files = [word for word in words if "=" not in word]
    pairs = [word.removeprefix("--") for word in words if "=" in word]
    layers: list[tuple[str, DictConfig]] = []
    for file in files:
        try:
            loaded = OmegaConf.load(io.StringIO(yaml_content.read(Path(file)).decode()))
        except FileNotFoundError:
            raise ConfigError(f"{file}: no such file; {_similar_file(file)}") from None
        except RecursionError:
            raise ConfigError(f"{file}: cannot be read as YAML: it is nested too deeply; correct the file") from None
        # PyYAML passes on Python's own errors; OmegaConf raises an OSError without a number if a file is a single word
        except (YAMLError, OmegaConfBaseException, OSError, ValueError, ArithmeticError) as error:
            if not file:
                raise ConfigError("'': is an empty name; give the path of a YAML file, or key=value") from None
            if isinstance(error, IsADirectoryError):
                raise ConfigError(f"{file}: is a folder; give the path of a YAML file with settings") from None
            if isinstance(error, OSError) and error.errno is not None:
                raise ConfigError(describe_error(error, shortened(file, 300))) from None
            raise ConfigError(f"{file}: cannot be read as YAML: {yaml_problem(error)}; correct the file") from None
        if not isinstance(loaded, DictConfig):
            raise ConfigError(f"{file}: is not a mapping; write settings as in the files under configs/")
        layers.append((f"{file}: ", loaded))
    for pair in pairs:
        key = pair.split("=", 1)[0]
        if not key.strip():
            raise ConfigError(f"{shortened(pair)}: has no name before the equals sign; write key=value")
        if current_name(key) not in all_keys() and key not in _sections():
            raise ConfigError(_unknown_key(key))
        try:
            layers.append(("", OmegaConf.from_dotlist([pair])))
        except (YAMLError, OmegaConfBaseException, ValueError, ArithmeticError, RecursionError) as error:
            raise ConfigError(
                f"{shortened(pair)}: the value cannot be read as YAML: {yaml_problem(error)}; quote it"
            ) from None
    return _merge(layers, may_import=True)


def _similar_file(file: str) -> str:
    """Suggest a file for a mistyped path, from its folder and from `configs`, which the name alone may stand for."""
    others = [*Path(file).parent.glob("*.yaml"), *Path("configs").glob("*.yaml")]
    stems = {other.stem: str(other) for other in reversed(others)}
    meant = nearest_word(Path(file).stem, stems, 0.7)
    return f"did you mean {stems[meant]}?" if meant is not None else "give the path of a YAML file with settings"


def config_from_dict(values: Mapping[str, Any]) -> Config:
    """Rebuild the configuration from the result of `config.to_dict`; missing settings take their defaults.

    The modules in `imports` are not imported.

    Raises:
        ConfigError: if a key is unknown, a type is wrong, or a value is out of range.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return _merge([("", OmegaConf.create(dict(values)))], may_import=False)
    except OmegaConfBaseException as error:
        raise ConfigError(yaml_problem(error)) from None


def _merge(layers: Sequence[tuple[str, DictConfig]], may_import: bool) -> Config:
    """Merge layers, each with its origin for messages, onto the defaults."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    merged = OmegaConf.structured(Config)
    for origin, layer in layers:
        values = with_current_names(cast(dict[Any, Any], OmegaConf.to_container(layer)))
        _check_structure(values, Config, "", origin)
        try:
            merged = OmegaConf.merge(merged, values)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{origin}{_refusal(error, values)}") from None
    if may_import:
        import_modules([str(module) for module in merged.imports])  # before the names that they register are checked
    try:
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(_refusal(error, OmegaConf.to_container(merged))) from None
    assert isinstance(config, Config)
    return config


def _refusal(error: Exception, values: Any) -> str:
    """Describe a value that OmegaConf refuses, and what the value must be.

    Args:
        error: the error of OmegaConf.
        values: nested dicts that hold the value.
    """
    key = (getattr(error, "full_key", "") or "").partition("[")[0]
    hint: Any = Config
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
        hint = typing.get_type_hints(hint).get(part) if dataclasses.is_dataclass(hint) else None
    if hint is None:
        return f"{key}: {yaml_problem(error)}".removeprefix(": ")
    if values is None:
        return f"{key}=: must be {_kind(hint)}; leave the setting out to keep its default"
    if "${" in str(values):
        reason = shortened(yaml_problem(error), 120)
        return f"{key}={shortened(values)}: cannot be resolved ({reason}); correct what is in ${{...}}"
    return f"{key}={shortened(values)}: must be {_kind(hint)}"


def _kind(hint: Any) -> str:
    """Describe the values of a type of setting in words."""
    if typing.get_origin(hint) is Literal:
        return f"one of {', '.join(typing.get_args(hint))}"
    if typing.get_origin(hint) is list:
        return "a list of words, e.g. [a, b]"
    if options := [option for option in typing.get_args(hint) if option is not type(None)]:
        return f"{_kind(options[0])}, or null"
    return {int: "a whole number", float: "a number", bool: "true or false"}.get(hint, "a word")


def all_keys() -> dict[str, str]:
    """Map the dotted name of every setting to one line with its type, default and meaning."""
    return dict(_walk(Config, ""))


def _walk(section: type, prefix: str) -> Iterator[tuple[str, str]]:
    """Yield the dotted name of every setting with its description."""
    docs = _field_docs(section)
    hints = typing.get_type_hints(section)
    for f in dataclasses.fields(section):
        if dataclasses.is_dataclass(hints[f.name]):
            yield from _walk(hints[f.name], f"{prefix}{f.name}.")
            continue
        default = f.default if f.default is not dataclasses.MISSING else []
        yield f"{prefix}{f.name}", f"[{_type_name(hints[f.name])} = {default}] {docs.get(f.name, '')}"


def _type_name(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "|".join(str(a) for a in typing.get_args(hint))
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint)


@functools.cache  # parsing the source takes 20 ms per section, and every `key=value` pair is looked up
def _field_docs(section: type) -> dict[str, str]:
    """Return the string literal below each field, which Python itself discards."""
    body = ast.parse(inspect.getsource(section)).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs


def _check_structure(values: Any, section: type, prefix: str, origin: str) -> None:
    """Refuse unknown keys and wrong nesting with messages that name the key, before OmegaConf's merge does so."""
    hints = typing.get_type_hints(section)
    if not isinstance(values, dict):
        raise ConfigError(
            f"{origin}{prefix[:-1]}={values}: is a section; set one of its keys, e.g. {prefix}{next(iter(hints))}"
        )
    for name, value in values.items():
        key = f"{prefix}{name}"
        if name not in hints:
            raise ConfigError(f"{origin}{_unknown_key(key)}")
        if dataclasses.is_dataclass(hints[name]):
            _check_structure(value, hints[name], f"{key}.", origin)
        elif typing.get_origin(hints[name]) is list:
            is_list = isinstance(value, list) and all(
                isinstance(v, str | int | float) and not _is_too_large(v) for v in value
            )
            require(is_list, f"{origin}{key}", value, f"must be {_kind(hints[name])}")
        else:
            require(value != "???", f"{origin}{key}", value, f"must be {_kind(hints[name])}")  # "???" is the default
            require(not _is_too_large(value), f"{origin}{key}", value, "must have fewer digits")
        has_null = any(isinstance(v, str) and "\0" in v for v in (value if isinstance(value, list) else [value]))
        require(not has_null, f"{origin}{key}", repr(value), "must not contain a null character")


def _is_too_large(value: object) -> bool:
    """Check for a whole number that OmegaConf fails to convert to a float or to text."""
    return isinstance(value, int) and abs(value) >= MAX_WHOLE


def _sections() -> list[str]:
    return [f.name for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.default_factory)]


_USUAL_NAMES = {
    "lr": "optim.learning_rate",
    "lambda": "loss.lmbda",
    "metric": "loss.distortion",
    "epochs": "trainer.max_steps",
    "max_epochs": "trainer.max_steps",
    "gpus": "trainer.devices",
    "val_check_interval": "trainer.val_every_steps",
    "log_every_n_steps": "trainer.log_every_steps",
    "gradient_clip_val": "optim.clip_norm",
    "clip_max_norm": "optim.clip_norm",
    "patch_size": "data.crop_size",
    "default_root_dir": "output_dir",
    "checkpoint": "optim.start_from",
    "ckpt_path": "optim.start_from",
    "architecture": "model.entropy_model",
    "arch": "model.entropy_model",
    "rung": "model.entropy_model",
    "N": "model.num_filters",
    "M": "model.num_latents",
    "K": "model.num_components",
}
"""Maps names used in Lightning, CompressAI or papers to the settings to suggest for them."""


def _unknown_key(key: str) -> str:
    """Format the message about a key that no setting has."""
    shown = shortened(key) or "''"
    if key in all_keys():
        return f"{key}: dotted keys are for the command line; in a file, nest the key below `{key.split('.')[0]}:`"
    last = key.split(".")[-1]
    meant = _USUAL_NAMES.get(last) or next((known for known in all_keys() if known.split(".")[-1] == last), None)
    if meant is None:
        meant = nearest_word(key, [*([] if "." in key else _sections()), *all_keys()], 0.5)
    hint = f"did you mean {meant}?" if meant is not None else "`jahp train --keys` lists all"
    return f"{shown}: no such setting; {hint}"


def yaml_problem(error: Exception) -> str:
    """Describe an error of a YAML parser or of OmegaConf in one line, with the line of the file where it is known."""
    from omegaconf.errors import KeyValidationError

    if isinstance(error, KeyValidationError):
        return "a key is empty, or neither a word nor a number"
    if (problem := getattr(error, "problem", None)) and (mark := getattr(error, "problem_mark", None)):
        problem = problem.replace("found unhashable key", "a key is a list or a mapping")
        return f"{problem}, in line {mark.line + 1}"
    return first_line(error)
