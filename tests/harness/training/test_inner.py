"""Texts -> batches -> training: the walk that every metagradient and every validation shares."""

from __future__ import annotations

import pytest
import torch

from harness.contracts import HarnessError, InnerTraining
from harness.settings.schema import InnerSettings
from harness.training.inner import FrozenDropout, InnerTrainer, StepCounter, freeze_dropout


@pytest.fixture
def make_inner(make_model, make_tokenizer):
    def make(family="gpt2", **changes):
        settings = {"optimizer": {"lr": 1e-2, "weight_decay": 0.0}, "max_tokens": 12} | changes
        return InnerTrainer(
            make_model(family).double().eval(), make_tokenizer(), InnerSettings.model_validate(settings)
        )

    return make


TEXTS = ["alpha beta", "", "gamma delta epsilon zeta", "x", "eta theta", "iota"]


def norm(params):
    return -sum((p**2).sum() for p in params.values())


def test_it_is_what_the_contract_says(make_inner):
    assert isinstance(make_inner(), InnerTraining)


def test_texts_are_cut_and_marked(make_inner):
    inner = make_inner()
    bos, eos = inner.tokenizer.bos_token_id, inner.tokenizer.eos_token_id
    assert inner.encode("ab") == [bos, *inner.tokenizer("ab")["input_ids"]]
    assert make_inner(append_eos=True).encode("ab")[-1] == eos
    assert make_inner(prepend_bos=False).encode("ab") == inner.tokenizer("ab")["input_ids"]
    assert len(inner.encode("word " * 50)) == 12


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_every_text_is_in_one_batch_and_padding_is_not_scored(steps, make_inner):
    inner = make_inner(steps=steps)
    order, batches = inner._batches(TEXTS)
    assert sorted(order) == list(range(len(TEXTS))) and len(batches) == steps
    rows = [(row, labels) for batch in batches for row, labels in zip(batch["input_ids"], batch["labels"], strict=True)]
    for place, (row, labels) in enumerate(rows):
        ids = inner.encode(TEXTS[order[place]])
        assert row[: len(ids)].tolist() == ids
        assert labels.tolist() == ids + [-100] * (len(row) - len(ids))


def test_trained_padding_scores_all_but_the_end_of_text(make_inner):
    inner = make_inner(trained_padding=7, prepend_bos=False, max_tokens=6)
    _, (batch,) = inner._batches(["abc", "a", "abcdef", "abcdefghij"])
    ids = [inner.tokenizer(text)["input_ids"] for text in ("abc", "a", "abcdef", "abcdefg")]
    expected = [  # 6 inputs a row; labels aligned with them, so that 6 targets follow the first column
        (ids[0] + [7] * 4, ids[0] + [-100] + [7] * 3),
        (ids[1] + [7] * 6, ids[1] + [-100] + [7] * 5),
        (ids[2] + [7], ids[2] + [-100]),
        (ids[3], ids[3]),
    ]
    assert [(row.tolist(), labels.tolist()) for row, labels in zip(*batch.values(), strict=True)] == expected


def test_the_order_is_fixed_and_can_be_left_as_it_is(make_inner):
    shuffled, _ = make_inner(steps=2)._batches(TEXTS)
    assert shuffled == make_inner(steps=2)._batches(TEXTS)[0] != list(range(6))
    assert make_inner(steps=2, shuffle_seed=None)._split(6) == [[0, 1, 2], [3, 4, 5]]


def test_the_longest_texts_of_a_step_come_first(make_inner):
    inner = make_inner(steps=2, shuffle_seed=None)
    order, batches = inner._batches(TEXTS)
    lengths = [len(inner.encode(TEXTS[i])) for i in order]
    assert sorted(order[:3]) == [0, 1, 2] and sorted(order[3:]) == [3, 4, 5]
    assert lengths[:3] == sorted(lengths[:3], reverse=True) != lengths[2::-1]
    scored = [int((row != -100).sum()) for batch in batches for row in batch["labels"]]
    assert scored == lengths


@pytest.mark.parametrize("count", [4, 6, 7])
def test_the_step_of_a_text_is_the_batch_that_holds_it(count, make_inner):
    inner = make_inner(steps=4)
    order, batches = inner._batches(["a"] * count)
    sizes = [len(batch["input_ids"]) for batch in batches]
    expected = dict(zip(order, [step for step, size in enumerate(sizes) for _ in range(size)], strict=True))
    assert inner.steps_of(count) == [expected[i] for i in range(count)]


def test_fewer_texts_than_steps_is_a_sentence(make_inner):
    with pytest.raises(HarnessError, match="inner.steps"):
        make_inner(steps=8).train(TEXTS)


@pytest.mark.parametrize("steps", [1, 3])
def test_weights_come_back_in_the_order_of_the_texts(steps, make_inner):
    """Against finite differences of training with one text's weight changed, through the public train()."""
    from rewards.metagradient import train

    inner = make_inner(steps=steps)
    found = inner.metagradient(TEXTS, norm)
    order, batches = inner._batches(TEXTS)
    for index in (0, 3, 5):
        values = []
        for change in (1e-5, -1e-5):
            weights = torch.ones(len(TEXTS), dtype=torch.float64)
            weights[order.index(index)] += change
            trained = train(inner.model, batches, inner.rule(), weights=weights)
            values.append(float(norm(trained)))
        assert found.weights[index].item() == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-4, abs=1e-9)


def test_a_text_without_tokens_weighs_nothing(make_inner):
    assert make_inner().metagradient(TEXTS, norm).weights[1].item() == 0.0


def test_training_starts_afresh_and_leaves_the_target_alone(make_inner):
    inner = make_inner()
    before = {name: p.clone() for name, p in inner.model.named_parameters()}
    first, second = inner.train(TEXTS), inner.train(TEXTS)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], before[name]) for name in first)
    assert all(torch.equal(p, before[name]) for name, p in inner.model.named_parameters())


def test_another_optimizer_is_another_training(make_inner):
    inner = make_inner()
    other = inner.with_optimizer(name="sgd", lr=0.1)
    assert other.optimizer.name == "sgd" and inner.optimizer.name == "adamw"
    assert other.model is inner.model
    assert any(
        not torch.equal(a, b) for a, b in zip(inner.train(TEXTS).values(), other.train(TEXTS).values(), strict=True)
    )


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(("warm", "steps"), [(1, 1), (3, 1), (2, 3)])
def test_a_warm_up_is_a_training_before_the_weighted_one(family, warm, steps, make_inner):
    """Against two trainings by hand, and the metagradient against finite differences of the second one's weights."""
    smooth = {"lr": 1e-2, "eps_root": 1e-3, "weight_decay": 0.0}  # so that finite differences are exact enough
    inner = make_inner(family, steps=steps, warmup_steps=warm, warmup_lr=3e-2, shuffle_seed=None, optimizer=smooth)
    texts = [text for text in TEXTS if text]
    before = {name: value.detach().clone() for name, value in inner.model.named_parameters()}
    by_hand = make_inner(family, steps=steps, shuffle_seed=None, optimizer=smooth)
    by_hand.model.load_state_dict(inner.model.state_dict())
    warmed = by_hand.with_steps(warm).with_optimizer(lr=3e-2).train(texts)
    by_hand.model.load_state_dict(warmed, strict=False)
    expected, found = by_hand.train(texts), inner.train(texts)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0)

    exact, step = inner.metagradient(texts, norm), 1e-5
    assert float(exact.value) == pytest.approx(float(norm(expected)), rel=1e-12)
    for i in range(len(texts)):
        weights = torch.ones(len(texts), dtype=torch.float64)
        weights[i] += step
        up = norm(inner.train(texts, weights=weights))
        weights[i] -= 2 * step
        down = norm(inner.train(texts, weights=weights))
        assert float(exact.weights[i]) == pytest.approx(float(up - down) / (2 * step), rel=1e-3, abs=1e-9)
    for name, value in inner.model.named_parameters():
        assert torch.equal(value, before[name])


def test_a_warm_up_waits_for_its_step(make_inner):
    """Rewards of copies with another optimizer share the step counter; validation has the warm-up from the start."""
    inner = make_inner(warmup_steps=2, warmup_after=3)
    inner.step_counter = StepCounter()
    plain, warm = make_inner(), make_inner(warmup_steps=2)
    for other in (plain, warm):
        other.model.load_state_dict(inner.model.state_dict())
    other = inner.with_optimizer(lr=inner.lr)

    def weights(trainer):
        return trainer.metagradient(TEXTS, norm).weights

    for inner.step_counter.steps_done in (0, 2):
        assert torch.equal(weights(inner), weights(plain)) and torch.equal(weights(other), weights(plain))
    inner.step_counter.steps_done = 3
    assert torch.equal(weights(inner), weights(warm)) and torch.equal(weights(other), weights(warm))
    assert not torch.equal(weights(warm), weights(plain))
    inner.step_counter.steps_done = 0
    assert torch.equal(weights(inner.with_steps(inner.steps)), weights(warm))


def test_what_tokens_earned_lies_on_their_characters(make_inner):
    """Also where a text is cut, where a character has several tokens, and without a start token."""
    inner = make_inner(max_tokens=6)
    assert inner.spread("abc", [1.0, 2.0, 3.0]) == [1.0, 2.0, 3.0]
    assert inner.spread("abcdefgh", [1.0] * 5) == [1.0] * 5 + [0.0] * 3
    assert sum(inner.spread("año", [1.0] * 4)) == 4.0 and len(inner.spread("año", [1.0] * 4)) == 3
    assert make_inner(prepend_bos=False).spread("abc", [2.0, 3.0]) == [0.0, 2.0, 3.0]
    for text, own in zip(TEXTS, inner.metagradient(TEXTS, norm, per_token=True).tokens, strict=True):
        assert len(own) == max(0, len(inner.encode(text)) - 1)


def test_a_failed_metric_leaves_the_model_as_it_was(make_inner):
    inner = make_inner(warmup_steps=2)
    before = {name: value.detach().clone() for name, value in inner.model.named_parameters()}

    def broken(params):
        raise ValueError("no metric")

    with pytest.raises(Exception, match="no metric"):
        inner.metagradient(TEXTS, broken)
    for name, value in inner.model.named_parameters():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_total_rate_is_spread_over_the_steps(steps, make_inner):
    whole = make_inner(optimizer={"lr": 1.0, "total_lr": 0.06}).with_steps(steps)
    each = make_inner(optimizer={"lr": 0.06 / steps}).with_steps(steps)
    each.model.load_state_dict(whole.model.state_dict())
    for name, value in each.train(TEXTS).items():
        assert torch.equal(whole.train(TEXTS)[name], value)
    again = whole.with_optimizer(lr=0.06 / steps).train(TEXTS)
    assert all(torch.equal(again[name], value) for name, value in each.train(TEXTS).items())


def test_the_rate_of_a_step(make_inner):
    inner = make_inner(optimizer={"lr": 1.0, "total_lr": 0.06})
    assert (inner.lr, inner.with_steps(3).lr, inner.with_optimizer(lr=0.5).lr) == (0.06, 0.06 / 3, 0.5)


# ------------------------------------------------------------------------------------- what the authors do differently


@pytest.mark.parametrize("padding", [None, 7])
def test_end_of_text_may_be_left_out_of_the_loss(padding, make_inner):
    inner = make_inner(append_eos=True, score_eos=False, trained_padding=padding)
    eos = inner.tokenizer.eos_token_id
    _, (batch,) = inner._batches(TEXTS)
    _, (with_it,) = make_inner(append_eos=True, trained_padding=padding)._batches(TEXTS)
    assert (with_it["labels"] == eos).any() and not (batch["labels"] == eos).any()
    others = with_it["labels"] != eos
    assert torch.equal(batch["labels"][others], with_it["labels"][others])


@pytest.mark.parametrize(
    ("set_steps", "sets", "steps"), [("whole", 4, 8), ("share", 4, 2), ("share", 1, 8), ("share", 16, 1)]
)
def test_steps_of_a_set(set_steps, sets, steps, make_inner):
    """The paper: T steps whatever the set's size; the authors' code: as large as those of all texts together."""
    counter = StepCounter(3)
    inner = make_inner(steps=8, set_steps=set_steps)
    inner.step_counter = counter
    found = inner.of_sets(sets)
    assert found.steps == steps and found.step_counter is counter


def test_a_frozen_mask_is_the_same_at_every_pass_and_for_every_text(make_model):
    torch.manual_seed(0)
    model = make_model("gpt2").double().eval()
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12], [5, 6, 7, 8]])
    plain = model(ids).logits
    freeze_dropout(model, 0.25)
    masks = {name: module.mask for name, module in model.named_modules() if isinstance(module, FrozenDropout)}
    assert {name.rsplit(".", 1)[-1] for name in masks} == {"drop", "resid_dropout", "dropout"}
    for mask in masks.values():
        assert {round(value, 9) for value in mask.unique().tolist()} == {0.0, round(1 / 0.75, 9)}
        assert 0.6 < float((mask > 0).double().mean()) < 0.9
    assert len({mask.sum().item() for mask in masks.values()}) > 1, "each has a mask of its own"
    once = model(ids).logits
    torch.testing.assert_close(once[0], once[2])
    torch.testing.assert_close(model(ids[1:2]).logits[0], once[1])
    assert not torch.allclose(once, plain)


def test_the_embeddings_mask_is_dropouts_formula(make_model):
    model = make_model("gpt2").double().eval()
    freeze_dropout(model, 0.25)
    drop = model.transformer.drop
    hidden = torch.randn(2, 3, model.config.hidden_size, dtype=torch.float64)
    torch.testing.assert_close(drop(hidden), torch.where(drop.mask[:3] > 0, hidden / 0.75, 0.0))


def test_metagradients_under_a_frozen_mask_are_those_of_retraining(make_inner):
    """By differences: the weight of one text moved a little, the target trained again."""
    inner = make_inner(prepend_bos=True)
    freeze_dropout(inner.model, 0.25)
    found = inner.metagradient(TEXTS, norm)
    small, place = 1e-5, 2
    ends = []
    for sign in (1, -1):
        weights = torch.ones(len(TEXTS), dtype=torch.float64)
        weights[place] += sign * small
        ends.append(float(norm(inner.train(TEXTS, weights))))
    assert float(found.weights[place]) == pytest.approx((ends[0] - ends[1]) / (2 * small), rel=1e-5)


def test_a_model_without_dropout_is_a_sentence(make_model):
    with pytest.raises(HarnessError, match="has no dropout; set it to 0"):
        freeze_dropout(make_model("llama"), 0.1)
