"""Profiles: read, resolved for one cell, `--set` on top."""

from __future__ import annotations

import difflib
import fnmatch
import json
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from harness.contracts import HarnessError, unknown
from harness.settings.schema import Section, Settings


class When(Section):
    task: str = "*"
    reward: str = "*"
    # Applies where a training, a reward's or the validation's, has at least so many inner steps.
    inner_steps: int = Field(1, ge=1)

    def names_task(self, name: str) -> bool:
        return fnmatch.fnmatchcase(name, self.task)

    def names_reward(self, name: str) -> bool:
        return fnmatch.fnmatchcase(name, self.reward)


class Override(Section):
    when: When
    set: dict[str, Any]


class Profile(Section):
    name: str
    summary: str
    settings: dict[str, Any]
    overrides: list[Override] = []


# ------------------------------------------------------------------------------------------------------------- loading


def profile_names() -> list[str]:
    """The built-in profiles, sorted."""
    folder = resources.files("harness") / "profiles"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def load_profile(name: str) -> Profile:
    """A built-in profile by name, or any YAML file by path. Raises HarnessError."""
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
    elif name in profile_names():
        path = Path(str(resources.files("harness") / "profiles" / f"{name}.yaml"))
    else:
        raise HarnessError(unknown("profile", name, profile_names()))
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise HarnessError(f"The profile {name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise HarnessError(f"The profile {name} is not valid YAML: {str(error).splitlines()[0]}.") from error
    data = _read_yaml(text, f"The profile {name}")
    if not isinstance(data, dict):
        raise HarnessError(f"The profile {name} must be a mapping with name, summary, settings and overrides.")
    return _validated(Profile, data, f"profile {name}")


def parse_assignment(text: str) -> tuple[str, Any]:
    """`a.b=c` -> ("a.b", c) with c read as YAML. Raises HarnessError."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise HarnessError(f"--set takes KEY=VALUE (as in grpo.steps=40), not '{text[:80]}'.")
    parsed = _read_yaml(value, f"The value of --set {key}")
    if isinstance(parsed, dict) and not value.lstrip().startswith("{"):
        parsed = value  # a text with a colon in it, not a mapping
    if isinstance(parsed, str):  # YAML 1.1 reads 1e-5 as a string; nobody means that
        try:
            parsed = float(parsed)
        except ValueError:
            pass
    return key.strip(), _plain(parsed, f"The value of --set {key}")


def _read_yaml(text: str, what: str) -> Any:
    """Plain data: what JSON can hold too, since that is how settings are stored. Raises HarnessError."""
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, AttributeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HarnessError(f"{what} is not valid YAML: {first}.") from error
    return _plain(data, what)


def _plain(data: Any, what: str) -> Any:
    try:
        json.dumps(data, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise HarnessError(
            f"{what} holds something that is no plain text, finite number, list or mapping ({error}); quote "
            f"dates and the like."
        ) from error
    return data


def resolve(profile: Profile, task: str, reward: str, assignments: dict[str, Any] | None = None) -> Settings:
    """The settings of one (task, reward) cell. Raises HarnessError for unknown keys, wrong types and ranges."""
    given = assignments or {}
    if "inner.optimizer.lr" in given:  # said by hand, it stands against the profile's total_lr
        given = {"inner.optimizer.total_lr": None} | given

    def with_overrides(longest: int) -> Settings:
        tree = _deep_copy(profile.settings)
        for override in profile.overrides:
            when = override.when
            if when.names_task(task) and when.names_reward(reward) and when.inner_steps <= longest:
                for key, value in override.set.items():
                    _assign(tree, key, value)
        for key, value in given.items():
            _assign(tree, key, value)
        return _validated(Settings, tree, "settings")

    settings = with_overrides(1)
    longest = max(settings.inner.steps, settings.validation.inner_steps or 1)
    return settings if longest == 1 else with_overrides(longest)


def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Every dotted key that `--set` takes."""
    keys = []
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys += known_keys(annotation, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _assign(tree: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key; keys below `options` are the task's or the reward's own and are not checked here."""
    *path, last = key.split(".")
    free = len(path) >= 2 and path[:2] in (["task", "options"], ["reward", "options"])
    if not free and key not in known_keys():
        near = difflib.get_close_matches(key, known_keys(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "`python -m harness list --settings` shows all."
        raise HarnessError(f"There is no setting named '{key}'; {hint}")
    node = tree
    for part in path:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise HarnessError(f"The setting '{key}' goes below '{part}', which is a single value.")
    node[last] = value


def _validated(model: type[BaseModel], data: Any, what: str) -> Any:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or what
        given = "" if isinstance(first.get("input"), dict) else f" (given: {first.get('input')!r})"
        more = f" And {error.error_count() - 1} more." if error.error_count() > 1 else ""
        message = first["msg"].removeprefix("Value error, ")
        raise HarnessError(f"Bad setting {place}: {message}{given}.{more}") from error


def _deep_copy(tree: Any) -> Any:
    return {key: _deep_copy(value) for key, value in tree.items()} if isinstance(tree, dict) else tree
