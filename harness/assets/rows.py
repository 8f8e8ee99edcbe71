"""Rows of data files: a text each, and the split that it is of where the rows say so (a field or column `split`).

Where rows have no `text` but a `prompt`, as files made for other GRPO trainers, that is the text: a string, or a chat
of one user's message, whose content counts. With `generator.prompt="<article>"` the generator is asked just that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.contracts import HarnessError, unknown
from harness.machine.files import MOST_TABLE, check_plain, check_table
from harness.store.lines import LineError, each_line, is_text

SPLIT_NAMES = {"train": {"train"}, "validation": {"validation", "valid", "val", "dev"}, "test": {"test"}}
"""Split -> what it is called in fields and file names."""
TEXT_FIELDS = ("text", "prompt")
"""What may hold a row's text, the first that is there."""
CANONICAL = {name: split for split, names in SPLIT_NAMES.items() for name in names}


@dataclass(frozen=True)
class Rows:
    """Texts in their stored order."""

    texts: list[str]
    splits: list[str] | None = None
    """One of `SPLIT_NAMES` for each text; None: the rows do not say."""

    def of(self, split: str) -> list[str]:
        """The texts that say they are of this split."""
        return [text for text, own in zip(self.texts, self.splits or [], strict=True) if own == split]

    def counts(self) -> dict[str, int]:
        """Split -> how many texts say they are of it, the empty ones left out."""
        found = {split: (self.splits or []).count(split) for split in SPLIT_NAMES}
        return {split: count for split, count in found.items() if count}


def from_columns(
    texts: Iterable[Any], splits: Iterable[Any] | None, ref: str, numbers: Iterable[int], unit: str = "row"
) -> Rows:
    """Rows of parallel columns; `unit` and `numbers` name them in messages. Raises HarnessError for what is no text,
    for a split with an unknown name, where some rows say one and others do not, and for a text that stands in two
    splits: what is measured on it would have been trained on."""
    numbers, texts = list(numbers), list(texts)
    for number, text in zip(numbers, texts, strict=True):
        check_text(text, "text", f"{ref}, {unit} {number}")
    if splits is None:
        return Rows(texts)
    rows = Rows(texts, _canonical(splits, numbers, ref, unit))
    check_apart({split: rows.of(split) for split in SPLIT_NAMES}, ref)
    return rows


def check_text(value: Any, name: str, where: str) -> None:
    """Raises HarnessError where the field `name` of a row holds no text."""
    if not is_text(value):
        kind = "null" if value is None else "no Unicode" if isinstance(value, str) else type(value).__name__
        raise HarnessError(f"{where}: `{name}` must be a text, but it is {kind}; repair that row.")


def _canonical(splits: Iterable[Any], numbers: Iterable[int], ref: str, unit: str) -> list[str]:
    """The splits' own names, of those that rows say."""
    found = []
    for number, name in zip(numbers, splits, strict=True):
        known = CANONICAL.get(name.strip().lower()) if isinstance(name, str) else None
        if known is None:
            unsaid = f"it says no `split`, but other {unit}s do"
            what = unsaid if name is None else f"there is no split '{str(name)[:40]}'"
            raise HarnessError(
                f"{ref}, {unit} {number}: {what}; each says train, validation (dev, valid, val) or test."
            )
        found.append(known)
    return found


def check_apart(parts: dict[str, Sequence[str]], ref: str) -> None:
    """Raises HarnessError where a text, but for white space around it, stands in two of the parts."""
    seen: dict[str, str] = {}
    twice: dict[str, tuple[str, str]] = {}
    for split, texts in parts.items():
        for text in texts:
            first = seen.setdefault(text.strip(), split)
            if first != split:
                twice.setdefault(text.strip(), (first, split))
    if twice:
        text, (first, second) = next(iter(twice.items()))
        count = "a text stands" if len(twice) == 1 else f"{len(twice)} texts stand"
        start = " ".join(text.split())[:40]
        raise HarnessError(
            f"In {ref} {count} in two splits ('{start}...' in {first} and in {second}); keep each in one of them, or "
            "what is measured on it has been trained on."
        )


def read_rows(path: Path, ref: str, *, blank: bool = True) -> Rows:
    """The rows of one Parquet or JSON-lines file. Raises HarnessError; without `blank` for empty texts too."""
    return _parquet(path, ref) if path.suffix == ".parquet" else _json_lines(path, ref, blank)


def records(path: Path, ref: str, names: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Of each row of a Parquet or JSON-lines file the fields `names`, and those of `optional` and `split` that are
    there. Raises HarnessError, with the nearest names for a field that a row lacks."""
    wanted = [*names, *optional, "split"]
    found: list[dict[str, Any]] = []
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet as pq

            columns = [name for name in _columns(path, ref) if name in wanted]
            check_record(dict.fromkeys(_columns(path, ref)), names, ref)
            check_table(path, columns)
            found = pq.read_table(path, columns=columns).to_pylist()
        else:
            for number, row in each_line(path):
                if isinstance(row, LineError):
                    raise HarnessError(f"{ref}, {row}; the file must be JSON lines in UTF-8.")
                check_record(row, names, f"{ref}, line {number}")
                found.append({name: row[name] for name in wanted if name in row})
    except (OSError, ValueError) as error:
        raise HarnessError(f"The data file '{ref}' cannot be read ({type(error).__name__}).") from error
    return found


def check_record(row: Any, names: Sequence[str], where: str) -> None:
    """Raises HarnessError for a row that is no mapping or lacks one of the fields."""
    if not isinstance(row, dict):
        raise HarnessError(f"{where}: every row must be an object with {' and '.join(names)}.")
    for name in names:
        if name not in row:
            raise HarnessError(f"{where}: {unknown('field', name, list(map(str, row)) or ['none'])}")


def split_names(rows: Sequence[dict[str, Any]], ref: str) -> list[str] | None:
    """The split that each row says it is of; None where none does. Raises HarnessError as `from_columns`."""
    named = any(row.get("split") is not None for row in rows)
    return None if not named else _canonical([row.get("split") for row in rows], range(1, len(rows) + 1), ref, "row")


def fields(path: Path) -> list[str]:
    """Names of a data file's columns, of JSON lines those of the first row; [] for what is no data file."""
    try:
        if path.suffix == ".parquet":
            return _columns(path, path.name)
        first = next((row for _, row in each_line(path)), None)
    except (HarnessError, OSError):
        return []
    return list(first) if isinstance(first, dict) else []


def _columns(path: Path, ref: str) -> list[str]:
    import pyarrow.parquet as pq

    try:
        check_plain(path, MOST_TABLE)
        return pq.read_schema(path).names
    except (OSError, ValueError) as error:
        raise HarnessError(f"The data file '{ref}' cannot be read ({type(error).__name__}).") from error


def _parquet(path: Path, ref: str) -> Rows:
    import pyarrow.parquet as pq

    names = _columns(path, ref)
    field = text_field(names, f"'{ref}'")
    wanted = [name for name in (field, "split") if name in names]
    try:
        check_table(path, wanted)
        table = pq.read_table(path, columns=wanted)
    except (OSError, ValueError) as error:
        raise HarnessError(f"The data file '{ref}' cannot be read ({type(error).__name__}).") from error
    splits = table["split"].to_pylist() if "split" in wanted else None
    return from_columns(said(field, table[field].to_pylist()), splits, ref, range(1, len(table) + 1))


def text_field(names: Sequence[str], what: str) -> str:
    """Which column holds the texts. Raises HarnessError where none does."""
    field = next((name for name in TEXT_FIELDS if name in names), None)
    if field is None:
        raise HarnessError(f"{what} has no `text` column (and no `prompt`); it has {', '.join(names)}.")
    return field


def said(field: str, values: Iterable[Any]) -> Iterable[Any]:
    """The texts of a column: as they are, or what its prompts ask."""
    return values if field == "text" else map(asked, values)


def asked(prompt: Any) -> Any:
    """What a `prompt` asks: itself, or the content of a chat of one message, a user's. None for any other chat."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], dict):
        return prompt[0].get("content") if prompt[0].get("role") == "user" else None
    return None if isinstance(prompt, list) else prompt


def _json_lines(path: Path, ref: str, blank: bool) -> Rows:
    rows: dict[int, dict[str, Any]] = {}
    try:
        for number, row in each_line(path):
            if isinstance(row, LineError):
                raise HarnessError(f"{ref}, {row}; the file must be JSON lines in UTF-8.")
            text = (row["text"] if "text" in row else asked(row.get("prompt"))) if isinstance(row, dict) else None
            if not is_text(text) or not (blank or text.strip()):
                raise HarnessError(f"{ref}, line {number}: every line must be an object with a non-empty `text`.")
            rows[number] = row | {"text": text}
    except OSError as error:
        raise HarnessError(f"The data file {ref} cannot be read ({type(error).__name__}).") from error
    named = any("split" in row for row in rows.values())
    splits = [row.get("split") for row in rows.values()] if named else None
    return from_columns([row["text"] for row in rows.values()], splits, ref, rows, "line")
