"""What generated data are worth: stored trials (harness/evaluation/records.py) as rows, their intervals, the tables.

A row's numbers are those of the rate that its first seed chose on the validation passages; every seed counts once. Its
differences to `before` (the target as it was), `untuned` and `replay` are taken seed by seed; positive is better. Where
the measure is in nats, exp(-gain) is the share of its perplexity that is left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.evaluation.records import BEFORE, FURTHER, REPLAY, SFT, UNTUNED, TrialRecord, chosen_rate, judged
from reports import stats, summary, tables
from reports.stats import Interval

if TYPE_CHECKING:
    import pandas
    import rich.console

REFERENCES = (BEFORE, UNTUNED, REPLAY)
"""Rows that the others are compared with."""


@dataclass(frozen=True)
class Row:
    """One row of a table: what a target was trained on, over seeds."""

    profile: str
    task: str
    target: str
    settings: str
    name: str
    """A reward, or one of FURTHER."""
    multiple: int | None
    """Of a step's texts, how many times so many; None: continued pre-training."""
    measure: str
    unit: str
    direction: str
    rate: float | None
    tried: int
    """Rates that the first seed tried."""
    trials: tuple[TrialRecord, ...]
    """Those that count, one a seed, in the order of the seeds."""
    status: str
    gains: dict[str, Interval] = field(default_factory=dict)
    """Row of REFERENCES -> the mean paired improvement over it."""

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(trial.seed for trial in self.trials)

    @property
    def values(self) -> np.ndarray:
        """(seeds,): the measure that judges, on the test split."""
        return np.array([judged(trial, "test") for trial in self.trials])

    @property
    def mean(self) -> float:
        return float(self.values.mean()) if self.trials else math.nan

    @property
    def articles(self) -> float:
        """Mean loss on held-out articles, nats a token."""
        found = [trial.articles for trial in self.trials if trial.articles is not None]
        return float(np.mean(found)) if found else math.nan

    @property
    def left(self) -> float:
        """Perplexity over that of the target before; NaN where the measure is not in nats."""
        gain = self.gains.get(BEFORE)
        return math.exp(-gain.mean) if gain and self.unit.startswith("nats") else math.nan

    def measures(self) -> dict[str, float]:
        """The other measures of the test, medians over seeds."""
        names = [name for name in (self.trials[0].test if self.trials else {}) if name != self.measure]
        return {name: summary.median(trial.test.get(name, math.nan) for trial in self.trials) for name in names}


Block = tuple[str, list[Row]]
"""Title and rows of one table."""


# ----------------------------------------------------------------------------------------------------------------- rows


def rows(trials: Sequence[TrialRecord]) -> list[Row]:
    """By profile, task, target, settings; then `before`, the other rows without a reward, rewards best first, and the
    task's own texts."""
    groups: dict[tuple[str, ...], dict[tuple[str, int | None], list[TrialRecord]]] = {}
    for trial in trials:
        place = (trial.profile, trial.task, trial.target, trial.settings_key)
        groups.setdefault(place, {}).setdefault((trial.row, trial.multiple), []).append(trial)
    found: list[Row] = []
    for place, named in groups.items():
        found += _compared([_row(place, key, parts) for key, parts in _by_multiple(named).items()])
    return sorted(found, key=_order)


def _by_multiple(
    named: dict[tuple[str, int | None], list[TrialRecord]],
) -> dict[tuple[str, int | None], list[TrialRecord]]:
    """The same with the seeds that could not run, which belong to no multiple, at each of their row's multiples."""
    several = {name for name, multiple in named if multiple is not None}
    kept = {key: parts for key, parts in named.items() if key[1] is not None or key[0] not in several}
    lost = {name: parts for (name, multiple), parts in named.items() if multiple is None and name in several}
    return {key: [*parts, *lost.get(key[0], [])] for key, parts in kept.items()}


def _row(place: tuple[str, ...], key: tuple[str, int | None], trials: list[TrialRecord]) -> Row:
    by_seed: dict[int, list[TrialRecord]] = {}
    for trial in trials:
        by_seed.setdefault(trial.seed, []).append(trial)
    # The rates were tried with one seed: the one with the most trials, of several the first.
    tuned = max(sorted(by_seed), key=lambda seed: sum(t.rate is not None for t in by_seed[seed]))
    tried = [trial for trial in by_seed[tuned] if trial.rate is not None]
    rate = chosen_rate(tried)
    counted = {
        seed: trial
        for seed in sorted(by_seed)
        for trial in by_seed[seed]
        if trial.status == "done" and trial.rate == rate and math.isfinite(judged(trial, "test"))
    }
    first = next(iter(counted.values()), trials[0])
    return Row(
        *place[:3],
        settings=place[3],
        name=key[0],
        multiple=key[1],
        measure=first.measure,
        unit=first.unit,
        direction=first.direction,
        rate=rate,
        tried=len(tried),
        trials=tuple(counted.values()),
        status=_status(by_seed, counted),
    )


def _status(by_seed: dict[int, list[TrialRecord]], counted: dict[int, TrialRecord]) -> str:
    """done, or what happened to the seeds that are not."""
    told = {}
    for seed in sorted(by_seed.keys() - counted.keys()):
        first = next((trial for trial in by_seed[seed] if trial.status != "done"), None)
        what = first.status + (f": {first.reason}" if first.reason else "") if first else "not at this rate"
        told.setdefault(what, []).append(str(seed))
    if not told:
        return "done"
    parts = [f"seed {', '.join(seeds)} {what}" if counted else what for what, seeds in told.items()]
    return "; ".join(parts)


def _compared(group: list[Row]) -> list[Row]:
    """The same with their improvements over the rows of REFERENCES."""
    by_name = {(row.name, row.multiple): row for row in group}
    found = []
    for row in group:
        gains = {}
        for name in REFERENCES:
            reference = by_name.get((name, row.multiple))
            if reference and reference is not row and (gain := _gain(row, reference)):
                gains[name] = gain
        found.append(replace(row, gains=gains))
    return found


def _gain(row: Row, reference: Row) -> Interval | None:
    """Over common seeds; the target before any training is the same for every seed."""
    theirs = dict(zip(reference.seeds, reference.values, strict=True))
    if reference.name == BEFORE and len(theirs) == 1:
        theirs = dict.fromkeys(row.seeds, next(iter(theirs.values())))
    ours = dict(zip(row.seeds, row.values, strict=True))
    pairs = [(value, theirs[seed]) for seed, value in ours.items() if seed in theirs]
    if not pairs:
        return None
    return stats.mean_interval(np.array([summary.improvement(new, old, row.direction) for new, old in pairs]))


def _order(row: Row) -> tuple[object, ...]:
    place = FURTHER.index(row.name) if row.name in FURTHER else len(FURTHER)
    last = row.name == SFT
    sign = 1.0 if row.direction == "lower" else -1.0
    best = sign * row.mean if row.trials else math.inf
    own = row.target != "own"
    return (row.profile, row.task, own, row.target, row.settings, row.multiple or 0, last, place, best, row.name)


def blocks(found: Sequence[Row]) -> list[Block]:
    """A table for each task and target, and for each of its settings where there are several."""
    grouped: dict[tuple[str, str, str], dict[str, list[Row]]] = {}
    for row in found:
        grouped.setdefault((row.profile, row.task, row.target), {}).setdefault(row.settings, []).append(row)
    return [
        (f"{task} ({profile}{f', settings {key}' if len(by_settings) > 1 else ''}): {target} target", block)
        for (profile, task, target), by_settings in grouped.items()
        for key, block in by_settings.items()
    ]


def frame(found: Sequence[Row]) -> pandas.DataFrame:
    """The long table: one measure a row, with its interval where it is a difference."""
    import pandas

    lines = []
    for row in found:
        key = {name: getattr(row, name) for name in ("profile", "task", "target", "settings")}
        key |= {"row": row.name, "multiple": row.multiple, "rate": row.rate, "tried": row.tried}
        key |= {"seeds": " ".join(map(str, row.seeds)), "status": row.status}
        lines.append(key | {"measure": row.measure, "unit": row.unit, "value": row.mean})
        if math.isfinite(row.articles):
            lines.append(key | {"measure": "articles", "unit": "nats/token", "value": row.articles})
        lines += [key | {"measure": name, "value": value} for name, value in row.measures().items()]
        for name, gain in row.gains.items():
            ends = {"low": gain.low, "high": gain.high, "n": gain.n, "axis": gain.axis, "method": gain.method}
            lines.append(key | {"measure": f"gain over {name}", "unit": row.unit, "value": gain.mean} | ends)
    return pandas.DataFrame(lines)


def headlines(trials: Sequence[TrialRecord]) -> pandas.DataFrame:
    """One row and seed a line, with the columns that `diff` compares results by; a row's variant says its target."""
    import pandas

    lines = []
    found = rows(trials)
    floors = {_table_of(row): row.mean for row in found if row.name == BEFORE}
    for row in found:
        floor = floors.get(_table_of(row), math.nan)
        variant = f"data, {row.target} target" + (f", {row.multiple} x" if row.multiple else "")
        key = {"profile": row.profile, "task": row.task, "reward": row.name, "variant": variant, "unit": row.unit}
        key |= {"direction": row.direction, "settings_key": row.settings, "ceiling": math.nan, "floor": floor}
        key |= {"folder": ""}
        for trial, value in zip(row.trials, row.values, strict=True):
            lines.append(key | {"seed": trial.seed, "status": "done", "reason": "", "headline": value})
        if not row.trials:
            state, _, reason = row.status.partition(": ")
            lines.append(key | {"seed": 0, "status": state, "reason": reason, "headline": math.nan})
    return pandas.DataFrame(lines)


def _table_of(row: Row) -> tuple[str, ...]:
    return row.profile, row.task, row.target, row.settings


# --------------------------------------------------------------------------------------------------------------- tables


def columns(block: Sequence[Row]) -> list[str]:
    """Heads of one table's columns."""
    first = next((row for row in block if row.trials), block[0])
    value = f"{first.measure.replace('_', ' ') or 'value'}" + (f" [{first.unit}]" if first.unit else "")
    others = [name.replace("_", " ") for name in _others(block)]
    if any(row.multiple for row in block):
        heads = ["trained on", "times a step's texts", value, "seeds' values", f"gain over {UNTUNED}"]
        return [*heads, *others, "n", "status"]
    gains = [f"gain over {name}" for name in REFERENCES]
    return ["trained on", "rate", value, *others, "left of before", *gains, "articles [nats/token]", "n", "status"]


def _others(block: Sequence[Row]) -> list[str]:
    """Names of the further measures that the test itself gives; of a task's whole validation they are too many."""
    from harness.registry import TASKS

    task = block[0].task
    examined = getattr(TASKS.get(task).factory, "examined", ()) if task in TASKS.names() else ()
    return [measure.name for measure in examined if measure.name != block[0].measure]


def cells(block: Sequence[Row], row: Row) -> list[str]:
    """Texts of one row, one a column."""
    others = row.measures()
    shown = [summary.number(others.get(name)) for name in _others(block)]
    value = summary.shown(row.mean, row.unit) if row.trials else "-"
    if any(each.multiple for each in block):
        times = str(row.multiple) if row.multiple else "-"
        points = summary.points(row.values, row.unit) if row.trials else ""
        return [row.name, times, value, points, gain(row, UNTUNED), *shown, str(len(row.seeds)), row.status]
    rate = f"{row.rate:g}" if row.rate else "-"
    left = f"{row.left:.1%}" if math.isfinite(row.left) else "-"
    gains = [gain(row, name) for name in REFERENCES]
    return [row.name, rate, value, *shown, left, *gains, summary.number(row.articles), str(len(row.seeds)), row.status]


def gain(row: Row, name: str) -> str:
    """+0.12 [+0.05, +0.19], or "-"."""
    interval = row.gains.get(name)
    if interval is None:
        return "-"
    digits = lambda value: f"{value:+.3f}"
    ends = f" [{digits(interval.low)}, {digits(interval.high)}]" if interval.bounded else ""
    return digits(interval.mean) + ends


def disagreement(found: Sequence[Row]) -> float | None:
    """The largest relative difference between perplexities here and those of EleutherAI's harness; None where it was
    not asked."""
    asked = [trial for row in found for trial in row.trials if trial.lm_eval is not None]
    return max((abs(trial.lm_eval / math.exp(-judged(trial, "test")) - 1) for trial in asked), default=None)


def legend(found: Sequence[Row]) -> str:
    """How to read the tables, in one paragraph."""
    uneven = {row.tried for row in found if row.name != BEFORE and row.multiple is None and row.trials}
    note = " Not all rows tried equally many rates." if len(uneven) > 1 else ""
    if (off := disagreement(found)) is not None:
        note += f" EleutherAI's harness was asked too: its perplexities differ by at most {off:.1g} (relative)."
    return (
        "A fresh target is trained on each row's texts as a user would train it, then put to the task's test split. "
        "before: as it was. replay: articles alone, as many tokens. untuned: texts of the generator before any "
        "training. sft: the task's own train texts. Learning rates are one list for all rows; each row's was chosen by "
        "its first seed on the validation passages. Gains are paired by seed, positive is better, in brackets 95 % "
        "intervals over seeds. left of before: exp(-gain), the share of the perplexity that is left. articles: what "
        f"it cost elsewhere, the loss on held-out articles.{note}"
    )


def markdown(found: Sequence[Row]) -> str:
    """Every table, then how to read them."""
    from reports.markdown import grid

    parts = []
    for title, block in blocks(found):
        parts.append(f"### {tables.escape(title)}\n\n{grid(columns(block), [cells(block, row) for row in block])}")
    return "\n".join([*parts, legend(found), ""]) if parts else "Nothing has been evaluated yet.\n"


def rich(found: Sequence[Row]) -> rich.console.RenderableType:
    """The same for a terminal; reasons stand below their table."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[rich.console.RenderableType] = []
    for title, block in blocks(found):
        table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.padding = (0, 1, 0, 0)  # type: ignore[assignment]
        for place, head in enumerate(columns(block)[:-1]):
            name = Text(head.replace("gain over ", "over\n").replace(" [", "\n[").replace(" of ", " of\n"))
            table.add_column(name, justify="right" if place else "left", overflow="fold", no_wrap=place == 0)
        for row in block:
            table.add_row(*(Text(text.replace(" [", "\n[")) for text in cells(block, row)[:-1]))
        notes = [Text(f"{row.name}: {row.status}") for row in block if row.status != "done"]
        parts += [table, Text(""), *notes, *([Text("")] if notes else [])]
    if (off := disagreement(found)) is not None:
        parts.append(Text(f"EleutherAI's harness differs by at most {off:.1g} (relative).", style="dim"))
    return Group(*parts)


def html(found: Sequence[Row]) -> str:
    """The same for a notebook."""
    if not found:
        return "<p>Nothing has been evaluated yet.</p>"
    return "".join(
        tables.html_table(title, [columns(block), *(cells(block, row) for row in block)])
        for title, block in blocks(found)
    )
