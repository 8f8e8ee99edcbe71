"""Slurm as an executor: what the command does with what Slurm and the workers say, on a pretended Slurm; and a worker's
whole life, through submitit's local executor. scripts/slurm_check.py runs a real Slurm."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.contracts import HarnessError
from harness.machine.stopping import Interrupted
from harness.store import locks
from harness.store.atomic import StorageError
from harness.workers import slurm as place
from harness.workers.slurm_site import FOLDER
from harness.workers.slurm_worker import key_of, run_order
from tests.harness.workers import test_executor as contract
from tests.helpers.command import ROOT

pytestmark = pytest.mark.skipif(find_spec("submitit") is None, reason="needs the extra slurm")


@dataclass(frozen=True)
class Work:
    """A job that is never run here: what its workers tell is written by the test."""

    name: str
    folder: str = ""

    def settled(self) -> None:
        return None

    def run(self, tell: Callable[[dict], None], *, wait: bool) -> str:
        raise AssertionError("the test tells what it would")

    def lost(self, reason: str) -> str:
        return f"lost: {reason}"

    def stopped(self) -> None:
        Path(self.folder, f"stopped-{self.name}").touch()


@dataclass(frozen=True)
class Stored(Work):
    """The same with a folder of its own."""

    def stores(self) -> tuple[Path, Path]:
        return Path(self.folder), Path(self.folder, f"cell-{self.name}")


class Pretended:
    """A Slurm whose jobs do what the test says: of each job, (the lines that its worker tells, the state that it then
    has) for one sending after the other."""

    def __init__(self, **lives: list[tuple[list[dict], str]]) -> None:
        self.lives, self.sent, self.stopped, self.ended = lives, [], [], []
        self.known: dict[str, place.State] = {}
        self.answers = True

    def send(self, logs, orders, asked):
        self.sent.append((logs, orders, asked))
        numbers = [f"{len(self.sent)}_{index}" for index in range(len(orders))]
        for number, order in zip(numbers, orders, strict=True):
            lines, state = self.lives[json.loads(order.read_text())["job"]["data"]["name"]].pop(0)
            node = "" if state == "PENDING" else "n7"
            self.known[number] = place.State(state, node)
            tell(order, *lines)
        return numbers

    def states(self):
        return dict(self.known) if self.answers else None

    def stop(self, numbers):
        self.stopped += numbers
        self.known = {}

    def end(self, numbers):
        self.ended += numbers


def tell(order: Path, *lines: dict | str) -> None:
    with order.with_suffix(".jsonl").open("a") as file:
        file.writelines(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)


def begin(node: str) -> dict:
    return {"event": "begin", "node": node}


STEP = {"event": "step", "step": 1, "of": 2, "headline": None}
END = {"event": "end", "record": "done"}


@pytest.fixture
def at_once(monkeypatch):
    for name in ("POLL", "ASK", "LATE"):
        monkeypatch.setattr(place, name, 0.0)


def run(slurm, tmp_path, *names: str, kind: type[Work] = Work, observe=None, **options):
    """(records, [(job, event)])"""
    told = []
    made = place.Slurm(tmp_path, commands=slurm, **options)
    work = [kind(name, str(tmp_path)) for name in names]

    def see(job, event):
        told.append((job.name, event))
        if observe:
            observe(job, event)

    return made.run(work, see), told


# ------------------------------------------------------------------------------------------------- on a pretended Slurm


def test_all_jobs_are_one_array_and_nothing_is_left_behind(at_once, tmp_path):
    slurm = Pretended(a=[([begin("n1"), STEP, END], "COMPLETED")], b=[([begin("n2"), END], "COMPLETED")])
    records, told = run(slurm, tmp_path, "a", "b", most=3, threads=2)
    assert records == ["done", "done"]
    assert told == [("a", {"event": "start"}), ("a", STEP), ("a", END), ("b", {"event": "start"}), ("b", END)]
    ((_, orders, asked),) = slurm.sent
    assert len(orders) == 2 and asked["array_parallelism"] == 3 and asked["cpus_per_task"] == 2
    assert "export OMP_NUM_THREADS=2" in asked["setup"] and asked["additional_parameters"] == {"requeue": True}
    assert list(tmp_path.iterdir()) == []


def test_a_lost_job_is_sent_again_and_a_requeued_one_is_waited_for(at_once, tmp_path):
    lives = [([begin("n1"), STEP], "NODE_FAIL"), ([begin("n2"), "cut", "\n", begin("n3"), END], "COMPLETED")]
    records, told = run(Pretended(a=lives), tmp_path, "a")
    assert records == ["done"]
    assert [event["event"] for _, event in told] == ["start", "step", "again", "again", "end"]
    reasons = [event["reason"] for _, event in told if event["event"] == "again"]
    assert reasons == [
        "its Slurm job 1_0 on node n1 ended without a result (NODE_FAIL)",
        "its Slurm job 2_0 on node n3 was requeued by Slurm",
    ]


def test_a_job_that_is_lost_three_times_without_a_step_has_failed(at_once, tmp_path, monkeypatch):
    monkeypatch.setattr(place.Sent, "log", tmp_path / "log")
    (tmp_path / "log").write_text("submitit INFO begins\nslurmstepd: Detected 1 oom_kill event\nsrun: got SIGCONT\n")
    slurm = Pretended(a=[([begin("n1"), STEP], "TIMEOUT"), *[([begin("n1")], "OUT_OF_MEMORY")] * 5])
    (record,), told = run(slurm, tmp_path, "a")
    assert record == (
        "lost: its Slurm job 3_0 on node n1 ended without a result (OUT_OF_MEMORY: slurmstepd: Detected 1 oom_kill "
        "event)"
    )
    assert [event["event"] for _, event in told].count("again") == place.LOSSES - 1
    assert list(tmp_path.glob(f"{FOLDER}/*/logs"))  # they say why


def test_who_cancels_a_job_does_not_want_it_again(at_once, tmp_path):
    slurm = Pretended(a=[([begin("n1"), STEP], "CANCELLED")], b=[([begin("n1"), END], "COMPLETED")])
    records, _ = run(slurm, tmp_path, "a", "b")
    assert records == ["lost: its Slurm job 1_0 on node n1 ended without a result (CANCELLED)", "done"]
    assert len(slurm.sent) == 1


def test_what_is_seen_late_counts(tmp_path, monkeypatch):
    """A job that has ended may have told something that is not seen here yet."""
    monkeypatch.setattr(place, "POLL", 0.0)
    monkeypatch.setattr(place, "ASK", 0.0)
    slurm = Pretended(a=[([], "COMPLETED")])
    states, asked = slurm.states, []

    def late():
        asked.append(1)
        if len(asked) == 4:
            tell(slurm.sent[0][1][0], begin("n1"), END)
        return states()

    slurm.states = late
    records, told = run(slurm, tmp_path, "a")
    assert records == ["done"] and [event["event"] for _, event in told] == ["start", "end"]


@pytest.mark.parametrize(
    ("line", "kind", "said"),
    [
        ({"text": "Nobody can do this.", "full": False}, HarnessError, "Nobody can do this."),
        ({"text": "Cannot write x: full.", "full": True}, StorageError, "On node n4: Cannot write x: full."),
    ],
)
def test_what_concerns_all_jobs_ends_the_run_and_stops_the_others(line, kind, said, at_once, tmp_path):
    error = {"event": "error", "node": "n4"} | line
    slurm = Pretended(a=[([begin("n4"), error], "RUNNING")], b=[([begin("n5"), STEP], "RUNNING")])
    with pytest.raises(HarnessError) as caught:
        run(slurm, tmp_path, "a", "b")
    assert type(caught.value) is kind and str(caught.value) == said
    assert slurm.stopped == ["1_0", "1_1"]


def test_ctrl_c_stops_what_runs_and_what_waits(at_once, tmp_path):
    slurm = Pretended(a=[([begin("n1"), STEP], "RUNNING")], b=[([], "PENDING")])

    def observe(job, event):
        if event["event"] == "step":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted) as caught:
        run(slurm, tmp_path, "a", "b", observe=observe)
    assert caught.value.args == (signal.SIGINT,)
    assert (slurm.stopped, slurm.ended) == (["1_0", "1_1"], [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped-a", "stopped-b"]


def test_a_slurm_that_is_away_is_waited_for_but_not_for_ever(at_once, tmp_path, monkeypatch):
    slurm = Pretended(a=[([begin("n1")], "RUNNING")])
    slurm.answers = False
    monkeypatch.setattr(place, "SILENT", 0.0)
    monkeypatch.setattr(place, "PATIENCE", 0.0)
    with pytest.raises(HarnessError, match="Slurm has not answered for 0 minutes; run it again"):
        run(slurm, tmp_path, "a")


def another(tmp_path: Path, slurm: Pretended, name: str, attempt: int, state: str) -> place.Sent:
    """What a command that was killed has left: one job, sent for the `attempt`th time."""
    folder = tmp_path / FOLDER / "other"
    folder.mkdir(parents=True)
    sent = place.Sent(key_of(Work(name, str(tmp_path))), attempt, "99_5", folder)
    lines = [{"key": sent.key, "attempt": 0, "slurm": "98"}, {"key": sent.key, "attempt": attempt, "slurm": "99_5"}]
    (folder / "sent.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "cut")
    slurm.known["99_5"] = place.State(state, "n9")
    return sent


def test_jobs_of_a_command_that_is_gone_are_found(at_once, tmp_path):
    slurm = Pretended(b=[([begin("n1"), END], "COMPLETED")])
    sent = another(tmp_path, slurm, "a", 1, "RUNNING")
    tell(sent.order, begin("n9"), STEP, END)
    records, told = run(slurm, tmp_path, "a", "b")
    assert records == ["done", "done"]
    assert [event["event"] for name, event in told if name == "a"] == ["start", "step", "end"]
    assert [len(orders) for _, orders, _ in slurm.sent] == [1]
    assert not (tmp_path / FOLDER).exists()


def test_a_folder_of_a_command_whose_jobs_have_ended_is_removed(at_once, tmp_path):
    slurm = Pretended(a=[([begin("n1"), END], "COMPLETED")])
    another(tmp_path, slurm, "a", 0, "FAILED")
    assert run(slurm, tmp_path, "a")[0] == ["done"]
    assert len(slurm.sent) == 1 and not (tmp_path / FOLDER).exists()


def test_what_a_living_command_has_sent_comes_last(at_once, tmp_path):
    slurm = Pretended(a=[([begin("n1"), END], "COMPLETED")], b=[([begin("n1"), END], "COMPLETED")])
    sent = another(tmp_path, slurm, "a", 0, "PENDING")

    def observe(job, event):
        if event["event"] == "end":
            slurm.known["99_5"] = place.State("COMPLETED")

    with locks.owned(sent.folder, wait=False):
        records, told = run(slurm, tmp_path, "a", "b", observe=observe)
    assert records == ["done", "done"]
    mine = [event["event"] for name, event in told if name == "a"]
    assert mine == ["elsewhere", "start", "end"] and told[0] == ("a", {"event": "elsewhere"})


def test_no_node_waits_for_a_folder_that_another_process_owns(at_once, tmp_path):
    slurm = Pretended(a=[([begin("n1"), END], "COMPLETED")], b=[([begin("n1"), END], "COMPLETED")])
    lock = locks.owned(tmp_path / "cell-a", wait=False)
    lock.__enter__()

    def observe(job, event):
        if event["event"] == "end" and job.name == "b":
            lock.__exit__(None, None, None)

    records, told = run(slurm, tmp_path, "a", "b", kind=Stored, observe=observe)
    assert records == ["done", "done"] and told[0] == ("a", {"event": "elsewhere"})
    assert [len(orders) for _, orders, _ in slurm.sent] == [1, 1]


def test_what_sbatch_refuses_is_one_sentence(tmp_path):
    class Refusing(Pretended):
        def send(self, logs, orders, asked):
            raise RuntimeError("sbatch: error: invalid partition specified: gpu\nsbatch: error: more")

    with pytest.raises(HarnessError, match="did not take the jobs: sbatch: error: invalid partition specified: gpu;"):
        run(Refusing(), tmp_path, "a")


# --------------------------------------------------------------------------------------------- through submitit, really


class Local:
    """submitit's own executor for tests, one job at a time; what ended in no good way has failed."""

    def __init__(self):
        self.waiting, self.jobs = [], {}

    def send(self, logs, orders, asked):
        import submitit

        sender = submitit.LocalExecutor(folder=logs)
        numbers = [f"{len(self.jobs) + index}" for index in range(len(orders))]
        for number, order in zip(numbers, orders, strict=True):
            self.jobs[number] = None
            self.waiting.append((number, lambda order=order: sender.submit(run_order, str(order))))
        return numbers

    def states(self):
        ours = [job for job in self.jobs.values() if job]
        if self.waiting and all(job.state != "RUNNING" for job in ours):
            number, begin_it = self.waiting.pop(0)
            self.jobs[number] = begin_it()
        names = {"RUNNING": "RUNNING", "FINISHED": "COMPLETED"}
        return {
            number: place.State(names.get(job.state, "FAILED") if job else "PENDING")
            for number, job in self.jobs.items()
        }

    def stop(self, numbers):
        for number in numbers:
            if self.jobs[number]:
                self.jobs[number].cancel()
        self.waiting.clear()
        self.jobs = {number: job for number, job in self.jobs.items() if job}

    end = stop


@pytest.fixture
def local(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)  # the workers find these tests
    for name, value in {"POLL": 0.05, "ASK": 0.1, "LATE": 0.5}.items():
        monkeypatch.setattr(place, name, value)
    return lambda: place.Slurm(tmp_path / "runs", commands=Local(), prepare=contract.nothing)


def test_what_the_queue_promises_holds_through_submitit(local, monkeypatch, tmp_path):
    monkeypatch.setitem(contract.EXECUTORS, "slurm", local)
    contract.test_records_come_in_order_and_what_another_process_has_comes_last("slurm", tmp_path)
    (tmp_path / "error").mkdir()
    contract.test_an_error_of_all_jobs_ends_the_run("slurm", "full", StorageError, tmp_path / "error")
    assert not (tmp_path / "runs" / FOLDER).exists()


def test_a_signal_stops_what_runs_through_submitit(local, tmp_path):
    def observe(job, event):
        if event["event"] == "step":
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        local().run(contract.jobs(tmp_path, "long", "done"), observe)
    assert [path.name for path in tmp_path.glob("stopped-*")] == ["stopped-0"] and contract.ran(tmp_path) == []
