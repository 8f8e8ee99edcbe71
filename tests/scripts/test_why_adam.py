"""Where rewards come from: parts add up to the engine's metagradient, and small steps of SGD are predicted exactly."""

from __future__ import annotations

import pandas
import pytest

from harness.contracts import TaskContext
from harness.registry import TASKS
from harness.settings.profiles import load_profile, resolve
from harness.signals.truth import in_float64
from harness.training.inner import InnerTrainer
from scripts import why_adam


@pytest.fixture
def bench(make_model, make_tokenizer):
    settings = resolve(load_profile("tiny"), "norm", "").inner
    inner = InnerTrainer(make_model("gpt2"), make_tokenizer(), settings)
    texts = [f"text {i} about {'rivers' * (i % 3)}" for i in range(8)]
    halves = [[(i + k) % 8 for i in range(4)] for k in range(8)]
    return why_adam.Bench(TASKS.get("norm").factory(TaskContext()), texts, halves, in_float64(inner))


def test_shares_add_up_and_sgd_is_predicted(bench):
    trainings = [bench.inner, bench.inner.with_optimizer(name="sgd", lr=1e-4), bench.inner.with_steps(2)]
    parts = pandas.DataFrame(why_adam.coordinates_of(bench, trainings[:2]))  # raises where they miss the engine's
    for name in ("share of the reward", "share of the step"):
        sums = parts.groupby(["optimizer", "lr"])[name].sum()
        assert sums.to_list() == pytest.approx([1.0, 1.0]), name
    assert (parts["median |g|"].groupby(parts["optimizer"]).apply(lambda g: g.is_monotonic_increasing)).all()
    lines = pandas.DataFrame(why_adam.fidelity_of(bench, trainings))
    assert lines["score 0.1"].iloc[1] > 0.99 and lines["error 0.1"].iloc[1] < 0.01
    assert lines["profile order"].iloc[0] == pytest.approx(1.0)
    assert "norm: settings" in why_adam.settings_table(lines.assign(task="norm"))
    assert "share of the reward" in why_adam.coordinates_table(parts.assign(task="norm"))


def test_the_profiles_own_training_comes_first_and_none_twice(bench):
    found = why_adam.grid(bench.inner)
    assert found[0] is bench.inner
    keys = [(each.optimizer.model_dump_json(), each.steps) for each in found]
    assert len(set(keys)) == len(keys)
