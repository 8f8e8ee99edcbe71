"""adam_metagrad, sgd_metagrad and naive against plain weighted training loops, in float64."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

from harness.contracts import HarnessError, RewardContext
from harness.registry import REWARDS
from harness.settings.schema import InnerSettings, OptimizerSettings
from harness.training.inner import InnerTrainer
from rewards._metagrad import of_family, standardised

TEXTS = ["la luna", "the sun is up", "el mar", "a", "una casa roja", "no"]
G = 2
OPTIMIZERS = {
    "adam_metagrad": OptimizerSettings(name="adamw", lr=1e-2, eps=1e-8, eps_root=1e-6, weight_decay=1e-2),
    "sgd_metagrad": OptimizerSettings(name="sgd", lr=1e-1, weight_decay=0.0),
}


class BetterAtOneLine:
    """Phi = -(mean NLL of one fixed line)."""

    def metric(self, inner):
        ids = torch.tensor([inner.encode("la luna y el mar")])

        def phi(params):
            logits = functional_call(inner.model, dict(params), (), {"input_ids": ids}).logits[0, :-1]
            return -torch.nn.functional.cross_entropy(logits, ids[0, 1:])

        return phi


@pytest.fixture
def make_inner(model, tokenizer):
    def make(optimizer, steps=1):
        settings = InnerSettings(steps=steps, optimizer=optimizer, max_tokens=12, shuffle_seed=None)
        return InnerTrainer(model, tokenizer, settings)

    return make


def make_reward(name, inner, cross_group=True, **options):
    context = RewardContext(
        BetterAtOneLine(), num_generations=G, cross_group=cross_group, load_inner=lambda: inner, options=options
    )
    reward = REWARDS.get(name).factory(context)
    return lambda texts, **columns: reward(["p"] * len(texts), list(texts), [[0]] * len(texts), **columns)


def train_by_hand(inner, texts, weights):
    """Theta_T: each text on its own through the model, the batch loss mean_i w_i l_i, the optimizer written out."""
    optimizer, steps = inner.settings.optimizer, inner.steps
    theta = {name: parameter.detach().clone() for name, parameter in inner.model.named_parameters()}
    first = {name: torch.zeros_like(value) for name, value in theta.items()}
    second = {name: torch.zeros_like(value) for name, value in theta.items()}
    size = len(texts) // steps
    for step in range(steps):
        theta = {name: value.requires_grad_() for name, value in theta.items()}
        loss = 0.0
        for i in range(step * size, (step + 1) * size):
            ids = torch.tensor([inner.encode(texts[i])])
            if ids.shape[1] > 1:  # a lone <bos> has no next token to score
                logits = functional_call(inner.model, theta, (), {"input_ids": ids}).logits[0, :-1]
                loss = loss + weights[i] * torch.nn.functional.cross_entropy(logits, ids[0, 1:]) / size
        grads = dict(zip(theta, torch.autograd.grad(loss, list(theta.values())), strict=True))
        with torch.no_grad():
            for name, g in grads.items():
                if optimizer.name == "sgd":
                    theta[name] = theta[name] - optimizer.lr * g
                    continue
                b1, b2 = optimizer.betas
                first[name] = b1 * first[name] + (1 - b1) * g
                second[name] = b2 * second[name] + (1 - b2) * g * g
                m, v = first[name] / (1 - b1 ** (step + 1)), second[name] / (1 - b2 ** (step + 1))
                update = m / ((v + optimizer.eps_root).sqrt() + optimizer.eps)
                theta[name] = theta[name] - optimizer.lr * (update + optimizer.weight_decay * theta[name])
    return {name: value.detach() for name, value in theta.items()}


def phi_by_hand(inner, texts, weights):
    with torch.no_grad():
        metric = BetterAtOneLine().metric(inner)
    theta = train_by_hand(inner, texts, weights)
    with torch.no_grad():
        return metric(theta).item()


def finite_differences(inner, texts, h=3e-4):
    """dPhi/dw_i by central differences of fourth order."""

    def at(i, shift):
        return phi_by_hand(inner, texts, [1.0 + shift * (k == i) for k in range(len(texts))])

    return [(8 * (at(i, h) - at(i, -h)) - (at(i, 2 * h) - at(i, -2 * h))) / (12 * h) for i in range(len(texts))]


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_metagradient_is_the_derivative_of_phi_in_the_weights(make_inner, name, steps):
    inner = make_inner(OPTIMIZERS[name], steps)
    expected = finite_differences(inner, TEXTS)
    got = make_reward(name, inner)(TEXTS)
    largest = max(map(abs, expected))
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-7 * largest)
    assert len({round(value / largest, 4) for value in got}) == len(TEXTS)  # a signal, not a constant


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_without_cross_group_batching_each_rank_trains_its_own_target(make_inner, name):
    inner = make_inner(OPTIMIZERS[name])
    expected = [0.0] * len(TEXTS)
    for k in range(G):
        expected[k::G] = finite_differences(inner, TEXTS[k::G])
    got = make_reward(name, inner, cross_group=False)(TEXTS)
    largest = max(map(abs, expected))
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-7 * largest)
    together = make_reward(name, inner)(TEXTS)
    assert max(abs(a - b) for a, b in zip(got, together, strict=True)) > 1e-2 * largest


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_empty_rollout_has_weight_zero_and_changes_the_others_as_it_should(make_inner, name):
    texts = ["la luna", "", "el mar", "a"]
    inner = make_inner(OPTIMIZERS[name])
    expected = finite_differences(inner, texts)
    got = make_reward(name, inner)(texts)
    assert expected[1] == got[1] == 0.0
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-7 * max(map(abs, expected)))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_standardised_rewards_are_compared_within_their_inner_step(make_inner, name):
    inner = make_inner(OPTIMIZERS[name], steps=2)  # in order: three texts a step
    raw = torch.tensor(make_reward(name, inner)(TEXTS), dtype=torch.float64).view(2, 3)
    got = make_reward(name, inner, standardise_steps=True)(TEXTS)
    expected = (raw - raw.mean(1, keepdim=True)) / raw.std(1, keepdim=True, correction=0)
    assert got == pytest.approx(expected.flatten().tolist(), rel=1e-9)


def test_a_step_whose_texts_weigh_the_same_gives_no_reward():
    found, scales = standardised(torch.tensor([2.0, 1.0, 2.0, 5.0]), [0, 1, 0, 1])
    assert found.tolist() == [0.0, -1.0, 0.0, 1.0] and scales.tolist() == [0.0, 0.5, 0.0, 0.5]


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("cross_group", [True, False])
@pytest.mark.parametrize("standardise", [True, False])
def test_characters_are_credited_with_parts_of_the_reward(make_inner, name, cross_group, standardise):
    inner, texts, credits = make_inner(OPTIMIZERS[name], steps=3 if cross_group else 1), [*TEXTS[:-1], ""], []
    options = {"cross_group": cross_group, "standardise_steps": standardise}
    rewards = make_reward(name, inner, **options)(texts)
    with_credit = make_reward(name, inner, credit="token", **options)
    assert with_credit(texts, credit_characters=credits.extend) == pytest.approx(rewards, rel=1e-9)
    assert [len(own) for own in credits] == [len(text) for text in texts]
    if not standardise:
        assert [sum(own) for own in credits] == pytest.approx(rewards, rel=1e-9)
    assert with_credit(texts) == pytest.approx(rewards, rel=1e-9)  # a caller that takes no credits


def test_credit_is_text_or_token(make_inner):
    with pytest.raises(HarnessError, match="credit must be one of text, token"):
        make_reward("adam_metagrad", make_inner(OPTIMIZERS["adam_metagrad"]), credit="word")


def test_standardise_steps_is_a_truth_value(make_inner):
    with pytest.raises(HarnessError, match="standardise_steps must be true or false"):
        make_reward("adam_metagrad", make_inner(OPTIMIZERS["adam_metagrad"]), standardise_steps="yes")


def test_a_training_set_of_empty_rollouts_trains_nothing(make_inner):
    inner = make_inner(OPTIMIZERS["adam_metagrad"])
    untrained = BetterAtOneLine().metric(inner)(dict(inner.model.named_parameters())).item()
    texts = ["", "la luna", "", "el mar"]
    apart = make_reward("adam_metagrad", inner, cross_group=False)(texts)
    assert apart[::2] == [0.0, 0.0] and 0.0 not in apart[1::2]
    naive = make_reward("naive", inner)(texts)
    assert naive[::2] == [untrained, untrained] and naive[1] == naive[3] != untrained
    assert make_reward("sgd_metagrad", inner)([""] * 4) == [0.0] * 4


def test_each_reward_brings_its_own_optimizer_family(make_inner):
    adam, sgd = make_inner(OPTIMIZERS["adam_metagrad"]), make_inner(OPTIMIZERS["sgd_metagrad"])

    def rewards(name, inner):
        return make_reward(name, inner)(TEXTS)

    # asked for in the other family, the name changes and the settings stay
    assert rewards("sgd_metagrad", adam) == rewards("sgd_metagrad", adam.with_optimizer(name="sgd"))
    assert rewards("adam_metagrad", sgd) == rewards("adam_metagrad", sgd.with_optimizer(name="adamw"))
    assert rewards("adam_metagrad", sgd) != rewards("sgd_metagrad", sgd)


def test_adam_without_decoupled_decay_is_of_adams_family(make_inner):
    plain = make_inner(OPTIMIZERS["adam_metagrad"].model_copy(update={"name": "adam"}))
    assert of_family(plain, "adam") is plain
    assert of_family(plain, "sgd") is not plain


@pytest.mark.parametrize("cross_group", [True, False])
def test_naive_is_phi_of_each_training_set(make_inner, cross_group):
    inner = make_inner(OPTIMIZERS["adam_metagrad"])
    got = make_reward("naive", inner, cross_group)(TEXTS)
    for k in range(G):
        expected = phi_by_hand(inner, TEXTS[k::G], [1.0] * (len(TEXTS) // G))
        assert got[k::G] == pytest.approx([expected] * (len(TEXTS) // G), rel=1e-12)
    assert len(set(got)) == G


@pytest.mark.parametrize(("name", "cross_group"), [("naive", True), ("adam_metagrad", False)])
def test_broken_groups_are_a_clear_error(make_inner, name, cross_group):
    reward = make_reward(name, make_inner(OPTIMIZERS["adam_metagrad"]), cross_group)
    with pytest.raises(HarnessError, match="5 rollouts.*num_generations=2"):
        reward(TEXTS[:5])


def test_phi_is_logged_where_trl_offers_it(make_inner):
    logged = []
    inner = make_inner(OPTIMIZERS["adam_metagrad"])
    make_reward("adam_metagrad", inner)(TEXTS, log_metric=lambda name, value: logged.append((name, value)))
    naive = make_reward("naive", inner)(TEXTS, log_metric=lambda name, value: logged.append((name, value)))
    assert [name for name, _ in logged] == ["target_metric", "target_metric"]
    assert logged[0][1] == pytest.approx(phi_by_hand(inner, TEXTS, [1.0] * len(TEXTS)), rel=1e-12)
    assert logged[1][1] == pytest.approx(sum(naive) / len(naive), rel=1e-12)


def test_the_target_is_left_as_it_was(make_inner, model):
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    make_reward("adam_metagrad", make_inner(OPTIMIZERS["adam_metagrad"]))(TEXTS)
    make_reward("naive", make_inner(OPTIMIZERS["adam_metagrad"]))(TEXTS)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_rewards_come_as_many_times_as_large_as_asked_for(name, make_inner):
    """The authors' are the microbatch times the derivative."""
    inner, told = make_inner(OPTIMIZERS[name]), {}
    plain = make_reward(name, inner)(TEXTS, credit_characters=lambda parts: None)
    for options in ({"scale": 8}, {"scale": 8, "credit": "token"}):
        found = make_reward(name, inner, **options)(
            TEXTS, credit_characters=lambda parts: told.update(enumerate(parts))
        )
        assert found == pytest.approx([8 * value for value in plain], rel=1e-9)
    once: dict[int, list[float]] = {}
    make_reward(name, inner, credit="token")(TEXTS, credit_characters=lambda parts: once.update(enumerate(parts)))
    assert [value for place in told for value in told[place]] == pytest.approx(
        [8 * value for place in once for value in once[place]], rel=1e-9
    )


@pytest.mark.parametrize("scale", [0, -1, True, "8", float("inf")])
def test_a_scale_that_is_no_positive_number_is_refused(scale, make_inner):
    with pytest.raises(HarnessError, match="scale must be a number above 0"):
        make_reward("adam_metagrad", make_inner(OPTIMIZERS["adam_metagrad"]), scale=scale)
