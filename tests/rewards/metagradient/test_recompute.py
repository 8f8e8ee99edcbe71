"""Graphs that hold recipes: less memory, the same numbers, and never another tensor's."""

from __future__ import annotations

import gc

import pytest
import torch
from small_models import Double, build, lm_metric, make_batches, oracle, relative
from torch.multiprocessing.reductions import StorageWeakRef

from rewards.metagradient import InnerOptimizer, kernels, metagradient, recompute

OPTIMIZER = InnerOptimizer("adamw", lr=1e-2, eps_root=1e-6)


@pytest.fixture
def remade(monkeypatch) -> list[int]:
    """The sizes of tensors that were made again after their graph was built."""
    seen, original = [], recompute._Recipe.tensor

    def tensor(self):
        if self.made is None:
            seen.append(self.size)
        return original(self)

    monkeypatch.setattr(recompute._Recipe, "tensor", tensor)
    return seen


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen"])
@pytest.mark.parametrize("microbatch", [None, 2])
def test_recipes_are_used_and_change_nothing(monkeypatch, remade, kind, microbatch):
    model, batches = build(kind), make_batches(3)
    with Double():
        _, expected = oracle(model, batches, lm_metric(model), OPTIMIZER)
        found = metagradient(model, batches, lm_metric(model), OPTIMIZER, microbatch=microbatch)
        assert found.plan.graphs == 2 and remade
        monkeypatch.setattr(recompute, "offer", lambda *held, **how: None)
        whole = metagradient(model, batches, lm_metric(model), OPTIMIZER, microbatch=microbatch)
    assert relative(found.weights, expected) <= 1e-9
    assert relative(found.weights, whole.weights) <= 1e-13


def gradient(x, weight):
    """d/dx of sum of squares of the gradient of a small network, by way of a graph that is kept."""
    with recompute.saving(set()) as seen:
        hidden = kernels.activation(x, "tanh")
        z = kernels._Linear.apply(hidden, weight, None, False, False, kernels.GraphOnly())
        (g,) = torch.autograd.grad(z.square().sum(), x, create_graph=True)
    del hidden, z
    return torch.autograd.grad(g.square().sum(), x)[0], sum(seen.values())


def test_less_is_saved(monkeypatch):
    torch.manual_seed(0)
    x, weight = torch.randn(64, 32, dtype=torch.float64, requires_grad=True), torch.randn(8, 32, dtype=torch.float64)
    found, size = gradient(x, weight)
    monkeypatch.setattr(recompute, "offer", lambda *held, **how: None)
    expected, whole = gradient(x, weight)
    assert relative(found, expected) <= 1e-13 and size <= whole - x.numel() * 8


def test_a_tensor_at_the_same_address_is_another_tensor():
    """The allocator gives a freed block to the next tensor of that size; its recipe must not come with it."""
    with recompute.saving(set()):
        for value in range(50):
            offered = torch.full((1000,), -1.0)
            recompute.offer(offered, lambda: torch.full((1000,), -1.0), forward=False)
            del offered
            other = torch.full((1000,), float(value))
            leaf = torch.ones(1000, requires_grad=True)
            (leaf * other).sum().backward()
            assert torch.equal(leaf.grad, other)


@pytest.mark.parametrize("change", ["part", "written"])
def test_a_part_or_a_changed_tensor_is_kept_as_it_is(change):
    leaf, source = torch.ones(10, requires_grad=True), torch.arange(10.0)
    with recompute.saving(set()):
        offered = source.clone()
        recompute.offer(offered, lambda: torch.full((10,), torch.nan), forward=False)
        if change == "written":
            offered.mul_(2)
        total = (leaf[:5] * offered[:5]).sum() if change == "part" else (leaf * offered).sum()
    total.backward()
    assert torch.isfinite(leaf.grad).all()


def test_a_graph_that_is_dropped_is_freed():
    """Autograd's own cycles would be seen by no garbage collector."""
    x, weight = torch.randn(64, 32, requires_grad=True), torch.randn(8, 32)
    with recompute.saving(set()):
        z = kernels.activation(x, "tanh") @ weight.T
        (g,) = torch.autograd.grad(z.square().sum(), x, create_graph=True)
    saved = StorageWeakRef(z.untyped_storage())
    del z
    assert not saved.expired()
    del g
    gc.collect()
    assert saved.expired()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_bf16_to_its_rounding(monkeypatch, remade, kind):
    model, batches = build(kind).bfloat16(), make_batches(3)
    metric, optimizer = lm_metric(build(kind).bfloat16().float()), InnerOptimizer("sgd", lr=1e-3)
    found = metagradient(model, batches, metric, optimizer)
    assert found.plan.graphs == 2 and remade
    monkeypatch.setattr(recompute, "offer", lambda *held, **how: None)
    assert relative(found.weights, metagradient(model, batches, metric, optimizer).weights) <= 0.02
