"""`rerun` repeats a stored cell and tells equal numbers from others."""

from __future__ import annotations

import json
import shutil

import pytest

from harness.cell import run_cell
from harness.cli.app import main
from harness.contracts import HarnessError
from harness.rerun import chosen, rerun
from harness.store.record import CellStore
from harness.store.study import write_study
from tests.helpers.cells import ignore


@pytest.fixture(scope="module")
def stored(quick, make_cell, tmp_path_factory):
    runs = tmp_path_factory.mktemp("stored")
    return runs, run_cell(make_cell("norm", "naive", quick(grpo__steps=1)), runs, ignore)


@pytest.fixture
def cell(stored, tmp_path):
    """A finished cell, a copy a test."""
    runs, record = stored
    shutil.copytree(runs, tmp_path / "runs")
    return CellStore.of(tmp_path / "runs", record)


def test_the_same_surroundings_give_the_same_numbers(cell):
    before = (cell.folder / "cell.json").read_bytes()
    found = rerun(cell, ignore)
    assert found.equal and found.largest == {} and found.environment == {} and found.numbers > 20
    assert (cell.folder / "cell.json").read_bytes() == before


def test_other_numbers_are_named(cell):
    import pandas

    path = cell.folder / "curves.parquet"
    curves = pandas.read_parquet(path)
    curves.loc[curves["measure"] == "reward_raw_mean", "value"] *= 1.5
    curves.to_parquet(path)
    record = cell.read()
    record.provenance["packages"]["torch"] = "0.1"
    cell.write(record)
    found = rerun(cell, ignore)
    assert not found.equal and found.largest == {"reward_raw_mean": pytest.approx(1 / 3)} and found.others == ()
    assert list(found.environment) == ["packages"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: data | {"status": "failed"}, "no finished cell"),
        (lambda data: data | {"assets": {ref: "other" for ref in data["assets"]}}, "not what"),
        (lambda data: data | {"seed": 5}, "another identity"),
        (lambda data: data | {"settings": {}}, "not of this version"),
    ],
    ids=["not done", "assets", "identity", "settings"],
)
def test_what_cannot_be_repeated_is_one_sentence(change, words, cell):
    path = cell.folder / "cell.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(HarnessError, match=words):
        rerun(cell, ignore)


def test_no_cell_is_one_sentence(tmp_path):
    with pytest.raises(HarnessError, match="no finished cell"):
        chosen(tmp_path)


def test_a_cell_is_chosen_by_its_folder_its_file_or_by_name(cell):
    runs = cell.folder.parents[3]
    for place in (cell.folder, cell.folder / "cell.json", runs):
        assert [found.folder for found in chosen(place)] == [cell.folder]
    assert [found.folder for found in chosen(runs, "norm", "naive", 0)] == [cell.folder]
    for other in ({"task": "qr"}, {"reward": "embedding"}, {"seed": 1}):
        with pytest.raises(HarnessError, match="no finished cell"):
            chosen(runs, **other)


def test_other_texts_are_named(cell):
    samples = cell.samples()
    samples[-1]["text"] += "."
    cell.write_samples(samples)
    found = rerun(cell, ignore)
    assert not found.equal and found.largest == {} and found.others == ("sampled texts",)


def test_a_packed_study_is_repeated_cell_by_cell(cell, tmp_path, capsys, monkeypatch):
    """One line a cell; the exit code is 1 as soon as one differs."""
    study = tmp_path / "study"
    write_study(study, [cell])
    assert run("rerun", str(study), monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith("norm / naive, seed 0: all ") and "last bit" in lines[0]
    record = cell.read()
    record.headline += 1
    cell.write(record)
    write_study(study, [cell])
    assert run("rerun", str(study), monkeypatch) == 1
    assert "norm / naive, seed 0: differs in its final values" in capsys.readouterr().out


def run(*arguments):
    """A command's exit code."""
    *words, monkeypatch = arguments
    monkeypatch.setattr("sys.argv", ["harness", *words])
    with pytest.raises(SystemExit) as end:
        main()
    return end.value.code
