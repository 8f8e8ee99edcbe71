"""Several processes on one cell: what a launcher (`torchrun`, `accelerate launch`) started works on cell after cell,
all ranks on the same one. Rank 0 stores and prints; the others store in a scratch folder.

An interrupted cell starts again here: checkpoints hold one process's state.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.cell import run_cell
from harness.machine import processes
from harness.planning.cells import CellPlan, Policy, wanted
from harness.store.record import CellStore


def run_together(
    plans: Sequence[CellPlan],
    runs: Path,
    observe: Callable[[CellPlan, dict[str, Any]], None],
    needed: Callable[[CellPlan], bool],
    **options: Any,
) -> None:
    """Runs the cells that rank 0 finds `needed`, on all ranks, one after the other; further options are `run_cell`'s.

    Raises SystemExit (code 1) on a rank whose cell failed alone, so that the launcher ends those that wait for it.
    """
    import torch.distributed as dist

    processes.join_group()
    first = processes.rank() == 0
    tell = observe if first else lambda plan, event: None
    with tempfile.TemporaryDirectory() as scratch:
        for plan in plans:
            record = plan.record()
            if record.status == "unsupported":
                if first:
                    CellStore.of(runs, record).write(record)
                tell(plan, {"event": "end", "record": record})
                continue
            decision = [needed(plan) if first else None]
            dist.broadcast_object_list(decision)
            if not decision[0]:
                tell(plan, {"event": "end", "record": CellStore.of(runs, record).read(), "kept": True})
                continue
            tell(plan, {"event": "start"})
            place = runs if first else Path(scratch)
            CellStore.of(place, record).folder.mkdir(parents=True, exist_ok=True)
            record = run_cell(plan, place, lambda event, p=plan: tell(p, event), policy="fresh", **options)
            tell(plan, {"event": "end", "record": record})
            if record.status == "failed":
                print(f"rank {processes.rank()}: {record.reason}", flush=True)
                raise SystemExit(1)
    dist.barrier()


def run_from_launcher(plans: Sequence[CellPlan], runs: Path, console: Any, policy: Policy, track: str) -> bool:
    """The command `run` under a launcher. True on rank 0, which shows the results."""
    from harness.cli.progress import Progress
    from harness.machine.libraries import quiet
    from harness.planning.preflight import preflight

    def needed(plan: CellPlan) -> bool:
        return wanted(CellStore.of(runs, plan.record()).read(), policy)

    preflight(plans, runs)
    quiet()
    first = processes.rank() == 0
    if not first:
        run_together(plans, runs, lambda plan, event: None, needed)
        return False
    with Progress(plans, console) as progress:
        run_together(plans, runs, progress, needed, report_to=track)
    return True
