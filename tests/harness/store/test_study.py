"""Packed studies: everything comes back to the last bit, the same cells make the same bytes, nothing is replaced by
accident, and what reads a results folder reads a study."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pandas
import pytest
from pandas.testing import assert_frame_equal

from harness.cli.app import main
from harness.contracts import HarnessError
from harness.store import frames
from harness.store import study as studies
from harness.store.arrays import arrays_frame, arrays_of
from harness.store.frames import cell_at, find_cells, load
from harness.store.record import CellRecord, CellStore, place_of
from harness.store.study import DamagedCell, open_study, packed, write_study
from tests.helpers.command import ROOT

SAMPLES = [
    {"step": 0, "index": 0, "text": "one\u2028line,\x85 \r\n all of it", "language": "Spanish"},
    {"step": 0, "index": 1, "text": "", "longest_piece": 3, "share": 0.1, "nothing": None},
]
ROLLOUT = dict(
    index=0, text="t", reward_value=1e-9, advantage=-0.5, finish="stop", title="An article", article="0a1b2c3d"
)
ARRAYS = {
    0: {"delta": np.array([[0.1, -0.0, np.nan]]), "target": np.array([[1, -1, 1]], dtype=np.int8)},
    8: {"delta": np.array([[1e-300, np.inf, 3.0]]), "mask": np.array([True]), "scalar": np.array(2.5, dtype="f4")},
}


def cell(runs, task="t", seed=0, *, value=0.1, parts=True, **changes) -> CellStore:
    """A stored cell: its record, and with `parts` everything else a cell can have."""
    fields = dict(profile="tiny", task=task, reward="r", seed=seed, identity="abc", status="done", headline=value)
    record = CellRecord(**(fields | changes))
    store = CellStore.of(runs, record)
    store.write(record)
    if parts:
        row = dict(phase="validation", measure="m", unit="", direction="higher")
        store.write_curves(record, [row | {"step": step, "value": value / (step + 3)} for step in range(5)])
        store.write_samples(SAMPLES)
        for step in (1, 2):
            store.write_rollouts(record, [{"step": step, **ROLLOUT}, {"step": step, **ROLLOUT, "index": 4}])
        store.write_arrays(ARRAYS)
        store.write_file(8, "notes.bin", bytes(range(256)))
    return store


@pytest.fixture
def runs(tmp_path):
    """Five cells of two tasks, one of them unsupported and without anything but its record."""
    folder = tmp_path / "runs"
    for seed in (0, 1, 10):
        cell(folder, "t", seed, value=0.1 * (seed + 1))
    cell(folder, "u", 0)
    cell(folder, "u", 1, parts=False, status="unsupported", reason="why")
    return folder


@pytest.fixture
def study(runs, tmp_path):
    write_study(tmp_path / "study", find_cells(runs))
    return tmp_path / "study"


def relative(wide, place):
    return wide.assign(folder=[os.path.relpath(folder, place) for folder in wide["folder"]])


# ------------------------------------------------------------------------------------------------------------- reading


def test_everything_comes_back(runs, study):
    assert {path.name for path in study.iterdir()} == {
        *("cells.jsonl", "curves.parquet", "samples.parquet", "rollouts.parquet", "arrays.parquet", "files.parquet")
    }
    for old, new in zip(find_cells(runs), find_cells(study), strict=True):
        assert new.folder.relative_to(study) == old.folder.relative_to(runs)
        assert new.read() == old.read()
        assert_frame_equal(new.curves(), old.curves(), check_exact=True)
        assert_frame_equal(new.rollouts(), old.rollouts(), check_exact=True)
        assert len(old.rollouts()) == (4 if old.read().status == "done" else 0)
        assert [list(row.items()) for row in new.samples()] == [list(row.items()) for row in old.samples()]
        assert new.files() == old.files()
        for step, named in old.arrays().items():
            assert {name: (a.dtype, a.shape, a.tobytes()) for name, a in named.items()} == {
                name: (a.dtype, a.shape, a.tobytes()) for name, a in new.arrays()[step].items()
            }
    assert find_cells(study)[0].samples() == SAMPLES and find_cells(study)[0].files() == {
        8: {"notes.bin": bytes(range(256))}
    }


def test_tables_of_a_study_are_those_of_the_folder(runs, study):
    (wide, long), (packed_wide, packed_long) = load(runs), load(study)
    assert_frame_equal(relative(wide, runs), relative(packed_wide, study), check_exact=True)
    assert_frame_equal(long, packed_long, check_exact=True)


def test_the_long_table_is_the_curves_of_all_cells_one_after_the_other(runs, monkeypatch):
    """As frames that are put together, whatever wrote the files and however many are joined at a time."""
    settings = [{"a": None, "b": 1, "c": "x"}, {"a": 2, "b": 0.5, "c": "y"}, {"a": "z", "b": 1, "c": "x"}]
    for seed, given in enumerate(settings):
        cell(runs, "v", seed, settings=given)
    cell(runs, "w", 0, settings={"d": True})
    cell(runs, "w", 1, parts=False, settings={"d": False})
    cell(runs, "w", 2, settings={"d": None})
    other = runs / "tiny" / "t" / "r" / "seed1-abc" / "curves.parquet"
    frame = pandas.read_parquet(other).astype({"step": "int32", "seed": "float64"})
    frame.loc[2, ["value", "unit"]] = None
    frame[[*reversed(frame.columns)]].to_parquet(other)
    wide, _ = load(runs)
    varying = [name for name in wide if name in ("a", "b", "c", "d")]
    assert len(varying) == 4 and "damaged" not in set(wide["status"])
    parts = [
        found.curves().assign(
            **{name: wide[name].astype(object).where(wide[name].notna(), None)[row] for name in varying}
        )
        for row, found in enumerate(find_cells(runs))
    ]
    expected = pandas.concat([part for part in parts if len(part)], ignore_index=True)
    for joined in (1, 2, 256):
        monkeypatch.setattr(frames, "BATCH", joined)
        assert_frame_equal(load(runs)[1], expected, check_exact=True)


def test_the_same_cells_make_the_same_bytes(runs, study, tmp_path):
    write_study(tmp_path / "again", reversed(find_cells(runs)))
    write_study(tmp_path / "from the study", find_cells(study))
    for path in study.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
        assert (tmp_path / "from the study" / path.name).read_bytes() == path.read_bytes(), path.name


def test_what_is_empty_makes_no_file(runs, study):
    write_study(study, find_cells(runs / "tiny" / "u" / "r" / "seed1-abc"))
    assert [path.name for path in study.iterdir()] == ["cells.jsonl"]


def test_cells_are_found_wherever_they_are_stored(runs, study, tmp_path):
    shutil.copytree(study, tmp_path / "both" / "nested" / "study")
    shutil.copytree(runs, tmp_path / "both" / "runs")
    assert len(find_cells(tmp_path / "both")) == 10
    assert [found.read().seed for found in find_cells(study / "tiny" / "t")] == [0, 1, 10]
    (one,) = find_cells(study / "tiny" / "t" / "r" / "seed10-abc")
    assert one.read().seed == 10
    with pytest.raises(HarnessError, match="There is no folder"):
        find_cells(study / "tiny" / "none")
    for place in (runs, study):
        for folder in load(place)[0]["folder"]:
            assert str(cell_at(folder).folder) == folder
        assert cell_at(place / "tiny" / "t" / "r" / "seed10-abcd") is None


def test_a_study_that_changed_is_read_again(runs, study):
    assert len(find_cells(study)) == 5 and find_cells(study)[0].study is find_cells(study)[0].study
    write_study(study, find_cells(runs)[:2])
    assert len(find_cells(study)) == 2


@pytest.mark.parametrize(
    "name", ["cells.jsonl", "curves.parquet", "samples.parquet", "rollouts.parquet", "arrays.parquet", "files.parquet"]
)
@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"PAR1"])
def test_damaged_files_are_one_sentence(study, name, content):
    (study / name).write_bytes(content)
    with pytest.raises(HarnessError, match=f"{name} is damaged"):
        for found in find_cells(study):
            found.curves(), found.samples(), found.rollouts(), found.arrays(), found.files()


def test_a_newer_record_is_refused_with_its_version(study):
    lines = (study / "cells.jsonl").read_text().split("\n")
    lines[0] = json.dumps(json.loads(lines[0]) | {"schema_version": 99})
    (study / "cells.jsonl").write_text("\n".join(lines))
    (newer,) = [cell for cell in find_cells(study) if isinstance(cell, DamagedCell)]
    with pytest.raises(HarnessError, match="schema version 99"):
        newer.read()
    assert len(find_cells(study)) == 5


@pytest.mark.parametrize(
    "array",
    [np.zeros((0, 3)), np.array(3.5), np.arange(6, dtype=">i4").reshape(2, 3), np.array([1 + 2j]), np.eye(3)[:, ::2]],
    ids=["empty", "scalar", "big-endian", "complex", "strided"],
)
def test_arrays_come_back(array):
    found = arrays_of(arrays_frame({3: {"x": array}}))[3]["x"]
    assert found.shape == array.shape and found.dtype == array.dtype.newbyteorder("<")
    assert np.array_equal(found, array)


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([object()])], ids=["texts", "objects"])
def test_arrays_hold_numbers(tmp_path, array):
    with pytest.raises(HarnessError, match="give it numbers"):
        cell(tmp_path).write_arrays({0: {"x": array}})


# ------------------------------------------------------------------------------------------------------------- packing


def test_new_cells_join_old_ones_and_equal_ones_are_kept_once(runs, study, tmp_path):
    cell(tmp_path / "more", "v", 3)
    shutil.copytree(runs / "tiny" / "u", tmp_path / "more" / "tiny" / "u")
    together = packed(open_study(study).cells, find_cells(tmp_path / "more"))
    assert sorted(str(place_of(found.read())) for found in together) == [
        *(f"tiny/t/r/seed{seed}-abc" for seed in (0, 1, 10)),
        *("tiny/u/r/seed0-abc", "tiny/u/r/seed1-abc", "tiny/v/r/seed3-abc"),
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.write(store.read().model_copy(update={"headline": 0.7})),
        lambda store: store.write_curves(store.read(), []),
        lambda store: store.write_samples(SAMPLES[:1]),
        lambda store: store.forget_rollouts(after=1),
        lambda store: store.write_arrays({0: ARRAYS[0]}),
        lambda store: store.write_file(8, "notes.bin", b""),
    ],
    ids=["record", "curves", "samples", "rollouts", "arrays", "files"],
)
def test_other_content_is_a_conflict_that_is_named(runs, study, change):
    store = find_cells(runs)[1]
    change(store)
    old = open_study(study).cells
    with pytest.raises(HarnessError, match=r"other content: tiny/t/r/seed1-abc; --replace"):
        packed(old, find_cells(runs))
    replaced = packed(old, find_cells(runs), replace=True)
    assert store in replaced and len(replaced) == len(old)


def test_a_running_cell_is_left_out(runs):
    cell(runs, "t", 5, status="running")
    assert len(packed([], find_cells(runs))) == 5


def test_a_failed_write_leaves_the_old_study(runs, study, monkeypatch):
    before = {path.name: path.read_bytes() for path in study.iterdir()}
    cell(runs, "v", 0)
    left = [3]

    def full(_):
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HarnessError, match="No space left"):
        write_study(study, find_cells(runs))
    assert {path.name: path.read_bytes() for path in study.iterdir()} == before


# --------------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `python -m harness ...`; returns (exit code, what it printed, what it complained)."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["harness", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return run


def test_pack_says_what_it_did(runs, tmp_path, command):
    cell(runs, "t", 5, status="running")
    code, out, _ = command("pack", runs, tmp_path / "new")
    assert code == 0 and "5 cells; " in out and "1 cells have not ended" in out
    files = [path for path in runs.rglob("*") if path.is_file()]
    assert f"{len(files)} files with {sum(path.stat().st_size for path in files):,} bytes before" in out
    assert f"6 files with {sum(path.stat().st_size for path in (tmp_path / 'new').iterdir()):,} bytes now" in out
    assert len(find_cells(tmp_path / "new")) == 5


def test_packing_twice_changes_nothing_and_what_is_there_stays(runs, study, command):
    (study / "README.md").write_text("kept")
    before = {path.name: path.read_bytes() for path in study.iterdir()}
    for source in (runs, study):
        assert command("pack", source, study)[0] == 0
        assert {path.name: path.read_bytes() for path in study.iterdir()} == before


def test_kept_rollouts_can_stay_behind(runs, tmp_path, command):
    study = tmp_path / "light"
    for _ in range(2):  # what differs in nothing else is no other content
        assert command("pack", runs, study, "--no-rollouts")[0] == 0
    assert not (study / "rollouts.parquet").exists() and (study / "samples.parquet").exists()


def test_what_was_packed_is_unpacked_by_merge(study, tmp_path, command):
    assert command("merge", study, "--out", tmp_path / "unpacked")[0] == 0
    assert command("pack", tmp_path / "unpacked", tmp_path / "again")[0] == 0
    for path in study.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_conflict_is_one_sentence_and_exit_code_two(runs, study, command):
    before = {path.name: path.read_bytes() for path in study.iterdir()}
    find_cells(runs)[0].write_samples([])
    code, _, err = command("pack", runs, study)
    assert code == 2 and "tiny/t/r/seed0-abc" in err and len(err.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in study.iterdir()} == before
    assert command("pack", runs, study, "--replace")[0] == 0
    assert find_cells(study)[0].samples() == []


@pytest.mark.parametrize("place", ["nowhere", "empty"])
def test_nothing_to_pack_is_one_sentence(tmp_path, command, place):
    (tmp_path / "empty").mkdir()
    code, _, err = command("pack", tmp_path / place, tmp_path / "study")
    assert code == 2 and err.startswith("Error: There ") and not (tmp_path / "study").exists()


def test_the_table_of_signals_is_printed_of_a_study_without_cells(command, tmp_path):
    folder = tmp_path / "study"
    shutil.copytree(ROOT / "reports" / "studies" / "fidelity", folder)
    code, out, _ = command("table", folder, "--markdown")
    assert code == 0 and out.startswith("### 67 (tiny)\n") and "| adam_metagrad | 0.60 " in out
    assert "own groups" in out and "No cells" not in out
    code, out, _ = command("table", folder)
    assert code == 0 and "adam_metagrad" in out and "No cells" not in out


# ----------------------------------------------------------------------------------------------------- the kept studies

KEPT = sorted(path for path in (ROOT / "reports" / "studies").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", KEPT, ids=lambda path: path.name)
def test_a_kept_study_is_a_few_files_beside_a_readme(folder):
    names = {path.name for path in folder.iterdir()}
    assert "README.md" in names and len(names) <= 12  # of a suite claims.json and theorem.json, too
    assert all((folder / name).is_file() for name in names)
    assert not {name.removesuffix(".csv") for name in names} & {
        name.removesuffix(".parquet") for name in names if name.endswith(".parquet")
    }


@pytest.mark.parametrize("folder", [path for path in KEPT if studies.is_study(path)], ids=lambda path: path.name)
def test_a_kept_study_is_as_pack_would_write_it(folder, tmp_path):
    cells = find_cells(folder)
    write_study(tmp_path, cells)
    assert (tmp_path / "cells.jsonl").read_bytes() == (folder / "cells.jsonl").read_bytes()
    wide, long = load(folder)
    packed_wide, packed_long = load(tmp_path)
    assert_frame_equal(relative(wide, folder), relative(packed_wide, tmp_path), check_exact=True)
    assert_frame_equal(long, packed_long, check_exact=True)


def test_only_code_is_packaged():
    """Results, assets and profiles lie in folders that setuptools must not take for packages."""
    import tomllib

    setuptools = pytest.importorskip("setuptools")
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    find = setuptools.find_namespace_packages if options.pop("namespaces", True) else setuptools.find_packages
    found = find(str(ROOT), **options)
    with_code = [name for name in found if any((ROOT / name.replace(".", "/")).glob("*.py"))]
    assert found == with_code and {"harness.store", "rewards.metagradient", "reports"} <= set(found)
    assert len(found) < 40
