"""The two ways of an update, padded passes and a packed stream, against one plain pass over every rollout."""

import pytest
import torch
from trl.trainer.utils import add_fused_lm_head

from harness.training import packed, shared_prompts
from harness.training.shared_prompts import group_order, reorder


def batch(groups=3, group=2, width=6, keep=4, pad=258):
    """Left-padded prompts of lengths width, width - 1, …, and completions of several lengths."""
    torch.manual_seed(0)
    prompts = torch.randint(0, 250, (groups, width)).repeat_interleave(group, 0)
    mask = torch.ones(groups * group, width + keep, dtype=torch.long)
    for row in range(groups * group):
        mask[row, : row // group] = 0
        mask[row, width + keep - row % 3 :] = 0
    ids = torch.cat([prompts, torch.randint(0, 250, (groups * group, keep))], 1)
    return ids.masked_fill(mask == 0, pad), mask, keep


def plain(model, ids, mask, keep, temperature):
    out = model(input_ids=ids, attention_mask=mask, position_ids=(mask.cumsum(-1) - 1).clamp_min(0)).logits
    scores = (out[:, -keep - 1 : -1] / temperature).log_softmax(-1)
    picked = scores.gather(-1, ids[:, -keep:, None])[..., 0]
    return picked * mask[:, -keep:], -(scores.exp() * scores).sum(-1) * mask[:, -keep:]


def padded(model, ids, mask, keep):
    add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    return shared_prompts.log_probs(model, ids, mask, keep)


def stream(model, ids, mask, keep):
    return packed.log_probs(model, ids, mask, keep, 0.7)


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("order", ["together", "shuffled", "uneven"])
@pytest.mark.parametrize("way", [padded, stream])
def test_sharing_changes_no_number(way, family, order, make_model):
    model = make_model(family).double().train()
    ids, mask, keep = batch()
    if order != "together":
        turn = torch.randperm(len(ids))[1 if order == "uneven" else 0 :]
        ids, mask = ids[turn], mask[turn]
    want, spread = plain(model, ids, mask, keep, 0.7)
    weights = torch.randn_like(want) * mask[:, -keep:]
    gradient = torch.autograd.grad((want * weights).sum(), list(model.parameters()))
    got, entropy = way(model, ids, mask, keep)
    # TRL's head answers in float32, and so do the norms of the Llama family
    exact = 1e-12 if way is stream and family == "gpt2" else 1e-5
    assert torch.allclose(got.double(), want, atol=exact)
    assert torch.allclose(entropy.double(), spread, atol=exact)
    found = torch.autograd.grad((got * weights).sum(), list(model.parameters()))
    assert all(torch.allclose(a, b, atol=exact) for a, b in zip(found, gradient, strict=True))


def test_probabilities_that_are_not_kept_are_computed_again(make_model, monkeypatch):
    model = make_model("llama").double()
    ids, mask, keep = batch()

    def gradient():
        return torch.autograd.grad(stream(model, ids, mask, keep)[0].sum(), list(model.parameters()))

    kept = gradient()
    monkeypatch.setattr(packed, "KEPT_PROBABILITIES", 0)
    monkeypatch.setattr(packed, "BLOCK", 600)  # two rows of 260 logits at a time
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(kept, gradient(), strict=True))


def test_completions_of_one_token(make_model):
    """As where every rollout ends at once: nothing of a completion is read."""
    model = make_model("gpt2").double()
    ids, mask, _ = batch(keep=1)
    mask[:, 3:] = 1  # padding on the left alone
    want, _ = plain(model, ids, mask, 1, 0.7)
    got, _ = stream(model, ids, mask, 1)
    assert torch.allclose(got, want, atol=1e-12)
    parameters = list(model.parameters())
    pairs = zip(*(torch.autograd.grad(each.sum(), parameters) for each in (got, want)), strict=True)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in pairs)


def test_prompts_of_one_token(make_model):
    model = make_model("gpt2").double()
    ids, mask, keep = batch(width=1, groups=1)
    want, _ = plain(model, ids, mask, keep, 0.7)
    assert torch.allclose(stream(model, ids, mask, keep)[0], want, atol=1e-12)


def test_groups_stay_together_and_every_row_comes_once():
    torch.manual_seed(1)
    order = group_order(24, 4)
    assert sorted(order.tolist()) == list(range(24))
    assert torch.equal(order.view(6, 4) % 4, torch.arange(4).expand(6, 4))
    assert not torch.equal(order, torch.arange(24))
    assert sorted(group_order(6, 4).tolist()) == list(range(6))


def test_columns_move_together():
    columns = {"a": torch.arange(3), "b": ["x", "y", "z"], "n": torch.tensor(7.0), "none": None}
    moved = reorder(columns, torch.tensor([2, 0, 1]))
    assert moved["a"].tolist() == [2, 0, 1]
    assert moved["b"] == ["z", "x", "y"]
    assert moved["n"] == 7.0
    assert moved["none"] is None
