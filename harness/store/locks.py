"""One owner a cell, however many processes work on one results folder: the kernel frees the lock of a dead owner."""

from __future__ import annotations

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from harness.machine import processes
from harness.store.atomic import cannot_write

NAME = ".lock"


@contextmanager
def owned(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Whether this process owns `folder` (made if missing) within the block. With `wait` it waits until the other owner
    is done or dead. The lock's file is gone afterwards. Raises StorageError where no file can be made.

    Of several ranks that a launcher started for one cell, the first owns the folder for all."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    if processes.rank() > 0:
        yield True
        return
    try:
        lock = FileLock(folder / NAME, timeout=-1 if wait else 0, is_singleton=False, poll_interval=0.2)
        lock.acquire()
    except Timeout:
        yield False
        return
    except OSError as error:
        raise cannot_write(folder, error) from error
    try:
        yield True
    finally:
        # Removed while it is held: who waits for the removed file notices (filelock looks at its link count).
        try:
            os.unlink(lock.lock_file)
        except OSError:
            pass
        lock.release()


def sweep(folder: Path, prefix: str = "") -> None:
    """Removes what a killed owner left half-written, of files whose names begin so. To be called by their owner."""
    for path in list(folder.rglob(f".{glob.escape(prefix)}*.tmp")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
