"""Every registered task: what it declares, which rewards it can be paired with, and that importing it is light."""

from __future__ import annotations

import pytest

from harness.contracts import Headline, Measure, Offers
from harness.registry import REWARDS, TASKS, unsupported
from tests.helpers.command import python

BUILT_IN = {"67", "lambada_de", "lambada_es", "lambada_fr", "lambada_it", "norm", "qr", "uuid"}
SIMILARITY = ["embedding", "fasttext", "levenshtein"]


def test_the_paper_s_eight_tasks_are_there():
    assert set(TASKS.names()) >= BUILT_IN


@pytest.mark.parametrize("name", TASKS.names())
def test_a_task_declares_itself(name):
    entry = TASKS.get(name)
    task = entry.factory
    assert entry.name == task.name == name
    assert entry.summary and "\n" not in entry.summary and len(entry.summary) <= 120
    assert isinstance(task.offers, Offers)
    assert isinstance(task.headline, Headline) and task.headline.direction in ("higher", "lower")
    measures = (task.headline, *task.measures)
    assert all(isinstance(measure, Measure) and measure.summary for measure in measures)
    names = [measure.name for measure in measures]
    assert len(names) == len(set(names))
    assert all(measure.direction in ("higher", "lower", None) for measure in measures)
    for method in ("references", "metric", "evaluate"):
        assert callable(getattr(task, method))


@pytest.mark.parametrize("task", sorted(BUILT_IN))
@pytest.mark.parametrize("reward", SIMILARITY)
def test_a_similarity_reward_needs_reference_texts(task, reward):
    why = unsupported(TASKS.get(task), REWARDS.get(reward))
    if task.startswith("lambada_"):
        assert why is None
    else:
        assert why == "the task has no reference texts"


@pytest.mark.parametrize("task", sorted(BUILT_IN))
@pytest.mark.parametrize("reward", ["adam_metagrad", "sgd_metagrad", "naive"])
def test_a_reward_on_the_metric_runs_everywhere(task, reward):
    assert unsupported(TASKS.get(task), REWARDS.get(reward)) is None


def test_only_uuid_is_validated_greedily():
    assert {name for name in TASKS.names() if getattr(TASKS.get(name).factory, "greedy_validation", False)} == {"uuid"}


def test_importing_the_tasks_imports_nothing_heavy():
    heavy = ("torch", "transformers", "cv2", "matplotlib", "segno", "numpy", "PIL")
    code = (
        "import importlib, pkgutil, sys, tasks\n"
        "names = [m.name for m in pkgutil.iter_modules(tasks.__path__) if not m.name.startswith('_')]\n"
        "[importlib.import_module(f'tasks.{name}') for name in names]\n"
        f"print(len(names), [m for m in {heavy!r} if m in sys.modules])"
    )
    count, loaded = python(code).split(" ", 1)
    assert int(count) >= 4 and loaded == "[]"
