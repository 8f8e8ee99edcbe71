"""`merge A B ... --out C`: results from several machines in one folder. A cell that lies in several is kept once; where
two say other numbers of one cell that is a conflict, which is named, and what was there first stays.

Cells are the same where their curves, final values, texts and arrays are (times aside, as for `rerun`). Of a cell that
is finished in one place and not in another the finished one is taken. Signals, evaluations and the theorem (`fidelity`,
`evaluate`, `paper`) are files of their own, the same where their bytes are.

What a packed study holds is unpacked on the way, so that work goes on from there: its cells are done, and what the same
command lacks is run. Kept generators are in no study.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contracts import HarnessError
from harness.machine.files import check_plain, files_below, read_bytes
from harness.rerun import compare
from harness.store import locks
from harness.store.atomic import cannot_write, check_writable, json_bytes, whole_folder, write_atomic
from harness.store.damage import DamagedError
from harness.store.record import CellRecord, CellStore, StoredCell, place_of
from harness.store.study import CELLS, is_study, open_study

BESIDE = ("fidelity", "evaluation")
"""Folders of a profile beside its tasks, whose JSON files are records as well."""
MOST_BYTES = 2**34
"""Of one file; a kept generator of the paper's size has a sixth of it."""
RANK = ("damaged", "unsupported", "running", "interrupted", "failed", "done")
"""How far a cell got: the further one is taken."""

Say = Callable[[str], None]
Unpack = Callable[[Path], Iterable[tuple[Path, Any]]]
"""A study's file of records beside cells -> their places below the results and what each holds. Raises DamagedError."""


@dataclass(frozen=True)
class Kinds:
    """What lies beside cells, by those who made it: `packed`, files of a study by their names, and `plain`, names of
    files of a profile."""

    packed: Mapping[str, Unpack] = field(default_factory=dict)
    plain: Collection[str] = ()


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


def merge(places: Sequence[Path], out: Path, say: Say = lambda line: None, kinds: Kinds = Kinds()) -> Merged:  # noqa: B008
    """Copies the results below `places` into `out`, in their order; a second call goes on where it was. Raises
    HarnessError for a place that is none, and StorageError where `out` cannot be written."""
    for place in places:
        if not place.is_dir():
            raise HarnessError(f"There is no folder {place}; name results folders.")
        if place.resolve() == out.resolve() or out.resolve().is_relative_to(place.resolve()):
            raise HarnessError(f"{out} lies in {place}, which is to be merged into it; choose another --out.")
    if not any(True for place in places for _ in _sources(place, kinds)):
        raise HarnessError(f"There are no results in {', '.join(map(str, places))}.")
    check_writable(out)
    found = Merged()
    for place in places:
        say(f"{place}:")
        before = found.copied
        for source in _sources(place, kinds):
            if isinstance(source, Beside):
                _file(source, out, found)
            elif isinstance(source, str):
                found.left_out.append(source)
            else:
                _cell(source, out, found)
        say(f"  {found.copied - before} copied")
    return found


@dataclass(frozen=True)
class Beside:
    """A record beside cells: where it lies or was packed, its place below its results, and what it holds."""

    source: Path
    place: Path
    content: bytes


def _sources(place: Path, kinds: Kinds) -> Iterator[StoredCell | Beside | str]:
    """Every cell and every record beside cells, in folders or in studies; a sentence for what cannot be used."""
    for path in sorted(place.rglob("cell.json")):
        yield CellStore(path.parent)
    for path in sorted(place.rglob(CELLS)):
        yield from open_study(path.parent).cells
    for name in BESIDE:
        for folder in sorted(path for path in place.rglob(name) if path.is_dir()):
            for path in sorted(path for path in folder.rglob("*.json") if not path.name.startswith(".")):
                yield _beside(path, place)
    for path in sorted(path for name in kinds.plain for path in place.rglob(name)):
        study = {one.parts[0] for one in open_study(path.parent).by_place} if is_study(path.parent) else set()
        profile = study.pop() if len(study) == 1 else path.resolve().parent.name
        yield Beside(path, Path(profile, path.name), read_bytes(path)) if _inside(path, place) else _outside(path)
    for name, unpacked in kinds.packed.items():
        for path in sorted(place.rglob(name)):
            try:
                yield from [Beside(path, goal, json_bytes(data)) for goal, data in unpacked(path)]
            except DamagedError as error:
                yield f"{path}: damaged: {error.what}"


def _inside(path: Path, place: Path) -> bool:
    return path.resolve().is_relative_to(place.resolve())


def _outside(path: Path) -> str:
    return f"{path}: a link out of the results, which is not followed"


def _beside(path: Path, place: Path) -> Beside | str:
    parts = path.relative_to(place).parts
    at = next(number for number, part in enumerate(parts) if part in BESIDE)
    profile = parts[at - 1] if at else place.resolve().name
    if not _inside(path, place):
        return _outside(path)
    check_plain(path, MOST_BYTES)
    return Beside(path, Path(profile, *parts[at:]), path.read_bytes())


def _cell(source: StoredCell, out: Path, found: Merged) -> None:
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
            if isinstance(source, CellStore):
                _copy(source.folder, target.folder)
            else:
                _unpack(source, record, target.folder)
            found.copied += 1
    except DamagedError as error:
        found.left_out.append(f"{source.folder}: damaged: {error.what}")


def _same_cell(source: StoredCell, record: CellRecord, target: CellStore, there: CellRecord, found: Merged) -> None:
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


def _unpack(source: StoredCell, record: CellRecord, target: Path) -> None:
    """The same of a cell of a study, in the files that a cell writes."""
    rollouts, samples, arrays = source.rollouts(), source.samples(), source.arrays()
    with whole_folder(target) as folder:
        cell = CellStore(folder)
        cell.write_curves(record, source.curves().to_dict("records"))
        if samples:
            cell.write_samples(samples)
        if len(rollouts):
            cell.write_rollouts(record, rollouts.to_dict("records"))
        if arrays:
            cell.write_arrays(arrays)
        for step, files in source.files().items():
            for name, content in files.items():
                cell.write_file(step, name, content)
        cell.write(record)


def _file(source: Beside, out: Path, found: Merged) -> None:
    goal = out / source.place
    if not _inside(goal, out):  # a study's records may be anybody's
        found.left_out.append(
            f"{source.source}: a record of it names the place {source.place}, which is not below {out}"
        )
        return
    if goal.exists():
        same = goal.read_bytes() == source.content
        found.same += same
        found.conflicts += [] if same else [f"{source.place}: {source.source} is another"]
        return
    try:
        write_atomic(goal, source.content)
    except OSError as error:
        raise cannot_write(goal, error) from error
    found.copied += 1
