"""JSON lines: one value a line. A newline ends a line and nothing else does: texts hold U+2028 and its like, which
`str.splitlines` would cut at. Every such file of the project is read and written here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.machine.files import MOST_LINE, MOST_LINES, check_plain

BOM = b"\xef\xbb\xbf"


class LineError(ValueError):
    """What is wrong with a line, in a few words: "line 3: not valid JSON (Expecting value)"."""


def each_line(path: Path, *, strict: bool = False) -> Iterator[tuple[int, Any]]:
    """(number from 1, value) of every line; where a line is no JSON or not UTF-8, a LineError in place of its value.

    Editors leave empty lines and a byte order mark: they count nothing, or are errors where `strict` (what the harness
    wrote has neither). Raises OSError, and HarnessError for what is no plain file or too large."""
    check_plain(path, MOST_LINES)
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE + 1), b""), start=1):
            if len(line) > MOST_LINE:
                yield number, LineError(f"line {number}: more than {MOST_LINE:,} bytes; split it")
                return
            if number == 1 and not strict:
                line = line.removeprefix(BOM)
            if line.strip() or strict:
                yield number, _value(line, number)


def _value(line: bytes, number: int) -> Any:
    """Never more than one line's value: a LineError says what is wrong."""
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return LineError(f"line {number}: not UTF-8")
    except json.JSONDecodeError as error:
        return LineError(f"line {number}: {'empty' if not line.strip() else f'not valid JSON ({error.msg})'}")
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, lists in lists in lists
        return LineError(f"line {number}: not valid JSON ({type(error).__name__}: {str(error)[:80]})")


def read_lines(path: Path, *, strict: bool = False) -> list[Any]:
    """The values in `path`. Raises OSError, and LineError for the first line that has none; `each_line` says what
    `strict` means."""
    found = []
    for _, value in each_line(path, strict=strict):
        if isinstance(value, LineError):
            raise value
        found.append(value)
    return found


def new_lines(path: Path, start: int) -> tuple[list[Any], int]:
    """(values of the whole lines from byte `start` on, the byte behind the last of them) of a file that another process
    writes. What it is at, and lines that were cut where a process was killed, have no value and are left out; nothing
    is there yet: ([], start)."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            new = file.read()
    except OSError:
        return [], start
    whole = new[: new.rfind(b"\n") + 1]
    values = [_value(line, number) for number, line in enumerate(whole.split(b"\n")[:-1], start=1)]
    return [value for value in values if not isinstance(value, LineError)], start + len(whole)


def as_lines(values: Iterable[Any]) -> str:
    """The content of a file that `read_lines` gives back."""
    return "".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n" for value in values)


def is_text(value: Any) -> bool:
    """Whether the value is a text that UTF-8 can hold: JSON's escapes can also spell lone surrogates."""
    if not isinstance(value, str):
        return False
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
