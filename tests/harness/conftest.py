"""Grids of seconds on random models: shared by the tests of the runner, of resuming and of faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.registry import REWARDS, register_reward
from tests.helpers import cells


@pytest.fixture(scope="session")
def articles(tmp_path_factory) -> Path:
    return cells.write_articles(tmp_path_factory.mktemp("data") / "articles.jsonl")


@pytest.fixture(scope="session")
def quick(model_folder, articles):
    """`quick(family, **more)` -> assignments for a run of seconds on a random 2-layer model."""
    return lambda family="gpt2", **more: cells.quick_settings(model_folder(family), articles, **more)


@pytest.fixture(scope="session")
def make_cell():
    return cells.make_cell


@pytest.fixture
def register_factory(monkeypatch):
    """`register_factory(name, factory)` registers a reward for one test only."""
    REWARDS.names()
    monkeypatch.setattr(REWARDS, "_entries", dict(REWARDS._entries))
    return lambda name, factory: register_reward(name, summary="a reward of the tests")(factory)


@pytest.fixture
def register(register_factory):
    """The same for a reward that needs nothing of its context."""
    return lambda name, function: register_factory(name, lambda context: function)
