"""Which cells are run and which are kept: one answer, whoever asks."""

from __future__ import annotations

import pytest

from harness import cell as cell_module
from harness.planning import view
from harness.planning.policy import kept, wanted
from harness.store.record import CellRecord, CellStore
from harness.workers.grid import CellJob

RUNS = {
    None: {"continue", "fresh", "retry-failed", "only-missing"},
    "running": {"continue", "fresh", "retry-failed"},
    "interrupted": {"continue", "fresh", "retry-failed"},
    "failed": {"fresh", "retry-failed"},
    "done": {"fresh"},
}
POLICIES = ("continue", "fresh", "retry-failed", "only-missing")
FINISHED = {"finished": "2026-01-01T00:00:00.000+00:00"}


@pytest.mark.parametrize(("status", "runs"), RUNS.items())
def test_what_each_option_runs(status, runs):
    stored = status and CellRecord(
        profile="p", task="t", reward="r", seed=0, identity="i", status=status, provenance=FINISHED
    )
    assert {policy for policy in POLICIES if wanted(stored, policy, "2026-01-02")} == runs


def test_fresh_does_not_repeat_what_another_worker_has_just_finished():
    stored = CellRecord(
        profile="p", task="t", reward="r", seed=0, identity="i", status="done", provenance={"finished": "2026-01-03"}
    )
    assert not wanted(stored, "fresh", "2026-01-02")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("status", RUNS)
def test_grid_cell_and_dry_run_give_the_same_answer(status, policy, quick, make_cell, tmp_path, monkeypatch):
    cell = make_cell("norm", "naive", quick())
    store = CellStore.of(tmp_path, cell.record())
    if status:
        store.write(cell.record().model_copy(update={"status": status, "provenance": FINISHED}))
    stays = policy not in RUNS[status]
    assert (kept(store, policy) is not None) == stays
    assert (CellJob(cell, tmp_path, policy).settled() is not None) == stays
    assert view.is_kept(cell, tmp_path, policy) == stays
    ran = []
    monkeypatch.setattr(cell_module, "_to_its_end", lambda one: ran.append(one) or one.record)
    record = cell_module.run_cell(cell, tmp_path, lambda event: None, policy=policy)
    assert len(ran) == (not stays) and record.status == (status if stays else "running")
