"""Reading what comes from outside, within limits: plain files only (a pipe or a device never ends), of a size that fits
in memory, and pictures and tables whose content does too, whatever they say on the outside."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError

if TYPE_CHECKING:
    import pandas
    import pyarrow
    import pyarrow.parquet as pq

MOST_RECORD = 16 * 2**20
"""Bytes of a cell's record, a pool or another JSON document; a usual one has ten thousand."""
MOST_LINES = 2**31
"""Bytes of a file of JSON lines."""
MOST_LINE = 64 * 2**20
"""Characters of one of its lines."""
MOST_CONTENT = 256 * 2**20
"""Bytes of a picture or another file of a task."""
MOST_TABLE = 2**31
"""Bytes of a Parquet file's content once it is unpacked, each text as often as it stands there."""
MOST_ROWS = 50_000_000
MANY_ROWS = 100_000
"""Of a table that is worth several threads: waiting for them costs more than a small one takes."""
MOST_PIXELS = 4096 * 4096
"""Of a picture."""
MOST_ENTRIES = 20_000
"""Files and folders of a model or a data set."""


def check_plain(path: Path, most: int) -> None:
    """Raises HarnessError for what is no plain file or has more than `most` bytes, and OSError where nothing is."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode) or (found.st_size == 0 and _has_content(path)):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(found.st_mode), "a device or the kernel's")
        raise HarnessError(f"{path} is {kind}, not a plain file; name a file.")
    if found.st_size > most:
        raise HarnessError(f"{path} has {found.st_size:,} bytes, and at most {most:,} are read; make it smaller.")


def _has_content(path: Path) -> bool:
    """Whether something comes out of a file that has no size: the kernel's own files, some of which wait for more."""
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return bool(os.read(file, 1))
    except OSError:
        return True
    finally:
        os.close(file)


def read_bytes(path: Path, most: int = MOST_CONTENT) -> bytes:
    """The whole file. Raises as `check_plain`."""
    check_plain(path, most)
    return path.read_bytes()


def read_text(path: Path, most: int = MOST_RECORD) -> str:
    """The whole file as UTF-8. Raises as `check_plain`, and ValueError where it is none."""
    return read_bytes(path, most).decode("utf-8")


def parse_json(text: str) -> Any:
    """Raises ValueError for what is not JSON, for a nesting that no reader follows and for numbers without end."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: Path) -> Any:
    """One document. Raises as `read_text` and `parse_json`."""
    return parse_json(read_text(path))


def files_below(folder: Path) -> list[Path]:
    """Its plain files, sorted. Raises HarnessError where there is far more than a model or a data set has."""
    found = []
    for number, path in enumerate(folder.rglob("*")):
        if number == MOST_ENTRIES:
            raise HarnessError(f"{folder} holds more than {MOST_ENTRIES:,} files; name the folder that is meant.")
        found += [path] if path.is_file() else []
    return sorted(found)


# --------------------------------------------------------------------------------------------------- pictures, tables


def check_pixels(width: int, height: int, what: str) -> None:
    """Raises HarnessError for a picture too large to be unpacked."""
    if width * height > MOST_PIXELS:
        raise HarnessError(f"{what} has {width} x {height} pixels, and at most {MOST_PIXELS:,} are read; shrink it.")


def check_png(content: bytes, what: str) -> None:
    """The same of a PNG, by its header."""
    check_pixels(int.from_bytes(content[16:20]), int.from_bytes(content[20:24]), what)


def check_table(path: Path, columns: Sequence[str] | None = None) -> None:
    """Raises HarnessError for a Parquet file whose content (of these columns) would not fit, and OSError or ValueError
    where it is none.

    A file says how many rows it has and how large its pages are; how often a text of a dictionary stands there has to
    be counted, which is done where it could matter.
    """
    with _checked(path, columns):
        pass


@contextmanager
def _checked(path: Path, columns: Sequence[str] | None) -> Iterator[pq.ParquetFile]:
    """The open file, of which `check_table` holds."""
    import pyarrow.parquet as pq

    check_plain(path, MOST_TABLE)
    with pq.ParquetFile(path, pre_buffer=False) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
        chunks = [chunk for chunk in chunks if columns is None or chunk.path_in_schema.split(".")[0] in columns]
        size = sum(chunk.total_uncompressed_size for chunk in chunks)
        if file.metadata.num_rows > MOST_ROWS or size > MOST_TABLE:
            raise _too_large(path)
        if sum(chunk.total_uncompressed_size * max(1, chunk.num_values) for chunk in chunks) > MOST_TABLE:
            fields = [field for field in file.schema_arrow if columns is None or field.name in columns]
            names = [field.name for field in fields if _holds_texts(field.type)]
            nested = any(field.type.num_fields for field in fields)
            if nested or (names and _characters(path, names) > MOST_TABLE):
                raise _too_large(path)
        yield file


def read_arrow(path: Path) -> pyarrow.Table:
    """The table as Arrow has it. Raises as `check_table`. A small one is read in a quarter of `read_table`'s time."""
    with _checked(path, None) as file:
        return file.read(use_threads=file.metadata.num_rows > MANY_ROWS)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pandas.DataFrame:
    """The frame. Raises as `check_table`."""
    import pandas

    check_table(path, columns)
    return pandas.read_parquet(path, columns=list(columns) if columns else None)


def _too_large(path: Path) -> HarnessError:
    return HarnessError(
        f"{path} unpacks to more than {MOST_ROWS:,} rows or {MOST_TABLE:,} bytes; split it, or take what is needed."
    )


def _holds_texts(kind: Any) -> bool:
    import pyarrow as pa

    kinds = pa.types
    texts = (kinds.is_string, kinds.is_binary, kinds.is_large_string, kinds.is_large_binary, kinds.is_dictionary)
    return any(is_a(kind) for is_a in texts)


def _characters(path: Path, names: Sequence[str]) -> int:
    """Bytes of the texts in these columns, read without writing them out; stops soon after MOST_TABLE."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    total = 0
    with pq.ParquetFile(path, read_dictionary=list(names)) as file:
        for batch in file.iter_batches(columns=list(names)):
            for column in batch.columns:
                lengths = pc.binary_length(column.dictionary).take(column.indices)
                total += pc.sum(lengths).as_py() or 0
            if total > MOST_TABLE:
                break
    return total
