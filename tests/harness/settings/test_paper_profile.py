"""Each number of the paper's settings against the profile `paper`; `small` runs the same tasks without a gate."""

from __future__ import annotations

import pytest

from harness.grid import cross_product
from harness.planning.shapes import known_assets
from harness.registry import REWARDS, TASKS
from harness.settings.profiles import load_profile, resolve
from tasks.uuid import PAPER_UUID

LAMBADA = ["lambada_de", "lambada_es", "lambada_fr", "lambada_it"]
HEADS = ["qr", "67", "norm"]
LLAMA, GPT2 = "meta-llama/Llama-3.2-1B-Instruct", "openai-community/gpt2"

EVERYWHERE = {
    "generator.max_prompt_tokens": 1024,
    "generator.max_completion_tokens": 128,
    "generator.temperature": 1.0,
    "generator.dtype": "bfloat16",
    "grpo.rollouts_per_prompt": 4,
    "grpo.kl": 0.0,
    "grpo.betas": (0.9, 0.999),
    "grpo.weight_decay": 0.01,
    "grpo.max_grad_norm": 1.0,
    "grpo.clip_low": 0.2,
    "grpo.clip_high": 0.2,
    "grpo.dual_clip": 3.0,
    "grpo.loss": "dapo",
    "grpo.advantage_eps": 1e-6,
    "grpo.rescale": False,
    "target.dtype": "float32",
    "inner.max_tokens": 128,
    "inner.fixed_length": 128,
    "inner.shuffle_seed": 42,
    "inner.trained_padding": 0,
    "inner.score_eos": False,
    "inner.set_steps": "whole",
    "inner.cross_group": True,
}
ADAM = {"name": "adamw", "betas": (0.9, 0.95), "eps": 1e-8, "eps_root": 1e-9, "weight_decay": 1e-4}

# (tasks, settings of the task, learning rates of adam_metagrad / sgd_metagrad / naive; None: the paper has none)
TABLE = [
    (
        LAMBADA,
        {
            "grpo.steps": 120,
            "grpo.prompts_per_step": 256,
            "grpo.lr": 1e-6,
            "inner.steps": 1,
            "data.article_count": 10240,
            "inner.summed_microbatches": 128,
            "validation.every": 5,
            "validation.inner_steps": 1,
            "task.options.metric_fixed_length": 128,
            "task.options.metric_max_tokens": 128,
            "target.dropout": 0.0,
            "reward.options.scale": 8,
        },
        (1e-6, 6.4e-5, 6.4e-5),
    ),
    (
        ["uuid"],
        {
            "grpo.steps": 360,
            "grpo.prompts_per_step": 256,
            "grpo.lr": 1e-6,
            "inner.steps": 1,
            "inner.summed_microbatches": 128,
            "validation.inner_steps": 1,
            "task.options.text": PAPER_UUID,
            "task.options.metric_fixed_length": 128,
            "target.dropout": 0.0,
            "reward.options.scale": 8,
        },
        (1e-6, 6.4e-5, 6.4e-5),
    ),
    (
        ["qr"],
        {
            "grpo.steps": 200,
            "grpo.prompts_per_step": 24576,
            "grpo.lr": 5e-6,
            "inner.steps": 96,
            "inner.summed_microbatches": 8,
            "validation.inner_steps": 96,
            "target.dropout": 0.1,
            "reward.options.scale": 128,
        },
        (5e-6, None, None),
    ),
    (
        ["67"],
        {
            "grpo.steps": 40,
            "grpo.prompts_per_step": 24576,
            "grpo.lr": 5e-6,
            "inner.steps": 96,
            "inner.summed_microbatches": 8,
            "validation.inner_steps": 96,
            "target.dropout": 0.1,
            "reward.options.scale": 128,
        },
        (5e-6, 5.12e-4, 2.56e-4),
    ),
    (
        ["norm"],
        {
            "grpo.steps": 10,
            "grpo.prompts_per_step": 24576,
            "grpo.lr": 5e-6,
            "inner.steps": 96,
            "inner.summed_microbatches": 8,
            "validation.inner_steps": 96,
            "target.dropout": 0.1,
            "reward.options.scale": 128,
        },
        (5e-6, 1.28e-4, 1e-6),
    ),
]


def paper(task: str, reward: str = "adam_metagrad"):
    return resolve(load_profile("paper"), task, reward)


def value(settings, key: str):
    for part in key.split("."):
        settings = settings[part] if isinstance(settings, dict) else getattr(settings, part)
    return settings


@pytest.mark.parametrize("task", TASKS.names())
@pytest.mark.parametrize("key", EVERYWHERE)
def test_numbers_of_every_task(task, key):
    assert value(paper(task), key) == EVERYWHERE[key]


@pytest.mark.parametrize(
    ("task", "key", "expected"), [(t, k, v) for tasks, numbers, _ in TABLE for t in tasks for k, v in numbers.items()]
)
def test_numbers_of_a_task(task, key, expected):
    assert value(paper(task), key) == expected


@pytest.mark.parametrize(
    ("task", "reward", "rate"),
    [
        (task, reward, rate)
        for tasks, _, rates in TABLE
        for task in tasks
        for reward, rate in zip(("adam_metagrad", "sgd_metagrad", "naive"), rates, strict=True)
        if rate is not None
    ],
)
def test_inner_learning_rates_and_optimizers(task, reward, rate):
    optimizer = paper(task, reward).inner.optimizer
    assert optimizer.lr == rate
    if reward == "sgd_metagrad":
        assert (optimizer.name, optimizer.momentum, optimizer.weight_decay) == ("sgd", 0.0, 0.0)
    else:
        assert {key: getattr(optimizer, key) for key in ADAM} == ADAM


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize(("steps", "prompts", "updates"), [(1, 256, 8), (8, 2048, 64), (96, 24576, 768)])
def test_the_columns_over_inner_steps(task, steps, prompts, updates):
    grpo_steps = {"qr": {1: 19200, 8: 2400, 96: 200}, "67": {1: 3840, 8: 480, 96: 40}, "norm": {1: 960, 8: 120, 96: 10}}
    (cell,) = cross_product(load_profile("paper"), [task], ["adam_metagrad"], [0], {}, [steps])
    grpo = cell.settings.grpo
    assert (grpo.prompts_per_step, grpo.updates_per_step, grpo.steps) == (prompts, updates, grpo_steps[task][steps])
    assert cell.settings.validation.inner_steps == 96
    if task != "qr":
        assert cell.settings.validation.every == 10, "GRPO steps, at every T"
    assert grpo.rollouts_per_step == 1024 * steps  # one inner batch is 1024 examples


@pytest.mark.parametrize("task", TASKS.names())
def test_updates_hold_128_sequences(task):
    grpo = paper(task).grpo
    assert grpo.rollouts_per_step // grpo.updates_per_step == 128


@pytest.mark.parametrize("task", TASKS.names())
def test_models_prompt_and_data(task):
    settings = paper(task)
    target = settings.target.model.partition("@")[0]
    assert settings.generator.model.startswith(LLAMA + "@")
    assert (target, settings.target.untie_head) == ((GPT2, True) if task in HEADS else (LLAMA, False))
    assert settings.inner.prepend_bos == (task not in HEADS)
    assert settings.generator.prompt.startswith(
        "Help read the following article and then rephrase it in different terms. R"
    )
    assert settings.generator.prompt.endswith("including the title, year, etc. Here is the article:\n<article>")
    assert "  " not in settings.generator.prompt
    assert settings.data.articles.startswith("wikimedia/wikipedia/20231101.en/")
    if task in LAMBADA:
        assert settings.data.references == f"Tristan/lambada_openai_custom_splits/{task[-2:]}"


@pytest.mark.parametrize("task", TASKS.names())
@pytest.mark.parametrize("reward", REWARDS.names())
def test_small_needs_no_gate_and_every_asset_is_described(task, reward):
    for profile in ("small", "paper"):
        (cell,) = cross_product(load_profile(profile), [task], [reward], [0], {})
        if cell.unsupported:
            continue
        for ref in [ref for part in cell.references() for ref in part]:
            name = "/".join(ref.partition("@")[0].split("/")[:2])
            known = known_assets()[name]
            assert known["licence"] and float(known["bytes"]) > 0
            assert profile == "paper" or "gate" not in known
