"""Stored cells as the two tables that every report reads: wide (a cell a row) and long (a measurement a row)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError
from harness.registry import TASKS, recorded_task
from harness.settings import variants
from harness.store.damage import DamagedError, check_png, reading
from harness.store.plain import plain_text
from harness.store.record import CellRecord, CellStore, StoredCell, long_frame
from harness.store.study import CELLS, Study, is_study, open_study

if TYPE_CHECKING:
    import pandas


BATCH = 256
"""Cells whose curves are put together at a time."""
UNKNOWN = "(unknown)"
"""Profile, task and reward of a damaged cell that lies in no folder named after them."""


def find_cells(place: Path) -> list[StoredCell]:
    """Every cell stored at or below `place`, sorted by folder: a results folder, a part of one or several merged, a
    packed study or several, or a part of a study, named as in a results folder (STUDY/tiny/norm)."""
    if not place.exists():
        if found := _part_of_study(place):
            return found
        raise HarnessError(f"There is no folder {place}; run `python -m harness run ...` first or name another one.")
    found = [CellStore(path.parent) for path in place.rglob("cell.json")]
    for path in place.rglob(CELLS):
        found += open_study(path.parent).cells
    return sorted(found, key=lambda cell: cell.folder)


def _part_of_study(place: Path) -> list[StoredCell]:
    """Cells of the study around `place`, which is not on the disk, at or below it; [] where there are none."""
    study = _study_around(place)
    return [cell for cell in study.cells if cell.folder.is_relative_to(place)] if study else []


def _study_around(place: Path) -> Study | None:
    folder = next((folder for folder in place.parents if is_study(folder)), None)
    return open_study(folder) if folder else None


def cell_at(folder: str | Path) -> StoredCell | None:
    """The cell whose folder this is (`StoredCell.folder`, the column `folder` of the wide table), or None."""
    folder = Path(folder)
    if (folder / "cell.json").exists():
        return CellStore(folder)
    study = _study_around(folder)
    return study.by_place.get(folder.relative_to(study.folder)) if study else None


def load(place: Path) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """(wide, long): one cell a row, one measurement a row; both with a column for every setting that is not the same in
    all cells of a task and reward, under its dotted key. A cell with a file that cannot be used has a row whose status
    is "damaged" and whose reason says what, and no measurements."""
    import pandas

    found = [(cell, *whole) for cell in find_cells(place) if (whole := examined(cell))]  # None: just started again
    settings = _varying_settings([record for _, record, _ in found])
    table = _of_one_kind(pandas.DataFrame([wide_row(record, cell.folder) for cell, record, _ in found]))
    long: list[pandas.DataFrame] = []
    batch: list[pandas.DataFrame] = []
    for number in range(len(found)):
        # Of thousands of cells, what many small tables take beside their numbers counts: they are let go on the way.
        curves, found[number] = found[number][2], None
        if len(curves):
            batch.append(curves.assign(**{key: values[number] for key, values in settings.items()}))
        if batch and (len(batch) == BATCH or number + 1 == len(found)):
            long.append(pandas.concat(batch, ignore_index=True))
            batch = []
    return table.assign(**settings), pandas.concat(long, ignore_index=True) if long else long_frame([])


def _varying_settings(records: Sequence[CellRecord]) -> dict[str, list[Any]]:
    """Dotted key -> one value a record."""
    views = [variants.dotted(record.settings) for record in records]
    groups: dict[Any, list[dict[str, Any]]] = {}
    for record, view in zip(records, views, strict=True):
        groups.setdefault((record.profile, record.task, record.reward), []).append(view)
    return {key: variants.column([view.get(key) for view in views]) for key in variants.columns(groups)}


def examined(cell: StoredCell) -> tuple[CellRecord, pandas.DataFrame] | None:
    """A cell's record and curves after a look at all of its files; a record that says what is damaged, without curves,
    where one of them cannot be used. None where there is no cell any more."""
    record = None
    try:
        record = cell.read()
        if record is None:
            return None
        if record.status == "done" and (record.headline is None or not math.isfinite(record.headline)):
            return damaged(cell.folder, "cell.json: done without a headline", record), long_frame([])
        _take_up(record)
        curves = cell.curves()
        if (curves["seed"] != record.seed).any() or (curves["identity"] != record.identity).any():
            return damaged(cell.folder, "curves.parquet: of another cell", record), long_frame([])
        cell.samples()
        cell.arrays()
        for step, named in cell.files().items():
            for name, content in named.items():
                if name.endswith(".png"):
                    with reading(cell.folder / f"step-{step}" / name, cell.folder, "remove it"):
                        check_png(content)
    except DamagedError as error:
        return damaged(cell.folder, error.what, record), long_frame([])
    except HarnessError as error:  # of a newer version
        return damaged(cell.folder, str(error).replace(f"{cell.folder.parent}/", ""), record), long_frame([])
    return record, curves


def _take_up(record: CellRecord) -> None:
    """Makes a task known that only the record describes, so that reports have its measures and its pictures."""
    task = record.settings.get("task")
    options = task.get("options") if isinstance(task, dict) else None
    if isinstance(options, dict) and TASKS.find(record.task) is None:
        with suppress(HarnessError):  # of another version: it is shown as a task that is not installed here
            recorded_task(record.task, options)


def damaged(folder: Path, what: str, record: CellRecord | None = None) -> CellRecord:
    """The record of a damaged cell, from the one that is stored as far as that could be read, else from the names of
    its folders."""
    what = plain_text(what)
    if record is None:
        names = re.fullmatch(r"seed([0-9]{1,9})-(.+)", folder.name)
        placed = folder.parts[-4:-1] if names and len(folder.parts) > 3 else [UNKNOWN] * 3
        profile, task, reward = map(plain_text, placed)
        seed, identity = (int(names[1]), plain_text(names[2])) if names else (0, plain_text(folder.name))
        record = CellRecord(
            profile=profile, task=task, reward=reward, seed=seed, identity=identity, status="damaged", reason=what
        )
    return record.model_copy(update={"status": "damaged", "reason": what})


def record_of(folder: str, status: str, reason: str) -> CellRecord | None:
    """The record behind a row of the wide table; of a damaged cell as `examined` gave it."""
    cell = cell_at(folder)
    if status != "damaged":
        return cell.read() if cell else None
    try:
        record = cell.read() if cell else None
    except HarnessError:
        record = None
    return damaged(Path(folder), reason, record)


def _of_one_kind(wide: pandas.DataFrame) -> pandas.DataFrame:
    """Provenance that other versions, or other hands, wrote as another kind of value: as texts, since a column of a
    Parquet file holds one kind."""
    for name in wide.columns:
        values = wide[name].dropna()
        if str(name).startswith("provenance_") and len(set(map(type, values))) > 1:
            wide[name] = wide[name].map(lambda value: value if value is None or value != value else str(value))
    return wide


def wide_row(record: CellRecord, folder: Path) -> dict[str, Any]:
    """The wide table's row of one cell."""
    row: dict[str, Any] = record.model_dump(
        include={
            "profile",
            "task",
            "reward",
            "variant",
            "seed",
            "identity",
            "status",
            "reason",
            "measure",
            "unit",
            "direction",
            "headline",
            "floor",
            "ceiling",
            "steps_done",
            "rollouts",
            "zero_spread",
        }
    )
    for phase in ("load", "generation", "reward", "update", "validation", "total"):
        row[f"seconds_{phase}"] = record.seconds.get(phase, math.nan)
    for phase in ("generation", "reward", "update", "validation"):
        row[f"flops_{phase}"] = record.flops.get(phase, math.nan)
        row[f"floor_seconds_{phase}"] = record.floor_seconds.get(phase, math.nan)
    row["rollouts_by"] = record.settings.get("generator", {}).get("backend")
    row["notes"] = "; ".join(record.notes)
    row["peak_memory_bytes"] = record.peak_memory_bytes
    row["device_memory_bytes"] = record.device_memory_bytes
    row |= {f"final_{name}": value for name, value in record.final.items()}
    row |= {f"initial_{name}": value for name, value in record.initial.items()}
    row |= {f"provenance_{name}": _flat(value) for name, value in record.provenance.items()}
    row["folder"] = str(folder)
    return row


def _flat(value: Any) -> Any:
    return json.dumps(value, sort_keys=True) if isinstance(value, dict | list) else value
