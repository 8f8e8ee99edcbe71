"""Grids of seconds on random models: shared by the tests of the runner, of resuming and of faults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.planning.cells import CellPlan
from harness.registry import REWARDS, register_reward
from harness.settings.profiles import load_profile, resolve


@pytest.fixture(scope="session")
def articles(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "articles.jsonl"
    rows = [{"text": f"Article number {i} is about the river {chr(97 + i % 26)}."} for i in range(24)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def quick(model_folder, articles):
    """`quick(**more)` -> assignments for a run of seconds on a random 2-layer model."""

    def make(family: str = "gpt2", **more):
        model = str(model_folder(family))
        return {
            "generator.model": model,
            "target.model": model,
            "data.articles": str(articles),
            "generator.prompt": "Say: <article>",
            "generator.max_prompt_tokens": 48,
            "generator.max_completion_tokens": 12,
            "grpo.steps": 2,
            "grpo.prompts_per_step": 2,
            "grpo.rollouts_per_prompt": 2,
            "grpo.updates_per_step": 1,
            "inner.max_tokens": 16,
            "inner.steps": 1,
            "inner.warmup_steps": 0,
            "validation.prompts": 4,
            "validation.every": 1,
            "validation.inner_steps": None,
        } | {key.replace("__", "."): value for key, value in more.items()}

    return make


@pytest.fixture(scope="session")
def make_plan():
    def make(task: str, reward: str, assignments: dict, seed: int = 0) -> CellPlan:
        settings = resolve(load_profile("tiny"), task, reward, assignments)
        return CellPlan("tiny", task, reward, seed, settings, given=assignments)

    return make


@pytest.fixture
def register(monkeypatch):
    """Registers a reward for one test only."""
    REWARDS.names()
    monkeypatch.setattr(REWARDS, "_entries", dict(REWARDS._entries))
    return lambda name, function: register_reward(name, summary="a reward of the tests")(lambda context: function)
