"""The engine on a GPU, or on a pretended one (tests/conftest.py): the same derivatives, wherever its states lie."""

from __future__ import annotations

import pytest
import torch

from rewards.metagradient import InnerOptimizer, metagradient
from rewards.metagradient.testing import Double, build, example_losses, lm_metric, make_batches, oracle, relative

pytestmark = pytest.mark.cuda
OPTIMIZER = InnerOptimizer("adamw", lr=1e-2, eps_root=1e-6)


def on_gpu(batches):
    return [{k: v.cuda() for k, v in batch.items()} for batch in batches]


def held_out(model):
    """A metric of the texts of another batch on the model's device."""
    held = on_gpu(make_batches(1, (2,), 7))[0]
    return lambda params: -example_losses(model, params, held).mean()


def expected(kind, steps):
    """The weights by full unrolling in float64 on the device."""
    model = build(kind).cuda()
    with Double():
        return oracle(model, on_gpu(make_batches(steps)), held_out(model), OPTIMIZER)[1]


@pytest.mark.parametrize("kind", ["gpt2", "llama", "qwen"])
@pytest.mark.parametrize("steps", [1, 3])
def test_float64_equals_full_unrolling(kind, steps):
    model, batches = build(kind).cuda(), on_gpu(make_batches(steps))
    with Double():
        found = metagradient(model, batches, held_out(model), OPTIMIZER)
    assert found.weights.is_cuda and relative(found.weights, expected(kind, steps)) <= 1e-9


@pytest.fixture
def products():
    """How float32 products are taken; put back afterwards."""
    before = torch.backends.cuda.matmul.allow_tf32
    yield torch.backends.cuda.matmul
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.mark.parametrize(("tf32", "bound"), [(False, 1e-4), (True, 0.1)])
def test_float32_is_exact_and_tf32_nearly(tf32, bound, products):
    """TF32 rounds the factors of a product to ten bits: what a profile gains by `target.tf32` it pays here."""
    products.allow_tf32 = tf32
    model = build("llama").float().cuda()
    found = metagradient(model, on_gpu(make_batches(3)), held_out(model), OPTIMIZER)
    assert found.weights.is_cuda and relative(found.weights.double(), expected("llama", 3)) <= bound


def test_a_bfloat16_target_gives_finite_weights_of_the_same_direction():
    model = build("llama").bfloat16().cuda()
    found = metagradient(model, on_gpu(make_batches(2)), held_out(model), OPTIMIZER).weights.double()
    exact = expected("llama", 2)
    assert found.isfinite().all()
    assert torch.cosine_similarity(found, exact, dim=0) >= 0.8


def test_states_go_to_host_memory_when_the_device_is_full():
    model = build("gpt2").cuda()
    vector = 8 * sum(p.numel() for p in model.parameters())
    batches, cpu = on_gpu(make_batches(6)), build("gpt2")
    start = dict(cpu.named_parameters())["transformer.wte.weight"].detach()
    metric = lambda params: (
        (params["transformer.wte.weight"] - start.to(params["transformer.wte.weight"])).square().sum()
    )
    found = metagradient(model, batches, metric, OPTIMIZER, memory_budget=6 * vector)
    free = metagradient(model, batches, metric, OPTIMIZER)
    assert found.plan.strategy == "spilled" and torch.allclose(found.weights, free.weights, rtol=1e-8)


def test_microbatches_do_not_change_the_weights():
    model, batches = build("gpt2").cuda(), on_gpu(make_batches(3))
    whole = metagradient(model, batches, held_out(model), OPTIMIZER).weights
    parts = metagradient(model, batches, held_out(model), OPTIMIZER, microbatch=2).weights
    assert parts.is_cuda and torch.allclose(parts, whole, rtol=1e-8, atol=1e-14)


def test_cpu_and_gpu_agree():
    model, batches = build("llama"), make_batches(2)
    expected = metagradient(model, batches, lm_metric(model), OPTIMIZER)
    gpu = build("llama").cuda()
    start = lambda params: lm_metric(build("llama"))({k: v.cpu() for k, v in params.items()})
    found = metagradient(gpu, on_gpu(batches), start, OPTIMIZER)
    assert relative(found.weights.cpu(), expected.weights) <= 1e-4
