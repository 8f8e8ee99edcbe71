"""LAMBADA-like passages in five languages: little scenes whose last word only the wider context gives away.

A passage is two to four short sentences of narrative fiction without final punctuation. It is read as the pair
(all but the last space-separated word, " " + last word), as LAMBADA's examples are. Everything is deterministic:
the random streams are seeded by strings that name the language and the index.

No two splits share a name or a thing: half of the words of each kind belong to the train split, a quarter each to the
other two. What is learnt about a split's people and their belongings is of no use in another one; scenery, months,
numbers and the like are the language's own and occur everywhere. The stories for pre-training hold all words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from random import Random
from string import Formatter

from .passages_lexicon import Device, LanguageData, Word

LANGUAGES = ("en", "de", "es", "fr", "it")
SPLITS = {"train": 4096, "validation": 64, "test": 256}
SHARED_SLOTS = ("w", "k", "s", "d", "u", "kin", "body")
"""What every split speaks of: times, colours, months, weekdays, numbers, relatives, parts of the body."""
WORD_SHARES = {"train": 2, "validation": 1, "test": 1}
"""Parts of every other slot's words that a split has to itself."""
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
        own: the names and things before the answer.
    """

    text: str
    device: str
    opening: str
    answer: str
    cue: str
    own: frozenset[str]


@cache
def _data(language: str) -> LanguageData:
    if language not in LANGUAGES:
        raise ValueError(f"unknown language {language!r}: choose one of {', '.join(LANGUAGES)}")
    return import_module(f".passages_{language}", __package__).DATA


@cache
def _part(language: str, name: str) -> LanguageData:
    """The language as a split speaks it: with its own names and things.

    Each word is dealt once, whatever slots it stands in, to the split that is furthest behind its share of the slot.
    Raises ValueError on an unknown split or language.
    """
    if name not in SPLITS:
        raise ValueError(f"unknown split {name!r}: choose one of {', '.join(SPLITS)}")
    data, owner = _data(language), dict[str, str]()
    rng = Random(f"words/{language}")
    for slot, words in data.lexicon.items():
        if slot in SHARED_SLOTS:
            continue
        counts = {part: sum(owner.get(word.w) == part for word in words) for part in SPLITS}
        for word in rng.sample(words, len(words)):
            if word.w not in owner:
                owner[word.w] = min(SPLITS, key=lambda part: (counts[part] + 1) / WORD_SHARES[part])
                counts[owner[word.w]] += 1
    lexicon = {
        slot: words if slot in SHARED_SLOTS else [word for word in words if owner[word.w] == name]
        for slot, words in data.lexicon.items()
    }
    return replace(data, lexicon=lexicon)


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
    last = _fields(end)[-1]
    own = frozenset(
        word.w for slot, word in words.items() if slot != last and slot.rstrip("0123456789") not in SHARED_SLOTS
    )
    cue = words[last].cue or answer
    return Scene(text=text, device=device.name, opening=opening, answer=answer, cue=cue, own=own)


def _compose(rng: Random, data: LanguageData) -> Scene:
    device = rng.choice(data.devices)
    while True:
        scene = _try_device(rng, data, device)
        if scene is not None:
            return scene


def scene(index: int, language: str, name: str) -> Scene:
    """Draw ``index`` (any integer >= 0) of the split ``name`` of a language: a passage with its device, opening, answer
    and cue. Its text has 110 to 220 characters and no final punctuation; its context holds a name or a thing, so that
    no other split can have the same.

    Raises ValueError on a negative index, an unknown language or an unknown split.
    """
    if index < 0:
        raise ValueError(f"a passage's index must be 0 or more, got {index}")
    data, rng = _part(language, name), Random(f"passage/{language}/{name}/{index}")
    found = _compose(rng, data)
    while not found.own:
        found = _compose(rng, data)
    return found


def _context(text: str) -> str:
    return text.rsplit(" ", 1)[0]


@cache
def _texts(name: str, language: str, count: int) -> tuple[str, ...]:
    """The first ``count`` draws of a split with distinct contexts."""
    texts: dict[str, str] = {}
    index = 0
    while len(texts) < count:
        text = scene(index, language, name).text
        texts.setdefault(_context(text), text)
        index += 1
    return tuple(texts.values())


def split(name: str, language: str, limit: int | None = None) -> list[str]:
    """The first ``limit`` (default: all) texts of the split ``train``, ``validation`` or ``test``. No context occurs
    twice, within a split or across them, and no split shares a name or a thing with another.

    Raises ValueError on an unknown split or language.
    """
    if name not in SPLITS:
        raise ValueError(f"unknown split {name!r}: choose one of {', '.join(SPLITS)}")
    return list(_texts(name, language, min(SPLITS[name], SPLITS[name] if limit is None else limit)))


@cache
def _held_out(language: str) -> frozenset[str]:
    """The contexts of all splits."""
    return frozenset(_context(text) for name in SPLITS for text in split(name, language))


def stories(start: int, count: int, language: str) -> list[str]:
    """Texts ``start`` to ``start + count`` of an endless stream of the same kind, for pre-training.

    No text shares its context with a passage of any split; the stream itself may repeat a text now and then.
    Raises ValueError on a negative start or count or an unknown language.
    """
    if start < 0 or count < 0:
        raise ValueError(f"start and count must be 0 or more, got {start} and {count}")
    held_out, data = _held_out(language), _data(language)
    texts = []
    for index in range(start, start + count):
        rng = Random(f"story/{language}/{index}")
        text = _compose(rng, data).text
        while _context(text) in held_out:
            text = _compose(rng, data).text
        texts.append(text)
    return texts
