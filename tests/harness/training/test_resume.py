"""An interrupted cell resumes from its last whole checkpoint and ends bit for bit as if nothing had happened."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy
import pytest
import torch

from harness.cell import run_cell
from harness.machine import stopping
from harness.machine.stopping import Interrupted
from harness.settings.profiles import load_profile, resolve
from harness.store.atomic import StorageError
from harness.store.checkpoint import Checkpoint, Checkpoints
from harness.store.frames import load
from harness.store.record import CellStore, identity
from harness.training.resume import random_states, restore_random_states
from tests.helpers.cells import cut_after, ignore


def numbers(runs: Path):
    """Everything a report reads but times and memory: curves, samples, files, the record's results."""
    _, long = load(runs)
    timed = long["measure"].str.startswith("seconds")
    files = {}
    for path in sorted(runs.rglob("*")):
        if path.is_file() and path.name not in ("cell.json", "curves.parquet"):
            files[str(path.relative_to(runs))] = path.read_bytes()
    records = []
    for path in sorted(runs.rglob("cell.json")):
        record = json.loads(path.read_text())
        records.append(
            {
                key: record[key]
                for key in (
                    "status",
                    "headline",
                    "floor",
                    "final",
                    "initial",
                    "steps_done",
                    "rollouts",
                    "zero_spread",
                    "flops",
                    "notes",
                )
            }
        )
    return long[~timed].reset_index(drop=True), files, records


def assert_same(one: Path, two: Path) -> None:
    (curves, files, records), (other_curves, other_files, other_records) = numbers(one), numbers(two)
    assert records == other_records
    assert curves.equals(other_curves)
    assert files == other_files


# 24 articles less 4 held out are 10 steps of 2 prompts: 12 steps reach into the second epoch's order.
CUTS = {
    "mid epoch": ({"grpo__steps": 5, "grpo__checkpoint_every": 2}, [3]),
    "twice": ({"grpo__steps": 6, "grpo__checkpoint_every": 2}, [3, 5]),
    "at a checkpoint": ({"grpo__steps": 5, "grpo__checkpoint_every": 2}, [4]),
    "before the first": ({"grpo__steps": 3, "grpo__checkpoint_every": 2}, [1]),
    "end of an epoch": ({"grpo__steps": 12, "grpo__checkpoint_every": 10, "validation__every": 6}, [11, 12]),
    "second epoch": ({"grpo__steps": 13, "grpo__checkpoint_every": 11, "validation__every": 6}, [12]),
    "several updates, microbatches": (
        {"grpo__steps": 4, "grpo__checkpoint_every": 2, "grpo__updates_per_step": 2, "grpo__microbatch": 1},
        [3],
    ),
    "late warm-up of the target": (
        {"grpo__steps": 5, "grpo__checkpoint_every": 1, "inner__warmup_steps": 2, "inner__warmup_after": 3},
        [3, 5],
    ),
    "credit by token": ({"grpo__steps": 5, "grpo__checkpoint_every": 2, "reward__options": {"credit": "token"}}, [3]),
    "falling rate": ({"grpo__steps": 5, "grpo__checkpoint_every": 2, "grpo__lr_schedule": "linear"}, [3]),
}


@pytest.mark.parametrize("case", CUTS)
def test_a_cut_cell_ends_as_if_it_had_not_been_cut(case, quick, make_cell, tmp_path):
    changes, cuts = CUTS[case]
    changes = {"grpo__lr": 0.01, **changes}  # large steps, so that a lost state shows
    cell = make_cell("norm", "adam_metagrad", quick(**changes))
    assert run_cell(cell, tmp_path / "whole", ignore).status == "done"
    for cut in cuts:
        with pytest.raises(Interrupted):
            run_cell(cell, tmp_path / "cut", cut_after(cut))
    record = run_cell(cell, tmp_path / "cut", ignore)
    assert record.status == "done"
    every = changes["grpo__checkpoint_every"]
    went_on = [cut // every * every if cut % every else cut - every for cut in cuts]  # the cut comes before the writing
    assert [entry["step"] for entry in record.provenance.get("resumed", [])] == [step for step in went_on if step]
    assert_same(tmp_path / "whole", tmp_path / "cut")
    assert not list(tmp_path.rglob("checkpoints")) and not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("direction", ["higher", "lower"])
def test_a_cut_cell_still_knows_its_best_generator(direction, quick, make_cell, tmp_path, monkeypatch):
    """Headlines by step: the best, the first of two, comes before the checkpoint that the cell goes on from."""
    from dataclasses import replace

    from safetensors.torch import load_file

    from harness.training.generation import write
    from tasks.norm import Norm

    step, sign = [0], 1 if direction == "higher" else -1
    evaluate = Norm.evaluate

    def evaluated(self, rollouts, inner):
        found = evaluate(self, rollouts, inner)
        value = sign * {0: 9.0, 1: 1.0, 2: 5.0, 3: 2.0, 4: 5.0, 5: 3.0}[step[0]]
        return replace(found, values=dict.fromkeys(found.values, value))

    def noted(*given, seed, **more):
        step[0] = seed % 10_000
        return write(*given, seed=seed, **more)

    monkeypatch.setattr(Norm, "headline", replace(Norm.headline, direction=direction))
    monkeypatch.setattr(Norm, "evaluate", evaluated)
    monkeypatch.setattr("harness.training.generation.write", noted)
    changes = {"grpo__checkpoint_every": 2, "grpo__lr": 0.01}
    cell = make_cell("norm", "naive", quick(grpo__steps=5, keep__generator="best", **changes))
    whole = run_cell(cell, tmp_path / "whole", ignore)
    assert (whole.generator_step, whole.generator_headline, whole.headline) == (2, sign * 5.0, sign * 3.0)
    with pytest.raises(Interrupted):
        run_cell(cell, tmp_path / "cut", cut_after(5))
    record = run_cell(cell, tmp_path / "cut", ignore)
    assert record.provenance["resumed"][0]["step"] == 4
    assert_same(tmp_path / "whole", tmp_path / "cut")
    assert record.generator_sha256 == whole.generator_sha256
    two = run_cell(make_cell("norm", "naive", quick(grpo__steps=2, **changes)), tmp_path / "two", ignore)
    kept = [CellStore.of(tmp_path / place, of).folder for place, of in (("whole", whole), ("two", two))]
    best, last = (load_file(folder / "generator" / "model.safetensors") for folder in kept)
    assert all(torch.equal(best[name], last[name]) for name in best | last)


def test_a_cut_cell_has_the_arrays_of_every_evaluation_once(quick, make_cell, tmp_path):
    cell = make_cell("67", "naive", quick(grpo__steps=4, grpo__checkpoint_every=2, validation__every=1))
    record = run_cell(cell, tmp_path / "whole", ignore)
    with pytest.raises(Interrupted):
        run_cell(cell, tmp_path / "cut", cut_after(4))  # the arrays of step 3 are stored, the checkpoint is of step 2
    assert run_cell(cell, tmp_path / "cut", ignore).status == "done"
    assert_same(tmp_path / "whole", tmp_path / "cut")
    arrays = CellStore.of(tmp_path / "cut", record).arrays()
    assert list(arrays) == [0, 1, 2, 3, 4] and all(set(named) == {"target", "delta"} for named in arrays.values())


@pytest.mark.parametrize("family", ["llama", "qwen"])
def test_other_model_shapes_go_on(family, quick, make_cell, tmp_path):
    cell = make_cell("lambada_es", "naive", quick(family, grpo__steps=3, grpo__checkpoint_every=1, grpo__lr=0.01))
    run_cell(cell, tmp_path / "whole", ignore)
    with pytest.raises(Interrupted):
        run_cell(cell, tmp_path / "cut", cut_after(3))
    run_cell(cell, tmp_path / "cut", ignore)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_a_reward_that_remembers_is_brought_back(quick, make_cell, register_factory, tmp_path):
    class Counting:
        __name__ = "counting"

        def __init__(self):
            self.calls = 0

        def __call__(self, prompts, completions, completion_ids, **columns):
            self.calls += 1
            return [float(self.calls * len(ids)) for ids in completion_ids]

        def state_dict(self):
            return {"calls": self.calls}

        def load_state_dict(self, state):
            self.calls = state["calls"]

    register_factory("test_counting", lambda context: Counting())
    cell = make_cell("norm", "test_counting", quick(grpo__steps=4, grpo__checkpoint_every=2))
    run_cell(cell, tmp_path / "whole", ignore)
    with pytest.raises(Interrupted):
        run_cell(cell, tmp_path / "cut", cut_after(3))
    run_cell(cell, tmp_path / "cut", ignore)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def spoil_torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def spoil_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(bytes(data))


def spoil_empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("spoil", [spoil_torn, spoil_bit, spoil_empty])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(spoil, quick, make_cell, tmp_path):
    cell = make_cell("norm", "naive", quick(grpo__steps=4, grpo__checkpoint_every=1, grpo__lr=0.01))
    run_cell(cell, tmp_path / "whole", ignore)
    with pytest.raises(Interrupted):
        run_cell(cell, tmp_path / "cut", cut_after(4))
    kept = sorted((tmp_path / "cut").rglob("step-*.safetensors"))
    assert [path.name[:13] for path in kept] == ["step-00000002", "step-00000003"]
    spoil(kept[-1])
    record = run_cell(cell, tmp_path / "cut", ignore)
    (entry,) = record.provenance["resumed"]
    assert entry["step"] == 2 and entry["damaged"] == [kept[-1].name]
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_when_every_checkpoint_is_damaged_the_cell_starts_anew(quick, make_cell, tmp_path):
    cell = make_cell("norm", "naive", quick(grpo__steps=3, grpo__checkpoint_every=1))
    with pytest.raises(Interrupted):
        run_cell(cell, tmp_path, cut_after(3))
    for path in tmp_path.rglob("step-*.safetensors"):
        spoil_torn(path)
    record = run_cell(cell, tmp_path, ignore)
    assert record.status == "done" and "resumed" not in record.provenance


# ---------------------------------------------------------------------------------------------------- without a runner


def test_checkpoints_keep_two_and_read_back(tmp_path):
    store = Checkpoints(tmp_path / "checkpoints")
    assert store.newest() == (None, [])
    for step in (1, 2, 10):
        state = {"value": 0.1 + step, "text": "ñ", "nothing": None}
        store.save(Checkpoint(step, {"a": torch.full((2, 3), step), "b": torch.ones(2, dtype=torch.bfloat16)}, state))
    assert [path.name[:13] for path in sorted(store.folder.iterdir())] == ["step-00000002", "step-00000010"]
    found, damaged = store.newest()
    assert found.step == 10 and damaged == [] and found.state == {"value": 10.1, "text": "ñ", "nothing": None}
    assert torch.equal(found.tensors["a"], torch.full((2, 3), 10)) and found.tensors["b"].dtype == torch.bfloat16


def test_a_checkpoint_that_cannot_be_written_is_one_sentence_and_leaves_the_older_ones(tmp_path):
    import resource

    store = Checkpoints(tmp_path / "checkpoints")
    store.save(Checkpoint(1, {"a": torch.zeros(10)}, {}))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))  # as a full disk: the write ends in the middle
    try:
        with pytest.raises(StorageError, match="make room"):
            store.save(Checkpoint(2, {"a": torch.zeros(100_000)}, {}))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(list(store.folder.iterdir())) == 1 and store.newest()[0].step == 1


def test_random_states_come_back():
    tensors, state = random_states()
    draw = lambda: (
        random.random(),
        random.gauss(0, 1),
        numpy.random.standard_normal(3).tolist(),
        torch.rand(3)[0].item(),
    )
    first = draw()
    restore_random_states(tensors, json.loads(json.dumps(state)))
    assert draw() == first


def test_the_cadence_is_no_part_of_the_identity():
    base = load_profile("tiny")
    views = [resolve(base, "norm", "naive", {"grpo.checkpoint_every": every}) for every in (0, 8)]
    assert len({identity("norm", "naive", 0, view, {}) for view in views}) == 1


def test_failed_cells_are_kept_until_asked_for_and_then_go_on(quick, make_cell, register, tmp_path):
    broken = [True]

    def reward(prompts, completions, completion_ids, **columns):
        reward.calls += 1
        if broken[0] and reward.calls == 3:
            raise RuntimeError("the service is down")
        return [float(len(ids)) for ids in completion_ids]

    reward.calls = 0
    register("test_flaky", reward)
    cell = make_cell("norm", "test_flaky", quick(grpo__steps=4, grpo__checkpoint_every=1))
    assert run_cell(cell, tmp_path, ignore).status == "failed"
    broken[0] = False
    assert run_cell(cell, tmp_path, ignore).status == "failed"
    record = run_cell(cell, tmp_path, ignore, policy="retry-failed")
    assert record.status == "done" and record.reason == "" and record.provenance["resumed"][0]["step"] == 2
    assert not (CellStore.of(tmp_path, record).folder / "error.txt").exists()


def test_a_signal_that_a_library_swallowed_ends_the_cell_with_its_number(quick, make_cell, tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_stop_signal", 15)
    with pytest.raises(Interrupted) as caught:
        run_cell(make_cell("norm", "naive", quick()), tmp_path, ignore)
    assert caught.value.args == (15,)
