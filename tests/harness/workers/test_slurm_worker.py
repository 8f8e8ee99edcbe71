"""What one of Slurm's jobs does, in this process, and that jobs and records travel as JSON."""

from __future__ import annotations

import json
import signal

import pytest

from harness.cell import run_cell
from harness.contracts import HarnessError
from harness.evaluation.jobs import Data, TargetJob
from harness.evaluation.plan import plans
from harness.machine import stopping
from harness.machine.stopping import Interrupted
from harness.registry import Made
from harness.settings.profiles import load_profile
from harness.signals.records import Spec
from harness.signals.run import FidelityJob, fidelity_cells
from harness.store.record import CellStore
from harness.workers import slurm_worker as worker
from harness.workers.grid import CellJob
from harness.workers.ray_nodes import versions
from tests.harness.workers import test_executor as contract
from tests.helpers.cells import ignore


def test_a_worker_with_other_versions_says_where_it_is(tmp_path, monkeypatch):
    """The worker's life in this process: nothing of the job is begun."""
    monkeypatch.setenv("SLURMD_NODENAME", "n5")
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)]
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"known": versions() | {"torch": "0.1"}}))
    try:
        worker.run_order(str(order))
    finally:
        for number, handler in zip((signal.SIGTERM, signal.SIGINT, signal.SIGUSR2), before, strict=True):
            signal.signal(number, handler)
    begun, error = (json.loads(line) for line in order.with_suffix(".jsonl").read_text().splitlines() if line)
    assert (
        begun == {"event": "begin", "node": "n5"}
        and error["text"].startswith("Node n5 has torch ")
        and not error["full"]
    )


def test_every_kind_of_job_and_its_record_travel_as_json(make_cell, quick, tmp_path):
    cell = make_cell("norm", "naive", quick())
    (judged,) = fidelity_cells(load_profile("tiny"), ["norm"], ["naive"], [0], quick(), Spec(pool=16))
    (plan,) = plans(load_profile("tiny"), ["lambada_es"], ["naive"], [0], ["own"], {}, tmp_path, tmp_path)
    data = {(job.row, job.seed): Data(lacks=job.lacks, content={"a": 1}) for job in plan.sources}
    judging = [*plan.sources, *plan.rows(data), TargetJob(plan.targets[0], "like")]
    for job in (CellJob(cell, tmp_path, since="2026"), FidelityJob(judged, tmp_path), *judging):
        back = worker.decoded(json.loads(json.dumps(worker.encoded(job))))
        assert back == job and worker.key_of(back) == worker.key_of(job)
    assert worker.key_of(CellJob(cell, tmp_path, since="2027")) == worker.key_of(CellJob(cell, tmp_path, since="2026"))
    assert worker.key_of(CellJob(cell, tmp_path, "fresh")) != worker.key_of(CellJob(cell, tmp_path))
    record = cell.record()
    sent = json.loads(json.dumps(worker.encoded_record(CellJob(cell, tmp_path), record)))
    assert worker.decoded_record(CellJob(cell, tmp_path), sent) == record
    with pytest.raises(HarnessError, match="which is no job"):
        worker.decoded({"kind": worker.name_of(Made), "data": {}})


def test_what_a_task_of_a_file_is_made_of_travels_as_json(tmp_path):
    made = Made("mine", {"a": 1}, settings={(2, "grpo.lr"): 1e-4})
    back = worker.made_from(json.loads(json.dumps(worker.made_data(made))))
    assert back == made


def test_a_warning_ends_a_cell_after_its_step_with_a_checkpoint(quick, make_cell, tmp_path, monkeypatch):
    """And the cell that goes on from there is the one that was never warned."""
    for name, value in (("_stop_signal", None), ("_after_step", False)):
        monkeypatch.setattr(stopping, name, value)
    cell = make_cell("norm", "naive", quick(grpo__steps=3, grpo__checkpoint_every=10))
    whole = run_cell(cell, tmp_path / "whole", ignore)

    def warned(event):
        if event.get("step") == 1:
            stopping.request_save(signal.SIGUSR2, None)  # as in the middle of the second step

    with pytest.raises(Interrupted) as caught:
        run_cell(cell, tmp_path / "cut", warned)
    assert caught.value.args == (signal.SIGUSR2,)
    stored = CellStore.of(tmp_path / "cut", cell.record()).read()
    assert (stored.status, stored.reason) == ("interrupted", "told to end by the cluster after step 2")
    monkeypatch.setattr(stopping, "_stop_signal", None)
    monkeypatch.setattr(stopping, "_after_step", False)
    again = run_cell(cell, tmp_path / "cut", ignore)
    assert again.status == "done" and [entry["step"] for entry in again.provenance["resumed"]] == [2]
    assert contract.numbers(tmp_path / "whole") == contract.numbers(tmp_path / "cut")
    assert again.final == whole.final


def test_a_warning_outside_of_steps_and_ctrl_c_after_a_warning_end_at_once(monkeypatch):
    for name, value in (("_stop_signal", None), ("_after_step", False)):
        monkeypatch.setattr(stopping, name, value)
    with stopping.saves_after_step():
        stopping.request_save(signal.SIGTERM, None)
        assert stopping.ends_after_step() and stopping.stop_signal() == signal.SIGTERM
        with pytest.raises(Interrupted):
            stopping.request_stop(signal.SIGINT, None)
        assert not stopping.ends_after_step()
    monkeypatch.setattr(stopping, "_stop_signal", None)
    with pytest.raises(Interrupted) as caught:
        stopping.request_save(signal.SIGTERM, None)
    assert stopping.who_stopped(caught.value) == "told to end by the cluster"
    stopping.request_stop(signal.SIGINT, None)  # what is being stored is not disturbed
