"""Sizes of models and devices as plain numbers: what plan, doctor and benchmark count with. No torch at import."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from harness.contracts import HarnessError
from harness.machine.files import read_json


@dataclass(frozen=True)
class Shape:
    """A decoder-only transformer: `gated` MLPs have three matrices (Llama, Qwen), others two (GPT-2)."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    gated: bool
    vocab: int
    positions: int
    tied: bool = True
    learned_positions: bool = False

    @property
    def body(self) -> int:
        """Weights that multiply every token: attention and MLP matrices of all layers."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + self.hidden * self.intermediate * (3 if self.gated else 2))

    @property
    def head(self) -> int:
        """Weights of the LM head, which multiply scored positions only."""
        return self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All weights but norms and biases (under 0.1 %)."""
        tables = self.head * (1 if self.tied else 2) + self.learned_positions * self.positions * self.hidden
        return self.body + tables

    def untied(self) -> Shape:
        return replace(self, tied=False)

    def divided(self, by: int) -> Shape:
        """The same depth at 1/`by` of the width: hidden size, heads, MLP and vocabulary alike (one head at least)."""
        heads = max(1, self.heads // by)
        head_dim = max(2, self.hidden // by // heads // 2 * 2)
        return replace(
            self,
            hidden=heads * head_dim,
            heads=heads,
            kv_heads=max(1, self.kv_heads * heads // self.heads),
            head_dim=head_dim,
            intermediate=max(4, self.intermediate // by),
            vocab=max(300, self.vocab // by),
        )


def shape_from_config(config: dict[str, Any]) -> Shape:
    """The shape that a Hugging Face config.json describes. Raises HarnessError if it names none."""

    def get(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), None)

    hidden, heads = get("hidden_size", "n_embd"), get("num_attention_heads", "n_head")
    layers, vocab = get("num_hidden_layers", "n_layer"), get("vocab_size")
    if not all(isinstance(value, int) and value > 0 for value in (hidden, heads, layers, vocab)):
        raise HarnessError("The model's config.json lacks its hidden size, heads, layers or vocabulary.")
    gpt2 = config.get("model_type") == "gpt2"
    return Shape(
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=get("num_key_value_heads") or heads,
        head_dim=get("head_dim") or hidden // heads,
        intermediate=get("intermediate_size", "n_inner") or 4 * hidden,
        gated=not gpt2,
        vocab=vocab,
        positions=get("max_position_embeddings", "n_positions") or 0,
        tied=config.get("tie_word_embeddings", gpt2) is not False,
        learned_positions=gpt2,
    )


@lru_cache(maxsize=1)
def known_assets() -> dict[str, dict[str, Any]]:
    """Hub id -> licence, gate, bytes, shape of what the built-in profiles use."""
    text = (resources.files("harness") / "known_assets.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text)


@lru_cache(maxsize=32)
def shape_of(ref: str) -> Shape:
    """The shape of a model reference, without loading it: from its config.json where it is here, else from the table.
    Raises HarnessError if neither knows it."""
    from harness import assets
    from harness.assets import hub

    if assets.is_embedded(ref) or assets.is_local(ref):
        folder: Path | None = assets.resolve(ref)
    else:
        folder = hub.cached(ref)
    config = folder / "config.json" if folder else None
    if config and config.is_file():
        try:
            return shape_from_config(read_json(config))
        except (OSError, ValueError) as error:
            raise HarnessError(f"'{ref}' has a broken config.json ({type(error).__name__}).") from error
    known = known_assets().get(ref.partition("@")[0], {})
    if "shape" not in known:
        raise HarnessError(f"The shape of '{ref}' is not known offline; `python -m harness fetch` gets it first.")
    return Shape(**known["shape"])
