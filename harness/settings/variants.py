"""Comparing settings: several values of one setting make variants, and variants are named by what differs.

    --set grpo.lr=1e-4,3e-4             two variants, "lr 1e-4" and "lr 3e-4"
    --set grpo.betas=[0.9,0.99]         one value that is a list
    --set 'generator.prompt="a, b"'     one text: quoted, or with a space in it

Several settings with several values make every combination. Names hold for stored cells too, whichever command ran
them: of cells of one task and reward they say the settings that are not the same in all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from functools import cache, lru_cache
from itertools import product
from typing import Any

from harness.settings.schema import OPTIONS, Settings, known_keys, neutral_keys

QUICK = "quick"
"""How the variant of a cell of a quick run begins: no table shows one without saying so."""
MOST_NAMED = 3
"""Settings that a variant's name says; of more, their number."""
LONGEST = 32
"""Characters of a value in a name."""
_WORD = re.compile(r"[\w.:/@+~-]+")


class Several(tuple[Any, ...]):
    """Values of one setting of which each makes a variant; what is a list in YAML is one value."""


def parse_values(text: str, parse: Callable[[str], Any]) -> Any:
    """`text` parsed as one value, or as `Several` where commas outside of brackets and quotes separate them: numbers,
    lists and the like, and words without spaces."""
    parts = [part.strip() for part in _parts(text)]
    if len(parts) < 2 or not all(parts):
        return parse(text)
    values = [parse(part) for part in parts]
    words = [part for part, value in zip(parts, values, strict=True) if isinstance(value, str) and part[0] not in "\"'"]
    if words and (re.search(r"\s", text) or not all(map(_WORD.fullmatch, words))):
        return parse(text)
    different = {_key(value): value for value in values}
    return Several(different.values()) if len(different) > 1 else values[0]


def _parts(text: str) -> list[str]:
    """`text` cut at the commas that stand in no brackets and no quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{(":
            depth += 1
        elif character in "]})":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


def combinations(given: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(name, assignments) of every combination of what is `Several`; one without a name where nothing is."""
    axes = {key: value for key, value in given.items() if isinstance(value, Several)}
    chosen = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    return [(name_of(values), {**given, **values}) for values in chosen]


# ------------------------------------------------------------------------------------------------------ stored settings


def known_part(settings: Mapping[str, Any], gone: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """What the schema still knows of stored settings; the rest goes into `gone` under dotted names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        key = f"{prefix}{name}"
        if key in known_keys():
            found[name] = value
        elif isinstance(value, dict) and any(known.startswith(f"{key}.") for known in known_keys()):
            found[name] = known_part(value, gone, f"{key}.")
        else:
            gone[key] = value
    return found


def dotted(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Stored settings as dotted keys with plain values: what was not stored at its default, what the schema no longer
    knows as it was stored."""
    return dict(_dotted(json.dumps(stored)))


@lru_cache(maxsize=1024)
def _dotted(stored: str) -> dict[str, Any]:
    """The same of JSON: the cells of a grid that differ in the seed alone have the same."""
    settings: dict[str, Any] = json.loads(stored)
    gone: dict[str, Any] = {}
    try:
        known = Settings.model_validate(known_part(settings, gone)).model_dump(mode="json")
    except ValueError:
        known, gone = settings, {}
    return _flat(known) | gone


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if isinstance(value, dict) and (key in OPTIONS or key not in known_keys()):
            found |= _flat(value, f"{key}.")
        else:
            found[key] = value
    return found


def varying(views: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys whose values are not the same in all `views` (`dotted`), in the schema's order."""
    keys = {key for view in views for key in view}
    differ = [key for key in keys if len({_key(view.get(key)) for view in views}) > 1]
    return sorted(differ, key=lambda key: (_place(key), key))


def names(views: Mapping[Hashable, Mapping[str, Any]]) -> dict[Any, str]:
    """A name for each of several sets of settings (`dotted`) by what differs between them and changes numbers: "" for a
    single one. Where names do not tell them apart, as where nothing but an asset's content differs, the key of the set
    is added."""
    differ = [key for key in varying(list(views.values())) if key not in neutral_keys()]
    found = {key: name_of({name: view.get(name) for name in differ}) for key, view in views.items()}
    if len(set(found.values())) < len(found):
        found = {key: ", ".join(filter(None, (name, f"settings {key}"))) for key, name in found.items()}
    return found


# --------------------------------------------------------------------------------------------------------------- naming


def name_of(values: Mapping[str, Any]) -> str:
    """Dotted keys and their values as a variant's name: "lr 3e-4, steps 40"."""
    said = [f"{short_key(key)} {short_value(value)}" for key, value in list(values.items())[:MOST_NAMED]]
    more = len(values) - MOST_NAMED
    return ", ".join([*said, f"{more} more"] if more > 0 else said)


@cache
def short_key(key: str) -> str:
    """The end of a dotted key that is enough: of all settings with that end it is the first. `grpo.lr` is "lr", the
    inner training's is "optimizer.lr"; an option is called by its own name."""
    for group in OPTIONS:
        if key.startswith(f"{group}."):
            return key.removeprefix(f"{group}.")
    parts = key.split(".")
    ends = [".".join(parts[-count:]) for count in range(1, len(parts))]
    return next((end for end in ends if _first_with(end) == key), key)


def _first_with(end: str) -> str:
    return next((key for key in known_keys() if key.endswith(f".{end}")), "")


def short_value(value: Any) -> str:
    """A value in a name: numbers as people write them (3e-4), the last part of a path, long texts cut."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(short_value, value))}]"
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    text = " ".join(text.split())
    if "/" in text and " " not in text:
        text = text.rstrip("/").rsplit("/", 1)[-1]
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _number(value: float) -> str:
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.6g}"
    digits, _, exponent = f"{value:.5e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(exponent)}"


def _key(value: Any) -> str:
    """Values that are the same have the same: 1 and 1.0, a list and a tuple."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return repr(float(value))
    return json.dumps(value, sort_keys=True, default=str)


def _place(key: str) -> int:
    """The key's place in the schema; options and what is no longer there come last."""
    return known_keys().index(key) if key in known_keys() else len(known_keys())


def columns(views: Mapping[Hashable, Iterable[Mapping[str, Any]]]) -> list[str]:
    """Of groups of cells that differ in settings alone, every key that varies within one."""
    found = {key for group in views.values() for key in varying(list(group))}
    return sorted(found, key=lambda key: (_place(key), key))


def column(values: Sequence[Any]) -> list[Any]:
    """A setting's values as a table's column of one type: numbers as they are, else texts; None where there is none."""
    numbers = all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values)
    truths = all(isinstance(value, bool) for value in values)
    if numbers or truths:
        return list(values)
    return [value if isinstance(value, str) or value is None else json.dumps(value) for value in values]
