"""`rerun` repeats a stored cell and tells equal numbers from others."""

from __future__ import annotations

import json
import shutil

import pytest

from harness.cell import run_cell
from harness.contracts import HarnessError
from harness.rerun import rerun
from harness.store.record import CellStore
from tests.helpers.cells import ignore


@pytest.fixture(scope="module")
def stored(quick, make_plan, tmp_path_factory):
    runs = tmp_path_factory.mktemp("stored")
    return runs, run_cell(make_plan("norm", "naive", quick(grpo__steps=1)), runs, ignore)


@pytest.fixture
def cell(stored, tmp_path):
    """A finished cell, a copy a test."""
    runs, record = stored
    shutil.copytree(runs, tmp_path / "runs")
    return CellStore.of(tmp_path / "runs", record)


def test_the_same_surroundings_give_the_same_numbers(cell):
    before = (cell.folder / "cell.json").read_bytes()
    found = rerun(cell.folder, ignore)
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
    found = rerun(cell.folder / "cell.json", ignore)
    assert not found.equal and found.largest == {"reward_raw_mean": pytest.approx(1 / 3)}
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
        rerun(cell.folder, ignore)


def test_no_cell_is_one_sentence(tmp_path):
    with pytest.raises(HarnessError, match="no finished cell"):
        rerun(tmp_path, ignore)
