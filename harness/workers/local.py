"""Cells in worker processes on this machine, each fed one cell after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from harness.cell import run_cell
from harness.machine.libraries import quiet
from harness.machine.stopping import Interrupted, request_stop
from harness.machine.trust import trust_remote_code, trusted
from harness.planning.cells import CellPlan, Policy, wanted
from harness.store import locks
from harness.store.atomic import StorageError
from harness.store.checkpoint import Checkpoints
from harness.store.provenance import now, provenance
from harness.store.record import CellRecord, CellStore

Observer = Callable[[CellPlan, dict[str, Any]], None]


def run_grid(
    plans: Sequence[CellPlan],
    runs: Path,
    observe: Observer,
    *,
    workers: int = 1,
    threads: int = 1,
    policy: Policy = "continue",
    report_to: str = "none",
) -> list[CellRecord]:
    """Runs what is not done yet; returns one record a plan, in order. `workers=0` runs in this process.

    `policy` says what happens to cells that have results (harness/cell.py, `wanted`). Several processes may run the
    same grid on the same folder: each cell is run by one of them, the others wait for it in the end. Raises Interrupted
    after SIGINT or SIGTERM, when every running cell has been stored as `interrupted`, and StorageError where nothing
    can be stored any more.
    """
    since = now()
    results: dict[int, CellRecord] = {}
    todo: list[int] = []
    for index, plan in enumerate(plans):
        record = plan.record()
        stored = CellStore.of(runs, record).read()
        if record.status == "unsupported":
            CellStore.of(runs, record).write(record)
            results[index] = record
            observe(plan, {"event": "end", "record": record})
        elif not wanted(stored, policy, since):
            results[index] = tidied(stored, runs)
            observe(plan, {"event": "end", "record": stored, "kept": True})
        else:
            todo.append(index)
    options = {"report_to": report_to, "policy": policy, "since": since}
    if workers == 0:
        _run_here(plans, todo, runs, observe, options, results)
    elif todo:
        _Pool(plans, runs, observe, threads, options).run(todo, min(workers, len(todo)), results)
    return [results[index] for index in range(len(plans))]


def tidied(stored: CellRecord, runs: Path) -> CellRecord:
    """A kept record, its folder freed of what was left if its owner died while tidying up."""
    folder = CellStore.of(runs, stored).folder
    left = (folder / locks.NAME).exists() or any(folder.rglob(".*.tmp"))
    if left or (stored.status == "done" and (folder / "checkpoints").exists()):
        with locks.owned(folder, wait=False) as ours:
            if ours:
                locks.sweep(folder)
                if stored.status == "done":
                    Checkpoints(folder / "checkpoints").clear()
    return stored


def _run_here(
    plans: Sequence[CellPlan],
    todo: list[int],
    runs: Path,
    observe: Observer,
    options: dict[str, Any],
    results: dict[int, CellRecord],
) -> None:
    elsewhere = []
    for last, indices in ((False, todo), (True, elsewhere)):  # `elsewhere` is filled by the first round
        for index in indices:
            observe(plans[index], {"event": "start"})
            record = run_cell(plans[index], runs, lambda e, i=index: observe(plans[i], e), wait=last, **options)
            if record is None:
                elsewhere.append(index)
                observe(plans[index], {"event": "elsewhere"})
            else:
                results[index] = record
                observe(plans[index], {"event": "end", "record": record})


class _Pool:
    """Worker processes, each fed one cell after the other over its own pipe. A worker that dies costs its cell only."""

    def __init__(
        self, plans: Sequence[CellPlan], runs: Path, observe: Observer, threads: int, options: dict[str, Any]
    ) -> None:
        self.plans, self.runs, self.observe, self.options = plans, runs, observe, options
        self.threads = threads
        self.elsewhere: set[int] = set()  # cells that another process was running when we came
        self.context = multiprocessing.get_context("spawn")
        self.busy: dict[Any, tuple[Any, int]] = {}  # pipe -> (process, index of its cell)

    def run(self, todo: list[int], workers: int, results: dict[int, CellRecord]) -> None:
        waiting = list(reversed(todo))
        previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in previous:
            signal.signal(number, _raise_interrupted)
        try:
            for _ in range(workers):
                self._start(waiting.pop())
            while self.busy:
                for pipe in wait(list(self.busy)):
                    self._receive(pipe, waiting, results)
        except (Interrupted, KeyboardInterrupt, StorageError):
            self._stop()
            raise
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _start(self, index: int) -> None:
        # Thread counts are read when the libraries load, so they have to be in the environment before the spawn.
        os.environ.update({name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_worker, args=(theirs, self.runs, self.threads, self.options, trusted()), daemon=True
        )
        process.start()
        theirs.close()
        self._send(ours, process, index)

    def _send(self, pipe: Any, process: Any, index: int) -> None:
        self.busy[pipe] = (process, index)
        self.observe(self.plans[index], {"event": "start"})
        pipe.send((self.plans[index], index in self.elsewhere))

    def _receive(self, pipe: Any, waiting: list[int], results: dict[int, CellRecord]) -> None:
        process, index = self.busy[pipe]
        try:
            event = pipe.recv()
        except (EOFError, ConnectionResetError):
            process.join()
            del self.busy[pipe]
            results[index] = self._lost(index, process.exitcode)
            self.observe(self.plans[index], {"event": "end", "record": results[index]})
            if waiting:
                self._start(waiting.pop())
            return
        if event["event"] == "storage":
            raise StorageError(event["error"])
        self.observe(self.plans[index], event)
        if event["event"] == "elsewhere":  # last in line, and then to be waited for
            self.elsewhere.add(index)
            waiting.insert(0, index)
        if event["event"] in ("end", "elsewhere"):
            if event["event"] == "end":
                results[index] = event["record"]
            if waiting:
                self._send(pipe, process, waiting.pop())
            else:
                del self.busy[pipe]
                pipe.send(None)
                process.join()

    def _lost(self, index: int, code: int | None) -> CellRecord:
        record = self.plans[index].record()
        store = CellStore.of(self.runs, record)
        record = store.read() or record
        hint = " (out of memory?)" if code == -signal.SIGKILL else ""
        record.status = "failed"
        record.reason = f"the worker process ended with code {code}{hint}; --retry-failed resumes it"
        record.provenance = record.provenance or provenance()
        store.write(record)
        return record

    def _stop(self) -> None:
        """Asks every worker to end its cell as interrupted and waits for that."""
        for process, _ in self.busy.values():
            process.terminate()
        for process, _ in self.busy.values():
            process.join(timeout=60)
            if process.is_alive():
                process.kill()


def _raise_interrupted(number: int, frame: Any) -> None:
    raise Interrupted(number)


def _worker(pipe: Any, runs: Path, threads: int, options: dict[str, Any], trust: bool) -> None:
    """A worker's life: receive a plan (and whether to wait for its present owner), run it, report; None ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a terminal sends Ctrl-C to all of us
    signal.signal(signal.SIGTERM, request_stop)
    # Raised inside some object's __del__ it is lost there, with a traceback; the flag behind request_stop serves then.
    sys.unraisablehook = lambda lost: None if lost.exc_type is Interrupted else sys.__unraisablehook__(lost)
    quiet()
    if trust:
        trust_remote_code()
    import torch

    from harness.machine.devices import cuda_devices
    from rewards.metagradient import keep_freed_memory

    torch.set_num_threads(threads)
    if not cuda_devices():
        keep_freed_memory()

    def tell(event: dict[str, Any]) -> None:
        try:
            pipe.send(event)
        except OSError as error:  # the parent is dead: end the cell as interrupted, the next run goes on with it
            raise Interrupted from error

    try:
        while (job := pipe.recv()) is not None:
            plan, wait = job
            try:
                record = run_cell(plan, runs, tell, wait=wait, **options)
            except StorageError as error:
                tell({"event": "storage", "error": str(error)})
                continue
            tell({"event": "elsewhere"} if record is None else {"event": "end", "record": record})
    except (Interrupted, EOFError):
        pass


def default_workers(cells: int) -> int:
    """One worker a core on a CPU, one worker a GPU."""
    from harness.machine.devices import cuda_devices

    if devices := cuda_devices():
        return min(cells, devices)
    return max(1, min(cells, os.cpu_count() or 1))
