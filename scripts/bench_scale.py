"""How the harness scales: jobs begun a second, ten thousand cells in one grid, and a simulation of 8 to 512 GPUs.

    python scripts/bench_scale.py [--only dispatch,grid,simulation] [--executors local,ray] [--jobs 300] [--cells 10000]

dispatch    jobs of no work through each executor: a second of the wall's clock, and CPU seconds of the command for each
grid        a grid of finished cells (records and curves as real ones have): planned, checked, gone through and its
            tables written as by a second `run`; seconds and memory of the process
simulation  a grid of cells with the times that were measured (reports/studies/reference), stretched to `--hours` on
            average, on 8 to 512 GPUs: makespan, idle share, and what it costs that a part of the nodes is lost every
            hour. A lost node's cells begin again elsewhere at their last checkpoint
Prints JSON; `--study FOLDER` keeps it there in results.json.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

PARTS = ("dispatch", "grid", "simulation")
GPUS = (8, 16, 32, 64, 128, 256, 512)
GPUS_A_NODE = 8
CHECKPOINT, BEGIN, REPAIR = 0.1, 0.05, 0.5
"""Hours between checkpoints, until a cell is loaded again, until a lost node is back."""
DRAWS = 30
"""Times that the losses of nodes are drawn; the numbers are means over them."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--executors", default="local,ray")
    parser.add_argument("--jobs", type=int, default=300, help="of the dispatch part")
    parser.add_argument("--cells", type=int, default=10_000, help="of the grid part")
    parser.add_argument("--simulated", type=int, default=3_000, help="cells of the simulation")
    parser.add_argument("--hours", type=float, default=1.0, help="of a simulated cell, on average")
    parser.add_argument("--lost", type=float, default=0.01, help="share of the nodes that is lost in an hour")
    parser.add_argument("--study", type=Path)
    parser.add_argument("--second-run", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.second_run:
        print(json.dumps(second_run(options.second_run, options.cells)))
        return 0
    found: dict[str, Any] = {}
    if "dispatch" in options.only:
        found["dispatch"] = {name: dispatch(name, options.jobs) for name in options.executors.split(",")}
    if "grid" in options.only:
        found["grid"] = grid(options.cells)
    if "simulation" in options.only:
        found["simulation"] = simulation(options.simulated, options.hours, options.lost)
    print(json.dumps(found, indent=2))
    if options.study:
        options.study.mkdir(parents=True, exist_ok=True)
        path = options.study / "results.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        for part, values in found.items():
            kept[part] = kept.get(part, {}) | values if part == "dispatch" else values
        path.write_text(json.dumps(kept, indent=2) + "\n")
    return 0


# ------------------------------------------------------------------------------------------------------------- dispatch


@dataclass(frozen=True)
class Idle:
    """A job of no work."""

    name: str

    def settled(self) -> None:
        """It is always to be run."""

    def run(self, tell: Any, *, wait: bool) -> str:
        return self.name

    def lost(self, reason: str) -> str:
        return f"lost: {reason}"


def nothing(threads: int, trust: bool) -> None:
    """Jobs of no work need no libraries."""


def dispatch(name: str, jobs: int) -> dict[str, float]:
    """Jobs a second, after as many as there are workers have made those ready."""
    import bench_scale  # workers know its classes by this name, not as the main module's

    from harness.workers.local import InProcess, Processes

    with tempfile.TemporaryDirectory() as folder:
        if name == "ray":
            from harness.workers.ray import Cluster

            place: Any = Cluster(place=Path(folder), prepare=bench_scale.nothing)
        else:
            place = Processes(2, prepare=bench_scale.nothing) if name == "local" else InProcess()
        began, busy, ended = time.monotonic(), time.process_time(), 0

        def observe(job: Any, event: Any) -> None:
            nonlocal began, busy, ended
            ended += event["event"] == "end"
            if ended == 2 * place.slots:
                began, busy = time.monotonic(), time.process_time()

        work = [bench_scale.Idle(str(number)) for number in range(jobs + 2 * place.slots)]
        records = place.run(work, observe)
        seconds, cpu = time.monotonic() - began, time.process_time() - busy
        place.close()
    assert records == [job.name for job in work]
    return {"jobs": jobs, "per_second": round(jobs / seconds, 1), "cpu_ms_per_job": round(1000 * cpu / jobs, 2)}


# ----------------------------------------------------------------------------------------------------------------- grid


def grid(count: int) -> dict[str, float]:
    """A second `run` over so many finished cells, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for number, cell in enumerate(planned(count)):
            finish(cell, Path(folder))
            if number % 1000 == 0:
                print(f"{number} of {count} cells written", file=sys.stderr)
        command = [sys.executable, __file__, "--second-run", folder, "--cells", str(count)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def planned(count: int) -> list[Any]:
    from harness import api

    tasks, rewards = "lambada_es,norm", "naive,adam_metagrad"
    return api.cells(tasks, rewards, seeds=f"200-{199 + count // 4}")


def finish(cell: Any, runs: Path) -> None:
    """Stores the cell as done, with the curves of four steps of training and three validations."""
    from harness.store.record import CellStore

    record = cell.record()
    record.status, record.headline, record.floor, record.steps_done = "done", 0.5, 0.1, 4
    record.provenance = {"finished": "2026-01-01T00:00:00.000+00:00"}
    store = CellStore.of(runs, record)
    measure = {"value": 0.5, "unit": "", "direction": "higher"}
    rows = [
        {"step": step, "phase": phase, "measure": f"measure {number}"} | measure
        for phase, steps in (("train", (1, 2, 3, 4)), ("validation", (0, 2, 4)))
        for step in steps
        for number in range(12)
    ]
    store.write_curves(record, rows)
    store.write(record)


def second_run(runs: Path, count: int) -> dict[str, float]:
    from harness.planning.preflight import preflight
    from harness.workers.grid import run_grid
    from harness.workers.local import InProcess
    from reports.store import store_tables

    found: dict[str, float] = {}
    laps = _laps(found)
    cells = preflight(planned(count), runs)
    laps.send("planned and checked")
    records = run_grid(cells, runs, lambda cell, event: None, InProcess())
    laps.send("gone through")
    assert {record.status for record in records} == {"done"}
    store_tables(runs / "tiny")
    laps.send("tables")
    found["peak_mib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return {"cells": len(records)} | found


def _laps(found: dict[str, float]) -> Any:
    """Notes the seconds since the last `send` under its name, by the wall's clock and of this process's CPU."""

    def lap() -> Iterator[None]:
        while True:
            began, busy = time.monotonic(), time.process_time()
            name = yield
            found[f"{name}, seconds"] = round(time.monotonic() - began, 1)
            found[f"{name}, cpu_seconds"] = round(time.process_time() - busy, 1)

    started = lap()
    next(started)
    return started


# ----------------------------------------------------------------------------------------------------------- simulation


def simulation(count: int, hours: float, lost: float) -> dict[str, Any]:
    """Each number of GPUs with and without lost nodes."""
    times = stretched(measured(), count, hours)
    rows = []
    for gpus in GPUS:
        quiet = Machine(gpus, times).run()
        rough = [Machine(gpus, times, lost, seed).run() for seed in range(DRAWS)]
        makespan = statistics.fmean(each.makespan for each in rough)
        rows.append(
            {
                "gpus": gpus,
                "makespan_hours": round(quiet.makespan, 2),
                "idle_share": round(quiet.idle, 4),
                "makespan_hours_losing": round(makespan, 2),
                "nodes_lost": round(statistics.fmean(each.nodes_lost for each in rough), 1),
                "repeated_gpu_hours": round(statistics.fmean(each.repeated for each in rough), 1),
                "cost_share": round(makespan / quiet.makespan - 1, 4),
            }
        )
    return {"cells": count, "gpu_hours": round(sum(times)), "lost_an_hour": lost, "by_gpus": rows}


def measured() -> list[float]:
    """Seconds of the cells of the reference study."""
    from harness.store.frames import load

    wide, _ = load(Path(__file__).resolve().parents[1] / "reports" / "studies" / "reference")
    done = wide[wide["status"] == "done"]
    return [float(value) for value in done["seconds_total"]]


def stretched(seconds: Sequence[float], count: int, hours: float) -> list[float]:
    """`count` of these times, drawn with a fixed seed, as hours of the given mean, the longest first as in a grid."""
    draw, mean = random.Random(0), statistics.fmean(seconds)
    return sorted((draw.choice(list(seconds)) / mean * hours for _ in range(count)), reverse=True)


@dataclass
class Outcome:
    makespan: float
    idle: float
    """Share of the GPU hours until the end in which a GPU has no cell, or its node is lost."""
    repeated: float
    """GPU hours of work that was done again, loading included."""
    nodes_lost: int
    """Until the last cell ended."""


class Machine:
    """GPUs in nodes, cells taken from one list, a node lost now and then; times in hours."""

    def __init__(self, gpus: int, times: Sequence[float], lost_an_hour: float = 0.0, seed: int = 0) -> None:
        self.nodes, self.times, self.rate = gpus // GPUS_A_NODE, times, lost_an_hour
        self.random = random.Random(seed)
        self.waiting: list[tuple[float, float]] = [(0.0, each) for each in reversed(times)]  # (loading, work left)
        self.events: list[tuple[float, int, str, int]] = []  # (when, order, what, node or cell)
        self.free = [GPUS_A_NODE] * self.nodes
        self.running: dict[int, tuple[int, float, float, float]] = {}  # run -> (node, since, loading, work left)
        self.busy, self.repeated, self.lost, self.number = 0.0, 0.0, 0, 0

    def run(self) -> Outcome:
        now = 0.0
        for node in range(self.nodes):
            self._next_loss(node, now)
            self._fill(node, now)
        left = len(self.times)
        while left:
            now, _, what, which = heapq.heappop(self.events)
            if what == "end" and which in self.running:
                node, since, _, _ = self.running.pop(which)
                self.busy += now - since
                left -= 1
                self.free[node] += 1
                self._fill(node, now)
            elif what == "lost":
                self._lose(which, now)
            elif what == "back":
                self.free[which] = GPUS_A_NODE
                self._next_loss(which, now)
                self._fill(which, now)
        total = self.nodes * GPUS_A_NODE * now
        return Outcome(now, 1 - self.busy / total, self.repeated, self.lost)

    def _fill(self, node: int, now: float) -> None:
        while self.free[node] and self.waiting:
            loading, work = self.waiting.pop()
            self.free[node] -= 1
            self.number += 1
            self.running[self.number] = node, now, loading, work
            self._at(now + loading + work, "end", self.number)

    def _lose(self, node: int, now: float) -> None:
        """Its cells go on at the next free GPU from their last checkpoint; the node comes back empty."""
        self.lost += 1
        self.free[node] = 0
        for run, (where, since, loading, work) in list(self.running.items()):
            if where == node:
                del self.running[run]
                ran = now - since
                kept = max(0.0, ran - loading) // CHECKPOINT * CHECKPOINT
                self.busy += ran
                self.repeated += ran - kept + BEGIN
                self.waiting.append((BEGIN, work - kept))
        self._at(now + REPAIR, "back", node)
        for other in range(self.nodes):
            self._fill(other, now)

    def _next_loss(self, node: int, now: float) -> None:
        if self.rate:
            self._at(now + self.random.expovariate(self.rate), "lost", node)

    def _at(self, when: float, what: str, which: int) -> None:
        heapq.heappush(self.events, (when, len(self.events) + self.number, what, which))


if __name__ == "__main__":
    raise SystemExit(main())
