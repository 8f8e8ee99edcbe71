"""Contracts, tasks and rewards under a type checker: what they call of each other is what the protocols say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.helpers.command import ROOT

GOOD = """
from collections.abc import Mapping, Sequence
from typing import Any

from harness.contracts import (
    Evaluation, Headline, InnerTraining, Measure, Metric, MetricCost, Offers, RewardContext, RewardFunction, TaskContext
)
from harness.registry import register_reward, register_task


@register_reward("shorter", summary="minus the length in characters")
def make(context: RewardContext) -> RewardFunction:
    def reward(
        prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float]:
        return [-float(len(text)) for text in completions]

    return reward


@register_task("mine")
class Mine:
    name, summary = "mine", "a task of the tests"
    offers, headline = Offers(), Headline("length", direction="lower")
    measures: tuple[Measure, ...] = ()
    language = "es"

    def __init__(self, context: TaskContext) -> None:
        pass

    @staticmethod
    def metric_cost(options: Mapping[str, Any]) -> MetricCost:
        return MetricCost(texts=10, tokens=100, scored=1)

    def references(self) -> list[str]:
        return []

    def metric(self, inner: InnerTraining) -> Metric:
        return lambda params: -params["head"].norm()

    def evaluate(self, rollouts: Sequence[str], inner: InnerTraining) -> Evaluation:
        result = inner.metagradient(rollouts, self.metric(inner), per_token=True)
        parts = [inner.spread(text, own.tolist()) for text, own in zip(rollouts, result.tokens or ())]
        return Evaluation({"length": float(len(parts)) + inner.optimizer.lr})
"""


@pytest.fixture(scope="module")
def check(tmp_path_factory):
    """`check(*arguments)` -> (exit code, output) of mypy with the settings of pyproject.toml."""
    cache = tmp_path_factory.mktemp("mypy")

    def run(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", str(cache)]
        done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
        return done.returncode, done.stdout + done.stderr

    return run


def test_contracts_tasks_and_rewards_have_sound_types(check):
    code, said = check()
    assert code == 0, said


def test_a_task_and_a_reward_of_another_package_pass(check, tmp_path):
    (tmp_path / "outside.py").write_text(GOOD)
    code, said = check(str(tmp_path / "outside.py"))
    assert code == 0, said


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("inner.spread(", "inner.spreads(", '"InnerTraining" has no attribute "spreads"'),
        ("inner.optimizer.lr", "inner.optimizer.rate", '"OptimizerView" has no attribute "rate"'),
        ("per_token=True", "by_token=True", 'Unexpected keyword argument "by_token"'),
        ("return [-float(len(text)) for text in completions]", "return len(completions)", "Incompatible return value"),
        ("-> list[str]:", "-> str:", 'expected "type[Task]"'),
    ],
)
def test_what_the_protocols_do_not_have_is_found(right, wrong, complaint, check, tmp_path):
    assert GOOD.count(right) == 1
    (tmp_path / "outside.py").write_text(GOOD.replace(right, wrong))
    code, said = check(str(tmp_path / "outside.py"))
    assert code == 1 and complaint in said, said
