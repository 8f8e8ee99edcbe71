"""Models and tokenizers, from safetensors and without running a model's own code."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from harness.assets.references import is_embedded, resolve, why
from harness.contracts import HarnessError
from harness.machine.trust import trusted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(ref: str) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model, with a padding token (the end-of-text token where none is set)."""
    from transformers import AutoTokenizer

    path = resolve(ref)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=trusted())
    except Exception as error:
        raise HarnessError(f"No tokenizer could be loaded from '{ref}' ({why(error)}).") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise HarnessError(f"The tokenizer of '{ref}' has neither a padding nor an end-of-text token; add one to it.")
    return tokenizer


def load_model(
    ref: str, *, dtype: str = "float32", attention: str = "eager", untie_head: bool = False
) -> PreTrainedModel:
    """A causal LM in evaluation mode. `attention="eager"` for models whose second derivatives are taken."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    path = resolve(ref)
    if not (path / "config.json").exists():
        raise HarnessError(f"'{ref}' is not a Hugging Face model folder: it has no config.json.")
    if not list(path.glob("*.safetensors")):
        raise HarnessError(
            f"'{ref}' has no .safetensors weights; convert the model (pickled weights are never loaded)."
        )
    try:
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=trusted())
        copied = untie_head and config.tie_word_embeddings
        config.tie_word_embeddings = config.tie_word_embeddings and not untie_head
        model = AutoModelForCausalLM.from_pretrained(
            str(path),
            config=config,
            dtype=getattr(torch, dtype),
            attn_implementation=attention,
            trust_remote_code=trusted(),
            use_safetensors=True,
        )
    except Exception as error:
        raise HarnessError(f"The model '{ref}' could not be loaded ({why(error)}).") from error
    if copied:
        # A checkpoint saved with a tied head holds no head weights: give the head a copy of the embeddings.
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        head.weight = torch.nn.Parameter(embedding.weight.detach().clone())
    return model.eval()


@lru_cache(maxsize=16)
def check_model(ref: str) -> None:
    """Raises HarnessError if the model or its tokenizer could not be loaded: config, weights' headers, tokenizer. The
    embedded ones are checked by hash instead, without importing transformers."""
    path = resolve(ref)
    if is_embedded(ref):
        return
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig

    if not (path / "config.json").exists():
        raise HarnessError(f"'{ref}' is not a Hugging Face model folder: it has no config.json.")
    try:
        AutoConfig.from_pretrained(str(path), trust_remote_code=trusted())
    except Exception as error:
        raise HarnessError(f"The model '{ref}' has a broken config.json ({why(error)}).") from error
    weights = list(path.glob("*.safetensors"))
    if not weights:
        raise HarnessError(
            f"'{ref}' has no .safetensors weights; convert the model (pickled weights are never loaded)."
        )
    for file in weights:
        try:
            with safe_open(file, framework="np") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise HarnessError(f"The weights {file.name} of '{ref}' are damaged ({why(error)}).") from error
    load_tokenizer(ref)
