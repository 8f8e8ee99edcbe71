"""YAML text -> plain data, with one sentence for whatever is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from harness.contracts import HarnessError
from harness.machine.files import read_text

MOST_TEXT = 2**20
"""Characters of a profile's file; the longest here has ten thousand."""
MOST_NODES = 100_000
"""Values in it: a few aliases of aliases stand for more than any memory holds."""


def read_yaml_file(path: Path, what: str) -> Any:
    """The same of a file. Raises HarnessError where it cannot be read, too."""
    try:
        return read_yaml(read_text(path), what)
    except OSError as error:
        raise HarnessError(f"{what} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise HarnessError(f"{what} is not valid YAML: {str(error).splitlines()[0]}.") from error


def explained(error: ValidationError) -> str:
    """What is wrong first, and where."""
    first = error.errors()[0]
    place, why = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    return f"{place}: {why}" if place else why


def read_yaml(text: str, what: str) -> Any:
    """Plain data: what JSON can hold too, since that is how settings are stored. Raises HarnessError, also where a
    mapping has a key twice (YAML would keep the last one and say nothing)."""
    if len(text) > MOST_TEXT:
        raise HarnessError(f"{what} has {len(text):,} characters, and at most {MOST_TEXT:,} are read; make it smaller.")
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None and _size(node, {}) > MOST_NODES:
            raise HarnessError(f"{what} holds more than {MOST_NODES:,} values with its aliases (*) written out.")
        data = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, AttributeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        raise HarnessError(f"{what} is not valid YAML: {first}{place}.") from error
    return plain(data, what)


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in the node with every alias written out; no more than MOST_NODES + 1 are counted. A node that holds
    itself has no end."""
    if id(node) not in known:
        known[id(node)] = MOST_NODES + 1
        inner = node.value if isinstance(node, yaml.SequenceNode) else []
        inner = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else inner
        known[id(node)] = min(MOST_NODES + 1, 1 + sum(_size(each, known) for each in inner))
    return known[id(node)]


def plain(data: Any, what: str) -> Any:
    """The data as it is. Raises HarnessError where JSON could not hold it."""
    try:
        json.dumps(data, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise HarnessError(
            f"{what} holds something that is no plain text, finite number, list or mapping ({error}); quote "
            f"dates and the like."
        ) from error
    return data


class _Loader(yaml.SafeLoader):
    """The safe loader; a key that stands twice in one mapping is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":  # `<<` merges another mapping in
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"'{key.value}' stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)
