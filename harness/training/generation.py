"""Rollouts: each prompt read once for its whole group, longest prompts first, and every row drawn from its own stream
of random numbers, so that neither batches nor the number of processes matter. Training's and validation's alike; only
vLLM writes its own.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from harness.contracts import HarnessError
from harness.settings.schema import GeneratorSettings
from harness.training.decoding import decode, fits, inverse_cdf
from harness.training.prompts import Prompt, encode_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


SEED_BYTES = 7
"""Of a hash that seeds a row's stream: torch takes 64 bits, signed, so 56 are safe."""


@dataclass(frozen=True)
class Piece:
    """Rows of one prompt that are generated together: their places in the result."""

    ids: tuple[int, ...]
    rows: tuple[int, ...]


def arrange(prompts: Sequence[Sequence[int]], batch: int | None) -> list[list[Piece]]:
    """Batches of at most `batch` rows (None: all in one), longest prompts first, equal prompts together. Where memory
    runs out it does so at once, and rows of a batch are of similar length."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, ids in enumerate(prompts):
        groups.setdefault(tuple(ids), []).append(row)
    batches: list[list[Piece]] = []
    room = 0
    for ids, rows in sorted(groups.items(), key=lambda item: -len(item[0])):
        while rows:
            if room == 0:
                batches.append([])
                room = batch or len(prompts)
            batches[-1].append(Piece(ids, tuple(rows[:room])))
            rows, room = rows[room:], room - len(batches[-1][-1].rows)
    return batches


class RowStreams(LogitsProcessor):
    """Draws each row's next token with its own uniform number and leaves that token alone standing, so that greedy
    decoding picks it.

    uniforms     (rows, new tokens) float64 in [0, 1)
    """

    def __init__(self, uniforms: torch.Tensor, temperature: float, start: int) -> None:
        self.uniforms, self.temperature, self.start = uniforms, temperature, start

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self.start
        token, _ = inverse_cdf(scores, self.uniforms[:, step], self.temperature)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)


def uniforms(seed: int, rows: Sequence[int], count: int, device: torch.device) -> torch.Tensor:
    """(len(rows), count) float64: row r's stream depends on (seed, r) alone."""
    made = []
    for row in rows:
        key = int.from_bytes(hashlib.sha256(f"{seed}:{row}".encode()).digest()[:SEED_BYTES], "big")
        made.append(torch.rand(count, dtype=torch.float64, generator=torch.Generator().manual_seed(key)))
    return torch.stack(made).to(device)


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids that end a rollout: the tokenizer's and all that the model's generation config names (Llama has three)."""
    named = model.generation_config.eos_token_id
    named = [named] if isinstance(named, int) else list(named or [])
    return list(dict.fromkeys([tokenizer.eos_token_id, *named]))


@dataclass(frozen=True)
class Rollouts:
    """Of N prompts, in their order.

    tokens     token ids, with the end-of-text token where one came
    log_probs  of every token under the distribution it was drawn from, float32; None where the model's attention is not
               known to harness/training/decoding.py, and for greedy rollouts
    """

    tokens: list[list[int]]
    log_probs: list[list[float]] | None


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    settings: GeneratorSettings,
    *,
    seed: int,
    first_row: int = 0,
    greedy: bool = False,
) -> Rollouts:
    """One rollout a prompt; equal prompts are read once.

    first_row: the number of the first prompt among those of all processes, which names its stream.
    """
    stop, known = stop_tokens(model, tokenizer), fits(model)
    tokens: list[list[int]] = [[] for _ in prompts]
    chances: list[list[float]] = [[] for _ in prompts]
    was_training = model.training
    model.eval()
    for pieces in arrange(prompts, settings.batch):
        rows = [row for piece in pieces for row in piece.rows]
        streams = None
        if not greedy:
            numbers = [first_row + row for row in rows]
            streams = uniforms(seed, numbers, settings.max_completion_tokens, model.device)
        write = _decoded if known else _generated
        found, logs = write(model, tokenizer, pieces, streams, settings, stop)
        for place, (row, line) in enumerate(zip(rows, found.tolist(), strict=True)):
            end = next((i + 1 for i, token in enumerate(line) if token in stop), len(line))
            tokens[row] = line[:end]
            if logs is not None:
                chances[row] = logs[place, :end].tolist()
    model.train(was_training)
    return Rollouts(tokens, chances if known and not greedy else None)


def _decoded(
    model: PreTrainedModel,
    _: PreTrainedTokenizerBase,
    pieces: Sequence[Piece],
    streams: torch.Tensor | None,
    settings: GeneratorSettings,
    stop: Sequence[int],
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(tokens, log-probabilities or None), each (rows, new tokens), by harness/training/decoding.py."""

    def draw(logits: torch.Tensor, rows: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        if streams is None:
            return logits.argmax(-1), None
        return inverse_cdf(logits, streams[rows, step], settings.temperature)

    places = iter(range(sum(len(piece.rows) for piece in pieces)))
    rows = [[next(places) for _ in piece.rows] for piece in pieces]
    return decode(model, [p.ids for p in pieces], rows, draw, new=settings.max_completion_tokens, stop=stop)


def _generated(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pieces: Sequence[Piece],
    streams: torch.Tensor | None,
    settings: GeneratorSettings,
    stop: Sequence[int],
) -> tuple[torch.Tensor, None]:
    """The same of any model, by transformers' own generation, with a copy of the prompt's keys and values a rollout."""
    width = max(len(piece.ids) for piece in pieces)
    owner = torch.tensor([i for i, piece in enumerate(pieces) for _ in piece.rows], device=model.device)
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(p.ids)) + list(p.ids) for p in pieces])
    mask = torch.tensor([[0] * (width - len(p.ids)) + [1] * len(p.ids) for p in pieces])
    ids, mask = ids.to(model.device), mask.to(model.device)
    choose = LogitsProcessorList()
    if streams is not None:
        choose.append(RowStreams(streams, settings.temperature, width))
    out = model.generate(
        input_ids=ids[owner],
        attention_mask=mask[owner],
        past_key_values=_read(model, ids, mask, owner),
        do_sample=False,
        max_new_tokens=settings.max_completion_tokens,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=list(stop),
        logits_processor=choose,
    )
    return out[:, width:], None


def _read(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, owner: torch.Tensor):
    """The cache of all prompt tokens but the last, one row a prompt, then one a rollout; None for one-token prompts."""
    if ids.shape[1] < 2:
        return None
    mask = mask[:, :-1]
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    out = model(input_ids=ids[:, :-1], attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
    out.past_key_values.batch_select_indices(owner)
    return out.past_key_values


class Bfloat16Copy:
    """A bfloat16 copy of a float32 model to generate with: training keeps float32 weights and optimizer state."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.source = model
        self.copy: PreTrainedModel | None = None

    @torch.no_grad()
    def current(self) -> PreTrainedModel:
        """The copy with the source's weights of this moment."""
        if self.copy is None:
            # Parameters are replaced by their bfloat16 selves while copying, so that no float32 copy is ever made.
            narrow = {
                id(p): torch.nn.Parameter(p.detach().bfloat16(), requires_grad=False) for p in self.source.parameters()
            }
            self.copy = copy.deepcopy(self.source, memo=dict(narrow)).eval()
            # A trainer that has the source already wraps its forward in autocast, in functions, which deepcopy shares:
            # the copy would compute with the source's weights. Its own class's forward and no hooks are what it needs.
            for name in ("forward", "_original_forward"):
                self.copy.__dict__.pop(name, None)
            self.copy._forward_pre_hooks.clear()
            self.copy._forward_pre_hooks_with_kwargs.clear()
        else:
            for mine, theirs in zip(self.copy.parameters(), self.source.parameters(), strict=True):
                mine.data = mine.data.to(theirs.device)
                mine.copy_(theirs)
        return self.copy


def check_backend(settings: GeneratorSettings) -> None:
    """Raises HarnessError where the profile asks for vLLM and it cannot work here."""
    if settings.backend != "vllm":
        return
    import importlib.util

    if importlib.util.find_spec("vllm") is None:
        raise HarnessError(
            "generator.backend=vllm needs the package vllm: `pip install 'dpg-harness[vllm]'`, or set "
            "generator.backend=transformers."
        )
    if not torch.cuda.is_available():
        raise HarnessError("generator.backend=vllm needs a CUDA device; set generator.backend=transformers.")


@dataclass(frozen=True)
class Written:
    """Rollouts as text, and why each ended: "stop" with an end-of-text token, "length" where it was cut."""

    texts: list[str]
    finish: list[str]


def finishes(rollouts: Sequence[Sequence[int]], stop: Sequence[int]) -> list[str]:
    """`Written.finish` of rollouts' tokens."""
    return ["stop" if len(tokens) and tokens[-1] in stop else "length" for tokens in rollouts]


def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    settings: GeneratorSettings,
    *,
    seed: int,
    greedy: bool = False,
    bfloat16_copy: Bfloat16Copy | None = None,
) -> list[str]:
    """The texts of `write`."""
    return write(model, tokenizer, prompts, settings, seed=seed, greedy=greedy, bfloat16_copy=bfloat16_copy).texts


@torch.no_grad()
def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    settings: GeneratorSettings,
    *,
    seed: int,
    greedy: bool = False,
    bfloat16_copy: Bfloat16Copy | None = None,
) -> Written:
    """One rollout a prompt, as text. Draws from its own seeded stream: training's random numbers are not touched.
    `bfloat16_copy` generates instead of the model where it is given."""
    model = bfloat16_copy.current() if bfloat16_copy is not None else model
    rows = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    found = sample(model, tokenizer, rows, settings, seed=seed, greedy=greedy)
    texts = tokenizer.batch_decode(found.tokens, skip_special_tokens=True)
    return Written(texts, finishes(found.tokens, stop_tokens(model, tokenizer)))
