"""The written-out second derivatives against autograd's own, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rewards.metagradient import kernels


def leaf(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()


LINEAR = kernels._Linear.apply
FULL, GRAPH_ONLY = kernels.GraphOnly(), kernels.GraphOnly()
GRAPH_ONLY.on = True
TARGETS = torch.tensor([3, 0, 6, 3])
LATER = torch.full((5, 5), -1e30, dtype=torch.float64).triu(1)
CASES = {
    "layer_norm": (
        lambda x, w, b: kernels._LayerNorm.apply(x, w, b, 1e-5),
        lambda x, w, b: F.layer_norm(x, (7,), w, b, 1e-5),
        [(2, 4, 7), (7,), (7,)],
    ),
    "rms_norm": (
        lambda x, w: kernels._RMSNorm.apply(x, w, 1e-5),
        lambda x, w: w * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)),
        [(2, 4, 7), (7,)],
    ),
    "silu": (lambda x: kernels.activation(x, "silu"), lambda x: x * torch.sigmoid(x), [(4, 7)]),
    "gelu": (lambda x: kernels.activation(x, "none"), lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), [(4, 7)]),
    "gelu_tanh": (
        lambda x: kernels.activation(x, "tanh"),
        lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))),
        [(4, 7)],
    ),
    "head": (lambda h, w: LINEAR(h, w, None, False, True, FULL), lambda h, w: h @ w.T, [(4, 5), (30, 5)]),
    "linear": (lambda *xs: LINEAR(*xs, False, False, FULL), F.linear, [(4, 5), (6, 5), (6,)]),
    "conv1d": (
        lambda *xs: LINEAR(*xs, True, False, FULL),
        lambda x, w, b: x @ w + b,
        [(4, 5), (5, 6), (6,)],
    ),
    "attention": (
        lambda q, k, v: kernels._Attention.apply(q, k, v, 0.4, LATER),
        lambda q, k, v: torch.softmax(0.4 * q @ k.transpose(1, 2) + LATER, -1) @ v,
        [(3, 5, 4)] * 3,
    ),
    "token_nll": (
        lambda z: kernels.token_nll(z, TARGETS),
        lambda z: torch.logsumexp(z, -1) - z[torch.arange(4), TARGETS],
        [(4, 7)],
    ),
}


def second_order(function, inputs, cotangent, directions):
    """First derivatives, and the derivative of <directions, first derivatives> in inputs and cotangent."""
    out = function(*inputs)
    first = torch.autograd.grad(out, inputs, cotangent, create_graph=True)
    pairs = [(f, d) for f, d in zip(first, directions, strict=True) if d is not None]
    second = torch.autograd.grad(
        [f for f, _ in pairs], [*inputs, cotangent], [d for _, d in pairs], allow_unused=True, materialize_grads=True
    )
    return [out, *first, *second]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("which", ["all", "first", "last"])
def test_second_derivative(name, which):
    ours, plain, shapes = CASES[name]
    inputs = [leaf(*shape, seed=i) for i, shape in enumerate(shapes)]
    cotangent = leaf(*plain(*inputs).shape, seed=8)
    directions = [leaf(*shape, seed=20 + i).detach() for i, shape in enumerate(shapes)]
    if which != "all":
        keep = 0 if which == "first" else len(shapes) - 1
        directions = [d if i == keep else None for i, d in enumerate(directions)]
    found, expected = (second_order(f, inputs, cotangent, directions) for f in (ours, plain))
    for one, two in zip(found, expected, strict=True):
        assert torch.allclose(one, two, rtol=1e-11, atol=1e-12)


def test_head_with_a_direction_in_few_rows():
    h, weight, g = leaf(4, 5), leaf(40, 5, seed=1), leaf(4, 40, seed=2)
    direction = torch.zeros(40, 5, dtype=torch.float64)
    direction[[2, 31]] = leaf(2, 5, seed=3).detach()
    found, expected = (second_order(f, [h, weight], g, [None, direction]) for f in (CASES["head"][0], CASES["head"][1]))
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-13) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("conv", [False, True], ids=["linear", "conv1d"])
def test_a_lean_pass_differs_in_the_weight_gradients_alone(conv):
    x, bias, g = leaf(4, 5), leaf(6, seed=2), leaf(4, 6, seed=3)
    weight = leaf(*((5, 6) if conv else (6, 5)), seed=1)
    directions = [leaf(*t.shape, seed=10 + i).detach() for i, t in enumerate((x, weight, bias))]
    one, two = (
        second_order(lambda *xs, how=how: LINEAR(*xs, conv, False, how), [x, weight, bias], g, directions)
        for how in (FULL, GRAPH_ONLY)
    )
    for i, (a, b) in enumerate(zip(one, two, strict=True)):
        assert bool((b == 0).all()) if i in (2, 3) else torch.equal(a, b)


@pytest.mark.parametrize("frozen", ["x", "weight", "bias"])
def test_linear_with_a_part_that_does_not_train(frozen):
    inputs = {"x": leaf(4, 5), "weight": leaf(6, 5, seed=1), "bias": leaf(6, seed=2)}
    inputs[frozen] = inputs[frozen].detach()
    wanted = [t for name, t in inputs.items() if name != frozen]
    found = []
    for function in (CASES["linear"][0], F.linear):
        out = function(*inputs.values())
        first = torch.autograd.grad(out, wanted, torch.ones_like(out) * out, create_graph=True)
        found.append([*first, *torch.autograd.grad([f.square().sum() for f in first], wanted)])
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-13) for a, b in zip(*found, strict=True))


def test_a_subclass_keeps_its_own_arithmetic():
    class Doubled(nn.LayerNorm):
        def forward(self, x):
            return 2 * super().forward(x)

    model = nn.Sequential(Doubled(4), nn.LayerNorm(4), nn.SiLU())
    kernels.fit(model, None, kernels.GraphOnly())
    assert "forward" not in vars(model[0]) and "forward" in vars(model[1]) and "forward" in vars(model[2])
