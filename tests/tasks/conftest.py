"""Targets wide enough for a 21x21 patch, and a learning algorithm whose outcome the test chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest


class ChosenTraining:
    """An InnerTraining whose `train` returns theta_0 changed by `change(params)`, in place, and notes its texts."""

    def __init__(self, model, tokenizer=None, change: Callable | None = None) -> None:
        self.model, self.tokenizer, self.change = model, tokenizer, change
        self.trained_on: list[str] | None = None

    def train(self, texts: Sequence[str]):
        self.trained_on = list(texts)
        params = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        if self.change is not None:
            self.change(params)
        return params

    def metagradient(self, texts, metric):
        raise AssertionError("an evaluation needs no metagradient")

    def with_optimizer(self, **changes):
        return self


@pytest.fixture(scope="session")
def chosen_training():
    return ChosenTraining


@pytest.fixture(scope="session")
def wide_model():
    """`wide_model(family, tied)` -> a random float64 causal LM, "gpt2" or "llama", 24 wide, 40 token ids, 1 layer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    def make(family: str = "gpt2", tied: bool = True):
        torch.manual_seed(0)
        if family == "gpt2":
            config = GPT2Config(
                vocab_size=40,
                n_positions=64,
                n_embd=24,
                n_layer=1,
                n_head=2,
                tie_word_embeddings=tied,
                bos_token_id=0,
                eos_token_id=0,
                attn_implementation="eager",
            )
            return GPT2LMHeadModel(config).double().eval()
        config = LlamaConfig(
            vocab_size=40,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            tie_word_embeddings=tied,
            attn_implementation="eager",
        )
        return LlamaForCausalLM(config).double().eval()

    return make
