"""Small random models, tokenizers and a learning algorithm whose outcome the test chooses; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence


def build_tokenizer(template: str | None = None):
    """A byte-level tokenizer of 260 entries: 256 bytes, then bos, eos, pad."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*alphabet, "<bos>", "<eos>", "<pad>"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", chat_template=template
    )


def build_model(family: str, *, tied: bool = True, seed: int = 0, vocab: int = 260):
    """A random causal LM of the family's shape ("gpt2", "llama", "qwen"), float32, 16 wide, 2 layers."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    if family == "gpt2":
        config = GPT2Config(
            vocab_size=vocab,
            n_positions=512,
            n_embd=16,
            n_layer=2,
            n_head=2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            tie_word_embeddings=tied,
            bos_token_id=256,
            eos_token_id=257,
            pad_token_id=258,
        )
        return GPT2LMHeadModel(config)
    shape = dict(
        vocab_size=vocab,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        bos_token_id=256,
        eos_token_id=257,
        pad_token_id=258,
    )
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape))
    return Qwen2ForCausalLM(Qwen2Config(**shape))


def build_wide_model(family: str = "gpt2", tied: bool = True):
    """A random float64 causal LM, "gpt2" or "llama", 24 wide (enough for a 21x21 patch), 40 token ids, 1 layer."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

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


class ChosenTraining:
    """An InnerTraining whose `train` returns theta_0 changed by `change(params)`, in place, and notes its texts."""

    def __init__(self, model, tokenizer=None, change: Callable | None = None) -> None:
        self.model, self.tokenizer, self.change = model, tokenizer, change
        self.trained_on: list[str] | None = None

    def train(self, texts: Sequence[str], *, only: Collection[str] | None = None):
        self.trained_on = list(texts)
        params = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        if self.change is not None:
            self.change(params)
        return {name: value for name, value in params.items() if only is None or name in only}

    def metagradient(self, texts, metric):
        raise AssertionError("an evaluation needs no metagradient")

    def with_optimizer(self, **changes):
        return self
