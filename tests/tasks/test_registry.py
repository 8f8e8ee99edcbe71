"""Every registered task: what it declares, which rewards it can be paired with, and that importing it is light."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contracts import HarnessError, Headline, Measure, Offers
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
    declared = entry.declares
    assert set(declared.asset_options) <= set(declared.options or declared.asset_options)
    assert set(declared.key_measures or ()) <= set(names) - {task.headline.name}
    assert declared.figure is None or set(declared.figure.measures) & set(names)
    cost = declared.metric_cost({})
    assert cost is None or min(cost.texts, cost.tokens, cost.scored, cost.batch) > 0


@pytest.mark.parametrize("name", ["lambada_de", "lambada_it"])
def test_the_metric_s_cost_follows_the_options(name):
    cost = TASKS.get(name).declares.metric_cost
    assert (cost({}).texts, cost({}).batch) == (2320, 32)
    assert cost({"metric_examples": 64, "metric_microbatch": 8}) == replace(cost({}), texts=64, batch=8)
    with pytest.raises(HarnessError, match="metric_examples"):
        cost({"metric_examples": "many"})


def test_whose_texts_are_not_english():
    found = {entry.name: entry.declares.language for entry in TASKS if entry.declares.language != "en"}
    assert {name: found[name] for name in sorted(BUILT_IN & set(found))} == {
        f"lambada_{language}": language for language in ("de", "es", "fr", "it")
    }


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
    assert {name for name in TASKS.names() if TASKS.get(name).declares.greedy_validation} == {"uuid"}


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
