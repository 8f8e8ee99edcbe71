"""LAMBADA-like passages in five languages: little scenes whose last word only the wider context gives away.

A passage is two to four short sentences of narrative fiction without final punctuation. It is read as the pair
(all but the last space-separated word, " " + last word), as LAMBADA's examples are. Everything is deterministic:
the random streams are seeded by strings that name the language and the index.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from random import Random
from string import Formatter

from .passages_lexicon import Device, LanguageData, Word

LANGUAGES = ("en", "de", "es", "fr", "it")
SPLITS = {"train": 256, "validation": 64, "test": 256}
MIN_LENGTH, MAX_LENGTH = 110, 220  # characters

_LAST_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Scene:
    """A passage with what it was made from.

    Attributes:
        text: the passage.
        device: name of the scene device.
        opening: the text before the last sentence.
        answer: the last word.
        cue: the word of the opening that gives the answer away: the answer itself, or the hint that implies it.
    """

    text: str
    device: str
    opening: str
    answer: str
    cue: str


@cache
def _data(language: str) -> LanguageData:
    if language not in LANGUAGES:
        raise ValueError(f"unknown language {language!r}: choose one of {', '.join(LANGUAGES)}")
    return import_module(f".passages_{language}", __package__).DATA


@cache
def _fields(template: str) -> tuple[str, ...]:
    """Slot names of a template in order of appearance, e.g. ``("n", "o2")``."""
    return tuple(field.split(".")[0] for _, field, _, _ in Formatter().parse(template) if field)


def _fill(rng: Random, data: LanguageData, templates: tuple[str, ...]) -> dict[str, Word]:
    """A word for every slot; a slot's kind is its name without the final digit, and no word is drawn twice."""
    chosen: dict[str, Word] = {}
    used: set[str] = set()
    for slot in (slot for template in templates for slot in _fields(template)):
        if slot in chosen:
            continue
        words = data.lexicon[slot.rstrip("0123456789")]
        word = rng.choice(words)
        while word.w in used:
            word = rng.choice(words)
        chosen[slot] = word
        used.add(word.w)
    return chosen


def _try_device(rng: Random, data: LanguageData, device: Device) -> Scene | None:
    """One draw of a device, or None where its length or its last word's form is not a passage's."""
    lead, end = rng.choice(device.leads), rng.choice(device.ends)
    mood = rng.choice(data.moods) if rng.random() < 0.5 else ""
    words = _fill(rng, data, (lead, end))
    opening = " ".join(part for part in (lead.format(**words), mood) if part)
    text = f"{opening} {end.format(**words)}"
    answer = text.rsplit(" ", 1)[1]
    # An elided article ("l'orologio") would glue a second word to the answer, so such draws are repeated.
    if not MIN_LENGTH <= len(text) <= MAX_LENGTH or not _LAST_WORD.fullmatch(answer):
        return None
    cue = words[_fields(end)[-1]].cue or answer
    return Scene(text=text, device=device.name, opening=opening, answer=answer, cue=cue)


def _compose(rng: Random, language: str) -> Scene:
    data = _data(language)
    device = rng.choice(data.devices)
    while True:
        scene = _try_device(rng, data, device)
        if scene is not None:
            return scene


def scene(index: int, language: str) -> Scene:
    """Passage ``index`` (any integer >= 0) of a language with its device, opening, answer and cue.

    Raises ValueError on a negative index or an unknown language.
    """
    if index < 0:
        raise ValueError(f"a passage's index must be 0 or more, got {index}")
    return _compose(Random(f"passage/{language}/{index}"), language)


def passage(index: int, language: str) -> str:
    """Text of passage ``index`` (any integer >= 0): 110 to 220 characters, no final punctuation.

    Raises ValueError on a negative index or an unknown language.
    """
    return scene(index, language).text


def _context(text: str) -> str:
    return text.rsplit(" ", 1)[0]


@cache
def _all_splits(language: str) -> tuple[dict[str, tuple[str, ...]], frozenset[str]]:
    """Every split of a language, and the contexts of all of them; no context occurs twice."""
    contexts: set[str] = set()
    splits: dict[str, tuple[str, ...]] = {}
    index = 0
    for name, size in SPLITS.items():
        texts: list[str] = []
        while len(texts) < size:
            text = passage(index, language)
            index += 1
            if _context(text) not in contexts:
                contexts.add(_context(text))
                texts.append(text)
        splits[name] = tuple(texts)
    return splits, frozenset(contexts)


def split(name: str, language: str) -> list[str]:
    """The texts of the split ``train``, ``validation`` or ``test``; contexts are distinct within and across splits.

    Raises ValueError on an unknown split or language.
    """
    if name not in SPLITS:
        raise ValueError(f"unknown split {name!r}: choose one of {', '.join(SPLITS)}")
    return list(_all_splits(language)[0][name])


def stories(start: int, count: int, language: str) -> list[str]:
    """Texts ``start`` to ``start + count`` of an endless stream of the same kind, for pre-training.

    No text shares its context with a passage of any split; the stream itself may repeat a text now and then.
    Raises ValueError on a negative start or count or an unknown language.
    """
    if start < 0 or count < 0:
        raise ValueError(f"start and count must be 0 or more, got {start} and {count}")
    held_out = _all_splits(language)[1]
    texts = []
    for index in range(start, start + count):
        rng = Random(f"story/{language}/{index}")
        text = _compose(rng, language).text
        while _context(text) in held_out:
            text = _compose(rng, language).text
        texts.append(text)
    return texts
