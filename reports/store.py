"""The tables that lie beside the cells: written after every run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from harness.store import locks

if TYPE_CHECKING:
    import pandas


def store_tables(folder: Path) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """Writes the tables of a profile's folder from its cells, one process at a time; returns (wide, long)."""
    from harness.store.atomic import parquet_bytes, write_atomic
    from harness.store.frames import load
    from reports import tables

    with locks.owned(folder, wait=True):
        for left in folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        wide, long = load(folder)
        # Where a cell lies is told from where the table lies, so that a results folder can be moved and merged.
        placed = wide.assign(folder=[os.path.relpath(cell, folder) for cell in wide["folder"]])
        write_atomic(folder / "wide.parquet", parquet_bytes(placed))
        write_atomic(folder / "long.parquet", parquet_bytes(long))
        write_atomic(folder / "table.md", tables.markdown(wide, long))
    return wide, long
