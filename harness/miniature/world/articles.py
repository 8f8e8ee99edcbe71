"""Encyclopedia-like articles on invented subjects, in five languages, with paraphrases.

Everything is deterministic: the facts depend on the subject's number alone, the words on subject, language and variant.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import import_module
from random import Random
from types import ModuleType

from .facts import facts

LANGUAGES = ("en", "de", "es", "fr", "it")
KEPT = 8192
"""Articles kept in memory: a process asks for the same ones for their hash, for checks, and for every cell it runs."""


@lru_cache(maxsize=KEPT)
def article(subject: int, language: str = "en", variant: int = 0) -> str:
    """One article: two or three sentences and, in one subject of eight, an archive number; 100 to 230 characters.

    Args:
        subject: number of the subject, from 0 on; any number gives an article.
        language: one of LANGUAGES.
        variant: 0 for the canonical text; 1, 2, ... tell the same facts in other sentences and another order.

    Raises ValueError for an unknown language and for a negative subject or variant.
    """
    if variant < 0:
        raise ValueError(f"a variant is a number from 0 on, not {variant}")
    return _module(language).write(facts(subject), Random(f"{subject}/{language}/{variant}"), variant)


def kind(subject: int) -> str:
    """What the article is about: one of `facts.KINDS`."""
    return facts(subject).kind


@cache
def _module(language: str) -> ModuleType:
    if language not in LANGUAGES:
        raise ValueError(f"unknown language {language!r}: choose one of {', '.join(LANGUAGES)}")
    return import_module(f".articles_{language}", __package__)
