"""Profiles: settings in layers, read from YAML and resolved for one cell, with `--set` on top.

A profile is one YAML file with the keys below, or a folder that holds the same keys in files of their own:

    base.yaml      name, summary, settings    what every cell starts from
                   extends                    another profile that this one changes: a name, or a path from here
                   tuning                     {seeds, trials}: what `tune` runs on, and `run` does not
                   tuned                      a file that `tune` wrote, as a path from here
    tasks.yaml     tasks                      what a task changes:            {task: settings}
    rewards.yaml   rewards                    what a reward changes:          {reward: settings}
    pairs.yaml     pairs                      what a reward changes on a task: {task: {reward: settings}}

**Precedence**, the later wins: the schema's default, settings, tasks, rewards, pairs, tuned, `--set`. Within a layer
nothing competes: each key is set once for each name, and the order of entries does not matter.

With `extends: tiny` a profile holds only what it changes: all that it says, in whichever layer, goes over all that the
other one says, as `--set` would. It may extend one that extends another. Its name is then its file's, unless it says.

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
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.contracts import HarnessError, unknown
from harness.machine.files import read_text
from harness.registry import DEFINITION, TASKS
from harness.settings.reading import plain, read_yaml
from harness.settings.schema import OPTIONS, Seed, Settings, groups, known_keys, required_keys
from harness.settings.variants import Several, parse_values

Layer = Literal["default", "base", "task", "reward", "pair", "tuned", "--set"]
CONDITION = "inner_steps_at_least"
DEFAULT = "tiny"
"""The profile that commands take, and that messages propose to extend."""
RATE, TOTAL_RATE = "inner.optimizer.lr", "inner.optimizer.total_lr"
FILES = {
    "base.yaml": ("name", "summary", "extends", "settings", "tuning", "tuned"),
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


class Tuning(BaseModel):
    """What `tune` runs trials on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: tuple[Seed, ...] = Field((), max_length=1000)
    """Seeds that settings are chosen on: results that are shown are of others, so that nothing is chosen by them."""
    trials: int = Field(14, ge=1, le=1000)
    """Trials of every reward; the paper tried up to 14 learning rates."""


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

    extends: Profile | None = None
    """What this one goes over."""
    tuning: Tuning = Tuning()
    tuned: Mapping[tuple[str, str], Values] = field(default_factory=dict)
    """(task, reward) -> what was chosen by `tune`."""

    def chain(self) -> list[Profile]:
        """The profile that the others go over, ..., this one."""
        return [*(self.extends.chain() if self.extends else []), self]

    def layers(self, task: str, reward: str) -> list[tuple[Layer, str, Values]]:
        """(layer, place, values) of what the profile says about a cell; the later wins."""
        return [layer for each in self.chain() for layer in each.own_layers(task, reward)]

    def own_layers(self, task: str, reward: str) -> list[tuple[Layer, str, Values]]:
        """The same without what it extends."""
        return [
            ("base", self.places["settings"], self.settings),
            ("task", self.places["tasks"], self.tasks.get(task, {})),
            ("reward", self.places["rewards"], self.rewards.get(reward, {})),
            ("pair", self.places["pairs"], self.pairs.get((task, reward), {})),
            ("tuned", self.places["tuned"], self.tuned.get((task, reward), {})),
        ]


# ------------------------------------------------------------------------------------------------------------- loading


def profile_names() -> list[str]:
    """The built-in profiles, sorted."""
    return sorted(path.parent.name for path in _built_in().glob("*/base.yaml"))


def load_profile(name: str) -> Profile:
    """A built-in profile by name, or any YAML file or folder by path. Raises HarnessError."""
    return _load(name, ())


def _load(name: str, extending: tuple[str, ...]) -> Profile:
    """`extending`: real paths of the profiles that are being read and extend this one, the first one first."""
    if name in profile_names():
        return _read_folder(_built_in() / name, extending)
    if "\0" not in name and name.endswith((".yaml", ".yml")):
        path = Path(name)
        places = {key: f"{path.name}, {key}" for key in KEYS}
        return _profile(_read_file(path), places, f"The profile {name}", path, extending, _Faults())
    if os.path.isdir(name):
        return _read_folder(Path(name).resolve(), extending)
    raise HarnessError(unknown("profile", name[:200], profile_names()))


def profile_from(data: Mapping[str, Any], places: Mapping[str, str] | None = None, what: str = "A profile") -> Profile:
    """A profile from plain data with the keys of a profile's file. places: where each key stands, for messages and
    origins. Raises HarnessError with every fault: unknown keys, also those of settings, what is set twice, what is
    missing."""
    return _profile(data, places or {key: key for key in KEYS}, what, None, (), _Faults())


class _Faults(list[str]):
    """What is wrong with a profile, a sentence each: all of it is told at once."""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A HarnessError inside is a fault, and reading goes on."""
        try:
            yield
        except HarnessError as error:
            self.append(str(error))

    def check(self) -> None:
        if self:
            raise HarnessError(" ".join(dict.fromkeys(self)))


def _profile(
    data: Mapping[str, Any],
    places: Mapping[str, str],
    what: str,
    path: Path | None,
    extending: tuple[str, ...],
    faults: _Faults,
) -> Profile:
    """`path`: the file or folder that the data is from."""
    faults += [f"{what} holds '{_short(key)}', but takes only {', '.join(KEYS)}." for key in data if key not in KEYS]
    below = None
    if "extends" in data:
        with faults.kept():
            below = _extended(data["extends"], what, path, extending)
    given = {key: data[key] for key in ("name", "summary", "settings") if key in data}
    if "extends" in data:  # what may be left out then
        usual = {"summary": f"{below.name}, changed" if below else "", "settings": None}
        given = ({"name": path.stem if path.is_file() else path.name} if path else {}) | usual | given
    missing = [key for key in ("name", "summary") if not isinstance(given.get(key), str)]
    missing += [] if "settings" in given else ["settings"]
    if missing:
        faults.append(
            f"{what} has no {' and no '.join(missing)}; give it what is missing (a name or summary that looks like a "
            f"number in quotes), or let it say `extends: {DEFAULT}` and hold only what it changes."
        )
    settings = _values(given.get("settings"), places["settings"], faults)
    tasks = _layer(data.get("tasks"), places["tasks"], faults)
    rewards = _layer(data.get("rewards"), places["rewards"], faults)
    pairs = _pairs(data.get("pairs"), places["pairs"], faults)
    tuning, tuned = below.tuning if below else Tuning(), {}
    with faults.kept():
        tuning = _tuning(data["tuning"], what) if "tuning" in data else tuning
    if "tuned" in data:
        with faults.kept():
            tuned = _chosen(_beside(data["tuned"], path, what))
    faults.check()
    if below:
        settings = _against_total_rate(settings)
        tasks, rewards, pairs = (
            {key: _against_total_rate(values) for key, values in layer.items()} for layer in (tasks, rewards, pairs)
        )
    return Profile(
        given["name"], given["summary"], settings, tasks, rewards, pairs, places, below, tuning=tuning, tuned=tuned
    )


def settings_layer(tree: Any, where: str) -> Values:
    """Settings as a profile has them, nested or dotted, from another file. Raises HarnessError with every fault."""
    faults = _Faults()
    found = _values(tree, where, faults)
    faults.check()
    return found


def with_tuned(profile: Profile, path: Path) -> Profile:
    """The profile with what a file of `tune` chose over it. Raises HarnessError, also where the file is of another
    profile."""
    of = tuned_data(path)["profile"]
    if of != profile.name:
        raise HarnessError(f"{path} was tuned for the profile {of}, not for {profile.name}; tune this one.")
    return replace(
        profile, tuned=dict(profile.tuned) | _chosen(path), places=dict(profile.places) | {"tuned": path.name}
    )


def tuned_data(path: Path) -> Mapping[str, Any]:
    """What a file of `tune` holds: `profile`, `pairs` (what was chosen, as in a profile) and `trials` (what was tried,
    harness/tuning/outcome.py). Raises HarnessError."""
    data = _read_file(path)
    if not isinstance(data.get("profile"), str) or set(data) - {"profile", "pairs", "trials"}:
        raise HarnessError(f"{path} is no file of `python -m harness tune`: it holds profile, pairs and trials.")
    return data


def _chosen(path: Path) -> dict[tuple[str, str], Values]:
    faults = _Faults()
    found = _pairs(tuned_data(path).get("pairs"), f"{path.name}, pairs", faults)
    faults.check()
    return {pair: _against_total_rate(values) for pair, values in found.items()}


def _tuning(data: Any, what: str) -> Tuning:
    try:
        return Tuning.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("tuning", *first["loc"])))
        raise HarnessError(f"{what} has a bad {place}: {first['msg']}; it takes seeds and trials.") from error


def _beside(name: Any, path: Path | None, what: str) -> Path:
    """A file that a profile names: as it is, or from the profile's place."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise HarnessError(f"{what} says `tuned: {_short(name)}`; name a file that `python -m harness tune` wrote.")
    if path is None:
        return Path(name)
    return (path if path.is_dir() else path.parent) / name


def _extended(name: Any, what: str, path: Path | None, extending: tuple[str, ...]) -> Profile:
    """The profile that `extends: name` means in the profile `what`."""
    if not isinstance(name, str):
        raise HarnessError(f"{what} extends '{_short(name)}'; name one profile, or a path of one.")
    here = os.path.realpath(path) if path else ""
    found = name
    if path is not None and name not in profile_names():
        beside = str((path if path.is_dir() else path.parent) / name)
        found = beside if os.path.exists(beside) or name.endswith((".yaml", ".yml")) else name
    chain = (*extending, here)
    if os.path.exists(found) and (place := os.path.realpath(found)) in chain:
        names = " -> ".join(os.path.basename(each) for each in (*chain[chain.index(place) :], place))
        raise HarnessError(f"{what} extends itself ({names}); take one `extends` out.")
    try:
        return _load(found, chain)
    except HarnessError as error:
        own = str(error).startswith("The profile")  # it says already which one it is about
        raise HarnessError(str(error) if own else f"{what} extends it: {error}") from error


def _against_total_rate(values: Values) -> Values:
    """A rate that is said stands against the total rate of what is extended, as one of `--set` does."""
    rates = {at_least for at_least, key in values if key == RATE}
    return {(at_least, TOTAL_RATE): None for at_least in rates} | dict(values)


def _built_in() -> Path:
    return Path(str(resources.files("harness") / "profiles"))


def _read_folder(folder: Path, extending: tuple[str, ...]) -> Profile:
    """A profile of several files; all but base.yaml may be missing."""
    data: dict[str, Any] = {}
    what = f"The profile {folder.name}"
    if not (folder / "base.yaml").is_file():
        raise HarnessError(
            f"{what} is a folder without a file base.yaml; add one with {', '.join(FILES['base.yaml'])}."
        )
    faults = _Faults()
    for path in sorted(folder.glob("*.y*ml")):
        if path.name not in FILES:
            faults.append(f"{what} holds the file {path.name}, but takes only {', '.join(FILES)}.")
            continue
        part, takes = _read_file(path), FILES[path.name]
        where = f"{folder.name}/{path.name}"
        odd = [key for key in part if key not in takes]
        faults += [f"{where} holds '{_short(key)}', but takes only {', '.join(takes)}." for key in odd]
        data |= {key: value for key, value in part.items() if key in takes}
    places = {key: f"{folder.name}/{file}" for file, keys in FILES.items() for key in keys}
    return _profile(data, places, what, folder, extending, faults)


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


def _pairs(data: Any, where: str, faults: _Faults) -> dict[tuple[str, str], Values]:
    """{task: {reward: settings}} as {(task, reward): settings}."""
    found: dict[tuple[str, str], dict[tuple[int, str], Any]] = {}
    for task, rewards in _entries(data, where, faults):
        for reward, values in _layer(rewards, f"{where}, {task}", faults).items():
            _add(found.setdefault((task, reward), {}), values, f"{where}, {task}, {reward}", faults)
    return found


def _layer(data: Any, where: str, faults: _Faults) -> dict[str, Values]:
    """{"a, b": settings} as {"a": settings, "b": settings}."""
    found: dict[str, dict[tuple[int, str], Any]] = {}
    for name, tree in _entries(data, where, faults):
        _add(found.setdefault(name, {}), _values(tree, f"{where}, {name}", faults), f"{where}, {name}", faults)
    return found


def _entries(data: Any, where: str, faults: _Faults) -> Iterator[tuple[str, Any]]:
    """(name, what its entry holds), a name of a task or reward at a time."""
    for names, held in _mapping(data, where, faults).items():
        for name in str(names).split(","):  # 67 is a number to YAML
            if name.strip():
                yield name.strip(), held
            else:
                faults.append(f"In {where}: the entry '{_short(names)}' has an empty name.")


def _values(tree: Any, where: str, faults: _Faults) -> Values:
    """Nested or dotted settings, and those that wait for long trainings, as dotted keys."""
    tree = dict(_mapping(tree, where, faults))
    waiting = _mapping(tree.pop(CONDITION, None), f"{where}, {CONDITION}", faults)
    found: dict[tuple[int, str], Any] = {}
    for key, value in _flat(tree, where, faults):
        _add(found, {(1, key): value}, where, faults)
    for steps, part in waiting.items():
        text = str(steps)  # a text where the profile was written as JSON
        if not (text.isdecimal() and len(text) < 10 and int(text) > 1):
            faults.append(f"In {where}: {CONDITION} takes whole numbers from 2 on, not '{_short(steps)}'.")
            continue
        inside = f"{where}, {CONDITION}, {text}"
        for key, value in _flat(_mapping(part, inside, faults), inside, faults):
            _add(found, {(int(text), key): value}, inside, faults)
    return found


def _flat(tree: Mapping[Any, Any], where: str, faults: _Faults, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of each setting, whichever way it is written."""
    for name, value in tree.items():
        key = f"{prefix}{name}"
        if key in groups() and isinstance(value, dict):
            yield from _flat(value, where, faults, f"{key}.")
            continue
        with faults.kept():
            _check_key(key, f"In {where}: there")
        yield key, value


def _add(found: dict[tuple[int, str], Any], values: Values, where: str, faults: _Faults) -> None:
    for at_least, key in values:
        if (at_least, key) in found:
            faults.append(
                f"In {where}: {key} is set twice; set it once, since the order within a layer decides nothing."
            )
    found.update(values)


def _mapping(data: Any, where: str, faults: _Faults) -> Mapping[Any, Any]:
    """The data; nothing at all, as where every line is a comment, is an empty mapping."""
    if data is None or isinstance(data, dict):
        return data or {}
    faults.append(f"In {where}: there must be a mapping, not '{_short(data)}'.")
    return {}


def _short(data: Any) -> str:
    return str(data)[:80]


# ----------------------------------------------------------------------------------------------------------- resolving


def parse_assignment(text: str) -> tuple[str, Any]:
    """`a.b=c` -> ("a.b", c) with c read as YAML; `a.b=c,d` -> ("a.b", Several(c, d)), which `run` compares (see
    harness/settings/variants.py). Raises HarnessError."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise HarnessError(f"--set takes KEY=VALUE (as in grpo.steps=40), not '{text[:80]}'.")
    return key.strip(), parse_values(value, lambda part: _parsed(key, part))


def _parsed(key: str, value: str) -> Any:
    parsed = read_yaml(value, f"The value of --set {key}")
    if isinstance(parsed, dict) and not value.lstrip().startswith("{"):
        parsed = value  # a text with a colon in it, not a mapping
    if isinstance(parsed, str):  # YAML 1.1 reads 1e-5 as a string; nobody means that
        try:
            parsed = float(parsed)
        except ValueError:
            pass
    return plain(parsed, f"The value of --set {key}")


def resolve(profile: Profile, task: str, reward: str, assignments: Mapping[str, Any] | None = None) -> Settings:
    """The settings of one (task, reward) cell. Raises HarnessError for unknown keys, wrong types and ranges."""
    return _resolved(profile, task, reward, assignments or {})[0]


def origins(
    profile: Profile, task: str, reward: str, assignments: Mapping[str, Any] | None = None
) -> dict[str, Origin]:
    """Where each value of `resolve` comes from: dotted key -> Origin, for every setting of the schema and for every
    option of task and reward that is set. Raises HarnessError as `resolve` does."""
    return _resolved(profile, task, reward, assignments or {})[1]


def changed(settings: Settings, assignments: Mapping[str, Any]) -> Settings:
    """Resolved settings, such as a record's, with `--set` over them. Raises HarnessError as `resolve` does."""
    tree = settings.model_dump()
    for key, value in assignments.items():
        _check_assignment(key, value)
        _assign(tree, key, value)
    return _validated(tree, "of the record")


def _check_assignment(key: str, value: Any) -> None:
    _check_key(key, "There")
    if isinstance(value, Several):
        raise HarnessError(f"--set {key} takes one value here; only `run` compares several.")


def _resolved(profile: Profile, task: str, reward: str, given: Mapping[str, Any]) -> tuple[Settings, dict[str, Origin]]:
    if RATE in given:  # said by hand, it stands against the profile's total rate
        given = {TOTAL_RATE: None} | given
    faults = _Faults()
    for key, value in given.items():
        with faults.kept():
            _check_assignment(key, value)
    faults.check()

    def with_conditions(longest: int) -> tuple[Settings, dict[str, Origin]]:
        tree: dict[str, Any] = {}
        found = {key: Origin("default") for key in known_keys() if key not in OPTIONS}
        said = [*_said(profile, task, reward, longest), *((Origin("--set"), key, given[key]) for key in given)]
        for origin, key, value in said:
            _assign(tree, key, value)
            names = [f"{key}.{name}" for name in value] if key in OPTIONS and isinstance(value, Mapping) else [key]
            found = {old: each for old, each in found.items() if not old.startswith(f"{key}.")}
            found |= dict.fromkeys(names, origin)
        return _validated(tree, profile.name), found

    settings, found = with_conditions(1)
    longest = max(settings.inner.steps, settings.validation.inner_steps or 1)
    return (settings, found) if longest == 1 else with_conditions(longest)


def _said(profile: Profile, task: str, reward: str, longest: int) -> Iterator[tuple[Origin, str, Any]]:
    """What the profile says about a cell whose longest training has so many inner steps; the later wins. What a
    target's file sets goes over the first profile's settings for all tasks, and everything else over that."""
    layers = profile.layers(task, reward)
    entry = TASKS.find(task)
    if entry and (made := entry.made_of):
        said = {(1, f"task.options.{DEFINITION}"): dict(made.definition)}
        layers.insert(1, ("task", f"{made.place or made.name}, settings", {**made.settings, **said}))
    for layer, place, values in layers:
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


def _validated(tree: dict[str, Any], profile: str) -> Settings:
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise HarnessError(" ".join(_explained(error, profile))) from error


def _explained(error: ValidationError, profile: str) -> Iterator[str]:
    """A sentence for what the profile lacks and one for every value that is wrong."""
    missing = [".".join(map(str, one["loc"])) for one in error.errors() if one["type"] == "missing"]
    lacks = [key for key in required_keys() if any(key == name or key.startswith(f"{name}.") for name in missing)]
    if lacks:
        yield (
            f"The profile {profile} lacks {', '.join(lacks)}; add them, or let it say `extends: {DEFAULT}` and hold "
            "only what it changes."
        )
    for one in error.errors():
        if one["type"] != "missing":
            place = ".".join(map(str, one["loc"])) or "settings"
            given = "" if isinstance(one.get("input"), dict) else f" (given: {repr(one.get('input'))[:200]})"
            yield f"Bad setting {place}: {one['msg'].removeprefix('Value error, ')}{given}."
