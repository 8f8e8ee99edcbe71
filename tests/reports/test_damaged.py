"""Results with damage of every kind: each damaged cell is a row that says what, the others are reported as if nothing
were. What is read for a report lies in the results folder."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas
import pytest

from harness.signals import records
from harness.store.damage import DamagedError
from harness.store.frames import UNKNOWN, find_cells, load
from harness.store.record import CellStore
from harness.store.study import write_study
from reports import signals, site, tables
from tests.helpers.command import run_harness
from tests.reports.test_studies import toy

Damage = Callable[[Path], None]
"""Does something to a cell's folder."""
SECRET = "what lies outside is nobody's business"


def record(**changes: object) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "cell.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def nested(depth: int, key: str = "provenance") -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "cell.json"
        inner = '{"a": ' * depth + "1" + "}" * depth
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: "HERE"}).replace('"HERE"', inner))

    return damage


def content(name: str, data: bytes | Callable[[bytes], bytes]) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data(path.read_bytes()))

    return damage


def line(text: str) -> Damage:
    """One more line of the sampled texts."""
    return content("samples.jsonl", lambda before: before + text.encode("utf-8", "surrogatepass") + b"\n")


def curves(change: Callable[[pandas.DataFrame], pandas.DataFrame]) -> Damage:
    def damage(folder: Path) -> None:
        change(pandas.read_parquet(folder / "curves.parquet")).to_parquet(folder / "curves.parquet")

    return damage


def link(name: str, outside: bool = True) -> Damage:
    """The file is a link to one like it, outside the folder or in it."""

    def damage(folder: Path) -> None:
        elsewhere = folder.parents[4] / "elsewhere" / folder.name if outside else folder
        elsewhere.mkdir(parents=True, exist_ok=True)
        target = (folder / name).replace(elsewhere / f"moved-{Path(name).name}")
        if name == "samples.jsonl":
            target.write_text(json.dumps({"step": 0, "index": 0, "text": SECRET}) + "\n")
        (folder / name).symlink_to(target)

    return damage


def picture(data: bytes) -> Damage:
    return content("step-25/drawn.png", data)


def pipe(folder: Path) -> None:
    (folder / "samples.jsonl").unlink()
    os.mkfifo(folder / "samples.jsonl")


PNG = b"\x89PNG\r\n\x1a\n"
HUGE = PNG + bytes.fromhex("0000000d494844520000753000007530080000000000000000")
DAMAGES: list[tuple[Damage, str]] = [
    (content("cell.json", b""), "cell.json: not valid JSON"),
    (content("cell.json", lambda data: data[: len(data) // 2]), "cell.json: not valid JSON"),
    (content("cell.json", lambda data: b"\xef\xbb\xbf" + data), "cell.json: not valid JSON"),
    (content("cell.json", b"\xff\xfe{}"), "cell.json: not UTF-8"),
    (content("cell.json", b"[]"), "not a result of this harness"),
    (record(schema_version=99), "schema version 99"),
    (record(headline=None), "cell.json: done without a headline"),
    (record(headline=float("nan")), "cell.json: the number nan"),
    (record(rollouts=2**64), "cell.json: an integer beyond 64 bits"),
    (record(provenance={"cores": 2**70}), "cell.json: an integer beyond 64 bits"),
    (record(headline="much"), "cell.json: headline: Input should be a valid number"),
    (record(status="damaged"), "cell.json: the status `damaged`"),
    (record(task="../../x"), "cell.json: '../../x' cannot be the name"),
    (record(notes=["\ud800"]), "cell.json: text that is no Unicode"),
    (nested(200), "cell.json: nested more than 100 deep"),
    (nested(200, "settings"), "cell.json: nested more than 100 deep"),
    (nested(50_000), "cell.json: "),
    (line("{"), "samples.jsonl: line 19: not valid JSON"),
    (line(""), "samples.jsonl: line 19: empty"),
    (line("[1, 2]"), "samples.jsonl: a line without a `text`"),
    (line('{"step": "a", "index": 0, "text": "b"}'), "samples.jsonl: a text without whole numbers"),
    (line('{"step": 1, "index": 0, "text": 5}'), "samples.jsonl: a line without a `text`"),
    (line('{"step": 1, "index": 0, "text": "\\ud800"}'), "samples.jsonl: text that is no Unicode"),
    (line("\udcff"), "samples.jsonl: line 19: not UTF-8"),
    (line('{"step": ' + "9" * 5000 + "}"), "samples.jsonl: line 19: not valid JSON"),
    (content("samples.jsonl", lambda data: b"\xef\xbb\xbf" + data), "samples.jsonl: line 1: not valid JSON"),
    (content("curves.parquet", lambda data: data[:-50]), "curves.parquet: "),
    (content("curves.parquet", b"PAR1"), "curves.parquet: "),
    (curves(lambda frame: frame.drop(columns="step")), "curves.parquet: KeyError"),
    (curves(lambda frame: frame.assign(value="much")), "curves.parquet: could not convert"),
    (curves(lambda frame: frame.assign(identity="0")), "curves.parquet: of another cell"),
    (content("arrays.parquet", b"\x00" * 40), "arrays.parquet: "),
    (picture(b"no picture"), "drawn.png: "),
    (picture(PNG), "drawn.png: "),
    (picture(HUGE), "drawn.png: "),
    (link("samples.jsonl"), "samples.jsonl: a link out of the results"),
    (link("curves.parquet"), "curves.parquet: a link out of the results"),
    (link("arrays.parquet"), "arrays.parquet: a link out of the results"),
    (link("cell.json"), "cell.json: a link out of the results"),
    (pipe, "samples.jsonl: no regular file"),
]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, generate: Callable[..., int]) -> Path:
    """A cell for every damage, and two whole ones: seed 0, whose record is a link inside its folder, and the last."""
    place = tmp_path_factory.mktemp("broken")
    generate(place / "runs", tasks=("67",), rewards=("naive",), seeds=range(len(DAMAGES) + 2))
    cells = {cell.read().seed: cell.folder for cell in find_cells(place / "runs")}
    shutil.copytree(place / "runs", place / "whole")
    link("cell.json", outside=False)(cells[0])
    for seed, (damage, _) in enumerate(DAMAGES, start=1):
        damage(cells[seed])
    return place


def test_every_damage_is_a_row_that_says_what_and_the_rest_is_whole(broken: Path) -> None:
    wide, long = load(broken / "runs")
    whole, _ = load(broken / "whole")
    assert len(wide) == len(whole) and not (wide["profile"] == UNKNOWN).any()
    found = wide.set_index("seed")
    for seed, (_, words) in enumerate(DAMAGES, start=1):
        assert found.loc[seed, "status"] == "damaged" and words in found.loc[seed, "reason"], (words, found.loc[seed])
        assert str(broken) not in found.loc[seed, "reason"] and "\n" not in found.loc[seed, "reason"]
    ends = [0, len(DAMAGES) + 1]
    assert list(found.loc[ends, "status"]) == ["done"] * 2 and set(long["seed"]) == set(ends)
    assert list(found.loc[ends, "headline"]) == list(whole.set_index("seed").loc[ends, "headline"])


def test_the_three_commands_report_the_rest(broken: Path) -> None:
    words = [words for _, words in DAMAGES]
    table = run_harness("table", "runs", "--markdown", cwd=broken)
    assert table.code == 0 and f"2 done, {len(DAMAGES)} damaged" in table.out
    assert table.out.split("**Over seeds")[0].count("naive") == 1, "one row, whoever's settings can be read"
    diff = run_harness("diff", "whole", "runs", cwd=broken, width=4000)
    assert diff.code == 2 and "Cannot compare 67 / naive" in diff.out and "same" in diff.out
    assert all(f"damaged in NEW: {text.split('`')[0]}" in diff.out for text in words if text.count(".json: ") == 1)
    assert run_harness("diff", "runs", "runs", cwd=broken).code == 2
    assert run_harness("table", "runs", cwd=broken).code == 0
    report = run_harness("report", "runs", cwd=broken)
    assert report.code == 0, report.err
    page = (broken / "site" / "index.html").read_text(encoding="utf-8")
    assert page.count('class="words damaged"') == len(DAMAGES) and "Cells: 2 done" in page
    assert not [
        path for path in (broken / "site").rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()
    ]


def test_a_damaged_study_is_reported_line_by_line(broken: Path, tmp_path: Path) -> None:
    study = tmp_path / "study"
    write_study(study, [cell for cell in find_cells(broken / "whole") if cell.read().seed < 4])
    lines = (study / "cells.jsonl").read_bytes().split(b"\n")
    lines[1], lines[2] = b"{", lines[2].replace(b'"seed":2', b'"seed":18446744073709551616')
    (study / "cells.jsonl").write_bytes(b"\n".join(lines))
    wide, _ = load(study)
    assert sorted(wide["status"]) == ["damaged", "damaged", "done", "done"]
    reasons = sorted(wide.loc[wide["status"] == "damaged", "reason"])
    assert "line 2: not valid JSON" in reasons[1] and "beyond 64 bits" in reasons[0]
    site.build(study, tmp_path / "site")
    (study / "samples.parquet").write_bytes(b"PAR1")
    assert set(load(study)[0]["status"]) == {"damaged"}
    assert "damaged: samples.parquet: " in tables.markdown(*load(study))
    (tmp_path / "outside.jsonl").write_bytes((study / "cells.jsonl").read_bytes())
    (study / "cells.jsonl").unlink()
    (study / "cells.jsonl").symlink_to(tmp_path / "outside.jsonl")
    (reason,) = load(study)[0]["reason"]
    assert "a link out of the results" in reason
    site.build(study, tmp_path / "site")


def test_columns_that_other_hands_wrote_differently_make_tables_too(
    tmp_path: Path, generate: Callable[..., int]
) -> None:
    generate(tmp_path / "runs", tasks=("67",), rewards=("naive",), seeds=(0, 1))
    first, _ = find_cells(tmp_path / "runs")
    record(provenance={"cores": "many", "dirty": {"a": [1]}, "commit": 5, "started": 7})(first.folder)
    from reports.store import store_tables

    wide, _ = store_tables(tmp_path / "runs" / "tiny")
    assert set(wide["status"]) == {"done"}
    site.build(tmp_path / "runs", tmp_path / "site")


def test_the_error_travels_from_a_worker(broken: Path) -> None:
    path = broken / "runs" / "cell.json"
    error = pickle.loads(pickle.dumps(DamagedError(path, "not UTF-8", "remove it")))
    assert error.what == "cell.json: not UTF-8" and str(error) == f"{path} is damaged (not UTF-8); remove it."


def test_rerun_and_pack_say_which_cell_is_damaged(broken: Path, tmp_path: Path) -> None:
    place = next(cell.folder for cell in find_cells(broken / "runs") if cell.folder.name.startswith("seed2-"))
    again = run_harness("rerun", str(place), cwd=tmp_path)
    assert again.code == 2 and "cell.json is damaged" in again.out + again.err
    assert run_harness("pack", str(broken / "runs"), "study", cwd=tmp_path).code == 2


# ------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("pool.json", b"{", "pool.json: not valid JSON"),
        ("pool.json", b'{"schema_version": 99}', "schema version 99"),
        ("truth-k.json", b"\xff", "truth-k.json: not UTF-8"),
        ("reward-toy.json", b"[]", "reward-toy.json: "),
        ("reward-toy.json", {"rewards": [0.1]}, "numbers that do not fit its pool"),
        ("pool.json", {"halves": [[7]]}, "numbers that do not fit its pool"),
        ("truth-k.json", {"halves": []}, "numbers that do not fit its pool"),
        ("truth-k.json", {"untrained": 10**30}, "truth-k.json: an integer beyond 64 bits"),
        ("truth-k.json", None, "truth-k.json: a link out of the results"),
    ],
)
def test_damaged_signals_are_rows(tmp_path: Path, name: str, data: object, words: str) -> None:
    judged = toy()
    folder = tmp_path / "runs" / judged.place
    folder.mkdir(parents=True)
    parts = {"pool.json": judged.pool, "truth-k.json": judged.truths["k"], "reward-toy.json": judged.signals[0]}
    for part, stored in parts.items():
        (folder / part).write_text(stored.model_dump_json())
    path = folder / name
    if isinstance(data, bytes):
        path.write_bytes(data)
    elif isinstance(data, dict):
        path.write_text(json.dumps(json.loads(path.read_text()) | data))
    else:
        path.symlink_to(path.replace(tmp_path / "outside.json"))
    (row,) = signals.rows(records.load(tmp_path / "runs"))
    assert row.task == "norm" and row.reward == "toy" and "damaged: " in row.status and words in row.status
    assert words in signals.markdown([row]).replace("\\", "")


def test_a_results_folder_may_itself_be_a_link(tmp_path: Path, generate: Callable[..., int]) -> None:
    generate(tmp_path / "runs", tasks=("67",), rewards=("naive",), seeds=(0,))
    (tmp_path / "mine").symlink_to(tmp_path / "runs")
    assert list(load(tmp_path / "mine")[0]["status"]) == ["done"]
    assert CellStore(find_cells(tmp_path / "mine")[0].folder).samples()
