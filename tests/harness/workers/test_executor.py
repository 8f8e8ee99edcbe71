"""The executor interface: what the queue promises, kept by every executor, and a third one that a test brings along."""

from __future__ import annotations

import gc
import os
import queue
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.contracts import HarnessError
from harness.machine.libraries import importing
from harness.machine.stopping import Interrupted
from harness.registry import TASKS
from harness.settings.profiles import load_profile
from harness.signals.records import Spec
from harness.signals.run import fidelity_cells, run_all
from harness.store.atomic import StorageError
from harness.workers.executor import Executor, work
from harness.workers.grid import run_grid
from harness.workers.local import InProcess, Processes, local


class Threads(Executor):
    """A third executor: a thread a job, whose events come over one queue. The starts named in `dying` lose theirs."""

    def __init__(self, slots: int = 1, dying: tuple[int, ...] = ()) -> None:
        self.slots, self.dying, self.started = slots, dying, 0
        self.events: queue.Queue = queue.Queue()

    def start(self, number, job, *, wait):
        def live(dies: bool) -> None:
            if dies:
                return self.events.put((number, {"event": "lost", "reason": "the thread is gone"}))
            work(job, lambda event: self.events.put((number, event)), wait=wait)

        threading.Thread(target=live, args=(self.started in self.dying,)).start()
        self.started += 1

    def attend(self, tell):
        tell(*self.events.get())


def processes() -> Executor:
    """Two worker processes without what only the harness's own jobs need: they are up at once."""
    return Processes(2, prepare=nothing)


def nothing(threads: int, trust: bool) -> None:
    pass


EXECUTORS = {"in process": InProcess, "processes": processes, "threads": lambda: Threads(2)}


@dataclass(frozen=True)
class Toy:
    """A job that notes in `folder` who ran it and then does what `how` says."""

    name: str
    folder: Path
    how: str = "done"

    def settled(self):
        return "kept" if self.how == "kept" else None

    def run(self, tell, *, wait):
        if self.how == "elsewhere" and not wait:
            return None
        if self.how == "long":
            try:
                tell({"event": "step", "pid": os.getpid()})
                for _ in range(1000):
                    time.sleep(0.1)  # as a cell's: Ray's way to stop one does not end a long call
            except Interrupted:
                (self.folder / f"stopped-{self.name}").touch()
                raise
        with (self.folder / "ran").open("a") as file:
            file.write(f"{self.name}\n")
        tell({"event": "step", "pid": os.getpid(), "waited": wait})
        if self.how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "crashed":
            os._exit(3)
        if self.how == "refused":
            raise HarnessError("Nobody can do this.")
        if self.how == "full":
            raise StorageError("The disk is full.")
        return f"done {self.name}"

    def lost(self, reason):
        return f"lost: {reason}"


def jobs(folder: Path, *kinds: str) -> list[Toy]:
    return [Toy(f"{number}", folder, kind) for number, kind in enumerate(kinds)]


def ran(folder: Path) -> list[str]:
    return (folder / "ran").read_text().split() if (folder / "ran").exists() else []


@pytest.mark.parametrize("executor", EXECUTORS)
def test_records_come_in_order_and_what_another_process_has_comes_last(executor, tmp_path):
    told = []
    work = jobs(tmp_path, "elsewhere", "done", "kept", "done")
    records = EXECUTORS[executor]().run(work, lambda job, event: told.append((job.name, event)))
    assert records == ["done 0", "done 1", "kept", "done 3"]
    assert [name for name, event in told if event["event"] == "start"] == ["0", "1", "3", "0"]
    assert sorted(ran(tmp_path)) == ["0", "1", "3"]
    assert told[0] == ("2", {"event": "end", "record": "kept", "kept": True})  # before any worker is started
    mine = [event["event"] for name, event in told if name == "0"]
    assert mine == ["start", "elsewhere", "start", "step", "end"]
    assert [event["waited"] for _, event in told if event["event"] == "step"].count(True) == 1


@pytest.mark.parametrize("executor", EXECUTORS)
def test_nothing_to_do_starts_nothing(executor, tmp_path):
    made = EXECUTORS[executor]()
    made.start = None  # calling it would fail
    assert made.run([], print) == []
    assert made.run(jobs(tmp_path, "kept"), lambda job, event: None) == ["kept"]


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(("how", "kind"), [("refused", HarnessError), ("full", StorageError)])
def test_an_error_of_all_jobs_ends_the_run(executor, how, kind, tmp_path):
    """The jobs after it are not begun, and the error arrives as what it was."""
    made = EXECUTORS[executor]()
    made.slots = 1
    with pytest.raises(HarnessError) as caught:
        made.run(jobs(tmp_path, how, "done"), lambda job, event: None)
    assert type(caught.value) is kind
    assert ran(tmp_path) == ["0"]


def test_a_dead_worker_costs_its_job_only(tmp_path):
    told = []
    work = jobs(tmp_path, "killed", "done", "crashed", "done", "done")
    records = processes().run(work, lambda job, event: told.append((job.name, event)))
    assert records == [
        "lost: the worker process ended with code -9 (out of memory?)",
        "done 1",
        "lost: the worker process ended with code 3",
        "done 3",
        "done 4",
    ]
    ends = {name: event["record"] for name, event in told if event["event"] == "end"}
    assert ends == dict(zip("01234", records, strict=True))


def test_a_worker_is_fed_job_after_job(tmp_path):
    told = []
    processes().run(jobs(tmp_path, *["done"] * 5), lambda job, event: told.append(event))
    workers = {event["pid"] for event in told if event["event"] == "step"}
    assert len(workers) <= 2 and os.getpid() not in workers
    told.clear()
    local(0, 1).run(jobs(tmp_path, "done"), lambda job, event: told.append(event))
    assert [event["pid"] for event in told if event["event"] == "step"] == [os.getpid()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_stops_every_running_job_and_no_other_begins(number, tmp_path):
    before = signal.getsignal(number)
    steps = []

    def observe(job, event):
        if event["event"] == "step":
            steps.append(event["pid"])
            if len(steps) == 2:
                os.kill(os.getpid(), number)

    with pytest.raises(Interrupted) as caught:
        processes().run(jobs(tmp_path, "long", "long", "done"), observe)
    assert caught.value.args == (number,) and signal.getsignal(number) is before
    assert sorted(path.name for path in tmp_path.glob("stopped-*")) == ["stopped-0", "stopped-1"]
    assert ran(tmp_path) == []
    for pid in steps:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


# -------------------------------------------------------------------------------------- the real jobs on a third place


def numbers(runs: Path):
    """The tables of a results folder without times and memory."""
    from harness.store.frames import load

    wide, long = load(runs)
    long = long[~long["measure"].str.startswith("seconds")]
    columns = ["identity", "status", "headline", "floor", "steps_done", "rollouts", "zero_spread"]
    return wide[columns].to_dict("records"), long.to_dict("records")


def test_a_grid_on_a_third_executor_gives_the_same_table(quick, make_cell, tmp_path):
    cells = [make_cell("norm", reward, quick()) for reward in ("adam_metagrad", "naive")]
    ignore = lambda cell, event: None
    run_grid(cells, tmp_path / "here", ignore, InProcess())
    first = run_grid(cells, tmp_path / "there", ignore, Threads(dying=(1,)))
    assert [record.status for record in first] == ["done", "failed"]
    assert first[1].reason == "the thread is gone; --retry-failed resumes it"
    seen = []
    observe = lambda cell, event: seen.append((cell.reward, event["event"], event.get("kept")))
    again = run_grid(cells, tmp_path / "there", observe, Threads(), policy="retry-failed")
    assert [record.status for record in again] == ["done", "done"]
    assert seen[0] == ("adam_metagrad", "end", True) and ("adam_metagrad", "start", None) not in seen
    assert numbers(tmp_path / "here") == numbers(tmp_path / "there")


class Noting(Executor):
    """Starts one job at a time and says it is done; `started` are their names."""

    def __init__(self):
        self.started = []

    def start(self, number, job, *, wait):
        self.started.append(job.name)
        self.next = (number, job.cell.record())

    def attend(self, tell):
        number, record = self.next
        tell(number, {"event": "end", "record": record})


def test_the_dearest_cells_begin_first_and_records_keep_their_order(quick, make_cell, tmp_path):
    rewards = ("levenshtein", "naive", "adam_metagrad", "embedding", "sgd_metagrad")
    cells = [make_cell("lambada_es", reward, {}) for reward in rewards]
    cells.append(make_cell("lambada_es", "fasttext", {"grpo.steps": 900}))
    noting = Noting()
    records = run_grid(cells, tmp_path, lambda cell, event: None, noting)
    assert [record.reward for record in records] == [*rewards, "fasttext"]
    begun = [name.split("/")[1].split()[0] for name in noting.started]
    assert begun == ["fasttext", "adam_metagrad", "sgd_metagrad", "naive", "levenshtein", "embedding"]


def test_cells_of_an_earlier_turn_begin_before_dearer_ones(quick, make_cell, tmp_path):
    rewards = ("levenshtein", "naive", "adam_metagrad")
    noting = Noting()
    cells = [make_cell("lambada_es", reward, {}) for reward in rewards]
    records = run_grid(cells, tmp_path, lambda cell, event: None, noting, first=[0, 1, 1])
    assert [record.reward for record in records] == list(rewards)
    assert [name.split("/")[1].split()[0] for name in noting.started] == ["levenshtein", "adam_metagrad", "naive"]


def test_a_cell_whose_cost_is_not_known_runs_all_the_same(make_cell, tmp_path, monkeypatch):
    cells = [make_cell("lambada_es", reward, {}) for reward in ("embedding", "naive")]
    monkeypatch.setattr(TASKS.get("lambada_es").factory, "metric_cost", lambda options: 1 / 0)
    noting = Noting()
    assert len(run_grid(cells, tmp_path, lambda cell, event: None, noting)) == 2
    assert [name.split()[0] for name in noting.started] == ["lambada_es/embedding", "lambada_es/naive"]


def test_a_fidelity_on_a_third_executor_gives_the_same_records(quick, tmp_path):
    from harness.signals.records import load

    given = quick(grpo__rollouts_per_prompt=4, validation__prompts=8)
    spec = Spec(pool=16, subsets=10, removals=10, draws=2)
    cells = fidelity_cells(load_profile("tiny"), ["norm"], ["naive", "embedding"], [0, 1], given, spec)

    def stored(out: Path) -> list:
        """What was measured, without times."""
        kept = [(each.pool.texts, each.truths, [signal.model_copy() for signal in each.signals]) for each in load(out)]
        return [
            (texts, [truth.halves for truth in truths.values()], [(s.reward, s.status, s.rewards) for s in signals])
            for texts, truths, signals in kept
        ]

    said = []
    run_all(cells, tmp_path / "here", said.append, InProcess())
    assert "norm seed 0: naive: rewards" in said and said[-1] == "norm seed 1: done"
    first = run_all(cells, tmp_path / "there", said.append, Threads(dying=(0,)))
    assert [record.status for record in first] == ["failed", "unsupported", "done", "unsupported"]
    assert first[0].reason.startswith("the thread is gone")
    assert any(text.startswith("norm seed 0: 1 of 2 rewards failed: the thread is gone") for text in said)
    run_all(cells, tmp_path / "there", said.append, Threads())
    assert stored(tmp_path / "here") == stored(tmp_path / "there")


def test_a_comparison_that_loses_its_worker_keeps_what_was_through(quick, tmp_path):
    """What is stored stays; a reward whose truth is missing has not been through."""
    from harness.signals.run import FidelityJob

    given = quick(grpo__rollouts_per_prompt=4, validation__prompts=8)
    spec = Spec(pool=16, subsets=10, removals=10, draws=2)
    whole, more = (
        fidelity_cells(load_profile("tiny"), ["norm"], rewards, [0], given, spec)[0]
        for rewards in (["naive"], ["naive", "adam_metagrad"])
    )
    FidelityJob(whole, tmp_path).run(lambda event: None, wait=True)
    naive, other = FidelityJob(more, tmp_path).lost("it fell over")
    assert (naive.status, other.status) == ("done", "failed") and other.reason.startswith("it fell over")
    (again,) = FidelityJob(whole, tmp_path, fresh=True).lost("it fell over")
    assert again.status == "failed"
    path = whole.folder(tmp_path) / "reward-naive.json"
    assert '"status": "done"' in path.read_text()
    next(path.parent.glob("truth-*.json")).unlink()
    assert FidelityJob(whole, tmp_path).lost("it fell over")[0].status == "failed"


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_of_garbage_rests_while_libraries_are_imported_and_is_left_as_it_was(on):
    try:
        (gc.enable if on else gc.disable)()
        with pytest.raises(ImportError), importing():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == on
    finally:
        gc.enable()
