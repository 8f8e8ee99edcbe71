"""The trials of a grid of tasks and rewards: ordinary cells, one for every point and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.contracts import HarnessError
from harness.grid import cross_product
from harness.planning.cells import Cell
from harness.registry import REWARDS, TASKS, unsupported
from harness.settings.options import check_options
from harness.settings.profiles import Profile, resolve
from harness.settings.variants import name_of
from harness.tuning.space import check_comparable, check_trials, default_axis, parse_axis, points


@dataclass(frozen=True)
class Trial:
    """A point of a reward's space on a task."""

    task: str
    reward: str
    point: Mapping[str, Any]
    """Dotted setting -> value."""
    cells: tuple[Cell, ...]
    """One a seed."""


def planned(
    profile: Profile,
    tasks: Sequence[str],
    rewards: Sequence[str],
    seeds: Sequence[int],
    trials: int,
    space: Sequence[str],
    given: Mapping[str, Any],
) -> list[Trial]:
    """Every trial, in the order tasks, rewards, points. Raises HarnessError for bad settings, and where no pair can
    run."""
    check_options(profile, given, tasks, rewards)
    axes = [parse_axis(text) for text in space]
    check_trials(axes, trials)
    if twice := {axis.key for axis in axes} & set(given):
        raise HarnessError(f"{sorted(twice)[0]} stands in --space and in --set; say it once.")
    given = {"keep.generator": "none"} | dict(given)  # a choice needs no generator of every trial
    found = []
    for task in tasks:
        check_comparable(axes, task)
        for reward in rewards:
            if unsupported(TASKS.get(task), REWARDS.get(reward)):
                continue
            settings = resolve(profile, task, reward, given)
            for point in points(axes or [default_axis(task, reward, settings, trials)], settings):
                cells = cross_product(profile, [task], [reward], seeds, {**given, **point})
                labelled = tuple(_labelled(cell, point) for cell in cells)
                found.append(Trial(task, reward, point, labelled))
    if not found:
        raise HarnessError(" ".join(untunable(tasks, rewards)) + " Nothing is left to tune.")
    return found


def untunable(tasks: Sequence[str], rewards: Sequence[str]) -> list[str]:
    """Why pairs of a task and a reward cannot be tuned, a sentence each."""
    found = []
    for task in tasks:
        for reward in rewards:
            if why := unsupported(TASKS.get(task), REWARDS.get(reward)):
                found.append(f"{task}/{reward}: unsupported: {why}.")
    return found


def _labelled(cell: Cell, point: Mapping[str, Any]) -> Cell:
    return replace(cell, label=name_of(point))
