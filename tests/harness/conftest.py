"""Grids of seconds on random models: shared by the tests of the runner, of resuming and of faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
def nothing_loads(monkeypatch) -> Iterator[list[str]]:
    """Whatever holds weights must not be loaded while the test runs; the names of what was. A look at the names and
    shapes of a checkpoint (the device "meta") loads none."""
    import fasttext
    import sentence_transformers
    import transformers

    loaded: list[str] = []

    def forbidden(owner: Any, name: str) -> None:
        def load(*arguments: Any, **options: Any) -> None:
            loaded.append(f"{owner.__name__}.{name}")
            raise AssertionError(f"{owner.__name__}.{name} was called")

        monkeypatch.setattr(owner, name, load)

    shapes = vars(transformers.PreTrainedModel)["from_pretrained"].__func__
    forbidden(transformers.PreTrainedModel, "from_pretrained")
    load = transformers.PreTrainedModel.from_pretrained
    looked = lambda kind, *rest, **options: (shapes if options.get("device_map") == "meta" else load)(
        kind, *rest, **options
    )
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", classmethod(looked))
    forbidden(sentence_transformers.SentenceTransformer, "__init__")
    forbidden(fasttext, "load_model")
    yield loaded
    assert loaded == []


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
