"""harness/training/decoding.py: what is drawn and what is dropped. tests of generation hold it against transformers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.training.decoding import BLOCK, decode, fits, inverse_cdf


@given(st.integers(1, 3 * BLOCK + 1), st.integers(0, 2**31), st.floats(0.0, 1.0, exclude_max=True), st.floats(0, 1))
def test_a_draw_is_the_inverse_of_the_cumulative_distribution(vocabulary, seed, uniform, missing):
    """Against one float64 sum over the whole vocabulary; where rounding may decide, the token's neighbourhood."""
    torch.manual_seed(seed)
    logits = (3.0 * torch.randn(1, vocabulary)).masked_fill(torch.rand(1, vocabulary) < missing, -torch.inf)
    logits[0, seed % vocabulary] = 0.0
    token, chance = inverse_cdf(logits, torch.tensor([uniform], dtype=torch.float64), 1.0)
    exact = torch.softmax(logits.double()[0], -1)
    sums = exact.cumsum(0)
    assert exact[token] > 0
    assert float(sums[token] - exact[token]) - 1e-6 <= uniform <= float(sums[token]) + 1e-6
    assert float(chance) == pytest.approx(float(exact[token].log()), abs=1e-5)


def test_numbers_at_both_ends_draw_tokens_that_can_be():
    logits = torch.full((2, 200), -torch.inf)
    logits[:, [70, 150]] = 0.0
    token, _ = inverse_cdf(logits, torch.tensor([0.0, 1.0 - 2.0**-53], dtype=torch.float64), 1.0)
    assert token.tolist() == [70, 150]


def test_rows_that_ended_are_no_longer_computed(make_model):
    """Of 4 groups of 3, all but one rollout end at once: then passes hold one row, and its tokens are those it draws
    alone."""
    model = make_model("llama").double().eval()
    prompts, rows = [[65, 66, 67 + i] for i in range(4)], [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(4)]
    last, wide = 7, []

    def draw(logits, numbers, step):
        greedy = logits.argmax(-1).clamp_min(1)
        return torch.where((numbers == last) | (step > 0), greedy, 0), None

    model.get_input_embeddings().register_forward_hook(lambda m, args, out: wide.append(args[0].numel()))
    tokens, chances = decode(model, prompts, rows, draw, new=6, stop=[0])
    assert chances is None
    assert wide == [12, *[1] * 5]
    alone, _ = decode(
        model, [prompts[last // 3]], [[0]], lambda logits, *_: (logits.argmax(-1).clamp_min(1), None), new=6, stop=[0]
    )
    assert tokens[last].tolist() == alone[0].tolist()


def test_attention_that_is_not_known_is_left_to_transformers(make_model):
    model = make_model("llama")
    assert fits(model)
    model.config.layer_types = ["sliding_attention"] * model.config.num_hidden_layers
    assert not fits(model)
    model = make_model("gpt2")
    assert fits(model)
    model.config.model_type = "gemma2"
    assert not fits(model)
