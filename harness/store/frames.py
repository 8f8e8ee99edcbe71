"""Stored cells as the two tables that every report reads: wide (a cell a row) and long (a measurement a row)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError
from harness.store.record import CellRecord, CellStore, long_frame

if TYPE_CHECKING:
    import pandas


def find_cells(runs: Path) -> list[CellStore]:
    """Every stored cell below `runs` (a runs folder, a profile's folder, or several merged), sorted by path."""
    if not runs.exists():
        raise HarnessError(f"There is no folder {runs}; run `python -m harness run ...` first or name another one.")
    return [CellStore(path.parent) for path in sorted(runs.rglob("cell.json"))]


def load(runs: Path) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """(wide, long): one cell a row, one measurement a row. Raises HarnessError for damaged or newer results."""
    import pandas

    wide, long = [], []
    for store in find_cells(runs):
        record = store.read()
        if record is None:  # just started anew by another process
            continue
        wide.append(wide_row(record, store.folder))
        curves = store.folder / "curves.parquet"
        if curves.exists():
            try:
                long.append(pandas.read_parquet(curves))
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise HarnessError(f"{curves} is damaged; remove its folder to run it again.") from error
    return pandas.DataFrame(wide), pandas.concat(long, ignore_index=True) if long else long_frame([])


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
