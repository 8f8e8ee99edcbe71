"""What came out of trials: which values are chosen and by what rule, how wide the range is that does nearly as well,
and the file that keeps both.

The rule is the same for every reward: the point whose median headline over the tuning seeds, at the last validation, is
best. Where several are equally good, as at the ceiling, the middle one of them, so that no choice lies at the edge of
what works. Where the best is no better than the untuned generator, as with a headline that counts whole successes, the
task's first key measure decides in the headline's place. A point with a seed that did not finish cannot be chosen.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from harness.contracts import Measure
from harness.registry import TASKS
from harness.store.atomic import write_atomic
from harness.store.record import CellRecord
from harness.tuning.trials import Trial

USABLE = 0.9
"""Of the best gain over the floor, what a usable value reaches."""


@dataclass(frozen=True)
class Tried:
    """One point of a reward's space."""

    point: Mapping[str, Any]
    """Dotted setting -> value."""
    headline: Mapping[int, float]
    """Seed -> final headline, of finished cells."""
    unfinished: Mapping[int, str]
    """Seed -> how the cell ended and why, of the others."""
    key: Mapping[int, float] = field(default_factory=dict)
    """Seed -> the task's first key measure, of finished cells."""

    @property
    def key_median(self) -> float:
        """As `median`, of the key measure."""
        return statistics.median(self.key.values()) if self.key and not self.unfinished else math.nan

    @property
    def median(self) -> float:
        """Over seeds; NaN unless all finished."""
        return statistics.median(self.headline.values()) if self.headline and not self.unfinished else math.nan


@dataclass(frozen=True)
class Choice:
    """What one reward's trials on a task say."""

    task: str
    reward: str
    measure: str
    direction: str
    floor: float
    """Median over the cells' untuned generators."""
    tried: tuple[Tried, ...]
    """In the order of the space."""
    key_measure: Measure | None = None

    @property
    def chosen(self) -> int | None:
        """Place in `tried`; None where no point finished."""
        place = choose([each.median for each in self.tried], self.direction)
        if not self.by_key_measure:
            return place
        assert self.key_measure is not None
        by_key = choose([each.key_median for each in self.tried], self.key_measure.direction or "")
        return place if by_key is None else by_key

    @property
    def by_key_measure(self) -> bool:
        """Whether no point gained anything by the headline, so that the key measure decides."""
        place = choose([each.median for each in self.tried], self.direction)
        if place is None or self.key_measure is None or not math.isfinite(self.floor):
            return False
        gain = self.tried[place].median - self.floor
        return (-gain if self.direction == "lower" else gain) <= 0

    @property
    def at_edge(self) -> bool:
        """Whether the choice is the first or the last of several points, so that a wider space may hold a better."""
        return self.chosen is not None and len(self.tried) > 1 and self.chosen in (0, len(self.tried) - 1)

    @property
    def usable(self) -> tuple[float, float] | None:
        """Lowest and highest value of the usable range (`usable_range`), of a space with one axis."""
        if any(len(each.point) != 1 for each in self.tried):
            return None
        values = [float(next(iter(each.point.values()))) for each in self.tried]
        return usable_range(values, [each.median for each in self.tried], self.floor, self.direction)

    @property
    def decades(self) -> float:
        """Width of the usable range in powers of ten; 0 for a single value, NaN where nothing is usable."""
        return math.log10(self.usable[1] / self.usable[0]) if self.usable else math.nan


def choose(medians: Sequence[float], direction: str) -> int | None:
    """Place of the best of `medians` (NaN: cannot be chosen); of equally good ones the middle, the lower of two."""
    finite = [value for value in medians if math.isfinite(value)]
    if not finite:
        return None
    best = min(finite) if direction == "lower" else max(finite)
    level = [place for place, value in enumerate(medians) if value == best]
    return level[(len(level) - 1) // 2]


def usable_range(
    values: Sequence[float], medians: Sequence[float], floor: float, direction: str
) -> tuple[float, float] | None:
    """(lowest, highest) of the tried values around the chosen one that reach `USABLE` of its gain over the floor
    without a gap; values in between were not tried and are not counted on, so that the true range may be wider. None
    where the best gain is none."""
    chosen = choose(medians, direction)
    if chosen is None:
        return None
    sign = -1.0 if direction == "lower" else 1.0
    gains = [sign * (median - floor) for median in medians]
    if not gains[chosen] > 0:
        return None
    good = [gain >= USABLE * gains[chosen] for gain in gains]
    low = high = chosen
    while low > 0 and good[low - 1]:
        low -= 1
    while high + 1 < len(good) and good[high + 1]:
        high += 1
    return values[low], values[high]


def tried(point: Mapping[str, Any], records: Sequence[CellRecord], key: str = "") -> Tried:
    """One point from the records of its cells. `key`: the key measure's name."""
    done = {record.seed: record.headline for record in records if record.status == "done"}
    others = {
        record.seed: f"{record.status}: {record.reason}" if record.reason else record.status
        for record in records
        if record.status != "done"
    }
    keys = {record.seed: record.final.get(key) for record in records if record.status == "done"} if key else {}
    return Tried(point, _there(done), others, _there(keys))


def _there(values: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: value for seed, value in values.items() if value is not None}


def choices(trials: Sequence[Trial], records: Sequence[CellRecord]) -> list[Choice]:
    """One for every task and reward, from a record for every cell of the trials, in their order."""
    rest = iter(records)
    found: dict[tuple[str, str], list[tuple[Mapping[str, Any], list[CellRecord]]]] = {}
    for trial in trials:
        cells = list(islice(rest, len(trial.cells)))
        found.setdefault((trial.task, trial.reward), []).append((trial.point, cells))
    return [choice(task, reward, points) for (task, reward), points in found.items()]


def choice(task: str, reward: str, found: Sequence[tuple[Mapping[str, Any], Sequence[CellRecord]]]) -> Choice:
    """The outcome of a reward's trials: (point, its cells' records) in the order of the space."""
    records = [record for _, cells in found for record in cells]
    floors = [record.floor for record in records if record.floor is not None and math.isfinite(record.floor)]
    key = _key_measure(task)
    return Choice(
        task,
        reward,
        records[0].measure,
        records[0].direction,
        statistics.median(floors) if floors else math.nan,
        tuple(tried(point, cells, key.name if key else "") for point, cells in found),
        key,
    )


def _key_measure(task: str) -> Measure | None:
    """The first of the task's key measures; None where it names none, or is not at hand."""
    entry = TASKS.find(task)
    names = (entry.declares.key_measures or ()) if entry else ()
    return next((each for each in entry.factory.measures if each.name == names[0]), None) if entry and names else None


# ------------------------------------------------------------------------------------------------------------ the file


def write(
    path: Path, profile: str, choices: Sequence[Choice], commit: str, command: str, kept: Mapping[str, Any]
) -> None:
    """Writes what was chosen and all that was tried. `kept`: the file as it was (`settings.profiles.tuned_data`), whose
    other tasks and rewards stay. Raises StorageError."""
    pairs = _copied(kept.get("pairs"))
    trials = _copied(kept.get("trials"))
    for each in choices:
        for entries in (pairs, trials):
            entries.setdefault(each.task, {}).pop(each.reward, None)
        if each.chosen is not None:
            pairs[each.task][each.reward] = dict(each.tried[each.chosen].point)
        trials[each.task][each.reward] = _entry(each, commit)
    data = {"profile": profile, "pairs": {task: found for task, found in pairs.items() if found}, "trials": trials}
    head = (
        f"# Written by `{command}`.\n"
        "# `run --tuned FILE`, or `tuned: FILE` in a profile, uses `pairs`; `trials` says what they were chosen from.\n"
    )
    write_atomic(path, head + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110))


def _copied(tree: Any) -> dict[str, dict[str, Any]]:
    return {str(task): dict(found) for task, found in (tree or {}).items()}


def _entry(each: Choice, commit: str) -> dict[str, Any]:
    curve, key = [], each.key_measure if each.by_key_measure else None
    for one in each.tried:
        said: dict[str, Any] = {"values": dict(one.point), "headline": dict(one.headline)}
        said |= {key.name: dict(one.key)} if key else {}
        curve.append(said | ({"unfinished": dict(one.unfinished)} if one.unfinished else {}))
    seeds = sorted({seed for one in each.tried for seed in (*one.headline, *one.unfinished)})
    usable = {"usable": list(each.usable), "decades": round(each.decades, 3)} if each.usable else {}
    return {
        "measure": each.measure,
        "direction": each.direction,
        "floor": each.floor if math.isfinite(each.floor) else None,
        "seeds": seeds,
        "commit": commit,
        **usable,
        **({"at_edge": True} if each.at_edge else {}),
        **({"chosen_by": key.name} if key else {}),
        "curve": curve,
    }
