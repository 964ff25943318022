"""All errors of the package have one base class."""

from __future__ import annotations

import inspect
import pkgutil
from importlib import import_module

import pytest

import jahp_pl
from tests.support.codec_models import JOINT, codec_of

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
    built_in = (ValueError, OSError, RuntimeError, LookupError)
    others = {error.__name__ for error in errors if not issubclass(error, built_in)} - {"JahpError"}
    assert others == {"ArchiveError"}  # is caught where tars are read


def test_a_caller_can_catch_all_by_the_base():
    with pytest.raises(jahp_pl.JahpError, match=r"not a \.jahp file"):
        codec_of(JOINT).decompress(b"something else")
    with pytest.raises(jahp_pl.JahpError, match="nowhere"):
        jahp_pl.load_codec("nowhere")
