"""Ray as an executor: its contract on a real Ray of this machine, and what needs none: folders, nodes, addresses."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

import harness
from harness.contracts import HarnessError
from harness.machine.processes import planned_for
from harness.machine.stopping import Interrupted, stop_signal, stoppable
from harness.planning.preflight import preflight
from harness.registry import REWARDS
from harness.store import locks
from harness.store.atomic import StorageError
from harness.store.record import CellStore
from harness.workers import ray as place
from harness.workers import ray_nodes as nodes
from harness.workers import ray_worker as worker
from harness.workers.grid import CellJob, run_grid
from harness.workers.local import InProcess
from tests.harness.workers import test_executor as contract
from tests.helpers.cells import ignore

# ------------------------------------------------------------------------------------------------------ on a real Ray


@contextmanager
def ray_here(**has: int) -> Iterator[None]:
    """A Ray of two CPUs on this machine. It listens on 127.0.0.1 alone, as the command's own does."""
    if find_spec("ray") is None:
        pytest.skip("needs the extra ray")
    # Before Ray is imported, which reads them.
    os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    import ray

    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=2**27, log_to_driver=False, **has)
    ray.cloudpickle.register_pickle_by_value(contract)  # its imports take seconds, and its jobs need none of them
    yield
    ray.cloudpickle.unregister_pickle_by_value(contract)
    ray.shutdown()


@pytest.fixture(scope="module")
def two_cpus():
    with ray_here():
        yield


def test_what_the_queue_promises_holds_on_ray(two_cpus, tmp_path, monkeypatch):
    """The contract's own tests, one after the other on one Ray; then what is different there: a lost worker's job
    starts again, and a job that loses one worker after the other has failed."""
    made = place.Cluster(place=tmp_path, prepare=contract.nothing)
    assert not made.stream and made.slots == 2
    monkeypatch.setitem(contract.EXECUTORS, "ray", lambda: made)
    for number, test in enumerate(
        (
            contract.test_records_come_in_order_and_what_another_process_has_comes_last,
            lambda name, folder: contract.test_an_error_of_all_jobs_ends_the_run(name, "refused", HarnessError, folder),
        )
    ):
        (tmp_path / str(number)).mkdir()
        test("ray", tmp_path / str(number))
    told = []
    (tmp_path / "lost").mkdir()
    records = made.run(
        contract.jobs(tmp_path / "lost", "crashed", "done"), lambda job, event: told.append((job.name, event))
    )
    assert records[1] == "done 1" and records[0].startswith("lost: its worker on node ")
    assert contract.ran(tmp_path / "lost").count("0") == place.LOSSES
    assert [event["event"] for name, event in told if name == "0"].count("again") == place.LOSSES - 1


def test_a_signal_stops_what_runs_on_ray(two_cpus, tmp_path):
    made = place.Cluster(place=tmp_path, prepare=contract.nothing)
    steps = []

    def observe(job, event):
        if event["event"] == "step":
            steps.append(event["pid"])
            if len(steps) == 2:
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        made.run(contract.jobs(tmp_path, "long", "long", "done"), observe)
    assert sorted(path.name for path in tmp_path.glob("stopped-*")) == ["stopped-0", "stopped-1"]
    assert contract.ran(tmp_path) == []
    assert made.run(contract.jobs(tmp_path, "done"), ignore) == ["done 0"]  # the same processes may go on


def test_cells_that_nodes_store_themselves_give_the_same_table(two_cpus, quick, make_cell, tmp_path):
    """No shared folder: a cell whose worker dies goes on from the checkpoint that was sent back."""
    cells = [make_cell("norm", "naive", quick(grpo__steps=3, grpo__checkpoint_every=1))]
    run_grid(cells, tmp_path / "here", ignore, InProcess())
    made = place.Cluster(place=tmp_path / "there", shared=False)
    told = []

    def observe(cell, event):
        if event.get("step") == 2 and "again" not in told:
            kill_workers()
        told.append(event["event"])

    (record,) = run_grid(cells, tmp_path / "there", observe, made)
    assert record.status == "done" and told.count("again") == 1
    assert [entry["step"] for entry in record.provenance["resumed"]] in ([1], [2])
    assert contract.numbers(tmp_path / "here") == contract.numbers(tmp_path / "there")
    files = {path.name for path in (tmp_path / "there").rglob("*") if path.name.startswith(".")}
    assert files == {nodes.PLACE}


def test_the_other_commands_find_on_ray_what_they_find_here(two_cpus, quick, tmp_path):
    """`paper`, `evaluate` of its cell, `tune`, `fidelity` and `generate`, as small as they get."""
    check = {"part": "norm", "task": "norm", "reward": "naive", "kind": "value", "at_least": 1e6, "exists": True}
    suite = {
        "name": "mine",
        "summary": "",
        "parts": [{"name": "norm", "task": "norm", "reward": "naive"}],
        "claims": [{"id": "much", "says": "it moves a lot", "check": check}],
    }
    (tmp_path / "mine.yaml").write_text(json.dumps(suite))

    def found(folder: Path, **where: object) -> list[object]:
        given = quick(grpo__steps=1, validation__prompts=8)
        runs, common = folder / "runs", {"progress": False, **where}
        claims = harness.paper(suite=str(tmp_path / "mine.yaml"), set=given, out=runs, **common)
        worth = harness.evaluate(
            "norm", "naive", set=given | {"evaluation.multiples": [1]}, runs=runs, out=runs, targets="own", **common
        )
        tuned = harness.tune(
            "norm", "naive", set=given, trials=2, out=folder / "tuning", file=folder / "tuned.yaml", **common
        )
        judged = harness.fidelity("norm", "naive", set=given, pool=16, subsets=10, out=runs, **common)
        written = {"set": {key: value for key, value in given.items() if key.startswith("generator.m")}, **common}
        written.pop("workers", None)
        texts = harness.generate("untuned", 500, folder / "data", **written).texts
        assert not claims.results.failed and not worth.failed and not tuned.results.failed and not judged.failed
        return [
            [(each.claim.id, each.verdict) for each in claims.found],
            [(row.name, row.status, tuple(row.values)) for row in worth.rows],
            tuned.choices,
            judged.long[judged.long["measure"] != "s / 1,000"].to_dict("records"),
            texts.to_dict("records"),
        ]

    here, there = found(tmp_path / "here", workers=0), found(tmp_path / "there", executor="ray")
    for one, other in zip(here, there, strict=True):
        assert repr(one) == repr(other)  # as texts: a number that is none equals itself


def kill_workers(most: int = 100) -> None:
    """SIGKILL to processes of this Ray that are at a cell: Ray names them after the function, and they are children of
    a child of this process."""
    for path in Path("/proc").glob("[0-9]*"):
        if most == 0:
            return
        try:
            raylet = parent(path)
            if b"ray::_work" in (path / "cmdline").read_bytes() and parent(raylet).name == str(os.getpid()):
                os.kill(int(path.name), signal.SIGKILL)
                most -= 1
        except (OSError, IndexError):
            continue  # it has ended


def parent(process: Path) -> Path:
    return Path("/proc", (process / "stat").read_text().rpartition(")")[2].split()[1])


# ------------------------------------------------------------------------------------------------------------- without


def test_what_a_node_lacks_is_said():
    here = {"torch": "2.13.0", "trl": "1.16.0", "harness": "abc"}
    assert nodes.unlike(here, here) == ""
    assert "does not have this harness" in nodes.unlike(here, {"torch": "2.13.0"})
    assert "another version of this harness" in nodes.unlike(here, here | {"harness": "abd"})
    assert nodes.unlike(here, here | {"torch": "2.12.0"}).startswith("has torch 2.12.0, and this machine 2.13.0")
    assert nodes.unlike(here, {"torch": "2.13.0", "harness": "abc"}).startswith("has trl not at all")
    found = nodes.versions()
    assert found["torch"] and len(found["harness"]) == 64


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"executor": "rya"}, "--executor takes local, ray or slurm, not 'rya'"),
        ({"address": "10.0.0.1:6379"}, "--address goes with --executor ray"),
        ({"processes": 2}, "--processes goes with --executor ray; on one machine start the command with torchrun"),
        ({"executor": "ray", "processes": 0}, "--processes takes 1 to 1024, not 0"),
        ({"executor": "ray"}, "needs the package ray; install it with `pip install 'dpg-harness.ray.'`"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(options, said, quick, tmp_path, monkeypatch):
    monkeypatch.setattr(nodes, "find_spec", lambda name: None)
    with pytest.raises(HarnessError, match=said):
        harness.run("norm", "naive", set=quick(), out=tmp_path, progress=False, **options)
    assert not list(tmp_path.rglob("cell.json"))


def test_a_task_of_this_session_alone_does_not_go_to_other_machines(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(type(REWARDS), "everywhere", lambda registry, name: name != "naive")
    with pytest.raises(HarnessError, match="register it in a package"):
        harness.run("norm", "naive", set=quick(), out=tmp_path, progress=False, executor="ray")


def test_a_bad_address_is_one_sentence():
    for address in ("nowhere", "host:port", "ray://host:10001", ":"):
        with pytest.raises(HarnessError, match="--address takes HOST:PORT"):
            nodes._check_address(address)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(HarnessError, match=f"No Ray cluster answers at {address}"):
            nodes._check_address(address)
    nodes._check_address("auto")


def test_a_job_that_no_node_could_take_is_refused(monkeypatch):
    node = {"NodeManagerHostname": "one", "NodeManagerAddress": "10.0.0.1", "NodeID": "abcdef12"}
    node["Resources"] = {"CPU": 4.0, "memory": 8.0 * 2**30}
    monkeypatch.setattr(nodes, "living", lambda: [node])
    nodes.check_room("a cell", {"num_cpus": 4, "num_gpus": 0, "memory": 2**30})
    for needs in ({"num_cpus": 5}, {"num_gpus": 1}, {"memory": 2**34}):
        with pytest.raises(HarnessError, match=r"No node .* one \(10.0.0.1, abcdef\) has 4, 0 and 8.0 GiB"):
            nodes.check_room("a cell", {"num_cpus": 1, "num_gpus": 0, "memory": 1} | needs)


def test_processes_that_share_a_cell_need_one_node_or_several(monkeypatch):
    def node(name: str, gpus: int) -> dict:
        has = {"CPU": 64.0, "GPU": float(gpus), "memory": 2.0**40}
        return {"NodeManagerHostname": name, "NodeManagerAddress": name, "NodeID": name * 6, "Resources": has}

    monkeypatch.setattr(nodes, "living", lambda: [node("a", 2), node("b", 4), node("c", 0)])
    needs = {"num_cpus": 1, "num_gpus": 1, "memory": 2**30}
    assert nodes.rooms(needs) == [2, 4, 0] and nodes.rooms(needs | {"num_gpus": 0}) == [64, 64, 64]
    assert nodes.check_room("a cell", needs, 4) and not nodes.check_room("a cell", needs, 6)
    said = r"no room for the 7 processes of a cell, each of which needs 1 CPUs, 1 GPUs and 1.0 GiB.*b \(b, .* has 64, 4"
    with pytest.raises(HarnessError, match=said):
        nodes.check_room("a cell", needs, 7)


class PretendedRay:
    """Two nodes that are asked what they run. The second one's answer is an error; it may still be among the living."""

    class RayError(Exception):
        pass

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, stays: bool) -> None:
        node = {"NodeManagerHostname": "one", "NodeManagerAddress": "10.0.0.1", "NodeID": "abcdef12"}
        lists = [[node, node | {"NodeManagerHostname": "two", "NodeID": "bcdefa12"}], [node]]
        monkeypatch.setattr(nodes, "living", lambda: lists[0] if stays or len(lists) == 1 else lists.pop(0))
        monkeypatch.setattr(nodes, "_remote_look", lambda: self)
        modules = {
            "ray": self,
            "ray.exceptions": SimpleNamespace(RayError=self.RayError),
            "ray.util.scheduling_strategies": SimpleNamespace(NodeAffinitySchedulingStrategy=lambda name, soft: name),
        }
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def options(self, scheduling_strategy: str) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda path: (scheduling_strategy, path))

    def wait(self, asked: list, num_returns: int, timeout: float) -> tuple[list, list]:
        return asked, []

    def get(self, reference: tuple[str, str]) -> tuple[dict, str]:
        if reference[0] == "bcdefa12":
            raise self.RayError("The worker died. More about it.")
        return {"harness": "abc"}, Path(reference[1]).read_text()


def test_a_node_that_dies_while_it_is_asked_is_left_out(monkeypatch, tmp_path):
    PretendedRay(monkeypatch, stays=False)
    assert nodes.examine({"harness": "abc"}, tmp_path)


def test_a_node_that_lives_and_cannot_be_asked_is_named(monkeypatch, tmp_path):
    PretendedRay(monkeypatch, stays=True)
    with pytest.raises(HarnessError, match=r"^Node two .* cannot be asked what it runs: The worker died\.$"):
        nodes.examine({"harness": "abc"}, tmp_path)


def ended(status: str, reason: str = "") -> dict:
    return {"event": "end", "record": SimpleNamespace(status=status, reason=reason)}


GONE, STOPPED, REFUSED = {"event": "gone", "reason": "x"}, {"event": "stopped"}, {"event": "error", "error": None}


@pytest.mark.parametrize(
    ("ends", "rank", "kind"),
    [
        ([ended("done"), ended("done")], 0, "end"),
        ([ended("done"), GONE], 0, "end"),  # all is stored, whatever became of the others
        ([ended("failed"), ended("failed")], 0, "end"),
        ([STOPPED, GONE], 1, "gone"),  # which the first noticed
        ([GONE, ended("done")], 0, "gone"),
        ([STOPPED, ended("failed", "no luck")], 1, "lost"),
        ([STOPPED, STOPPED], 0, "stopped"),
        ([STOPPED, REFUSED], 1, "error"),
        ([{"event": "elsewhere"}, STOPPED], 0, "elsewhere"),
    ],
)
def test_how_a_cell_of_several_processes_ended_is_what_explains_all_of_them(ends, rank, kind):
    group = place.Group(None, ends={number: (number + 3, event) for number, event in enumerate(ends)})
    found, said, event = group.outcome()
    assert (found, said, event["event"]) == (rank, 3, kind)
    if kind == "lost":
        assert event["reason"] == "process 1: no luck"


def test_a_sharded_cell_is_planned_for_the_processes_that_are_asked_for(make_cell, quick, tmp_path):
    job = CellJob(make_cell("norm", "adam_metagrad", quick(inner__sharded=True)), tmp_path)
    with pytest.raises(HarnessError, match="start it with torchrun"):
        preflight([job.cell], tmp_path)
    with planned_for(2):
        assert preflight([job.cell], tmp_path) == [job.cell]
        two = job.memory()
    with planned_for(4):
        assert job.memory() < two


class Here:
    """A post in this process, as an actor's handle shows it: every call is answered at once."""

    def __init__(self):
        self.post = worker.Post()

    def __getattr__(self, name):
        def remote(*arguments):
            try:
                return asyncio.run(getattr(self.post, name)(*arguments))
            except worker.StaleError as error:
                return error

        return SimpleNamespace(remote=remote)


def post_here(monkeypatch) -> Here:
    def asked(answer):
        if isinstance(answer, worker.StaleError):
            raise worker.ParentGone from answer
        return answer

    monkeypatch.setattr(worker, "_asked", asked)
    return Here()


@pytest.fixture
def post(monkeypatch):
    return post_here(monkeypatch)


def luggage(number: int, attempt: int, folder: Path, **more) -> worker.Luggage:
    return worker.Luggage(number, attempt, folder, folder.name, **more)


def test_what_a_node_stores_comes_back_and_goes_to_the_next(post, tmp_path, monkeypatch):
    """Whole files alone, in pieces; what the node removes is removed; a lost worker is not heard any more."""
    monkeypatch.setattr(worker, "PIECE", 4)
    home, first, second = tmp_path / "home", tmp_path / "first", tmp_path / "second"
    assert post.begin.remote(luggage(7, 0, home))
    with locks.owned(home, wait=False) as ours:
        assert not ours
    (first / "checkpoints").mkdir(parents=True)
    for name, content in (("cell.json", b"{}"), ("checkpoints/a", b"0123456789"), ("empty", b""), (".lock", b"x")):
        (first / name).write_bytes(content)
    mirror = worker.Mirror(first, luggage(7, 0, home), post)
    mirror.send()
    kept = {name: path.read_bytes() for name, path in worker.stored(home).items()}
    assert kept == {"cell.json": b"{}", "checkpoints/a": b"0123456789", "empty": b""}
    (first / "checkpoints" / "a").rename(first / "checkpoints" / "b")
    mirror.send()
    assert set(worker.stored(home)) == {"cell.json", "checkpoints/b", "empty"}

    assert post.begin.remote(luggage(7, 1, home))
    (first / "cell.json").write_bytes(b"late")
    with pytest.raises(worker.ParentGone):
        mirror.send()
    other = worker.Mirror(second, luggage(7, 1, home), post)
    other.fetch()
    assert {name: path.read_bytes() for name, path in worker.stored(second).items()} == {
        "cell.json": b"{}",
        "checkpoints/b": b"0123456789",
        "empty": b"",
    }
    other.send()  # nothing has changed, so nothing travels
    post.end.remote()
    with locks.owned(home, wait=False) as ours:
        assert ours
    assert not list(home.rglob(".*"))


def test_the_record_is_sent_after_all_that_it_speaks_of(post, tmp_path):
    home, folder = tmp_path / "home", tmp_path / "node"
    (folder / "checkpoints").mkdir(parents=True)
    for name in ("cell.json", "checkpoints/step", "curves.parquet", "generator"):
        (folder / name).write_text(name)
    post.begin.remote(luggage(1, 0, home))
    sent, write = [], post.post.write

    async def noting(number, attempt, name, *rest):
        sent.append(name)
        await write(number, attempt, name, *rest)

    post.post.write = noting
    worker.Mirror(folder, luggage(1, 0, home), post).send()
    assert sent == ["curves.parquet", "generator", "checkpoints/step", "cell.json"]
    post.end.remote()


def test_only_folders_of_dead_workers_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in ("dead", "alive"):
        (tmp_path / f"{worker.SCRATCH}{name}" / "runs").mkdir(parents=True)
    with locks.owned(tmp_path / f"{worker.SCRATCH}alive", wait=False):
        worker._sweep_scratch()
        assert [path.name for path in tmp_path.iterdir()] == [f"{worker.SCRATCH}alive"]


def test_a_full_disk_on_a_node_is_a_sentence_and_leaves_nothing(post, make_cell, quick, tmp_path, monkeypatch):
    """What was stored before does not fit; then Python does not even find a temporary folder."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(worker.tempfile, "tempdir", str(scratch))
    job = CellJob(make_cell("norm", "naive", quick()), tmp_path / "runs")
    _, home = job.stores()
    home.mkdir(parents=True)
    (home / "generator").write_bytes(bytes(2**16))
    sent = SimpleNamespace(luggage=worker.luggage_of(3, 0, job))
    assert post.begin.remote(sent.luggage)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**12, limits[1]))
        with (
            pytest.raises(StorageError, match="Cannot write .*generator: File too large; make room and run it again"),
            worker._moved(job, sent, post, ignore),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(scratch.glob(f"{worker.SCRATCH}*"))  # torch may have made a folder of its own

    def full():
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(worker.tempfile, "gettempdir", full)
    with pytest.raises(StorageError, match="No usable temporary directory found; make room there, or start Ray there"):
        worker._scratch_folder()
    post.end.remote()


@pytest.mark.parametrize("name", ["../cell.json", "/etc/passwd", "a/../../b", ".lock", ""])
def test_a_node_writes_in_the_jobs_folder_alone(name, tmp_path):
    with pytest.raises(ValueError, match="no file of a cell"):
        worker.inside(tmp_path, name)


def test_a_cell_moves_to_another_results_folder(make_cell, quick, tmp_path):
    job = CellJob(make_cell("norm", "naive", quick()), tmp_path / "here")
    root, folder = job.stores()
    assert isinstance(job, worker.Movable) and root == tmp_path / "here"
    moved = job.at(tmp_path / "there")
    assert moved.stores()[1] == CellStore.of(tmp_path / "there", job.cell.record()).folder
    assert folder.relative_to(root) == moved.stores()[1].relative_to(tmp_path / "there")
    assert job.memory() > 0


def test_a_cell_whose_worker_was_gone_is_interrupted_all_the_same(make_cell, quick, tmp_path):
    job = CellJob(make_cell("norm", "naive", quick()), tmp_path)
    record = job.cell.record()
    store = CellStore.of(tmp_path, record)
    job.stopped()
    assert not store.folder.exists()  # it never began
    record.steps_done = 1
    store.write(record)
    with locks.owned(store.folder, wait=False):
        job.stopped()
    assert store.read().status == "running"  # another process has it
    job.stopped()
    assert (store.read().status, store.read().reason) == ("interrupted", "stopped by the user after step 1")


def test_a_stop_concerns_the_block_alone():
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted), stoppable():
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    assert stop_signal() is None and signal.getsignal(signal.SIGINT) is before
