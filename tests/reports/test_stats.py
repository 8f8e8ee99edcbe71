from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from harness.store.frames import load
from reports import aggregate, stats, summary

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
# name -> (draw, true mean); gamma(9) and gamma(4) have skewness 0.67 and 1
MODERATE: dict[str, tuple[Draw, float]] = {
    "normal": (lambda rng, shape: rng.normal(size=shape), 0.0),
    "gamma9": (lambda rng, shape: rng.gamma(9, size=shape), 9.0),
    "gamma4": (lambda rng, shape: rng.gamma(4, size=shape), 4.0),
    "shares_of_64": (lambda rng, shape: (rng.binomial(64, 0.9, shape) - rng.binomial(64, 0.85, shape)) / 64, 0.05),
}


def coverage(draw: Draw, mean: float, n: int, experiments: int = 8000) -> float:
    """Share of experiments whose interval, by the method `mean_interval` uses for n values, holds the true mean."""
    rng = np.random.default_rng([n, 5])
    values = draw(rng, (experiments, n))
    if n < stats.BOOTSTRAP_FROM:
        low, high = stats.t_bounds(values)
    else:
        parts = [stats.bootstrap_bounds(part, rng, resamples=499) for part in np.split(values, 20)]
        low, high = (np.concatenate(side) for side in zip(*parts, strict=True))
    return float(((low <= mean) & (mean <= high)).mean())


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("name", MODERATE)
def test_95_percent_intervals_cover_92_to_98_percent(name: str, n: int) -> None:
    draw, mean = MODERATE[name]
    assert 0.92 <= coverage(draw, mean, n, 8000 if n < 10 else 2000) <= 0.98


@pytest.mark.parametrize("at_a_time", [100, 700])
def test_resamples_in_parts_are_those_drawn_at_once(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of seeds are drawn in parts; the numbers are the same to the last bit."""
    draw = np.random.default_rng(1)
    values, other = draw.normal(0.3, size=41), draw.normal(size=17)

    def found() -> list[object]:
        interval = stats.mean_interval(values)
        scores = [
            aggregate.estimate(aggregate.pooled(each), [values, other]) for each in (aggregate.iqm, aggregate.middle)
        ]
        bounds = stats.bootstrap_bounds(np.stack([values, -values]), np.random.default_rng(3), resamples=99)
        return [interval, *scores, *(side.tolist() for side in bounds)]

    whole = found()
    drawn = values[np.random.default_rng(0).integers(0, 41, (stats.RESAMPLES, 41))]
    reach = np.abs(drawn.mean(-1) - values.mean()) / (drawn.std(-1, ddof=1) / math.sqrt(41))
    assert np.array_equal(reach, stats.bootstrap_statistics(values, np.random.default_rng(0)))
    monkeypatch.setattr(stats, "AT_A_TIME", at_a_time)
    assert found() == whole


def test_strongly_skewed_data_is_where_few_seeds_fall_short() -> None:
    """Written down in the module's docstring; this pins that the words stay true."""

    def draw(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        return rng.exponential(size=shape)

    assert 0.86 <= coverage(draw, 1.0, 3) < 0.92
    assert 0.87 <= coverage(draw, 1.0, 5) < 0.92


def test_a_percentile_bootstrap_of_three_seeds_would_not_do() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2000, 3))
    means = values[:, rng.integers(0, 3, (500, 3))].mean(-1)
    low, high = np.quantile(means, [0.025, 0.975], axis=-1)
    assert ((low <= 0) & (high >= 0)).mean() < 0.8


def test_the_t_interval_and_p_are_scipys() -> None:
    values = np.array([0.1, 0.3, 0.15, 0.22])
    found = stats.mean_interval(values)
    expected = scipy_stats.ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval(0.95)), rel=1e-12)
    assert "paired t over 4 seeds" in found.note and "wide" in found.note


def test_the_bootstrap_is_seeded_and_its_p_agrees_with_its_bounds() -> None:
    values = np.random.default_rng(1).gamma(4, size=12) - 3
    first, again = stats.mean_interval(values, seed=3), stats.mean_interval(values, seed=3)
    assert first == again and first.method == "studentised bootstrap"
    assert first != stats.mean_interval(values, seed=4)
    for shift in (0.0, first.low - 1e-6, first.low + 1e-2, -first.mean):
        moved = stats.mean_interval(values - shift, seed=3)
        assert (moved.p < 0.05) == (moved.low > 0 or moved.high < 0)


def test_one_seed_has_no_interval_and_equal_differences_say_so() -> None:
    one = stats.mean_interval(np.array([0.5]))
    assert math.isnan(one.low) and math.isnan(one.p) and "no interval" in one.note
    equal = stats.mean_interval(np.array([0.3, 0.1 + 0.2, 0.3]))
    assert equal.p == 0.25 and math.isnan(equal.low) and "say the same" in equal.note
    assert stats.bounds(equal, "fraction") == "no spread" and stats.bounds(one, "fraction") == "one seed"
    assert stats.mean_interval(np.zeros(3)).p == 1.0
    assert stats.mean_interval(np.full(5, 0.9)).p > 0.05 > stats.mean_interval(np.full(6, 0.9)).p


@pytest.mark.parametrize("values", [np.array([]), np.array([1.0, math.nan]), np.ones((2, 2))])
def test_what_is_not_a_row_of_numbers_is_refused(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite"):
        stats.mean_interval(values)


def test_holm_by_hand_and_untested_pairs_do_not_count() -> None:
    assert stats.holm([0.01, 0.04, 0.03]).tolist() == pytest.approx([0.03, 0.06, 0.06])
    with_gap = stats.holm([0.01, math.nan, 0.04])
    assert with_gap[[0, 2]].tolist() == pytest.approx([0.02, 0.04]) and math.isnan(with_gap[1])


def test_holm_keeps_the_family_error_below_its_level() -> None:
    rng = np.random.default_rng(2)
    wrong = 0
    for _ in range(1500):
        values = rng.normal(size=(5, 4))
        p = 2 * scipy_stats.t.sf(np.abs(values.mean(1)) / (values.std(1, ddof=1) / 2), 3)
        wrong += bool((stats.holm(list(p)) < 0.05).any())
    assert wrong / 1500 < 0.065


def test_differences_are_paired_by_seed_and_positive_is_better(tmp_path: Path, generate: Callable[..., int]) -> None:
    generate(tmp_path, tasks=("norm",), rewards=("naive",), seeds=(0, 1, 2, 3))
    generate(tmp_path, tasks=("norm",), rewards=("adam_metagrad",), seeds=(3, 1, 7))
    (block,) = summary.blocks(load(tmp_path)[0])
    (found,) = stats.against(block, "naive")
    by_seed = {
        (row.reward, seed): value for row in block.rows for seed, value in zip(row.seeds, row.headline, strict=True)
    }
    assert found.seeds == (1, 3)
    assert found.differences.tolist() == [by_seed["naive", k] - by_seed["adam_metagrad", k] for k in (1, 3)]
    assert found.interval.mean > 0.5


def test_each_variant_meets_the_reference_of_its_own(tmp_path: Path, generate: Callable[..., int]) -> None:
    generate(tmp_path, tasks=("67",), rewards=("adam_metagrad", "naive"), variants=(1, 8))
    (block,) = summary.blocks(load(tmp_path)[0])
    found = {(c.name, c.reference) for c in stats.against(block, "naive")}
    assert found == {("adam_metagrad (T=1)", "naive (T=1)"), ("adam_metagrad (T=8)", "naive (T=8)")}


def test_far_rewards_separate_and_equal_ones_do_not(tmp_path: Path, generate: Callable[..., int]) -> None:
    generate(tmp_path, tasks=("lambada_es",), rewards=("adam_metagrad", "naive"), noise=0.01)
    generate(
        tmp_path,
        tasks=("lambada_es",),
        rewards=("levenshtein",),
        shift={("lambada_es", "levenshtein"): -0.05},
        noise=0.01,
    )
    (block,) = summary.blocks(load(tmp_path)[0])
    verdict = {frozenset((c.name, c.reference)): c.separated for c in stats.pairs(block)}
    assert verdict[frozenset(("adam_metagrad", "naive"))]
    assert not verdict[frozenset(("levenshtein", "naive"))]
