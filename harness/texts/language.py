"""In which language is a text, and is it natural language at all: fastText, a naturalness score, and the two judges.

A **judge** gives every text one of the six labels of the paper's Appendix F (`LABELS`). `FastTextJudge` works offline;
`OpenAIJudge` asks any OpenAI-compatible endpoint the paper's own question.
"""

from __future__ import annotations

import json
import os
import re
import time
import unicodedata
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from harness.contracts import HarnessError
from harness.machine.files import parse_json
from harness.texts.diversity import ngrams

NOT_NATURAL = "Not Natural Language"
LABELS = ("English", "Spanish", "German", "Italian", "French", NOT_NATURAL)

CODES = {"en": "English", "es": "Spanish", "de": "German", "it": "Italian", "fr": "French"}
_LONG_CODES = {"eng": "en", "spa": "es", "deu": "de", "ger": "de", "ita": "it", "fra": "fr", "fre": "fr"}

# ------------------------------------------------------------------------------------------------------------ fastText


class LanguageIdentifier:
    """A supervised fastText model read from `path`, a `.bin` file or a folder that holds `model.bin`.

    It calls the bound C++ object: the Python wrapper's own `predict` raises under NumPy 2 (fasttext 0.9.3).
    Raises HarnessError if there is no such file, it is no fastText model, or fasttext is not installed.
    """

    def __init__(self, path: Path) -> None:
        file = path / "model.bin" if path.is_dir() else path
        if not file.is_file():
            raise HarnessError(f"There is no fastText model at {path}; give a .bin file or a folder with model.bin.")
        try:
            from fasttext.FastText import _FastText
        except ImportError as error:
            raise HarnessError("The package fasttext is not installed; run `pip install fasttext`.") from error
        try:
            self._model = _FastText(str(file)).f
            self._model.getLabels("strict")
        except (ValueError, RuntimeError) as error:
            raise HarnessError(f"{file} is not a supervised fastText model ({error}).") from error

    def predict(self, text: str, k: int = 1) -> list[tuple[str, float]]:
        """The `k` most probable (label, probability), best first; k=-1 gives all labels. Labels are as the model has
        them ("__label__es"). The text is read as one line: line feeds, which fastText takes for the end, become spaces.

        fastText adds 1e-5 to each probability, so a value may exceed 1 by that much. A text without words has no
        prediction: the empty list.
        """
        if not text.strip():
            return []
        line = text.replace("\n", " ") + "\n"
        return [(label, float(probability)) for probability, label in self._model.predict(line, k, 0.0, "strict")]

    def language(self, text: str) -> str:
        """The most probable label. Raises ValueError for a text without words."""
        predictions = self.predict(text)
        if not predictions:
            raise ValueError("a text without words has no language")
        return predictions[0][0]

    def probability(self, text: str, label: str) -> float:
        """The probability of one label; 0 for a text without words."""
        return dict(self.predict(text, k=-1)).get(label, 0.0)


@lru_cache(maxsize=4)
def load_identifier(path: Path) -> LanguageIdentifier:
    """The identifier at `path`, loaded once a process."""
    return LanguageIdentifier(path)


def language_code(label: str) -> str:
    """ "__label__es", "__label__spa_Latn", "es" -> "es"; a language outside `CODES` keeps the model's name."""
    code = label.removeprefix("__label__").split("_")[0].lower()
    return _LONG_CODES.get(code, code)


# --------------------------------------------------------------------------------------------------------- naturalness

MIN_WORDS = 4
_VOWEL = re.compile(r"[aeiouy]")
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*['\u2019]?")
_PLAIN_CASE = re.compile(r"[^A-Z]*|[A-Z]+|[A-Z][^A-Z]*")
_EDGES = " \t\r\n.,;:!?\"'()[]{}*#-\u2013\u2014\u2026\u00ab\u00bb\u201c\u201d\u201e\u2018\u2019\u00bf\u00a1/|"
_LONGEST_WORD = 24


def naturalness(text: str) -> float:
    """How much a text looks like running text of a European language, in [0, 1]; what it says does not matter.

    The smallest of three shares, cut down further for texts of fewer than four words:
    letters, the share of the characters that are letters or spaces; words, the share of the whitespace-separated
    pieces with letters or digits that look like a word (letters only, inner apostrophes and hyphens, a vowel, at most
    24 letters, no capital inside; numbers of up to four digits count with neither side); variety, distinct word
    bigrams over word bigrams, case aside. An empty text has 0.
    """
    pieces = text.split()
    if not pieces:
        return 0.0
    letters = sum(character.isalpha() or character.isspace() for character in text) / len(text)
    cores = [core for piece in pieces if (core := piece.strip(_EDGES))]
    candidates = [core for core in cores if not (core.isdecimal() and len(core) <= 4)]
    words = sum(map(_looks_like_word, candidates)) / len(candidates) if candidates else 0.0
    bigrams = ngrams(text.lower(), 2)
    variety = len(set(bigrams)) / len(bigrams) if bigrams else 1.0
    return min(letters, words, variety) * min(1.0, len(candidates) / MIN_WORDS)


def _looks_like_word(core: str) -> bool:
    if not _WORD.fullmatch(core):
        return False
    # Accents fall off (NFKD), so that one rule serves five alphabets.
    plain = "".join(c for c in unicodedata.normalize("NFKD", core) if not unicodedata.combining(c))
    parts = re.split(r"['\u2019-]", plain)
    return any(_VOWEL.search(part.lower()) for part in parts) and all(
        len(part) <= _LONGEST_WORD and _PLAIN_CASE.fullmatch(part) for part in parts
    )


# -------------------------------------------------------------------------------------------------------------- judges


class Judge(Protocol):
    """Gives every text one of `LABELS`, in order."""

    def judge(self, texts: Sequence[str]) -> list[str]: ...


NATURAL_FROM = 0.6
"""Between what is natural and what is not, with room on both sides: the lowest of 2,500 articles and 1,600 passages of
the embedded world scores 0.79 and 0.88, the highest of the collapsed, hexadecimal and random texts in
tests/harness/texts/test_language.py scores 0.5."""


class FastTextJudge:
    """The identifier's most probable language, or "Not Natural Language" where `naturalness` is below `threshold` or
    the language is none of the five."""

    def __init__(self, identifier: LanguageIdentifier, threshold: float = NATURAL_FROM) -> None:
        self.identifier, self.threshold = identifier, threshold

    def judge(self, texts: Sequence[str]) -> list[str]:
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> str:
        if naturalness(text) < self.threshold:
            return NOT_NATURAL
        return CODES.get(language_code(self.identifier.language(text)), NOT_NATURAL)


PROMPT = (
    "Classify the language of the following excerpt. Your answer must be the best choice of: English, Spanish, German, "
    "Italian, French, Not Natural Language. Output only your final choice with no explanation. "
    "Here is the excerpt: <excerpt>"
)
"""The question of the paper's Appendix F; <excerpt> is replaced by the text."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    # A redirect would carry the key to another host.
    def redirect_request(self, *_: Any) -> None:
        return None


MOST_REPLY = 2**20
"""Bytes of a judge's reply; a label has thirty."""


class OpenAIJudge:
    """Asks an OpenAI-compatible endpoint the question of Appendix F, once for every distinct text, at temperature 0.

    base_url: e.g. "https://api.openai.com/v1"; `/chat/completions` is added.
    model: the paper's is GPT 4.1 Nano.
    key_variable: the environment variable that holds the key; the key goes into the request's header and nowhere else.
    attempts: tries a text, with waits of backoff, 2 backoff, 4 backoff, ... seconds in between, where the endpoint is
        busy (429), broken (5xx), out of reach, or answers something that is none of the six labels.

    Raises HarnessError if the key is missing or refused, and if no attempt gave a label. A text without words is
    "Not Natural Language" without asking.
    """

    def __init__(
        self,
        *,
        base_url: str = "https://api.openai.com/v1",
        model: str = "gpt-4.1-nano",
        key_variable: str = "OPENAI_API_KEY",
        concurrency: int = 4,
        attempts: int = 5,
        timeout: float = 60.0,
        backoff: float = 1.0,
    ) -> None:
        if not base_url.startswith(("http://", "https://")):
            raise HarnessError(f"The judge's base URL must start with http:// or https://, not '{base_url}'.")
        if "@" in base_url.split("//", 1)[1].split("/")[0]:
            raise HarnessError(
                "The judge's base URL holds a user or password; give the key by an environment variable."
            )
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key_variable):  # perhaps the key itself: it is not repeated
            raise HarnessError("task.options.judge_key_variable is the name of an environment variable, not a key.")
        self._key_variable = key_variable
        self._key()  # a missing key shows before anything is trained
        self.url, self.model = base_url.rstrip("/") + "/chat/completions", model
        self.concurrency, self.attempts, self.timeout, self.backoff = concurrency, attempts, timeout, backoff
        self._opener = urllib.request.build_opener(_NoRedirect)

    def _key(self) -> str:
        key = os.environ.get(self._key_variable, "").strip()
        if not key:
            raise HarnessError(
                f"The OpenAI judge needs a key: set the environment variable {self._key_variable} (any value for a "
                "server that asks for none), or set task.options.judge=fasttext."
            )
        if not (key.isascii() and key.isprintable()):
            raise HarnessError(f"The environment variable {self._key_variable} holds characters that no key has.")
        return key

    def judge(self, texts: Sequence[str]) -> list[str]:
        distinct = list(dict.fromkeys(text for text in texts if text.strip()))
        with ThreadPoolExecutor(max_workers=self.concurrency) as pool:
            try:
                labels = dict(zip(distinct, pool.map(self._ask, distinct), strict=True))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # the rest would fail the same way, one by one
                raise
        return [labels.get(text, NOT_NATURAL) for text in texts]

    def _ask(self, text: str) -> str:
        problem = ""
        for attempt in range(self.attempts):
            if attempt:
                time.sleep(self.backoff * 2 ** (attempt - 1))
            try:
                answer = self._post(text)
            except urllib.error.HTTPError as error:
                # The body may quote part of the key, so the status alone is told.
                error.close()
                if error.code != 429 and error.code < 500:
                    raise HarnessError(
                        f"The judge at {self.url} refused the request with status {error.code}; check the key in "
                        f"{self._key_variable}, the base URL and the model name '{self.model}'."
                    ) from None
                problem = f"status {error.code}"
            except (OSError, ValueError) as error:  # unreachable, timed out, or an answer that is no chat completion
                reason = getattr(error, "reason", None) or error
                problem = f"{type(error).__name__}: {reason}"
            else:
                label = parse_label(answer)
                if label is not None:
                    return label
                problem = f"an answer that is none of the six labels: {answer.replace(self._key(), '***')[:60]!r}"
        problem = problem.replace(self._key(), "***")  # whoever repeats it to us
        raise HarnessError(f"The judge at {self.url} gave no label in {self.attempts} attempts (last: {problem}).")

    def _post(self, text: str) -> str:
        """The endpoint's answer. Raises HTTPError, OSError, or ValueError where the reply has another form."""
        message = {"role": "user", "content": PROMPT.replace("<excerpt>", text)}
        request = urllib.request.Request(
            self.url,
            data=json.dumps({"model": self.model, "messages": [message], "temperature": 0}).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self._key()}"},
        )
        with self._opener.open(request, timeout=self.timeout) as reply:
            body = parse_json(reply.read(MOST_REPLY).decode("utf-8"))
        try:
            answer = body["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError):
            answer = None
        if not isinstance(answer, str):
            raise ValueError("the reply is no chat completion")
        return answer


def parse_label(answer: str) -> str | None:
    """The one of `LABELS` that an answer is, whatever its case, quotes and full stop; None if it is none of them."""
    cleaned = " ".join(answer.split()).strip(" .\"'`*").lower()
    return next((label for label in LABELS if label.lower() == cleaned), None)
