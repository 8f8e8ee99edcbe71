"""Continued pre-training as a user of Hugging Face would do it (Appendix C of the paper): a causal LM, AdamW, a cosine
schedule with warm-up, texts one a row or packed into contexts. Nothing here knows the engine or a reward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from harness.contracts import HarnessError
from harness.machine.stopping import Interrupted, stop_signal
from harness.settings.schema import EvaluationSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IGNORED = -100
"""The label of a position that is not trained on, as everywhere in Hugging Face."""


@dataclass(frozen=True)
class Text:
    """One training text. `ends`: whether it came to its end; one that was cut off gets no end-of-text token, since a
    model would learn to stop there."""

    text: str
    ends: bool = True


@dataclass(frozen=True)
class Mixture:
    """What one training reads: token ids, a row a text, in the order that they are trained on."""

    rows: list[list[int]]
    tokens: int
    """Of texts, the beginning-of-text tokens and the padding not counted."""
    replayed: int
    """Of them, those of replay."""


def encode(texts: Iterable[Text], tokenizer: PreTrainedTokenizerBase, most: int | None = None) -> Iterator[list[int]]:
    """Token ids of each text that has any: [BOS] text [EOS], as far as the tokenizer has such tokens, cut to `most`."""
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    for each in texts:
        ids = tokenizer(each.text, add_special_tokens=False)["input_ids"]
        if ids:
            yield [*start, *ids, *(end if each.ends else [])][:most]


def take(rows: Iterable[list[int]], tokens: int) -> Iterator[list[int]]:
    """Rows until there are `tokens` of them, the beginning-of-text tokens not counted; the row that reaches it is the
    last."""
    found = 0
    for row in rows:
        if found >= tokens:
            return
        found += len(row) - 1
        yield row


def mix(generated: list[list[int]], replay: list[list[int]], seed: int) -> Mixture:
    """Both together, in an order that the seed says."""
    rows = [*generated, *replay]
    Random(f"evaluation/order/{seed}").shuffle(rows)
    return Mixture(rows, sum(len(row) - 1 for row in rows), sum(len(row) - 1 for row in replay))


def pack(rows: Iterable[list[int]], context: int) -> list[list[int]]:
    """Rows joined one after the other and cut into contexts of exactly `context` tokens; what is left over at the end
    is dropped. A text's own first and last token keep it from its neighbours."""
    joined = [token for row in rows for token in row]
    return [joined[start : start + context] for start in range(0, len(joined) - context + 1, context)]


def batches(
    rows: Sequence[list[int]], size: int, pad: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(input_ids, attention_mask, labels), each (B, S) int64 with B = `size` but for the last, right-padded."""
    import torch

    for start in range(0, len(rows), size):
        part = rows[start : start + size]
        width = max(map(len, part))
        ids = torch.tensor([row + [pad] * (width - len(row)) for row in part])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in part])
        yield ids, mask, ids.masked_fill(mask == 0, IGNORED)


def updates_of(rows: int, settings: EvaluationSettings) -> tuple[int, int]:
    """(updates, updates of the warm-up) of a training on so many rows or contexts. A warm-up begins at a rate of 0, so
    one update has none."""
    updates = math.ceil(rows / settings.batch)
    return updates, min(math.ceil(settings.warmup_share * updates), updates - 1)


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    mixture: Mixture,
    settings: EvaluationSettings,
    rate: float,
    seed: int,
    notify: Callable[[int, int], None] = lambda step, of: None,
) -> float:
    """Trains the model in place, one pass over the mixture; returns the mean loss of the last tenth of the updates, in
    nats a token. Raises HarnessError where the loss is not finite, and Interrupted.

    The loss of an update is the mean over its tokens, whatever the microbatch. Weight decay is for matrices alone, as
    in Hugging Face's Trainer."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    rows = pack(mixture.rows, settings.context) if settings.context else mixture.rows
    if not rows:
        raise HarnessError("There is not one whole context of tokens to train on; raise evaluation.tokens.")
    torch.manual_seed(seed)  # dropout, where the model has any
    decayed = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    others = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=settings.betas)
    updates, warmup = updates_of(len(rows), settings)
    schedule = get_cosine_schedule_with_warmup(optimizer, warmup, updates)
    losses: list[float] = []
    model.train()
    try:
        for step, start in enumerate(range(0, len(rows), settings.batch)):
            if (number := stop_signal()) is not None:
                raise Interrupted(number)
            losses.append(_update(model, rows[start : start + settings.batch], tokenizer.pad_token_id, settings))
            if not math.isfinite(losses[-1]):
                raise HarnessError(f"The training diverged at rate {rate:g}: loss {losses[-1]} in update {step + 1}.")
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            notify(step + 1, updates)
    finally:
        model.eval()
    last = losses[-max(1, len(losses) // 10) :]
    return sum(last) / len(last)


def _update(model: PreTrainedModel, rows: Sequence[list[int]], pad: int, settings: EvaluationSettings) -> float:
    """Adds one update's gradients to the parameters; returns its loss."""
    scored, total = sum(len(row) - 1 for row in rows), 0.0
    longest_first = sorted(rows, key=len, reverse=True)  # microbatches of like length need little padding
    for ids, mask, labels in batches(longest_first, settings.microbatch or len(rows), pad):
        device = model.device
        loss = _summed_loss(model, ids.to(device), mask.to(device), labels.to(device)) / scored
        loss.backward()
        total += float(loss.detach())
    return total


def _summed_loss(model: PreTrainedModel, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Scalar: nats, summed over the scored tokens."""
    import torch.nn.functional as F

    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")


def mean_loss(model: PreTrainedModel, rows: Sequence[list[int]], pad: int, size: int = 64) -> float:
    """Nats a token over all scored tokens of the rows."""
    import torch

    ordered, total = sorted(rows, key=len), 0.0
    with torch.no_grad():
        for ids, mask, labels in batches(ordered, size, pad):
            moved = (tensor.to(model.device) for tensor in (ids, mask, labels))
            total += float(_summed_loss(model, *moved))
    return total / sum(len(row) - 1 for row in rows)


# ------------------------------------------------------------------------------------------------------- another target


@dataclass(frozen=True)
class Recipe:
    """The miniature's second target: another width, other first weights, other documents, and plain AdamW where the
    shipped one had Muon. It is made at first use, in about a minute on a core, and knows less than the shipped one. (A
    file of its own would be 2 MB; the embedded generator, which has read much of every language, has nothing left to
    learn.)"""

    width: int = 96
    layers: int = 3
    heads: int = 4
    documents: int = 9600
    batch: int = 8
    rate: float = 3e-3
    seed: int = 1


def make_other_target(place: Path, tokenizer_from: str, recipe: Recipe) -> None:
    """Trains the miniature's second target on the world's plain texts and writes it as a Hugging Face folder, whole or
    not at all. `tokenizer_from`: the asset whose tokenizer, context and special tokens it shares. Another CPU may give
    other last bits."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from harness import assets
    from harness.machine.devices import to_device
    from harness.miniature.corpus import target_documents
    from harness.store.atomic import whole_folder

    tokenizer = assets.load_tokenizer(tokenizer_from)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=tokenizer.model_max_length,
        n_embd=recipe.width,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        activation_function="gelu",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(recipe.seed)
    model = GPT2LMHeadModel(config)
    to_device(model)
    texts = (Text(document.text) for document in target_documents(recipe.documents, seed=recipe.seed))
    rows = list(encode(texts, tokenizer, config.n_positions))
    settings = EvaluationSettings(batch=recipe.batch, warmup_share=0.05)
    train(model, tokenizer, mix(rows, [], recipe.seed), settings, recipe.rate, recipe.seed)
    with whole_folder(place) as folder:
        model.to("cpu").save_pretrained(folder)
        tokenizer.save_pretrained(folder)
