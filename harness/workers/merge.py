"""`merge A B ... --out C`: results from several machines in one folder. A cell that lies in several is kept once; where
two say other numbers of one cell that is a conflict, which is named, and what was there first stays.

Cells are the same where their curves, final values, texts and arrays are (times aside, as for `rerun`). Of a cell that
is finished in one place and not in another the finished one is taken. Signals and evaluations (`fidelity`, `evaluate`)
are files of their own, the same where their bytes are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.contracts import HarnessError
from harness.machine.files import check_plain, files_below
from harness.rerun import compare
from harness.store import locks
from harness.store.atomic import cannot_write, check_writable, whole_folder, write_atomic
from harness.store.damage import DamagedError
from harness.store.record import CellRecord, CellStore, place_of
from harness.store.study import CELLS

BESIDE = ("fidelity", "evaluation")
"""Folders of a profile beside its tasks, whose JSON files are records as well."""
MOST_BYTES = 2**34
"""Of one file; a kept generator of the paper's size has a sixth of it."""
RANK = ("damaged", "unsupported", "running", "interrupted", "failed", "done")
"""How far a cell got: the further one is taken."""

Say = Callable[[str], None]


@dataclass
class Merged:
    """What came of it."""

    copied: int = 0
    same: int = 0
    """Cells and records that were there already, with the same numbers."""
    conflicts: list[str] = field(default_factory=list)
    """Places below `out` where two differ, and from where the second came."""
    left_out: list[str] = field(default_factory=list)
    """What could not be used, and why."""


def merge(places: Sequence[Path], out: Path, say: Say = lambda line: None) -> Merged:
    """Copies the results below `places` into `out`, in their order; a second call goes on where it was. Raises
    HarnessError for a place that is none, and StorageError where `out` cannot be written."""
    for place in places:
        if not place.is_dir():
            raise HarnessError(f"There is no folder {place}; name results folders.")
        if place.resolve() == out.resolve() or out.resolve().is_relative_to(place.resolve()):
            raise HarnessError(f"{out} lies in {place}, which is to be merged into it; choose another --out.")
        if next(place.rglob(CELLS), None):
            raise HarnessError(f"{place} holds packed studies; `pack` puts those together.")
    if not any(True for place in places for _ in _sources(place)):
        raise HarnessError(f"There are no results in {', '.join(map(str, places))}.")
    check_writable(out)
    found = Merged()
    for place in places:
        say(f"{place}:")
        before = found.copied
        for source in _sources(place):
            _cell(source, out, found) if isinstance(source, CellStore) else _file(source, place, out, found)
        say(f"  {found.copied - before} copied")
    return found


def _sources(place: Path) -> Iterator[CellStore | Path]:
    """Every cell and every record beside cells."""
    for path in sorted(place.rglob("cell.json")):
        yield CellStore(path.parent)
    for name in BESIDE:
        for folder in sorted(path for path in place.rglob(name) if path.is_dir()):
            yield from sorted(path for path in folder.rglob("*.json") if not path.name.startswith("."))


def _cell(source: CellStore, out: Path, found: Merged) -> None:
    try:
        record = source.read()
        if record is None:
            return
        target = CellStore(out / place_of(record))
        with locks.owned(target.folder, wait=True):
            there = target.read()
            if there is not None and RANK.index(there.status) >= RANK.index(record.status):
                _same_cell(source, record, target, there, found)
                return
            _copy(source.folder, target.folder)
            found.copied += 1
    except DamagedError as error:
        found.left_out.append(f"{source.folder}: damaged: {error.what}")


def _same_cell(source: CellStore, record: CellRecord, target: CellStore, there: CellRecord, found: Merged) -> None:
    if record.status != "done" or compare(there, target, record, source).equal:
        found.same += 1
    else:
        found.conflicts.append(f"{place_of(record)}: {source.folder} has other numbers")


def _copy(source: Path, target: Path) -> None:
    """All plain files of a cell, as one folder that is there as a whole or not at all. Links are not followed."""
    files = [path for path in files_below(source) if not path.name.startswith(".")]
    for path in files:
        if not path.resolve().is_relative_to(source.resolve()):
            raise DamagedError(path, "a link out of the results, which is not followed", "remove it")
        check_plain(path, MOST_BYTES)
    with whole_folder(target) as folder:
        for path in files:
            goal = folder / path.relative_to(source)
            goal.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, goal)


def _file(path: Path, place: Path, out: Path, found: Merged) -> None:
    """A record beside cells."""
    parts = path.relative_to(place).parts
    at = next(number for number, part in enumerate(parts) if part in BESIDE)
    profile = parts[at - 1] if at else place.resolve().name
    goal = out.joinpath(profile, *parts[at:])
    if not path.resolve().is_relative_to(place.resolve()):
        found.left_out.append(f"{path}: a link out of the results, which is not followed")
        return
    check_plain(path, MOST_BYTES)
    content = path.read_bytes()
    if goal.exists():
        same = goal.read_bytes() == content
        found.same += same
        found.conflicts += [] if same else [f"{goal.relative_to(out)}: {path} is another"]
        return
    try:
        write_atomic(goal, content)
    except OSError as error:
        raise cannot_write(goal, error) from error
    found.copied += 1
