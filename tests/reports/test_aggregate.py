"""IQM, probability of improvement and their stratified intervals, against slow oracles and known cases."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import trim_mean

from reports import aggregate
from reports.aggregate import Estimate, estimate, improved, iqm, mean_of_tasks, middle, normalised, pooled
from reports.summary import Block, Row

NUMBERS = arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e3, 1e3))


def row(reward: str, headline: list[float], floor: float = 0.0, direction: str = "higher") -> Row:
    values = np.array(headline)
    gain = floor - values if direction == "lower" else values - floor
    return Row(reward, "", reward, tuple(range(len(headline))), values, gain)


def block(
    *rows: Row, task: str = "a", ceiling: float = 1.0, direction: str = "higher", unit: str = "fraction"
) -> Block:
    return Block("tiny", task, "m", unit, direction, ceiling, 0.0, (), frozenset(), {}, rows)


@given(NUMBERS)
def test_iqm_is_the_trimmed_mean(values: np.ndarray) -> None:
    assert iqm(values) == pytest.approx(trim_mean(values, 0.25), abs=1e-9)


@given(NUMBERS)
def test_improvement_counts_pairs(differences: np.ndarray) -> None:
    slow = sum(1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in differences) / len(differences)
    assert improved(differences) == pytest.approx(slow)
    assert improved(-differences) == pytest.approx(1 - slow)


def test_the_interval_is_that_of_every_resample() -> None:
    """Three values have 27 resamples: the quantiles of all of them are those of many drawn ones."""
    values = np.array([0.0, 1.0, 3.0, 4.0, 9.0])
    every = np.array([np.mean(values[list(places)]) for places in product(range(5), repeat=5)])
    found = estimate(pooled(lambda x: x.mean(-1)), [values])
    assert found.value == values.mean()
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(every, [0.025, 0.975])), abs=0.3)


def test_strata_are_drawn_within_tasks() -> None:
    """Two tasks of different level: pooled without strata the mean would vary with how many of each are drawn."""
    tasks = [np.full(6, 0.0), np.full(6, 100.0)]
    assert estimate(pooled(lambda x: x.mean(-1)), tasks) == Estimate(50.0, 50.0, 50.0)
    assert estimate(mean_of_tasks(middle), tasks) == Estimate(50.0, 50.0, 50.0)


def test_few_seeds_get_no_interval_and_none_is_an_error() -> None:
    assert math.isnan(estimate(pooled(iqm), [np.arange(4.0)]).low)
    assert math.isnan(estimate(pooled(iqm), [np.arange(4.0), np.arange(9.0)]).low)
    for tasks in ([], [np.empty(0)], [np.zeros((2, 2))]):
        with pytest.raises(ValueError):
            estimate(pooled(iqm), tasks)


def test_coverage_of_the_interval() -> None:
    """What the legend says: with ten seeds it holds the truth less often than 95 times in 100, and not much less."""
    rng = np.random.default_rng(0)
    hits = [
        found.low <= 0 <= found.high
        for found in (estimate(pooled(lambda x: x.mean(-1)), [rng.normal(size=10)], seed=k) for k in range(300))
    ]
    assert 0.82 < np.mean(hits) < 0.95


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_scores_are_shares_of_the_way_from_floor_to_ceiling(direction: str) -> None:
    ceiling, values = (1.0, [0.2, 0.6, 1.0]) if direction == "higher" else (-1.0, [0.2, -0.4, -1.0])
    one = row("x", values, 0.2, direction)
    assert normalised(block(one, ceiling=ceiling, direction=direction), one) == pytest.approx([0.0, 0.5, 1.0])


def test_without_a_best_possible_value_the_best_median_gain_is_one() -> None:
    best, other = row("x", [2.0, 2.0, 2.0]), row("y", [1.0, -1.0, 0.0])
    both = block(best, other, ceiling=math.nan)
    assert normalised(both, other) == pytest.approx([0.5, -0.5, 0.0])


def test_tables_pair_seeds_and_leave_out_what_did_not_run_everywhere() -> None:
    first = block(row("naive", [0.1] * 6), row("x", [0.2, 0.2, 0.2, 0.2, 0.05, 0.1]), row("z", [0.9] * 6))
    second = block(row("naive", [0.1] * 6), row("x", [0.3] * 6), task="b", ceiling=math.nan)
    of_a, of_b, both = aggregate.tables([first, second], "naive")
    x = next(each for each in of_a.rows if each.label == "x")
    assert x.over_reference is not None and x.over_reference.value == pytest.approx(4.5 / 6)
    assert next(each for each in of_a.rows if each.label == "naive").over_reference is None
    assert {each.label for each in both.rows} == {"naive", "x"}
    x = next(each for each in both.rows if each.label == "x")
    assert x.over_reference is not None and x.over_reference.value == pytest.approx((4.5 / 6 + 1) / 2)
    assert "b: no best possible value" in both.notes[0]
    assert len(of_b.rows) == 2
    for table in (of_a, of_b, both):
        assert all(len(aggregate.cells(table, each)) == len(aggregate.heads(table)) for each in table.rows)


def test_one_seed_makes_no_table() -> None:
    assert aggregate.tables([block(row("naive", [0.1]), row("x", [0.2]))], "naive") == []
