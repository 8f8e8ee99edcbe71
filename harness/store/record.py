"""What is stored of a cell, and where: the schema, the identity, atomic files, and the two tables every report reads.

    <runs>/<profile>/<task>/<reward>/seed<k>-<identity>/
        cell.json        the record below: status and why, settings, provenance, seconds, headline value and floor
        curves.parquet   long table: one measurement a row (step, phase, measure, value, unit, direction)
        samples.jsonl    sampled texts at fixed steps, with the task's labels
        arrays.parquet   arrays of the task's evaluations, what its pictures are drawn from
        step-<s>/...     files of the task's evaluations that cannot be drawn
    <runs>/<profile>/    wide.parquet (one cell a row), long.parquet, table.md

Results that are kept are packed into fewer files (`harness/store/study.py`); both are read through `StoredCell`.

Every file is written to a temporary name, flushed and renamed: it is whole or it is not there.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from harness.contracts import HarnessError
from harness.machine.files import read_bytes, read_json, read_table
from harness.settings.schema import Settings, identity_view
from harness.store.arrays import StepArrays, StepFiles, arrays_frame, arrays_of
from harness.store.atomic import parquet_bytes, write_atomic, write_json
from harness.store.lines import as_lines, read_lines

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 2
IDENTITY_VERSION = 2
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda data: data,  # 2 added `flops` and `floor_seconds`, which nobody can tell of older cells
}
"""Schema version -> a record's plain data of that version as data of the next; one for each rise of SCHEMA_VERSION."""
MOST_SAID = 2000


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]} [...]"


Said = Annotated[str, AfterValidator(_shortened)]
"""A sentence of a record; of what is stored longer the beginning is read."""
Status = Literal["running", "done", "failed", "unsupported", "interrupted"]

KEY_COLUMNS = ["profile", "task", "reward", "variant", "seed", "identity"]
LONG_COLUMNS = [*KEY_COLUMNS, "step", "phase", "measure", "value", "unit", "direction"]


class CellRecord(BaseModel):
    """`cell.json`: everything about one task x reward x seed but its curves and texts."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    profile: str
    task: str
    reward: str
    variant: str = ""
    """What a grid axis beside task, reward and seed set, e.g. "T=8"; empty where there is none."""
    seed: int
    identity: str
    status: Status
    reason: Said = ""
    settings: dict[str, Any] = Field(default_factory=dict)
    given: dict[str, Any] = Field(default_factory=dict)
    """The `--set` assignments, as opposed to what the profile said."""
    assets: dict[str, str] = Field(default_factory=dict)
    """Asset reference -> fingerprint of its content."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    measure: str = ""
    unit: str = ""
    direction: str = ""
    headline: float | None = None
    floor: float | None = None
    """The headline measure of the untuned generator on the same held-out prompts."""
    ceiling: float | None = None
    final: dict[str, float] = Field(default_factory=dict)
    """Every measure of the last validation."""
    initial: dict[str, float] = Field(default_factory=dict)
    """The same of the untuned generator."""
    steps_done: int = 0
    rollouts: int = 0
    zero_spread: float | None = None
    """Share of groups whose raw rewards were all equal, over the whole training."""
    seconds: dict[str, float] = Field(default_factory=dict)
    """Phase -> seconds: load, generation, reward, update, validation, storing (records and checkpoints), total."""
    flops: dict[str, float] = Field(default_factory=dict)
    """Phase -> floating-point operations that generation, reward, update and validation took: those of the models,
    counted from the tokens that were read and written. Empty where the models' shape is not known."""
    floor_seconds: dict[str, float] = Field(default_factory=dict)
    """Phase -> what these would have taken as large matrix products, at the rate measured on the cell's machine with
    its threads: over `seconds`, the share of that rate which was reached."""
    peak_memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    notes: list[Said] = Field(default_factory=list)
    """Flags of the last validation: rollouts that are empty or all the same, measures that are not finite."""


def identity(task: str, reward: str, seed: int, settings: Settings, assets: Mapping[str, str]) -> str:
    """Ten hexadecimal digits over everything that changes a cell's numbers and nothing else (not paths, not names of
    profiles, not what is merely stored). Assets count by content."""
    view = identity_view(settings)
    # An asset's place does not matter, its content does.
    for section, key in (
        ("generator", "model"),
        ("target", "model"),
        ("data", "articles"),
        ("data", "references"),
        ("data", "validation_articles"),
    ):
        if view[section][key] is not None:
            view[section][key] = assets.get(view[section][key], view[section][key])
    for section in ("task", "reward"):
        options = view[section]["options"]
        view[section]["options"] = {key: assets.get(str(value), value) for key, value in options.items()}
    whole = {"version": IDENTITY_VERSION, "task": task, "reward": reward, "seed": seed, "settings": view}
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


# ----------------------------------------------------------------------------------------------------------- the store


def migrated(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """The record in `path` as data of the present schema. Raises HarnessError where a step is missing."""
    for version in range(data["schema_version"], SCHEMA_VERSION):
        if version not in MIGRATIONS:
            raise HarnessError(
                f"{path} has schema version {version}, older than {SCHEMA_VERSION}, and nothing here reads it; use the "
                "commit in its provenance."
            )
        data = MIGRATIONS[version](data) | {"schema_version": version + 1}
    return data


def parsed(data: Any, path: Path) -> CellRecord:
    """The record that `path` holds as plain data. Raises ValueError for what is none, and HarnessError for one of
    another version that cannot be read."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int):
        raise HarnessError(f"{path} is not a result of this harness; move it away or choose another --out.")
    if version > SCHEMA_VERSION:
        raise HarnessError(
            f"{path} has schema version {version}, newer than {SCHEMA_VERSION} that this harness reads; update it."
        )
    return CellRecord.model_validate(migrated(data, path))


def check_name(name: str) -> None:
    """Raises HarnessError for the name of a profile, task or reward that cannot be a folder's name everywhere."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}", name):
        raise HarnessError(
            f"{name!r} cannot be the name of a profile, task or reward: results lie in folders named after it; use "
            "letters, digits, '.', '_' and '-', beginning with a letter or digit."
        )


class StoredCell(Protocol):
    """A cell to read, wherever it is stored: in a folder of its own (`CellStore`) or in a packed study."""

    @property
    def folder(self) -> Path:
        """Where it lies; in a study, where it would lie if that were a results folder. Its name in the tables."""
        ...

    def read(self) -> CellRecord | None: ...

    def curves(self) -> pandas.DataFrame: ...

    def samples(self) -> list[dict[str, Any]]: ...

    def arrays(self) -> StepArrays: ...

    def files(self) -> StepFiles: ...


def place_of(record: CellRecord) -> Path:
    """A cell's folder below its results. Raises HarnessError for a name that would lead out of them."""
    for name in (record.profile, record.task, record.reward, record.identity):
        check_name(name)
    return Path(record.profile, record.task, record.reward, f"seed{record.seed}-{record.identity}")


def key_of(record: CellRecord) -> dict[str, Any]:
    """The columns that name a cell in a table of many."""
    return {name: getattr(record, name) for name in KEY_COLUMNS}


@dataclass
class CellStore:
    """One cell's folder."""

    folder: Path

    @classmethod
    def of(cls, runs: Path, record: CellRecord) -> CellStore:
        """Raises HarnessError for a name that would lead out of `runs`."""
        return cls(runs / place_of(record))

    def read(self) -> CellRecord | None:
        """The stored record, or None. Raises HarnessError if there is one that cannot be read."""
        path = self.folder / "cell.json"
        try:
            return parsed(read_json(path), path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            raise self._damaged(path, error) from error

    def curves(self) -> pandas.DataFrame:
        """Every measurement, LONG_COLUMNS; no rows where nothing was measured. Raises HarnessError for a damaged
        file, as the next three do."""
        path = self.folder / "curves.parquet"
        try:
            return read_table(path)
        except FileNotFoundError:  # not yet, or just started again by another process
            return long_frame([])
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from error

    def samples(self) -> list[dict[str, Any]]:
        """Sampled texts in their order: step, index, text and the task's labels."""
        path = self.folder / "samples.jsonl"
        try:
            return read_lines(path)
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise self._damaged(path, error) from error

    def arrays(self) -> StepArrays:
        """Step -> name -> array, of every evaluation that gave arrays."""
        path = self.folder / "arrays.parquet"
        try:
            return arrays_of(read_table(path))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged(path, error) from error

    def files(self) -> StepFiles:
        """Step -> name -> content, of every evaluation that gave files."""
        paths = [path for path in self.folder.glob("step-*/*") if path.parent.name[5:].isdigit() and path.is_file()]
        found: dict[int, dict[str, bytes]] = {}
        for path in sorted(paths, key=lambda path: (int(path.parent.name[5:]), path.name)):
            if not path.name.startswith("."):
                found.setdefault(int(path.parent.name[5:]), {})[path.name] = read_bytes(path)
        return found

    @staticmethod
    def _damaged(path: Path, error: Exception) -> HarnessError:
        return HarnessError(f"{path} is damaged ({type(error).__name__}); remove its folder to run it again.")

    def clear(self, stale: Iterable[str] | None = None) -> None:
        """Removes the named files from the cell's folder; by default everything but its lock."""
        for path in self.folder.iterdir():
            if path.name in stale if stale is not None else path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def write(self, record: CellRecord) -> None:
        write_json(self.folder / "cell.json", record.model_dump())

    def write_curves(self, record: CellRecord, rows: list[dict[str, Any]]) -> None:
        """`rows` hold step, phase, measure, value, unit, direction."""
        frame = long_frame([{**key_of(record), **row} for row in rows])
        write_atomic(self.folder / "curves.parquet", parquet_bytes(frame))

    def write_samples(self, samples: Iterable[Mapping[str, Any]]) -> None:
        """One JSON object a line: step, index, text and the task's labels."""
        write_atomic(self.folder / "samples.jsonl", as_lines(samples))

    def write_arrays(self, arrays: StepArrays) -> None:
        """All arrays of all steps, in one file. Raises HarnessError for what is no array of numbers."""
        write_atomic(self.folder / "arrays.parquet", parquet_bytes(arrays_frame(arrays)))

    def write_file(self, step: int, name: str, content: bytes) -> None:
        if not name or Path(name).name != name or name.startswith("."):
            raise HarnessError(f"The task wants to store a file named {name!r}; use a plain file name.")
        write_atomic(self.folder / f"step-{step}" / name, content)


def long_frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    import pandas

    frame = pandas.DataFrame(rows, columns=LONG_COLUMNS)
    return frame.astype({"seed": "int64", "step": "int64", "value": "float64"})
