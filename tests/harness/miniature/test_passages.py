"""The passages: determinism, form, disjointness, grammar by patterns, and answers that the context gives away."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from random import Random

import pytest

from harness.miniature.world import passages
from harness.miniature.world.passages import LANGUAGES, SPLITS, passage, scene, split, stories

GOLDEN = {
    "en": "775c889d003af19b27af84fd977695429af56a50ccbc3dcd652b577434d7c87a",
    "de": "7e0624083a125d415a99aeec3d0455429ff17307802b42ae44b66c76a0183f67",
    "es": "1bae1688d8cae28acd43333a1753ce1a99746e5f5ebd30db98bc357a8bd4507f",
    "fr": "8b605a087323a5327b124946aa6889b8f8b1ef1dc699544736e2eaac188249d5",
    "it": "4571475e1ecf8d8982b3d26fe1ec6a4fd718ee617680acb23cd9da4deb555648",
}

# What must never appear: missing contractions and elisions, wrong articles, German forms that contract.
BAD_GRAMMAR = {
    "en": r"\b[Aa] [aeio]|\b[Aa]n [^aeiouh]|\b(the|a|an) (the|a|an)\b",
    "de": r"\b(in dem|zu dem|an dem|von dem|in das|zu der)\b",
    "es": r"\b(de el|a el) |\b[Uu]n[ao]? una?\b|\by [iI]|\bo [oO]|\b(el|los|un) (llave|casa|puerta)\b",
    "fr": r"\b(de|à) les? |\b([DdLlJjNnMmTtSs][ea]|[Qq]ue|si il) [aeiouyéèêàâîôœ]",
    "it": r"\b(di|a|in|su|da) (il|lo|la|i|gli|le)\b|\b(di|a|in|su|da) l'|\b([Ll]a|[Uu]na) [aeiou]"
    r"|\b([Ii]l|[Uu]n|[Dd]el|[Aa]l|[Nn]el) (s[bcdfglmnpqrtvz]|z|gn|ps|[aeiou])(?<![Uu]n [aeiou])",
}


def scenes(language: str, count: int = 2000) -> list[passages.Scene]:
    return [scene(index, language) for index in range(count)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_never_change(language: str) -> None:
    texts = split("train", language) + [passage(index, language) for index in range(100)] + stories(0, 100, language)
    assert hashlib.sha256("\n".join(texts).encode()).hexdigest() == GOLDEN[language]


@pytest.mark.parametrize("language", LANGUAGES)
def test_form(language: str) -> None:
    for text in (one.text for one in scenes(language)):
        assert 110 <= len(text) <= 220, text
        assert re.fullmatch(r"[^\W\d_]+", text.rsplit(" ", 1)[1]), text
        assert "  " not in text and text == text.strip() and text[0] not in " ,.;", text
        assert not re.search(r"[{}|_\[\]<>]", text), text
        assert not re.search(r"[.?!] [a-zà-ÿ]", text), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_grammar_patterns(language: str) -> None:
    bad = re.compile(BAD_GRAMMAR[language])
    for one in scenes(language):
        assert not bad.search(one.text), (bad.search(one.text), one.text)


@pytest.mark.parametrize(
    ("language", "wrong"),
    [
        ("en", "a apple"),
        ("de", "in dem Garten"),
        ("es", "a el banco"),
        ("fr", "à le jardin"),
        ("fr", "la enveloppe"),
        ("it", "di il pane"),
        ("it", "la arpa"),
        ("it", "il specchio"),
    ],
)
def test_grammar_patterns_would_catch(language: str, wrong: str) -> None:
    assert re.search(BAD_GRAMMAR[language], wrong)


@pytest.mark.parametrize("language", LANGUAGES)
def test_context_gives_the_answer_away(language: str) -> None:
    for device in passages._data(language).devices:
        rng = Random(f"test/{device.name}")
        drawn = [passages._try_device(rng, passages._data(language), device) for _ in range(60)]
        kept = [one for one in drawn if one is not None]
        assert len(kept) >= 3, device.name
        for one in kept:
            assert one.text.startswith(one.opening) and one.opening[-1] in '.?!»“"', one.text
            assert re.search(rf"(?<!\w){re.escape(one.cue)}(?!\w)", one.opening, re.IGNORECASE), (one.cue, one.text)
            assert one.answer == one.text.rsplit(" ", 1)[1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_answers_are_spread(language: str) -> None:
    drawn = scenes(language, 500)
    ((_, most),) = Counter(one.answer for one in drawn).most_common(1)
    assert most / len(drawn) < 0.08
    assert len({one.device for one in drawn}) >= 25


@pytest.mark.parametrize("language", LANGUAGES)
def test_many_texts_and_words(language: str) -> None:
    texts = stories(0, 2000, language)
    assert len(set(texts)) > 1900
    words = {word for text in texts for word in re.findall(r"[^\W\d_]{4,}", text.lower())}
    assert len(words) > 700


@pytest.mark.parametrize("language", LANGUAGES)
def test_splits_and_stories_are_disjoint(language: str) -> None:
    parts = {name: split(name, language) for name in SPLITS}
    assert {name: len(texts) for name, texts in parts.items()} == SPLITS
    contexts = [text.rsplit(" ", 1)[0] for texts in parts.values() for text in texts]
    assert len(set(contexts)) == len(contexts)
    assert not {text.rsplit(" ", 1)[0] for text in stories(0, 2000, language)} & set(contexts)


def test_stories_are_a_stream() -> None:
    assert stories(5, 10, "it") == stories(0, 15, "it")[5:]
    assert stories(0, 0, "it") == []


def test_a_story_that_meets_a_split_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = stories(0, 1, "en")[0]
    held_out = frozenset({first.rsplit(" ", 1)[0]})
    monkeypatch.setattr(passages, "_all_splits", lambda language: ({}, held_out))
    assert stories(0, 1, "en")[0] != first


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="unknown language 'pt'"):
        passage(0, "pt")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        split("dev", "en")
    with pytest.raises(ValueError, match="0 or more"):
        passage(-1, "en")
    with pytest.raises(ValueError, match="0 or more"):
        stories(-1, 3, "en")
