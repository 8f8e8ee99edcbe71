"""The kit: built-in plug-ins keep their contract, and a broken one is told its fault in a sentence."""

from __future__ import annotations

import json
import random

import pytest
import torch

import harness
from harness.contracts import Evaluation, Headline, Measure, MetricCost, Offers, completion_text
from harness.kit import rewards
from harness.kit.findings import ContractError, Fault
from harness.kit.ranks import under_two_processes
from harness.kit.world import World, task_for, unlike
from harness.registry import REWARDS, TASKS, register_reward, register_task
from tests.helpers.command import ROOT, run_harness

QUICK = {"rollouts": 32, "processes": False}


@pytest.mark.parametrize("name", REWARDS.names())
def test_built_in_rewards_keep_the_contract(name):
    found = harness.check(name, **QUICK)
    found.require()
    assert [each.probe for each in found.findings if each.verdict == "left out"] == ["processes"]


@pytest.mark.parametrize("name", TASKS.names())
def test_built_in_tasks_keep_the_contract(name):
    found = harness.check(name)
    found.require()
    left_out = [each.probe for each in found.findings if each.verdict == "left out"]
    assert left_out in ([], ["references"])


HASHED = """
from harness.contracts import completion_text
from harness.registry import register_reward


@register_reward("hashed", summary="by Python's hash, which is another one in each process")
def make(context):
    return lambda prompts, completions, completion_ids, **columns: [
        float(hash(completion_text(each)) % 1000) for each in completions
    ]
"""


def test_built_in_rewards_are_the_same_under_two_processes(tmp_path, register_factory, monkeypatch):
    """In one launch, as starting takes the longest, and one of a file that is not the same."""
    monkeypatch.setenv("PYTHONHASHSEED", "random")
    (tmp_path / "mine.py").write_text(HASHED)
    asked = [(name, task_for(name, ""), name, {}) for name in REWARDS.names()]
    file = str(tmp_path / "mine.py")
    *found, hashed = under_two_processes([*asked, (file, "norm", "hashed", {})])
    for (_, task, name, given), ranks in zip(asked, found, strict=True):
        world = World(task, name, given)
        alone = world.rewards(world.batch)
        assert len(ranks) == 2 and [unlike(alone, other) for other in ranks] == [[], []], name
    monkeypatch.setattr(rewards, "under_two_processes", lambda asked: [hashed])
    (fault,) = harness.check(file, only="processes").faults
    assert (fault.subject, fault.probe) == ("reward hashed", "processes")
    assert "for process 0 of two than for one alone" in fault.sentence


# ------------------------------------------------------------------------------------------------------ broken rewards


def lengths(completions) -> list[float]:
    return [float(len(completion_text(each))) for each in completions]


class Resumed:
    """Remembers how often it was asked and what it saw, and lets both be saved."""

    def __init__(self) -> None:
        self.calls, self.total = 0, 0.0

    def __call__(self, prompts, completions, completion_ids, **columns):
        self.calls, self.total = self.calls + 1, self.total + sum(lengths(completions))
        return [value * self.calls + self.total for value in lengths(completions)]

    def state_dict(self):
        return {"calls": self.calls, "total": self.total}

    def load_state_dict(self, state):
        self.calls, self.total = state["calls"], state["total"]


class Forgets(Resumed):
    def state_dict(self):
        return {"calls": 0, "total": self.total}


class KeepsTensors(Resumed):
    def state_dict(self):
        return {"calls": torch.tensor(self.calls), "total": self.total}


class OnlySaves:
    def __call__(self, prompts, completions, completion_ids, **columns):
        return lengths(completions)

    def state_dict(self):
        return {}


def spoils(completions):
    found = lengths(completions)
    completions.reverse()
    return found


def growing(context):
    """A reward that grows from call to call and has no state to save."""
    calls = []

    def reward(prompts, completions, completion_ids, **columns):
        calls.append(1)
        return [value * len(calls) for value in lengths(completions)]

    return reward


def of(function):
    """A factory of a reward that looks at completions alone."""
    return lambda context: lambda prompts, completions, completion_ids, **columns: function(completions)


def seeded(context):
    rng = random.Random()
    return lambda prompts, completions, completion_ids, **columns: [rng.random() for _ in completions]


BROKEN_REWARDS = {
    "is no function": (lambda context: 3, "made", "returns a int; it has to return TRL's reward callable"),
    "cannot be made": (lambda context: 1 / 0, "made", "raises ZeroDivisionError when it is made"),
    "too few": (of(lambda texts: lengths(texts)[1:]), "finite", "returned 15 numbers for 16 completions"),
    "not a number": (of(lambda texts: [float("nan"), *lengths(texts)[1:]]), "finite", "is not finite for 1 of 16"),
    "a mapping": (of(lambda texts: dict(enumerate(texts))), "finite", "must return a list of numbers, not a dict"),
    "credits one character": (
        lambda context: lambda prompts, completions, completion_ids, credit_characters=None, **columns: (
            credit_characters and credit_characters([[1.0] for _ in completions]) or lengths(completions)
        ),
        "finite",
        "must credit every character of every completion",
    ),
    "spoils its inputs": (of(spoils), "inputs", "It changes its completions; others read them after it"),
    "by place": (
        of(lambda texts: [value + place for place, value in enumerate(lengths(texts))]),
        "order",
        "rewards are others when the rollouts come in another order",
    ),
    "random": (seeded, "deterministic", "it is random, so give it a generator with a seed"),
    "empty": (of(lambda texts: [1 / value for value in lengths(texts)]), "empty", "ZeroDivisionError on empty"),
    "all empty": (
        of(lambda texts: [value / max(lengths(texts)) for value in lengths(texts)]), "empty", "ZeroDivisionError on",
    ),
    "long": (
        of(lambda texts: [float(eval("+".join("1" * min(int(n), 1000)) or "0")) / (n < 5000) for n in lengths(texts)]),
        "long",
        "ZeroDivisionError on a long completion",
    ),
    "Latin": (
        of(lambda texts: [float(len(completion_text(text).encode("cp1252"))) for text in texts]),
        "scripts",
        "UnicodeEncodeError on texts that are not Latin",
    ),
    "strings alone": (of(lambda texts: [float(len(text)) for text in texts]), "conversational", "completion_text"),
    "groups alone": (
        lambda context: lambda prompts, completions, completion_ids, **columns: [
            value / (context.num_generations - 1) for value in lengths(completions)
        ],
        "generations",
        "ZeroDivisionError with 1 or 4 rollouts a prompt",
    ),
    "remembers": (growing, "state", "it remembers something, so give it state_dict and load_state_dict"),
    "forgets": (lambda context: Forgets(), "state", "its state_dict forgets something that rewards depend on"),
    "keeps tensors": (lambda context: KeepsTensors(), "state", "is no plain JSON data"),
    "only saves": (lambda context: OnlySaves(), "state", "has state_dict alone; a checkpoint needs state_dict and"),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN_REWARDS)
def test_a_broken_reward_is_told_its_fault(fault, register_factory):
    factory, probe, words = BROKEN_REWARDS[fault]
    register_factory("broken", factory)
    found = harness.check("broken", only=probe)
    said = {each.probe: each.sentence for each in found.faults}
    assert words in said[probe], said
    with pytest.raises(ContractError, match="reward broken, "):
        found.require()


def test_only_the_promise_that_is_broken_is_named(register_factory):
    """Else a reader would not know where to look."""
    for fault in ("spoils its inputs", "empty", "strings alone", "groups alone", "remembers", "forgets", "by place"):
        factory, probe, _ = BROKEN_REWARDS[fault]
        REWARDS._entries.pop("broken", None)
        register_factory("broken", factory)
        found = harness.check("broken", rollouts=0, processes=False)
        assert {each.probe for each in found.faults} == {probe}, fault


def test_good_rewards_of_ones_own_pass(register_factory):
    register_factory("resumed", lambda context: Resumed())
    found = harness.check("resumed", **QUICK)
    found.require()
    assert "saved and restored, it goes on" in {each.probe: each.sentence for each in found.findings}["state"]
    register_reward("placed", summary="by place, and says so", exchangeable=False)(BROKEN_REWARDS["by place"][0])
    found = harness.check("placed", rollouts=0, processes=False)
    found.require()
    assert [each.probe for each in found.findings if each.verdict == "left out"] == ["order", "processes", "cost"]


def test_a_process_that_fails_ends_the_other_and_says_why():
    with pytest.raises(Fault, match="Process . of two ended with 1: .*There is no file 'missing.py'"):
        under_two_processes([("missing.py", "norm", "missing", {})])


def test_a_file_is_read_anew_each_time(tmp_path, register_factory):
    (tmp_path / "mine.py").write_text(HASHED)
    found = run_harness("check", "mine.py", "--only", "conversational", "--json", cwd=tmp_path)
    data = json.loads(found.out)
    assert found.code == 0 and data["ok"] and {each["subject"] for each in data["findings"]} == {"reward hashed"}
    (tmp_path / "mine.py").write_text(HASHED.replace("hash(completion_text(each)) % 1000", "len(each)"))
    again = run_harness("check", "mine.py", "--only", "conversational", "--json", cwd=tmp_path)
    (fault,) = [each for each in json.loads(again.out)["findings"] if each["verdict"] == "failed"]
    assert again.code == 1 and "completion_text" in fault["sentence"]


# -------------------------------------------------------------------------------------------------------- broken tasks


class Good:
    """A task on the head's norm, from which broken ones differ in one thing."""

    name, summary = "good", "a small norm"
    offers = Offers()
    headline = Headline("norm_of_head", "", "lower", "norm of the head of a target trained on the rollouts")
    measures: tuple = (Measure("texts", "", None, "how many"),)

    def __init__(self, context) -> None:
        self.calls = 0

    def references(self):
        return []

    @staticmethod
    def phi(head):
        return -head.norm()

    def metric(self, inner):
        (name,) = [n for n, p in inner.model.named_parameters() if p is inner.model.get_output_embeddings().weight]
        return lambda params: self.phi(params[name])

    def evaluate(self, rollouts, inner):
        with torch.no_grad():
            return Evaluation(
                {"norm_of_head": -float(self.metric(inner)(inner.train(rollouts))), **self.more(rollouts)}
            )

    def more(self, rollouts):
        return {"texts": len(rollouts)}


def changing(self, rollouts, inner):
    with torch.no_grad():
        inner.model.get_output_embeddings().weight.mul_(0.5)
    return Good.evaluate(self, rollouts, inner)


def counted(self, rollouts, inner):
    found = Good.evaluate(self, rollouts, inner)
    self.calls += 1
    return found


def with_test(split_that_fails):
    def examine(self, model, tokenizer, split):
        if split == split_that_fails:
            raise KeyError(split)
        return {"judged": 1.0}

    return {"examined": (Measure("judged", "", "higher", "a test"),), "examine": examine}


SPLIT_SCALE = lambda self, inner: lambda params: Good.metric(self, inner)(params) * (1 + self.calls)
BROKEN_TASKS = {
    "detached": ({"phi": staticmethod(lambda head: -head.detach().norm())}, "gradient", "does not depend on the param"),
    "half detached": (
        {"phi": staticmethod(lambda head: -head[:100].norm() - head[100:].detach().norm())},
        "gradient",
        "a part of it is cut off (detach, argmax, rounding)",
    ),
    "rounded": ({"phi": staticmethod(lambda head: -head.round().sum())}, "gradient", "is 0 everywhere"),
    "a wrong derivative": ({"phi": staticmethod(lambda head: (head * head.detach()).sum())}, "gradient", "wrong deriv"),
    "a vector": ({"phi": staticmethod(lambda head: -head.norm(dim=1))}, "gradient", "has to return a scalar tensor"),
    "a number": ({"phi": staticmethod(lambda head: -float(head.norm()))}, "gradient", "The metric returns float"),
    "not finite": ({"phi": staticmethod(lambda head: (head * 0).log().sum())}, "gradient", "untrained target is -inf"),
    "a root of 0": (
        {"phi": staticmethod(lambda head: -(head - head.detach()).square().sum().sqrt())},
        "gradient",
        "The gradient of the metric is not finite",
    ),
    "random": (
        {"phi": staticmethod(lambda head: -head.norm() * random.random())}, "fidelity", "another function at each call",
    ),
    "evaluate changes the target": ({"evaluate": changing}, "unchanged", "evaluate changes the target (t"),
    "evaluate changes Phi": (
        {"evaluate": counted, "metric": SPLIT_SCALE}, "unchanged", "Phi of the untrained target is",
    ),
    "undeclared": (
        {"more": lambda self, rollouts: {"words": 3.0}}, "evaluation", "returns the measure 'words', which is not decl",
    ),
    "no headline": (
        {"evaluate": lambda self, rollouts, inner: Evaluation({"texts": 1.0})}, "evaluation", "not return the headline",
    ),
    "no Evaluation": ({"evaluate": lambda self, rollouts, inner: {"texts": 1.0}}, "evaluation", "returns a dict"),
    "not finite measures": (
        {"more": lambda self, rollouts: {"texts": float("inf")}}, "evaluation", "texts is inf; a measure has to be",
    ),
    "another result each time": (
        {"more": lambda self, rollouts: {"texts": random.random()}}, "evaluation", "gives another texts for the same",
    ),
    "labels too short": (
        {"evaluate": lambda self, rollouts, inner: Evaluation({"norm_of_head": 1.0}, {"mood": ["glad"]})},
        "evaluation",
        "label 'mood' must have one entry for each of 8 rollouts",
    ),
    "no test split": (with_test("test"), "references", "examine fails for the split 'test' (KeyError"),
    "no references": ({"offers": Offers(references=True)}, "references", "references() returns none"),
    "no language": (
        {
            "offers": Offers(references=True),
            "language": "xx",
            "__init__": lambda self, context: setattr(self, "read", context.references) or setattr(self, "calls", 0),
            "references": lambda self: self.read("train"),
        },
        "references",
        "unknown language 'xx'",
    ),
    "another name": ({"name": "other"}, "declared", "Its attribute name is 'other', but it is registered as 'broken'"),
    "no direction": ({"headline": Headline("norm_of_head")}, "declared", "a Headline with the direction"),
    "twice": ({"measures": (Measure("texts"), Measure("texts"))}, "declared", "declares the measure 'texts' twice"),
    "unknown key": ({"key_measures": ("word",)}, "declared", "key_measures names 'word'"),
    "no cost": (
        {"metric_cost": staticmethod(lambda options: MetricCost(0, 1, 1))}, "declared", "metric_cost says numbers",
    ),
    "head and more": ({"reads_head_alone": True}, "gradient", "declares reads_head_alone, but its metric reads"),
    "no protocol": ({"metric": None}, "made", "It has no metric; the protocol Task"),
}  # fmt: skip


@pytest.fixture
def register_broken(monkeypatch):
    """Registers a `Good` with other attributes as the task `broken`, for one test."""
    TASKS.names()
    monkeypatch.setattr(TASKS, "_entries", dict(TASKS._entries))

    def register(attributes):
        TASKS._entries.pop("broken", None)
        register_task("broken")(type("Broken", (Good,), {"name": "broken", **attributes}))

    return register


@pytest.mark.parametrize("fault", BROKEN_TASKS)
def test_a_broken_task_is_told_its_fault(fault, register_broken):
    attributes, probe, words = BROKEN_TASKS[fault]
    register_broken(attributes)
    said = {each.probe: each.sentence for each in harness.check("broken", only=[probe]).faults}
    assert words in said[probe], said


def test_a_good_task_of_ones_own_passes(register_broken):
    register_broken(with_test("no such split"))
    found = harness.check("broken")
    found.require()
    assert {each.verdict for each in found.findings} == {"ok"}


# ------------------------------------------------------------------------------------------------------- the command


def test_the_table_says_what_was_found_and_the_exit_code_whether_all_is_well(tmp_path, register):
    register("shorter", lambda prompts, completions, completion_ids, **columns: [-v for v in lengths(completions)])
    found = run_harness("check", "shorter", "--rollouts", "32", cwd=tmp_path, width=100)
    assert found.code == 0, found.out + found.err
    assert "reward shorter" in found.out and "12 ok, 1 left out" in found.out and "32 rollouts of" in found.out
    assert max(map(len, found.out.splitlines())) <= 100


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["naiv"], "There is no reward or task named 'naiv'; did you mean naive"),
        (["missing.py"], "There is no file 'missing.py'; name a Python file that registers"),
        (["empty.py"], "empty.py registers no reward and no task of its own"),
        (["raises.py"], "raises.py could not be run (ZeroDivisionError: division by zero)"),
        (["embedding", "--task", "norm"], "The reward embedding cannot be had for the task norm: the task has no ref"),
        (["naive", "--task", "norn"], "did you mean norm"),
        (["naive", "--set", "reward.options.credit=token"], "None of the chosen rewards reads the option"),
        (["naive", "--set", "grpo.stepz=3"], "grpo.steps"),
        (["naive", "--rollouts", "-1"], "--rollouts"),
        (["naive", "--only", "orders"], "There is no probe named 'orders'; did you mean order"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_two(words, said, tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    (tmp_path / "raises.py").write_text("1 / 0\n")
    found = run_harness("check", *words, cwd=tmp_path)
    assert found.code == 2 and said in found.err and len(found.err.strip().splitlines()) == 1, found.err


def test_options_of_the_plug_in_are_settings():
    harness.check("adam_metagrad", set={"reward.options.credit": "token"}, **QUICK).require()
    with pytest.raises(ContractError, match="made: reward.options.credit must be one of"):
        harness.check("adam_metagrad", set={"reward.options.credit": "words"}, **QUICK).require()


@pytest.mark.parametrize("path", sorted((ROOT / "tasks" / "examples").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_targets_of_the_examples_keep_the_contract(path):
    found = harness.check(str(path), processes=False)
    assert found.ok, found
