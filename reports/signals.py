"""How good a signal is before any RL: measures of stored fidelity records, their intervals, and the tables.

Every measure is a function of named arrays: rewards r (N,) of the pool's N texts, and Phi of targets trained again.

    score of halves    linear datamodeling score (Park et al. 2023): Spearman between sum of r over a random half of the
                       pool and Phi of a target trained on that half alone, over all halves
    small change       the same where half of the texts get a data weight of 1 + c and the other half 1 - c
    leave one out      Spearman over texts between r_i and what Phi loses when text i is left out
    leave part out     Spearman between minus the sum of r over a random eighth and Phi of a target trained without it
    own groups,        Spearman between r_i and the leave-one-out loss inside a group, averaged over groups: GRPO sees
    mixed groups       nothing else. Own groups hold rollouts of the untuned generator only
    AUC                chance that a text of the target's kind is scored above another text; ties count half
    repeatability      Spearman between the rewards of the same texts in two batches, averaged over pairs of batches
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

from harness.signals.records import SMALL, Judged, PoolRecord, SignalRecord, TruthRecord
from reports import stats, summary, tables
from reports.stats import Interval

if TYPE_CHECKING:
    import pandas
    import rich.console

RESAMPLES = 1000
FAITHFUL = 0.9
"""A score below it counts as a broken linear prediction."""
HALF = 0.5
"""And so does a larger error, relative to the change of Phi."""

COLUMNS = (
    "halves",
    "small change",
    "leave one out",
    "leave part out",
    "own groups",
    "mixed groups",
    "AUC",
    "repeatability",
    "s / 1,000",
)

HEADS = {
    "halves": ("random\nhalves", "Spearman with Phi of targets trained on random halves"),
    "small change": ("weights\n± 10 %", "the same, half of the texts weighing 10 % more, half less"),
    "leave one out": ("without\na text", "with what Phi loses when a text is left out"),
    "leave part out": ("without\neighth", "with what Phi loses when a random eighth is left out"),
    "own groups": ("groups,\nuntuned", "inside groups of the untuned generator's rollouts"),
    "mixed groups": ("groups,\nmixed", "inside groups of texts from all sources"),
    "AUC": ("AUC\ntarget", "chance that a text of the target's kind scores higher (0.5)"),
    "repeatability": ("other\nbatch", "the same texts' rewards in two batches"),
    "s / 1,000": ("s per\n1,000", "seconds for 1,000 rollouts on this machine"),
}
"""Measure -> (head of its column in two lines, what it is). All but the last two are between -1 and 1, or 0 and 1."""


# ------------------------------------------------------------------------------------------------------------- measures


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray | float:
    """Rank correlation along the last axis, ties averaged. Where one side is constant it orders nothing: 0."""
    a, b = rankdata(x, axis=-1), rankdata(y, axis=-1)
    a, b = a - a.mean(-1, keepdims=True), b - b.mean(-1, keepdims=True)
    size = np.sqrt((a**2).sum(-1) * (b**2).sum(-1))
    return np.divide((a * b).sum(-1), size, out=np.zeros_like(size), where=size > 0)


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """scores (N,), positive (N,) bool -> chance that a positive scores above a negative; NaN without one of them."""
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return math.nan
    return float((rankdata(scores)[positive].sum() - n * (n + 1) / 2) / (n * m))


def sums(rewards: np.ndarray, parts: Sequence[Sequence[int]]) -> np.ndarray:
    """(M,): the sum of rewards (N,) over each part."""
    return np.array([rewards[list(part)].sum() for part in parts])


def resampled(measure: Callable[..., np.ndarray], *arrays: np.ndarray, axis: str, seed: int = 0) -> Interval:
    """Percentile bootstrap of `measure` of equally long arrays (n,), whose entries are drawn together."""
    value, n = float(measure(*arrays)), len(arrays[0])
    rows = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    found = np.asarray(measure(*(array[rows] for array in arrays)))
    tail = (1 - stats.LEVEL) / 2
    low, high = np.quantile(found[np.isfinite(found)], [tail, 1 - tail])
    return Interval(value, float(low), float(high), n, axis, "percentile bootstrap", math.nan)


def averaged(values: Sequence[float], axis: str) -> Interval | None:
    """`stats.mean_interval` of correlations, kept inside [-1, 1]; None for none."""
    if not len(values):
        return None
    found = stats.mean_interval(np.asarray(values, dtype=float), axis=axis)
    return replace(found, low=max(-1.0, found.low), high=min(1.0, found.high)) if found.bounded else found


def measures(pool: PoolRecord, truth: TruthRecord, signal: SignalRecord) -> dict[str, Interval]:
    """Every measure of one signal against one truth, for one pool; those without meaning here are left out."""
    r = np.array(signal.rewards)
    halves = sums(r, pool.halves)
    found = {"halves": resampled(spearman, halves, np.array(truth.halves), axis="subsets")}
    if (small := truth.changed.get(str(SMALL))) is not None:
        found["small change"] = resampled(spearman, halves[: len(small)], np.array(small), axis="subsets")
    if truth.without_one:
        lost = truth.whole - np.array(truth.without_one)
        left = -sums(r, pool.removed)
        found["leave one out"] = resampled(spearman, r, lost, axis="texts")
        found["leave part out"] = resampled(spearman, left, np.array(truth.without_part), axis="subsets")
        groups, mixed = np.array(pool.groups), np.array(pool.pool.mixed())
        for name, wanted in (("own groups", ~mixed), ("mixed groups", mixed)):
            inside = [float(spearman(r[groups == g], lost[groups == g])) for g in sorted(set(groups[wanted]))]
            if (interval := averaged(inside, "groups")) is not None:
                found[name] = interval
    liked = np.array(pool.sources) == "target"
    if liked.any():
        each = lambda rows, kinds: np.array([auc(a, b) for a, b in zip(rows, kinds, strict=True)])
        area = lambda a, b: auc(a, b) if a.ndim == 1 else each(a, b)
        found["AUC"] = resampled(area, r, liked, axis="texts")
    if pairs := repeats(pool, signal):
        # Most pairs may agree exactly, where a studentised interval has no spread to go by.
        found["repeatability"] = resampled(lambda each: each.mean(-1), np.array(pairs), axis="pairs of batches")
    if signal.seconds_per_1000 is not None:
        cost = signal.seconds_per_1000
        found["s / 1,000"] = Interval(cost, math.nan, math.nan, 1, "measurements", "none", math.nan)
    return found


def repeats(pool: PoolRecord, signal: SignalRecord) -> list[float]:
    """One rank correlation for every two batches that share at least four texts."""
    found = []
    for (a, x), (b, y) in combinations(zip(pool.batches, signal.draws, strict=True), 2):
        first, second = dict(zip(a, x, strict=True)), dict(zip(b, y, strict=True))
        common = sorted(first.keys() & second.keys())
        if len(common) >= 4:
            found.append(float(spearman(np.array([first[i] for i in common]), np.array([second[i] for i in common]))))
    return found


def linear(pool: PoolRecord, truth: TruthRecord, signal: SignalRecord) -> dict[float, tuple[float, float]]:
    """Size of the change -> (score, error of the linear prediction of Phi's change, relative to that change, both as
    root mean squares). The error of a signal that is no derivative means nothing."""
    r = np.array(signal.rewards)
    direction = 2 * sums(r, pool.halves) - r.sum()
    every = {float(change): np.array(phi) for change, phi in truth.changed.items()} | {1.0: np.array(truth.halves)}
    found = {}
    for change, phi in sorted(every.items()):
        moved, predicted = phi - truth.whole, change * direction[: len(phi)]
        error = np.linalg.norm(moved - predicted) / max(np.linalg.norm(moved), 1e-300)
        found[change] = float(spearman(predicted, phi)), float(error)
    return found


def holds_to(scores: dict[float, tuple[float, float]]) -> float | None:
    """The largest change up to which the score stays at `FAITHFUL` or above; None if it never is."""
    return _up_to({change: score >= FAITHFUL for change, (score, _) in scores.items()})


def exact_to(scores: dict[float, tuple[float, float]]) -> float | None:
    """The largest change up to which the prediction is off by no more than `HALF` of what it predicts."""
    return _up_to({change: error <= HALF for change, (_, error) in scores.items()})


def _up_to(fine: dict[float, bool]) -> float | None:
    bad = min((change for change, good in fine.items() if not good), default=math.inf)
    return max((change for change in fine if change < bad), default=None)


# ----------------------------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Row:
    """One signal on one task against one truth, over seeds."""

    profile: str
    task: str
    settings: str
    """`settings_key`"""
    reward: str
    training: str
    """The training that was repeated; its own where `own`."""
    own: bool
    seeds: tuple[int, ...]
    found: dict[str, Interval]
    """Over seeds where there are several, else inside the one pool."""
    scores: dict[float, tuple[float, float]]
    """Size of the change -> (score, relative error), means over seeds."""
    status: str


def rows(judged: Sequence[Judged]) -> list[Row]:
    """Tasks in order of name; inside a task the comparisons with the task's own training first, best score first."""
    grouped: dict[tuple[str, ...], list[tuple[Judged, SignalRecord, TruthRecord | None]]] = {}
    for each in judged:
        for signal in each.signals:
            truths = [(key, each.truths.get(key)) for key in signal.truths] if signal.status == "done" else []
            truths = [(key, truth) for key, truth in truths if truth is not None] or [("", None)]
            for place, (_, truth) in enumerate(truths):
                settings = settings_key(each.pool)
                key = (signal.profile, signal.task, settings, signal.reward, truth.name if truth else "", str(place))
                grouped.setdefault(key, []).append((each, signal, truth))
    made = [_row(key, entries) for key, entries in grouped.items()]
    score = lambda row: -row.found["halves"].mean if "halves" in row.found else math.inf
    return sorted(made, key=lambda row: (row.profile, row.task, row.settings, row.own, score(row), row.reward))


def settings_key(pool: PoolRecord) -> str:
    """Six hexadecimal digits over everything but the seed that a pool and its truth depend on: seeds are pooled only
    where it agrees."""
    whole = json.dumps([pool.settings, pool.spec.model_dump(), pool.assets], sort_keys=True)
    return hashlib.sha256(whole.encode()).hexdigest()[:6]


def blocks(found: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """(title, rows) of every table: one for each task, and for each of its settings where there are several."""
    grouped: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in found:
        grouped.setdefault((row.profile, row.task), {}).setdefault(row.settings, []).append(row)
    return [
        (f"{task} ({profile}{f', settings {key}' if len(by_settings) > 1 else ''})", block)
        for (profile, task), by_settings in grouped.items()
        for key, block in by_settings.items()
    ]


def _row(key: tuple[str, ...], entries: list[tuple[Judged, SignalRecord, TruthRecord | None]]) -> Row:
    profile, task, settings, reward, training, place = key
    done = [(each.pool, truth, signal) for each, signal, truth in entries if truth is not None]
    single = [measures(*one) for one in done]
    found: dict[str, Interval] = single[0] if single else {}
    if len(single) > 1:
        names = [name for name in COLUMNS if all(name in one for one in single)]
        found = {name: stats.mean_interval(np.array([one[name].mean for one in single])) for name in names}
    curves = [linear(*one) for one in done]
    changes = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    scores = {c: tuple(float(np.mean([curve[c][side] for curve in curves])) for side in (0, 1)) for c in changes}
    states = sorted({f"{s.status}: {s.reason}" if s.reason else s.status for _, s, _ in entries})
    seeds = tuple(sorted(signal.seed for _, signal, _ in entries))
    return Row(profile, task, settings, reward, training, place != "0", seeds, found, scores, "; ".join(states))  # type: ignore[arg-type]


def frame(found: Sequence[Row]) -> pandas.DataFrame:
    """The long table: one measure a row, with its interval and what that was resampled over."""
    import pandas

    lines = []
    for row in found:
        key = {
            "profile": row.profile,
            "task": row.task,
            "settings": row.settings,
            "reward": row.reward,
            "training": row.training,
            "own_training": row.own,
            "seeds": " ".join(map(str, row.seeds)),
            "status": row.status,
        }
        for name, interval in row.found.items():
            line = {
                "measure": name,
                "value": interval.mean,
                "low": interval.low,
                "high": interval.high,
                "n": interval.n,
                "axis": interval.axis,
                "method": interval.method,
            }
            lines.append(key | line)
        for change, (score, error) in row.scores.items():
            lines.append(key | {"measure": f"score at change {change:g}", "value": score})
            lines.append(key | {"measure": f"error at change {change:g}", "value": error})
        if not row.found:
            lines.append(key | {"measure": ""})
    return pandas.DataFrame(lines)


# --------------------------------------------------------------------------------------------------------------- tables


def shown(row: Row, name: str, *, bounds: bool = True) -> str:
    """value [low, high], or "-"."""
    interval = row.found.get(name)
    if interval is None:
        return "-"
    if name == "s / 1,000":
        return summary.number(interval.mean, 2)
    ends = f" [{interval.low:.2f}, {interval.high:.2f}]" if bounds and math.isfinite(interval.low) else ""
    return f"{interval.mean:.2f}{ends}"


def label(row: Row) -> str:
    return f"{row.reward} (own training: {row.training})" if row.own else row.reward


def markdown(found: Sequence[Row]) -> str:
    """Every task as a table, then how far the linear prediction holds."""
    parts = []
    for title, block in blocks(found):
        heads = ["signal", *COLUMNS, "status"]
        lines = [[label(row), *(shown(row, name) for name in COLUMNS), row.status] for row in block]
        training = next((row.training for row in block if row.training and not row.own), "")
        parts.append(f"### {tables.escape(title)}\n")
        parts.append(f"Truth: {tables.escape(training)}.\n" if training else "")
        parts.append(_grid(heads, lines))
    if derivative := [row for row in found if is_derivative(row)]:
        parts.append(f"### How far the linear prediction holds\n\n{_breaking(derivative)}")
    return "\n".join([*parts, legend(found), ""]) if parts else "No signals have been judged yet.\n"


def is_derivative(row: Row) -> bool:
    """Whether the smallest change of the data weights is predicted to half of its size."""
    return bool(row.scores) and row.scores[min(row.scores)][1] < HALF


def _breaking(found: Sequence[Row]) -> str:
    changes = sorted({change for row in found for change in row.scores})
    ends = (f"score at least {FAITHFUL:g} up to", f"error at most {HALF:.0%} up to")
    heads = ["task", "signal", "training", *(f"c = {change:g}" for change in changes), *ends]
    lines = []
    for row in found:
        cells = [f"{row.scores[c][0]:.3f} ({row.scores[c][1]:.0%})" if c in row.scores else "-" for c in changes]
        limits = (holds_to(row.scores), exact_to(row.scores))
        ends = ("nowhere" if last is None else f"c = {last:g}" + (" (most)" if last == 1 else "") for last in limits)
        lines.append([row.task, row.reward, row.training, *cells, *ends])
    note = (
        "Half of the texts get the data weight 1 + c, the others 1 - c; c = 1 is training on a random half alone. "
        "Spearman between the linear prediction and the retrained Phi; in brackets the error of the prediction "
        "relative to the change.\n"
    )
    return _grid(heads, lines) + "\n" + note


def legend(found: Sequence[Row]) -> str:
    """How to read the tables, in one paragraph."""
    several = any(len(row.seeds) > 1 for row in found)
    axis = (
        "95 % intervals over seeds (a pool each)"
        if several
        else "95 % intervals inside one pool: bootstrap over subsets or texts, t or bootstrap over groups or pairs of "
        "batches; they do not cover the choice of the pool"
    )
    return (
        "Rank correlations with Phi of targets trained again (float64), 1 is best and 0 is noise. halves: linear "
        "datamodeling score, targets trained on random halves. small change: the same with data weights 1 ± 0.1. "
        "leave one out, leave part out: without one text, without a random eighth. own groups, mixed groups: inside "
        "GRPO groups, of the untuned generator's rollouts alone and of all sources. AUC: texts of the target's kind "
        "against all others. repeatability: the same texts in other batches. s / 1,000: seconds per 1,000 rollouts, on "
        f"the machine of the run. In brackets: {axis}. Random numbers score within ± 2 / sqrt(texts) of 0, ± 0.25 on "
        "a pool of 64."
    )


def _grid(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    body = [f"| {' | '.join(tables.escape(cell) for cell in line)} |" for line in lines]
    rule = "| " + " | ".join(["---"] * len(heads)) + " |"
    return "\n".join([f"| {' | '.join(tables.escape(head) for head in heads)} |", rule, *body]) + "\n"


def rich(found: Sequence[Row]) -> rich.console.RenderableType:
    """The same for a terminal, without the intervals."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[rich.console.RenderableType] = []
    for title, block in blocks(found):
        table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.padding = (0, 0, 0, 0)  # type: ignore[assignment]
        table.add_column("signal", overflow="fold", min_width=13)
        for name in COLUMNS:
            table.add_column(heading(name), justify="right", no_wrap=True)  # on 80 characters names give way, not heads
        for row in block:
            name = f"{row.reward} (own)" if row.own else row.reward
            table.add_row(Text(name), *(Text(shown(row, column, bounds=False)) for column in COLUMNS))
        notes = [Text(f"{row.reward}: {row.status}") for row in block if row.status != "done"]
        owns = [Text(f"{row.reward} (own): against {row.training}") for row in block if row.own]
        parts += [table, Text(""), *notes, *owns, *([Text("")] if notes or owns else [])]
    if found:
        parts += [Text(explained(), style="dim"), Text("")]
    return Group(*parts)


def heading(name: str) -> str:
    """The head of a measure's column, in two lines."""
    return HEADS[name][0]


def explained() -> str:
    """What the columns are, a line each of 80 characters at most."""
    heads = {name: heading(name).replace("\n", " ") for name in HEADS}
    width = max(map(len, heads.values()))
    return "\n".join(["1 is best and 0 is noise:", *(f"{heads[n]:{width}}  {what}" for n, (_, what) in HEADS.items())])


def html(found: Sequence[Row]) -> str:
    """The same for a notebook, with the intervals."""
    if not found:
        return "<p>No signals have been judged yet.</p>"
    heads = ["signal", *(heading(name).replace("\n", " ") for name in COLUMNS), "status"]
    body = lambda row: [label(row), *(shown(row, name) for name in COLUMNS), row.status]
    return "".join(tables.html_table(title, [heads, *map(body, block)]) for title, block in blocks(found))
