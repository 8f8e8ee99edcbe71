"""Numbers that lie stop the cell with the step named; outputs that mean nothing are flagged in record and table."""

from __future__ import annotations

import math
import signal

import pytest
import torch

from harness.cell import run_cell
from harness.contracts import SignalError
from harness.settings.profiles import load_profile, resolve
from harness.store.frames import load
from harness.training import checks
from reports import tables
from tests.helpers.cells import ignore


def lengths(prompts, completions, completion_ids, **columns):
    return [float(len(ids)) for ids in completion_ids]


def poison(monkeypatch, where: str, at_step: int) -> None:
    """From the step on, the loss, the gradient or a weight is NaN, or an advantage infinite."""
    from harness.training import grpo

    trainer, before = grpo.GeneratorTrainer, grpo.advantages

    def reached(self) -> bool:
        return self.state.global_step + 1 >= at_step

    if where == "advantages":
        calls = []

        def infinite(*arguments, **options):
            calls.append(1)
            return before(*arguments, **options) * (math.inf if len(calls) >= at_step else 1.0)

        monkeypatch.setattr(grpo, "advantages", infinite)
    elif where == "loss":
        compute = trainer._compute_loss
        monkeypatch.setattr(
            trainer, "_compute_loss", lambda self, *a: compute(self, *a) * (math.nan if reached(self) else 1.0)
        )
    else:
        logged = trainer.log

        def log(self, logs, *rest):
            if self.state.global_step >= at_step:
                with torch.no_grad():
                    next(self.model.parameters())[0, 0] = math.nan
            logged(self, logs, *rest)

        monkeypatch.setattr(trainer, "log", log)


@pytest.mark.parametrize(
    ("where", "words"), [("advantages", "advantages are not finite"), ("loss", "loss is nan"), ("weights", "weights")]
)
def test_a_number_that_is_not_finite_ends_the_cell_at_its_step(
    where, words, quick, make_cell, register, tmp_path, monkeypatch
):
    register("test_lengths", lengths)
    poison(monkeypatch, where, 2)
    record = run_cell(make_cell("norm", "test_lengths", quick(grpo__steps=3)), tmp_path, ignore)
    assert record.status == "failed" and record.steps_done == 1
    assert record.reason.startswith("In step 2: ") and words in record.reason


def test_a_headline_that_is_not_finite_ends_the_cell(quick, make_cell, tmp_path, monkeypatch):
    from tasks.norm import Norm

    found = Norm.evaluate
    calls = []

    def evaluate(self, rollouts, inner):
        calls.append(1)
        result = found(self, rollouts, inner)
        if len(calls) == 2:
            result.values[self.headline.name] = math.nan
        return result

    monkeypatch.setattr(Norm, "evaluate", evaluate)
    record = run_cell(make_cell("norm", "naive", quick()), tmp_path, ignore)
    assert record.status == "failed" and record.reason.startswith("In the validation after step 1: ")


def test_another_measure_that_is_not_finite_is_flagged_and_left_out():
    assert checks.finite_values({"a": 1.0, "b": math.inf}, "a") == ({"a": 1.0}, ["b is inf"])
    with pytest.raises(SignalError, match="measure a is nan"):
        checks.finite_values({"a": math.nan}, "a")


@pytest.mark.parametrize(
    ("rollouts", "words"),
    [
        (["", " ", "a", "b"], "2 of 4 rollouts are empty"),
        (["the same"] * 8, "8 rollouts are only 1 different texts"),
        (["a", "b"] * 20, "40 rollouts are only 2 different texts"),
        (["a", "b", "c", "c"], None),
        (["one"], None),
    ],
)
def test_empty_and_identical_outputs_are_flagged(rollouts, words):
    assert checks.flags(rollouts) == ([words] if words else [])


def test_a_collapsed_generator_is_flagged_in_record_and_table(quick, make_cell, tmp_path, monkeypatch):
    from harness.training import generation

    def write(model, tokenizer, prompts, *arguments, **options):
        return generation.Written(["so it goes"] * len(prompts), ["ended"] * len(prompts))

    monkeypatch.setattr(generation, "write", write)
    record = run_cell(make_cell("norm", "naive", quick()), tmp_path, ignore)
    assert record.status == "done"
    assert record.notes == ["at step 2, 4 rollouts are only 1 different texts"]
    wide, long = load(tmp_path)
    assert "done (seed 0 at step 2, 4 rollouts are only 1 different texts)" in tables.markdown(wide, long)


@pytest.mark.parametrize(
    ("where", "advice"),
    [("_generate", "prompts_per_step"), ("_calculate_rewards", "memory_budget"), ("training_step", "microbatch=2")],
)
def test_out_of_memory_ends_the_cell_with_advice(where, advice, quick, make_cell, register, tmp_path, monkeypatch):
    from harness.training.grpo import GeneratorTrainer

    register("test_lengths", lengths)
    before = getattr(GeneratorTrainer, where)

    def exhausted(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.")

    # Below the method, so that the method itself is on the way up.
    monkeypatch.setattr(GeneratorTrainer, where, renamed(where, exhausted))
    record = run_cell(make_cell("norm", "test_lengths", quick()), tmp_path, ignore)
    assert before and record.status == "failed"
    assert record.reason.startswith("In step 1: out of memory") and advice in record.reason


def renamed(name: str, function):
    scope: dict = {"function": function}
    exec(f"def {name}(*arguments, **options):\n    return function(*arguments)", scope)
    return scope[name]


def test_advice_is_for_memory_only():
    settings = resolve(load_profile("tiny"), "norm", "naive", {})
    assert checks.memory_advice(ValueError("no"), settings) is None
    assert "microbatch=16" in checks.memory_advice(MemoryError(), settings)
    assert "DefaultCPUAllocator" not in checks.memory_advice(RuntimeError("can't allocate memory"), settings)


@pytest.mark.parametrize("swallows", [False, True])
def test_a_reward_that_never_returns_ends_at_its_time_limit(swallows, quick, make_cell, register, tmp_path):
    def endless(prompts, completions, completion_ids, **columns):
        while True:
            try:
                while True:
                    pass
            except Exception:
                if not swallows or completions.append("late") or completions.count("late") > 1:
                    raise

    register("endless", endless)
    record = run_cell(make_cell("norm", "endless", quick(reward__seconds=0.3)), tmp_path, ignore)
    assert record.status == "failed" and "reward.seconds=0.3" in record.reason


def test_a_time_limit_that_is_not_reached_changes_nothing(quick, make_cell, tmp_path):
    one, other = (make_cell("norm", "naive", quick(reward__seconds=limit)) for limit in (None, 500.0))
    assert one.record().identity == other.record().identity
    assert run_cell(other, tmp_path, ignore).status == "done"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
