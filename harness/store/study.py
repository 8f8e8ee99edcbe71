"""A packed study: the results of many cells in a handful of compact files, to be kept and looked at again.

    <study>/cells.jsonl      the cells' records, one a line, in the order of the cells' folders
    <study>/curves.parquet   all measurements of all cells, LONG_COLUMNS
    <study>/samples.parquet  all sampled texts: KEY_COLUMNS, step, index, text, labels (JSON)
    <study>/arrays.parquet   all arrays that pictures are drawn from: KEY_COLUMNS, step, name, dtype, shape, data
    <study>/files.parquet    what tasks stored and nobody can draw: KEY_COLUMNS, step, name, content
    <study>/fidelity.parquet comparisons of signals (`harness/fidelity/records.py`)

A file with nothing in it is not there. The same cells make the same bytes. Checkpoints and tracebacks stay behind.
README.md and pictures beside these files are written by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError
from harness.machine.files import read_table
from harness.store.arrays import StepArrays, StepFiles, arrays_frame, arrays_of
from harness.store.atomic import parquet_bytes, write_together
from harness.store.lines import as_lines, read_lines
from harness.store.record import KEY_COLUMNS, CellRecord, StoredCell, key_of, long_frame, parsed, place_of

if TYPE_CHECKING:
    import pandas

CELLS = "cells.jsonl"
CURVES = "curves.parquet"
SAMPLES = "samples.parquet"
ARRAYS = "arrays.parquet"
FILES = "files.parquet"
SAMPLE_COLUMNS = ["step", "index", "text", "labels"]
FILE_COLUMNS = ["step", "name", "content"]


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

    def samples(self) -> list[dict[str, Any]]:
        rows = self._rows(SAMPLES)
        if rows is None:
            return []
        return [
            {"step": int(row.step), "index": int(row.index_), "text": row.text} | json.loads(row.labels)
            for row in rows[SAMPLE_COLUMNS].rename(columns={"index": "index_"}).itertuples(index=False)
        ]

    def arrays(self) -> StepArrays:
        rows = self._rows(ARRAYS)
        return {} if rows is None else arrays_of(rows)

    def files(self) -> StepFiles:
        rows = self._rows(FILES)
        found: dict[int, dict[str, bytes]] = {}
        for row in () if rows is None else rows.itertuples(index=False):
            found.setdefault(int(row.step), {})[row.name] = row.content
        return found

    def _rows(self, name: str) -> pandas.DataFrame | None:
        return self.study.parts(name).get(self.place)


class Study:
    """A packed study's files, each read when it is first asked for and then kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._parts: dict[str, dict[Path, pandas.DataFrame]] = {}

    @cached_property
    def by_place(self) -> dict[Path, PackedCell]:
        """Every cell by its folder below its results. Raises HarnessError for damaged or newer records."""
        path = self.folder / CELLS
        try:
            records = [parsed(data, path) for data in read_lines(path)]
            return {place_of(record): PackedCell(self, place_of(record), record) for record in records}
        except (OSError, ValueError, RecursionError) as error:
            raise _damaged(path, error) from error

    @property
    def cells(self) -> list[PackedCell]:
        return list(self.by_place.values())

    def parts(self, name: str) -> dict[Path, pandas.DataFrame]:
        """The rows of one of the study's tables, by the cell's folder. Raises HarnessError for a damaged file."""
        if name not in self._parts:
            self._parts[name] = self._read(self.folder / name)
        return self._parts[name]

    @staticmethod
    def _read(path: Path) -> dict[Path, pandas.DataFrame]:
        try:
            grouped = read_table(path).groupby(["profile", "task", "reward", "seed", "identity"], sort=False)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError) as error:
            raise _damaged(path, error) from error
        return {
            Path(profile, task, reward, f"seed{seed}-{identity}"): rows.reset_index(drop=True)
            for (profile, task, reward, seed, identity), rows in grouped
        }


def _damaged(path: Path, error: Exception) -> HarnessError:
    return HarnessError(f"{path} is damaged ({type(error).__name__}); bring back the committed file or pack it again.")


def is_study(folder: Path) -> bool:
    """Whether cells are packed in `folder`."""
    return (folder / CELLS).is_file()


def open_study(folder: Path) -> Study:
    """The study in `folder`, kept in memory as long as its files stay as they are."""
    paths = [folder / name for name in (CELLS, CURVES, SAMPLES, ARRAYS, FILES)]
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
        SAMPLES: [_keyed(record, _samples_frame(cell.samples())) for record, cell in pairs],
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
    for path in (folder / name for name in (CURVES, SAMPLES, ARRAYS, FILES)):
        if path not in contents:
            path.unlink(missing_ok=True)


def _table(parts: Sequence[pandas.DataFrame]) -> bytes:
    import pandas

    return parquet_bytes(pandas.concat([part for part in parts if len(part)], ignore_index=True))


def _keyed(record: CellRecord, frame: pandas.DataFrame) -> pandas.DataFrame:
    columns = list(frame.columns)
    return frame.assign(**key_of(record))[[*KEY_COLUMNS, *columns]]


def _samples_frame(samples: list[dict[str, Any]]) -> pandas.DataFrame:
    import pandas

    rows = []
    for sample in samples:
        labels = {name: value for name, value in sample.items() if name not in SAMPLE_COLUMNS[:3]}
        rows.append([sample["step"], sample["index"], sample["text"], json.dumps(labels, ensure_ascii=False)])
    return pandas.DataFrame(rows, columns=SAMPLE_COLUMNS)


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
        and arrays_frame(one.arrays()).equals(arrays_frame(other.arrays()))
        and one.files() == other.files()
    )
