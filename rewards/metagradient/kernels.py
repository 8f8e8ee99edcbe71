"""Linear layers, norms, activations and the token loss with their second derivatives written out.

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

from rewards.metagradient import recompute, sharding

aten = torch.ops.aten
BLOCK = 1 << 16
"""Numbers a chain of elementwise operations sees at once on a CPU, so that its temporaries stay in cache."""


def _blocks(rows: int, width: int, device: torch.device) -> list[slice]:
    """Cuts of the first axis of (rows, width); everything at once on an accelerator."""
    size = max(BLOCK // width, 1) if device.type == "cpu" else max(rows, 1)
    return [slice(start, start + size) for start in range(0, rows, size)]


# ----------------------------------------------------------------------------------------------------------- layer norm


class _LayerNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        y, mean, rstd = aten.native_layer_norm(x, weight.shape, weight, bias, eps)
        ctx.save_for_backward(x, weight, bias, mean, rstd)
        recompute.offer(
            y, lambda x, w, b: aten.native_layer_norm(x, w.shape, w, b, eps)[0], x, weight, bias, forward=True
        )
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
    return sharding.call(_LayerNorm, x, module.weight, module.bias, module.eps)


# ------------------------------------------------------------------------------------------------------------- RMS norm


class _RMSNorm(Function):
    """y = w * x * r with r = (mean(x^2) + eps)^-1/2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        # The mean in float64: it costs nothing, and in float32 its rounding alone made a tied Llama's error 1.2e-4.
        rstd = x.square().mean(-1, keepdim=True, dtype=torch.float64).add_(eps).rsqrt_().to(x.dtype)
        ctx.save_for_backward(x, weight, rstd)
        y = (x * rstd).mul_(weight)
        recompute.offer(y, lambda x, w, r: (x * r).mul_(w), x, weight, rstd, forward=True)
        return y

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
        return sharding.call(_RMSNorm, x, module.weight, eps)
    return module.weight * _RMSNorm.apply(wide, torch.ones_like(module.weight, dtype=wide.dtype), eps).to(x.dtype)


# ---------------------------------------------------------------------------------------------------------- activations


class _Curve:
    """[f(x), f'(x), f''(x)] of one call of an activation, made together and kept: a graph that holds recipes
    (recompute.py) needs all three within one pass, and their common part, tanh or the like, is what costs."""

    def __init__(self, x: Tensor, kind: str) -> None:
        self.x, self.kind = x.detach(), kind
        self.made: list[Tensor | None] | None = None

    def make(self) -> list[Tensor | None]:
        if self.made is None:
            self.made = list(_curve(self.x, self.kind))
        return self.made


class _Activation(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.kind, ctx.curve = kind, _Curve(x, kind) if recompute.is_saving() else None
        y = F.silu(x) if kind == "silu" else F.gelu(x, approximate=kind)
        recompute.offer(y, lambda curve=ctx.curve: curve.make()[0], forward=True)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None, None]:
        return _ActivationBackward.apply(g, ctx.saved_tensors[0], ctx.kind, ctx.curve), None


class _ActivationBackward(Function):
    @staticmethod
    def forward(ctx: Any, g: Tensor, x: Tensor, kind: str, curve: _Curve | None) -> Tensor:
        ctx.save_for_backward(g, x)
        ctx.kind, ctx.curve = kind, curve
        if curve is not None and curve.made is not None:
            return g * curve.made[1]
        gx = aten.silu_backward(g, x) if kind == "silu" else aten.gelu_backward(g, x, approximate=kind)
        recompute.offer(gx, lambda g: g * curve.make()[1], g, forward=False)
        return gx

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, p: Tensor) -> tuple[Tensor | None, ...]:
        g, x = ctx.saved_tensors
        if ctx.curve is not None and ctx.curve.made is not None:
            _, slope, curvature = ctx.curve.made
            ctx.curve.made[2] = None  # nobody else asks for it
            return slope * p, curvature.mul_(p).mul_(g), None, None
        _, slope, curvature = _curve(x, ctx.kind, value=False)
        return slope.mul_(p), curvature.mul_(p).mul_(g), None, None


def _curve(x: Tensor, kind: str, *, value: bool = True) -> tuple[Tensor | None, Tensor, Tensor]:
    """(f(x) if asked for, f'(x), f''(x)), new tensors; in float32 inside where x is narrower, as PyTorch's own."""
    flat, narrow = x.reshape(-1), x.dtype in (torch.float16, torch.bfloat16)
    made = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(3 if value else 2)]
    for cut in _blocks(x.numel(), 1, x.device):
        part = flat[cut].float() if narrow else flat[cut]
        first, second, unit = _slopes(part, kind)
        made[-2].view(-1)[cut], made[-1].view(-1)[cut] = first, second
        if value:
            torch.mul(unit, part, out=made[0].view(-1)[cut])
    return (*made,) if value else (None, *made)


def _slopes(x: Tensor, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    """(f'(x), f''(x), f(x) / x), new tensors."""
    if kind == "silu":
        s = torch.sigmoid(x)
        rest = 1.0 - s
        first = torch.addcmul(s, x * s, rest)
        return first, rest.mul_(s).mul_((1.0 - 2.0 * s).mul_(x).add_(2.0)), s
    square = x * x
    if kind == "none":
        bell = torch.exp(-0.5 * square).mul_(1.0 / math.sqrt(2.0 * math.pi))
        normal = torch.erf(x * math.sqrt(0.5)).add_(1.0).mul_(0.5)
        return torch.addcmul(normal, x, bell), bell.mul_(2.0 - square), normal
    # f = x (1 + t) / 2 with t = tanh(u), u = k (x + c x^3):
    # f' = (1 + t) / 2 + (1 - t^2) x u' / 2,  f'' = (1 - t^2) (u' + x u'' / 2 - x t u'^2)
    k, c = math.sqrt(2.0 / math.pi), 0.044715
    t = square.mul(k * c).add_(k).mul_(x).tanh_()
    steep = square.mul(3.0 * k * c).add_(k)
    rest = torch.addcmul(torch.ones_like(t), t, t, value=-1.0)
    moved = steep * x
    first = torch.addcmul(t, rest, moved).add_(1.0).mul_(0.5)
    second = square.mul_(3.0 * k * c).add_(steep).addcmul_(moved.mul_(t), steep, value=-1.0).mul_(rest)
    return first, second, t.add_(1.0).mul_(0.5)


def activation(x: Tensor, kind: str) -> Tensor:
    """kind: "silu", "none" (erf gelu) or "tanh" (its approximation)."""
    return _Activation.apply(x, kind)


# --------------------------------------------------------------------------------------------------------------- linear


FEW_ROWS = 1 / 8
"""Share of a weight's rows below which gathering them is cheaper than multiplying all."""


def few_rows(direction: Tensor) -> Tensor | None:
    """Numbers of the rows of (O, I) that are not zero; None where they are not few."""
    rows = direction.any(1).nonzero()[:, 0]
    return rows if len(rows) < FEW_ROWS * len(direction) else None


class GraphOnly:
    """While `on`, backward passes form no weight gradients, a third of their work: their graph is wanted, which is to
    be differentiated again, and not their values."""

    on = False


class _Linear(Function):
    """y = x A^T + b for (M, I) rows and a weight A (O, I), or, `conv`, its transpose (I, O) as in GPT-2's Conv1D.

    rows   whether a direction of the weight may well have few non-zero rows (a metric on a patch of the LM head)
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, conv: bool, rows: bool, graph_only: GraphOnly
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = bias is not None, conv, rows, graph_only
        return F.linear(x, weight.T if conv else weight, bias)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *_LinearBackward.apply(g, *ctx.saved_tensors, *ctx.how, ctx.needs_input_grad), None, None, None

    @staticmethod
    def pulled(
        g: Tensor,
        need: tuple[bool, ...],
        again: bool,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        conv: bool,
        rows: bool,
        graph_only: GraphOnly,
    ) -> tuple[Tensor | None, ...]:
        """Adjoints of the tensors without the forward pass (`sharding.call`)."""
        if again:
            graph_only = GraphOnly()
            graph_only.on = True
        need = (*need, False)
        found = _LinearBackward.apply(g, x, weight, bias is not None, conv, rows, graph_only, need)
        return found if bias is not None else found[:2]


class _LinearBackward(Function):
    """gx = g A, gA = g^T x, gb = sum g. A direction D of gA whose rows are mostly zero meets only those rows, and one
    that asks for gA alone skips the half that belongs to gx."""

    @staticmethod
    def forward(
        ctx: Any,
        g: Tensor,
        x: Tensor,
        weight: Tensor,
        biased: bool,
        conv: bool,
        rows: bool,
        graph_only: GraphOnly,
        need,
    ):
        ctx.save_for_backward(g, x, weight)
        ctx.set_materialize_grads(False)
        ctx.conv, ctx.rows = conv, rows
        gx = g @ (weight.T if conv else weight) if need[0] else None
        gw, gb = None, None
        if need[1]:
            gw = weight.new_zeros(()).expand_as(weight) if graph_only.on else x.T @ g if conv else g.T @ x
        if biased and need[2]:
            gb = g.new_zeros(()).expand(g.shape[1]) if graph_only.on else g.sum(0)
        return gx, gw, gb

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, p: Tensor | None, d: Tensor | None, e: Tensor | None) -> tuple[Tensor | None, ...]:
        g, x, weight = ctx.saved_tensors
        conv, (need_g, need_x, need_w) = ctx.conv, ctx.needs_input_grad[:3]
        g_adjoint = p @ (weight if conv else weight.T) if p is not None and need_g else None
        w_adjoint = None
        if p is not None and need_w:
            w_adjoint = p.T @ g if conv else g.T @ p
        x_adjoint = None
        if d is not None:
            d = d.T if conv else d  # (O, I)
            rows = few_rows(d) if ctx.rows else None
            part, taken = (d, g) if rows is None else (d[rows], g[:, rows])
            if need_g:
                if rows is None:
                    g_adjoint = x @ part.T if g_adjoint is None else g_adjoint.addmm_(x, part.T)
                else:
                    g_adjoint = torch.zeros_like(g) if g_adjoint is None else g_adjoint
                    g_adjoint.index_add_(1, rows, x @ part.T)
            if need_x:
                x_adjoint = taken @ part
        if e is not None and need_g:
            g_adjoint = e.expand_as(g) if g_adjoint is None else g_adjoint.add_(e)
        return g_adjoint, x_adjoint, w_adjoint, None, None, None, None, None


def linear(module: nn.Module, x: Tensor, graph_only: GraphOnly, *, rows: bool = False) -> Tensor:
    """nn.Linear or Conv1D on (..., I)."""
    conv = type(module) is not nn.Linear
    flat = x.reshape(-1, x.shape[-1])
    y = sharding.call(_Linear, flat, module.weight, module.bias, conv, rows, graph_only)
    return y.view(*x.shape[:-1], y.shape[-1])


# ------------------------------------------------------------------------------------------------------------ attention


class _Attention(Function):
    """o = a v with a = softmax(scale q k^T) over earlier positions and the own one, all (n * heads, S, D)."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, later: Tensor) -> Tensor:
        a = torch.softmax(torch.baddbmm(later, q, k.transpose(1, 2), alpha=scale), -1)
        ctx.save_for_backward(q, k, v, a)
        ctx.scale = scale
        return torch.bmm(a, v)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return *_AttentionBackward.apply(g, *ctx.saved_tensors, ctx.scale), None, None


class _AttentionBackward(Function):
    """With h = g v^T and J h = a (h - sum a h), the softmax's own: gq = scale (J h) k, gk = scale (J h)^T q,
    gv = a^T g. The softmax is saved, and taken for the function of q and k that it is."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, q: Tensor, k: Tensor, v: Tensor, a: Tensor, scale: float):
        h = torch.bmm(g, v.transpose(1, 2))
        jh = aten._softmax_backward_data(h, a, -1, a.dtype).mul_(scale)
        ctx.save_for_backward(g, q, k, v, a, h, jh)
        ctx.scale = scale
        return torch.bmm(jh, k), torch.bmm(jh.transpose(1, 2), q), torch.bmm(a.transpose(1, 2), g)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, p: Tensor, r: Tensor, s: Tensor) -> tuple[Tensor | None, ...]:
        """p, r, s: adjoints of gq, gk, gv. The scores' adjoint is J of what reaches a, directly and through J h."""
        g, q, k, v, a, h, jh = ctx.saved_tensors
        scale = ctx.scale
        e = torch.baddbmm(torch.bmm(q, r.transpose(1, 2)), p, k.transpose(1, 2)).mul_(scale)  # adjoint of J h
        f = aten._softmax_backward_data(e, a, -1, a.dtype)  # of h
        by_a = torch.baddbmm(e * (h - (a * h).sum(-1, keepdim=True)), g, s.transpose(1, 2))
        by_a.addcmul_(h, (a * e).sum(-1, keepdim=True), value=-1.0)
        z = aten._softmax_backward_data(by_a, a, -1, a.dtype).mul_(scale)
        q_adjoint = torch.baddbmm(torch.bmm(jh, r), z, k)
        k_adjoint = torch.baddbmm(torch.bmm(jh.transpose(1, 2), p), z.transpose(1, 2), q)
        g_adjoint = torch.baddbmm(torch.bmm(a, s), f, v)
        return g_adjoint, q_adjoint, k_adjoint, torch.bmm(f.transpose(1, 2), g), None, None


def attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, None]:
    """Hugging Face's attention interface: queries (n, heads, S, D), keys and values (n, heads / groups, S, D) ->
    (n, S, heads, D).

    attention_mask: None where it is causal alone, else (n, 1, S, S), True where a position is seen.
    """
    n, heads, length, width = query.shape
    groups = heads // key.shape[1]
    if groups > 1:
        key, value = (x[:, :, None].expand(-1, -1, groups, -1, -1).reshape(query.shape) for x in (key, value))
    if attention_mask is None:
        seen = torch.ones(length, length, dtype=torch.bool, device=query.device).tril_()
    else:
        seen = attention_mask.expand(n, heads, length, length).reshape(-1, length, length)
    later = torch.zeros(seen.shape, dtype=query.dtype, device=query.device)
    later.masked_fill_(~seen, torch.finfo(query.dtype).min)
    flat = (x.reshape(-1, length, width) for x in (query, key, value))
    mixed = _Attention.apply(*flat, scaling, later)
    return mixed.view(n, heads, length, width).transpose(1, 2), None


# ----------------------------------------------------------------------------------------------------------- token loss


class _Softmax:
    """softmax(logits), kept once it was asked for as a whole, as _Curve."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits.detach()
        self.made: Tensor | None = None

    def make(self) -> Tensor:
        if self.made is None:
            self.made = torch.softmax(self.logits, -1)
        return self.made


def _probabilities(logits: Tensor, cut: slice, softmax: _Softmax | None) -> Tensor:
    """Not to be written to."""
    kept = softmax is not None and softmax.made is not None
    return softmax.made[cut] if kept else torch.softmax(logits[cut], -1)


class _TokenNLL(Function):
    """Keeps the logits alone: they are the largest tensor of a pass, and their softmax is cheap."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(logits, targets)
        ctx.softmax = _Softmax(logits) if recompute.is_saving() else None
        nll = logits.new_empty(len(logits))
        for cut in _blocks(*logits.shape, logits.device):
            nll[cut] = -torch.log_softmax(logits[cut], -1).gather(1, targets[cut, None])[:, 0]
        return nll

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return _TokenNLLBackward.apply(g, *ctx.saved_tensors, ctx.softmax), None


class _TokenNLLBackward(Function):
    """gz = g (p - e_y)."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, logits: Tensor, targets: Tensor, softmax: _Softmax | None) -> Tensor:
        ctx.save_for_backward(g, logits, targets)
        ctx.softmax = softmax
        gz = _nll_gradient(g, logits, targets, softmax)
        recompute.offer(gz, lambda g, y: _nll_gradient(g, softmax.make(), y, softmax), g, targets, forward=False)
        return gz

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, q: Tensor) -> tuple[Tensor | None, ...]:
        g, logits, targets = ctx.saved_tensors
        g_adjoint, z_adjoint = torch.empty_like(g), torch.empty_like(logits)
        for cut in _blocks(*logits.shape, logits.device):
            p, q_cut = _probabilities(logits, cut, ctx.softmax), q[cut]
            pq = p * q_cut
            total = pq.sum(-1)
            torch.sub(total, q_cut.gather(1, targets[cut, None])[:, 0], out=g_adjoint[cut])
            torch.mul(pq.addcmul_(p, total[:, None], value=-1.0), g[cut, None], out=z_adjoint[cut])
        return g_adjoint, z_adjoint, None, None


def _nll_gradient(g: Tensor, logits: Tensor, targets: Tensor, softmax: _Softmax | None) -> Tensor:
    gz = torch.empty_like(logits)
    for cut in _blocks(*logits.shape, logits.device):
        torch.mul(_probabilities(logits, cut, softmax), g[cut, None], out=gz[cut])
    return gz.scatter_add_(1, targets[:, None], -g[:, None])


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """(M,) -log softmax(logits (M, V))[target]."""
    return _TokenNLL.apply(logits, targets)


# ------------------------------------------------------------------------------------------------------ fitting a model

ATTENTION = "metagradient"
"""Name of `attention` in Hugging Face's registries."""
ATTENTIONS = {"GPT2Attention", "LlamaAttention", "MistralAttention", "Qwen2Attention", "Qwen3Attention"}
RMS_NORMS = {"LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen3RMSNorm"}
TANH_GELUS = {"NewGELUActivation", "GELUTanh"}


def is_conv1d(part: nn.Module) -> bool:
    """Hugging Face's Conv1D of GPT-2: a Linear with its weight transposed."""
    return type(part).__name__ == "Conv1D" and hasattr(part, "nf")


def attention_name(module: nn.Module) -> str:
    """What Hugging Face's configs call the attention that fits a private copy: `attention` for the classes that it is
    known to serve, in float32 and wider, else "eager"."""
    own = [part for part in module.modules() if type(part).__name__.endswith("Attention")]
    known = all(
        type(part).__name__ in ATTENTIONS
        and type(part).__module__.startswith("transformers.")
        and not getattr(part, "is_cross_attention", False)
        and not getattr(part, "reorder_and_upcast_attn", False)
        for part in own
    )
    narrow = any(p.dtype in (torch.float16, torch.bfloat16) for p in module.parameters())
    if not own or not known or narrow:
        return "eager"
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    return ATTENTION


def fit(module: nn.Module, lm_head: nn.Module | None, graph_only: GraphOnly) -> None:
    """Give the modules of a private copy that these kernels cover their forward. Classes are matched exactly, by
    their Hugging Face names where they are not torch's, so that a subclass with other arithmetic keeps its own."""
    for part in module.modules():
        name = type(part).__name__
        if type(part) is nn.Linear or is_conv1d(part):
            part.forward = lambda x, part=part: linear(part, x, graph_only, rows=part is lm_head)
        elif type(part) is nn.LayerNorm and part.weight is not None and part.bias is not None:
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
