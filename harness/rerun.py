"""Repeats a stored cell from its own record, and says whether the numbers agree."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.cell import Notify, run_cell
from harness.contracts import HarnessError
from harness.planning.cells import CellPlan
from harness.settings.schema import Settings
from harness.store.frames import load
from harness.store.record import CellRecord, CellStore

ENVIRONMENT = ("commit", "dirty", "python", "packages", "device", "threads")


@dataclass(frozen=True)
class Comparison:
    """`equal`: every stored number but times and memory is the same to the last bit."""

    stored: CellRecord
    repeated: CellRecord
    equal: bool
    numbers: int
    largest: dict[str, float] = field(default_factory=dict)
    """Measure -> largest relative difference, of those that differ, largest first."""
    environment: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """What differs between the two runs' surroundings: (then, now)."""


def rerun(folder: Path, notify: Notify) -> Comparison:
    """Runs the cell in `folder` (or whose cell.json it is) once more, elsewhere. Raises HarnessError if there is no
    finished cell, or if what it reads (models, texts) is not what it read then."""
    import torch

    store = CellStore(folder.parent if folder.name == "cell.json" else folder)
    stored = store.read()
    if stored is None or stored.status != "done":
        raise HarnessError(f"{store.folder} holds no finished cell; give the folder of one (it has a cell.json).")
    plan = planned(stored, store.folder)
    threads = torch.get_num_threads()
    torch.set_num_threads(stored.provenance.get("threads") or threads)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            repeated = run_cell(plan, Path(scratch), notify)
            if repeated.status != "done":
                raise HarnessError(f"The cell was done, but now it is {repeated.status}: {repeated.reason}")
            return compare(stored, store.folder, repeated, Path(scratch))
    finally:
        torch.set_num_threads(threads)


def planned(stored: CellRecord, folder: Path) -> CellPlan:
    """The plan that the record describes; HarnessError where it would be another cell today."""
    try:
        settings = Settings.model_validate(stored.settings)
    except ValidationError as error:
        raise HarnessError(f"The settings in {folder} are not of this version; use its record's commit.") from error
    plan = CellPlan(stored.profile, stored.task, stored.reward, stored.seed, settings, stored.variant, stored.given)
    now = plan.record()
    changed = [ref for ref, print_ in stored.assets.items() if now.assets.get(ref) != print_]
    if changed:
        raise HarnessError(f"{', '.join(changed)} is not what {folder} was made with; bring back that version.")
    if now.identity != stored.identity:
        raise HarnessError(f"{folder} would have another identity today; use the commit in its record.")
    return plan


def compare(stored: CellRecord, folder: Path, repeated: CellRecord, runs: Path) -> Comparison:
    """Curves and final values, measure by measure; times are left out."""
    key = ["step", "phase", "measure"]
    then, now = (frame[~frame["measure"].str.startswith("seconds")] for frame in (load(folder)[1], load(runs)[1]))
    both = then.merge(now, on=key, how="outer", suffixes=("_then", "_now"))
    a, b = both["value_then"], both["value_now"]
    differs = ~((a == b) | (a.isna() & b.isna()))
    relative = ((a - b).abs() / a.abs().where(a != 0, 1.0)).fillna(float("inf"))[differs]
    largest = relative.groupby(both["measure"][differs]).max().sort_values(ascending=False).to_dict()
    surroundings = {name: (stored.provenance.get(name), repeated.provenance.get(name)) for name in ENVIRONMENT}
    environment = {name: pair for name, pair in surroundings.items() if pair[0] != pair[1]}
    equal = not largest and stored.final == repeated.final and stored.headline == repeated.headline
    return Comparison(stored, repeated, equal, len(both), largest, environment)
