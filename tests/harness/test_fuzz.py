"""Whatever is handed in, a failure is a HarnessError: one sentence for the user, exit code 2, no traceback.

HARNESS_FUZZ_CASES sets the cases a test (scripts/robustness.py raises it); the default is for seconds.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import assets
from harness.contracts import HarnessError
from harness.grid import cross_product
from harness.planning.cells import Cell
from harness.settings.profiles import known_keys, load_profile, parse_assignment, resolve
from harness.store.checkpoint import Checkpoint, Checkpoints, read
from harness.store.frames import load
from harness.store.record import CellRecord, CellStore

CASES = int(os.environ.get("HARNESS_FUZZ_CASES", "40"))
fuzz = settings(
    max_examples=CASES,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from([-1, 0, 10**30, "", "../../x", "\x00", "embedded:", "@", "a@b@c", "/", "~", "1e400"]),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
yaml_texts = st.one_of(
    st.text(max_size=30),
    values.map(json.dumps),
    st.sampled_from(
        [
            "2024-01-01",
            "!!binary aGk=",
            "!!set {a}",
            "[" * 3000,
            ".inf",
            ".nan",
            "&a [*a]",
            "!!python/none",
            "0x",
            "{a: 1, a: 2}",
            "? [1]\n: 2",
            "*x",
            "%",
            "\udc80",
            "1_0",
            "12:30:45",
        ]
    ),
)


def mutated(data: bytes, draw) -> bytes:
    """A few bytes changed, removed, doubled, or the end cut off."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(changed) - 1)))
        length = draw(st.integers(0, 40))
        how = draw(st.sampled_from(["set", "remove", "insert", "cut"]))
        if how == "set" and changed:
            changed[place] = draw(st.integers(0, 255))
        elif how == "remove":
            del changed[place : place + length]
        elif how == "insert":
            changed[place:place] = draw(st.binary(max_size=20))
        else:
            del changed[place:]
    return bytes(changed)


def edited(document, draw):
    """A JSON document with a few of its parts replaced, removed or renamed."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        node, parent, key = document, None, None
        while isinstance(node, dict | list) and node and (parent is None or draw(st.booleans())):
            parent, key = node, draw(st.sampled_from(sorted(node) if isinstance(node, dict) else range(len(node))))
            node = node[key]
        if parent is None:
            return draw(values)
        how = draw(st.sampled_from(["replace", "remove", "rename"]))
        if how == "replace" or isinstance(parent, list):
            parent[key] = draw(values)
        elif how == "remove":
            del parent[key]
        else:
            parent[draw(st.text(max_size=8))] = parent.pop(key)
    return document


OUTCOMES: Counter[str] = Counter()
"""How often the calls of the test that runs now worked and were refused."""


@pytest.fixture
def both_outcomes():
    """The test must see calls that work beside calls that are refused; else it shows nothing."""
    OUTCOMES.clear()
    yield
    assert CASES < 40 or min(OUTCOMES["worked"], OUTCOMES["refused"]) >= 3, OUTCOMES


def survives(call, *arguments, must_work: bool = False):
    """The result, or None where the failure is one sentence. Anything else fails the test, and so does a refusal of
    what must work."""
    try:
        result = call(*arguments)
    except HarnessError as error:
        assert str(error).strip() and len(str(error)) < 2000
        assert not must_work, f"refused: {error}"
        OUTCOMES["refused"] += 1
        return None
    OUTCOMES["worked"] += 1
    return result


def storable(cell: Cell) -> None:
    """What a plan is made into before anything runs."""
    record = cell.record()
    json.dumps(record.model_dump(), allow_nan=False).encode()
    CellStore.of(Path("runs"), record)


# ---------------------------------------------------------------------------------------------------- settings and YAML


@pytest.mark.usefixtures("both_outcomes")
@fuzz
@given(st.one_of(st.sampled_from(known_keys()), st.text(max_size=12), st.just("task.options.pattern")), yaml_texts)
def test_settings(key, text):
    found = survives(parse_assignment, f"{key}={text}")
    if found:
        cell = survives(lambda: cross_product(load_profile("tiny"), ["67"], ["naive"], [0], dict([found]))[0])
        if cell:
            survives(storable, cell)


def own_value(key: str):
    """What the profile itself gives this setting."""
    value = resolve(load_profile("tiny"), "67", "naive").model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize("key", known_keys())
def test_a_profiles_own_value_of_every_setting_is_taken(key):
    found = parse_assignment(f"{key}={json.dumps(own_value(key))}")
    assert found[0] == key and cross_product(load_profile("tiny"), ["67"], ["naive"], [0], dict([found]))


@pytest.mark.usefixtures("both_outcomes")
@fuzz
@given(st.dictionaries(st.sampled_from(known_keys()), st.just(own_value) | values, max_size=4))
def test_assignments_of_any_type(assignments):
    own = all(value is own_value for value in assignments.values())
    assigned = {key: own_value(key) if value is own_value else value for key, value in assignments.items()}
    survives(resolve, load_profile("tiny"), "67", "naive", assigned, must_work=own)


TINY = sorted((resources.files("harness") / "profiles" / "tiny").iterdir(), key=lambda file: file.name)
PROFILE = "".join(file.read_text(encoding="utf-8") for file in TINY)


@pytest.mark.usefixtures("both_outcomes")
@fuzz
@given(st.data())
def test_profiles(tmp_path, data):
    path = tmp_path / "mine.yaml"
    kind = data.draw(st.sampled_from(["as it is", "bytes", "mutated", "edited", "text"]))
    if kind == "as it is":
        path.write_text(PROFILE)
    elif kind == "bytes":
        path.write_bytes(data.draw(st.binary(max_size=60)))
    elif kind == "mutated":
        path.write_bytes(mutated(PROFILE.encode(), data.draw))
    elif kind == "text":
        path.write_bytes(data.draw(yaml_texts).encode("utf-8", "surrogatepass"))
    else:
        path.write_text(json.dumps(edited(json.loads(json.dumps(yaml.safe_load(PROFILE))), data.draw)))
    whole = kind == "as it is"
    profile = survives(load_profile, str(path), must_work=whole)
    if profile:
        for cell in survives(cross_product, profile, ["lambada_es"], ["embedding"], [0], {}, must_work=whole) or []:
            survives(storable, cell, must_work=whole)


# -------------------------------------------------------------------------------------------------------------- texts


@pytest.mark.usefixtures("both_outcomes")
@fuzz
@given(st.data())
def test_json_lines(tmp_path, data):
    path = tmp_path / "texts.jsonl"
    rows = data.draw(st.lists(st.one_of(values, st.fixed_dictionaries({"text": values, "split": values})), max_size=6))
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if data.draw(st.integers(0, 4)) == 0:  # rows that are as they should be
        texts = data.draw(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=3))
        path.write_text("".join(json.dumps({"text": each}) + "\n" for each in texts))
        assert survives(lambda: assets.texts(str(path), split=None), must_work=True) == texts
        return
    path.write_bytes(data.draw(st.sampled_from([text, mutated(text, data.draw), data.draw(st.binary(max_size=60))])))
    for split in (None, "train", "validation", "test"):
        found = survives(lambda split=split: assets.texts(str(path), split=split))
        assert found is None or all(isinstance(item, str) and item.strip() for item in found)


# --------------------------------------------------------------------------------------------- models and tokenizers


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A new folder name for each case: checks are cached by name."""
    root, count = tmp_path_factory.mktemp("models"), iter(range(10**9))
    return lambda: root / str(next(count))


FILES = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors", "generation_config.json"]


@pytest.mark.usefixtures("both_outcomes")
@fuzz
@given(st.data())
def test_model_folders(model_folder, numbered, data):
    source, folder = model_folder(data.draw(st.sampled_from(["gpt2", "llama"]))), numbered()
    shutil.copytree(source, folder)
    changed = data.draw(st.lists(st.sampled_from(FILES), max_size=2, unique=True))
    for name in changed:
        path = folder / name
        how = data.draw(st.sampled_from(["mutated", "edited", "removed", "bytes"]))
        if how == "removed":
            path.unlink()
        elif how == "edited" and name.endswith(".json"):
            path.write_text(json.dumps(edited(json.loads(path.read_text()), data.draw)))
        elif how == "bytes":
            path.write_bytes(data.draw(st.binary(max_size=60)))
        else:
            path.write_bytes(mutated(path.read_bytes(), data.draw))
    try:
        survives(assets.check_model, str(folder), must_work=not changed)
        survives(assets.load_model, str(folder), must_work=not changed)
    finally:
        shutil.rmtree(folder)


# ------------------------------------------------------------------------------------------------------------- results

RECORD = CellRecord(
    profile="tiny",
    task="norm",
    reward="naive",
    seed=0,
    identity="abc",
    status="done",
    headline=0.5,
    final={"m": 0.5},
    seconds={"total": 1.0},
    provenance={"commit": "c", "packages": {"torch": "2"}},
    measure="m",
)
ROWS = [{"step": 0, "phase": "train", "measure": "m", "value": 1.0, "unit": "", "direction": ""}]


@pytest.mark.usefixtures("both_outcomes")
@fuzz
@given(st.data())
def test_results(tmp_path, data):
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    store = CellStore.of(tmp_path / "runs", RECORD)
    store.write(RECORD)
    store.write_curves(RECORD, ROWS)
    record, curves = store.folder / "cell.json", store.folder / "curves.parquet"
    kind = data.draw(st.sampled_from(["as it is", "mutated", "edited", "bytes", "curves", "curves bytes"]))
    if kind == "mutated":
        record.write_bytes(mutated(record.read_bytes(), data.draw))
    elif kind == "edited":
        record.write_text(json.dumps(edited(RECORD.model_dump(), data.draw)))
    elif kind == "bytes":
        record.write_bytes(data.draw(st.binary(max_size=60)))
    elif kind == "curves":
        curves.write_bytes(mutated(curves.read_bytes(), data.draw))
    elif kind == "curves bytes":
        curves.write_bytes(data.draw(st.binary(max_size=60)))
    from reports import tables

    wide, long = survives(load, tmp_path / "runs", must_work=True)  # what is damaged is a row that says so
    survives(tables.markdown, wide, long, must_work=True)
    if (wide["status"] == "damaged").any():
        assert kind != "as it is"
        OUTCOMES["refused"] += 1


@fuzz
@given(st.data())
def test_checkpoints(tmp_path, data):
    """A changed file is never used: its content is not what its name says."""
    import torch

    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    path = Checkpoints(tmp_path / "checkpoints").save(Checkpoint(3, {"a": torch.ones(4)}, {"b": 1}))
    before = path.read_bytes()
    assert read(path).state == {"b": 1}
    changed = mutated(before, data.draw)
    path.write_bytes(changed)
    assert (read(path) is None) == (changed != before)
