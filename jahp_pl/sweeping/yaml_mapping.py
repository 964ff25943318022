"""Reads a YAML file strictly, with errors of one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from jahp_pl.errors import first_line
from jahp_pl.files import yaml_content
from jahp_pl.sweeping import SweepError

_MERGE = "tag:yaml.org,2002:merge"  # tag of `<<`, which may occur more than once in a mapping

_MAX_BITS = 8192
"""Maximum size of a whole number; messages print these, but Python prints none of more than 4300 digits."""


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file as a mapping.

    Raises:
        SweepError: if it cannot be read, is not a mapping, or gives a key twice; the message lacks the path.
    """
    try:
        content = yaml.load(yaml_content.read(path), _Loader)
    except FileNotFoundError:
        raise SweepError("no such sweep file; check the path") from None
    except RecursionError:
        raise SweepError("cannot be read as YAML: it is nested too deeply; see sweeps/ for examples") from None
    except SweepError:
        raise
    except OSError as error:
        raise SweepError(f"cannot be read ({first_line(error)}); check the path") from None
    except (ValueError, ArithmeticError, yaml.YAMLError) as error:  # PyYAML lets errors of Python's parsers through
        raise SweepError(f"cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SweepError("is not a mapping; write it as in the files under sweeps/")
    return content


class _Loader(yaml.SafeLoader):
    """YAML loader that refuses duplicate keys; PyYAML itself would silently keep the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            name = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if name in seen:
                raise SweepError(f"{key.value}: is given twice, again in line {key.start_mark.line + 1}; keep one")
            if name is not None and key.tag != _MERGE:
                seen.add(name)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError) as error:  # e.g. from an invalid date or tag
            kind = node.tag.rsplit(":", 1)[-1]
            raise yaml.constructor.ConstructorError(
                None, None, f"{node.value} is not a valid {kind} ({error}); quote it if it is a word", node.start_mark
            ) from None
        if isinstance(value, int) and value.bit_length() > _MAX_BITS:
            reason = "a whole number has thousands of digits; write fewer"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark)
        return value
