"""Token by token at little more than the matrix products' cost: a group's rollouts share one copy of its prompt's keys
and values, new ones are written in place, and rows that have ended are dropped.

The rollouts of a prompt stand in one row of the cache, (groups, heads, prompt + group * new tokens, head size), so that
attention is one product a group: `group * query heads per key head` queries against that row, each seeing the prompt
and its own tokens (a mask hides those of the others). Nothing is copied from token to token and grouped keys are never
repeated. Prompts are read padded on the right, where causal attention needs no mask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface
from transformers.cache_utils import Cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTION = "harness_grouped"
"""The name under which transformers finds this file's attention."""
ARCHITECTURES = {"gpt2", "llama", "qwen2"}
"""Model types whose attention is nothing but scaled dot products over all earlier tokens; sinks, soft caps and windows
would be lost in silence. Tested one by one."""
READ_TOKENS = {"cpu": 2048}
"""Prompt tokens, padding included, that are read in one pass: on a CPU their activations then stay in cache."""
MOST_READ_TOKENS = 16_384
"""The same elsewhere."""
BLOCK = 64
"""Tokens of the vocabulary whose probabilities are summed before one is drawn."""
WORTH_DROPPING = 0.75
"""Share of rows still under way below which the cache is copied without the others."""
BELOW_ONE = 1.0 - 2.0**-40

Draw = Callable[[torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor | None]]
"""(logits (R, V), rows (R,), step) -> (tokens (R,), their log-probabilities (R,) or None)."""


def fits(model: PreTrainedModel) -> bool:
    """Whether `decode` knows the model's attention."""
    config = model.config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    unusual = getattr(config, "add_cross_attention", False) or getattr(config, "reorder_and_upcast_attn", False)
    return config.model_type in ARCHITECTURES and kinds == {"full_attention"} and not unusual


def inverse_cdf(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens (R,), log-probabilities (R,) float32): the first token whose cumulative probability exceeds the row's
    uniform number.

    logits (R, V), uniforms (R,) float64 in [0, 1). The sums run in float64 over blocks of the vocabulary, then inside
    the one block that is hit; a token of probability 0 is never drawn.
    """
    scores = logits.float()
    probabilities = torch.softmax(scores if temperature == 1.0 else scores / temperature, dim=-1)
    rows, vocabulary = probabilities.shape
    whole = vocabulary // BLOCK * BLOCK
    masses = probabilities[:, :whole].unflatten(1, (-1, BLOCK)).sum(-1)
    if whole < vocabulary:
        masses = torch.cat([masses, probabilities[:, whole:].sum(-1, keepdim=True)], dim=1)
    block, rest = _pick(masses, uniforms)
    places = block * BLOCK + torch.arange(BLOCK, device=logits.device)
    inside = probabilities.gather(1, places.clamp_max(vocabulary - 1)).masked_fill(places >= vocabulary, 0.0)
    token = block[:, 0] * BLOCK + _pick(inside, rest)[0][:, 0]
    return token, probabilities.gather(1, token[:, None])[:, 0].log()


def _pick(masses: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(index (R, 1), how far into its mass (R,) in [0, 1)) of the entry that each uniform number falls into."""
    sums = masses.double().cumsum(-1)
    point = uniforms[:, None] * sums[:, -1:]
    # A point that rounds up to the whole would lie behind the last entry, whose own mass may be 0.
    point = torch.minimum(point, sums[:, -1:] * BELOW_ONE)
    index = torch.searchsorted(sums, point, right=True)
    own = sums.gather(1, index)
    before = torch.where(index > 0, sums.gather(1, (index - 1).clamp_min(0)), 0.0)
    return index, ((point - before) / (own - before)).clamp(0.0, BELOW_ONE)[:, 0]


@dataclass
class _Layer:
    keys: torch.Tensor
    values: torch.Tensor


class GroupCache(Cache):
    """Keys and values of every layer, (groups, key heads, room, head size): a prompt's, padded on the right to `width`,
    then those of its `group` rollouts, token by token.

    `reading` names the groups whose prompts a pass reads, None while rollouts are written.
    """

    def __init__(self, groups: int, group: int, width: int, new: int) -> None:
        super().__init__(layers=[])
        self.shape, self.width, self.new, self.written = (groups, group), width, new, 0
        self.stored: list[_Layer] = []
        self.reading: slice | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        (groups, group), room = self.shape, self.width + self.shape[1] * self.new
        heads, size = key_states.shape[1], key_states.shape[3]
        if layer_idx == len(self.stored):
            self.stored.append(_Layer(*(key_states.new_zeros(groups, heads, room, size) for _ in range(2))))
        layer = self.stored[layer_idx]
        if self.reading is not None:
            length = key_states.shape[2]
            layer.keys[self.reading, :, :length] = key_states
            layer.values[self.reading, :, :length] = value_states
            return key_states, value_states
        start, stop = self.span()
        layer.keys[:, :, start:stop] = key_states.view(groups, group, heads, size).transpose(1, 2)
        layer.values[:, :, start:stop] = value_states.view(groups, group, heads, size).transpose(1, 2)
        return layer.keys[:, :, :stop], layer.values[:, :, :stop]

    def span(self) -> tuple[int, int]:
        """Where the tokens of this step go."""
        start = self.width + self.shape[1] * self.written
        return start, start + self.shape[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self.width + self.written

    def keep(self, groups: torch.Tensor, slots: torch.Tensor, width: int) -> None:
        """Only these groups (N,), of each these rollouts (N, G), and `width` tokens of the prompts."""
        count, group = slots.shape
        own = slots[:, None, None, :, None]

        def kept(old: torch.Tensor) -> torch.Tensor:
            _, heads, _, size = old.shape
            found = old.new_zeros(count, heads, width + group * self.new, size)
            found[:, :, :width] = old[groups, :, :width]
            tail = old[:, :, self.width : self.width + self.shape[1] * self.written]
            tail = tail.unflatten(2, (self.written, self.shape[1]))[groups]
            tail = tail.gather(3, own.expand(-1, heads, self.written, -1, size))
            found[:, :, width : width + group * self.written] = tail.flatten(2, 3)
            return found

        for layer in self.stored:
            layer.keys, layer.values = kept(layer.keys), kept(layer.values)
        self.shape, self.width = (count, group), width


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface. Without a mask: prompts, causal. With one, (groups, 1, queries, keys): one new
    token of every rollout, query (groups * group, heads, 1, size)."""
    if attention_mask is None:
        wide = query.shape[1] != key.shape[1]
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=wide)
        return out.transpose(1, 2), None
    (groups, heads, _, size), queries = key.shape, query.shape[1]
    cut = (groups, query.shape[0] // groups, heads, queries // heads, size)
    together = query.reshape(cut).transpose(1, 2).reshape(groups, heads, -1, size)
    out = F.scaled_dot_product_attention(together, key, value, attn_mask=attention_mask, scale=scaling)
    out = out.view(groups, heads, cut[1], cut[3], size).transpose(1, 2)
    return out.reshape(-1, 1, queries, size), None


AttentionInterface.register(ATTENTION, _attention)


@contextmanager
def own_attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    """The model with the attention that was registered under that name."""
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


@torch.no_grad()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Sequence[int]],
    draw: Draw,
    *,
    new: int,
    stop: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(tokens (R, new) int64, their log-probabilities (R, new) float32 if `draw` gives any).

    prompts, rows  token ids of every group's prompt, longest first, and the numbers 0..R-1 of its rollouts
    stop           ids that end a rollout; what is behind one in its row means nothing
    """
    device = model.device
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    group = max(map(len, rows))
    # Groups of fewer rollouts are filled up with row R, which has ended before it began.
    total = sum(map(len, rows))
    owner = torch.tensor([[*own, *[total] * (group - len(own))] for own in rows], device=device)
    tokens = torch.zeros(total + 1, new, dtype=torch.int64, device=device)
    chances: torch.Tensor | None = None
    ends = torch.tensor(list(stop), device=device)
    cache = GroupCache(len(prompts), group, len(prompts[0]), new)
    with own_attention(model, ATTENTION):
        logits = _read(model, cache, prompts)[:, None].expand(-1, group, -1).flatten(0, 1)
        alive, mask = owner < total, _mask(model, cache, lengths)
        for step in range(new):
            drawn, chance = draw(logits, owner.flatten().clamp_max(total - 1), step)
            tokens[owner.flatten(), step] = drawn
            if chance is not None:
                chances = torch.zeros(total + 1, new, device=device) if chances is None else chances
                chances[owner.flatten(), step] = chance
            alive = alive & ~torch.isin(drawn.view(alive.shape), ends)
            count = int(alive.sum())
            if count == 0 or step + 1 == new:
                break
            if count <= WORTH_DROPPING * alive.numel():
                groups, slots = _under_way(alive)
                if slots.numel() <= WORTH_DROPPING * alive.numel():
                    lengths = lengths[groups]
                    cache.keep(groups, slots, int(lengths.max()))
                    owner, alive = owner[groups].gather(1, slots), alive[groups].gather(1, slots)
                    mask, drawn = _mask(model, cache, lengths), tokens[owner.flatten(), step]
            logits = model(
                input_ids=drawn[:, None],
                position_ids=(lengths + step)[:, None].expand(owner.shape).reshape(-1, 1),
                attention_mask=mask[..., : cache.span()[1]],
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, 0]
            cache.written += 1
    return tokens[:total], None if chances is None else chances[:total]


def _read(model: PreTrainedModel, cache: GroupCache, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
    """(groups, V) the logits behind each prompt; its keys and values go into the cache."""
    found, start, room = [], 0, READ_TOKENS.get(model.device.type, MOST_READ_TOKENS)
    while start < len(prompts):
        width = len(prompts[start])
        some = prompts[start : start + max(1, room // width)]
        ids = torch.tensor([[*prompt, *[prompt[-1]] * (width - len(prompt))] for prompt in some], device=model.device)
        last = torch.tensor([len(prompt) - 1 for prompt in some], device=model.device)
        places, own = last.unique(return_inverse=True)
        cache.reading = slice(start, start + len(some))
        positions = torch.arange(width, device=model.device).expand_as(ids)
        out = model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=places)
        found.append(out.logits[torch.arange(len(some), device=model.device), own])
        start += len(some)
    cache.reading = None
    return torch.cat(found)


def _mask(model: PreTrainedModel, cache: GroupCache, lengths: torch.Tensor) -> torch.Tensor:
    """(groups, 1, queries, room): 0 where a query may look, else -inf. A query is a rollout's head among those that
    share a key head; they stand together."""
    groups, group = cache.shape
    config = model.config
    shared = config.num_attention_heads // (getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    prompt = torch.arange(cache.width, device=lengths.device) < lengths[:, None]
    own = torch.eye(group, dtype=torch.bool, device=lengths.device).repeat(1, cache.new)
    seen = torch.cat([prompt[:, None].expand(-1, group, -1), own.expand(groups, -1, -1)], dim=2)
    mask = torch.zeros(seen.shape, dtype=model.dtype, device=lengths.device).masked_fill_(~seen, -torch.inf)
    return mask.repeat_interleave(shared, dim=1)[:, None]


def _under_way(alive: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(groups (N,) with a rollout under way, the places (N, G) of theirs, as many as the fullest group has)."""
    groups = alive.any(1).nonzero()[:, 0]
    most = int(alive.sum(1).max())
    slots = (~alive[groups]).to(torch.int8).sort(dim=1, stable=True).indices[:, :most]
    return groups, slots
