"""All errors of the package have one base class; memory that cannot be allocated is one of them."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable
from importlib import import_module

import numpy as np
import pytest
import torch

import jahp_pl
from jahp_pl.errors import JahpError, MemoryShortageError, memory_errors
from tests.support.codec_models import JOINT, codec_of

TOO_LARGE = 2**50
NOT_FOR_CALLERS = {"Stopped", "_EndOfCommandsError"}
"""Ends of a training, by which Lightning and a benchmark are left."""


def own_exceptions() -> list[type]:
    modules = [info.name for info in pkgutil.walk_packages(jahp_pl.__path__, "jahp_pl.") if "__main__" not in info.name]
    found = {
        thing
        for name in modules
        for _, thing in inspect.getmembers(import_module(name), inspect.isclass)
        if issubclass(thing, BaseException) and thing.__module__.startswith("jahp_pl")
    }
    return sorted(found, key=lambda error: error.__name__)


def test_every_own_error_has_one_base_and_a_built_in_type_that_fits():
    errors = [error for error in own_exceptions() if not issubclass(error, Warning)]
    errors = [error for error in errors if error.__name__ not in NOT_FOR_CALLERS]
    assert {"BitstreamError", "ConfigError", "ExportError", "ImageError", "WriteError"} <= {e.__name__ for e in errors}
    for error in errors:
        assert issubclass(error, jahp_pl.JahpError), error
    built_in = (ValueError, OSError, RuntimeError, LookupError, MemoryError)
    others = {error.__name__ for error in errors if not issubclass(error, built_in)} - {"JahpError"}
    assert others == {"ArchiveError"}  # is caught where tars are read


def test_a_caller_can_catch_all_by_the_base():
    with pytest.raises(jahp_pl.JahpError, match=r"not a \.jahp file"):
        codec_of(JOINT).decompress(b"something else")
    with pytest.raises(jahp_pl.JahpError, match="nowhere"):
        jahp_pl.load_codec("nowhere")


@pytest.mark.parametrize(
    "allocate",
    [lambda: bytearray(TOO_LARGE), lambda: np.ones(TOO_LARGE), lambda: torch.ones(TOO_LARGE)],
    ids=["python", "numpy", "torch"],
)
def test_a_shortage_of_memory_becomes_one_error_of_one_line(allocate: Callable[[], object]) -> None:
    with (
        pytest.raises(MemoryShortageError, match=r"^photo.png: not enough memory") as caught,
        memory_errors("photo.png"),
    ):
        allocate()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [JahpError("not enough memory"), RuntimeError("sizes do not match"), KeyError("x")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, memory_errors():
        raise error
    assert caught.value is error
