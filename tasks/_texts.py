"""What every task says about the texts it was given, and how much of a string a text holds."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts import Measure
from harness.texts.diversity import bigram_entropy, distinct_n, empty_fraction, identical_fraction, mean_length

TEXT_MEASURES = (
    Measure("bigram_entropy", "bits", "higher", "entropy of the pooled word bigrams of all rollouts", relative=True),
    Measure("distinct_1", "fraction", "higher", "distinct words over words, pooled"),
    Measure("distinct_2", "fraction", "higher", "distinct word bigrams over bigrams, pooled"),
    Measure("empty_fraction", "fraction", "lower", "rollouts without a word"),
    Measure("identical_fraction", "fraction", "lower", "rollouts whose exact text another rollout has too"),
    Measure("mean_length", "words", None, "mean length of a rollout"),
)

TEXT_KEYS = ("bigram_entropy", "distinct_2")
"""Those that tell most (`key_measures`): a signal that reaches its end by repeating itself shows in them."""


def text_values(texts: Sequence[str]) -> dict[str, float]:
    """One value for each of TEXT_MEASURES. Raises ValueError for no texts."""
    return {
        "bigram_entropy": bigram_entropy(texts),
        "distinct_1": distinct_n(texts, 1),
        "distinct_2": distinct_n(texts, 2),
        "empty_fraction": empty_fraction(texts),
        "identical_fraction": identical_fraction(texts),
        "mean_length": mean_length(texts),
    }


def longest_shared_piece(wanted: str, text: str) -> int:
    """Characters of the longest common substring of the two strings, 0 if they share no character.

    One pass over the starts in `wanted`: the best length can only grow, and the search for a piece is the
    interpreter's own substring search, so 2 * len(wanted) of them suffice.
    """
    best = 0
    for start in range(len(wanted)):
        while start + best < len(wanted) and wanted[start : start + best + 1] in text:
            best += 1
    return best
