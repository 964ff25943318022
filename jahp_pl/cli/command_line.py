"""Parses the command line, runs one command, and reports errors in one line."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from jahp_pl.cli import output
from jahp_pl.cli.errors import INPUT_ERRORS, CommandError
from jahp_pl.cli.process import (
    check_working_folder,
    open_streams,
    pillow_warnings_hidden,
    set_passive_waiting,
    signals_as_errors,
    skip_collection_at_exit,
    without_garbage_collection,
)
from jahp_pl.config import ConfigError
from jahp_pl.errors import describe_error, memory_errors
from jahp_pl.extensions import import_modules
from jahp_pl.text import nearest_word

EXAMPLES = """\
examples:
  jahp shards ~/photos -o shards/mine
  jahp train configs/mbt2018.yaml 'data.train=[shards/mine]' loss.lmbda=0.0067
  jahp sweep sweeps/ladder.yaml --workers 2
  jahp evaluate --model runs/mbt2018 --images data/kodak --compare jpeg
  jahp compress photo.png
  jahp decompress photo.jahp -o again.png
  jahp compress photo.png --model runs/mbt2018
  jahp export runs/mbt2018 -o models/mbt2018

`jahp COMMAND --help` explains a command."""
COMMANDS = {
    "shards": "train",
    "train": "train",
    "sweep": "sweep",
    "evaluate": "evaluate",
    "classical": "classical",
    "report": "report",
    "compress": "compress",
    "decompress": "decompress",
    "bench": "bench",
    "info": "info",
    "export": "export",
    "export-graphs": "export",
    "import-compressai": "export",
}
"""Module of `jahp_pl.cli` that defines each command with a function `add_...`, in the order of `jahp --help`."""
FORMER_COMMANDS = {"graphs": "export-graphs"}
"""Maps former names of commands, which `jahp --help` does not show, to current ones."""
WITH_OWN_SIGNALS = ("train", "sweep")
"""Commands that handle signals themselves."""


def run(arguments: Sequence[str] | None) -> None:
    """Run one command, see `main.main`; an interrupt passes through as KeyboardInterrupt."""
    open_streams()
    skip_collection_at_exit()
    parsed: argparse.Namespace | None = None
    try:
        with without_garbage_collection():
            parsed = _parse(arguments)
        output.QUIET.set(parsed.quiet)
        set_passive_waiting()
        check_working_folder()
        signals = signals_as_errors() if parsed.run.__name__ not in WITH_OWN_SIGNALS else nullcontext()
        with signals, memory_errors(), pillow_warnings_hidden():
            _import_modules(getattr(parsed, "modules", []))
            parsed.run(parsed)
        output.flush()
    except BrokenPipeError:
        _close_output()
        sys.exit(141)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "jahp_pl":
            raise
        _close_output()
        sys.exit(_fail(f"this command needs {error.name}, which is not installed; run: pip install jahp_pl", 2))
    except UnicodeEncodeError as error:
        if error.encoding.lower() in ("utf-8", "utf-16", "utf-32"):
            raise
        _close_output()
        sys.exit(_fail(f"{error.object!r}: cannot be printed in the encoding of this locale; set LC_ALL=C.UTF-8", 2))
    except INPUT_ERRORS as error:
        _close_output()
        if parsed is not None and parsed.verbose:
            import traceback

            traceback.print_exc()
        sys.exit(_fail(describe_error(error), 2))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse arguments. Unlike argparse alone, accept settings anywhere among options."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    words[:1] = [FORMER_COMMANDS.get(word, word) for word in words[:1]]
    parser = _parser(words[0] if words and words[0] in COMMANDS else None)
    if "_ARGCOMPLETE" in os.environ:  # a shell that completes a command sets it
        import argcomplete

        argcomplete.autocomplete(parser)
    try:
        parsed, rest = parser.parse_known_args(words)
    except SystemExit:  # after --help or --version
        output.flush()
        raise
    if parsed.quiet and hasattr(parsed, "quality"):
        _refuse_number([*map(str, getattr(parsed, "inputs", [])), *rest], parsed.parser)
    if rest and (not hasattr(parsed, "settings") or any(word.startswith("-") for word in rest)):
        parsed.parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if hasattr(parsed, "settings"):
        taken = _take_settings(parsed)
        parsed.settings = [word for word in words if word in parsed.settings or word in rest or Path(word) in taken]
    return parsed


def _take_settings(parsed: argparse.Namespace) -> set[Path]:
    """Remove settings from the values of options that take any number of words, and return them as paths."""
    taken: set[Path] = set()
    for action in parsed.parser._actions:
        if action.nargs == "+" and action.option_strings and (values := getattr(parsed, action.dest)):
            settings = [value for value in values if _is_setting(Path(str(value)))]
            if len(settings) == len(values):
                parsed.parser.error(f"{action.option_strings[-1]}: is followed by settings only; {action.help}")
            setattr(parsed, action.dest, [value for value in values if value not in settings])
            taken.update(Path(str(value)) for value in settings)
    return taken


def _is_path(word: str) -> bool:
    """Check whether a word, which may be too long for a file name, is an existing path."""
    try:
        return Path(word).exists()
    except OSError:
        return False


def _is_setting(word: Path) -> bool:
    """Check whether a word is a setting of a training run, rather than another value of the option before it."""
    return word.suffix in (".yaml", ".yml") or ("=" in str(word) and not word.exists())


def _refuse_number(words: Sequence[str], parser: argparse.ArgumentParser) -> None:
    """Refuse a number after -q, which means --quiet here but the quality in the commands of other codecs."""
    for word in words:
        if word.isdecimal() and not Path(word).exists():
            parser.error(f"-q means --quiet; for a quality of {word}, give --quality {word}")


def _import_modules(modules: Sequence[str]) -> None:
    """Import the modules that --import names.

    Raises:
        CommandError: if a module cannot be imported.
    """
    try:
        import_modules(modules)
    except ConfigError as error:
        raise CommandError(str(error).replace("imports=", "--import ", 1)) from error


def _close_output() -> None:
    """Flush standard output; if that fails, redirect it to the null device, because Python would retry at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int) -> int:
    output.say(f"jahp: {' '.join(message.split())}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Report unusable arguments in one line, like all other errors."""
        advice = self._suggestion(message) or f"; see `{self.prog} --help`"
        message = re.sub(r"invalid int value: ('.*')$", r"\1: must be a whole number", message)
        message = re.sub(r"invalid float value: ('.*')$", r"\1: must be a number", message)
        message = re.sub(r"not allowed with argument (\S+)$", r"cannot be combined with \1; give only one", message)
        self.exit(_fail(message.removeprefix("argument ") + advice, 2))

    def _suggestion(self, message: str) -> str:
        """Suggest the command, option, file or value that was probably meant."""
        if dashed := next((word for word in sys.argv[1:] if word.startswith("-") and _is_path(word)), None):
            return f"; if {dashed} is meant as a file, write ./{dashed}"
        if found := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)$", message):
            word, known = found[1], [choice.strip("' ") for choice in found[2].split(",")]
        elif found := re.match(r"unrecognized arguments:.*?(--?[a-z][^\s=]*)", message):
            word, known = found[1], re.findall(r"--[a-z][a-z-]*", self.format_help())
        else:
            return ""
        if (meant := nearest_word(word, known, 0.7)) is not None:
            return f"; did you mean {meant}?"
        if word.startswith("-") and any(action.dest == "settings" for action in self._actions):
            return f"; did you mean `{self.prog} CONFIG.yaml key=value`? Configs and settings have no dashes"
        return ""


class _Version(argparse.Action):
    """Action that prints the version, which takes a moment to look up and is therefore looked up only on request."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        output.say(f"jahp {version('jahp_pl')}")
        parser.exit()


def _parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser of one command, which needs few imports, or of all commands."""
    parser = _Parser(
        prog="jahp",
        description="Learned image compression with joint autoregressive and hierarchical priors.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version, then exit")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    for name in COMMANDS if command is None else (command,):
        module = import_module(f"jahp_pl.cli.{COMMANDS[name]}")
        getattr(module, f"add_{name.replace('-', '_')}")(subparsers)
    return parser
