"""Kills workers, nodes and the command itself under a grid on a Ray cluster: is the table the one of a quiet run?

    python scripts/cluster_robustness.py [--shared] [--seeds 4] [--steps 4] [--folder FOLDER] [--study FOLDER]

Twelve cells on the embedded models, a few steps of a few rollouts, run once in this process. Then they run on a cluster
of three nodes, each a raylet of its own on this machine, and while they do
  worker   a process that trains a cell is killed (SIGKILL)
  node     a raylet is killed, with all that it has started
  ctrl-c   the command gets SIGINT: exit code 130, and what ran is stored as interrupted
  driver   the command is killed, and started again
In the end everything that is stored but times is compared with the quiet run, and the list of files too. Nodes store in
folders of their own and send what they store, as without a shared results folder; with `--shared` all store in the
results folder. Prints the counts as JSON; exit code 1 where anything was lost. `--study` keeps them.

    mount -t tmpfs -o size=4m tmpfs SMALL && python scripts/cluster_robustness.py --full-disk SMALL [--study FOLDER]

A node that keeps its workers' files in SMALL gets a job that stores more than that holds: what does the command say?
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # all nodes on 127.0.0.1 alone
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray would put its workers behind everything else on the machine

from kill_and_resume import GRID, outcome, small_cells

NODES = 3
DISTURBANCES = ("worker", "node", "ctrl-c", "driver")
MOST_SMALL, PIECE = 2**26, 2**18
"""Bytes of the largest disk that is filled, and of what a job stores at a time."""
STEPS_BETWEEN = 5
"""Steps of all cells together from one disturbance to the next."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=4, help="of each of three pairs of a task and a reward")
    parser.add_argument("--steps", type=int, default=4, help="GRPO steps a cell")
    parser.add_argument("--shared", action="store_true", help="all nodes store in the results folder")
    parser.add_argument("--folder", type=Path, help="keep the runs here (default: a temporary folder, removed)")
    parser.add_argument("--study", type=Path, help="write the counts to FOLDER/results.json")
    parser.add_argument("--full-disk", type=Path, metavar="SMALL", help="a folder on a file system of a few MiB")
    parser.add_argument("--drive", metavar="ADDRESS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        return drive(options)
    if options.full_disk:
        found = full_disk(options.full_disk.resolve())
        print(json.dumps(found, indent=2))
        if options.study:
            keep("full_disk", found, options.study)
        return 0 if found["names the node"] and not found["left on the node"] else 1
    folder = options.folder or Path(tempfile.mkdtemp(prefix="cluster-robustness-"))
    try:
        found = Trial(folder, options).run()
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2))
    if options.study:
        kind = "shared" if options.shared else "sent"
        keep("disturbed", {kind: found}, options.study)
    return 1 if found["lost"] else 0


def cells(seeds: int, steps: int) -> list[Any]:
    return small_cells(GRID, steps, range(seeds))


class Undisturbed(NamedTuple):
    """Of a grid that was left alone, in one process."""

    cells: int
    steps: int
    seconds: float
    outcome: dict[str, Any]


def undisturbed(grid: list[Any], runs: Path) -> Undisturbed:
    from harness.machine.libraries import quiet
    from harness.workers.grid import run_grid
    from harness.workers.local import InProcess

    quiet()
    records = run_grid(grid, runs, lambda cell, event: None, InProcess())
    steps, seconds = (sum(each) for each in zip(*((r.steps_done, r.seconds["total"]) for r in records), strict=True))
    return Undisturbed(len(grid), steps, seconds, outcome(runs))


def drive(options: argparse.Namespace) -> int:
    """The command that is killed: what `run --executor ray --address ...` does, each event a line of JSON."""
    from harness.machine.stopping import Interrupted
    from harness.workers.grid import run_grid
    from harness.workers.ray import Cluster

    def observe(cell: Any, event: dict[str, Any]) -> None:
        told = {key: event[key] for key in ("event", "step", "kept", "reason") if key in event}
        if event["event"] == "end":
            told["status"] = event["record"].status
        print(json.dumps({"cell": cell.name} | told), flush=True)

    try:
        place = Cluster(options.drive, options.folder, shared=options.shared)
        run_grid(cells(options.seeds, options.steps), options.folder, observe, place)
    except Interrupted as stop:
        return 128 + stop.args[0]
    place.close()
    return 0


class Trial:
    """One quiet run in `folder`/whole, and one on a cluster in `folder`/cut."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.whole, self.cut, self.options = folder / "whole", folder / "cut", options
        self.counts: Counter[str] = Counter()
        self.lost: list[str] = []

    def run(self) -> dict[str, Any]:
        from ray.cluster_utils import Cluster as Nodes

        self._quiet()
        nodes = Nodes(shutdown_at_exit=True)
        try:
            for _ in range(NODES):
                nodes.add_node(num_cpus=1, include_dashboard=False)
            began = time.monotonic()
            self._disturbed(nodes)
            disturbed = time.monotonic() - began
        finally:
            nodes.shutdown()
        self._compare()
        names = ("cells", "steps", "steps_told", "done", "again", "ctrl-c", "driver", "worker", "node")
        return {
            "storage": "one results folder" if self.options.shared else "sent back by the nodes",
            **{name: self.counts[name] for name in names},
            "quiet_seconds": round(self.quiet_seconds, 1),
            "cluster_seconds": round(disturbed, 1),
            "lost": self.lost,
        }

    def _quiet(self) -> None:
        found = undisturbed(cells(self.options.seeds, self.options.steps), self.whole)
        self.counts.update(cells=found.cells, steps=found.steps)
        self.quiet_seconds, self.expected = found.seconds, found.outcome

    def _disturbed(self, nodes: Any) -> None:
        """The command again and again until it reaches its end; one disturbance after the other while it runs."""
        todo = list(DISTURBANCES)
        while True:
            driver = Driver(nodes.address, self.cut, self.options)
            ended = self._watch(driver, nodes, todo)
            if ended == 0:
                break
            if ended not in (-signal.SIGKILL, 128 + signal.SIGINT):
                self.lost.append(f"the command ended with code {ended}: {driver.said()}")
                break
        self.lost += [f"not disturbed: {kind}" for kind in todo]

    def _watch(self, driver: Driver, nodes: Any, todo: list[str]) -> int:
        """Reads what one command tells until it ends; its exit code."""
        steps = 0
        for event in driver.events():
            kind = event["event"]
            if kind == "again":
                self.counts["again"] += 1
            elif kind == "end" and not event.get("kept"):
                self.counts[event["status"]] += 1
            elif kind in ("step", "validation") and event["step"]:
                self.counts["steps_told"] += 1
                steps += 1
            if todo and steps >= STEPS_BETWEEN and self._disturb(todo[0], driver, nodes):
                self.counts[todo.pop(0)] += 1
                steps = 0
        code = driver.process.wait()
        if code == 128 + signal.SIGINT:
            self._check_interrupted()
        return code

    def _disturb(self, kind: str, driver: Driver, nodes: Any) -> bool:
        """Whether it could be done: a worker is killed at a moment when one is at work."""
        if kind == "ctrl-c":
            driver.process.send_signal(signal.SIGINT)
        elif kind == "driver":
            driver.process.kill()
        elif kind == "worker":
            pids = workers_of(nodes.head_node)
            if not pids:
                return False
            os.kill(pids[0], signal.SIGKILL)
        else:
            victim = next((node for node in nodes.worker_nodes if workers_of(node)), None)
            if victim is None:
                return False
            children = workers_of(victim)
            nodes.remove_node(victim, allow_graceful=False)
            for pid in children:  # a machine that is gone takes its processes along
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        return True

    def _check_interrupted(self) -> None:
        from harness.store.frames import find_cells

        states = [cell.read().status for cell in find_cells(self.cut)]
        if "running" in states or "interrupted" not in states:
            self.lost.append(f"after SIGINT the cells are {states}")

    def _compare(self) -> None:
        from harness.workers.ray_nodes import PLACE

        found = outcome(self.cut)
        found.pop(PLACE, None)
        self.lost += [
            f"{name} differs from the quiet run" for name in self.expected if found.get(name) != self.expected[name]
        ]
        self.lost += [f"an orphan: {name}" for name in found.keys() - self.expected.keys()]


class Driver:
    """One command on the cluster, in a process of its own."""

    def __init__(self, address: str, runs: Path, options: argparse.Namespace) -> None:
        arguments = [
            "--drive",
            address,
            "--folder",
            str(runs),
            "--seeds",
            str(options.seeds),
            "--steps",
            str(options.steps),
        ]
        self.errors = runs.with_suffix(".err").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, __file__, *arguments, *(["--shared"] if options.shared else [])],
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def events(self) -> Iterator[dict[str, Any]]:
        for line in self.process.stdout:
            print(line, end="", file=sys.stderr)
            if line.startswith("{"):
                yield json.loads(line)

    def said(self) -> str:
        self.errors.seek(0)
        return self.errors.read()[-600:]


def workers_of(node: Any) -> list[int]:
    """Processes of the node that are at a cell: children of its raylet, by the name that Ray gives them."""
    (raylet,) = node.all_processes["raylet"]
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == raylet.process.pid and b"_work" in (path / "cmdline").read_bytes():
                found.append(int(path.name))
        except (OSError, ValueError):
            continue  # it has ended
    return found


@dataclass(frozen=True)
class Filler:
    """A job that stores until nothing goes any more: what a cell does on a small disk, without its training."""

    root: Path
    name: str = "filler"

    def settled(self) -> None:
        """It is always to be run."""

    def run(self, tell: Any, *, wait: bool) -> str:
        from harness.store.atomic import write_atomic

        for number in range(MOST_SMALL // PIECE + 1):
            write_atomic(self.stores()[1] / f"piece-{number}", bytes(PIECE))
        return "it all went"

    def lost(self, reason: str) -> str:
        return f"lost: {reason}"

    def stores(self) -> tuple[Path, Path]:
        return self.root, self.root / self.name

    def at(self, root: Path) -> Filler:
        return replace(self, root=root)


def nothing(threads: int, trust: bool) -> None:
    """This job needs no libraries."""


def full_disk(small: Path) -> dict[str, Any]:
    """What is said where a node's disk fills up, and what is left there."""
    import cluster_robustness  # workers know its classes by this name, not as the main module's
    from ray.cluster_utils import Cluster as Nodes

    from harness.contracts import HarnessError
    from harness.workers.ray import Cluster

    room = shutil.disk_usage(small).free
    if room > MOST_SMALL:
        raise SystemExit(f"{small} has {room:,} bytes free; name a folder on a file system of at most {MOST_SMALL:,}.")
    said, nodes = "nothing", Nodes(shutdown_at_exit=True)
    try:
        nodes.add_node(num_cpus=0, include_dashboard=False)
        nodes.add_node(num_cpus=1, env_vars={"TMPDIR": str(small)})
        nodes.wait_for_nodes()
        with tempfile.TemporaryDirectory() as home:
            place = Cluster(nodes.address, Path(home), shared=False, prepare=cluster_robustness.nothing)
            try:
                said = str(place.run([cluster_robustness.Filler(Path(home))], lambda job, event: None))
            except HarnessError as error:
                said = str(error)
            sent = len(list(Path(home, "filler").glob("piece-*")))
            place.close()
    finally:
        nodes.shutdown()
    left = sorted(path.name for path in small.iterdir())
    names = said.startswith(f"On node {socket.gethostname()} (")
    said = said.replace(str(small), "SMALL").replace(socket.gethostname(), "HOST")
    return {"free bytes": room, "said": said, "names the node": names, "pieces sent": sent, "left on the node": left}


def keep(part: str, found: dict[str, Any], study: Path) -> None:
    """Adds what was found to a part of the study's results."""
    study.mkdir(parents=True, exist_ok=True)
    path = study / "results.json"
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[part] = kept.get(part, {}) | found
    path.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
