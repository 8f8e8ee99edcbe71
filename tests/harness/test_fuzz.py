"""Whatever is handed in, a failure is a HarnessError: one sentence for the user, exit code 2, no traceback.

HARNESS_FUZZ_CASES sets the cases a test (scripts/robustness.py raises it); the default is for seconds.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from importlib import resources
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import assets
from harness.contracts import HarnessError
from harness.grid import plan_grid
from harness.planning.cells import CellPlan
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


def survives(call, *arguments):
    """The result, or None where the failure is one sentence. Anything else fails the test."""
    try:
        return call(*arguments)
    except HarnessError as error:
        assert str(error).strip() and len(str(error)) < 2000
        return None


def storable(plan: CellPlan) -> None:
    """What a plan is made into before anything runs."""
    record = plan.record()
    json.dumps(record.model_dump(), allow_nan=False).encode()
    CellStore.of(Path("runs"), record)


# ---------------------------------------------------------------------------------------------------- settings and YAML


@fuzz
@given(st.one_of(st.sampled_from(known_keys()), st.text(max_size=12), st.just("task.options.pattern")), yaml_texts)
def test_settings(key, text):
    found = survives(parse_assignment, f"{key}={text}")
    if found:
        plan = survives(lambda: plan_grid(load_profile("tiny"), ["67"], ["naive"], [0], dict([found]))[0])
        if plan:
            survives(storable, plan)


@fuzz
@given(st.dictionaries(st.sampled_from(known_keys()), values, max_size=4))
def test_assignments_of_any_type(assignments):
    survives(resolve, load_profile("tiny"), "lambada_es", "sgd_metagrad", assignments)


TINY = sorted((resources.files("harness") / "profiles" / "tiny").iterdir(), key=lambda file: file.name)
PROFILE = "".join(file.read_text(encoding="utf-8") for file in TINY)


@fuzz
@given(st.data())
def test_profiles(tmp_path, data):
    path = tmp_path / "mine.yaml"
    kind = data.draw(st.sampled_from(["bytes", "mutated", "edited", "text"]))
    if kind == "bytes":
        path.write_bytes(data.draw(st.binary(max_size=60)))
    elif kind == "mutated":
        path.write_bytes(mutated(PROFILE.encode(), data.draw))
    elif kind == "text":
        path.write_bytes(data.draw(yaml_texts).encode("utf-8", "surrogatepass"))
    else:
        path.write_text(json.dumps(edited(json.loads(json.dumps(yaml.safe_load(PROFILE))), data.draw)))
    profile = survives(load_profile, str(path))
    if profile:
        for plan in survives(plan_grid, profile, ["lambada_es"], ["embedding"], [0], {}) or []:
            survives(storable, plan)


# -------------------------------------------------------------------------------------------------------------- texts


@fuzz
@given(st.data())
def test_json_lines(tmp_path, data):
    path = tmp_path / "texts.jsonl"
    rows = data.draw(st.lists(st.one_of(values, st.fixed_dictionaries({"text": values, "split": values})), max_size=6))
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
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


@fuzz
@given(st.data())
def test_model_folders(model_folder, numbered, data):
    source, folder = model_folder(data.draw(st.sampled_from(["gpt2", "llama"]))), numbered()
    shutil.copytree(source, folder)
    for name in data.draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=2, unique=True)):
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
        survives(assets.check_model, str(folder))
        survives(assets.load_model, str(folder))
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


@fuzz
@given(st.data())
def test_results(tmp_path, data):
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    store = CellStore.of(tmp_path / "runs", RECORD)
    store.write(RECORD)
    store.write_curves(RECORD, ROWS)
    record, curves = store.folder / "cell.json", store.folder / "curves.parquet"
    kind = data.draw(st.sampled_from(["mutated", "edited", "bytes", "curves", "curves bytes"]))
    if kind == "mutated":
        record.write_bytes(mutated(record.read_bytes(), data.draw))
    elif kind == "edited":
        record.write_text(json.dumps(edited(RECORD.model_dump(), data.draw)))
    elif kind == "bytes":
        record.write_bytes(data.draw(st.binary(max_size=60)))
    elif kind == "curves":
        curves.write_bytes(mutated(curves.read_bytes(), data.draw))
    else:
        curves.write_bytes(data.draw(st.binary(max_size=60)))
    found = survives(load, tmp_path / "runs")
    if found:
        from reports import tables

        survives(tables.markdown, *found)


@fuzz
@given(st.data())
def test_checkpoints(tmp_path, data):
    """A changed file is never used: its content is not what its name says."""
    import torch

    shutil.rmtree(tmp_path / "checkpoints", ignore_errors=True)
    path = Checkpoints(tmp_path / "checkpoints").save(Checkpoint(3, {"a": torch.ones(4)}, {"b": 1}))
    before = path.read_bytes()
    changed = mutated(before, data.draw)
    path.write_bytes(changed)
    assert (read(path) is None) == (changed != before)
