"""Measures of signals as functions of arrays, against brute force and scipy; what the tables say and escape."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from harness.signals.records import Judged, PoolRecord, SignalRecord, Spec, TruthRecord
from harness.store.atomic import write_json
from reports import signals, site

N, M = 16, 20


def made(*, seed: int = 0, reward: str = "toy", noise: float = 0.0, status: str = "done", reason: str = "") -> Judged:
    """A pool whose truth is linear in hidden values v, and a signal that knows v up to noise."""
    rng = np.random.default_rng(seed)
    v = rng.normal(size=N)
    halves = [sorted(map(int, rng.permutation(N)[: N // 2])) for _ in range(M)]
    removed = [sorted(map(int, rng.permutation(N)[:2])) for _ in range(M)]
    batches = [list(map(int, rng.permutation(N)[: N // 2])) for _ in range(4)]
    r = v + noise * rng.normal(size=N)
    direction = np.array([2 * v[half].sum() - v.sum() for half in halves])
    pool = PoolRecord(
        profile="tiny",
        task="norm",
        seed=seed,
        identity=f"id{seed}",
        spec=Spec(),
        texts=[f"t{i}" for i in range(N)],
        groups=[i // 4 for i in range(N)],
        sources=["generator"] * 8 + ["generator", "article", "other", "target"] * 2,
        articles=["a"] * N,
        halves=halves,
        removed=removed,
        batches=batches,
    )
    truth = TruthRecord(
        identity="k",
        name="adamw, T=1",
        untrained=0.0,
        whole=1.0,
        without_one=list(1.0 - v),
        without_part=[1.0 - v[part].sum() for part in removed],
        halves=list(1.0 + direction),
        changed={"0.1": list(1.0 + 0.1 * direction), "0.3": list(1.0 + 0.3 * direction)},
        one_step=True,
        seconds=1.0,
    )
    done = status == "done"
    signal = SignalRecord(
        profile="tiny",
        task="norm",
        reward=reward,
        seed=seed,
        identity="s",
        status=status,
        reason=reason,
        truths=["k"] if done else [],
        rewards=list(r) if done else [],
        draws=[list(r[batch]) for batch in batches] if done else [],
        seconds_per_1000=3.0 if done else None,
        batch=8,
    )
    return Judged(pool, {"k": truth}, [signal])


def test_spearman_is_scipys_and_0_for_a_constant():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 5, 30), rng.normal(size=30)
    assert signals.spearman(x, y) == pytest.approx(spearmanr(x, y).statistic)
    assert signals.spearman(np.stack([x, y]), np.stack([y, y])) == pytest.approx([spearmanr(x, y).statistic, 1.0])
    assert signals.spearman(np.ones(30), y) == 0.0


def test_auc_is_the_share_of_pairs():
    rng = np.random.default_rng(1)
    scores, positive = rng.integers(0, 6, 40).astype(float), rng.random(40) < 0.3
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[positive] for b in scores[~positive]]
    assert signals.auc(scores, positive) == pytest.approx(np.mean(pairs))
    assert np.isnan(signals.auc(scores, np.zeros(40, bool)))


def test_a_signal_that_is_the_truth_scores_1_everywhere():
    (row,) = signals.rows([made()])
    for name in set(signals.COLUMNS) - {"AUC", "s / 1,000"}:
        assert row.found[name].mean == pytest.approx(1.0), name
    assert all(score == pytest.approx(1.0) and error < 1e-9 for score, error in row.scores.values())
    assert row.found["s / 1,000"].mean == 3.0


def test_a_sign_error_is_seen():
    judged = made()
    judged.signals[0].rewards = [-r for r in judged.signals[0].rewards]
    (row,) = signals.rows([judged])
    assert row.found["halves"].mean == pytest.approx(-1.0) and row.found["leave one out"].mean == pytest.approx(-1.0)
    assert row.found["mixed groups"].mean == pytest.approx(-1.0) and not signals.is_derivative(row)


def test_intervals_are_seeded_and_say_over_what():
    rows = [signals.rows([made(noise=1.0)])[0].found for _ in range(2)]
    assert repr(rows[0]) == repr(rows[1])
    assert rows[0]["halves"].axis == "subsets" and rows[0]["own groups"].axis == "groups"
    assert rows[0]["halves"].low < rows[0]["halves"].mean < rows[0]["halves"].high
    (pooled,) = signals.rows([made(seed=k, noise=1.0) for k in range(3)])
    assert pooled.seeds == (0, 1, 2) and pooled.found["halves"].axis == "seeds" and pooled.found["halves"].n == 3


def test_other_settings_are_never_pooled_as_seeds():
    other = made(seed=0, noise=1.0)
    other.pool.assets["embedded:target"] = "another build"
    found = signals.rows([made(seed=1), other])
    assert [len(row.seeds) for row in found] == [1, 1] and len(signals.blocks(found)) == 2
    assert all("settings" in title for title, _ in signals.blocks(found))
    assert [title for title, _ in signals.blocks(signals.rows([made(seed=k) for k in (0, 1)]))] == ["norm (tiny)"]


def test_an_order_that_hardly_changes_has_a_narrow_interval():
    judged = made()
    judged.signals[0].draws[0][:2] = judged.signals[0].draws[0][1::-1]
    interval = signals.rows([judged])[0].found["repeatability"]
    assert interval.low > 0.5 and interval.low <= interval.mean <= interval.high


def test_where_the_linear_prediction_breaks():
    scores = {0.03: (1.0, 0.01), 0.1: (0.95, 0.4), 0.3: (0.8, 0.6), 1.0: (0.95, 0.9)}
    assert signals.holds_to(scores) == 0.1 and signals.exact_to(scores) == 0.1
    assert signals.holds_to({0.03: (0.2, 0.1)}) is None
    assert signals.holds_to({0.03: (1.0, 0.1), 1.0: (0.9, 0.6)}) == 1.0


def test_failed_and_unsupported_signals_stand_in_the_tables_and_are_escaped():
    found = signals.rows([made(), made(reward="bad", status="failed", reason="<b>@you</b> | x")])
    text = signals.markdown(found)
    assert "<b>" not in text and "@you" not in text and "failed" in text
    assert [row.status.split(":")[0] for row in found] == ["done", "failed"]
    frame = signals.frame(found)
    assert set(frame["measure"]) >= {"halves", "score at change 0.1", ""}


def test_no_records_give_a_sentence():
    assert "No signals" in signals.markdown([])


def test_the_report_shows_signals_beside_results(tmp_path, generate):
    generate(tmp_path / "runs")
    folder = tmp_path / "runs" / "tiny" / "fidelity" / "norm" / "seed0-x"
    judged = made(reward="<i>toy</i>")
    write_json(folder / "pool.json", judged.pool.model_dump())
    write_json(folder / "truth-k.json", judged.truths["k"].model_dump())
    write_json(folder / "reward-toy.json", judged.signals[0].model_dump())
    page = site.build(tmp_path / "runs", tmp_path / "site").read_text(encoding="utf-8")
    assert 'id="panel-signals"' in page and "&lt;i&gt;toy" in page and "<i>toy" not in page
    assert "Signals before any RL" in (tmp_path / "site" / "report.md").read_text(encoding="utf-8")
    assert (tmp_path / "site" / "data" / "signals.csv").stat().st_size > 0
