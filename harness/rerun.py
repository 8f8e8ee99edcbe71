"""Repeats stored cells from their own records, and says whether the numbers agree."""

from __future__ import annotations

import shlex
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness import assets
from harness.assets import hub
from harness.cell import Notify, run_cell
from harness.contracts import Contact, HarnessError
from harness.machine.processes import MOST_THREADS
from harness.planning.cells import Cell
from harness.registry import recorded_task
from harness.settings.schema import Settings
from harness.store.arrays import arrays_frame
from harness.store.frames import find_cells
from harness.store.record import CellRecord, CellStore, StoredCell

ENVIRONMENT = ("commit", "dirty", "python", "packages", "device", "threads")


@dataclass(frozen=True)
class Comparison:
    """`equal`: every stored number but times and memory, every sampled text and every array is the same to the last
    bit."""

    stored: CellRecord
    repeated: CellRecord
    equal: bool
    numbers: int
    largest: dict[str, float] = field(default_factory=dict)
    """Measure -> largest relative difference, of those that differ, largest first."""
    others: tuple[str, ...] = ()
    """What else differs: "sampled texts", "arrays"."""
    environment: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    """What differs between the two runs' surroundings: (then, now)."""


def chosen(place: Path, task: str = "", reward: str = "", seed: int | None = None) -> list[StoredCell]:
    """The cells at `place` (a cell's folder or cell.json, a results folder, a study) of this task, reward and seed,
    where they are given. Raises HarnessError if none of them is finished."""
    place = place.parent if place.name == "cell.json" else place
    found = []
    for cell in find_cells(place):
        record = cell.read()
        if record and task in ("", record.task) and reward in ("", record.reward) and seed in (None, record.seed):
            found.append((cell, record.status))
    if not any(status == "done" for _, status in found):
        raise HarnessError(f"{place} holds no finished cell of what was asked for; `table` shows what it holds.")
    return [cell for cell, _ in found]


def rerun(stored_cell: StoredCell, notify: Notify, allowed: frozenset[Contact] = frozenset()) -> Comparison:
    """Runs the cell once more, elsewhere. A record may be anybody's, so it contacts no host that is not `allowed`; what
    it contacts is told first, as the event "contacts".

    Raises HarnessError for any other host, if the cell is not finished, or if what it reads (models, texts) is not what
    it read then."""
    import torch

    stored = stored_cell.read()
    if stored is None or stored.status != "done":
        raise HarnessError(f"{stored_cell.folder} holds no finished cell, so there is nothing to repeat.")
    cell = recorded_cell(stored, stored_cell.folder, allowed)
    if asked := contacts(cell):
        notify({"event": "contacts", "contacts": asked})
    threads = torch.get_num_threads()
    then = stored.provenance.get("threads") or threads
    if type(then) is not int or not 0 < then <= MOST_THREADS:
        raise HarnessError(f"The record in {stored_cell.folder} says threads={str(then)[:40]}, which no run had.")
    torch.set_num_threads(then)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            keeping_none = cell.settings.keep.model_copy(update={"generator": "none"})  # it would be thrown away
            settings = cell.settings.model_copy(update={"keep": keeping_none})
            repeated = run_cell(replace(cell, settings=settings), Path(scratch), notify)
            if repeated.status != "done":
                raise HarnessError(f"The cell was done, but now it is {repeated.status}: {repeated.reason}")
            return compare(stored, stored_cell, repeated, CellStore.of(Path(scratch), repeated))
    finally:
        torch.set_num_threads(threads)


def contacts(cell: Cell) -> list[Contact]:
    """Every host that the cell contacts: those of its task and reward, and the hub for what does not lie here."""
    models, data = cell.references()
    remote = any(not (assets.is_embedded(ref) or assets.is_local(ref)) for ref in (*models, *data))
    host = hub.endpoint() if remote else None
    return [*cell.contacts(), *([Contact(host)] if host else [])]


def _check_contacts(cell: Cell, folder: Path) -> None:
    refused = [contact for contact in contacts(cell) if contact not in cell.allowed]
    if not refused:
        return
    sent = [f"the environment variable {contact.variable} to {contact.url}" for contact in refused if contact.variable]
    asked = " and ".join([*sent, *(f"requests to {contact.url}" for contact in refused if not contact.variable)])
    local = [ref for part in cell.references() for ref in part if assets.is_local(ref)]
    reads = f" (it reads {', '.join(local)})" if local else ""
    flags = " ".join(f"--contact {shlex.quote(str(contact))}" for contact in refused)
    raise HarnessError(f"{folder} would send {asked}{reads}; if that is what you want, add {flags}.")


def recorded_settings(stored: CellRecord, folder: Path) -> Settings:
    """Raises HarnessError where they are of another version."""
    try:
        return Settings.model_validate(stored.settings)
    except ValidationError as error:
        raise HarnessError(f"The settings in {folder} are not of this version; use its record's commit.") from error


def recorded_cell(stored: CellRecord, folder: Path, allowed: frozenset[Contact] = frozenset()) -> Cell:
    """The cell that the record describes. Raises HarnessError where it would be another one today, and, before any of
    its assets is looked at, where it contacts a host that is not `allowed`."""
    settings = recorded_settings(stored, folder)
    entry = recorded_task(stored.task, settings.task.options)
    files = entry.declares.readings(settings.task.options) if entry else ()
    if names := [each.name for each in files if each.local and not each.ref]:
        raise HarnessError(
            f"{folder} was made with a target's file that names {', '.join(names)}, and a record opens no file; if you "
            "have that target, add --task FILE.yaml."
        )
    named = stored.profile, stored.task, stored.reward, stored.seed
    cell = Cell(*named, settings, stored.variant, stored.given, allowed=allowed)
    _check_contacts(cell, folder)
    now = cell.record()
    changed = [ref for ref, print_ in stored.assets.items() if now.assets.get(ref) != print_]
    if changed:
        raise HarnessError(f"{', '.join(changed)} is not what {folder} was made with; bring back that version.")
    if now.identity != stored.identity:
        raise HarnessError(f"{folder} would have another identity today; use the commit in its record.")
    return cell


def _texts(cell: StoredCell) -> list[tuple[Any, ...]]:
    """Sampled texts without what is said about them, which another version may say in other words."""
    return [(row["step"], row["index"], row["text"]) for row in cell.samples()]


def compare(stored: CellRecord, then: StoredCell, repeated: CellRecord, now: StoredCell) -> Comparison:
    """Curves measure by measure, final values, texts and arrays; times are left out."""
    key = ["step", "phase", "measure"]
    old, new = (frame[~frame["measure"].str.startswith("seconds")] for frame in (then.curves(), now.curves()))
    both = old.merge(new, on=key, how="outer", suffixes=("_then", "_now"))
    a, b = both["value_then"], both["value_now"]
    differs = ~((a == b) | (a.isna() & b.isna()))
    relative = ((a - b).abs() / a.abs().where(a != 0, 1.0)).fillna(float("inf"))[differs]
    largest = relative.groupby(both["measure"][differs]).max().sort_values(ascending=False).to_dict()
    others = ["sampled texts"] if _texts(then) != _texts(now) else []
    others += [] if arrays_frame(then.arrays()).equals(arrays_frame(now.arrays())) else ["arrays"]
    surroundings = {name: (stored.provenance.get(name), repeated.provenance.get(name)) for name in ENVIRONMENT}
    environment = {name: pair for name, pair in surroundings.items() if pair[0] != pair[1]}
    same_end = stored.final == repeated.final and stored.headline == repeated.headline
    equal = not largest and not others and same_end
    return Comparison(stored, repeated, equal, len(both), largest, tuple(others), environment)
