"""Texts by reference: embedded, JSON lines, Parquet, or a hub data set."""

from __future__ import annotations

from functools import lru_cache

from harness.assets.references import EMBEDDED, fingerprint, is_embedded, is_local, resolve
from harness.assets.rows import Rows, read_rows
from harness.contracts import HarnessError
from harness.miniature.texts import embedded_texts

SPLIT_OF_ROW = ("train", "train", "train", "validation", "test")
"""Of every five lines of a JSON-lines file that names no splits."""


def texts(ref: str, *, split: str | None, limit: int | None = None, language: str = "en") -> list[str]:
    """Texts of a data reference in their stored order, at most `limit`. Raises HarnessError if there are none, and for
    a text that stands in two splits.

    split   "train", "validation" or "test"; None: all texts (of a hub data set: its train split).

    `embedded:articles` and `embedded:passages` know splits. The rows of every other source may say theirs in a field
    or column `split` (harness/assets/rows.py). Where they do not: of every five lines of a JSON-lines file the fourth
    is validation, the fifth test and the rest train, so that no split shares a line with another; a hub data set, or a
    folder laid out as one (harness/assets/hub.py), tells by its files' names; a single file of one is the split that is
    asked for.
    """
    if is_embedded(ref):
        found = embedded_texts(ref.removeprefix(EMBEDDED), split, language, limit)
    else:
        rows = _rows(ref, split)
        found = rows.texts
        if split and rows.splits is not None:
            found = rows.of(split)
        elif split and _is_json_lines(ref):
            found = [text for number, text in enumerate(found) if SPLIT_OF_ROW[number % len(SPLIT_OF_ROW)] == split]
    if not any(text.strip() for text in found):
        empty = " but empty ones" if found else ""
        raise HarnessError(f"'{ref}' holds no text{empty}" + (f" for the split '{split}'." if split else "."))
    return found[:limit]


def named_splits(ref: str) -> dict[str, int]:
    """Split -> number of texts, where the rows of a source outside the package say their splits; else {}. Raises
    HarnessError as `texts` does."""
    return {} if is_embedded(ref) else _named_splits(ref, fingerprint(ref, data=True))


@lru_cache(maxsize=64)
def _named_splits(ref: str, content: str) -> dict[str, int]:
    """`content`: its fingerprint, so that a file that was written anew is read anew."""
    return _rows(ref, None).counts()


def _rows(ref: str, split: str | None) -> Rows:
    from harness.assets import hub

    path = resolve(ref, data=True)
    if path.is_file():
        return read_rows(path, ref, blank=not _is_json_lines(ref))
    return hub.rows_in(path, ref, "" if is_local(ref) else hub.parse(ref).inside, split)


def _is_json_lines(ref: str) -> bool:
    """A JSON-lines file of one's own."""
    return is_local(ref) and not ref.endswith(".parquet") and resolve(ref).is_file()
