"""What the passages of every language are made of: words with their forms, scene devices, and a parser for both."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


class Word:
    """A word and its inflected or prefixed forms, read as attributes inside templates.

    ``{o}`` gives the word itself, ``{o.the}`` the form named ``the``, ``{o.The}`` the same form with its first letter
    raised. ``cue`` is the word of an implied answer's hint (empty for all other words). An unknown form raises
    AttributeError.
    """

    def __init__(self, w: str, cue: str = "", **forms: str) -> None:
        self.w = w
        self.cue = cue
        self._forms = {"w": w, **forms}

    def __getattr__(self, name: str) -> str:
        forms = self.__dict__.get("_forms", {})
        if name in forms:
            return forms[name]
        lower = name[:1].lower() + name[1:]
        if name != lower and lower in forms:
            return forms[lower][:1].upper() + forms[lower][1:]
        raise AttributeError(f"the word {self.__dict__.get('w')!r} has no form {name!r}")

    def __str__(self) -> str:
        return self.w


@dataclass(frozen=True)
class Device:
    """One way to give a last word away: alternative openings, and alternative closing sentences without a full stop."""

    name: str
    leads: tuple[str, ...]
    ends: tuple[str, ...]


@dataclass(frozen=True)
class LanguageData:
    """Everything that one language brings: slot name to words, sentences of atmosphere, and devices."""

    lexicon: dict[str, list[Word]]
    moods: tuple[str, ...]
    devices: tuple[Device, ...]


def lines(block: str) -> tuple[str, ...]:
    """The non-empty lines of a block, stripped."""
    return tuple(line.strip() for line in block.splitlines() if line.strip())


def parse_devices(block: str) -> tuple[Device, ...]:
    """Devices from text: ``[name]`` opens one, ``> `` marks a closing sentence, every other line is an opening."""
    parsed: list[tuple[str, list[str], list[str]]] = []
    for line in lines(block):
        if line.startswith("["):
            parsed.append((line.strip("[]"), [], []))
        elif line.startswith("> "):
            parsed[-1][2].append(line[2:])
        else:
            parsed[-1][1].append(line)
    return tuple(Device(name, tuple(leads), tuple(ends)) for name, leads, ends in parsed)


def gendered(block: str, make: Callable[[str, str], Word]) -> list[Word]:
    """Words from groups such as ``"m: ring key | f: lamp"``: ``make(word, gender)`` builds each one."""
    words = []
    for group in block.split("|"):
        gender, _, members = group.strip().partition(":")
        words += [make(member, gender.strip()) for member in members.split()]
    return words


def hinted(block: str, make: Callable[[str, str], Word]) -> list[Word]:
    """Implied answers, one a line: ``gender | answer | cue word | hint``; the hint becomes the form ``s``."""
    words = []
    for line in lines(block):
        parts = [part.strip() for part in line.split("|")]
        if len(parts) != 4:
            raise ValueError(f"an implied answer needs four fields, got {line!r}")
        gender, answer, cue, hint = parts
        word = make(answer, gender)
        forms = {name: form for name, form in word._forms.items() if name != "w"}
        words.append(Word(answer, cue=cue, s=hint, **forms))
    return words


def plain(items: Iterable[str]) -> list[Word]:
    """Words that have no other form than themselves."""
    return [Word(item) for item in items]
