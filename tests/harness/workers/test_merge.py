"""`merge`: results of several machines in one folder, nothing overwritten, nothing taken for the same that is not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pandas
import pytest

from harness import api
from harness.cell import run_cell
from harness.contracts import HarnessError
from harness.store.record import CellStore
from harness.workers.merge import merge
from tests.helpers.command import run_harness


@pytest.fixture
def runs(tmp_path, quick, make_cell):
    """Two machines' results: one cell that both have run, one each of their own."""
    made = {}
    for name, seeds in {"a": (0, 1), "b": (0, 2)}.items():
        for seed in seeds:
            cell = make_cell("norm", "naive", quick(grpo__steps=1), seed=seed)
            run_cell(cell, tmp_path / name, lambda event: None)
        made[name] = tmp_path / name
    return made


def cells(place: Path) -> dict[int, CellStore]:
    found = [CellStore(path.parent) for path in place.rglob("cell.json")]
    return {cell.read().seed: cell for cell in found}


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_cells_of_both_are_there_once_and_whole(runs, tmp_path):
    out = tmp_path / "c"
    found = merge([runs["a"], runs["b"]], out)
    assert (found.copied, found.same, found.conflicts, found.left_out) == (3, 1, [], [])
    assert sorted(cells(out)) == [0, 1, 2]
    for seed, name in ((0, "a"), (1, "a"), (2, "b")):
        assert content(cells(out)[seed].folder) == content(cells(runs[name])[seed].folder)
    again = merge([runs["a"], runs["b"]], out)
    assert (again.copied, again.same) == (0, 4)


def test_other_numbers_are_a_conflict_and_the_first_stays(runs, tmp_path):
    other = cells(runs["b"])[0]
    frame = other.curves()
    frame.loc[(frame["measure"] == "norm_change").idxmax(), "value"] += 1e-9
    frame.to_parquet(other.folder / "curves.parquet")
    ended = run_harness("merge", str(runs["a"]), str(runs["b"]), "--out", "c", cwd=tmp_path)
    assert ended.code == 1 and "Conflict: tiny/norm/naive/seed0-" in ended.out
    kept = cells(tmp_path / "c")[0]
    assert content(kept.folder) == content(cells(runs["a"])[0].folder)
    assert len(pandas.read_parquet(tmp_path / "c" / "tiny" / "wide.parquet")) == 3


def test_a_finished_cell_goes_before_an_unfinished_one(runs, tmp_path):
    unfinished = cells(runs["a"])[0]
    record = unfinished.read()
    unfinished.write(record.model_copy(update={"status": "interrupted", "reason": "stopped"}))
    for number, order in enumerate((["a", "b"], ["b", "a"])):
        out = tmp_path / f"c{number}"
        assert merge([runs[name] for name in order], out).conflicts == []
        assert cells(out)[0].read().status == "done"


def test_damaged_cells_and_links_are_left_out_and_said(runs, tmp_path):
    first, second = cells(runs["a"])[0], cells(runs["a"])[1]
    (first.folder / "cell.json").write_text("{")
    (tmp_path / "secret").write_text("not of the results")
    os.symlink(tmp_path / "secret", second.folder / "step-1")
    ended = run_harness("merge", str(runs["a"]), "--out", "c", cwd=tmp_path)
    assert ended.code == 2 and ended.out.count("Left out") == 2
    assert not any(b"not of the results" in found for found in content(tmp_path / "c").values())


def test_records_beside_cells_come_along(runs, tmp_path):
    for name, text in (("a", "1"), ("b", "2")):
        folder = runs[name] / "tiny" / "fidelity" / "norm"
        folder.mkdir(parents=True)
        (folder / "shared.json").write_text(json.dumps({"same": 1}))
        (folder / "differs.json").write_text(text)
        (folder / f"{name}.json").write_text("{}")
    found = merge([runs["a"], runs["b"]], tmp_path / "c")
    assert {path.name for path in (tmp_path / "c" / "tiny" / "fidelity" / "norm").iterdir()} == {
        *("shared.json", "differs.json", "a.json", "b.json")
    }
    assert len(found.conflicts) == 1 and "differs.json" in found.conflicts[0]
    assert (tmp_path / "c" / "tiny" / "fidelity" / "norm" / "differs.json").read_text() == "1"


@pytest.mark.parametrize(
    ("places", "out", "words"),
    [
        (["nowhere"], "c", "There is no folder"),
        (["a"], "a/c", "choose another --out"),
        (["a"], "a", "choose another --out"),
        (["empty"], "c", "There are no results"),
    ],
)
def test_what_cannot_be_merged_is_one_sentence(places, out, words, tmp_path):
    for name in ("a", "empty"):
        (tmp_path / name).mkdir()
    with pytest.raises(HarnessError, match=words):
        merge([tmp_path / name for name in places], tmp_path / out)
    assert not (tmp_path / "c").exists()


def everything(places, out):
    """As the command does."""
    return api.merge(places, out, progress=False)


def test_a_study_is_unpacked_and_work_goes_on_from_there(runs, tmp_path):
    assert run_harness("pack", "a", "study", cwd=tmp_path).code == 0
    theorem = Path("reports/studies/paper/theorem.json").resolve()
    shutil.copy(theorem, tmp_path / "study")
    found = everything([tmp_path / "study"], tmp_path / "c")
    assert (found.copied, found.conflicts, found.left_out) == (3, [], [])
    assert (tmp_path / "c" / "tiny" / theorem.name).read_bytes() == theorem.read_bytes()
    for seed, old in cells(runs["a"]).items():
        new = cells(tmp_path / "c")[seed]
        assert new.folder.relative_to(tmp_path / "c") == old.folder.relative_to(runs["a"])
        assert new.read() == old.read() and new.samples() == old.samples() and new.files() == old.files()
        assert new.curves().equals(old.curves()) and new.arrays().keys() == old.arrays().keys()
    again = everything([tmp_path / "study", runs["a"]], tmp_path / "c")
    assert (again.copied, again.same, again.conflicts) == (0, 5, [])
    assert run_harness("pack", "c", "second", cwd=tmp_path).code == 0
    for path in (tmp_path / "study").iterdir():
        assert (tmp_path / "second" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("study", ["targets", "appendix_c", "fidelity"])  # small ones: the others take a minute
def test_what_the_repository_keeps_packed_can_be_unpacked_and_packed_again(study, tmp_path):
    kept = Path("reports/studies", study).resolve()
    assert everything([kept], tmp_path / "c").left_out == []
    assert run_harness("pack", "c", "again", cwd=tmp_path).code == 0
    for path in (*kept.glob("*.parquet"), *kept.glob("*.jsonl")):
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_damaged_study_is_said(runs, tmp_path):
    assert run_harness("pack", "a", "study", cwd=tmp_path).code == 0
    lines = (tmp_path / "study" / "cells.jsonl").read_text().splitlines()
    (tmp_path / "study" / "cells.jsonl").write_text("\n".join([lines[0], "{"]) + "\n")
    (tmp_path / "study" / "evaluation.parquet").write_bytes(b"PAR1")
    found = everything([tmp_path / "study"], tmp_path / "c")
    assert found.copied == 1 and len(found.left_out) == 2
    assert all("damaged" in line for line in found.left_out)


def test_a_study_s_records_and_links_lead_nowhere_else(runs, tmp_path):
    from harness.evaluation.records import TrialRecord, write_packed

    assert run_harness("pack", "a", "study", cwd=tmp_path).code == 0
    trial = TrialRecord(
        profile="../../gone", task="t", target="own", row="naive", seed=0, identity="i", settings_key="", status="done"
    )
    write_packed(tmp_path / "study", [trial])
    (tmp_path / "secret").write_text("{}")
    os.symlink(tmp_path / "secret", tmp_path / "study" / "theorem.json")
    found = everything([tmp_path / "study"], tmp_path / "b" / "c")
    assert found.copied == 2 and len(found.left_out) == 2
    assert not (tmp_path / "gone").exists() and not list((tmp_path / "b").rglob("theorem.json"))
