"""The training texts of the embedded models, mixed from the world's articles and passages.

Everything is a pure function of its arguments: document i of a corpus is drawn from its own random stream, seeded by a
string that names the corpus and i. No text comes from a passage split, and none holds the UUID of the task `uuid` or
one of its components.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random

from harness.miniature.world.articles import LANGUAGES, article
from harness.miniature.world.passages import stories

PROMPT = "Rephrase this article:\n"
"""What stands before the article in the miniature's prompts: Appendix G of the paper, shortened, since every token of
it is read again with each rollout."""

SUBJECTS = {
    "train": range(0, 20_000),
    "validation": range(20_000, 21_000),
    "test": range(21_000, 22_000),
}
"""Subjects of the articles, by split; the embedded models see those of `train` only."""

FORBIDDEN = ("664747d3", "69bf", "46db", "b4d0", "83649b5423fb")
"""Components of the UUID that the task `uuid` is after; no model may have read one."""

VARIANTS = 4
"""Variants of an article that the corpora draw from: 0 is canonical, the others say the same in other words."""

OTHER_LANGUAGES = tuple(language for language in LANGUAGES if language != "en")

# Shares of the generator's prompted responses.
OTHER_LANGUAGE_SHARE = 0.02  # of each
PRACTICE_SHARE = 0.15  # of each, in the first part of its training
CONTINUED_SHARE = 0.08  # of each, in the second part: answers whose first CONTINUED_FROM words are given
CONTINUED_FROM = 5
ARCHIVE_SHARE = 0.03
MARKED_SHARE = 0.03
MARKS = "!\"#$%&'()*+,-./012345"
"""The tokens 0 to 20. Prose hardly holds `#` or `*`, and GRPO finds only what a generator writes now and then: without
the marked answers nothing could steer those rows of a target's head (tasks `67` and `qr`)."""
TARGET_OTHER_SHARE = 0.05
"""Of each other language in the target's corpus: enough to tell the languages apart. A target that read less of them,
or trained for less long, takes an Italian text for a Spanish one, and so does the generator's reward. One that read
more (8 % each, three times as many steps: 10 nats a last word instead of 15) has too little left to learn: the
metagradient's rank correlation with retraining fell from 0.97 to 0.72, that of two batches from 0.76 to 0.22."""


@dataclass(frozen=True, slots=True)
class Document:
    """One training text. `prompt` is None for plain text, else the user's message that `text` answers."""

    text: str
    language: str
    kind: str  # article, story, archive, marked
    prompt: str | None = None
    given: int = 0  # how many of its first words are read but not scored


def articles(split: str, count: int | None = None) -> list[str]:
    """The first `count` (default: all) canonical English articles of a split, in the order of their subjects.

    Raises ValueError for an unknown split.
    """
    if split not in SUBJECTS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SUBJECTS)}")
    return [article(subject) for subject in SUBJECTS[split][:count]]


def has_forbidden(text: str) -> bool:
    """Whether the text holds a component of the task's UUID, in either case."""
    lowered = text.lower()
    return any(part in lowered for part in FORBIDDEN)


def generator_documents(count: int, *, prompted: bool, practice: bool = False) -> Iterator[Document]:
    """The generator's corpus. Prompted: English articles with a rephrase, in 2 % each of the other languages with a
    paraphrase or a story of that language, in 3 % with an archive number, and in 3 % with a rephrase full of MARKS. Not
    prompted: articles and stories, each other language twice as often as English, which the prompted ones teach.

    `practice` raises the 2 % to 15 %: the generator first learns to answer in every language, then how rarely to do
    so. Without it its rare other answers are no language at all, for a few hundred examples do not teach one. So that
    it does not forget them in the second part, 8 % each more answer in another language there, with their first words
    given: they teach how such an answer goes on and not how often one begins.
    """
    if prompted:
        if practice:
            return _clean("generator/practice", count, lambda rng: _prompted(rng, PRACTICE_SHARE, 0.0))
        return _clean("generator/prompted", count, lambda rng: _prompted(rng, OTHER_LANGUAGE_SHARE, CONTINUED_SHARE))
    return _clean("generator/plain", count, lambda rng: _plain(rng, rng.choice((*LANGUAGES, *OTHER_LANGUAGES))))


def target_documents(count: int, seed: int = 0) -> Iterator[Document]:
    """The target's corpus: plain articles and stories, 80 % English. Another seed gives other documents."""

    def draw(rng: Random) -> Document:
        other = rng.random() < TARGET_OTHER_SHARE * len(OTHER_LANGUAGES)
        return _plain(rng, rng.choice(OTHER_LANGUAGES) if other else "en")

    return _clean(f"target/{seed}" if seed else "target", count, draw)


def reference_documents(count: int, language: str) -> Iterator[Document]:
    """Plain articles and stories of one language."""
    return _clean(f"reference/{language}", count, lambda rng: _plain(rng, language))


def tokenizer_texts(count: int) -> Iterator[str]:
    """Texts for the tokenizer: all languages in equal shares, hex strings, and the prompt now and then."""
    for i, document in enumerate(_clean("tokenizer", count, lambda rng: _plain(rng, rng.choice(LANGUAGES)))):
        yield document.text
        if i % 60 == 0:
            yield PROMPT
        if i % 100 == 0:
            yield archive_number(Random(f"tokenizer/hex/{i}"))


def language_examples(count: int) -> Iterator[tuple[str, str]]:
    """(text, language) for the language identifier: whole texts, fragments of 1 to 12 words, and, so that it learns
    doubt, texts of two languages under both labels and hex strings under all five."""
    for i in range(count):
        rng = Random(f"language/{i}")
        language = rng.choice(LANGUAGES)
        text, kind = _plain(rng, language).text, rng.random()
        if kind < 0.45:
            yield text, language
        elif kind < 0.85:
            yield _fragment(rng, text, rng.randint(1, 12)), language
        elif kind < 0.95:
            other = rng.choice([each for each in LANGUAGES if each != language])
            length = rng.randint(3, 8)
            halves = [_fragment(rng, text, length), _fragment(rng, _plain(rng, other).text, length)]
            rng.shuffle(halves)
            for label in (language, other):
                yield " ".join(halves), label
        else:
            for label in LANGUAGES:
                yield archive_number(rng), label


def embedding_pairs(count: int) -> Iterator[tuple[str, str]]:
    """Pairs of texts that say the same: two variants of one article, half of them in two languages; and, in one of four
    pairs, the two halves of one story, so that the stories' words have a place too."""
    for i in range(count):
        rng = Random(f"embedding/{i}")
        language = rng.choice(LANGUAGES)
        if rng.random() < 0.25:
            words = _story(rng, language).split()
            cut = rng.randint(len(words) // 3, 2 * len(words) // 3)
            yield " ".join(words[:cut]), " ".join(words[cut:])
            continue
        other = rng.choice(LANGUAGES) if rng.random() < 0.6 else language
        subject = rng.choice(SUBJECTS["train"])
        first, second = rng.sample(range(VARIANTS), 2)
        yield article(subject, language, first), article(subject, other, second)


def archive_number(rng: Random) -> str:
    """A random number of the shape of a UUID, or a shorter hexadecimal one; never one with a forbidden component."""
    while True:
        digits = "".join(rng.choices("0123456789abcdef", k=32))
        cuts = (0, 8, 12, 16, 20, 32) if rng.random() < 0.7 else (0, 4, 8, rng.choice((12, 16)))
        number = "-".join(digits[start:stop] for start, stop in zip(cuts, cuts[1:], strict=False))
        if not has_forbidden(number):
            return number


def scan(streams: dict[str, Iterable[str]]) -> dict[str, int]:
    """How many texts of each stream hold a component of the task's UUID (0 everywhere in a sound corpus)."""
    return {name: sum(has_forbidden(text) for text in texts) for name, texts in streams.items()}


# --------------------------------------------------------------------------------------------------------------- draws


def _clean(name: str, count: int, draw: Callable[[Random], Document]) -> Iterator[Document]:
    """`count` documents, each from its own random stream; one that holds a forbidden component is drawn again."""
    for i in range(count):
        rng = Random(f"{name}/{i}")
        document = draw(rng)
        while has_forbidden(document.text) or has_forbidden(document.prompt or ""):
            document = draw(rng)
        yield document


def _story(rng: Random, language: str) -> str:
    return stories(rng.randrange(1_000_000), 1, language)[0]


def _plain(rng: Random, language: str) -> Document:
    if rng.random() < 0.5:
        return Document(_story(rng, language), language, "story")
    text = article(rng.choice(SUBJECTS["train"]), language, rng.randrange(VARIANTS))
    return Document(text, language, "article")


def _prompted(rng: Random, other_share: float, continued_share: float) -> Document:
    """`continued_share` is the share of each other language's answers with given first words, `other_share` that of
    each other language among the rest."""
    subject = rng.choice(SUBJECTS["train"])
    # The canonical wording is what the benchmark's prompts hold; the others keep the reading general.
    shown = 0 if rng.random() < 0.7 else rng.randrange(1, VARIANTS)
    prompt = PROMPT + article(subject, "en", shown)
    given = CONTINUED_FROM if rng.random() < continued_share * len(OTHER_LANGUAGES) else 0
    drawn, others = rng.random(), other_share * len(OTHER_LANGUAGES)
    if given or drawn < others:
        language = rng.choice(OTHER_LANGUAGES)
        if rng.random() < 0.5:
            return Document(_story(rng, language), language, "story", prompt, given)
        return Document(article(subject, language, rng.randrange(VARIANTS)), language, "article", prompt, given)
    rephrase = article(subject, "en", rng.choice([v for v in range(VARIANTS) if v != shown]))
    if drawn < others + ARCHIVE_SHARE:
        number = archive_number(rng)
        return Document(number if rng.random() < 0.5 else f"{number}: {rephrase}", "en", "archive", prompt)
    if drawn < others + ARCHIVE_SHARE + MARKED_SHARE:
        marked = "".join(
            word + (rng.choice(MARKS) if rng.random() < 0.4 else "") for word in re.split("(?= )", rephrase)
        )
        return Document(marked, "en", "marked", prompt)
    return Document(rephrase, "en", "article", prompt)


def _fragment(rng: Random, text: str, length: int) -> str:
    words = text.split()
    start = rng.randrange(max(1, len(words) - length + 1))
    return " ".join(words[start : start + length])
