"""Norms, activations and the token loss with their second derivatives written out.

PyTorch differentiates its fused kernels twice by dozens of elementwise steps; for a small transformer these cost about
a third of the double-backward pass. Each class below is a function, its `backward` is again a differentiable function,
and the `backward` of that is the closed form (there is no third derivative). Values and first derivatives are
PyTorch's own kernels. Checked against autograd in float64 (tests/rewards/metagradient/test_kernels.py).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

aten = torch.ops.aten


# ----------------------------------------------------------------------------------------------------------- layer norm


class _LayerNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, mean, rstd = aten.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *_LayerNormBackward.apply(g, *ctx.saved_tensors), None


class _LayerNormBackward(Function):
    """With n the width, h = (x - mean) rstd and J v = rstd (v - mean(v) - h mean(v h)): gx = J (g w), gw = sum g h."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor):
        ctx.save_for_backward(g, x, weight, mean, rstd)
        return aten.native_layer_norm_backward(g, x, weight.shape, mean, rstd, weight, bias, [True, True, True])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, p: Tensor, q: Tensor, s: Tensor) -> tuple[Tensor | None, ...]:
        g, x, weight, mean, rstd = ctx.saved_tensors
        shape, mask = weight.shape, [True, False, False]
        h = torch.addcmul(-mean * rstd, x, rstd)
        jp = aten.native_layer_norm_backward(p, x, shape, mean, rstd, None, None, mask)[0]
        lead = tuple(range(g.dim() - 1))
        g_adjoint = torch.addcmul(s, jp, weight).addcmul_(h, q)
        w_adjoint = (g * jp).sum(lead)
        gw = g * weight
        a, c = (p * h).mean(-1, keepdim=True), (gw * h).mean(-1, keepdim=True)
        spread = (p * gw).mean(-1, keepdim=True) - p.mean(-1, keepdim=True) * gw.mean(-1, keepdim=True) - a * c
        v = torch.addcmul(g * q, p, -rstd * c).addcmul_(gw, -rstd * a)
        x_adjoint = aten.native_layer_norm_backward(v, x, shape, mean, rstd, None, None, mask)[0]
        return g_adjoint, x_adjoint.addcmul_(h, -spread * rstd * rstd), w_adjoint, None, None, None


def layer_norm(module: nn.LayerNorm, x: Tensor) -> Tensor:
    return _LayerNorm.apply(x, module.weight, module.bias, module.eps)


# ------------------------------------------------------------------------------------------------------------- RMS norm


class _RMSNorm(Function):
    """y = w * x * r with r = (mean(x^2) + eps)^-1/2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        rstd = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, rstd)
        return (x * rstd).mul_(weight)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *_RMSNormBackward.apply(g, *ctx.saved_tensors), None


class _RMSNormBackward(Function):
    """With h = x r and J v = r (v - h mean(v h)): gx = J (g w), gw = sum g h."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, weight: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(g, x, weight, rstd)
        h, gw = x * rstd, g * weight
        gx = (gw - h * (gw * h).mean(-1, keepdim=True)).mul_(rstd)
        return gx, h.mul_(g).sum(tuple(range(g.dim() - 1)))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, p: Tensor, q: Tensor) -> tuple[Tensor | None, ...]:
        g, x, weight, rstd = ctx.saved_tensors
        h, gw = x * rstd, g * weight
        a, c = (p * h).mean(-1, keepdim=True), (gw * h).mean(-1, keepdim=True)
        jp = torch.addcmul(p, h, -a).mul_(rstd)
        w_adjoint = (g * jp).sum(tuple(range(g.dim() - 1)))
        spread = (p * gw).mean(-1, keepdim=True) - a * c
        v = torch.addcmul(g * q, p, -rstd * c).addcmul_(gw, -rstd * a)
        x_adjoint = torch.addcmul(v, h, -(v * h).mean(-1, keepdim=True)).mul_(rstd)
        return jp.mul_(weight).addcmul_(h, q), x_adjoint.addcmul_(h, -spread * rstd * rstd), w_adjoint, None


def rms_norm(module: nn.Module, x: Tensor) -> Tensor:
    """Hugging Face's Llama family: normalise in float32 at least, round to x's dtype, then scale."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    eps = module.variance_epsilon
    if wide is x and module.weight.dtype == x.dtype:
        return _RMSNorm.apply(x, module.weight, eps)
    return module.weight * _RMSNorm.apply(wide, torch.ones_like(module.weight, dtype=wide.dtype), eps).to(x.dtype)


# ---------------------------------------------------------------------------------------------------------- activations


class _Activation(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kind = kind
        return F.silu(x) if kind == "silu" else F.gelu(x, approximate=kind)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return _ActivationBackward.apply(g, ctx.saved_tensors[0], ctx.kind), None


class _ActivationBackward(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, kind: str) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.kind = kind
        return _slope(g, x, kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, p: Tensor) -> tuple[Tensor, Tensor, None]:
        g, x = ctx.saved_tensors
        return _slope(p, x, ctx.kind), _curvature(x, ctx.kind).mul_(p).mul_(g), None


def _slope(g: Tensor, x: Tensor, kind: str) -> Tensor:
    return aten.silu_backward(g, x) if kind == "silu" else aten.gelu_backward(g, x, approximate=kind)


def _curvature(x: Tensor, kind: str) -> Tensor:
    """f''(x), a new tensor."""
    if kind == "silu":
        s = torch.sigmoid(x)
        return torch.addcmul(2.0 * torch.ones_like(x), x, 1.0 - 2.0 * s).mul_(s).mul_(1.0 - s)
    square = x * x
    if kind == "none":
        return torch.exp(-0.5 * square).mul_(2.0 - square).mul_(1.0 / math.sqrt(2.0 * math.pi))
    # f = x (1 + t) / 2 with t = tanh(u), u = k (x + c x^3): f'' = (1 - t^2) (u' + x u'' / 2 - x t u'^2)
    k, c = math.sqrt(2.0 / math.pi), 0.044715
    t = square.mul(c).add_(1.0).mul_(x).mul_(k).tanh_()
    slope = square.mul(3.0 * k * c).add_(k)
    inner = square.mul_(6.0 * k * c).add_(k).addcmul_(slope.square_().mul_(x), t, value=-1.0)
    return t.square_().neg_().add_(1.0).mul_(inner)


def activation(x: Tensor, kind: str) -> Tensor:
    """kind: "silu", "none" (erf gelu) or "tanh" (its approximation)."""
    return _Activation.apply(x, kind)


# -------------------------------------------------------------------------------------------------------------- LM head


class _Head(Function):
    """z = h W^T for (M, H) rows and a (V, H) weight."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(h, weight)
        return h @ weight.T

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        return _HeadBackward.apply(g, *ctx.saved_tensors)


class _HeadBackward(Function):
    """gh = g W, gW = g^T h. A direction D of gW whose rows are mostly zero (a metric on a patch of the LM head) meets
    only those rows, and one that asks for gW alone skips the half that belongs to gh."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, h: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(g, h, weight)
        ctx.set_materialize_grads(False)
        return g @ weight, g.T @ h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, p: Tensor | None, d: Tensor | None) -> tuple[Tensor | None, ...]:
        g, h, weight = ctx.saved_tensors
        need_g, need_h, need_w = ctx.needs_input_grad
        g_adjoint = p @ weight.T if p is not None and need_g else None
        w_adjoint = g.T @ p if p is not None and need_w else None
        h_adjoint = None
        if d is not None:
            rows = d.any(1).nonzero()[:, 0]
            sparse = len(rows) * 8 < len(d)
            part, taken = (d[rows], g[:, rows]) if sparse else (d, g)
            if need_g:
                if not sparse:
                    g_adjoint = h @ part.T if g_adjoint is None else g_adjoint.addmm_(h, part.T)
                else:
                    g_adjoint = torch.zeros_like(g) if g_adjoint is None else g_adjoint
                    g_adjoint.index_add_(1, rows, h @ part.T)
            if need_h:
                h_adjoint = taken @ part
        return g_adjoint, h_adjoint, w_adjoint


def head(module: nn.Linear, h: Tensor) -> Tensor:
    """nn.Linear without bias on (..., M, H)."""
    return _Head.apply(h.reshape(-1, h.shape[-1]), module.weight).view(*h.shape[:-1], -1)


# ----------------------------------------------------------------------------------------------------------- token loss


class _TokenNLL(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        logp = torch.log_softmax(logits, -1)
        ctx.save_for_backward(logits, targets, logp)
        return -logp.gather(1, targets[:, None])[:, 0]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return _TokenNLLBackward.apply(g, *ctx.saved_tensors), None


class _TokenNLLBackward(Function):
    """gz = g (p - e_y)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, logits: Tensor, targets: Tensor, logp: Tensor) -> Tensor:
        p = logp.exp()
        ctx.save_for_backward(g, targets, p)
        return (p * g[:, None]).scatter_add_(1, targets[:, None], -g[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, q: Tensor) -> tuple[Tensor | None, ...]:
        g, targets, p = ctx.saved_tensors
        pq = p * q
        total = pq.sum(-1)
        g_adjoint = total - q.gather(1, targets[:, None])[:, 0]
        z_adjoint = pq.addcmul_(p, total[:, None], value=-1.0).mul_(g[:, None])
        return g_adjoint, z_adjoint, None, None


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """(M,) -log softmax(logits (M, V))[target]."""
    return _TokenNLL.apply(logits, targets)


# ------------------------------------------------------------------------------------------------------ fitting a model

RMS_NORMS = {"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"}
TANH_GELUS = {"NewGELUActivation", "GELUTanh"}


def fit(module: nn.Module, lm_head: nn.Module | None) -> None:
    """Give the modules of a private copy that these kernels cover their forward. Classes are matched exactly, by
    their Hugging Face names where they are not torch's, so that a subclass with other arithmetic keeps its own."""
    if type(lm_head) is nn.Linear and lm_head.bias is None:
        lm_head.forward = lambda h: head(lm_head, h)
    for part in module.modules():
        name = type(part).__name__
        if type(part) is nn.LayerNorm and part.weight is not None and part.bias is not None:
            if part.weight.dim() == 1:
                part.forward = lambda x, part=part: layer_norm(part, x)
        elif name in RMS_NORMS and hasattr(part, "variance_epsilon"):
            part.forward = lambda hidden_states, part=part: rms_norm(part, hidden_states)
        elif name in TANH_GELUS or (name == "GELU" and getattr(part, "approximate", "") == "tanh"):
            part.forward = lambda x: activation(x, "tanh")
        elif name == "GELUActivation" or (name == "GELU" and getattr(part, "approximate", "") == "none"):
            part.forward = lambda x: activation(x, "none")
        elif name in ("SiLU", "SiLUActivation"):
            part.forward = lambda x: activation(x, "silu")
