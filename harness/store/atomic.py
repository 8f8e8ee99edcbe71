"""Files that are whole or not there, and the sentence for a write that failed."""

from __future__ import annotations

import errno
import json
import os
import tempfile
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
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


def write_json(path: Path, data: Any) -> None:
    write_atomic(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_frame(path: Path, frame: pandas.DataFrame) -> None:
    """A data frame as `path`.parquet and `path`.csv."""
    import io

    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    write_atomic(path.with_suffix(".parquet"), buffer.getvalue())
    write_atomic(path.with_suffix(".csv"), frame.to_csv(index=False))


def check_writable(folder: Path) -> None:
    """Raises HarnessError unless files can be made in `folder` (made if missing)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(1 << 20))  # an empty file can be made on a full disk
            file.flush()
    except OSError as error:
        raise cannot_write(folder, error) from error
