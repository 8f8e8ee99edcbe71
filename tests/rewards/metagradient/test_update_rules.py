"""Inner optimizers step by step against torch.optim and torchopt; their vjp against autograd."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torchopt

from rewards.metagradient import InnerOptimizer, TorchOptRule, UpdateRule, metagradient
from rewards.metagradient.testing import build, lm_metric, make_batches

GRID = [
    *(
        InnerOptimizer(name, lr=0.03, betas=betas, eps=eps, eps_root=root, weight_decay=decay)
        for name, betas, eps, root, decay in product(
            ("adamw", "adam"), [(0.9, 0.95), (0.0, 0.5)], [1e-8, 1e-2], [0.0, 1e-4], [0.0, 0.1]
        )
    ),
    *(
        InnerOptimizer("sgd", lr=0.03, momentum=momentum, nesterov=nesterov, weight_decay=decay)
        for momentum, nesterov, decay in product([0.0, 0.9], [False, True], [0.0, 0.1])
        if momentum or not nesterov
    ),
    InnerOptimizer("sgd", lr=0.03, momentum=0.9, dampening=0.3),
    InnerOptimizer("adamw", lr=lambda step: 0.03 * (step + 1), eps_root=0.0),
]


def name(o: InnerOptimizer) -> str:
    rate = "schedule" if callable(o.lr) else "constant"
    if o.name == "sgd":
        return f"sgd-{rate}-m{o.momentum}-d{o.dampening}{'-nesterov' if o.nesterov else ''}-wd{o.weight_decay}"
    return f"{o.name}-{rate}-b{o.betas[0]}-eps{o.eps}-root{o.eps_root}-wd{o.weight_decay}"


grid = pytest.mark.parametrize("optimizer", GRID, ids=name)


def path(rule: UpdateRule, steps: int = 5, size: int = 9):
    """theta after each step on made-up gradients, some of them exactly zero."""
    generator = torch.Generator().manual_seed(3)
    theta = torch.randn(size, generator=generator, dtype=torch.float64)
    grads = torch.randn(steps, size, generator=generator, dtype=torch.float64)
    grads[:, 0] = 0
    grads[0, 1] = 0
    state, out = rule.init(theta), [theta]
    for step in range(steps):
        theta, state = rule.update(step, theta, state, grads[step])
        out.append(theta)
    return out, grads


@grid
def test_steps_as_torch_optim(optimizer):
    if optimizer.eps_root and optimizer.name != "sgd":
        pytest.skip("torch.optim has no eps_root; compared with torchopt")
    ours, grads = path(optimizer.rule())
    parameter = ours[0].clone().requires_grad_()
    o, rate = optimizer, optimizer.rate(0)
    if o.name == "sgd":
        theirs = torch.optim.SGD([parameter], rate, o.momentum, o.dampening, o.weight_decay, o.nesterov)
    else:
        cls = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[o.name]
        theirs = cls([parameter], rate, o.betas, o.eps, o.weight_decay)
    for step, grad in enumerate(grads):
        theirs.param_groups[0]["lr"] = optimizer.rate(step)
        parameter.grad = grad.clone()
        theirs.step()
        assert torch.allclose(ours[step + 1], parameter.detach(), rtol=1e-12, atol=1e-14)


@grid
def test_steps_as_torchopt(optimizer):
    o = optimizer
    if o.dampening:
        pytest.skip("torchopt's trace keeps `first_call` across states; compared with torch.optim")
    if o.name == "sgd":
        rule = TorchOptRule(torchopt.sgd(o.lr, o.momentum, o.dampening, o.weight_decay, o.nesterov))
    else:
        make = {"adam": torchopt.adam, "adamw": torchopt.adamw}[o.name]
        rule = TorchOptRule(make(o.lr, o.betas, o.eps, o.weight_decay, eps_root=o.eps_root))
    ours, _ = path(o.rule())
    theirs, _ = path(rule)
    for one, two in zip(ours, theirs, strict=True):  # torchopt computes bias corrections in float32
        assert torch.allclose(one, two, rtol=1e-12, atol=1e-14 if o.name == "sgd" else 1e-6)


@grid
@pytest.mark.parametrize("step", [0, 3])
def test_vjp_as_autograd(optimizer, step):
    rule, generator = optimizer.rule(), torch.Generator().manual_seed(4)
    draw = lambda: torch.randn(9, generator=generator, dtype=torch.float64)
    theta, grad, u = draw(), draw(), draw()
    state = rule.init(theta)
    if step:
        state = (draw(), draw().square())[: len(state)]
    u_state = tuple(draw() for _ in state)
    expected = UpdateRule.vjp(rule, step, theta, state, grad, u, u_state)
    found = rule.vjp(step, theta, state, grad, u.clone(), tuple(s.clone() for s in u_state))
    for one, two in zip([found[0], *found[1], found[2]], [expected[0], *expected[1], expected[2]], strict=True):
        assert torch.allclose(one, two, rtol=1e-11, atol=1e-13)


@grid
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_vjp_is_finite_and_right_at_zero_gradient(optimizer, dtype):
    """At v = 0 autograd through sqrt gives NaN; the limit of dDelta/dg is -lr / eps at the first step."""
    rule, zero, one = optimizer.rule(), torch.zeros(4, dtype=dtype), torch.ones(4, dtype=dtype)
    state = rule.init(zero)
    u, u_state, d = rule.vjp(0, zero, state, zero, one.clone(), tuple(torch.zeros_like(s) for s in state))
    assert all(bool(torch.isfinite(t).all()) for t in (u, *u_state, d))
    if optimizer.name != "sgd":
        slope = -optimizer.rate(0) / (optimizer.eps + optimizer.eps_root**0.5)
        assert torch.allclose(d, torch.full_like(d, slope), rtol=1e-5)
        assert torch.allclose(rule.vjp_alone(zero, zero, one), d, rtol=1e-5)


@grid
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_step_alone_as_autograd(optimizer, dtype):
    """The closed form of a first and only step, against autograd in float64, over nine decades of gradients."""
    rule, generator = optimizer.rule(), torch.Generator().manual_seed(4)
    theta, u = (torch.randn(40, generator=generator, dtype=torch.float64) for _ in range(2))
    grad = torch.randn(40, generator=generator, dtype=torch.float64) * torch.logspace(-8, 1, 40, dtype=torch.float64)
    state = rule.init(theta)
    zeros = tuple(torch.zeros_like(s) for s in state)
    expected = UpdateRule.vjp(rule, 0, theta, state, grad, u, zeros)[-1]
    found = rule.vjp_alone(theta.to(dtype), grad.to(dtype), u.to(dtype))
    tight = dict(rtol=1e-9, atol=1e-12) if dtype == torch.float64 else dict(rtol=1e-4, atol=1e-9)
    if optimizer.name == "adam" and optimizer.weight_decay and dtype == torch.float32:
        tight = dict(rtol=1e-3, atol=1e-6)  # what the decay adds to the smallest gradients is rounded first
    if optimizer.eps_root == 0.0 and optimizer.name != "sgd" and dtype == torch.float64:
        tight["rtol"] = 1e-5  # autograd subtracts two numbers that nearly agree, the closed form does not
    assert torch.allclose(found.double(), expected, **tight)


def test_a_step_alone_without_any_eps():
    """The sign of the gradient: nothing to differentiate."""
    rule = InnerOptimizer("adam", lr=0.1, eps=0.0, eps_root=0.0).rule()
    assert not rule.vjp_alone(torch.ones(3), torch.tensor([0.0, 1.0, -2.0]), torch.ones(3)).any()


@pytest.mark.parametrize(
    "make",
    [
        lambda: torchopt.rmsprop(1e-2, eps=1e-3, initial_scale=0.1),
        lambda: torchopt.adagrad(1e-2, initial_accumulator_value=0.1),
        lambda: torchopt.adamax(1e-2, eps=1e-2),
    ],
    ids=["rmsprop", "adagrad", "adamax"],
)
def test_a_further_torchopt_optimizer_plugs_in(make):
    """Against finite differences: torchopt's state handling is not ours to trust."""
    from rewards.metagradient import train

    model, batches, step = build("gpt2"), make_batches(2, (3,)), 1e-6
    metric = lm_metric(model)
    found = metagradient(model, batches, metric, TorchOptRule(make())).weights
    for i in range(len(found)):
        w = torch.ones(6, dtype=torch.float64)
        w[i] += step
        up = metric(train(model, batches, TorchOptRule(make()), weights=w))
        w[i] -= 2 * step
        down = metric(train(model, batches, TorchOptRule(make()), weights=w))
        assert float(up - down) / (2 * step) == pytest.approx(float(found[i]), rel=1e-3, abs=1e-7)


@pytest.mark.parametrize("optimizer", GRID[::5], ids=name)
def test_blocks_change_nothing(optimizer, monkeypatch):
    from rewards.metagradient import optimizer as module

    rule, generator = optimizer.rule(), torch.Generator().manual_seed(4)
    draw = lambda: torch.randn(50, generator=generator, dtype=torch.float64)
    theta, grad, u = draw(), draw(), draw()
    state = (draw(), draw().square())[: rule.slots]
    u_state = tuple(draw() for _ in state)

    def run():
        new = module.updated(rule, 2, theta, state, grad)
        back = module.pulled_back(rule, 2, theta, state, grad, u.clone(), tuple(v.clone() for v in u_state))
        fresh = module.pulled_back(rule, 2, theta, state, grad, u.clone(), None)
        start = module.pulled_back(rule, 0, theta, rule.init(theta), grad, u.clone(), None)[2]
        end = module.updated(rule, 2, theta, state, grad, last=True)[0]
        assert torch.equal(end, new[0])
        return [new[0], *new[1], back[0], *back[1], back[2], fresh[0], *fresh[1], fresh[2], start]

    whole = run()
    monkeypatch.setitem(module.BLOCK, "cpu", 16)
    assert all(torch.equal(one, two) for one, two in zip(whole, run(), strict=True))


def test_settings_that_make_no_sense_are_refused():
    for wrong in ({"name": "adamax"}, {"betas": (1.0, 0.9)}, {"eps": -1.0}, {"nesterov": True}):
        with pytest.raises(ValueError):
            InnerOptimizer(**wrong)
    with pytest.raises(TypeError):
        metagradient(build("gpt2"), make_batches(1), lambda p: 0, torch.optim.SGD)
