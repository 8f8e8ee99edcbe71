"""Several processes on one results folder: each cell runs once, and a dead owner's lock is free."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from harness.store import locks
from harness.store.atomic import StorageError
from harness.store.frames import load
from harness.workers.grid import CellJob, run_grid
from harness.workers.local import InProcess, _worker
from reports.store import store_tables
from tests.helpers.command import ROOT, forked, start


def hold(folder: str) -> subprocess.Popen:
    """A process that owns `folder` until it is killed."""
    code = (
        "import sys, time; from pathlib import Path; from harness.store import locks\n"
        "with locks.owned(Path(sys.argv[1]), wait=False) as ours:\n    print(ours, flush=True)\n    time.sleep(100)"
    )
    return start(["-c", code, folder], ROOT)


def test_a_lock_ends_with_its_owner(tmp_path):
    owner = hold(str(tmp_path))
    assert owner.stdout.readline().strip() == "True"
    with locks.owned(tmp_path, wait=False) as ours:
        assert not ours
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    with locks.owned(tmp_path, wait=False) as ours:
        assert ours
        with locks.owned(tmp_path, wait=False) as twice:
            assert not twice
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_hold_a_lock_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Cannot write"), locks.owned(tmp_path / "file" / "cell", wait=False):
        pass


def work(cells, runs, queue) -> None:
    """What one of two processes does: the grid, noting every cell that it began to train itself."""
    began = []

    def observe(cell, event):
        if event["event"] == "validation" and event["step"] == 0:
            began.append(cell.name)

    records = run_grid(cells, runs, observe, InProcess())
    store_tables(runs / "tiny")
    queue.put((began, [record.status for record in records]))


def test_two_processes_run_each_cell_once(quick, make_cell, tmp_path):
    cells = [make_cell("norm", reward, quick(), seed) for seed in (0, 1) for reward in ("naive", "adam_metagrad")]
    context = forked()
    queue = context.Queue()
    processes = [context.Process(target=work, args=(cells, tmp_path, queue)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [queue.get(timeout=300) for _ in processes]
    for process in processes:
        process.join()
    began = [name for names, _ in found for name in names]
    assert sorted(began) == sorted(cell.name for cell in cells)
    assert all(statuses == ["done"] * 4 for _, statuses in found)
    wide, long = load(tmp_path / "tiny")
    assert len(wide) == 4 and not long.duplicated(["identity", "step", "phase", "measure"]).any()
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".") or path.name == "checkpoints"]


def test_a_cell_of_another_process_is_left_to_it_and_taken_over_when_it_dies(quick, make_cell, tmp_path):
    from harness.store.record import CellStore

    cell = make_cell("norm", "naive", quick())
    owner = hold(str(CellStore.of(tmp_path, cell.record()).folder))
    assert owner.stdout.readline().strip() == "True"
    events = []

    def observe(_, event):
        events.append(event["event"])
        if event["event"] == "elsewhere":
            owner.send_signal(signal.SIGKILL)

    (record,) = run_grid([cell], tmp_path, observe, InProcess())
    assert record.status == "done" and events[:3] == ["start", "elsewhere", "start"]
    owner.wait()


def test_a_worker_whose_command_was_killed_does_not_say_that_the_user_stopped_it(
    quick, make_cell, tmp_path, monkeypatch
):
    """The pipe to a killed command is broken."""

    class Broken:
        def recv(self):
            return CellJob(make_cell("norm", "naive", quick(grpo__steps=2)), tmp_path), True

        def send(self, event):
            if event.get("step") == 1:
                raise BrokenPipeError

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    _worker(Broken(), lambda: None)
    wide, _ = load(tmp_path)
    assert list(wide["status"]) == ["interrupted"]
    assert wide.loc[0, "reason"] == "its command was killed or broke off after step 1"
