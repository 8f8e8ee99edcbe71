"""JSON lines: one value a line. A newline ends a line and nothing else does: texts hold U+2028 and its like, which
`str.splitlines` would cut at."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.machine.files import MOST_LINES, parse_json, read_text


def read_lines(path: Path) -> list[Any]:
    """The values in `path`, without empty lines. Raises OSError, ValueError for what is not JSON or not UTF-8, and
    HarnessError for what is no plain file or too large."""
    return [parse_json(line) for line in read_text(path, MOST_LINES).split("\n") if line.strip()]


def as_lines(values: Iterable[Any]) -> str:
    """The content of a file that `read_lines` gives back."""
    return "".join(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n" for value in values)
