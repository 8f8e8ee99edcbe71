"""Stored cells as the two tables that every report reads: wide (a cell a row) and long (a measurement a row)."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError
from harness.registry import TASKS, recorded_task
from harness.settings import variants
from harness.store.damage import DamagedError, check_png, reading
from harness.store.plain import plain_text
from harness.store.record import KEY_COLUMNS, CellRecord, CellStore, StoredCell, long_frame, long_schema
from harness.store.study import CELLS, Study, is_study, open_study

if TYPE_CHECKING:
    import pandas
    import pyarrow


BATCH = 256
"""Cells whose measurements are put together at a time."""
UNKNOWN = "(unknown)"
"""Profile, task and reward of a damaged cell that lies in no folder named after them."""


def find_cells(place: Path) -> list[StoredCell]:
    """Every cell stored at or below `place`, sorted by folder: a results folder, a part of one or several merged, a
    packed study or several, or a part of a study, named as in a results folder (STUDY/tiny/norm)."""
    if not place.exists():
        if found := _part_of_study(place):
            return found
        raise HarnessError(f"There is no folder {place}; run `python -m harness run ...` first or name another one.")
    cells: list[StoredCell] = []
    packed: list[StoredCell] = []
    for name, folders, files in os.walk(place):  # once for both: a grid has tens of thousands of folders
        folder, names = Path(name), {*folders, *files}
        if "cell.json" in names and (folder / "cell.json").exists():
            cells.append(CellStore(folder))
        if CELLS in names and (folder / CELLS).exists():
            packed += open_study(folder).cells
    return sorted([*cells, *packed], key=lambda cell: cell.folder)


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

    rows: list[dict[str, Any]] = []
    settings, long = _Settings(), _Long()
    for cell in find_cells(place):
        if whole := examined(cell):  # None: just started again
            record, measured = whole
            rows.append(wide_row(record, cell.folder))
            settings.add(record)
            long.add(measured)
    varying = settings.varying()
    return _of_one_kind(pandas.DataFrame(rows)).assign(**varying), long.frame(varying)


class _Settings:
    """The settings of all cells. Most cells of a grid differ in the seed alone: their settings are held once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}
        self._views: list[dict[str, Any]] = []
        self._groups: dict[Any, dict[int, dict[str, Any]]] = {}

    def add(self, record: CellRecord) -> None:
        text = json.dumps(record.settings)
        if (view := self._known.get(text)) is None:
            view = self._known[text] = variants.dotted(record.settings)
        self._views.append(view)
        self._groups.setdefault((record.profile, record.task, record.reward), {})[id(view)] = view

    def varying(self) -> dict[str, list[Any]]:
        """Dotted key -> one value a cell, of those that are not the same in all cells of a task and reward."""
        keys = variants.columns({place: list(group.values()) for place, group in self._groups.items()})
        return {key: variants.column([view.get(key) for view in self._views]) for key in keys}


class _Long:
    """The long table as it grows: of thousands of cells, what many small tables take beside their numbers counts."""

    def __init__(self) -> None:
        self._whole: list[pyarrow.Table] = []
        self._small: list[pyarrow.Table] = []
        self._rows: list[int] = []

    def add(self, measured: pyarrow.Table) -> None:
        """The next cell's."""
        self._rows.append(len(measured))
        self._small.append(measured)
        if len(self._small) == BATCH:
            self._join()

    def _join(self) -> None:
        import pyarrow as pa

        if self._small:
            self._whole.append(pa.concat_tables(self._small).combine_chunks())
        self._small = []

    def frame(self, settings: Mapping[str, Sequence[Any]]) -> pandas.DataFrame:
        """All of it as a frame, once, with each cell's values of `settings` in columns."""
        import pyarrow as pa

        self._join()
        if not sum(self._rows):
            return long_frame([])
        frame = pa.concat_tables(self._whole).to_pandas()
        self._whole = []
        return frame.assign(**{key: _repeated(values, self._rows) for key, values in settings.items()})


def _repeated(values: Sequence[Any], counts: Sequence[int]) -> pandas.Series:
    """Each value as often as its count says, as the column that the parts put together have."""
    import numpy
    import pandas

    parts = dict.fromkeys((type(value), value) for value, count in zip(values, counts, strict=True) if count)
    whole = pandas.concat([pandas.DataFrame({"all": [value]}) for _, value in parts])
    found = numpy.empty(len(values), dtype=object)
    found[:] = values
    return pandas.Series(numpy.repeat(found, counts), dtype=whole["all"].dtype)


def examined(cell: StoredCell) -> tuple[CellRecord, pyarrow.Table] | None:
    """A cell's record and measurements after a look at all of its files; a record that says what is damaged, without
    measurements, where one of them cannot be used. None where there is no cell any more."""
    record = None
    nothing = long_schema().empty_table()
    try:
        record = cell.read()
        if record is None:
            return None
        if record.status == "done" and (record.headline is None or not math.isfinite(record.headline)):
            return damaged(cell.folder, "cell.json: done without a headline", record), nothing
        _take_up(record)
        measured = cell.measurements()
        seeds, identities = (measured[name].unique().to_pylist() for name in ("seed", "identity"))
        if seeds not in ([], [record.seed]) or identities not in ([], [record.identity]):
            return damaged(cell.folder, "curves.parquet: of another cell", record), nothing
        cell.samples()
        cell.arrays()
        for step, named in cell.files().items():
            for name, content in named.items():
                if name.endswith(".png"):
                    with reading(cell.folder / f"step-{step}" / name, cell.folder, "remove it"):
                        check_png(content)
    except DamagedError as error:
        return damaged(cell.folder, error.what, record), nothing
    except HarnessError as error:  # of a newer version
        return damaged(cell.folder, str(error).replace(f"{cell.folder.parent}/", ""), record), nothing
    return record, measured


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
    names = [*KEY_COLUMNS, "status", "reason", "measure", "unit", "direction", "headline", "floor", "ceiling"]
    names += ["steps_done", "rollouts", "zero_spread"]
    row: dict[str, Any] = {name: getattr(record, name) for name in names}
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
