"""The visit to a GPU, rehearsed: every piece in its smallest form, what is kept, what time and failures do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts import gpu_visit
from scripts.gpu_visit import Piece, Row, Step
from tests.helpers.command import ROOT

GPU = {"device": "a GPU", "memory": 2**36, "torch": "2", "cuda": "13", "transformers": "5", "python": "3.12"}


@pytest.fixture(autouse=True)
def own_folders(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu_visit, "WORK", tmp_path / "work")
    monkeypatch.setattr(gpu_visit, "SITE", tmp_path / "site")
    monkeypatch.setattr(gpu_visit, "look", lambda visit: {} if visit.cpu else dict(GPU))


def visit(folder: Path, *words: str) -> int:
    return gpu_visit.main(["--out", str(folder / "out"), *words])


def stored(folder: Path, piece: str) -> dict[str, Any]:
    return json.loads((folder / "out" / f"{piece}.json").read_text())


@pytest.mark.parametrize("piece", [piece.name for piece in gpu_visit.PIECES])
def test_every_piece_runs_in_its_smallest_form_and_once(piece, tmp_path, monkeypatch):
    assert visit(tmp_path, "--cpu", "--tiny", "--minutes", "60", "--only", piece) == 0, stored(tmp_path, piece)
    result = stored(tmp_path, piece)
    assert result["status"] == "done" and result["rows"], result
    page = (tmp_path / "out" / "README.md").read_text()
    assert "Nothing here was measured on a GPU" in page and page.count("Not begun.") == len(gpu_visit.PIECES) - 1
    monkeypatch.setattr(gpu_visit, "run", lambda *given: pytest.fail("it was done"))
    assert visit(tmp_path, "--cpu", "--tiny", "--only", piece) == 0


def pieces(monkeypatch: pytest.MonkeyPatch, *made: Piece) -> None:
    monkeypatch.setattr(gpu_visit, "PIECES", list(made))


def piece(name: str, log: Path, *codes: int, rows: tuple[Row, ...] = (), seconds: float = 1) -> Piece:
    """Steps that note that they ran, and end with these codes."""
    words = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + ' '); print('said'); sys.exit(int(sys.argv[3]))"
    command = lambda number, code: [sys.executable, "-c", words, str(log), f"{name}{number}", str(code)]
    steps = [Step(f"step {number}", command(number, code)) for number, code in enumerate(codes)]
    return Piece(name, f"what {name} is", seconds, lambda visit: steps, lambda visit: (list(rows), ""))


def test_what_fails_is_named_and_does_not_keep_others_from_running(tmp_path, monkeypatch, capsys):
    log = tmp_path / "log"
    pieces(monkeypatch, piece("a", log, 0, 7), piece("b", log, 0))
    assert visit(tmp_path) == 1
    assert "failed: a: step 1 ended with 7" in capsys.readouterr().err
    assert stored(tmp_path, "a")["steps"]["step 1"]["output"] == "said\n"
    assert log.read_text().split() == ["a0", "a1", "b0"]
    pieces(monkeypatch, piece("a", log, 0, 0), piece("b", log, 0))
    assert visit(tmp_path) == 0, "what was done is not done again"
    assert log.read_text().split() == ["a0", "a1", "b0", "a1"]
    assert visit(tmp_path, "--again", "--only", "b") == 0
    assert log.read_text().split()[4:] == ["b0"]
    assert visit(tmp_path, "--cpu") == 0, "a rehearsal is no visit"
    assert log.read_text().split()[5:] == ["a0", "a1", "b0"]


def test_rows_of_an_earlier_call_stay_where_raw_results_did_not_travel(tmp_path, monkeypatch):
    log = tmp_path / "log"
    first, second = Row("ratio", "0.9", "<= 1.3", True), Row("memory", "1 MiB", "", None)
    pieces(monkeypatch, piece("a", log, 0, 7, rows=(first, replace(second, measured="?"))))
    assert visit(tmp_path) == 1
    pieces(monkeypatch, piece("a", log, 0, 0, rows=(second,)))
    assert visit(tmp_path) == 0
    assert [(row["what"], row["measured"]) for row in stored(tmp_path, "a")["rows"]] == [
        ("ratio", "0.9"),
        ("memory", "1 MiB"),
    ]


def test_a_missed_number_is_a_failure_on_a_gpu_alone(tmp_path, monkeypatch, capsys):
    slow = Piece("a", "what it is", 1, lambda visit: [], lambda visit: ([visit.row("a step", 50.0, "s", 40)], ""))
    pieces(monkeypatch, slow)
    assert visit(tmp_path) == 1
    assert "failed: a: a step" in capsys.readouterr().err
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| a step | 50 s | <= 40 s | **missed** |" in page and "on a GPU, 64 GiB; torch 2, cuda 13" in page
    assert "rehearsal" not in page
    assert visit(tmp_path, "--cpu") == 0
    assert "missed" not in (tmp_path / "out" / "README.md").read_text()


def test_a_piece_that_would_not_fit_is_not_begun_and_one_that_takes_too_long_is_stopped(tmp_path, monkeypatch, capsys):
    log = tmp_path / "log"
    forever = Step("forever", [sys.executable, "-c", "import time; time.sleep(600)"])
    slow = Piece("slow", "it sleeps", 2, lambda visit: [forever], lambda visit: ([], ""))
    pieces(monkeypatch, piece("large", log, 0, seconds=600), slow)
    begun = time.monotonic()
    assert visit(tmp_path, "--minutes", "0.1") == 3
    assert time.monotonic() - begun < 300, "the step would sleep for ten minutes"
    said = capsys.readouterr().err
    assert "missing: large (takes some 600 s" in said and "missing: slow: forever stopped at the limit" in said
    assert not log.exists()
    assert "stopped (forever stopped at the limit)" in (tmp_path / "out" / "README.md").read_text()


def test_without_a_gpu_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_visit, "look", lambda visit: {"torch": "2"})
    assert visit(tmp_path) == 2 and "no CUDA device here; --cpu" in capsys.readouterr().err
    monkeypatch.setattr(gpu_visit, "look", lambda visit: None)
    assert visit(tmp_path) == 2 and "see --install" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "said"), [(["--only", "x"], "no piece 'x'"), (["--tiny"], "goes with --cpu")])
def test_a_wrong_word_is_a_sentence(words, said, tmp_path, capsys):
    with pytest.raises(SystemExit):
        visit(tmp_path, *words)
    assert said in capsys.readouterr().err


def test_the_wheels_are_those_that_were_tested(tmp_path, monkeypatch, capsys):
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    pinned = {name.lower().replace("_", "-"): version for name, version in pinned.items()}
    carried = {name: version for name, (version, _) in gpu_visit.WHEELS.items()}
    shared = carried.keys() & pinned.keys()
    assert {name: carried[name] for name in shared} == {name: pinned[name] for name in shared} and len(shared) >= 7
    asked: list[list[str]] = []

    def download(command: list[str], **more: Any) -> subprocess.CompletedProcess:
        asked.append(command)
        (tmp_path / "wheels" / "trl-1.16.0-py3-none-any.whl").write_bytes(b"x" * 2_000_000)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(gpu_visit.subprocess, "run", download)
    monkeypatch.setattr(gpu_visit, "tracked", lambda: [ROOT / "README.md"])
    assert visit(tmp_path, "--wheels", str(tmp_path / "wheels")) == 0
    assert "trl==1.16.0" in asked[0] and "3.12" in asked[0]
    assert "  2.00 MB  trl-1.16.0" in capsys.readouterr().out
    monkeypatch.setattr(gpu_visit, "MOST_BYTES", 1_000_000)
    assert visit(tmp_path, "--wheels", str(tmp_path / "wheels")) == 2
    assert "too much to carry" in capsys.readouterr().err


def test_wheels_are_installed_for_the_childrens_sake(tmp_path, monkeypatch, capsys):
    assert visit(tmp_path, "--install", str(tmp_path / "none")) == 2
    assert "there are no wheels in" in capsys.readouterr().err
    gpu_visit.SITE.mkdir()
    paths = gpu_visit.environment(True)["PYTHONPATH"].split(":")
    assert paths[:2] == [str(gpu_visit.SITE), str(ROOT)]


def test_the_help_lists_pieces_and_wheels(capsys):
    with pytest.raises(SystemExit):
        gpu_visit.main(["--help"])
    shown = capsys.readouterr().out
    assert all(re.search(rf"^    {piece.name} ", shown, re.M) for piece in gpu_visit.PIECES)
    assert "fasttext-community 0.11.9 (5.5 MB)" in " ".join(shown.split())
