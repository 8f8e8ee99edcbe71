"""A packed study: the results of many cells in a handful of compact files, to be kept and looked at again.

    <study>/cells.jsonl      the cells' records, one a line, in the order of the cells' folders
    <study>/curves.parquet   all measurements of all cells, LONG_COLUMNS
    <study>/samples.parquet  all sampled texts: KEY_COLUMNS, step, index, text, labels (JSON)
    <study>/rollouts.parquet all kept rollouts of training, ROLLOUT_COLUMNS
    <study>/arrays.parquet   all arrays that pictures are drawn from: KEY_COLUMNS, step, name, dtype, shape, data
    <study>/files.parquet    what tasks stored and nobody can draw: KEY_COLUMNS, step, name, content
    <study>/fidelity.parquet comparisons of signals (`harness/signals/records.py`)
    <study>/evaluation.parquet what generated data are worth (`harness/evaluation/records.py`)

A file with nothing in it is not there. The same cells make the same bytes. Checkpoints and tracebacks stay behind.
README.md and pictures beside these files are written by hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError
from harness.machine.files import read_table
from harness.store.arrays import StepArrays, StepFiles, arrays_frame, arrays_of
from harness.store.atomic import parquet_bytes, write_together
from harness.store.damage import DamagedError, check_long, check_sample, reading
from harness.store.lines import LineError, as_lines, each_line
from harness.store.record import (
    KEY_COLUMNS,
    LONG_COLUMNS,
    ROLLOUT_COLUMNS,
    CellRecord,
    StoredCell,
    key_of,
    long_frame,
    long_schema,
    parsed,
    place_of,
    samples_frame,
    samples_of,
)

if TYPE_CHECKING:
    import pandas
    import pyarrow

CELLS = "cells.jsonl"
CURVES = "curves.parquet"
SAMPLES = "samples.parquet"
ROLLOUTS = "rollouts.parquet"
ARRAYS = "arrays.parquet"
FILES = "files.parquet"
FILE_COLUMNS = ["step", "name", "content"]
ADVICE = "bring back the committed file or pack it again"


# ------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class PackedCell:
    """One cell of a study, read as `StoredCell`."""

    study: Study
    place: Path
    """The cell's folder below its results."""
    record: CellRecord

    @property
    def folder(self) -> Path:
        return self.study.folder / self.place

    def read(self) -> CellRecord:
        return self.record.model_copy(deep=True)

    def curves(self) -> pandas.DataFrame:
        found = self._rows(CURVES)
        return long_frame([]) if found is None else found

    def measurements(self) -> pyarrow.Table:
        import pyarrow as pa

        return pa.Table.from_pandas(self.curves(), long_schema(), preserve_index=False)

    def samples(self) -> list[dict[str, Any]]:
        rows = self._rows(SAMPLES)
        if rows is None:
            return []
        with self._reading(SAMPLES):
            return [check_sample(value) for value in samples_of(rows)]

    def rollouts(self) -> pandas.DataFrame:
        import pandas

        found = self._rows(ROLLOUTS)
        return pandas.DataFrame(columns=ROLLOUT_COLUMNS) if found is None else found

    def arrays(self) -> StepArrays:
        rows = self._rows(ARRAYS)
        if rows is None:
            return {}
        with self._reading(ARRAYS):
            return arrays_of(rows)

    def files(self) -> StepFiles:
        rows = self._rows(FILES)
        found: dict[int, dict[str, bytes]] = {}
        with self._reading(FILES):
            for row in () if rows is None else rows.itertuples(index=False):
                found.setdefault(int(row.step), {})[str(row.name)] = bytes(row.content)
        return found

    def _reading(self, name: str) -> AbstractContextManager[Path]:
        return reading(self.study.folder / name, self.study.folder, ADVICE)

    def _rows(self, name: str) -> pandas.DataFrame | None:
        return self.study.parts(name).get(self.place)


class NoRollouts:
    """A cell but for its kept rollouts of training."""

    def __init__(self, cell: StoredCell) -> None:
        self._cell = cell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cell, name)

    def rollouts(self) -> pandas.DataFrame:
        import pandas

        return pandas.DataFrame(columns=ROLLOUT_COLUMNS)


@dataclass(frozen=True)
class DamagedCell:
    """A cell of which no record can be read: whatever is asked for raises `error`."""

    folder: Path
    error: HarnessError

    def read(self) -> CellRecord:
        raise self.error

    def curves(self) -> pandas.DataFrame:
        raise self.error

    def measurements(self) -> pyarrow.Table:
        raise self.error

    def samples(self) -> list[dict[str, Any]]:
        raise self.error

    def rollouts(self) -> pandas.DataFrame:
        raise self.error

    def arrays(self) -> StepArrays:
        raise self.error

    def files(self) -> StepFiles:
        raise self.error


class Study:
    """A packed study's files, each read when it is first asked for and then kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts: dict[str, dict[Path, pandas.DataFrame]] = {}

    @cached_property
    def by_place(self) -> dict[Path, StoredCell]:
        """Every cell by its folder below its results; a record that cannot be read by its line, as a `DamagedCell`."""
        found: dict[Path, StoredCell] = {}
        try:
            with self._reading(CELLS) as path:
                for number, data in each_line(path, strict=True):
                    place, cell = self._cell(number, data)
                    found[place] = cell
        except (DamagedError, FileNotFoundError) as error:
            damaged = error if isinstance(error, DamagedError) else DamagedError(self.folder / CELLS, "gone", ADVICE)
            found[Path("cells")] = DamagedCell(self.folder / "cells", damaged)
        return found

    def _cell(self, number: int, data: Any) -> tuple[Path, StoredCell]:
        try:
            with self._reading(CELLS) as path:
                if isinstance(data, LineError):
                    raise data
                record = parsed(data, path)
        except HarnessError as error:
            place = Path(f"line-{number}")
            return place, DamagedCell(self.folder / place, error)
        place = place_of(record)
        return place, PackedCell(self, place, record)

    def _reading(self, name: str) -> AbstractContextManager[Path]:
        return reading(self.folder / name, self.folder, ADVICE)

    @property
    def cells(self) -> list[StoredCell]:
        return list(self.by_place.values())

    def parts(self, name: str) -> dict[Path, pandas.DataFrame]:
        """The rows of one of the study's tables, by the cell's folder. Raises DamagedError for a damaged file."""
        if name not in self._parts:
            self._parts[name] = self._read(name)
        return self._parts[name]

    def _read(self, name: str) -> dict[Path, pandas.DataFrame]:
        keys = ["profile", "task", "reward", "seed", "identity"]
        try:
            with self._reading(name) as path:
                frame = read_table(path)
                if name == CURVES:
                    frame = check_long(frame, LONG_COLUMNS)
                return {
                    Path(profile, task, reward, f"seed{seed}-{identity}"): rows.reset_index(drop=True)
                    for (profile, task, reward, seed, identity), rows in frame.groupby(keys, sort=False)
                }
        except FileNotFoundError:
            return {}


def is_study(folder: Path) -> bool:
    """Whether cells are packed in `folder`."""
    return (folder / CELLS).is_file()


def open_study(folder: Path) -> Study:
    """The study in `folder`, kept in memory as long as its files stay as they are."""
    paths = [folder / name for name in (CELLS, CURVES, SAMPLES, ROLLOUTS, ARRAYS, FILES)]
    stats = [path.stat() for path in paths if path.exists()]
    return _opened(folder, tuple((stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats))


@lru_cache(maxsize=8)
def _opened(folder: Path, stamps: tuple[tuple[int, int, int], ...]) -> Study:
    return Study(folder)


# ------------------------------------------------------------------------------------------------------------- writing


def write_study(folder: Path, cells: Iterable[StoredCell]) -> int:
    """Makes `cells` the content of the study in `folder`, whatever was in it; returns how many there are.

    Raises StorageError where it cannot be written: the study is then as it was before.
    """
    found = {place_of(record): (record, cell) for cell in cells if (record := cell.read())}
    pairs = [found[place] for place in sorted(found)]
    frames = {
        CURVES: [cell.curves() for _, cell in pairs],
        SAMPLES: [_keyed(record, samples_frame(cell.samples())) for record, cell in pairs],
        ROLLOUTS: [cell.rollouts() for _, cell in pairs],
        ARRAYS: [_keyed(record, arrays_frame(cell.arrays())) for record, cell in pairs],
        FILES: [_keyed(record, _files_frame(cell.files())) for record, cell in pairs],
    }
    tables = {name: _table(parts) for name, parts in frames.items() if any(map(len, parts))}
    _write(folder, [record for record, _ in pairs], tables)
    return len(pairs)


def write_records(folder: Path, records: Iterable[CellRecord]) -> None:
    """The same of records alone, without curves, texts and pictures: what `diff` needs of results to compare with."""
    _write(folder, sorted(records, key=place_of), {})


def _write(folder: Path, records: Sequence[CellRecord], tables: Mapping[str, bytes]) -> None:
    contents: dict[Path, str | bytes] = {folder / name: content for name, content in tables.items()}
    # The records come last: what they name is there then.
    contents[folder / CELLS] = as_lines(record.model_dump() for record in records)
    write_together(contents)
    for path in (folder / name for name in (CURVES, SAMPLES, ROLLOUTS, ARRAYS, FILES)):
        if path not in contents:
            path.unlink(missing_ok=True)


def _table(parts: Sequence[pandas.DataFrame]) -> bytes:
    import pandas

    return parquet_bytes(pandas.concat([part for part in parts if len(part)], ignore_index=True))


def _keyed(record: CellRecord, frame: pandas.DataFrame) -> pandas.DataFrame:
    columns = list(frame.columns)
    return frame.assign(**key_of(record))[[*KEY_COLUMNS, *columns]]


def _files_frame(files: StepFiles) -> pandas.DataFrame:
    import pandas

    rows = [[step, name, content] for step, named in files.items() for name, content in named.items()]
    return pandas.DataFrame(rows, columns=FILE_COLUMNS)


def packed(old: Sequence[StoredCell], new: Sequence[StoredCell], *, replace: bool = False) -> list[StoredCell]:
    """The cells of `old` and `new` together, a cell that both have once. Cells that have not ended (another process
    may be at them) are left out of `new`.

    Raises HarnessError where both have a cell with different content, unless `replace`: then `new`'s is taken.
    """
    found = {place_of(record): cell for cell in old if (record := cell.read())}
    conflicts = []
    for cell in new:
        record = cell.read()
        if record is None or record.status == "running":
            continue
        place = place_of(record)
        if place in found and not replace and not _equal(found[place], cell):
            conflicts.append(str(place))
        found[place] = cell
    if conflicts:
        raise HarnessError(
            f"Stored already with other content: {', '.join(sorted(conflicts))}; --replace takes the new ones."
        )
    return list(found.values())


def _equal(one: StoredCell, other: StoredCell) -> bool:
    """Whether two cells hold the same record, curves, texts, arrays and files."""
    return (
        one.read() == other.read()
        and one.curves().equals(other.curves())
        and one.samples() == other.samples()
        and one.rollouts().equals(other.rollouts())
        and arrays_frame(one.arrays()).equals(arrays_frame(other.arrays()))
        and one.files() == other.files()
    )
