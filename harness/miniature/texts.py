"""The miniature world's texts by name and split."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from harness.contracts import HarnessError

TEXTS = ("articles", "passages")
"""Embedded texts; every other embedded name is a folder of files."""


@lru_cache(maxsize=4)
def embedded_texts_hash(name: str) -> str:
    from harness.miniature.world.passages import LANGUAGES

    every = [
        text
        for language in LANGUAGES
        for split in ("train", "validation", "test")
        for text in embedded_texts(name, split, language, 512)
    ]
    return hashlib.sha256("\n".join(every).encode()).hexdigest()


def embedded_texts(name: str, split: str | None, language: str, limit: int | None) -> list[str]:
    split = split or "train"
    if name == "passages":
        from harness.miniature.world import passages

        return passages.split(split, language, limit)
    if name == "articles":
        from harness.miniature.corpus import articles

        return articles(split, limit)
    raise HarnessError(f"There are no embedded texts named '{name}'; known are {', '.join(TEXTS)}.")
