"""What several seeds and tasks say together, in the manner of Agarwal et al. 2021 ("Deep Reinforcement Learning at the
Edge of the Statistical Precipice"): interquartile mean and median, probability of improvement, and their stratified
bootstrap intervals. Pure functions of arrays first, then the rows of the tables.

Improvements are paired: seed k of one reward is held against seed k of the other, which saw the same prompts in the
same order. Every task is a stratum: seeds are drawn anew within each. A percentile interval from few seeds is too
narrow (`stats.py` has the coverage: 86 to 90 % in place of 95 with ten seeds, 75 with three), so none is shown below
`FEWEST`, and the verdict on a difference stays with `stats.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from reports import stats, summary
from reports.summary import Block, Row

FEWEST = 5
"""Seeds of every task from which an interval is shown."""
RESAMPLES = 2000
CUT = 0.25
"""Of the scores, what the interquartile mean leaves out at either end."""
HEADS = ("reward", "seeds", "IQM", "median", "better than {}", "better than untuned")


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN bounds where there are too few seeds for one."""

    value: float
    low: float = math.nan
    high: float = math.nan


def iqm(scores: np.ndarray) -> np.ndarray | float:
    """Mean of the middle half of the scores along the last axis; a quarter of them, rounded down, is left out at either
    end. scores (..., n), n >= 1 -> (...)."""
    n = scores.shape[-1]
    out = int(CUT * n)
    return np.sort(scores, axis=-1)[..., out : n - out].mean(-1)


def middle(scores: np.ndarray) -> np.ndarray | float:
    """Median along the last axis."""
    return np.median(scores, axis=-1)


def improved(differences: np.ndarray) -> np.ndarray | float:
    """Share of paired differences along the last axis that are above 0, ties counting half."""
    return (np.sign(differences).mean(-1) + 1) / 2


def mean_of_tasks(measure: Callable[[np.ndarray], np.ndarray | float]) -> Callable[..., np.ndarray | float]:
    """The mean over tasks of a measure taken in each."""
    return lambda *tasks: sum(np.asarray(measure(task)) for task in tasks) / len(tasks)


def pooled(measure: Callable[[np.ndarray], np.ndarray | float]) -> Callable[..., np.ndarray | float]:
    """A measure of all tasks' scores together."""
    return lambda *tasks: measure(np.concatenate(tasks, axis=-1))


def estimate(measure: Callable[..., np.ndarray | float], tasks: Sequence[np.ndarray], *, seed: int = 0) -> Estimate:
    """`measure` of one array a task, each (seeds,), with its stratified percentile bootstrap interval over seeds.
    Raises ValueError where a task has no seeds."""
    if not tasks or any(task.ndim != 1 or not task.size for task in tasks):
        raise ValueError("an estimate takes at least one task, and at least one seed of each")
    value = float(measure(*tasks))
    if min(task.size for task in tasks) < FEWEST:
        return Estimate(value)
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, task.size, (RESAMPLES, task.size)).astype(np.int32) for task in tasks]
    some = stats.resamples_at_a_time(sum(task.size for task in tasks), RESAMPLES)
    found = [np.asarray(measure(*(task[each[part]] for task, each in zip(tasks, drawn, strict=True)))) for part in some]
    tail = (1 - stats.LEVEL) / 2
    low, high = np.quantile(np.concatenate(found), [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


# ------------------------------------------------------------------------------------------------------------- results


@dataclass(frozen=True)
class Together:
    """One reward over seeds, on one task or over several."""

    label: str
    seeds: tuple[int, ...]
    """Number of seeds of each task."""
    iqm: Estimate
    median: Estimate
    over_reference: Estimate | None
    """Probability of improvement over the reference; None for itself and without common seeds."""
    over_untuned: Estimate


@dataclass(frozen=True)
class Table:
    """One task, or all of a profile together."""

    heading: str
    unit: str
    reference: str
    rows: tuple[Together, ...]
    notes: tuple[str, ...] = field(default=())


def tables(blocks: Sequence[Block], reference: str) -> list[Table]:
    """A table a task with several seeds of some reward; then, of profiles with several such tasks, all together, of
    rewards that ran on each of them."""
    several = [block for block in blocks if any(len(row.seeds) > 1 for row in block.rows)]
    found = [_of_task(block, reference) for block in several]
    for profile in dict.fromkeys(block.profile for block in several):
        tasks: dict[str, Block] = {}  # of a task that was measured in several ways the first one's
        for block in several:
            if block.profile == profile:
                tasks.setdefault(block.task, block)
        mine = list(tasks.values())
        if len(mine) > 1 and (together := _over_tasks(profile, mine, reference)).rows:
            found.append(together)
    return found


def _of_task(block: Block, reference: str) -> Table:
    rows = [_together(row.label, [(block, row)], reference, raw=True) for row in block.rows if _sound(row)]
    return Table(block.heading, block.unit, reference, tuple(rows))


def _over_tasks(profile: str, blocks: Sequence[Block], reference: str) -> Table:
    of_label: dict[str, list[tuple[Block, Row]]] = {}
    for block in blocks:
        for row in block.rows:
            if _sound(row):
                of_label.setdefault(row.label, []).append((block, row))
    whole = {label: cells for label, cells in of_label.items() if len(cells) == len(blocks)}
    rows = sorted(
        (_together(label, cells, reference, raw=False) for label, cells in whole.items()),
        key=lambda row: -row.iqm.value,
    )
    open_ended = [block.task for block in blocks if not math.isfinite(block.ceiling)]
    notes = (
        [f"{', '.join(open_ended)}: no best possible value, so the best median gain counts as 1"] if open_ended else []
    )
    names = ", ".join(block.task for block in blocks)
    return Table(f"All of {names} ({profile}), 0: untuned, 1: best possible", "", reference, tuple(rows), tuple(notes))


def _sound(row: Row) -> bool:
    return bool(len(row.seeds)) and bool(np.isfinite(row.headline).all() and np.isfinite(row.gain).all())


def _together(label: str, cells: Sequence[tuple[Block, Row]], reference: str, *, raw: bool) -> Together:
    """`raw`: in the headline's unit; else as a share of the way from the floor to the ceiling."""
    scores = [row.headline if raw else normalised(block, row) for block, row in cells]
    pairs = [stats.reference_of(block, row, reference) for block, row in cells]
    compared = [
        stats.compare_rows(row, other, block.direction) if other else None
        for (block, row), other in zip(cells, pairs, strict=True)
    ]
    differences = [each.differences for each in compared if each is not None]
    whole = len(differences) == len(cells)
    return Together(
        label,
        tuple(len(row.seeds) for _, row in cells),
        estimate(pooled(iqm), scores),
        estimate(pooled(middle), scores),
        estimate(mean_of_tasks(improved), differences) if whole else None,
        estimate(mean_of_tasks(improved), [row.gain for _, row in cells]),
    )


def normalised(block: Block, row: Row) -> np.ndarray:
    """(seeds,): 0 for the seed's own untuned generator, 1 for the best possible value; where there is none, for the
    best median gain of the task."""
    floors = row.headline - row.gain if block.direction != "lower" else row.headline + row.gain
    if math.isfinite(block.ceiling):
        room = np.asarray(summary.improvement(block.ceiling, floors, block.direction), dtype=float)
    else:
        best = max((summary.median(other.gain) for other in block.rows if other.seeds), default=math.nan)
        room = np.full(row.gain.shape, best)
    return np.divide(row.gain, room, out=np.zeros_like(row.gain), where=room > 0)


def cells(table: Table, row: Together) -> list[str]:
    """The row's texts under `heads`."""
    seeds = str(row.seeds[0]) if len(set(row.seeds)) == 1 else f"{min(row.seeds)} to {max(row.seeds)}"
    return [
        row.label,
        seeds,
        said(row.iqm, table.unit or "fraction"),
        said(row.median, table.unit or "fraction"),
        said(row.over_reference, "share"),
        said(row.over_untuned, "share"),
    ]


def heads(table: Table) -> list[str]:
    return [head.format(table.reference) for head in HEADS]


def said(found: Estimate | None, unit: str) -> str:
    """value [low..high]; a probability with two decimals."""
    if found is None:
        return ""

    def shown(value: float) -> str:
        return f"{value:.2f}" if unit == "share" else summary.shown(value, unit)

    interval = f" [{shown(found.low)}..{shown(found.high)}]" if math.isfinite(found.low) else ""
    return f"{shown(found.value)}{interval}"


LEGEND = (
    "Over seeds: IQM is the mean of the middle half of the seeds' values. Better than: the share of seeds on which it "
    "beats the same seed of the other, ties counting half; 0.5 is no difference. In brackets stand 95 % stratified "
    f"bootstrap intervals over seeds, from {FEWEST} seeds on; they are somewhat narrow below twenty. An interval that "
    "holds 0.5 does not tell the two apart."
)
