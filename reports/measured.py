"""Which cells of a task were measured alike. Validations that train another number of inner steps, or on other prompts,
give other values of the same generator, the untuned one's among them: such cells do not stand in one comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas

ALIKE = 1e-9
"""Relative difference of two floors up to which they are the same."""

Way = tuple[Any, ...]
"""(inner steps, prompts, split) of a cell's validations; () where the settings cannot be read."""


def ways(frame: pandas.DataFrame, views: Sequence[Mapping[str, Any]]) -> list[str]:
    """Of every cell, how its validations differ from others of its profile and task, e.g. "validated at T=96"; ""
    where they do not, or where it makes no difference: some reward has a seed in both ways and one floor.

    frame  rows with profile, task, reward, seed, status and floor
    views  their settings as dotted keys, in the same order; empty where they are not at hand
    """
    found = [_way(view) for view in views]
    several: dict[Any, set[Way]] = {}
    places = list(zip(frame["profile"], frame["task"], strict=True))
    for place, way in zip(places, found, strict=True):
        if way:
            several.setdefault(place, set()).add(way)
    shows = _shows(frame, found)
    return [
        _said(way, several[place]) if way and place in shows and len(several[place]) > 1 else ""
        for place, way in zip(places, found, strict=True)
    ]


def _way(view: Mapping[str, Any]) -> Way:
    if not view:
        return ()
    steps = view.get("validation.inner_steps") or view.get("inner.steps")
    return steps, view.get("validation.prompts"), view.get("data.held_out")


def _shows(frame: pandas.DataFrame, found: Sequence[Way]) -> set[tuple[str, str]]:
    """(profile, task) where one reward on one seed has another floor when it is measured in another way."""
    floors: dict[Any, dict[Way, float]] = {}
    names = ("profile", "task", "reward", "seed", "status", "floor")
    for (*place, status, floor), way in zip(zip(*(frame[name] for name in names), strict=True), found, strict=True):
        if status == "done" and way and floor == floor:
            floors.setdefault(tuple(place), {}).setdefault(way, float(floor))
    shows = set()
    for (profile, task, *_), by_way in floors.items():
        low, high = min(by_way.values()), max(by_way.values())
        if high - low > ALIKE * max(abs(low), abs(high)):
            shows.add((profile, task))
    return shows


def _said(way: Way, others: set[Way]) -> str:
    """What of it is not the same in all of them."""
    words = ("at T={}", "on {} prompts", "on the {} split")
    varies = [len(set(values)) > 1 for values in zip(*others, strict=True)]
    parts = [word.format(value) for word, value, differs in zip(words, way, varies, strict=True) if differs]
    return f"validated {', '.join(parts)}" if parts else ""
