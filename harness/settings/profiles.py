"""Profiles: settings in layers, read from YAML and resolved for one cell, with `--set` on top.

A profile is one YAML file with the keys below, or a folder that holds the same keys in files of their own:

    base.yaml      name, summary, settings    what every cell starts from
    tasks.yaml     tasks                      what a task changes:            {task: settings}
    rewards.yaml   rewards                    what a reward changes:          {reward: settings}
    pairs.yaml     pairs                      what a reward changes on a task: {task: {reward: settings}}

**Precedence**, the later wins: the schema's default, settings, tasks, rewards, pairs, `--set`. Within a layer nothing
competes: each key is set once for each name, and the order of entries does not matter.

Names are written out; `lambada_de, lambada_es:` is one entry for both. What no entry names gets the layers above it
alone. Settings are dotted keys or nested mappings: `grpo.steps: 40` is `grpo: {steps: 40}`. A value replaces another
one whole; only below `task.options` and `reward.options` every name is a key of its own.

`inner_steps_at_least: {2: {grpo.steps: 3}}` among the settings of any entry holds where a training of the cell, the
reward's or the validation's, has at least two inner steps. It goes over the other settings of its own layer, larger
numbers over smaller ones, and later layers over it. How many steps there are is read without any such settings first:
they may change that number, but do not decide about themselves.
"""

from __future__ import annotations

import copy
import difflib
import os.path
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from harness.contracts import HarnessError, unknown
from harness.machine.files import read_text
from harness.settings.reading import plain, read_yaml
from harness.settings.schema import OPTIONS, Settings, groups, known_keys

Layer = Literal["default", "base", "task", "reward", "pair", "--set"]
CONDITION = "inner_steps_at_least"
FILES = {
    "base.yaml": ("name", "summary", "settings"),
    "tasks.yaml": ("tasks",),
    "rewards.yaml": ("rewards",),
    "pairs.yaml": ("pairs",),
}
KEYS = [key for keys in FILES.values() for key in keys]

Values = Mapping[tuple[int, str], Any]
"""(how many inner steps it takes at least, 1: always; dotted key) -> value."""


@dataclass(frozen=True)
class Origin:
    """Where a value comes from."""

    layer: Layer
    place: str = ""
    """The file, e.g. "tiny/tasks.yaml", or a file and the key in it, e.g. "mine.yaml, tasks"."""
    at_least: int = 1
    """How many inner steps it takes; 1: no condition."""

    def __str__(self) -> str:
        return (self.place or self.layer) + (f", inner steps >= {self.at_least}" if self.at_least > 1 else "")


@dataclass(frozen=True)
class Profile:
    """A profile as it was read: every key is a setting's, no value was looked at yet."""

    name: str
    summary: str
    settings: Values
    tasks: Mapping[str, Values] = field(default_factory=dict)
    rewards: Mapping[str, Values] = field(default_factory=dict)
    pairs: Mapping[tuple[str, str], Values] = field(default_factory=dict)
    """(task, reward) -> what the reward changes on this task."""
    places: Mapping[str, str] = field(default_factory=lambda: {key: key for key in KEYS})
    """Key of a profile, e.g. "tasks" -> where it stands, as in Origin.place."""

    def layers(self, task: str, reward: str) -> list[tuple[Layer, str, Values]]:
        """(layer, place, values) of what the profile says about a cell; the later wins."""
        return [
            ("base", self.places["settings"], self.settings),
            ("task", self.places["tasks"], self.tasks.get(task, {})),
            ("reward", self.places["rewards"], self.rewards.get(reward, {})),
            ("pair", self.places["pairs"], self.pairs.get((task, reward), {})),
        ]


# ------------------------------------------------------------------------------------------------------------- loading


def profile_names() -> list[str]:
    """The built-in profiles, sorted."""
    return sorted(path.parent.name for path in _built_in().glob("*/base.yaml"))


def load_profile(name: str) -> Profile:
    """A built-in profile by name, or any YAML file or folder by path. Raises HarnessError."""
    if name in profile_names():
        return _read_folder(_built_in() / name)
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        return profile_from(_read_file(path), {key: f"{path.name}, {key}" for key in KEYS}, f"The profile {name}")
    if os.path.isdir(name):
        return _read_folder(Path(name).resolve())
    raise HarnessError(unknown("profile", name, profile_names()))


def profile_from(data: Mapping[str, Any], places: Mapping[str, str] | None = None, what: str = "A profile") -> Profile:
    """A profile from plain data with the keys of a profile's file. places: where each key stands, for messages and
    origins. Raises HarnessError for unknown keys, also those of settings, and for what is set twice."""
    places = places or {key: key for key in KEYS}
    for key in data:
        if key not in KEYS:
            raise HarnessError(f"{what} holds '{_short(key)}', but takes only {', '.join(KEYS)}.")
    for key in ("name", "summary"):
        if not isinstance(data.get(key), str):
            raise HarnessError(f"{what} has no {key}; give it one, in quotes if it looks like a number.")
    if "settings" not in data:
        raise HarnessError(f"{what} has no settings; give it those that every cell starts from.")
    return Profile(
        name=data["name"],
        summary=data["summary"],
        settings=_values(data["settings"], places["settings"]),
        tasks=_layer(data.get("tasks"), places["tasks"]),
        rewards=_layer(data.get("rewards"), places["rewards"]),
        pairs=_pairs(data.get("pairs"), places["pairs"]),
        places=places,
    )


def _built_in() -> Path:
    return Path(str(resources.files("harness") / "profiles"))


def _read_folder(folder: Path) -> Profile:
    """A profile of several files; all but base.yaml may be missing."""
    data: dict[str, Any] = {}
    what = f"The profile {folder.name}"
    if not (folder / "base.yaml").is_file():
        raise HarnessError(
            f"{what} is a folder without a file base.yaml; add one with {', '.join(FILES['base.yaml'])}."
        )
    for path in sorted(folder.glob("*.y*ml")):
        if path.name not in FILES:
            raise HarnessError(f"{what} holds the file {path.name}, but takes only {', '.join(FILES)}.")
        part = _read_file(path)
        for key in part:
            if key not in FILES[path.name]:
                raise HarnessError(
                    f"{folder.name}/{path.name} holds '{_short(key)}', but takes only {', '.join(FILES[path.name])}."
                )
        data |= part
    places = {key: f"{folder.name}/{file}" for file, keys in FILES.items() for key in keys}
    return profile_from(data, places, what)


def _read_file(path: Path) -> Mapping[str, Any]:
    what = f"The profile's file {path}"
    try:
        text = read_text(path)
    except OSError as error:
        raise HarnessError(f"{what} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise HarnessError(f"{what} is not valid YAML: {str(error).splitlines()[0]}.") from error
    data = read_yaml(text, what)
    if not isinstance(data, dict):
        raise HarnessError(f"{what} must be a mapping with some of the keys {', '.join(KEYS)}.")
    return data


def _pairs(data: Any, where: str) -> dict[tuple[str, str], Values]:
    """{task: {reward: settings}} as {(task, reward): settings}."""
    found: dict[tuple[str, str], dict[tuple[int, str], Any]] = {}
    for task, rewards in _entries(data, where):
        for reward, values in _layer(rewards, f"{where}, {task}").items():
            _add(found.setdefault((task, reward), {}), values, f"{where}, {task}, {reward}")
    return found


def _layer(data: Any, where: str) -> dict[str, Values]:
    """{"a, b": settings} as {"a": settings, "b": settings}."""
    found: dict[str, dict[tuple[int, str], Any]] = {}
    for name, tree in _entries(data, where):
        _add(found.setdefault(name, {}), _values(tree, f"{where}, {name}"), f"{where}, {name}")
    return found


def _entries(data: Any, where: str) -> Iterator[tuple[str, Any]]:
    """(name, what its entry holds), a name of a task or reward at a time."""
    for names, held in _mapping(data, where).items():
        for name in str(names).split(","):  # 67 is a number to YAML
            if not name.strip():
                raise HarnessError(f"In {where}: the entry '{_short(names)}' has an empty name.")
            yield name.strip(), held


def _values(tree: Any, where: str) -> Values:
    """Nested or dotted settings, and those that wait for long trainings, as dotted keys."""
    tree = dict(_mapping(tree, where))
    waiting = _mapping(tree.pop(CONDITION, None), f"{where}, {CONDITION}")
    found: dict[tuple[int, str], Any] = {}
    for key, value in _flat(tree, where):
        _add(found, {(1, key): value}, where)
    for steps, part in waiting.items():
        text = str(steps)  # a text where the profile was written as JSON
        if not (text.isdecimal() and len(text) < 10 and int(text) > 1):
            raise HarnessError(f"In {where}: {CONDITION} takes whole numbers from 2 on, not '{_short(steps)}'.")
        inside = f"{where}, {CONDITION}, {text}"
        for key, value in _flat(_mapping(part, inside), inside):
            _add(found, {(int(text), key): value}, inside)
    return found


def _flat(tree: Mapping[Any, Any], where: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of each setting, whichever way it is written."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in groups() and isinstance(value, dict):
            yield from _flat(value, where, f"{key}.")
        else:
            _check_key(key, f"In {where}: there")
            yield key, value


def _add(found: dict[tuple[int, str], Any], values: Values, where: str) -> None:
    for at_least, key in values:
        if (at_least, key) in found:
            raise HarnessError(
                f"In {where}: {key} is set twice; set it once, since the order within a layer decides nothing."
            )
    found.update(values)


def _mapping(data: Any, where: str) -> Mapping[Any, Any]:
    """The data; nothing at all, as where every line is a comment, is an empty mapping."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise HarnessError(f"In {where}: there must be a mapping, not '{_short(data)}'.")
    return data


def _short(data: Any) -> str:
    return str(data)[:80]


# ----------------------------------------------------------------------------------------------------------- resolving


def parse_assignment(text: str) -> tuple[str, Any]:
    """`a.b=c` -> ("a.b", c) with c read as YAML. Raises HarnessError."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise HarnessError(f"--set takes KEY=VALUE (as in grpo.steps=40), not '{text[:80]}'.")
    parsed = read_yaml(value, f"The value of --set {key}")
    if isinstance(parsed, dict) and not value.lstrip().startswith("{"):
        parsed = value  # a text with a colon in it, not a mapping
    if isinstance(parsed, str):  # YAML 1.1 reads 1e-5 as a string; nobody means that
        try:
            parsed = float(parsed)
        except ValueError:
            pass
    return key.strip(), plain(parsed, f"The value of --set {key}")


def resolve(profile: Profile, task: str, reward: str, assignments: Mapping[str, Any] | None = None) -> Settings:
    """The settings of one (task, reward) cell. Raises HarnessError for unknown keys, wrong types and ranges."""
    return _resolved(profile, task, reward, assignments or {})[0]


def origins(
    profile: Profile, task: str, reward: str, assignments: Mapping[str, Any] | None = None
) -> dict[str, Origin]:
    """Where each value of `resolve` comes from: dotted key -> Origin, for every setting of the schema and for every
    option of task and reward that is set. Raises HarnessError as `resolve` does."""
    return _resolved(profile, task, reward, assignments or {})[1]


def _resolved(profile: Profile, task: str, reward: str, given: Mapping[str, Any]) -> tuple[Settings, dict[str, Origin]]:
    if "inner.optimizer.lr" in given:  # said by hand, it stands against the profile's total_lr
        given = {"inner.optimizer.total_lr": None} | given
    for key in given:
        _check_key(key, "There")

    def with_conditions(longest: int) -> tuple[Settings, dict[str, Origin]]:
        tree: dict[str, Any] = {}
        found = {key: Origin("default") for key in known_keys() if key not in OPTIONS}
        said = [*_said(profile, task, reward, longest), *((Origin("--set"), key, given[key]) for key in given)]
        for origin, key, value in said:
            _assign(tree, key, value)
            names = [f"{key}.{name}" for name in value] if key in OPTIONS and isinstance(value, Mapping) else [key]
            found = {old: each for old, each in found.items() if not old.startswith(f"{key}.")}
            found |= dict.fromkeys(names, origin)
        return _validated(tree), found

    settings, found = with_conditions(1)
    longest = max(settings.inner.steps, settings.validation.inner_steps or 1)
    return (settings, found) if longest == 1 else with_conditions(longest)


def _said(profile: Profile, task: str, reward: str, longest: int) -> Iterator[tuple[Origin, str, Any]]:
    """What the profile says about a cell whose longest training has so many inner steps; the later wins."""
    for layer, place, values in profile.layers(task, reward):
        for (at_least, key), value in sorted(values.items(), key=lambda item: item[0][0]):
            if at_least <= longest:
                yield Origin(layer, place, at_least), key, value


def _check_key(key: str, there: str) -> None:
    """Keys below `options` are the task's or the reward's own and are checked by harness.settings.options."""
    if key in known_keys() or key.startswith(tuple(f"{options}." for options in OPTIONS)):
        return
    near = difflib.get_close_matches(key[:80], known_keys(), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`python -m harness list --settings` shows all."
    raise HarnessError(f"{there} is no setting named '{_short(key)}'; {hint}")


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key."""
    *path, last = key.split(".")
    node = tree
    for part in path:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise HarnessError(f"The setting '{key}' goes below '{part}', which is a single value.")
    node[last] = copy.deepcopy(value)  # what later keys change below it is not the profile's


def _validated(tree: dict[str, Any]) -> Settings:
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "settings"
        given = "" if isinstance(first.get("input"), dict) else f" (given: {repr(first.get('input'))[:200]})"
        more = f" And {error.error_count() - 1} more." if error.error_count() > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        raise HarnessError(f"Bad setting {place}: {message}{given}.{more}") from error
