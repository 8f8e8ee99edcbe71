"""Directional derivatives read off the recorded backward pass of one step: where they may be used, and where not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rewards.metagradient import InnerOptimizer, MetricError, metagradient, train
from rewards.metagradient.gradients import Objective
from rewards.metagradient.testing import Double, build, lm_metric, make_batches, oracle, patch_metric, relative

OPTIMIZER = InnerOptimizer("adamw", lr=1e-2, eps_root=1e-6, weight_decay=0.1)
SHAPES = [(kind, tied) for kind in ("gpt2", "llama", "qwen") for tied in (True, False)]


def no_room(model) -> int:
    """The least budget of a single step: its backward pass cannot be recorded."""
    return 4 * 8 * sum(p.numel() for p in model.parameters()) + 8


@pytest.fixture
def forward_passes(monkeypatch) -> list[int]:
    """One entry for each forward-mode pass."""
    seen, original = [], Objective._forward_mode

    def counted(self, *args):
        seen.append(1)
        return original(self, *args)

    monkeypatch.setattr(Objective, "_forward_mode", counted)
    return seen


def squared(batches):
    """4 examples of 4 columns with a scored token: only the model says which axis is which."""
    batches[0]["labels"][0] = batches[0]["input_ids"][0]
    return batches


@pytest.mark.parametrize("kind,tied", SHAPES, ids=[f"{k}-{'tied' if t else 'untied'}" for k, t in SHAPES])
@pytest.mark.parametrize("microbatch", [None, 2])
@pytest.mark.parametrize("square", [False, True], ids=["ragged", "square"])
def test_one_step_is_read_off_its_backward_pass(forward_passes, kind, tied, microbatch, square):
    model, batches = build(kind, tied), squared(make_batches(1, (4,), width=5)) if square else make_batches(1, (4,))
    with Double():
        _, expected = oracle(model, batches, lm_metric(model), OPTIMIZER)
        found = metagradient(model, batches, lm_metric(model), OPTIMIZER, microbatch=microbatch)
    assert relative(found.weights, expected) <= 1e-9
    assert not forward_passes and found.plan.recorded


@pytest.mark.parametrize("train", ["bias", "ln_", "wte", "wpe", "mlp", "attn", "lm_head"])
def test_every_kind_of_parameter_on_its_own(forward_passes, train):
    model, batches = build("gpt2", tied=False), make_batches(1)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(train in name)
    with Double():
        _, expected = oracle(model, batches, lm_metric(model), OPTIMIZER)
        found = metagradient(model, batches, lm_metric(model), OPTIMIZER).weights
    assert relative(found, expected) <= 1e-9 and not forward_passes


def test_a_patch_meets_only_its_rows(forward_passes):
    model, batches = build("gpt2", tied=False), make_batches(1)
    with Double():
        _, expected = oracle(model, batches, patch_metric(model, "lm_head.weight"), OPTIMIZER)
        found = metagradient(model, batches, patch_metric(model, "lm_head.weight"), OPTIMIZER).weights
    assert relative(found, expected) <= 1e-9 and not forward_passes


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_bf16_equals_forward_mode_to_its_rounding(kind):
    model, batches = build(kind).bfloat16(), make_batches(1, (6,))
    metric, optimizer = lm_metric(build(kind).bfloat16().float()), InnerOptimizer("sgd", lr=1e-3)
    recorded = metagradient(model, batches, metric, optimizer)
    forward = metagradient(model, batches, metric, optimizer, memory_budget=no_room(model) // 4)
    assert recorded.plan.recorded and not forward.plan.recorded
    assert relative(recorded.weights, forward.weights) <= 0.02


class Scaled(nn.Module):
    """A parameter that no known layer holds, or a known layer's parameter used a second time."""

    def __init__(self, inner, elsewhere):
        super().__init__()
        self.inner, self.elsewhere = inner, elsewhere
        if not elsewhere:
            self.scale = nn.Parameter(torch.ones(12, dtype=torch.float64))

    def forward(self, x):
        return self.inner(x) * (1 + 1e-3 * self.inner.weight if self.elsewhere else self.scale)


class Positional(nn.Module):
    """Its layer's rows are columns of the batch, not examples."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.transpose(0, 1)).transpose(0, 1)


class Output:
    def __init__(self, logits):
        self.logits = logits


class SequenceFirst(nn.Module):
    """A model of its own that holds (S, n, H)."""

    def __init__(self):
        super().__init__()
        self.embed, self.out = nn.Embedding(23, 8), nn.Linear(8, 23)

    def forward(self, input_ids):
        return Output(self.out(self.embed(input_ids.T).tanh()).transpose(0, 1))


@pytest.mark.parametrize("square", [False, True], ids=["ragged", "square"])
@pytest.mark.parametrize("what", ["unknown", "elsewhere", "transposed", "own"])
def test_what_is_not_known_falls_back_to_forward_mode(forward_passes, what, square):
    torch.manual_seed(0)
    own = what == "own"
    model = SequenceFirst().double() if own else build("gpt2", tied=False)
    if what == "transposed":
        model.transformer.ln_f = Positional(model.transformer.ln_f)
    elif not own:
        model.transformer.ln_f = Scaled(model.transformer.ln_f, what == "elsewhere")
    batches = squared(make_batches(1, (4,), width=5)) if square else make_batches(1, (4,))
    metric = (lambda params: params["out.weight"].sin().sum()) if own else lm_metric(model)
    with Double():
        _, expected = oracle(model, batches, metric, OPTIMIZER)
        found = metagradient(model, batches, metric, OPTIMIZER).weights
    assert relative(found, expected) <= 1e-9 and forward_passes


def named(metric, *names):
    """The metric with its `reads`, handed the parameters that it names and no others."""

    def read(params):
        assert set(params) == set(names)
        return metric(params)

    read.reads = names
    return read


@pytest.mark.parametrize("kind,tied", SHAPES, ids=[f"{k}-{'tied' if t else 'untied'}" for k, t in SHAPES])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("per_token", [False, True], ids=["text", "token"])
def test_a_metric_that_names_what_it_reads_gets_the_same_for_less(kind, tied, steps, per_token):
    model, batches = build(kind, tied), make_batches(steps)
    name = next(n for n, p in model.named_parameters() if p is model.get_output_embeddings().weight)
    with Double():
        full = metagradient(model, batches, patch_metric(model, name), OPTIMIZER, per_token=per_token)
        found = metagradient(model, batches, named(patch_metric(model, name), name), OPTIMIZER, per_token=per_token)
    assert found.value == pytest.approx(full.value, rel=1e-12)
    assert relative(found.weights, full.weights) <= 1e-9
    if per_token:
        assert relative(torch.cat(found.tokens), torch.cat(full.tokens)) <= 1e-9


def test_of_an_untied_head_tokens_too_are_read_off_the_backward_pass(forward_passes):
    model, batches = build("gpt2", tied=False), make_batches(1)
    metric = patch_metric(model, "lm_head.weight")
    with Double():
        _, expected = oracle(model, batches, metric, OPTIMIZER, per_token=True)
        found = metagradient(model, batches, metric, OPTIMIZER, per_token=True, microbatch=2)
    scored = batches[0]["labels"][:, 1:] != -100
    assert relative(torch.cat(found.tokens), expected[scored]) <= 1e-9
    assert not forward_passes and found.plan.recorded


@pytest.mark.parametrize("what", ["lm_metric", "tied"])
def test_tokens_that_more_than_the_head_moves_are_left_to_forward_mode(forward_passes, what):
    model, batches = build("gpt2", tied=what == "tied"), make_batches(1)
    metric = patch_metric(model, "transformer.wte.weight") if what == "tied" else lm_metric(model)
    with Double():
        _, expected = oracle(model, batches, metric, OPTIMIZER, per_token=True)
        found = metagradient(model, batches, metric, OPTIMIZER, per_token=True)
    assert relative(torch.cat(found.tokens), expected[batches[0]["labels"][:, 1:] != -100]) <= 1e-9
    assert forward_passes


def test_the_last_step_forms_no_gradient_that_nobody_reads(monkeypatch):
    model, (batch,) = build("gpt2", tied=False), make_batches(1)
    formed, original = [], torch.Tensor.backward

    def counted(self, *args, inputs, **kwargs):
        formed.append(len(inputs))
        return original(self, *args, inputs=inputs, **kwargs)

    monkeypatch.setattr(torch.Tensor, "backward", counted)
    metagradient(model, [batch], named(patch_metric(model, "lm_head.weight"), "lm_head.weight"), OPTIMIZER)
    assert formed == [1, 1]  # the training's and the metric's own
    only = train(model, [batch, batch], OPTIMIZER, only=["lm_head.weight"])
    assert list(only) == ["lm_head.weight"] and formed[2:] == [len(list(model.parameters())), 1]
    assert torch.equal(only["lm_head.weight"], train(model, [batch, batch], OPTIMIZER)["lm_head.weight"])


def test_a_metric_that_reads_what_it_does_not_name_is_told():
    model, batches = build("gpt2", tied=False), make_batches(1)
    metric = patch_metric(model, "lm_head.weight")
    metric.reads = ("transformer.wpe.weight",)
    with pytest.raises(MetricError, match="lm_head.weight, which its `reads` does not name"):
        metagradient(model, batches, metric, OPTIMIZER)
