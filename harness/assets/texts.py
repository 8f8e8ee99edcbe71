"""Texts by reference: embedded, JSON lines, Parquet, or a hub data set."""

from __future__ import annotations

from typing import Any

from harness.assets.references import EMBEDDED, is_embedded, is_local, resolve, why
from harness.contracts import HarnessError
from harness.machine.files import MOST_LINE, MOST_LINES, check_plain, parse_json
from harness.miniature.texts import embedded_texts

SPLIT_OF_ROW = ("train", "train", "train", "validation", "test")
"""Of every five lines of a file that names no splits."""


def texts(ref: str, *, split: str | None, limit: int | None = None, language: str = "en") -> list[str]:
    """Texts of a data reference in their stored order, at most `limit`. Raises HarnessError if there are none.

    split   "train", "validation" or "test"; None: all texts (of a hub data set: its train split). `embedded:articles`
            and `embedded:passages` know splits. A JSON-lines file holds objects with a `text` field; it may say `split`
            in each, else of every five lines the fourth is validation, the fifth test and the rest train, so that no
            split shares a line with another. A hub data set, or a folder laid out as one (harness/assets/hub.py), has
            its own.
    """
    if is_embedded(ref):
        found = embedded_texts(ref.removeprefix(EMBEDDED), split, language, limit)
    elif is_local(ref) and (resolve(ref).is_dir() or ref.endswith(".parquet")):
        from harness.assets import hub

        found = hub.texts_at(resolve(ref), ref, "", split)
    elif is_local(ref):
        found = _json_lines(ref, split)
    else:
        from harness.assets import hub

        found = hub.texts(ref, split)
    if not found:
        raise HarnessError(f"'{ref}' holds no text" + (f" for the split '{split}'." if split else "."))
    return found[:limit]


def _json_lines(ref: str, split: str | None) -> list[str]:
    path = resolve(ref)
    rows: list[dict[str, Any]] = []
    try:
        check_plain(path, MOST_LINES)
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(iter(lambda: file.readline(MOST_LINE + 1), ""), start=1):
                if len(line) > MOST_LINE:
                    raise HarnessError(f"{ref}, line {number}: it has more than {MOST_LINE:,} characters; split it.")
                if not line.strip():
                    continue
                row = parse_json(line)
                if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"].strip():
                    raise HarnessError(f"{ref}, line {number}: every line must be an object with a non-empty `text`.")
                rows.append(row)
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"The data file {ref} cannot be read ({why(error)}).") from error
    except ValueError as error:
        said = str(error).partition(":")[0]
        raise HarnessError(f"{ref}, line {number}: not valid JSON ({said}).") from error
    if split and any("split" in row for row in rows):
        rows = [row for row in rows if row.get("split") == split]
    elif split:
        rows = [row for number, row in enumerate(rows) if SPLIT_OF_ROW[number % len(SPLIT_OF_ROW)] == split]
    return [row["text"] for row in rows]
