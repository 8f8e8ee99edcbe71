"""Stored cells as the two tables that every report reads: wide (a cell a row) and long (a measurement a row)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError
from harness.settings import variants
from harness.store.record import CellRecord, CellStore, StoredCell, long_frame
from harness.store.study import CELLS, Study, is_study, open_study

if TYPE_CHECKING:
    import pandas


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
    all cells of a task and reward, under its dotted key. Raises HarnessError for damaged or newer results."""
    import pandas

    found = [(cell, record) for cell in find_cells(place) if (record := cell.read())]  # None: just started again
    settings = _varying_settings([record for _, record in found])
    wide, long = [], []
    for number, (cell, record) in enumerate(found):
        wide.append(wide_row(record, cell.folder))
        if len(curves := cell.curves()):
            long.append(curves.assign(**{key: values[number] for key, values in settings.items()}))
    table = pandas.DataFrame(wide)
    return table.assign(**settings), pandas.concat(long, ignore_index=True) if long else long_frame([])


def _varying_settings(records: Sequence[CellRecord]) -> dict[str, list[Any]]:
    """Dotted key -> one value a record."""
    views = [variants.dotted(record.settings) for record in records]
    groups: dict[Any, list[dict[str, Any]]] = {}
    for record, view in zip(records, views, strict=True):
        groups.setdefault((record.profile, record.task, record.reward), []).append(view)
    return {key: variants.column([view.get(key) for view in views]) for key in variants.columns(groups)}


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
