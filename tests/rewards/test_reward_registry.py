"""What must hold for every registered reward: its declarations, TRL's calling convention, a light import."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from harness.contracts import Needs, RewardContext, TaskContext
from harness.registry import REWARDS, TASKS, unsupported
from harness.settings.schema import InnerSettings, OptimizerSettings
from tests.helpers.command import python

BUILT_IN = {"adam_metagrad", "sgd_metagrad", "naive", "embedding", "fasttext", "levenshtein"}
ROLLOUTS = ["la noche era fría", "the dogs saw the garden", "el niño\nabrió", "", "the river", "la plaza"]


@pytest.fixture(scope="module")
def context(model, tokenizer, language_id, embedding, spanish):
    from harness.training.inner import InnerTrainer

    assets = {"embedded:embedding": embedding, "embedded:language_id": language_id}
    task = TASKS.get("lambada_es").factory(TaskContext({}, references=lambda split: spanish, asset=assets.__getitem__))
    settings = InnerSettings(optimizer=OptimizerSettings(lr=1e-3), max_tokens=16)
    inner = InnerTrainer(model, tokenizer, settings)
    return RewardContext(
        task,
        num_generations=2,
        cross_group=True,
        load_inner=lambda: inner,
        load_tokenizer=lambda: tokenizer,
        asset=assets.__getitem__,
    )


def test_the_six_are_there():
    assert set(REWARDS.names()) >= BUILT_IN


@pytest.mark.parametrize("name", REWARDS.names())
def test_declarations(name):
    entry = REWARDS.get(name)
    assert entry.name == name and isinstance(entry.needs, Needs) and entry.advantage in ("group", "batch")
    assert entry.summary and "\n" not in entry.summary and len(entry.summary) <= 100
    assert entry.needs.metric or entry.needs.references or not entry.needs.packages
    assert set(entry.asset_options) <= set(entry.options or entry.asset_options)
    assert unsupported(TASKS.get("lambada_es"), entry) is None


def test_only_naive_is_what_others_are_compared_with():
    assert [entry.name for entry in REWARDS if entry.baseline] == ["naive"]


@pytest.mark.parametrize("cross_group", [True, False])
@pytest.mark.parametrize("name", REWARDS.names())
def test_targets_are_trained_as_declared(name, cross_group, context, monkeypatch):
    """On as many training sets as the declaration says, of one size, through the engine or plainly."""
    from harness.training.inner import InnerTrainer

    sizes: dict[str, list[int]] = {"metagradient": [], "train": []}

    def noting(method):
        whole = getattr(InnerTrainer, method)

        def noted(self, texts, *rest, **named):
            sizes[method].append(len(texts))
            return whole(self, texts, *rest, **named)

        return noted

    for method in sizes:
        monkeypatch.setattr(InnerTrainer, method, noting(method))
    reward = REWARDS.get(name).factory(replace(context, cross_group=cross_group))
    reward(prompts=["p"] * 6, completions=list(ROLLOUTS), completion_ids=[[1]] * 6)
    training = REWARDS.get(name).training
    expected: dict[str, list[int]] = {"metagradient": [], "train": []}
    if training is not None:
        sets = training.sets(cross_group, context.num_generations)
        expected["metagradient" if training.metagradient else "train"] = [6 // sets] * sets
    assert sizes == expected


@pytest.mark.parametrize("name", REWARDS.names())
def test_trl_contract(name, context):
    reward = REWARDS.get(name).factory(context)
    assert reward.__name__ == name  # TRL logs under it
    ids = [[1, 2]] * len(ROLLOUTS)
    plain = reward(prompts=["p"] * len(ROLLOUTS), completions=list(ROLLOUTS), completion_ids=ids)
    assert type(plain) is list and len(plain) == len(ROLLOUTS)
    assert all(type(value) is float and math.isfinite(value) for value in plain)
    talked = reward(
        prompts=[[{"role": "user", "content": "p"}]] * len(ROLLOUTS),
        completions=[[{"role": "assistant", "content": text}] for text in ROLLOUTS],
        completion_ids=ids,
        article=["x"] * len(ROLLOUTS),
        trainer_state=object(),
        log_extra=lambda column, values: None,
        log_metric=lambda key, value: None,
    )
    assert talked == plain  # same texts, same numbers, whatever else comes along
    assert len(set(plain)) > 1


@pytest.mark.parametrize("name", REWARDS.names())
def test_a_batch_of_empty_rollouts_gives_numbers(name, context):
    reward = REWARDS.get(name).factory(context)
    rewards = reward(prompts=["p"] * 4, completions=[""] * 4, completion_ids=[[]] * 4)
    assert len(rewards) == 4 and all(math.isfinite(value) for value in rewards)


def test_looking_up_rewards_and_tasks_loads_nothing_heavy():
    heavy = ("torch", "transformers", "sentence_transformers", "fasttext", "rapidfuzz", "numpy")
    code = (
        "import sys; from harness.registry import REWARDS, TASKS; names = REWARDS.names() + TASKS.names(); "
        f"print(len(names), [name for name in {heavy!r} if name in sys.modules])"
    )
    count, loaded = python(code).split(" ", 1)
    assert int(count) >= len(BUILT_IN) + 4 and loaded == "[]"
