"""A grid's cells as jobs for an executor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.cell import run_cell
from harness.machine.devices import Device, usual_device
from harness.planning.cells import Cell
from harness.planning.cost import CellEstimate, estimate
from harness.planning.policy import Policy, kept
from harness.store import locks
from harness.store.checkpoint import Checkpoints
from harness.store.provenance import now, provenance
from harness.store.record import CellRecord, CellStore
from harness.workers.executor import Event, Executor, Tell


def run_grid(
    cells: Sequence[Cell],
    runs: Path,
    observe: Callable[[Cell, Event], None],
    executor: Executor,
    *,
    policy: Policy = "continue",
    report_to: str = "none",
    first: Sequence[int] = (),
) -> list[CellRecord]:
    """Runs what is not done yet; returns one record a cell, in order.

    `policy` says what happens to cells that have results (harness/planning/policy.py). Several processes may run the
    same grid on the same folder: each cell is run by one of them, the others wait for it in the end. Raises Interrupted
    after SIGINT or SIGTERM, when every running cell has been stored as `interrupted`, and StorageError where nothing
    can be stored any more.

    The dearest cells begin first, by the plan's estimate: a long one that began last would leave workers idle. `first`
    goes before that: a number for each cell, and cells with a lower one begin earlier.
    """
    since = now()
    order = dearest_first(cells, first)
    jobs = [CellJob(cells[number], runs, policy, since, report_to) for number in order]
    records = executor.run(jobs, lambda job, event: observe(job.cell, event))
    of_number = dict(zip(order, records, strict=False))  # of a launcher's ranks only the first gets records
    return [of_number[number] for number in sorted(of_number)]


def dearest_first(cells: Sequence[Cell], first: Sequence[int] = ()) -> list[int]:
    """The cells' numbers in the order in which they begin (`run_grid`)."""
    turns = first or [0] * len(cells)
    return sorted(range(len(cells)), key=lambda number: (turns[number], -usual_hours(cells[number])))


def usual_hours(cell: Cell) -> float:
    """What the cell would take on some machine: enough to say which of two takes longer. 0 where that is not known."""
    found = _usual(cell)
    return found.hours if found else 0.0


def _usual(cell: Cell, device: Device | None = None) -> CellEstimate | None:
    """The plan on this machine, by default some; None where that is not known."""
    try:
        return estimate(cell.settings, cell.task, cell.reward, device or usual_device())
    except Exception:  # a shape that is not known offline, or a fault in a task's own code: the order is all it costs
        return None


@dataclass(frozen=True)
class CellJob:
    """One cell of a results folder: the `Job` of harness/workers/executor.py."""

    cell: Cell
    runs: Path
    policy: Policy = "continue"
    since: str = ""
    """When the command began (UTC, ISO)."""
    report_to: str = "none"

    @property
    def name(self) -> str:
        return self.cell.name

    def settled(self) -> CellRecord | None:
        record = self.cell.record()
        store = CellStore.of(self.runs, record)
        if record.status == "unsupported":
            if (before := store.read()) is not None and before.status == "done":
                return before  # it ran once, whatever is in its way now
            store.write(record)
            return record
        stored = kept(store, self.policy, self.since)
        if stored is not None:
            _tidy(store, stored)
        return stored

    def run(self, tell: Tell, *, wait: bool) -> CellRecord | None:
        return run_cell(
            self.cell,
            self.runs,
            tell,
            report_to=self.report_to,
            policy=self.policy,
            since=self.since,
            wait=wait,
        )

    def lost(self, reason: str) -> CellRecord:
        record = self.cell.record()
        store = CellStore.of(self.runs, record)
        record = store.read() or record
        record.status, record.reason = "failed", f"{reason}; --retry-failed resumes it"
        record.provenance = record.provenance or provenance()
        store.write(record)
        return record

    def stopped(self) -> None:
        """Stores that it was interrupted where its worker was gone before it could. Nothing where it never began, has
        ended, or another process has it."""
        store = CellStore.of(self.runs, self.cell.record())
        if (record := store.read()) is None or record.status != "running":
            return
        with locks.owned(store.folder, wait=False) as ours:
            if ours and (record := store.read()) is not None and record.status == "running":
                record.status, record.reason = "interrupted", f"stopped by the user after step {record.steps_done}"
                store.write(record)

    def memory(self) -> int:
        """Bytes at its peak, by the plan; 0 where that is not known."""
        found = _usual(self.cell)
        return found.memory if found else 0

    def planned(self, device: Device) -> CellEstimate | None:
        """What it would take on this device; None where that is not known."""
        return _usual(self.cell, device)

    def stores(self) -> tuple[Path, Path]:
        """The results folder, and the cell's own in it."""
        return self.runs, CellStore.of(self.runs, self.cell.record()).folder

    def at(self, runs: Path) -> CellJob:
        """The same cell of another results folder."""
        return replace(self, runs=runs)

    def together(self, scratch: Path | None) -> CellJob:
        """The job as one of several processes does it that work on the cell together. All but the first, which gets
        None, store in `scratch`; whether the cell resumes, and from where, the first says (`run_cell`)."""
        return self if scratch is None else replace(self, runs=scratch, report_to="none")


def _tidy(store: CellStore, stored: CellRecord) -> None:
    """Frees a kept cell's folder of what was left if its owner died while tidying up."""
    folder = store.folder
    left = (folder / locks.NAME).exists() or any(folder.rglob(".*.tmp"))
    if left or (stored.status == "done" and (folder / "checkpoints").exists()):
        with locks.owned(folder, wait=False) as ours:
            if ours:
                locks.sweep(folder)
                if stored.status == "done":
                    Checkpoints(folder / "checkpoints").clear()
