"""Text measures against counts done by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.texts.diversity import bigram_entropy, distinct_n, empty_fraction, identical_fraction, mean_length, ngrams

TEXTS = st.lists(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8).map(" ".join), max_size=6)


def test_ngrams_stay_inside_a_text_and_in_order():
    assert ngrams("a b\nc", 2) == [("a", "b"), ("b", "c")]
    assert ngrams("a b c", 1) == [("a",), ("b",), ("c",)]
    assert ngrams("a", 2) == [] == ngrams("", 1)


def test_bigram_entropy_by_hand():
    # bigrams: (a b) twice, (b a) once, (c d) once: p = 1/2, 1/4, 1/4
    assert bigram_entropy(["a b a b", "c d"]) == pytest.approx(1.5)
    # four equally frequent bigrams are two bits; the border between texts makes none
    assert bigram_entropy(["a b c", "d e f"]) == pytest.approx(2.0)
    assert bigram_entropy(["y y y y"]) == 0.0
    assert bigram_entropy([]) == bigram_entropy(["", "one"]) == 0.0


@given(TEXTS)
def test_bigram_entropy_against_scipy(texts):
    from scipy.stats import entropy

    flat = [bigram for text in texts for bigram in ngrams(text, 2)]
    expected = entropy([flat.count(bigram) for bigram in set(flat)], base=2) if flat else 0.0
    assert bigram_entropy(texts) == pytest.approx(expected, abs=1e-12)
    assert bigram_entropy(texts) <= math.log2(len(flat) or 1) + 1e-12


def test_distinct_n_by_hand():
    assert distinct_n(["a b a", "a"], 1) == pytest.approx(2 / 4)
    assert distinct_n(["a b a b", "a b"], 2) == pytest.approx(2 / 4)
    assert distinct_n(["", "one"], 2) == 0.0


def test_fractions_and_length_by_hand():
    texts = ["a b c", "", "a b c", " \n", "d"]
    assert empty_fraction(texts) == pytest.approx(2 / 5)
    assert identical_fraction(texts) == pytest.approx(2 / 5)
    assert identical_fraction(["a", "a", "a"]) == 1.0
    assert mean_length(texts) == pytest.approx(7 / 5)


@pytest.mark.parametrize("measure", [empty_fraction, identical_fraction, mean_length])
def test_a_mean_of_nothing_is_an_error(measure):
    with pytest.raises(ValueError, match="at least one text"):
        measure([])
