"""LAMBADA's question as a differentiable function: how likely is the last word of each passage, given the rest?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from harness.contracts import HarnessError
from tasks._likelihood import Likelihood, Params, Row, positions_of, summed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def split_last_word(passage: str) -> tuple[str, str]:
    """(all but the last space-separated word, " " + last word), as LAMBADA scores it; outer white space goes first."""
    context, _, word = passage.strip().rpartition(" ")
    return context, " " + word


class LastWordLikelihood(Likelihood):
    """Log-likelihoods of the last words of `passages` under `model` with given parameters.

    Context and last word are tokenised separately and joined; the context is cut from the left where the whole would
    not fit the model's positions. `prepend_bos` puts the tokenizer's beginning-of-text token first, as the inner
    training does; a passage of one word needs it.

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
        rows = [_cut(*encode_last_word(passage, model, tokenizer, prepend_bos), cut) for passage in passages]
        super().__init__(model, [[row] for row in rows], microbatch=microbatch)
        self._fixed_length = fixed_length

    def mean_log_likelihood(self, params: Params) -> torch.Tensor:
        """Scalar: the mean over passages of the mean log-likelihood (nats) of the last word's tokens, or of their sum
        over `fixed_length`.

        `params` are keyed as `dict(model.named_parameters())`. Differentiable in them, once, by reverse mode.
        """
        if len(self.batches) > 1 and torch.is_grad_enabled():
            return summed(self.mean_parts, params)
        device = next(iter(params.values())).device
        return (self.sums(params) / self._lengths(self.counts.to(device))).mean()

    def mean_parts(self, params: Params) -> Iterator[torch.Tensor]:
        """One scalar a batch; they add up to `mean_log_likelihood`."""
        for sums, counts, _ in self.each(params):
            yield (sums / self._lengths(counts)).sum() / len(self.counts)

    def _lengths(self, counts: torch.Tensor) -> torch.Tensor:
        """What sums are divided by, (N,)."""
        return counts if self._fixed_length is None else torch.full_like(counts, self._fixed_length)


def _cut(ids: list[int], scored: int, cut: int | None) -> Row:
    """The same without what lies beyond `cut` tokens."""
    if cut is None or len(ids) <= cut:
        return ids, scored
    return ids[:cut], max(0, scored - (len(ids) - cut))


def encode_last_word(
    passage: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prepend_bos: bool
) -> Row:
    """The passage with its last word scored."""
    context, word = split_last_word(passage)
    if not word.strip():
        raise HarnessError("A reference passage is empty; remove it from data.references.")
    bos = [tokenizer.bos_token_id] if prepend_bos and tokenizer.bos_token_id is not None else []
    context_ids = tokenizer(context, add_special_tokens=False)["input_ids"] if context else []
    word_ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    # The last token is not read, so one more than the model's positions fits.
    room = positions_of(model)
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
