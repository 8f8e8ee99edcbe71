"""The measured theorem rests on exact parts: its metagradients are the engine's, its gradient is J's own, its naive
estimator has no bias, and the error of DPG falls as it must where Phi of the trained target is nearly linear."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from harness.signals import theorem
from rewards.metagradient import InnerOptimizer, metagradient


class Bigram(torch.nn.Module):
    """A causal LM that is one table of logits."""

    def __init__(self, theta: torch.Tensor) -> None:
        super().__init__()
        self.table = torch.nn.Embedding.from_pretrained(theta.clone(), freeze=False)

    def forward(self, input_ids, **_):
        return SimpleNamespace(logits=self.table(input_ids))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("steps", [1, 3])
def test_its_metagradients_are_the_engines(optimizer, steps):
    world = theorem.make_world(3, 4)
    setting = theorem.Setting(optimizer, 0.1, steps, batch=5, eps_root=1e-4)
    random = torch.Generator().manual_seed(0)
    tokens = torch.randint(theorem.VOCABULARY, (5, theorem.LENGTH), generator=torch.Generator().manual_seed(3))[:4]
    kinds = torch.randint(4, (steps, 5), generator=random)
    batches = [{"input_ids": tokens[row], "labels": tokens[row]} for row in kinds]
    engine = metagradient(
        Bigram(world.theta),
        batches,
        lambda params: theorem.log_likelihood(params["table.weight"], world.wanted),
        InnerOptimizer(optimizer, lr=0.1, betas=(0.9, 0.95), eps=1e-8, eps_root=1e-4),
    )
    counts = torch.nn.functional.one_hot(kinds, 4).sum(1).double()[None]
    weights = torch.ones_like(counts, requires_grad=True)
    phi = theorem.log_likelihood(theorem.train(world, counts, weights, setting), world.wanted)
    (slopes,) = torch.autograd.grad(phi.sum(), weights)
    assert float(phi.detach()) == pytest.approx(engine.value, rel=1e-9)
    each = slopes[0] / counts[0].clamp(min=1)  # of one text; all of a kind in a batch share it
    assert torch.allclose(engine.weights.view(steps, 5), each.gather(1, kinds), rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_gradient_is_js_own_and_naive_has_no_bias(optimizer):
    world = theorem.make_world(0, 3)
    setting = theorem.Setting(optimizer, 0.3, 2, batch=3, eps_root=1e-3, texts=3)
    logits = world.logits.clone().requires_grad_()
    counts, p = theorem.data_sets(setting, logits.softmax(0))
    phi = theorem.log_likelihood(theorem.train(world, counts, torch.ones_like(counts), setting), world.wanted)
    assert float(p.detach().sum()) == pytest.approx(1.0)
    (direct,) = torch.autograd.grad((p * phi).sum(), logits)
    _, naive = theorem.measure(world, setting)
    score = counts.sum(1) - 6 * world.logits.softmax(0)
    assert torch.allclose((p.detach() * phi) @ score, direct, atol=1e-12)
    assert naive.bias < 1e-10 and naive.cosine == pytest.approx(1.0)


def test_the_error_of_sgd_falls_with_batch_and_learning_rate():
    """Theorem 3.1, where its bound is tight: the bias is inverse to the batch and proportional to the step."""
    bias = lambda **changes: (
        theorem.measure(theorem.make_world(1, 4), replace(theorem.Setting(lr=0.01), **changes))[0].bias
    )
    assert bias(batch=4) / bias(batch=8) == pytest.approx(2.0, rel=0.05)
    assert bias(lr=0.01) / bias(lr=0.005) == pytest.approx(2.0, rel=0.05)


def test_slopes_are_those_of_the_table_world_by_world(monkeypatch):
    small = {"lr": [theorem.Setting(name, lr, batch=2) for name in ("sgd", "adam") for lr in (0.1, 1)]}
    monkeypatch.setattr(theorem, "sweeps", lambda: small)
    found = theorem.slopes(2)
    assert [(each.optimizer, each.eps_root, each.world) for each in found] == [
        ("sgd", None, 0),
        ("sgd", None, 1),
        ("adam", 1e-9, 0),
        ("adam", 1e-9, 1),
    ]
    (line, rows), *_ = theorem.lines_of(theorem.table(1), "lr")
    assert line == "SGD" and found[0].value == pytest.approx(theorem.slope(rows, "lr"))
