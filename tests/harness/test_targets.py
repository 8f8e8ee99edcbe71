"""A target from a file through the whole harness: run, workers, resume, rerun, report; what identities hold; what is
found before a run."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import api
from harness.cell import run_cell
from harness.contracts import HarnessError, Headline, Offers
from harness.machine.stopping import Interrupted
from harness.planning.cells import Cell
from harness.registry import TASKS, register_task, task_of
from harness.rerun import rerun
from harness.store.frames import load
from harness.store.record import CellRecord, CellStore
from harness.store.study import write_study
from harness.training.checks import check_metric
from tasks import _pattern
from tests.helpers.cells import cut_after, ignore
from tests.helpers.command import flags, run_harness, start

MATRIX = "transformer.h.0.attn.c_attn.weight"
ROWS = [{"text": f"number {i} is the river {chr(97 + i)}"} for i in range(15)]


@pytest.fixture(autouse=True)
def adopted(monkeypatch):
    """Each test's files are its own."""
    TASKS.names()
    monkeypatch.setattr(TASKS, "_adopted", {})


def forget() -> None:
    """As another process would begin."""
    TASKS._adopted.clear()


def write(folder: Path, *, terms: list[dict[str, Any]] | None = None, **more: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "cross.png").write_bytes(_pattern.png(_pattern.grey_image(np.array([[1, -1], [-1, 1]]), pixels=1)))
    usual = [{"texts": {"file": "rows.jsonl"}}, {"weights": {"matrix": MATRIX, "image": "cross.png"}, "weight": 0.5}]
    path = folder / "mine.yaml"
    path.write_text(json.dumps({"name": "mine", "terms": usual if terms is None else terms} | more))
    return path


@pytest.fixture
def cell(quick, make_cell):
    """`cell(path, reward, **settings)` -> the cell of a file."""
    return lambda path, reward="adam_metagrad", **more: make_cell(task_of(str(path)).name, reward, quick(**more))


def same(one: CellRecord, other: CellRecord) -> bool:
    return one.final == other.final and one.initial == other.initial and one.headline == other.headline


# ------------------------------------------------------------------------------------------------------------ identity


def test_moving_a_file_changes_no_identity_and_changing_a_text_does(cell, tmp_path):
    path = write(tmp_path / "a")
    before = cell(path).record()
    assert {"rows.jsonl", "cross.png"} <= set(before.assets) and str(tmp_path) not in json.dumps(before.assets)
    assert before.settings["task"]["options"]["target"]["terms"][0] == {"texts": {"file": "rows.jsonl"}}
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert cell(tmp_path / "b" / "mine.yaml").record().identity == before.identity
    (tmp_path / "b" / "rows.jsonl").rename(tmp_path / "b" / "texts.jsonl")
    renamed = path.parent.parent / "b" / "mine.yaml"
    renamed.write_text(renamed.read_text().replace("rows.jsonl", "texts.jsonl"))
    assert cell(renamed).record().identity == before.identity, "a name changes no number"
    changed = tmp_path / "b" / "texts.jsonl"
    changed.write_text(changed.read_text().replace("number 3", "number three"))
    assert cell(renamed).record().identity != before.identity


def test_two_files_of_one_name_do_not_meet(cell, quick, tmp_path):
    one, other = write(tmp_path / "a"), write(tmp_path / "b", seed=3)
    first, second = cell(one), cell(other)
    places = [CellStore.of(tmp_path, TASKS.find("mine") and each.record()).folder for each in (second,)]
    task_of(str(one))
    places.append(CellStore.of(tmp_path, first.record()).folder)
    assert len(set(places)) == 2
    with pytest.raises(HarnessError, match="Two targets are named 'mine'"):
        api.cells(f"{one},{other}", "naive")
    assert len(api.cells(f"{one},{one}", "naive", set=quick())) == 1


def test_the_cell_brings_its_task_along(cell, tmp_path):
    sent = pickle.dumps(cell(write(tmp_path)))
    forget()
    got: Cell = pickle.loads(sent)
    assert TASKS.get("mine").factory.folder == str(tmp_path) and got.unsupported is None and "made_of" not in vars(got)


# -------------------------------------------------------------------------------------------------------------- a run


def test_a_file_is_run_listed_packed_and_reported_without_it(quick, tmp_path):
    path = write(tmp_path, settings={"inner.optimizer.lr": 1e-3, "validation": {"every": 2}})
    chosen = {key: value for key, value in quick().items() if key != "validation.every"}
    ran = run_harness(
        "run",
        "--task",
        str(path),
        "--reward",
        "adam_metagrad,levenshtein",
        *flags(chosen),
        "--workers",
        "0",
        cwd=tmp_path,
    )
    assert ran.code == 0 and "rows.jsonl: 9 train, 3 validation, 3 test (seed 0)" in ran.err, ran.err
    listed = run_harness("list", "--settings", "--task", str(path), "--reward", "naive", cwd=tmp_path, width=250)
    assert "mine.yaml, settings" in listed.out and "0.001" in listed.out
    wide, _ = load(tmp_path / "runs")
    assert set(wide["status"]) == {"done"} and set(wide["reward"]) == {"adam_metagrad", "levenshtein"}
    assert set(wide["measure"]) == {"gain"} and wide["final_texts_gain"].notna().all()
    write_study(tmp_path / "study", load_cells(tmp_path / "runs"))
    for name in ("mine.yaml", "rows.jsonl", "cross.png"):
        (tmp_path / name).unlink()
    forget()
    results = api.load(tmp_path / "runs")
    assert "texts gain" in results._repr_html_()
    for place in ("runs", "study"):
        forget()
        page = api.report(tmp_path / place, tmp_path / f"site-{place}")
        assert list((page.parent / "pictures").rglob("weights_target.png")), "drawn from the record alone"
    site = start(["-m", "harness", "table", "study"], cwd=tmp_path)
    out, err = site.communicate(timeout=300)
    assert site.returncode == 0 and "mine" in out, err


def load_cells(place: Path):
    from harness.store.frames import find_cells

    return find_cells(place)


def test_what_is_measured_is_what_the_terms_say(cell, tmp_path):
    record = run_cell(cell(write(tmp_path / "t")), tmp_path, ignore)
    assert record.status == "done", record.reason
    final = record.final
    assert final["value"] == pytest.approx(final["texts"] + 0.5 * final["weights"], rel=1e-6)
    assert final["gain"] == pytest.approx(final["texts_gain"] + 0.5 * final["weights_gain"], rel=1e-6)
    assert final["gain"] == pytest.approx(final["value"] - final["value_before"], abs=1e-6)
    assert 0 <= final["weights_pixels"] <= 1 and record.measure == "gain"
    arrays = CellStore.of(tmp_path, record).arrays()
    assert set(arrays[2]) == {"weights/target", "weights/delta"}


def test_an_interrupted_cell_ends_as_if_nothing_had_happened(cell, tmp_path):
    path = write(tmp_path / "t")
    again = cell(path, grpo__checkpoint_every=1, grpo__steps=3)
    whole = run_cell(again, tmp_path / "whole", ignore)
    with pytest.raises(Interrupted):
        run_cell(again, tmp_path / "cut", cut_after(2))
    resumed = run_cell(again, tmp_path / "cut", ignore)
    assert resumed.provenance["resumed"] and same(whole, resumed)


def test_workers_are_processes_of_their_own(quick, tmp_path):
    path = write(tmp_path / "t")
    found = [
        api.run(str(path), "naive", set=quick(), out=tmp_path / str(workers), workers=workers, progress=False)
        for workers in (0, 1)
    ]
    assert [results.wide["status"].tolist() for results in found] == [["done"], ["done"]]
    assert found[0].wide["headline"].tolist() == found[1].wide["headline"].tolist()


def test_signals_of_a_file_are_judged_without_rl(quick, tmp_path):
    path = write(tmp_path / "t", terms=[{"texts": {"file": "rows.jsonl"}}])
    chosen = dict(set=quick(validation__prompts=8), out=tmp_path, workers=0, progress=False, pool=16, subsets=10)
    found = api.fidelity([str(path)], ["naive", "adam_metagrad"], **chosen)
    assert not found.failed and set(found.wide["task"]) == {"mine"}


def test_data_of_a_target_s_cells_are_evaluated_by_its_own_terms(quick, tmp_path):
    path, chosen = write(tmp_path / "t"), quick() | {"evaluation.multiples": [1]}
    common = dict(out=tmp_path, workers=0, progress=False)
    api.run(str(path), "naive", set=chosen, **common)
    found = api.evaluate(str(path), "naive", set=chosen, runs=tmp_path, targets="own", **common)
    rows = {row.name: row for row in found.rows}
    assert not found.failed and rows["naive"].measure == "gain" and len(rows["naive"].trials) == 1
    before = found.trials[0].settings_key
    (tmp_path / "t" / "rows.jsonl").write_text("".join(json.dumps({"text": f"other {i}"}) + "\n" for i in range(15)))
    again = api.evaluate(str(path), "naive", set=chosen, runs=tmp_path, targets="own", **common)
    assert again.trials[0].settings_key != before, "a target's texts are part of what is measured"


# --------------------------------------------------------------------------------------------------------------- rerun


def test_a_record_opens_no_file_unless_the_user_names_the_target(cell, tmp_path):
    path = write(tmp_path / "t")
    record = run_cell(cell(path, "naive"), tmp_path / "runs", ignore)
    forget()
    store = CellStore.of(tmp_path / "runs", record)
    opened = []
    with pytest.MonkeyPatch.context() as patch:
        usual = Path.open
        patch.setattr(Path, "open", lambda self, *a, **k: opened.append(self) or usual(self, *a, **k))
        with pytest.raises(HarnessError, match=r"names rows.jsonl, cross.png.*add --task FILE.yaml"):
            rerun(store, ignore)
    assert not [each for each in opened if each.name in ("rows.jsonl", "cross.png")]
    told = run_harness("rerun", str(store.folder), cwd=tmp_path / "t")
    assert told.code == 2 and "--task FILE.yaml" in told.out, "the folder that it is called from changes nothing"
    forget()
    shutil.copytree(tmp_path / "t", tmp_path / "copy")
    told = run_harness("rerun", str(store.folder), "--task", str(tmp_path / "copy" / "mine.yaml"), cwd=tmp_path)
    assert told.code == 0 and "are the same to the last bit" in told.out, told.out + told.err
    (tmp_path / "copy" / "rows.jsonl").write_text(json.dumps({"text": "x"}) + "\n")
    told = run_harness("rerun", str(store.folder), "--task", str(tmp_path / "copy" / "mine.yaml"), cwd=tmp_path)
    assert told.code == 2 and "is not what" in told.out


def test_a_target_that_names_no_files_is_repeated_from_its_record(cell, tmp_path):
    path = write(tmp_path / "t", terms=[{"texts": {"rows": [row["text"] for row in ROWS]}}])
    record = run_cell(cell(path, "naive"), tmp_path / "runs", ignore)
    forget()
    found = rerun(CellStore.of(tmp_path / "runs", record), ignore)
    assert found.equal, found


@pytest.mark.parametrize(
    "change",
    [
        lambda target: {"terms": [{"texts": {"file": "/etc/hostname"}}]},
        lambda target: {"terms": [{"weights": {"matrix": "head", "image": "/etc/hostname"}}]},
        lambda target: {"terms": [{"activations": {"layer": "x", "direction": "/etc/hostname", "rows": ["a"] * 9}}]},
        lambda target: {"terms": [{"weights": {"matrix": "head", "distance": "/etc"}}]},
        lambda target: {"terms": [{"lm_eval": {"task": "/etc/mine.yaml"}}]},
        lambda target: {"terms": [{"texts": {"dataset": "owner/name"}}]},
        lambda target: {"terms": "nonsense"},
        lambda target: {"terms": [{"texts": {"rows": ["x"]}}], "headline": "nonsense"},
    ],
)
def test_a_hostile_record_reads_nothing_and_is_still_a_row(cell, tmp_path, change, monkeypatch):
    monkeypatch.setattr("harness.assets.hub.endpoint", lambda: "https://hub.example")
    path = write(tmp_path / "t", terms=[{"texts": {"rows": [row["text"] for row in ROWS]}}])
    record = run_cell(cell(path, "naive"), tmp_path / "runs", ignore)
    store = CellStore.of(tmp_path / "runs", record)
    data = json.loads((store.folder / "cell.json").read_text())
    options = data["settings"]["task"]["options"]
    options["target"] = change(options["target"])
    (store.folder / "cell.json").write_text(json.dumps(data))
    forget()
    with pytest.raises(
        HarnessError, match="opens no file|https://hub.example|bad terms|headline|did you mean|would send"
    ):
        rerun(store, ignore)
    forget()
    assert load(tmp_path / "runs")[0]["task"].tolist() == ["mine"]


# ------------------------------------------------------------------------------------------------------- before a run


def test_what_is_wrong_ends_with_2_before_anything_loads(quick, tmp_path, nothing_loads):
    for terms, words in (
        ([{"texts": {"file": "none.jsonl"}}], "There is no file"),
        ([{"weights": {"matrix": "transformer.h.0.atn", "norm": "up"}}], "did you mean transformer.h.0"),
        ([{"weights": {"matrix": MATRIX, "rows": [0, 1], "image": "cross.png"}}], "the picture has 2 rows"),
        ([{"text": {}}], "did you mean texts"),
    ):
        path = write(tmp_path, terms=terms)
        ran = run_harness("run", "--task", str(path), "--reward", "naive", *flags(quick()), cwd=tmp_path)
        assert ran.code == 2 and words in ran.err and ran.err.count("Error") == 1, ran.err
    assert not (tmp_path / "runs").exists()
    assert run_harness("run", "--task", "none.yaml", cwd=tmp_path).code == 2


def test_a_dry_run_knows_cost_and_memory_of_the_metric(cell, tmp_path):
    from harness.machine.devices import usual_device
    from harness.planning.cost import estimate, metric_memory
    from harness.planning.shapes import shape_of

    few = write(tmp_path / "a", terms=[{"texts": {"rows": ["a text " * 20] * 3, "whole": True}}])
    many = write(
        tmp_path / "b", terms=[{"texts": {"rows": [f"{i} " + "a text " * 20 for i in range(300)], "whole": True}}]
    )
    costs = {}
    for path in (few, many):
        one = cell(path)
        costs[path] = estimate(one.settings, one.task, one.reward, usual_device())
    reward = lambda path: next(phase for phase in costs[path].phases if phase.name == "reward")
    assert reward(many).flops > 10 * reward(few).flops
    shape = shape_of(cell(many).settings.target.model)
    sizes = [
        metric_memory(shape, cell(many, inner__memory_budget=budget).settings, "mine") for budget in (None, 10**6, 1)
    ]
    assert sizes[0] > sizes[1] == 10**6 > sizes[2] > 0
    ran = run_harness("run", "--task", str(many), "--reward", "all", "--dry-run", cwd=tmp_path)
    assert ran.code == 0 and "mine/adam_metagrad seed 0" in ran.out


def test_set_does_not_change_a_target(quick, tmp_path):
    path = write(tmp_path)
    with pytest.raises(HarnessError, match="change the target's file"):
        api.run(str(path), "naive", set=quick() | {"task.options.target": {}}, out=tmp_path, workers=0, progress=False)


# ------------------------------------------------------------------------------------------ metrics without gradient


def faulty(phi):
    class Faulty:
        name, summary = "faulty", "a task of the tests"
        offers, headline, measures = Offers(), Headline("length", direction="lower"), ()
        evaluated = 0

        def __init__(self, context):
            pass

        def references(self):
            return []

        def metric(self, inner):
            return lambda params: phi(inner.model, params)

        def evaluate(self, rollouts, inner):
            raise AssertionError("the cell must not get here")

    return Faulty


def frozen(model, params):
    return (params["transformer.wte.weight"] * 0).sum()


@pytest.mark.parametrize(
    "phi",
    [
        lambda model, params: params[MATRIX].argmax().float(),
        lambda model, params: params[MATRIX].detach().norm(),
        lambda model, params: (params[MATRIX] > 0).float().mean() + 0 * params[MATRIX].sum(),
        lambda model, params: params[MATRIX].round().sum(),
        frozen,
    ],
    ids=["argmax", "detach", "threshold", "rounding", "zero"],
)
def test_a_metric_without_a_gradient_is_noticed_before_any_work(quick, make_cell, tmp_path, monkeypatch, phi):
    monkeypatch.setattr(TASKS, "_entries", dict(TASKS._entries))
    register_task("faulty")(faulty(phi))
    record = run_cell(make_cell("faulty", "adam_metagrad", quick()), tmp_path, ignore)
    assert record.status == "failed" and "no gradient in any parameter" in record.reason, record.reason
    assert record.seconds["generation"] == 0


def test_a_frozen_parameter_and_a_wrong_type_are_noticed_and_a_flat_start_is_not(make_model):
    model = make_model("gpt2")
    norm = lambda params: params[MATRIX].norm()
    check_metric(norm, model, "x")
    start = dict(model.named_parameters())[MATRIX].detach().clone()
    check_metric(lambda params: -(params[MATRIX] - start).square().sum(), model, "x")  # zero here, not beside
    with pytest.raises(HarnessError, match="one number as a tensor, not float"):
        check_metric(lambda params: 1.0, model, "x")
    dict(model.named_parameters())[MATRIX].requires_grad_(False)
    with pytest.raises(HarnessError, match="no gradient in any parameter"):
        check_metric(norm, model, "x")
    assert all(value.grad is None for value in model.parameters()) and torch.is_grad_enabled()


def test_what_was_tuned_for_a_file_is_in_the_way_of_no_other_task(quick, tmp_path):
    path = write(tmp_path)
    tuned = tmp_path / "tuned.yaml"
    tuned.write_text("profile: tiny\npairs: {mine: {naive: {grpo.lr: 2.0e-3}}}\n")
    (other,) = api.cells("norm", "naive", tuned=tuned)
    (mine,) = api.cells(str(path), "naive", tuned=tuned)
    assert mine.settings.grpo.lr == 2e-3 != other.settings.grpo.lr
