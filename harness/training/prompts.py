"""Prompts: an article wrapped for the generator, as text or as chat messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.contracts import HarnessError
from harness.settings.schema import GeneratorSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Prompt = str | list[dict[str, str]]


TITLE = 60
"""Characters of an article that stand for it."""


def article_label(article: str) -> dict[str, str]:
    """What names an article beside a rollout: the beginning of its first line, and eight digits of its SHA-256."""
    first = next((line.strip() for line in article.splitlines() if line.strip()), "")
    title = first if len(first) <= TITLE else first[: TITLE - 3].rstrip(" .,;:") + "..."
    return {"title": title, "article": hashlib.sha256(article.encode()).hexdigest()[:8]}


def bind_template(tokenizer: PreTrainedTokenizerBase, values: dict[str, str]) -> None:
    """Sets variables of the tokenizer's chat template for everyone who uses it, TRL included."""
    if values and tokenizer.chat_template:
        lines = "".join(f"{{%- set {name} = {json.dumps(value)} -%}}" for name, value in sorted(values.items()))
        tokenizer.chat_template = lines + tokenizer.chat_template


def build_prompts(
    tokenizer: PreTrainedTokenizerBase, settings: GeneratorSettings, articles: Sequence[str]
) -> list[Prompt]:
    """The prompt for each article, cut to `max_prompt_tokens`: message lists where the tokenizer has a chat template,
    plain texts otherwise. Raises HarnessError if the prompt alone is too long."""

    def wrap(text: str) -> Prompt:
        content = settings.prompt.replace("<article>", text)
        return [{"role": "user", "content": content}] if tokenizer.chat_template else content

    room = settings.max_prompt_tokens - len(encode_prompt(tokenizer, wrap("")))
    if room <= 0:
        raise HarnessError(
            f"The prompt without any article fills generator.max_prompt_tokens={settings.max_prompt_tokens}; raise it."
        )
    room = max(1, room - 2)  # 2: a cut can tokenise to a little more at its seams
    encoded = tokenizer(list(articles), add_special_tokens=False)["input_ids"] if articles else []
    return [
        wrap(article if len(ids) <= room else tokenizer.decode(ids[:room], skip_special_tokens=True))
        for article, ids in zip(articles, encoded, strict=True)
    ]


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> list[int]:
    """Token ids (P,) as TRL makes them of the same prompt."""
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    return tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=True, return_dict=True)[
        "input_ids"
    ]
