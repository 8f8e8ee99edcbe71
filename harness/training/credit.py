"""Advantages token by token, where a reward says what each character of a rollout earned of it.

A metagradient is a sum over the tokens that the target was trained on. GRPO gives every token of a rollout the
advantage of the whole; where the parts are known, a token need only answer for what it and later ones earned:

    G_t = sum over s >= t of discount^(s - t) c_s,   A_t = (G_t - mean of G_t over the rollouts that reach t) /
    deviation

With discount 1 that is the policy gradient of the same rewards with less variance (what came before t does not depend
on token t); below 1 it forgets what a token does to later ones, for still less. Characters are what generator and
target agree on: their tokens may differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from harness.contracts import SignalError
from harness.training.advantages import factor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROUNDING = 1e-12
"""Of the largest credit: a deviation below it is what float64 sums of equal credits differ by."""


def check_credits(name: str, credits: Sequence[Sequence[float]], texts: Sequence[str]) -> None:
    """Raises SignalError unless there is one finite number for every character of every text."""
    lists = [credits, *credits] if isinstance(credits, Sequence) else [credits]
    plain = not any(isinstance(own, Mapping | Set | str | bytes) or not hasattr(own, "__len__") for own in lists)
    if not plain or [len(own) for own in credits] != [len(text) for text in texts]:
        raise SignalError(f"The reward '{name}' must credit every character of every completion, one number each.")
    try:
        flat = torch.tensor([float(value) for own in credits for value in own], dtype=torch.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise SignalError(f"The reward '{name}' credits characters with what is no number ({error}).") from error
    if not bool(flat.isfinite().all()):
        raise SignalError(f"The reward '{name}' credits characters with numbers that are not finite.")


def token_stops(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> list[int]:
    """Where each token's characters end in the text they were decoded to (special tokens have none)."""
    plain = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if list(plain["input_ids"]) == list(ids[: len(plain["input_ids"])]):  # as the tokenizer itself would write it
        found = [stop for _, stop in plain["offset_mapping"]]
        found += [len(text)] * (len(ids) - len(found))
    else:
        decoded = tokenizer.batch_decode([list(ids[: k + 1]) for k in range(len(ids))], skip_special_tokens=True)
        found = [min(len(part), len(text)) for part in decoded]
    for k in range(1, len(found)):  # pieces of one character decode to more characters than it
        found[k] = max(found[k], found[k - 1])
    return found


def token_credits(
    tokenizer: PreTrainedTokenizerBase,
    completions: Sequence[Sequence[int]],
    texts: Sequence[str],
    credits: Sequence[Sequence[float]],
) -> list[list[float]]:
    """Characters' credits summed by the generator's tokens, one list a completion."""
    found = []
    for ids, text, own in zip(completions, texts, credits, strict=True):
        found.append([sum(own[a:b]) for a, b in pairwise([0, *token_stops(tokenizer, ids, text)])])
    return found


def discounted(credits: torch.Tensor, discount: float) -> torch.Tensor:
    """(N, T) G_t of c_t: each entry and, ever less, those after it."""
    earned = credits.clone()
    for t in range(credits.shape[1] - 2, -1, -1):
        earned[:, t] += discount * earned[:, t + 1]
    return earned


def token_advantages(credits: Sequence[Sequence[float]], width: int, discount: float, eps: float) -> torch.Tensor:
    """(N, width) float64 as in the module's docstring; 0 after a rollout's end. The deviation, over all tokens, divides
    the credits before `eps` joins it (they may be near 1e-9); one that is mere rounding gives zeros."""
    earned, there = torch.zeros(len(credits), width, dtype=torch.float64), torch.zeros(len(credits), width)
    for row, own in enumerate(credits):
        earned[row, : len(own)] = torch.tensor(own, dtype=torch.float64)
        there[row, : len(own)] = 1
    earned, there = discounted(earned * factor(earned), discount), there.double()
    mean = (earned * there).sum(0) / there.sum(0).clamp_min(1)
    centred = (earned - mean) * there
    deviation = (centred.square().sum() / there.sum().clamp_min(1)).sqrt()
    if deviation <= ROUNDING * earned.abs().amax():
        return torch.zeros_like(centred)
    return centred / deviation / (1 + eps)
