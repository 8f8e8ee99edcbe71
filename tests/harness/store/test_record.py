"""The store: identity pinned, files whole or absent, damaged and newer results refused, tables complete."""

from __future__ import annotations

import json
import os

import pytest

from harness.contracts import HarnessError
from harness.settings.profiles import load_profile, resolve
from harness.store.atomic import StorageError, whole_folder, write_atomic
from harness.store.frames import find_cells, load
from harness.store.record import CellRecord, CellStore, identity

ASSETS = {"embedded:generator": "g", "embedded:target": "t", "embedded:articles": "a", "embedded:passages": "p"}
BASE = {
    "generator": {"model": "embedded:generator", "prompt": "<article>"},
    "target": {"model": "embedded:target"},
    "data": {"articles": "embedded:articles"},
    "grpo": {"steps": 2, "prompts_per_step": 4, "lr": 1e-4},
    "inner": {"optimizer": {"lr": 1e-5}},
}


def settings(**changes):
    from harness.settings.profiles import profile_from

    return resolve(profile_from({"name": "x", "summary": "", "settings": BASE}), "t", "r", changes)


def make(**changes) -> CellRecord:
    fields = dict(
        profile="tiny", task="t", reward="r", seed=1, identity="abc", status="done", measure="m", headline=0.5
    )
    return CellRecord(**(fields | changes))


def test_identity_is_pinned():
    """Changing this value orphans every stored result: raise IDENTITY_VERSION and say so in the commit."""
    assert identity("t", "r", 0, settings(), ASSETS) == "3e1f43475b"


@pytest.mark.parametrize(
    "change",
    [{"grpo.steps": 3}, {"inner.optimizer.lr": 2e-5}, {"task.options": {"text": "x"}}, {"generator.temperature": 0.9}],
)
def test_what_changes_numbers_changes_the_identity(change):
    assert identity("t", "r", 0, settings(**change), ASSETS) != identity("t", "r", 0, settings(), ASSETS)


def test_task_reward_seed_and_asset_content_change_the_identity():
    base = identity("t", "r", 0, settings(), ASSETS)
    others = [
        identity("u", "r", 0, settings(), ASSETS),
        identity("t", "s", 0, settings(), ASSETS),
        identity("t", "r", 1, settings(), ASSETS),
        identity("t", "r", 0, settings(), ASSETS | {"embedded:target": "other"}),
    ]
    assert len({base, *others}) == 5


def test_what_cannot_change_numbers_leaves_the_identity():
    base = identity("t", "r", 0, settings(), ASSETS)
    assert identity("t", "r", 0, settings(**{"validation.samples": 99, "inner.memory_budget": 10**9}), ASSETS) == base
    assert identity("t", "r", 0, settings(**{"inner.sharded": True}), ASSETS) == base
    assert identity("t", "r", 0, settings(**{"keep.rollouts": "all", "keep.generator": "none"}), ASSETS) == base
    moved = {("elsewhere" if ref == "embedded:target" else ref): content for ref, content in ASSETS.items()}
    assert identity("t", "r", 0, settings(**{"target.model": "elsewhere"}), moved) == base


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    write_atomic(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HarnessError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["file.json"]


def test_a_record_comes_back_and_tables_hold_every_measurement(tmp_path):
    record = make(final={"m": 0.5, "other": 2.0}, initial={"m": 0.1}, floor=0.1, seconds={"total": 3.0}, rollouts=16)
    store = CellStore.of(tmp_path, record)
    store.write(record)
    store.write_curves(record, [dict(step=0, phase="validation", measure="m", value=0.5, unit="", direction="higher")])
    store.write_samples([{"step": 0, "index": 0, "text": "Ünïcode"}])
    assert store.read() == record
    wide, long = load(tmp_path)
    assert wide.loc[0, ["headline", "floor", "seconds_total", "final_other", "rollouts"]].tolist() == [
        0.5,
        0.1,
        3.0,
        2.0,
        16,
    ]
    assert long.loc[0, "value"] == 0.5 and long.loc[0, "identity"] == "abc"
    assert [cell.folder for cell in find_cells(tmp_path)] == [store.folder]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"schema_version": "x"}', '{"schema_version": 1, "nope": 2}', "null"]
)
def test_damaged_records_are_rows_that_say_so(tmp_path, content):
    folder = CellStore.of(tmp_path, make()).folder
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(content)
    wide, long = load(tmp_path)
    assert wide.loc[0, "status"] == "damaged" and "cell.json" in wide.loc[0, "reason"] and long.empty
    assert list(wide.loc[0, ["task", "reward", "seed"]]) == [make().task, make().reward, make().seed]
    with pytest.raises(HarnessError):
        CellStore(folder).read()


def test_an_older_schema_migrates_step_by_step(tmp_path, monkeypatch):
    """A made-up history: version -1 called the floor `baseline`, version 0 had no direction."""
    from harness.store import record

    store = CellStore.of(tmp_path, make())
    store.write(make(floor=0.25))
    path = store.folder / "cell.json"
    data = json.loads(path.read_text())
    data["baseline"] = data.pop("floor")
    del data["direction"]
    path.write_text(json.dumps(data | {"schema_version": -1}))
    with pytest.raises(HarnessError, match="schema version -1, older than"):
        store.read()
    steps = {
        -1: lambda old: {("floor" if key == "baseline" else key): value for key, value in old.items()},
        0: lambda old: old | {"direction": "higher"},
    }
    monkeypatch.setattr(record, "MIGRATIONS", record.MIGRATIONS | steps)
    found = store.read()
    assert (found.schema_version, found.floor, found.direction) == (record.SCHEMA_VERSION, 0.25, "higher")
    assert len(load(tmp_path)[0]) == 1


def test_a_record_without_flops_is_read_and_has_none(tmp_path):
    """As version 1 stored them."""
    store = CellStore.of(tmp_path, make())
    store.write(make(flops={"update": 8.0}, floor_seconds={"update": 2.0}))
    wide, _ = load(tmp_path)
    assert (wide.loc[0, "flops_update"], wide.loc[0, "floor_seconds_update"]) == (8.0, 2.0)
    path = store.folder / "cell.json"
    data = json.loads(path.read_text())
    del data["flops"], data["floor_seconds"]
    path.write_text(json.dumps(data | {"schema_version": 1}))
    assert store.read().flops == {}
    wide, _ = load(tmp_path)
    assert wide.loc[0, ["flops_update", "floor_seconds_update"]].isna().all()


def test_a_record_of_a_cell_that_could_keep_no_generator_is_read(tmp_path):
    """As version 2 stored them."""
    store = CellStore.of(tmp_path, make())
    store.write(make())
    path = store.folder / "cell.json"
    data = {name: value for name, value in json.loads(path.read_text()).items() if not name.startswith("generator_")}
    path.write_text(json.dumps(data | {"schema_version": 2}))
    assert (store.read().generator_step, store.read().generator_sha256) == (None, "")


def test_a_folder_is_whole_or_as_it_was(tmp_path):
    place = tmp_path / "model"
    with whole_folder(place) as new:
        (new / "a").write_text("old")
    with pytest.raises(StorageError, match="No space left"), whole_folder(place) as new:
        (new / "a").write_text("half")
        raise OSError(28, "No space left on device")
    assert (place / "a").read_text() == "old"
    with whole_folder(place) as new:
        (new / "b").write_text("new")
    assert [path.name for path in place.iterdir()] == ["b"] and [path.name for path in tmp_path.iterdir()] == ["model"]


def test_every_older_schema_has_its_migration():
    from harness.store.record import MIGRATIONS, SCHEMA_VERSION

    assert set(MIGRATIONS) == set(range(1, SCHEMA_VERSION))


def test_a_newer_schema_is_refused_with_its_version(tmp_path):
    record = make()
    store = CellStore.of(tmp_path, record)
    store.write(record)
    data = json.loads((store.folder / "cell.json").read_text()) | {"schema_version": 99}
    (store.folder / "cell.json").write_text(json.dumps(data))
    with pytest.raises(HarnessError, match="schema version 99"):
        store.read()


def test_a_missing_folder_is_a_sentence(tmp_path):
    with pytest.raises(HarnessError, match="There is no folder"):
        load(tmp_path / "none")


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "/etc/x"])
def test_a_task_cannot_write_outside_its_folder(tmp_path, name):
    with pytest.raises(HarnessError, match="plain file name"):
        CellStore.of(tmp_path, make()).write_file(0, name, b"")


def test_tiny_resolves_to_plain_data():
    assert json.dumps(resolve(load_profile("tiny"), "lambada_es", "naive").model_dump(mode="json"))
