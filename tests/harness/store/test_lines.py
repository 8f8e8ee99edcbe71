"""JSON lines end at newlines only, wherever the project reads or writes them."""

from __future__ import annotations

import re

import pytest

from harness import assets
from harness.assets.rows import read_rows
from harness.contracts import HarnessError
from harness.store.lines import LineError, as_lines, each_line, new_lines, read_lines
from tests.helpers.command import ROOT

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


def test_articles_and_references_end_at_newlines_too(tmp_path):
    path = tmp_path / "texts.jsonl"
    texts = [text for text in TEXTS if text.strip()]
    path.write_bytes(as_lines({"text": text} for text in texts).encode())
    assert assets.texts(str(path), split=None) == texts


def test_what_the_harness_wrote_has_neither_empty_lines_nor_a_byte_order_mark(tmp_path):
    path = tmp_path / "texts.jsonl"
    for content, words in ((b"1\n\n2\n", "line 2: empty"), (b"\xef\xbb\xbf1\n", "line 1: not valid JSON")):
        path.write_bytes(content)
        with pytest.raises(LineError, match=words):
            read_lines(path, strict=True)
        assert read_lines(path)[0] == 1
    path.write_bytes(b'1\n\xff\n{"a": 2}\n')
    found = list(each_line(path))
    assert found[::2] == [(1, 1), (3, {"a": 2})] and str(found[1][1]) == "line 2: not UTF-8"


def test_what_another_process_writes_is_read_line_by_line(tmp_path):
    path = tmp_path / "letters.jsonl"
    assert new_lines(path, 0) == ([], 0)
    path.write_bytes(b'{"a":1}\n{"cut\n\n[2]\n{"b"')
    values, end = new_lines(path, 0)
    assert values == [{"a": 1}, [2]] and end == len(b'{"a":1}\n{"cut\n\n[2]\n')
    with path.open("ab") as file:
        file.write(b":3}\n")
    assert new_lines(path, end) == ([{"b": 3}], path.stat().st_size)


def test_there_is_one_reader_and_one_writer():
    """Nobody else cuts a file into lines and reads JSON in them, or puts JSON and a newline together."""
    folders = [ROOT / name for name in ("harness", "rewards", "tasks", "reports", "scripts")]
    sources = {path: path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py")}
    sources = {path: text for path, text in sources.items() if path.parent.name != "odd_input"}  # what is to be refused
    cuts = re.compile(r"json\.loads\((line|row)\)|dumps\([^\n]*\\n[^\n]* for ")
    found = {path.name for path, text in sources.items() if cuts.search(text)}
    found |= {path.name for path, text in sources.items() if ".jsonl" in text and ".splitlines()" in text}
    # These read what commands print.
    printed = {"first_hour.py", "cluster_robustness.py", "slurm_check.py", "slurm.py"}
    assert found - printed == {"lines.py"}
