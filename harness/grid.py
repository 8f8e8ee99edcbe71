"""The cross product tasks x rewards x variants x seeds, and where it executes: worker processes that take cell by cell."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from harness.cell import CellPlan, Interrupted, provenance, request_stop, run_cell
from harness.config import Profile, resolve
from harness.contracts import HarnessError
from harness.results import CellRecord, CellStore

Observer = Callable[[CellPlan, dict[str, Any]], None]


def plan_grid(
    profile: Profile,
    tasks: Sequence[str],
    rewards: Sequence[str],
    seeds: Sequence[int],
    assignments: dict[str, Any],
    inner_steps: Sequence[int] = (),
) -> list[CellPlan]:
    """Every cell of the grid, in the order tasks, variants, rewards, seeds. Raises HarnessError for bad settings.

    With `inner_steps` the number of prompts of a step and the number of steps are scaled so that every variant sees the
    profile's total number of examples (PAPER.md, Generator settings).
    """
    cells = []
    for task in tasks:
        for steps in inner_steps or [None]:
            for reward in rewards:
                settings = resolve(profile, task, reward, assignments)
                given, variant = dict(assignments), ""
                if steps is not None:
                    base, variant = settings.grpo, f"T={steps}"
                    prompts = max(1, base.prompts_per_step * steps // settings.inner.steps)
                    total = base.steps * base.prompts_per_step
                    updates = max(1, base.updates_per_step * prompts // base.prompts_per_step)
                    given |= {
                        "inner.steps": steps, "grpo.prompts_per_step": prompts, "grpo.updates_per_step": updates,
                        "grpo.steps": max(1, round(total / prompts)),
                    }  # fmt: skip
                    settings = resolve(profile, task, reward, given)
                cells += [CellPlan(profile.name, task, reward, seed, settings, variant, given) for seed in seeds]
    return cells


def run_grid(
    plans: Sequence[CellPlan],
    runs: Path,
    observe: Observer,
    *,
    workers: int = 1,
    threads: int = 1,
    fresh: bool = False,
    report_to: str = "none",
) -> list[CellRecord]:
    """Runs what is not done yet; returns one record a plan, in order. `workers=0` runs in this process.

    Finished cells on disk are kept unless `fresh`. Raises Interrupted after SIGINT or SIGTERM, when every running cell
    has been stored as `interrupted`.
    """
    results: dict[int, CellRecord] = {}
    todo: list[int] = []
    for index, plan in enumerate(plans):
        record = plan.record()
        stored = CellStore.of(runs, record).read()
        if record.status == "unsupported":
            CellStore.of(runs, record).write(record)
            results[index] = record
            observe(plan, {"event": "end", "record": record})
        elif stored is not None and stored.status == "done" and not fresh:
            results[index] = stored
            observe(plan, {"event": "end", "record": stored, "kept": True})
        else:
            todo.append(index)
    if workers == 0:
        for index in todo:
            observe(plans[index], {"event": "start"})
            results[index] = run_cell(plans[index], runs, lambda e, i=index: observe(plans[i], e), report_to=report_to)
            observe(plans[index], {"event": "end", "record": results[index]})
    elif todo:
        _Pool(plans, runs, observe, threads, report_to).run(todo, min(workers, len(todo)), results)
    return [results[index] for index in range(len(plans))]


class _Pool:
    """Worker processes, each fed one cell after the other over its own pipe. A worker that dies costs its cell only."""

    def __init__(self, plans: Sequence[CellPlan], runs: Path, observe: Observer, threads: int, report_to: str) -> None:
        self.plans, self.runs, self.observe, self.report_to = plans, runs, observe, report_to
        self.threads = threads
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
        except (Interrupted, KeyboardInterrupt):
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
            target=_worker, args=(theirs, self.runs, self.threads, self.report_to), daemon=True
        )
        process.start()
        theirs.close()
        self._send(ours, process, index)

    def _send(self, pipe: Any, process: Any, index: int) -> None:
        self.busy[pipe] = (process, index)
        self.observe(self.plans[index], {"event": "start"})
        pipe.send(self.plans[index])

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
        self.observe(self.plans[index], event)
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
        record.status, record.reason = "failed", f"the worker process ended with code {code}{hint}; run it again"
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


def _worker(pipe: Any, runs: Path, threads: int, report_to: str) -> None:
    """A worker's life: receive a plan, run it, report; None ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a terminal sends Ctrl-C to all of us
    signal.signal(signal.SIGTERM, request_stop)
    # Raised inside some object's __del__ it is lost there, with a traceback; the flag behind request_stop serves then.
    sys.unraisablehook = lambda lost: None if lost.exc_type is Interrupted else sys.__unraisablehook__(lost)
    quiet()
    import torch

    torch.set_num_threads(threads)
    try:
        while (plan := pipe.recv()) is not None:
            pipe.send({"event": "end", "record": run_cell(plan, runs, pipe.send, report_to=report_to)})
    except (Interrupted, EOFError, BrokenPipeError):
        pass


def quiet() -> None:
    """Libraries' own progress and advice off; the harness reports."""
    import warnings

    import datasets
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore")


def default_workers(cells: int) -> int:
    """One worker a core on a CPU, one worker a GPU."""
    from harness.device import cuda_devices

    if devices := cuda_devices():
        return min(cells, devices)
    return max(1, min(cells, os.cpu_count() or 1))


def preflight(plans: Sequence[CellPlan], runs: Path) -> None:
    """Finds out now what would stop a cell later: missing assets, broken model folders, an unwritable folder. Raises
    HarnessError; nothing has been written then."""
    from harness.assets import check_model
    from harness.cell import articles
    from harness.results import check_writable

    seen: set[Any] = set()
    for plan in plans:
        if plan.unsupported:
            continue
        plan.assets  # noqa: B018  computing it is the check
        settings = plan.settings
        for model in (settings.generator.model, settings.target.model):
            if model not in seen:
                seen.add(model)
                check_model(model)
        key = (settings.data, settings.validation.prompts)
        if key not in seen:
            seen.add(key)
            train, _ = articles(settings)
            if len(train) < settings.grpo.prompts_per_step:
                raise HarnessError(
                    f"There are {len(train)} training articles but grpo.prompts_per_step is "
                    f"{settings.grpo.prompts_per_step}; add articles or lower it."
                )
    check_writable(runs)
