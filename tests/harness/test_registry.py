"""Registries: names, nearest names, duplicates, capabilities, entry points, and that nothing heavy is imported."""

from __future__ import annotations

import inspect
import re

import pytest

from harness.contracts import HarnessError, Headline, Needs, Offers
from harness.registry import REWARDS, TASKS, Registry, RewardEntry, TaskEntry, register_reward, unsupported
from tests.helpers.command import python


def test_a_name_is_taken_once():
    registry: Registry[str] = Registry("reward", "rewards", "none")
    registry.add("mine", "a")
    with pytest.raises(HarnessError, match="registered already"):
        registry.add("mine", "b")


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


READS = {
    TASKS: re.compile(r"ptions\)?\.(?:text|number|integer|boolean)\(\s*\"(\w+)\""),
    REWARDS: re.compile(r"\b(?:asset\(context, \"\w+\"|(?:flag|choice)\(context), \"(\w+)\""),
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
