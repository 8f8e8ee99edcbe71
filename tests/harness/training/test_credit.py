"""Token advantages against plain Python, and characters against tokens of another cut."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.contracts import SignalError
from harness.training.credit import check_credits, token_advantages, token_credits, token_stops

credit = st.floats(-1e3, 1e3, allow_nan=False).map(lambda x: round(x, 3))
ROWS = st.lists(st.lists(credit, min_size=0, max_size=5), min_size=1, max_size=6)


@given(ROWS, st.sampled_from([0.0, 0.5, 1.0]))
def test_advantages_equal_the_formula(rows, discount):
    returns = [
        [sum(discount ** (s - t) * c for s, c in enumerate(row) if s >= t) for t in range(len(row))] for row in rows
    ]
    means = [statistics.mean([own[t] for own in returns if len(own) > t] or [0.0]) for t in range(5)]
    centred = [[value - means[t] for t, value in enumerate(own)] for own in returns]
    every = [value for own in centred for value in own]
    deviation = math.sqrt(sum(value**2 for value in every) / len(every)) if every else 0.0
    got = token_advantages(rows, 5, discount, 0.0)
    for row, own in zip(got.tolist(), centred, strict=True):
        assert row[len(own) :] == [0.0] * (5 - len(own))
        if deviation > 1e-6:
            assert row[: len(own)] == pytest.approx([value / deviation for value in own], abs=1e-6)


def test_credits_near_1e_9_keep_their_advantages():
    torch.manual_seed(0)
    rows = torch.randn(6, 4, dtype=torch.float64)
    large, small = (token_advantages(r.tolist(), 4, 0.5, 1e-6) for r in (rows, rows * 1e-9))
    torch.testing.assert_close(small, large)


@pytest.mark.parametrize("scale", [1e300, 1e-300])
def test_credits_of_any_scale_keep_their_advantages(scale):
    rows = [[1.0, -2.0, 3.0], [0.5, 4.0], [2.0]]
    scaled = [[value * scale for value in row] for row in rows]
    assert torch.allclose(token_advantages(scaled, 3, 0.9, 1e-6), token_advantages(rows, 3, 0.9, 1e-6))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-9])
def test_equal_credits_give_no_advantages(value):
    """Their mean may be off by rounding, which must not be blown up to a deviation of 1."""
    assert token_advantages([[value] * 3] * 7, 3, 0.7, 1e-6).abs().max() == 0


@pytest.mark.parametrize("text", ["plain words", "año 東京", ""])
def test_every_character_belongs_to_one_token(text, make_tokenizer):
    tokenizer = make_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    stops = token_stops(tokenizer, ids, text)
    assert len(stops) == len(ids) and stops == sorted(stops) and stops[-1] == len(text)
    credits = [[float(k) for k in range(len(text))]]
    found = token_credits(tokenizer, [ids], [text], credits)[0]
    assert len(found) == len(ids) and sum(found) == sum(credits[0])
    if text.isascii():
        assert found == [*credits[0], 0.0]


def test_tokens_that_the_tokenizer_would_not_write_itself():
    from harness import assets

    tokenizer = assets.load_tokenizer("embedded:generator")
    text = "the town"
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    letters = [i for letter in text for i in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    assert len(letters) > len(whole) and tokenizer.decode(letters) == text
    assert token_stops(tokenizer, letters, text)[-1] == len(text)
    credits = [[1.0] * len(text)]
    assert token_credits(tokenizer, [letters], [text], credits) == [[1.0] * len(text)]
    assert sum(token_credits(tokenizer, [whole], [text], credits)[0]) == len(text)


@pytest.mark.parametrize("credits", [[[1.0]], [[1.0, 2.0], [3.0]], [[1.0, float("nan")]]])
def test_bad_credits_stop_and_name_the_reward(credits):
    with pytest.raises(SignalError, match="mine"):
        check_credits("mine", credits, ["ab"])
