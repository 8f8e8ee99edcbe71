"""The same code on a GPU."""

from __future__ import annotations

import pytest
import torch

from rewards.metagradient import InnerOptimizer, metagradient
from rewards.metagradient.testing import build, lm_metric, make_batches, oracle, relative

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
OPTIMIZER = InnerOptimizer("adamw", lr=1e-2, eps_root=1e-6)


def on_gpu(batches):
    return [{k: v.cuda() for k, v in batch.items()} for batch in batches]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("steps", [1, 3])
def test_float64_equals_full_unrolling(kind, steps):
    model, batches = build(kind).cuda(), on_gpu(make_batches(steps))
    held = on_gpu(make_batches(1, (2,), 7))[0]
    from rewards.metagradient.testing import Double, example_losses

    metric = lambda params: -example_losses(model, params, held).mean()
    with Double():
        _, weights = oracle(model, batches, metric, OPTIMIZER)
        found = metagradient(model, batches, metric, OPTIMIZER)
    assert found.weights.is_cuda and relative(found.weights, weights) <= 1e-9


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


def test_cpu_and_gpu_agree():
    model, batches = build("llama"), make_batches(2)
    expected = metagradient(model, batches, lm_metric(model), OPTIMIZER)
    gpu = build("llama").cuda()
    start = lambda params: lm_metric(build("llama"))({k: v.cpu() for k, v in params.items()})
    found = metagradient(gpu, on_gpu(batches), start, OPTIMIZER)
    assert relative(found.weights.cpu(), expected.weights) <= 1e-4
