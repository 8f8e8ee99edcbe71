"""What a reader wants to know first: which signal, by how much, how sure; and one picture of it. A sentence or three a
task, made from the same rows and comparisons as the tables below them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from reports import figures, stats, summary
from reports.figures import Curves, Figure
from reports.stats import Comparison
from reports.summary import Block, Row

MOST_NAMED = 5
"""Rewards that a sentence lists by name."""


@dataclass(frozen=True)
class Answer:
    """Of one task."""

    heading: str
    signal: str
    """Which signal leads, and how far above the untuned generator it got."""
    sure: str
    """What of that the data separate from chance."""
    caution: str = ""
    """What stands against taking it at its word: a quick run, one seed."""

    @property
    def text(self) -> str:
        return " ".join(filter(None, (self.signal, self.sure, self.caution)))


def answers(blocks: Sequence[Block]) -> list[Answer]:
    """One a task that has a finished cell, in the order of `blocks`."""
    return [_answer(block) for block in blocks if any(row.seeds for row in block.rows)]


def _answer(block: Block) -> Answer:
    rows = [row for row in block.rows if row.seeds]
    best = rows[0]
    level = [row for row in rows if summary.shown(row.median, block.unit) == summary.shown(best.median, block.unit)]
    return Answer(block.heading, _signal(block, level), _sure(block, best, rows), _caution(rows))


def _signal(block: Block, level: Sequence[Row]) -> str:
    best, unit = level[0], block.unit
    gain = summary.median(best.gain)
    if not gain > 0:
        value, floor = summary.shown(best.median, unit), summary.shown(block.floor, unit)
        return f"No signal moved it the right way: {best.label} comes closest, {value} from {floor} untuned."
    what = f"{block.measure.replace('_', ' ')}{f' [{unit}]' if unit else ''}"
    values = summary.points(best.headline, unit)
    seeds = f"{len(best.seeds)} {'seed' if len(best.seeds) == 1 else 'seeds'}{f': {values}' if values else ''}"
    reach = (
        f"{what} {summary.shown(best.median, unit)}, better by {summary.shown(gain, unit)} than the untuned "
        f"generator's {summary.shown(block.floor, unit)}"
    )
    if len(level) == 1:
        return f"{best.label} leads: {reach} ({seeds})."
    return f"{_listed([row.label for row in level])} lead together: {reach} (of {best.label}, {seeds})."


def _sure(block: Block, best: Row, rows: Sequence[Row]) -> str:
    """Which others it is ahead of beyond chance, which not."""
    if len(rows) == 1:
        return "No other signal has finished here, so there is nothing to compare it with."
    mine = [c for c in stats.pairs(block) if best.label in (c.name, c.reference)]
    if not mine:
        return "It shares no seed with another signal, so they cannot be compared."
    if max(c.interval.n for c in mine) == 1:
        return "With one seed in common nothing says how much of the differences is chance."
    ahead = [c for c in mine if c.separated]
    near = [_other(c, best) for c in mine if not c.separated]
    parts = []
    if ahead:
        least = min(ahead, key=lambda c: abs(c.interval.mean))
        apart = f"by {summary.signed(abs(least.interval.mean), block.unit)}"
        within = f", 95 % interval {_interval(least, best, block.unit)}" if least.interval.bounded else ""
        parts.append(
            f"It is ahead of {_listed([_other(c, best) for c in ahead])} beyond chance "
            f"({'at least ' if len(ahead) > 1 else ''}{apart}{within})"
        )
    if near:
        seeds = max(c.interval.n for c in mine)
        parts.append(f"{'from' if ahead else 'From'} {_listed(near)} {seeds} seeds do not tell it apart")
    return "; ".join(parts) + "."


def _other(comparison: Comparison, best: Row) -> str:
    return comparison.reference if comparison.name == best.label else comparison.name


def _interval(comparison: Comparison, best: Row, unit: str) -> str:
    """The interval of the best row's lead, whichever way round the two were compared."""
    low, high = comparison.interval.low, comparison.interval.high
    if comparison.name != best.label:
        low, high = -high, -low
    return f"{summary.signed(low, unit)} .. {summary.signed(high, unit)}"


def _caution(rows: Sequence[Row]) -> str:
    if all(row.quick for row in rows):
        return "All of it is from a quick run, which shows that everything works and not which signal is better."
    return ""


def _listed(names: Sequence[str]) -> str:
    shown = list(names[:MOST_NAMED]) + ([f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else [])
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def picture(blocks: Sequence[Block], curves: Curves) -> Figure | None:
    """The headline of every task over the training, a panel a task; None where nothing was measured."""
    panels = [figures.headline(curves, block) for block in blocks]
    found = tuple(panel for panel in panels if panel)
    caption = "The headline over the training, on held-out prompts: median over seeds, band from lowest to highest."
    return Figure("answer", "What came out", caption, found) if found else None
