"""How much a signal depends on a setting: its headline over the values that were tried, the value that would be chosen
and how wide the range is that does nearly as well, which a user who cannot tune is helped by more than by the peak.

Read from stored cells alone: whatever a task's cells differ in, as after `python -m harness tune` or a `run` with
several values of one setting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.settings import variants
from harness.settings.schema import neutral_keys
from harness.store.record import CellRecord
from harness.tuning.outcome import USABLE, Choice, choice
from reports import figures, style, summary, tables
from reports.figures import Figure, Panel, Series

if TYPE_CHECKING:
    import pandas
    import rich.console

FEWEST = 3
"""Values of a setting from which something can be said about how much it matters."""
HEADS = ("reward", "setting", "tried", "chosen", "headline there", "by seed", "usable range", "decades", "notes")
LEGEND = (
    "Every value was tried on the same seeds. Chosen is the best median at the last validation, of equally good ones "
    f"the middle. The usable range holds the tried values around it that reach {USABLE:.0%} of its gain over the "
    "untuned generator without a gap; its width is in powers of ten, 0 where a single value does. What lies between "
    "tried values is not known, so the true range may be wider. Where a headline is measured on a target that is "
    "trained with the very setting, as a norm's change under its learning rate, larger values move it by themselves."
)


@dataclass(frozen=True)
class Tuned:
    """The trials of one task: a choice for each reward and setting."""

    profile: str
    task: str
    unit: str
    choices: tuple[Choice, ...]

    @property
    def heading(self) -> str:
        return f"{self.task} ({self.profile})" if self.profile else self.task


def found(wide: pandas.DataFrame) -> list[Tuned]:
    """Every task of which some reward's cells try at least `FEWEST` values of one setting, the others being equal.
    `wide` as `summary.prepared` leaves it."""
    if wide.empty:
        return []
    records = summary.read_records(wide)
    groups: dict[tuple[str, str, str], dict[tuple[str, str], list[CellRecord]]] = {}
    for cell in wide.sort_values(["profile", "task", "reward", "variant"]).itertuples():
        if (record := records.get(str(cell.folder))) is not None and record.settings and record.status != "damaged":
            place = (record.profile, record.task, record.unit)
            groups.setdefault(place, {}).setdefault((record.reward, record.variant), []).append(record)
    made = []
    for (profile, task, unit), rewards in groups.items():
        choices = [each for (reward, _), cells in rewards.items() for each in _choices(task, reward, cells)]
        if choices:
            made.append(Tuned(profile, task, unit, tuple(choices)))
    return made


def _choices(task: str, reward: str, records: Sequence[CellRecord]) -> list[Choice]:
    """One for every number that varies while the other settings stay."""
    neutral = neutral_keys()
    views = [{k: v for k, v in variants.dotted(record.settings).items() if k not in neutral} for record in records]
    varying = variants.varying(views)
    made = []
    for key in varying:
        others = [other for other in varying if other != key]
        series: dict[str, dict[float, list[CellRecord]]] = {}
        for record, view in zip(records, views, strict=True):
            value = view.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                rest = variants.name_of({other: view.get(other) for other in others})
                series.setdefault(rest, {}).setdefault(float(value), []).append(record)
        for points in series.values():
            if len(points) >= FEWEST:
                made.append(choice(task, reward, [({key: value}, points[value]) for value in sorted(points)]))
    return made


def figure(tuned: Sequence[Tuned]) -> Figure | None:
    """The headline over the tried values, a panel a task and setting, x in powers of ten; None where nothing was tried.
    Bands reach from the lowest to the highest seed."""
    panels = []
    rewards = sorted({each.reward for one in tuned for each in one.choices})
    slots = {reward: place % (style.SLOTS - 2) for place, reward in enumerate(rewards)}
    for one in tuned:
        for key in dict.fromkeys(
            key for each in one.choices for key in each.tried[0].point if len(each.tried[0].point) == 1
        ):
            mine = [each for each in one.choices if [*each.tried[0].point] == [key]]
            lines = [_line(each, slots[each.reward]) for each in mine]
            lines += [mark for each in mine if (mark := _mark(each)) is not None]
            lines.append(_floor(lines, mine))
            measure = mine[0].measure.replace("_", " ") + (f" [{one.unit}]" if one.unit else "")
            panels.append(
                Panel(f"{one.task}: {variants.short_key(key)}", f"{key}, powers of ten", measure, tuple(lines))
            )
    caption = (
        "The headline at the last validation over the values of a setting that were tried: median over seeds, band "
        "from lowest to highest; the chosen value is marked, and the untuned generator drawn across."
    )
    return Figure("sensitivity", "Sensitivity", caption, tuple(panels)) if panels else None


def _line(each: Choice, slot: int) -> Series:
    x = np.log10([float(value) for one in each.tried for value in one.point.values()])
    ends = [
        (min(one.headline.values()), max(one.headline.values())) if one.headline else (math.nan,) * 2
        for one in each.tried
    ]
    low, high = np.array(ends, dtype=float).T
    seeds = max((len(one.headline) for one in each.tried), default=0)
    return Series(each.reward, slot, slot, x, np.array([one.median for one in each.tried]), low, high, seeds)


def _mark(each: Choice) -> Series | None:
    if each.chosen is None:
        return None
    best = each.tried[each.chosen]
    x, y = np.log10([float(value) for value in best.point.values()]), np.array([best.median])
    return Series("chosen", style.SLOTS - 1, 0, x, y, y, y, 1)


def _floor(lines: Sequence[Series], choices: Sequence[Choice]) -> Series:
    x = np.array(figures.finite_range([line.x for line in lines]))
    y = np.full(2, summary.median([each.floor for each in choices]))
    return Series(tables.UNTUNED, style.SLOTS - 2, style.SLOTS - 2, x, y, y, y, 1)


def rows(one: Tuned) -> list[list[str]]:
    """The table of a task, texts under `HEADS`."""
    return [_row(each, one.unit) for each in one.choices]


def _row(each: Choice, unit: str) -> list[str]:
    keys = ", ".join(variants.short_key(key) for key in each.tried[0].point)
    if each.chosen is None:
        return [each.reward, keys, str(len(each.tried)), "-", "-", "", "-", "-", _notes(each)]
    best = each.tried[each.chosen]
    values = np.array([best.headline[seed] for seed in sorted(best.headline)])
    spread = [summary.number(end) for end in each.usable] if each.usable else []
    return [
        each.reward,
        keys,
        str(len(each.tried)),
        ", ".join(variants.short_value(value) for value in best.point.values()),
        summary.shown(best.median, unit),
        summary.points(values, unit),
        " .. ".join(variants.short_value(end) for end in each.usable) if spread and each.usable else "none",
        f"{each.decades:.1f}" if each.usable else "-",
        _notes(each),
    ]


def _notes(each: Choice) -> str:
    failed = sum(bool(one.unfinished) for one in each.tried)
    reasons = list(dict.fromkeys(why for one in each.tried for why in one.unfinished.values()))
    parts = [f"{failed} of {len(each.tried)} points did not finish ({'; '.join(reasons[:2])})"] if failed else []
    parts += ["the choice lies at the edge of what was tried"] if each.at_edge else []
    if each.by_key_measure and each.key_measure:
        parts.append(f"no value gained anything; chosen by {each.key_measure.name}")
    return "; ".join(parts)


def markdown(tuned: Sequence[Tuned]) -> str:
    """The tables as Markdown."""
    from reports.markdown import grid

    parts = [f"### {tables.escape(one.heading)}\n\n{grid(list(HEADS), rows(one))}" for one in tuned]
    return "\n".join([*parts, f"{LEGEND}\n"])


def rich(choices: Sequence[Choice], left_out: Sequence[str] = ()) -> rich.console.RenderableType:
    """The tables for a terminal."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = []
    for task in dict.fromkeys(each.task for each in choices):
        mine = [each for each in choices if each.task == task]
        measure, floor = mine[0].measure.replace("_", " "), summary.number(mine[0].floor)
        title = f"{task}: {measure}, {mine[0].direction} is better; floor {floor}"
        table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for place, head in enumerate(HEADS[:-1]):
            table.add_column(Text(head), justify="left" if place < 2 else "right", no_wrap=place < 2)
        notes = []
        for each in mine:
            *cells, note = _row(each, "")
            table.add_row(*map(Text, cells))
            notes += [Text(f"{each.reward}: {note}.")] if note else []
        parts += [table, Text(""), *notes]
    return Group(*parts, *(Text(line) for line in left_out))


def html(choices: Sequence[Choice]) -> str:
    """The tables for a notebook."""
    return "".join(
        tables.html_table(task, [HEADS, *(_row(each, "") for each in choices if each.task == task)])
        for task in dict.fromkeys(each.task for each in choices)
    )
