"""What callers rely on: nothing of theirs changes, and every failure says what to do."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import rewards.metagradient as package
from rewards.metagradient import (
    BatchError,
    InnerOptimizer,
    MetagradientError,
    MetricError,
    NonFiniteError,
    NoScoredTokensError,
    Prepared,
    SecondDerivativeError,
    metagradient,
    train,
)
from rewards.metagradient.network import Network
from rewards.metagradient.testing import build, lm_metric, make_batches
from tests.helpers.command import python

OPTIMIZER = InnerOptimizer("adamw", lr=1e-2, eps_root=1e-6)


def test_the_package_stands_on_its_own():
    """Importing it imports nothing of the harness, the tasks or the other rewards."""
    code = (
        "import sys, rewards.metagradient; print([m for m in sys.modules if m.split('.')[0] in ('harness', 'tasks')])"
    )
    assert python(code) == "[]"
    assert set(package.__all__) <= set(dir(package))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("call", [metagradient, train])
def test_the_callers_model_is_untouched(training, call):
    model = build("gpt2", attn_implementation="sdpa")
    model.train(training)
    model.lm_head.weight.grad = torch.ones_like(model.lm_head.weight)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    names = [(n, type(m), m.training, set(vars(m))) for n, m in model.named_modules()]
    batches = make_batches(2)
    copies = [{k: v.clone() for k, v in b.items()} for b in batches]
    metric = lm_metric(build("gpt2", seed=0))
    torch.manual_seed(11)
    state = torch.get_rng_state()
    call(model, batches, *([metric] if call is metagradient else []), OPTIMIZER)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert names == [(n, type(m), m.training, set(vars(m))) for n, m in model.named_modules()]
    assert model.config._attn_implementation == "sdpa" and model.config.pad_token_id == 0
    grads = {k: p.grad for k, p in model.named_parameters()}
    assert all(g is None for k, g in grads.items() if k != "transformer.wte.weight")
    assert torch.equal(grads["transformer.wte.weight"], torch.ones_like(model.lm_head.weight))
    assert not model.lm_head._forward_pre_hooks
    assert all(torch.equal(a[k], b[k]) for a, b in zip(batches, copies, strict=True) for k in b)


def test_grad_mode_of_the_caller_does_not_matter():
    model, batches = build("gpt2"), make_batches(2)
    expected = metagradient(model, batches, lm_metric(model), OPTIMIZER)
    with torch.no_grad():
        found = metagradient(model, batches, lm_metric(model), OPTIMIZER)
    assert torch.equal(found.weights, expected.weights) and not found.weights.requires_grad
    assert not any(p.requires_grad for p in train(model, batches, OPTIMIZER).values())


def test_the_same_call_gives_the_same_bits():
    model, batches = build("llama"), make_batches(3)
    one, two = (metagradient(model, batches, lm_metric(model), OPTIMIZER, deterministic=True) for _ in range(2))
    assert torch.equal(one.weights, two.weights) and not torch.are_deterministic_algorithms_enabled()


def test_train_walks_the_same_path():
    model, batches = build("qwen"), make_batches(3)
    metric = lm_metric(model)
    end = train(model, batches, OPTIMIZER)
    assert list(end) == [name for name, _ in model.named_parameters()]
    assert float(metric(end)) == metagradient(model, batches, metric, OPTIMIZER).value


def test_a_model_that_is_not_hugging_face_and_calls_fused_attention():
    class Output:
        def __init__(self, logits):
            self.logits = logits

    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out = nn.Embedding(23, 8), nn.Linear(8, 23)

        def forward(self, input_ids):
            x = self.embed(input_ids)
            return Output(self.out(x + nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)))

    torch.manual_seed(0)
    model, batches, step = Tiny().double(), make_batches(2, (3,)), 1e-6
    metric = lambda params: -params["out.weight"].norm()
    found = metagradient(model, batches, metric, OPTIMIZER).weights
    for i in range(6):
        w = torch.ones(6, dtype=torch.float64)
        w[i] += step
        up = metric(train(model, batches, OPTIMIZER, weights=w))
        w[i] -= 2 * step
        assert float(up - metric(train(model, batches, OPTIMIZER, weights=w))) / (2 * step) == pytest.approx(
            float(found[i]), rel=1e-4, abs=1e-9
        )


# --------------------------------------------------------------------------------------------------------------- errors


def test_a_metric_that_is_no_function_of_the_parameters():
    model, batches = build("gpt2"), make_batches(1)
    for metric in (
        lambda params: torch.tensor(1.0),
        lambda params: (
            params["lm_head.weight" if "lm_head.weight" in params else "transformer.wte.weight"].detach().sum()
        ),
        lambda params: torch.ones(3, requires_grad=True).sum(),
    ):
        with pytest.raises(MetricError, match="does not depend on any trained parameter"):
            metagradient(model, batches, metric, OPTIMIZER)
    for metric in (lambda params: 1.0, lambda params: next(iter(params.values()))):
        with pytest.raises(MetricError, match="scalar"):
            metagradient(model, batches, metric, OPTIMIZER)


def test_a_metric_that_is_not_finite():
    model, batches = build("gpt2"), make_batches(1)
    first = next(iter(dict(model.named_parameters())))
    with pytest.raises(NonFiniteError, match="metric") as caught:
        metagradient(model, batches, lambda params: params[first].sum() * float("nan"), OPTIMIZER)
    assert caught.value.step is None
    with pytest.raises(NonFiniteError, match="gradient of the metric"):
        metagradient(model, batches, lambda params: (params[first] * 0).sum().sqrt(), OPTIMIZER)


@pytest.mark.parametrize("call", ["metagradient", "train"])
def test_a_non_finite_loss_names_step_and_examples(call):
    model, batches = build("llama", tied=False), make_batches(3, (4,))
    for batch in batches:  # token 22 is poisoned and appears in one example of one step only
        batch["input_ids"][batch["input_ids"] == 22] = 5
    batches[1]["input_ids"][2, 0] = 22
    with torch.no_grad():
        model.model.embed_tokens.weight[22] = float("nan")
    run = (lambda: train(model, batches, OPTIMIZER)) if call == "train" else None
    with pytest.raises(NonFiniteError, match=r"loss of inner step 1 .*\[2\]") as caught:
        (run or (lambda: metagradient(model, batches, lambda p: p["lm_head.weight"].sum(), OPTIMIZER)))()
    assert (caught.value.step, caught.value.examples) == (1, (2,))


def test_a_finite_loss_with_a_non_finite_gradient_names_the_examples():
    class Root(nn.Module):
        """sqrt at 0: value finite, slope infinite, for token 3 alone."""

        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.ones(23, 23))

        def forward(self, input_ids):
            return type("Output", (), {"logits": self.table[input_ids].abs().sqrt()})()

    model = Root()
    with torch.no_grad():
        model.table[3] = 0
    batch = {"input_ids": torch.tensor([[4, 5, 6], [3, 5, 6], [7, 8, 9]])}
    batch["labels"] = batch["input_ids"]
    with pytest.raises(NonFiniteError, match=r"gradient of inner step 0 .*\[1\]"):
        train(model, [batch], OPTIMIZER)


def test_a_batch_without_scored_tokens():
    batches = make_batches(3)
    batches[2]["labels"][:, 1:] = -100
    with pytest.raises(NoScoredTokensError, match="step 2"):
        metagradient(build("gpt2"), batches, lambda p: 0, OPTIMIZER)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b.pop("labels"),
        lambda b: b.update(labels=b["labels"][:, 1:]),
        lambda b: b.update(labels=b["labels"].float()),
    ],
    ids=["missing", "shape", "dtype"],
)
def test_a_batch_of_the_wrong_form(spoil):
    batches = make_batches(2)
    spoil(batches[1])
    with pytest.raises(BatchError, match="step 1|Step 1"):
        train(build("gpt2"), batches, OPTIMIZER)
    with pytest.raises(BatchError, match="No batches"):
        train(build("gpt2"), [], OPTIMIZER)


class Once(torch.autograd.Function):
    """tanh whose backward torch.autograd.grad takes for a constant, without a word."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.tanh()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        return grad * (1 - ctx.saved_tensors[0].tanh() ** 2)


class Activation(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def no_room(model) -> int:
    """The least budget of a single step: its backward pass cannot be recorded."""
    return 4 * 8 * sum(p.numel() for p in model.parameters()) + 8


def with_activation(function):
    model = build("llama")
    model.model.layers[0].mlp.act_fn = Activation(function)
    return model


@pytest.mark.parametrize("steps", [2, 1], ids=["second", "forward"])
def test_an_operation_without_a_second_derivative(steps):
    model, batches = with_activation(Once.apply), make_batches(steps)
    options = {} if steps > 1 else {"memory_budget": no_room(model)}
    with pytest.raises(SecondDerivativeError, match='attn_implementation="eager"'):
        metagradient(model, batches, lm_metric(build("llama")), OPTIMIZER, **options)


def test_one_step_needs_no_second_derivative():
    one, two = (with_activation(function) for function in (Once.apply, torch.tanh))
    batches, metric = make_batches(1), lm_metric(build("llama"))
    found, expected = (metagradient(model, batches, metric, OPTIMIZER).weights for model in (one, two))
    assert torch.allclose(found, expected, rtol=1e-10)


def test_nothing_trains():
    with pytest.raises(MetagradientError, match="requires_grad"):
        train(build("gpt2").requires_grad_(False), make_batches(1), OPTIMIZER)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_prepared_model_gives_the_same_bits_whatever_became_of_its_weights(kind, steps):
    model, batches = build(kind), make_batches(steps)
    metric, prepared = lm_metric(build(kind, seed=3)), Prepared(model)

    def same() -> Network:
        one, other = (metagradient(given, batches, metric, OPTIMIZER) for given in (model, prepared))
        trained, also = (train(given, batches, OPTIMIZER) for given in (model, prepared))
        assert torch.equal(one.weights, other.weights) and one.value == other.value
        assert all(torch.equal(value, also[name]) for name, value in trained.items())
        return prepared.network()

    copies = same()
    for parameter in model.parameters():
        parameter.data = parameter.data * 1.5
    assert same() is copies
    frozen = next(parameter for name, parameter in model.named_parameters() if "norm" in name or "ln" in name)
    frozen.requires_grad_(False)
    others = same()
    assert others is not copies
    frozen.data = frozen.data + 0.5
    assert same() is others, "a frozen weight is read anew"


def test_a_prepared_model_works_after_a_call_that_failed():
    batches, prepared = make_batches(2), Prepared(build("gpt2"))
    metric = lm_metric(build("gpt2", seed=3))
    expected = metagradient(prepared, batches, metric, OPTIMIZER).weights
    broken = [batches[0], batches[1] | {"input_ids": torch.full_like(batches[1]["input_ids"], 10**6)}]
    with pytest.raises(IndexError):
        metagradient(prepared, broken, metric, OPTIMIZER)
    assert torch.equal(metagradient(prepared, batches, metric, OPTIMIZER).weights, expected)
    assert all(isinstance(parameter, nn.Parameter) for parameter in prepared.network()._reverse.module.parameters())
