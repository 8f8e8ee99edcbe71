"""Where a causal LM keeps its head, tied to the token embeddings or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.contracts import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def head_parameter(model: PreTrainedModel) -> str:
    """The key of the LM head's weight, (vocab, hidden), in `dict(model.named_parameters())`.

    Found by identity, so that a tied head answers with the name of the embeddings it shares (GPT-2:
    "transformer.wte.weight", Llama: "model.embed_tokens.weight") and an untied one with "lm_head.weight". Raises
    HarnessError if the model has no output embeddings or does not list their weight among its parameters.
    """
    output = model.get_output_embeddings()
    weight = getattr(output, "weight", None)
    for name, parameter in model.named_parameters():
        if parameter is weight:
            return name
    raise HarnessError(
        f"The target {type(model).__name__} has no LM head weight among its parameters; set target.model to a causal "
        "language model."
    )
