"""Paired comparisons over seeds, as pure functions of named arrays. No global random state: everything is seeded here.

Which interval, and why (coverage of 95 % intervals, 2000 simulated experiments each; `tests/reports` repeats it):

    seeds  data                  percentile bootstrap   paired t   symmetric studentised bootstrap
    3      normal                76 %                   95 %       undefined (one resample in nine has no spread)
    3      gamma, skewness 1     73 %                   92 %       undefined
    5      normal                86 %                   95 %       98 %
    5      gamma, skewness 1     82 %                   93 %       96 %
    10     normal                90 %                   95 %       96 %
    10     exponential           86 %                   91 %       93 %

A resampled mean never leaves the range of the points, and three points span their median only three times in four: no
bootstrap of the mean can be honest there. So below `BOOTSTRAP_FROM` seeds the interval is the paired t interval, from
there the symmetric studentised bootstrap over seeds. Where it falls short: strongly skewed differences (exponential:
88 % with 3 seeds, 90 % with 5). A difference of two rewards is mostly far less skewed than each of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from reports.summary import Block, Row, improvement, signed

LEVEL = 0.95
BOOTSTRAP_FROM = 10
"""Seeds from which the studentised bootstrap covers as well as t on normal data and better on skewed data."""
RESAMPLES = 4000
AT_A_TIME = 2**20
"""Numbers that are drawn anew at once."""
FEW = 5
"""Below this many seeds an interval is called wide in words."""


@dataclass(frozen=True)
class Interval:
    """An interval for a mean, with everything needed to say what it is."""

    mean: float
    low: float
    high: float
    """NaN bounds where there is one value only, or where all are the same."""
    n: int
    axis: str
    """What was averaged and resampled over, e.g. "seeds"."""
    method: str
    p: float
    """Two-sided, for the mean being zero; from the same distribution as the bounds. NaN for one value. Of a sign test
    where all are the same: two equal seeds are no proof."""

    @property
    def bounded(self) -> bool:
        """Whether there are bounds."""
        return math.isfinite(self.low)

    @property
    def note(self) -> str:
        """What a reader has to know about it, in a sentence."""
        if self.n < 2:
            return f"one of {self.axis} only: no interval"
        if not self.bounded:
            return f"all {self.n} {self.axis} say the same: without spread no interval; p is a sign test's"
        wide = f"; an interval from {self.n} {self.axis} is wide" if self.n < FEW else ""
        return f"{self.method} over {self.n} {self.axis}{wide}"


@dataclass(frozen=True)
class Comparison:
    """`name` against `reference` on the seeds both have; positive differences mean `name` is better."""

    name: str
    reference: str
    seeds: tuple[int, ...]
    differences: np.ndarray
    """(seeds,) float64, in the headline's unit, in the order of `seeds`."""
    interval: Interval
    adjusted_p: float
    """After Holm's correction over the comparisons made together."""

    @property
    def separated(self) -> bool:
        return bool(self.adjusted_p < 1 - LEVEL)


def t_bounds(values: np.ndarray, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Student's t interval of the mean along the last axis. values (..., n), n >= 2 -> (low, high), each (...)."""
    from scipy.stats import t

    n = values.shape[-1]
    mean, error = values.mean(-1), values.std(-1, ddof=1) / math.sqrt(n)
    reach = t.ppf((1 + level) / 2, n - 1) * error
    return mean - reach, mean + reach


def bootstrap_statistics(values: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES) -> np.ndarray:
    """|t| of resamples along the last axis around the sample's own mean. values (..., n) -> (..., resamples).

    A resample without spread has |t| = inf (0 where its mean is the sample's), so that it can only widen an interval.
    """
    n = values.shape[-1]
    some = resamples_at_a_time(values.size, resamples)
    found = [_studentised(values, rng.integers(0, n, (part.stop - part.start, n))) for part in some]
    return np.concatenate(found, axis=-1)


def resamples_at_a_time(numbers: int, resamples: int) -> list[slice]:
    """The resamples in parts, each of so `numbers` drawn, that stay small in memory: of thousands of seeds, all at once
    would be hundreds of megabytes."""
    rows = max(1, AT_A_TIME // max(1, numbers))
    return [slice(first, min(first + rows, resamples)) for first in range(0, resamples, rows)]


def _studentised(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """values (..., n), places (resamples, n) -> (..., resamples)."""
    n = values.shape[-1]
    drawn = values[..., places]
    off = np.abs(drawn.mean(-1) - values.mean(-1, keepdims=True))
    error = drawn.std(-1, ddof=1) / math.sqrt(n)
    return np.divide(off, error, out=np.where(off > 0, np.inf, 0.0), where=error > 0)


def bootstrap_bounds(
    values: np.ndarray, rng: np.random.Generator, level: float = LEVEL, resamples: int = RESAMPLES
) -> tuple[np.ndarray, np.ndarray]:
    """Symmetric studentised bootstrap interval of the mean along the last axis. values (..., n) -> (low, high)."""
    return _studentised_bounds(values, bootstrap_statistics(values, rng, resamples), level)


def _studentised_bounds(values: np.ndarray, statistics: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The same from `bootstrap_statistics`."""
    reach = np.quantile(statistics, level, axis=-1, method="higher") * values.std(-1, ddof=1)
    reach = reach / math.sqrt(values.shape[-1])
    return values.mean(-1) - reach, values.mean(-1) + reach


def mean_interval(values: np.ndarray, *, axis: str = "seeds", seed: int = 0, level: float = LEVEL) -> Interval:
    """Interval of the mean of `values` (n,), which must be finite and not empty; ValueError otherwise.

    `axis` names what the entries are (seeds), `seed` is the bootstrap's.
    """
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError("mean_interval takes at least one finite number in one dimension")
    n, mean = values.size, float(values.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, axis, "none", math.nan)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    # A standard error of rounding alone is no spread: seeds that all differ by 0.1 do not come out at exactly 0.
    if error <= 1e-12 * max(abs(mean), np.abs(values).max()):
        return Interval(mean, math.nan, math.nan, n, axis, "sign test", 1.0 if mean == 0 else 2.0 ** (1 - n))
    if n < BOOTSTRAP_FROM:
        from scipy.stats import t

        low, high = t_bounds(values, level)
        return Interval(mean, float(low), float(high), n, axis, "paired t", float(2 * t.sf(abs(mean) / error, n - 1)))
    statistics = bootstrap_statistics(values, np.random.default_rng(seed))
    low, high = _studentised_bounds(values, statistics, level)
    p = (1 + int((statistics >= abs(mean) / error).sum())) / (1 + statistics.size)
    return Interval(mean, float(low), float(high), n, axis, "studentised bootstrap", p)


def bounds(interval: Interval, unit: str) -> str:
    """low .. high, or why there is none."""
    if not interval.bounded:
        return "one seed" if interval.n < 2 else "no spread"
    return f"{signed(interval.low, unit)} .. {signed(interval.high, unit)}"


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values, in the order given. NaN (not tested) stays NaN and does not count."""
    raw = np.asarray(p, dtype=float)
    adjusted = np.full(raw.shape, math.nan)
    tested = np.flatnonzero(np.isfinite(raw))
    order = tested[np.argsort(raw[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(raw[order] * factors), 1.0)
    return adjusted


def compare_rows(row: Row, reference: Row, direction: str, *, seed: int = 0) -> Comparison | None:
    """`row` against `reference` seed by seed; None without common seeds."""
    ours = dict(zip(row.seeds, row.headline, strict=True))
    theirs = dict(zip(reference.seeds, reference.headline, strict=True))
    common = [k for k in row.seeds if k in theirs and math.isfinite(ours[k]) and math.isfinite(theirs[k])]
    if not common:
        return None
    differences = np.array([improvement(ours[k], theirs[k], direction) for k in common])
    interval = mean_interval(differences, seed=seed)
    return Comparison(row.label, reference.label, tuple(common), differences, interval, interval.p)


def reference_of(block: Block, row: Row, reference: str) -> Row | None:
    """The row of the reward `reference` that this one is compared with; None for its own rows and where it is not
    clear which.

    Where the grid has variants, or settings that vary, a row is compared with the reference of its own kind; with the
    reference's only row where it has just one.
    """
    if row.reward == reference:
        return None
    references = [other for other in block.rows if other.reward == reference and other.seeds]
    same = [other for other in references if other.kind == row.kind]
    same = same or [other for other in references if other.variant == row.variant] or references
    return same[0] if len(same) == 1 else None


def against(block: Block, reference: str, *, seed: int = 0) -> list[Comparison]:
    """Every finished reward of a task against `reference` (a reward's name; `reference_of` says which row of it),
    corrected over the task."""
    found = []
    for row in block.rows:
        other = reference_of(block, row, reference)
        if row.seeds and other and (comparison := compare_rows(row, other, block.direction, seed=seed)):
            found.append(comparison)
    return _corrected(found)


def pairs(block: Block, *, seed: int = 0) -> list[Comparison]:
    """Every two finished rows of a task, the better-placed one first, corrected over all of them."""
    rows = [row for row in block.rows if row.seeds]
    compared = (compare_rows(a, b, block.direction, seed=seed) for a, b in combinations(rows, 2))
    return _corrected([comparison for comparison in compared if comparison])


def _corrected(comparisons: list[Comparison]) -> list[Comparison]:
    adjusted = holm([comparison.interval.p for comparison in comparisons])
    return [replace(c, adjusted_p=float(p)) for c, p in zip(comparisons, adjusted, strict=True)]
