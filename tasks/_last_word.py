"""LAMBADA's question as a differentiable function: how likely is the last word of each passage, given the rest?"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch.func import functional_call

from harness.contracts import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Params = Mapping[str, torch.Tensor]


def split_last_word(passage: str) -> tuple[str, str]:
    """(all but the last space-separated word, " " + last word), as LAMBADA scores it; outer white space goes first."""
    context, _, word = passage.strip().rpartition(" ")
    return context, " " + word


class LastWordLikelihood:
    """Log-likelihoods of the last words of `passages` under `model` with given parameters.

    Context and last word are tokenised separately and joined; the context is cut from the left where the whole would
    not fit the model's positions. `prepend_bos` puts the tokenizer's beginning-of-text token first, as the inner
    training does; a passage of one word needs it. Passages are sorted by length into batches of `microbatch`, padded on
    the right, and logits are computed only at positions that some passage of the batch is scored at.

    fixed_length  `mean_log_likelihood` divides a word's sum by this number in place of its count of tokens, as the
                  authors' code does
    cut           passages are cut from the right to so many tokens first; what of the last word lies beyond is not
                  scored. Theirs again: a passage that is much longer then says nothing

    Raises HarnessError if a passage is empty, longer in its last word alone than the model reads, or has nothing
    before the word.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        passages: Sequence[str],
        *,
        microbatch: int = 32,
        prepend_bos: bool = True,
        fixed_length: int | None = None,
        cut: int | None = None,
    ) -> None:
        self.model, self._fixed_length = model, fixed_length
        encoded = [_cut(*_encode(passage, model, tokenizer, prepend_bos), cut) for passage in passages]
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i][0]))
        self._order = torch.tensor(order)
        self._batches = [
            _Batch([encoded[i] for i in order[start : start + microbatch]])
            for start in range(0, len(order), microbatch)
        ]
        self.counts = torch.tensor([scored for _, scored in encoded])
        """(N,) int64: tokens of each last word."""
        # Toy models and some remote ones lack the argument; they give logits everywhere.
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def mean_log_likelihood(self, params: Params) -> torch.Tensor:
        """Scalar: the mean over passages of the mean log-likelihood (nats) of the last word's tokens, or of their sum
        over `fixed_length`.

        `params` are keyed as `dict(model.named_parameters())`. Differentiable in them, once, by reverse mode.
        """
        if len(self._batches) > 1 and torch.is_grad_enabled():
            return _MeanOverBatches.apply(self, tuple(params), *params.values())
        device = next(iter(params.values())).device
        return (self.sums(params) / self._lengths(self.counts.to(device))).mean()

    def sums(self, params: Params) -> torch.Tensor:
        """(N,): summed log-likelihood (nats) of each last word, in the order of the passages."""
        device = next(iter(params.values())).device
        found = torch.cat([self._one(params, batch.to(device)) for batch in self._batches])
        return torch.zeros_like(found).index_copy(0, self._order.to(device), found)

    def mean_parts(self, params: Params) -> Iterator[torch.Tensor]:
        """One scalar a batch; they add up to `mean_log_likelihood`."""
        device = next(iter(params.values())).device
        for batch in self._batches:
            batch.to(device)
            counts = (batch.targets != -100).sum(dim=1)
            yield (self._one(params, batch) / self._lengths(counts)).sum() / len(self.counts)

    def _lengths(self, counts: torch.Tensor) -> torch.Tensor:
        """What sums are divided by, (N,)."""
        return counts if self._fixed_length is None else torch.full_like(counts, self._fixed_length)

    def _one(self, params: Params, batch: _Batch) -> torch.Tensor:
        inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
        if self._keeps:
            inputs["logits_to_keep"] = batch.positions
        logits = functional_call(self.model, dict(params), (), inputs).logits
        if not self._keeps:
            logits = logits[:, batch.positions]
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        losses = F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=-100, reduction="none")
        return -losses.view(batch.targets.shape).sum(dim=1)


class _MeanOverBatches(torch.autograd.Function):
    """The mean log-likelihood with its gradient taken batch by batch on the way, so that one batch's graph is held at a
    time and nothing is computed twice."""

    @staticmethod
    def forward(ctx: Any, likelihood: LastWordLikelihood, names: Sequence[str], *values: torch.Tensor) -> torch.Tensor:
        needed = ctx.needs_input_grad[2:]
        leaves = [value.detach().requires_grad_(need) for value, need in zip(values, needed, strict=True)]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        sums: list[torch.Tensor | None] = [None] * len(wanted)
        total = 0.0
        with torch.enable_grad():
            for part in likelihood.mean_parts(dict(zip(names, leaves, strict=True))):
                grads = torch.autograd.grad(part, wanted, allow_unused=True)
                sums = [a if b is None else b if a is None else a.add_(b) for a, b in zip(sums, grads, strict=True)]
                total = total + part.detach()
        found = iter(sums)
        ctx.grads = [next(found) if need else None for need in needed]
        return total

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True: what follows would silently lack its own derivative
            raise RuntimeError(
                "Phi over several batches has a first derivative only; to differentiate twice, raise "
                "task.options.metric_microbatch to the number of passages."
            )
        return None, None, *(None if grad is None else grad * upstream for grad in ctx.grads)


class _Batch:
    """input_ids, attention_mask (B, S); positions (K,) that are scored in some row; targets (B, K): the token that each
    of them has to predict, -100 where the row is not scored there. All int64."""

    def __init__(self, rows: Sequence[tuple[list[int], int]]) -> None:
        width = max(len(ids) for ids, _ in rows) - 1  # the last token is predicted, never read
        self.input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
        self.attention_mask = torch.zeros_like(self.input_ids)
        targets = torch.full_like(self.input_ids, -100)
        for row, (ids, scored) in enumerate(rows):
            length = len(ids) - 1
            self.input_ids[row, :length] = torch.tensor(ids[:-1])
            self.attention_mask[row, :length] = 1
            targets[row, length - scored : length] = torch.tensor(ids[len(ids) - scored :])
        self.positions = (targets != -100).any(dim=0).nonzero().squeeze(1)
        if not len(self.positions):  # all cut before their last words: one position, where no row is scored
            self.positions = torch.zeros(1, dtype=torch.int64)
        self.targets = targets[:, self.positions]

    def to(self, device: torch.device) -> _Batch:
        for name, tensor in self._tensors():
            setattr(self, name, tensor.to(device))
        return self

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ((name, getattr(self, name)) for name in ("input_ids", "attention_mask", "positions", "targets"))


def _cut(ids: list[int], scored: int, cut: int | None) -> tuple[list[int], int]:
    """The same without what lies beyond `cut` tokens."""
    if cut is None or len(ids) <= cut:
        return ids, scored
    return ids[:cut], max(0, scored - (len(ids) - cut))


def _encode(
    passage: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prepend_bos: bool
) -> tuple[list[int], int]:
    """(token ids, how many of them belong to the last word)."""
    context, word = split_last_word(passage)
    if not word.strip():
        raise HarnessError("A reference passage is empty; remove it from data.references.")
    bos = [tokenizer.bos_token_id] if prepend_bos and tokenizer.bos_token_id is not None else []
    context_ids = tokenizer(context, add_special_tokens=False)["input_ids"] if context else []
    word_ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    # The last token is not read, so one more than the model's positions fits.
    room = getattr(model.config, "max_position_embeddings", None)
    if room is not None:
        room += 1 - len(bos) - len(word_ids)
        if room < 0:
            raise HarnessError(f"The last word of the passage '{passage[:60]}' alone is longer than the target reads.")
        context_ids = context_ids[max(0, len(context_ids) - room) :]
    if not bos and not context_ids:
        raise HarnessError(
            f"The passage '{passage[:60]}' has nothing before its last word; remove it from data.references, or set "
            "task.options.prepend_bos=true with a target that has a beginning-of-text token."
        )
    return [*bos, *context_ids, *word_ids], len(word_ids)
