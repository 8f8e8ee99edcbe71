"""Measures of a list of texts: pure functions of strings, no model and no random state.

Words are the whitespace-separated pieces of a text, taken as they stand (case and punctuation kept). N-grams never
cross the border between two texts. All texts are pooled before anything is counted, so a value belongs to a number of
texts of a certain length: compare like with like (the same count of rollouts from the same prompts).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence


def ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    """The n-grams of one text's words, in order; empty if it has fewer than `n` words."""
    words = text.split()
    return list(zip(*(words[start:] for start in range(n)), strict=False))


def _counts(texts: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        counts.update(ngrams(text, n))
    return counts


def bigram_entropy(texts: Sequence[str]) -> float:
    """Entropy in bits of the pooled word bigrams: -sum_b p(b) log2 p(b), p(b) the share of bigram b among all bigrams.

    The paper plots "bigram entropy of generator val rollouts" (section 4.4, Figure 4) and gives no formula; this is
    the plain empirical one. 0 where there is no bigram or only one kind; at most log2(number of bigrams).
    """
    counts = _counts(texts, 2)
    total = counts.total()
    return sum(count / total * math.log2(total / count) for count in counts.values())


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Share of distinct n-grams among all n-grams of the pooled texts (distinct-n), in [0, 1]; 0 if there are none."""
    counts = _counts(texts, n)
    return len(counts) / counts.total() if counts else 0.0


def empty_fraction(texts: Sequence[str]) -> float:
    """Share of texts without a single word, in [0, 1]. Raises ValueError for no texts."""
    return sum(not text.strip() for text in texts) / _number(texts)


def identical_fraction(texts: Sequence[str]) -> float:
    """Share of texts that stand in the list more than once, character for character, in [0, 1]: 0 where all differ,
    1 where each has a twin. Raises ValueError for no texts."""
    counts = Counter(texts)
    return sum(count for count in counts.values() if count > 1) / _number(texts)


def mean_length(texts: Sequence[str]) -> float:
    """Mean number of words of a text. Raises ValueError for no texts."""
    return sum(len(text.split()) for text in texts) / _number(texts)


def _number(texts: Sequence[str]) -> int:
    if not texts:
        raise ValueError("a mean over texts needs at least one text")
    return len(texts)
