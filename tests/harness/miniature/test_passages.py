"""The passages: determinism, form, disjointness, grammar by patterns, and answers that the context gives away."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from harness.miniature.world import passages
from harness.miniature.world.passages import LANGUAGES, SHARED_SLOTS, SPLITS, scene, split, stories

GOLDEN = {
    "en": "f93fd8babaefba21aeb9bd1a07ee04d8783a84ca9240ca270023aab2b1d8cb4c",
    "de": "0e526a9e5aa651ef6d1c6533e310d6a9040a0280110781b7b2411dd11a5aa861",
    "es": "ade9cb7c32733a9bf1a83aba60cdc8024b3eff38759097561650c4d9909a350b",
    "fr": "6b5d8f1bd7ce38cf336b39d80884defe55e46dfc6cc7201fd1b3a83da914de43",
    "it": "ea3081e9b4f9f770910561baab1970fc8895620dd8c88ecee6467a2fa090e46c",
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


NAME_SLOTS = ("m", "f", "n", "pet", "t")  # people, dogs, towns


def scenes(language: str, count: int = 2000) -> list[passages.Scene]:
    return [scene(index, language, name) for name in SPLITS for index in range(count // len(SPLITS))]


@pytest.mark.parametrize("language", LANGUAGES)
def test_texts_never_change(language: str) -> None:
    texts = [text for name in SPLITS for text in split(name, language)] + stories(0, 100, language)
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
    spoken = [passages._data(language), *(passages._part(language, name) for name in SPLITS)]
    for words, device in ((data, device) for data in spoken for device in data.devices):
        rng = Random(f"test/{device.name}")
        drawn = [passages._try_device(rng, words, device) for _ in range(60)]
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
    assert split("train", language, 5) == parts["train"][:5] and split("test", language, 999) == parts["test"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_two_splits_share_a_name_or_a_thing(language: str) -> None:
    """In the texts: no name of people, dogs or towns stands in two splits, and no answer that is not the language's
    own, as months are. In the words they are made of: nothing else either."""
    data = passages._data(language)
    lexicon, templates = data.lexicon, [text for device in data.devices for text in device.leads + device.ends]
    scenery = set(re.findall(r"\w+", " ".join([*data.moods, *templates])))  # a German dog is called Schatten
    names = {word.w for slot in NAME_SLOTS for word in lexicon[slot]} - scenery
    shared = {word.w for slot in SHARED_SLOTS for word in lexicon[slot]}
    texts = {name: split(name, language) for name in SPLITS}
    for find in (
        lambda text: names & set(re.findall(r"\w+", text)),
        lambda text: {text.rsplit(" ", 1)[1]} - shared,
    ):
        first, second, third = (set().union(*map(find, texts[name])) for name in SPLITS)
        assert min(map(len, (first, second, third))) >= 5
        assert not (first & second or first & third or second & third)
    for slot, words in lexicon.items():
        parts = [{word.w for word in passages._part(language, name).lexicon[slot]} for name in SPLITS]
        assert set.union(*parts) == {word.w for word in words}
        if slot not in SHARED_SLOTS:
            assert sum(map(len, parts)) == len(words) and min(map(len, parts)) >= 2
            assert 0.4 <= len(parts[0]) / len(words) <= 0.67


def test_a_passage_whose_context_any_split_could_hold_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """«Se habían conocido en mayo ... por fin llegó de nuevo mayo» names nobody and nothing."""
    compose, drawn = passages._compose, []

    def once_bare(rng: Random, data: passages.LanguageData) -> passages.Scene:
        drawn.append(replace(compose(rng, data), own=frozenset()) if not drawn else compose(rng, data))
        return drawn[-1]

    monkeypatch.setattr(passages, "_compose", once_bare)
    found = scene(0, "es", "train")
    assert len(drawn) >= 2 and found is drawn[-1] and found.own


def test_stories_are_a_stream() -> None:
    assert stories(5, 10, "it") == stories(0, 15, "it")[5:]
    assert stories(0, 0, "it") == []


def test_a_story_that_meets_a_split_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    first = stories(0, 1, "en")[0]
    held_out = frozenset({first.rsplit(" ", 1)[0]})
    monkeypatch.setattr(passages, "_held_out", lambda language: held_out)
    assert stories(0, 1, "en")[0] != first


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="unknown language 'pt'"):
        scene(0, "pt", "train")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        split("dev", "en")
    with pytest.raises(ValueError, match="unknown split 'dev'"):
        scene(0, "en", "dev")
    with pytest.raises(ValueError, match="0 or more"):
        scene(-1, "en", "test")
    with pytest.raises(ValueError, match="0 or more"):
        stories(-1, 3, "en")
