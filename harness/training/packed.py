"""The generator's update as one pass over one stream of tokens: every prompt once, every completion, no padding.

All but attention works on single tokens, so the stream is as long as there are tokens. Attention lays them out as it
needs them: prompts among themselves, causal; a group's completions against one copy of their prompt's keys and values
and, causal, their own. The numbers are those of plain passes over whole rollouts. Where the model's attention is not
known, on accelerators and in several processes harness/training/shared_prompts.py does the same in two padded passes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from transformers import AttentionInterface

from harness.training.decoding import own_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "harness_packed"
"""The name under which transformers finds this file's attention."""
BLOCK = 1 << 17
"""Logits that the head looks at in one piece, so that all that is done with them stays in a CPU's cache."""
KEPT_PROBABILITIES = 64_000_000
"""Bytes of probabilities that the head keeps for its backward pass; more are computed again."""


@dataclass(frozen=True)
class Layout:
    """Where the tokens of the stream stand, as numbers of its T tokens; padding points at token 0.

    prompts      (N, P), padded on the right
    hidden_keys  (N, 1, P) 0, or -inf at padding
    completions  (B, C), row by row, the rows of a prompt side by side, padded on the right
    back         (T,) where each token lies in what attention gives: N * P places of prompts, then B * C of completions
    """

    prompts: Tensor
    hidden_keys: Tensor
    completions: Tensor
    back: Tensor


# ------------------------------------------------------------------------------------------------------------ attention


class _Shared(Function):
    """(R, C, H, d) what completions see of their prompt and of themselves: softmax over both parts at once.

    q (R, C, H, d), prompt keys and values (N, P, K, d), own ones (R, C, K, d), R = N * group, H a multiple of K.
    With S the probabilities: dS = S (dO V^T - sum(dO O)), dQ = dS K, dK = dS^T Q, dV = S^T dO.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, pk: Tensor, pv: Tensor, k: Tensor, v: Tensor, hidden_keys: Tensor, scale: float
    ) -> Tensor:
        rows, length, heads, size = q.shape
        count, width, shared = pk.shape[:3]
        ctx.cut = cut = (count, rows // count, length, shared, heads // shared, size)
        q, pk, pv = _queries(q, cut), _keys(pk, (count, 1)), _keys(pv, (count, 1))
        k, v = _keys(k, cut[:2]), _keys(v, cut[:2])
        own = torch.full((length, length), -torch.inf, dtype=q.dtype, device=q.device).triu_(1)
        scores = q.new_empty(len(k), cut[4] * length, width + length)
        torch.baddbmm(own.repeat(cut[4], 1), q, k.mT, alpha=scale, out=scores[..., width:])
        first = _by_prompt(scores[..., :width], pk)
        hidden = hidden_keys.repeat_interleave(shared, 0)
        first.copy_(torch.baddbmm(hidden, _by_prompt(q, pk), pk.mT, alpha=scale))
        chances = torch.softmax(scores, -1)
        out = torch.bmm(_by_prompt(chances[..., :width], pk), pv).view_as(q)
        out.baddbmm_(chances[..., width:], v)
        ctx.save_for_backward(q, pk, pv, k, v, chances, out)
        ctx.scale = scale
        return _rows(out, cut)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        q, pk, pv, k, v, chances, out = ctx.saved_tensors
        cut, scale, width = ctx.cut, ctx.scale, pk.shape[1]
        g = _queries(g, cut)
        slopes = torch.empty_like(chances)
        _by_prompt(slopes[..., :width], pk).copy_(torch.bmm(_by_prompt(g, pk), pv.mT))
        slopes[..., width:] = torch.bmm(g, v.mT)
        slopes.sub_((g * out).sum(-1, keepdim=True)).mul_(chances)
        to_prompt, to_own = _by_prompt(slopes[..., :width], pk), slopes[..., width:]
        by_q = torch.bmm(to_prompt, pk).view_as(q).baddbmm_(to_own, k).mul_(scale)
        of_prompt = (
            torch.bmm(to_prompt.mT, _by_prompt(q, pk)).mul_(scale),
            torch.bmm(_by_prompt(chances[..., :width], pk).mT, _by_prompt(g, pk)),
        )
        of_own = torch.bmm(to_own.mT, q).mul_(scale), torch.bmm(chances[..., width:].mT, g)
        by_prompt = (_tokens(t, (cut[0], 1), cut[3]) for t in of_prompt)
        by_own = (_tokens(t, cut[:2], cut[3]) for t in of_own)
        return _rows(by_q, cut), *by_prompt, *by_own, None, None


def _queries(t: Tensor, cut: tuple[int, ...]) -> Tensor:
    """(R, C, H, d) -> (N * K * group, H/K * C, d)."""
    count, group, length, shared, each, size = cut
    t = t.reshape(count, group, length, shared, each, size).permute(0, 3, 1, 4, 2, 5)
    return t.reshape(count * shared * group, each * length, size)


def _rows(t: Tensor, cut: tuple[int, ...]) -> Tensor:
    """The way back."""
    count, group, length, shared, each, size = cut
    t = t.view(count, shared, group, each, length, size).permute(0, 2, 4, 1, 3, 5)
    return t.reshape(count * group, length, shared * each, size)


def _keys(t: Tensor, cut: tuple[int, ...]) -> Tensor:
    """(N * group, L, K, d) -> (N * K * group, L, d)."""
    _, length, shared, size = t.shape
    return t.view(*cut, length, shared, size).permute(0, 3, 1, 2, 4).reshape(-1, length, size)


def _tokens(t: Tensor, cut: tuple[int, ...], shared: int) -> Tensor:
    """The way back."""
    _, length, size = t.shape
    t = t.view(cut[0], shared, cut[1], length, size).permute(0, 2, 3, 1, 4)
    return t.reshape(cut[0] * cut[1], length, shared, size)


def _by_prompt(t: Tensor, prompt: Tensor) -> Tensor:
    """A view (N * K, group * H/K * C, ...) of what has a row for each of a group's rollouts."""
    return t.unflatten(0, (len(prompt), -1)).flatten(1, 2)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    packed: Layout | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface for a stream: query, key, value (1, heads, T, d)."""
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    heads, size = q.shape[1:]
    scale = size**-0.5 if scaling is None else scaling
    pq, pk, pv = (t.index_select(0, packed.prompts.flatten()).unflatten(0, packed.prompts.shape) for t in (q, k, v))
    wide = heads != k.shape[1]
    read = F.scaled_dot_product_attention(
        pq.transpose(1, 2), pk.transpose(1, 2), pv.transpose(1, 2), is_causal=True, scale=scale, enable_gqa=wide
    ).transpose(1, 2)
    place = packed.completions
    cq, ck, cv = (t.index_select(0, place.flatten()).unflatten(0, place.shape) for t in (q, k, v))
    written = _Shared.apply(cq, pk, pv, ck, cv, packed.hidden_keys, scale)
    both = torch.cat([read.reshape(-1, heads, size), written.reshape(-1, heads, size)])
    return both.index_select(0, packed.back)[None], None


AttentionInterface.register(ATTENTION, _attention)


# ----------------------------------------------------------------------------------------------------------------- head


class _TokenLogProbs(Function):
    """(M,) log softmax(h W^T / T)[target] and, without a gradient, (M,) the entropies of those distributions.

    hidden (M, H), weight (V, H), targets (M,) int64. dz = (e_target - p) g / T, row block by row block.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        rows, vocabulary = len(hidden), len(weight)
        keeps = rows * vocabulary * hidden.element_size() <= KEPT_PROBABILITIES and any(ctx.needs_input_grad)
        kept = hidden.new_empty(rows, vocabulary) if keeps else None
        found, entropy = hidden.new_empty(rows), hidden.new_empty(rows)
        for cut in _cuts(rows, vocabulary):
            logs = _log_softmax(hidden[cut], weight, temperature)
            found[cut] = logs.gather(1, targets[cut, None])[:, 0]
            chances = logs.exp() if kept is None else torch.exp(logs, out=kept[cut])
            entropy[cut] = -logs.mul_(chances).sum(-1)
        ctx.save_for_backward(hidden, weight, targets, kept)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy)
        return found, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, kept = ctx.saved_tensors
        by_hidden, by_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        factor = (g / ctx.temperature)[:, None]
        for cut in _cuts(len(hidden), len(weight)):
            chances = _log_softmax(hidden[cut], weight, ctx.temperature).exp_() if kept is None else kept[cut]
            by_logits = (chances * -factor[cut]).scatter_add_(1, targets[cut, None], factor[cut])
            torch.mm(by_logits, weight, out=by_hidden[cut])
            by_weight.addmm_(by_logits.T, hidden[cut])
        return by_hidden, by_weight, None, None


def _cuts(rows: int, vocabulary: int) -> list[slice]:
    size = max(BLOCK // vocabulary, 1)
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def _log_softmax(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = hidden @ weight.T
    return torch.log_softmax(logits if temperature == 1.0 else logits.div_(temperature), -1)


# ----------------------------------------------------------------------------------------------------------- the update


def log_probs(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, keep: int, temperature: float
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the last `keep` tokens, (B, keep) in the model's dtype and 0 at padding, and, without a
    gradient, the entropies of the distributions they come from.

    input_ids, attention_mask    (B, P + keep), prompts padded on the left to P >= 1 tokens, completions on the right
    """
    ids, positions, layout, order, before = _stream(input_ids, attention_mask, keep, model.dtype)
    with own_attention(model, ATTENTION):
        out = model.base_model(
            input_ids=ids[None], position_ids=positions[None], use_cache=False, attention_mask=None, packed=layout
        )
    scored = attention_mask[order, -keep:] != 0
    hidden = out.last_hidden_state[0].index_select(0, before[scored])
    weight = model.get_output_embeddings().weight
    found, entropy = _TokenLogProbs.apply(hidden, weight, input_ids[order, -keep:][scored], temperature)
    there = torch.empty_like(order)
    there[order] = torch.arange(len(order), device=order.device)
    empty = found.new_zeros(scored.shape)
    return tuple(empty.masked_scatter(scored, part).index_select(0, there) for part in (found, entropy))


def _stream(
    input_ids: Tensor, attention_mask: Tensor, keep: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Layout, Tensor, Tensor]:
    """(token ids (T,), positions (T,), layout, order of the rows (B,) in it, token (B, keep) that predicts each)."""
    width = input_ids.shape[1] - keep
    device = input_ids.device
    together = torch.stack([input_ids[:, :width], attention_mask[:, :width]])
    prompts, owner, counts = together.unique(dim=1, return_inverse=True, return_counts=True)
    order = owner.argsort(stable=True)
    if not bool((counts == counts[0]).all()):  # groups of several sizes: every row for itself
        prompts = together[:, order]
    ids, lengths = prompts[0], prompts[1].sum(1)
    count, longest = len(ids), int(lengths.max())
    column = torch.arange(longest, device=device)
    there = column < lengths[:, None]  # right-padded
    first = lengths.cumsum(0) - lengths
    prompt_tokens = ids[prompts[1] != 0]
    places = torch.where(there, first[:, None] + column, 0)

    # The last column predicts nothing that is scored. One stays, as padding, where completions have no other.
    length = max(keep - 1, 1)
    written = slice(width, width + length)
    own = (attention_mask[order, written] != 0) & (torch.arange(length, device=device) < keep - 1)
    rows = len(own)
    total = int(lengths.sum())
    numbers = (own.flatten().cumsum(0) - 1).view(own.shape) + total
    tokens = torch.cat([prompt_tokens, input_ids[order, written][own]])
    group_of = torch.arange(rows, device=device) // (rows // count)
    position = lengths[group_of, None] + torch.arange(length, device=device)
    positions = torch.cat([column.expand(count, -1)[there], position[own]])
    completions = torch.where(own, numbers, 0)
    back = torch.cat(
        [
            torch.arange(count * longest, device=device).view(count, longest)[there],
            count * longest + torch.arange(rows * length, device=device).view(rows, length)[own],
        ]
    )
    hidden_keys = torch.zeros(there.shape, dtype=dtype, device=device).masked_fill_(~there, -torch.inf)[:, None]
    before = torch.cat([(first + lengths - 1)[group_of, None], completions], 1)[:, :keep]
    return tokens, positions, Layout(places, hidden_keys, completions, back), order, before
