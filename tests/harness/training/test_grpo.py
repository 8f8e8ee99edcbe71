"""The pure parts of the runner against plain Python, and the checks that stop lying numbers."""

from __future__ import annotations

import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.contracts import HarnessError, SignalError
from harness.settings.schema import GeneratorSettings, GrpoSettings
from harness.training.advantages import advantages, check_rewards, factor, moments, rescale, zero_spread
from harness.training.checks import check_advantages
from harness.training.grpo import CheckedReward, make_trainer
from harness.training.prompts import build_prompts, encode_prompt

finite = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 3))


@given(st.lists(st.lists(finite, min_size=4, max_size=4), min_size=1, max_size=5), st.sampled_from([1e-6, 1e-4, 0.1]))
def test_group_advantages_equal_the_formula(groups, eps):
    flat = torch.tensor([value for group in groups for value in group], dtype=torch.float64)
    expected = [(v - statistics.mean(g)) / (statistics.stdev(g) + eps) for g in groups for v in g]
    assert advantages(flat, 4, "group", eps).tolist() == pytest.approx(expected, abs=1e-6)


@given(st.lists(finite, min_size=8, max_size=8))
def test_batch_advantages_use_one_mean_and_deviation(values):
    expected = [(v - statistics.mean(values)) / (statistics.stdev(values) + 1e-6) for v in values]
    got = advantages(torch.tensor(values, dtype=torch.float64), 4, "batch", 1e-6)
    assert got.tolist() == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.lists(finite, min_size=4, max_size=4), min_size=1, max_size=5))
def test_batch_scale_keeps_the_groups_means_and_takes_one_deviation(groups):
    flat = [v for g in groups for v in g]
    expected = [(v - statistics.mean(g)) / (statistics.stdev(flat) + 1e-6) for g in groups for v in g]
    got = advantages(torch.tensor(flat, dtype=torch.float64), 4, "group", 1e-6, "batch")
    assert got.tolist() == pytest.approx(expected, abs=1e-6)


def test_tiny_raw_rewards_keep_their_advantages():
    raw = torch.tensor([1e-9, 3e-9, 2e-9, 5e-9], dtype=torch.float32)
    expected = advantages(raw.double() * 1e9, 4, "group", 1e-6)
    assert torch.allclose(advantages(rescale(raw), 4, "group", 1e-6), expected, rtol=1e-4)


def test_equal_rewards_give_zero_advantages_and_are_counted():
    scaled = rescale(torch.full((8,), 0.3))
    assert scaled.tolist() == [0.0] * 8
    assert advantages(scaled, 4, "group", 1e-6).tolist() == [0.0] * 8
    assert zero_spread(scaled, 4) == 1.0
    assert zero_spread(torch.tensor([1.0, 1.0, 1.0, 2.0]), 2) == 0.5


SCALES = [1e300, 1e-300, 1e-150, 1e150, 2.0**1015, 2.0**-1020]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("kind", ["group", "batch"])
def test_rewards_of_any_scale_are_scaled_safely(scale, kind):
    """Their squares leave float64; the advantages are those of the same rewards near 1."""
    plain = torch.tensor([1.0, 2.0, -3.0, 4.0, 0.5, 0.5, 8.0, -7.0], dtype=torch.float64)
    for rewards in (plain, plain.abs()):
        assert torch.allclose(rescale(rewards * scale), rescale(rewards), rtol=1e-12)
        assert zero_spread(rescale(rewards * scale), 4) == zero_spread(rescale(rewards), 4)
        mean, deviation = moments(rewards * scale)
        assert mean == pytest.approx(float(rewards.mean()) * scale) and deviation == pytest.approx(
            float(rewards.std()) * scale
        )
        if scale > 1:  # far above any epsilon
            assert torch.allclose(advantages(rewards * scale, 4, kind, 1e-6), advantages(rewards, 4, kind, 0.0))


ORDINARY = st.floats(-1e9, 1e9).filter(lambda value: value == 0 or abs(value) > 1e-60)
"""Their differences have squares that float64 holds, at the scales below too."""


@given(st.lists(ORDINARY, min_size=8, max_size=8), st.sampled_from([1e-9, 1e-30, 1.0, 1e30]))
def test_ordinary_rewards_are_scaled_to_the_last_bit_as_ever(values, scale):
    raw = torch.tensor(values, dtype=torch.float64) * scale
    if float(raw.amax() - raw.amin()) > 1e-100:
        assert factor(raw) == 1.0
        assert torch.equal(rescale(raw), raw / raw.std())
    assert moments(raw) == (float(raw.mean()), float(raw.std()))


def test_advantages_that_teach_nothing_though_rewards_differ_are_an_error():
    raw = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64) * 1e-60
    lost = advantages(raw, 4, "group", 1e-6).to(torch.float32)
    with pytest.raises(SignalError, match="all 4 advantages are 0 though the rewards differ.*rescale=true"):
        check_advantages(lost, zero_spread(rescale(raw), 4))
    check_advantages(torch.zeros(4), 1.0)
    equal_in_groups = torch.tensor([1.0, 1.0, 2.0, 2.0], dtype=torch.float64)
    found = advantages(rescale(equal_in_groups), 2, "group", 1e-6)
    check_advantages(found, zero_spread(rescale(equal_in_groups), 2))
    assert not found.any()


@pytest.mark.parametrize(
    "values",
    [{"a": 1.0, "b": 2.0}, {1.0, 2.0}, "12", b"12", ["1.0", "2.0"], iter(["1", "2"]), [10**400, 1.0], 5],
    ids=["dict", "set", "text", "bytes", "texts", "iterator", "beyond a float", "number"],
)
def test_what_is_no_list_of_numbers_is_refused(values):
    with pytest.raises(SignalError, match="'mine' must return a list of numbers"):
        check_rewards("mine", values, ["a", "b"])


def test_lists_of_numbers_of_other_kinds_are_taken():
    import numpy as np

    for values in (
        [1, 2.0],
        (1, 2),
        np.array([1, 2]),
        torch.tensor([1.0, 2.0]),
        [np.float32(1), True + 1],
        iter([1, 2]),
    ):
        assert check_rewards("mine", values, ["a", "b"]) == [1.0, 2.0]


def test_a_checked_reward_keeps_its_last_call_as_it_was_given():
    fine = [1.0, 1.0 + 1e-12]  # float32, in which TRL stores rewards, cannot tell them apart

    def mine(completions, credit_characters, **columns):
        if columns["credited"]:
            credit_characters([[0.5], [0.25]])
        return fine

    checked = CheckedReward(mine)
    assert checked.__name__ == "mine" and checked.last is None
    assert checked(prompts=["p", "p"], completions=["a", "b"], credited=True) == fine
    assert (checked.last.raw, checked.last.credits) == (fine, [[0.5], [0.25]])
    checked(prompts=["p", "p"], completions=["a", "b"], credited=False)
    assert checked.last.credits is None  # not those of the call before


@pytest.mark.parametrize("bad", [[0.0, float("nan")], [float("inf"), 1.0], [1.0], [1.0, None], None, [1.0, "x"]])
def test_bad_rewards_stop_and_name_the_reward(bad):
    with pytest.raises(SignalError, match="mine"):
        check_rewards("mine", bad, ["first text", "second text"])


def test_bad_rewards_name_the_example():
    with pytest.raises(SignalError, match="#1 nan for 'second text'"):
        check_rewards("mine", [0.0, float("nan")], ["first text", "second text"])


@pytest.mark.parametrize("template", [None, "{% for m in messages %}[{{ m.content }}]{% endfor %}"])
@pytest.mark.parametrize("words", [1, 40, 4000])
def test_prompts_fit(template, words, make_tokenizer):
    tokenizer = make_tokenizer(template)
    settings = GeneratorSettings(model="x", prompt="Say: <article>", max_prompt_tokens=64)
    article = "palabra ñ " * words
    prompt, short, again = build_prompts(tokenizer, settings, [article, "ñ", article])
    assert isinstance(prompt, str) == (template is None)
    assert len(encode_prompt(tokenizer, prompt)) <= 64
    assert again == prompt and [short] == build_prompts(tokenizer, settings, ["ñ"]) != [prompt]
    assert build_prompts(tokenizer, settings, []) == []


def test_prompt_longer_than_the_limit_is_refused(make_tokenizer):
    settings = GeneratorSettings(model="x", prompt="A long prompt <article>", max_prompt_tokens=8)
    with pytest.raises(HarnessError, match="max_prompt_tokens"):
        build_prompts(make_tokenizer(), settings, ["text"])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_true_positions_make_padding_invisible(family, make_model):
    from harness.training.grpo import _true_positions

    model = make_model(family).double().eval()
    ids, pad = torch.tensor([[65, 66, 67, 68]]), torch.full((1, 5), 258)
    alone = model(input_ids=ids).logits[0]
    padded = {"input_ids": torch.cat([pad, ids], 1), "attention_mask": torch.tensor([[0] * 5 + [1] * 4])}
    if family == "gpt2":
        assert not torch.allclose(model(**padded).logits[0, 5:], alone)  # as TRL asks
    model.register_forward_pre_hook(_true_positions, with_kwargs=True)
    assert torch.allclose(model(**padded).logits[0, 5:], alone, atol=1e-12)


@pytest.fixture
def train(make_model, make_tokenizer, tmp_path):
    """`train(reward, **settings)` -> TRL's logs of six steps of a policy far from uniform. The default reward tells
    nothing apart."""

    def run(reward=lambda completions, **_: [0.0] * len(completions), **settings):
        model, logs = make_model("gpt2", seed=3), []
        with torch.no_grad():
            model.transformer.ln_f.weight.mul_(20)
        make_trainer(
            model,
            make_tokenizer(),
            ["read"] * 4,
            reward,
            advantage="group",
            seed=0,
            scratch=str(tmp_path),
            generator=GeneratorSettings(model="-", prompt="<article>", max_prompt_tokens=8, max_completion_tokens=4),
            grpo=GrpoSettings(steps=6, prompts_per_step=4, rollouts_per_prompt=2, lr=1e-2, **settings),
            on_step=lambda report: logs.append(report.logs),
        ).train()
        return logs

    return run


def test_an_entropy_bonus_keeps_the_policy_broad(train):
    without, bonus = ([logs["entropy"] for logs in train(entropy_coef=value)] for value in (0.0, 1.0))
    assert bonus[0] == pytest.approx(without[0])
    assert without[-1] == pytest.approx(without[0], rel=0.1)  # other rollouts, the same policy
    assert bonus[-1] > 1.1 * bonus[0]


def test_tokens_that_are_credited_become_more_frequent(train):
    """All rewards are equal, so only the credit of the characters can teach anything."""
    shares = []

    def reward(completions, credit_characters, **_):
        good = [[float(ord(c) % 2 == 0) for c in text] for text in completions]
        shares.append(sum(map(sum, good)) / max(1, sum(map(len, good))))
        credit_characters(good)
        return [0.0] * len(completions)

    train(reward)
    assert shares[-1] > shares[0] + 0.2


RATES = {
    "constant": [1, 1, 1, 1, 1, 1],
    "linear": [6 / 6, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6],
    "late_linear": [1, 1, 1, 1, 1, 1 / 2],
}


@pytest.mark.parametrize("schedule", RATES)
def test_the_rate_follows_its_schedule(schedule, train):
    assert [logs["learning_rate"] for logs in train(lr_schedule=schedule)] == pytest.approx(
        [1e-2 * share for share in RATES[schedule]]
    )
