"""The embedded world's articles: deterministic, true to their facts, and clean text in every language."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from hashlib import sha256
from random import Random

import pytest

from harness.miniature.world.articles import LANGUAGES, article, kind
from harness.miniature.world.facts import KINDS, MAX_LENGTH, MIN_LENGTH, Facts, compose, facts

SUBJECTS = range(600)
VARIANTS = range(3)
UUID_PARTS = ("664747d3", "69bf", "46db", "b4d0", "83649b5423fb")
ARCHIVE_NUMBER = re.compile(r"\b[0-9a-f]{4,12}(?:-[0-9a-f]{4,12}){1,2}\b")

# sha256 of 200 articles: the embedded models were trained on these words. A change of the world needs a new build.
GOLDEN = {
    "en": "62c3a7ef504c377110eb2588c0d1dc80f76ae9742a1821db1047c9cbd21c0ce4",
    "de": "c3d1d4d2e8cf7d4f4a1af5b211fd626ea5c053eabbb37ec0034fc271b14dc69f",
}


def texts(language: str) -> list[tuple[Facts, str]]:
    return [(facts(subject), article(subject, language, variant)) for subject in SUBJECTS for variant in VARIANTS]


def sentences(text: str) -> list[str]:
    return re.split(r"(?<=\.) ", text)


@pytest.mark.parametrize("language", sorted(GOLDEN))
def test_the_words_are_pinned(language):
    joined = "\n".join(article(subject, language, subject % 3) for subject in range(200))
    assert sha256(joined.encode()).hexdigest() == GOLDEN[language]


@pytest.mark.parametrize("language", LANGUAGES)
def test_length_and_number_of_sentences(language):
    for told, text in texts(language):
        assert MIN_LENGTH <= len(text) <= MAX_LENGTH, text
        assert len(sentences(text)) == len(told.parts) + (told.archive is not None), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_text_is_clean(language):
    for _, text in texts(language):
        assert not re.search(r"[{}_\n\t]| {2}| [.,;]|None|\( | \)", text), text
        assert text.endswith(".") and text == text.strip()
        for sentence in sentences(text):
            assert re.match(r"[\"„«“]?[\s\u00a0\u202f]?[^\W\d_]", sentence), sentence
            assert re.search(r"[^\W\d_]", sentence).group().isupper(), sentence
            assert not re.search(r"[.!?].", sentence.replace("\u202f", "")) or re.search(r"\d\.\d", sentence), sentence


@pytest.mark.parametrize("language", LANGUAGES)
def test_name_year_and_archive_number_are_told(language):
    for told, text in texts(language):
        assert told.name in sentences(text)[0], text
        assert str(told.year) in text, text
        assert not any(part in text for part in UUID_PARTS)
        assert ARCHIVE_NUMBER.findall(text) == ([told.archive] if told.archive else []), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_variants_share_no_sentence_with_their_neighbour(language):
    shared = total = 0
    for subject in SUBJECTS:
        for variant in (1, 2):
            ours, theirs = sentences(article(subject, language, variant)), sentences(article(subject, language))
            assert set(ours) != set(theirs)
            shared += len(set(ours) & set(theirs))
            total += len(ours)
    assert shared / total < 0.02  # only where a text would have been too short or too long


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_of_the_facts_is_known(language):
    """Every value that a field ever takes, in an article of its kind."""
    seen: set[tuple] = set()
    for subject in range(4000):
        told = facts(subject)
        words = [each.name for each in fields(told) if each.name not in ("name", "person", "archive")]
        keys = {(told.kind, name, value) for name in words if isinstance(value := getattr(told, name), str)}
        if not keys <= seen:
            seen |= keys
            for variant in range(5):
                assert "_" not in article(subject, language, variant)
    assert len({value for _, _, value in seen}) > 200


def test_facts_do_not_depend_on_language_or_variant():
    assert facts(7) == facts(7)
    assert len({kind(subject) for subject in SUBJECTS}) == len(KINDS) == 14
    assert len({repr(replace(facts(subject), subject=0)) for subject in range(5000)}) == 5000
    assert len({(facts(subject).kind, facts(subject).name) for subject in range(5000)}) > 4900


def test_canonical_articles_are_distinct():
    assert len({article(subject) for subject in range(5000)}) == 5000


def test_one_in_eight_has_an_archive_number():
    share = sum(facts(subject).archive is not None for subject in range(5000)) / 5000
    assert abs(share - 1 / 8) < 0.02


def test_facts_are_possible():
    for subject in range(3000):
        told = facts(subject)
        assert told.year is not None and 1000 < told.year < 2020
        assert told.year2 is None or told.year < told.year2 < 2025
        assert told.place2 != told.place or told.place is None


def test_english_indefinite_articles():
    for _, text in texts("en"):
        for a, initial in re.findall(r"\b([Aa]n?) ([a-z])", text):
            assert (a.lower() == "an") == (initial in "aeiou"), text


def test_german_contracts_prepositions():
    for _, text in texts("de"):
        assert not re.search(r"\b([Ii]n|[Aa]n|[Vv]on|[Zz]u|[Bb]ei) dem (?!Ort\b)", text), text


def test_golden_texts_to_read():
    subject = next(each for each in SUBJECTS if kind(each) == "mountain" and facts(each).archive is None)
    told = facts(subject)
    assert told.name in article(subject) and f"{told.number:,} metres" in article(subject)
    assert f"{told.number} Meter" in article(subject, "de")


def test_compose_rejects_what_never_fits():
    with pytest.raises(ValueError, match="no article on subject 3 has 100 to 230 characters"):
        compose(replace(facts(3), parts=(0, 1, 2), archive=None), Random("x"), 0, [["A."], ["B."], ["C."]], [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, "nl"), "unknown language 'nl'"), ((-1,), "a subject is"), ((0, "en", -1), "a variant is")],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        article(*arguments)
