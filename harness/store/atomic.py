"""Files that are whole or not there, and the sentence for a write that failed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError

if TYPE_CHECKING:
    import pandas

# -------------------------------------------------------------------------------------------------------------- writing


class StorageError(HarnessError):
    """Nothing can be stored any more (disk full, folder read-only): the run stops, what is stored stays as it is."""


def cannot_write(path: Path, error: Exception) -> StorageError:
    """The sentence for a failed write, whichever library raised it."""
    why = getattr(error, "strerror", None) or str(error).splitlines()[0]
    codes = [errno.ENOSPC, errno.EDQUOT, errno.EFBIG]
    if getattr(error, "errno", None) in codes or any(f"os error {code}" in why for code in codes):
        return StorageError(
            f"Cannot write {path}: {why}; make room and run it again: finished cells are kept, interrupted ones resume."
        )
    return StorageError(f"Cannot write {path}: {why}; choose another folder with --out.")


def sync_folder(folder: Path) -> None:
    """Makes renames in `folder` survive a power failure, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return  # no folder handles (Windows)
    try:
        os.fsync(handle)
    except OSError:
        pass  # not every file system can
    finally:
        os.close(handle)


def write_atomic(path: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all. Raises StorageError if it cannot be written."""
    write_together({path: content})


def write_together(contents: Mapping[Path, str | bytes]) -> None:
    """Writes several files: none takes its name before all are on the disk. Raises StorageError if one cannot be
    written; the others are as they were then."""
    written: dict[Path, str] = {}
    path = next(iter(contents), Path())
    try:
        try:
            for path, content in contents.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                handle, written[path] = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
                with os.fdopen(handle, "wb") as file:
                    file.write(content.encode("utf-8") if isinstance(content, str) else content)
                    file.flush()
                    os.fsync(file.fileno())
                os.chmod(written[path], 0o644)
            for path, temporary in written.items():
                os.replace(temporary, path)
            for folder in {path.parent for path in written}:
                sync_folder(folder)
        except BaseException:
            for temporary in written.values():
                Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder to fill within the block; it then takes the name `path`, in the place of what had it, with
    all that is in it on the disk. Raises StorageError if it cannot be written; nothing is left behind then."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
        new = temporary / "new"
        new.mkdir()
        yield new
        for file in new.rglob("*"):
            if file.is_file():
                os.chmod(file, 0o644)
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        sync_folder(new)
        if os.path.lexists(path):
            os.replace(path, temporary / "old")
        os.replace(new, path)
        sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    except Exception as error:
        if "os error" in str(error):  # what tokenizers and safetensors, written in Rust, make of the system's refusals
            raise cannot_write(path, error) from error
        raise
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def json_bytes(data: Any) -> bytes:
    """As every JSON file of the results is written."""
    return (json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_json(path: Path, data: Any) -> None:
    write_atomic(path, json_bytes(data))


def parquet_bytes(frame: pandas.DataFrame, plain: Sequence[str] = ("value",)) -> bytes:
    """A data frame as the bytes of a Parquet file, the same for the same frame. Columns named in `plain` hold numbers
    that hardly repeat: a dictionary of them would be larger than they are."""
    import io

    buffer = io.BytesIO()
    coded = [name for name in frame.columns if name not in plain]
    frame.to_parquet(buffer, index=False, compression="zstd", compression_level=19, use_dictionary=coded)
    return buffer.getvalue()


def csv_text(frame: pandas.DataFrame) -> str:
    """The frame as the text of a CSV file. A text that a spreadsheet would take for a formula (it begins with = + - @,
    a tab or a carriage return, and is no number) gets an apostrophe before it; so do names of columns."""

    def harmless(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        value = re.sub("\r\n?", "\n", value)  # which is quoted; a bare return would end the line
        return f"'{value}" if _FORMULA.match(value) and not _NUMBER.fullmatch(value) else value

    inert = frame.copy()
    for name, column in frame.items():
        if column.dtype.kind not in "biufcmM":
            inert[name] = column.astype(object).map(harmless)
    return inert.rename(columns=harmless).to_csv(index=False)


_FORMULA = re.compile(r"\s*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)", re.ASCII | re.IGNORECASE)


def check_writable(folder: Path) -> None:
    """Raises HarnessError unless files can be made in `folder` (made if missing)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))  # an empty file can be made on a full disk
            file.flush()
    except OSError as error:
        raise cannot_write(folder, error) from error
