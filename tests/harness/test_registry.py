"""Registries: names, nearest names, duplicates, capabilities, entry points, and that nothing heavy is imported."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import pytest

from harness.contracts import HarnessError, Headline, MetricCost, Needs, Offers, TaskDeclarations, Training
from harness.registry import (
    REWARDS,
    TASKS,
    Registry,
    RewardEntry,
    TaskEntry,
    register_reward,
    register_task,
    unsupported,
)
from tests.helpers.command import python


def test_a_name_is_taken_once():
    registry: Registry[str] = Registry("reward", "rewards", "none")
    registry.add("mine", "a")
    with pytest.raises(HarnessError, match="registered already"):
        registry.add("mine", "b")


def test_what_a_session_defined_it_may_define_anew(monkeypatch):
    """As when a notebook's cell is run again; nobody takes a name of a package's."""
    REWARDS.names()
    monkeypatch.setattr(REWARDS, "_entries", dict(REWARDS._entries))
    cell = "def make(context): return {}\nregister_reward('{}', summary='{}')(make)"
    for number in (1, 2):
        exec(cell.format(None, "mine", number), {"__name__": "__main__", "register_reward": register_reward})
    assert REWARDS.get("mine").summary == "2" and not REWARDS.everywhere("mine") and REWARDS.everywhere("naive")
    with pytest.raises(HarnessError, match="registered already"):
        exec(cell.format(None, "naive", 3), {"__name__": "__main__", "register_reward": register_reward})


def test_an_unknown_name_is_answered_with_the_nearest():
    registry: Registry[str] = Registry("reward", "tests_have_no_such_package", "none")
    registry._loaded = True
    registry.add("levenshtein", "a")
    with pytest.raises(HarnessError, match="did you mean levenshtein"):
        registry.get("levenstein")
    with pytest.raises(HarnessError, match="known are levenshtein"):
        registry.get("zzz")


def test_a_wrong_advantage_is_refused():
    with pytest.raises(HarnessError, match="'group' or 'batch'"):
        register_reward("never_registered", advantage="rank")(lambda context: None)


def test_a_name_and_a_summary_are_enough_for_a_reward(register):
    register("shorter", lambda prompts, completions, completion_ids, **columns: [0.0])
    entry = REWARDS.get("shorter")
    assert (entry.needs, entry.advantage, entry.training, entry.baseline) == (Needs(), "group", None, False)
    assert (entry.options, entry.asset_options) == (None, ())


@pytest.mark.parametrize(
    ("training", "cross_group", "sets"),
    [
        (Training(), True, 1),
        (Training(), False, 4),
        (Training(crosses_groups=False), True, 4),
        (Training(metagradient=False), True, 1),
    ],
)
def test_how_many_training_sets_a_step_has(training, cross_group, sets):
    assert training.sets(cross_group, rollouts_per_prompt=4) == sets


def test_a_reward_on_the_metric_is_taken_to_differentiate_it(register):
    register_reward("steep", needs=Needs(metric=True))(lambda context: None)
    assert REWARDS.get("steep").training == Training()


def test_a_task_says_what_it_wants_and_the_rest_holds_anyway():
    plain = TaskDeclarations.of(type("Plain", (), {"name": "plain"}))
    assert plain == TaskDeclarations()
    assert (plain.language, plain.greedy_validation, plain.key_measures, plain.options) == ("en", False, None, None)
    assert plain.metric_cost({}) is None
    own = {"language": "es", "metric_cost": staticmethod(lambda options: MetricCost(options["n"], 2, 1))}
    declared = TaskDeclarations.of(type("Own", (), own))
    assert declared.language == "es" and declared.metric_cost({"n": 7}) == MetricCost(7, 2, 1)


def test_two_figures_cannot_have_one_key(monkeypatch):
    TASKS.names()
    monkeypatch.setattr(TASKS, "_entries", dict(TASKS._entries))
    shared = TASKS.get("norm").declares.figure
    register_task("joins")(type("Joins", (), {"figure": shared}))
    with pytest.raises(HarnessError, match="'clashes' declares a figure 'figure-2' other than that of"):
        register_task("clashes")(type("Clashes", (), {"figure": replace(shared, title="mine")}))


def test_a_name_that_is_not_installed_is_no_entry():
    assert TASKS.find("of_another_package") is None and TASKS.find("norm") is TASKS.get("norm")


READS = {
    TASKS: re.compile(r"ptions\)?\.(?:text|number|integer|boolean)\(\s*\"(\w+)\""),
    REWARDS: re.compile(r"\b(?:asset\(context, \"\w+\", |(?:flag|choice|positive)\(context, |options\.get\()\"(\w+)\""),
}


@pytest.mark.parametrize(("registry", "name"), [(r, name) for r in READS for name in r.names()])
def test_declared_options_are_those_that_the_code_reads(registry, name):
    entry = registry.get(name)
    assert entry.options is not None and all(entry.options.values())
    classes = entry.factory.__mro__[:-1] if inspect.isclass(entry.factory) else [entry.factory]
    read = {option for each in classes for option in READS[registry].findall(inspect.getsource(each))}
    assert set(entry.options) == read


@pytest.mark.parametrize(
    ("offers", "needs", "why"),
    [
        (Offers(), Needs(metric=True), None),
        (Offers(), Needs(references=True), "the task has no reference texts"),
        (Offers(references=True, metric=False), Needs(metric=True), "the task has no differentiable metric"),
        (Offers(), Needs(packages=("no_such_package_here",)), "the package no_such_package_here is not installed"),
    ],
)
def test_capabilities_are_matched_from_declarations(offers, needs, why):
    task = TaskEntry("t", type("T", (), {"offers": offers, "headline": Headline("h")}), "")
    assert unsupported(task, RewardEntry("r", lambda context: None, needs, "group", "")) == why


def test_entry_points_register_what_outside_packages_bring(tmp_path):
    (tmp_path / "outside.py").write_text(
        "from harness.registry import register_reward\n"
        "@register_reward('outside', summary='from another package')\n"
        "def make(context):\n    return lambda prompts, completions, completion_ids, **c: [0.0] * len(completions)\n"
    )
    info = tmp_path / "outside-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[harness.rewards]\noutside = outside\n")
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from harness.registry import REWARDS\nprint(REWARDS.get('outside').summary)"
    )
    assert python(code, str(tmp_path)) == "from another package"


def test_listing_imports_nothing_heavy():
    code = (
        "import sys\nfrom harness.registry import REWARDS, TASKS\nREWARDS.names(), TASKS.names()\n"
        "import harness.cli.app\n"
        "print([m for m in ('torch', 'transformers', 'trl', 'sentence_transformers', 'datasets') if m in sys.modules])"
    )
    assert python(code) == "[]"
