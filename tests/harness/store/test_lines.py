"""JSON lines end at newlines only, wherever the project reads or writes them."""

from __future__ import annotations

import pytest

from harness.assets.rows import read_rows
from harness.contracts import HarnessError
from harness.store.lines import as_lines, read_lines

TEXTS = ["one\u2028line", "\x85\x0b\x0c\x1c", "a\nb\r\nc", "", "Ünïcode \U0001f600"]


def test_every_text_comes_back(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text(as_lines({"text": text} for text in TEXTS), encoding="utf-8")
    assert read_lines(path) == [{"text": text} for text in TEXTS]
    assert read_rows(path, "texts").texts == TEXTS


def test_empty_lines_are_none(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text('\n1\n\n  \n{"a": 2}')
    assert read_lines(path) == [1, {"a": 2}]


@pytest.mark.parametrize("content", [b'{"text": ', b"\xff\n", b'{"text": "a"} {"text": "b"}\n'])
def test_what_is_no_json_is_refused(tmp_path, content):
    path = tmp_path / "texts.jsonl"
    path.write_bytes(content)
    with pytest.raises(ValueError):
        read_lines(path)
    with pytest.raises(HarnessError, match="JSON lines"):
        read_rows(path, "texts")
