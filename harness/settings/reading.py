"""YAML text -> plain data, with one sentence for whatever is wrong with it."""

from __future__ import annotations

import json
from typing import Any

import yaml

from harness.contracts import HarnessError


def read_yaml(text: str, what: str) -> Any:
    """Plain data: what JSON can hold too, since that is how settings are stored. Raises HarnessError, also where a
    mapping has a key twice (YAML would keep the last one and say nothing)."""
    try:
        data = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, AttributeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        mark = getattr(error, "problem_mark", None)
        place = f" (line {mark.line + 1})" if mark else ""
        raise HarnessError(f"{what} is not valid YAML: {first}{place}.") from error
    return plain(data, what)


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
