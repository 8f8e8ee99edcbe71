"""What is stored of a cell, and where: the schema, the identity, atomic files, and the two tables every report reads.

    <runs>/<profile>/<task>/<reward>/seed<k>-<identity>/
        cell.json        the record below: status and why, settings, provenance, seconds, headline value and floor
        curves.parquet   long table: one measurement a row (step, phase, measure, value, unit, direction)
        samples.jsonl    sampled texts at fixed steps, with the task's labels
        step-<s>/...     files of the task's evaluation (pictures)
    <runs>/<profile>/    wide.{parquet,csv} (one cell a row), long.{parquet,csv}, table.md

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
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.contracts import HarnessError
from harness.settings.schema import Settings, identity_view
from harness.store.atomic import write_atomic, write_json

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 1
IDENTITY_VERSION = 1
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {}
"""Schema version -> a record's plain data of that version as data of the next; one for each rise of SCHEMA_VERSION."""
Status = Literal["running", "done", "failed", "unsupported", "interrupted"]

LONG_COLUMNS = [
    "profile",
    "task",
    "reward",
    "variant",
    "seed",
    "identity",
    "step",
    "phase",
    "measure",
    "value",
    "unit",
    "direction",
]


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
    reason: str = ""
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
    peak_memory_bytes: int | None = None
    device_memory_bytes: int | None = None
    notes: list[str] = Field(default_factory=list)
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


# ------------------------------------------------------------------------------------------------------------- the
# store


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


def check_name(name: str) -> None:
    """Raises HarnessError for the name of a profile, task or reward that cannot be a folder's name everywhere."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}", name):
        raise HarnessError(
            f"{name!r} cannot be the name of a profile, task or reward: results lie in folders named after it; use "
            "letters, digits, '.', '_' and '-', beginning with a letter or digit."
        )


@dataclass
class CellStore:
    """One cell's folder."""

    folder: Path

    @classmethod
    def of(cls, runs: Path, record: CellRecord) -> CellStore:
        """Raises HarnessError for a name that would lead out of `runs`."""
        for name in (record.profile, record.task, record.reward, record.identity):
            check_name(name)
        return cls(runs / record.profile / record.task / record.reward / f"seed{record.seed}-{record.identity}")

    def read(self) -> CellRecord | None:
        """The stored record, or None. Raises HarnessError if there is one that cannot be read."""
        path = self.folder / "cell.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            version = data.get("schema_version") if isinstance(data, dict) else None
            if not isinstance(version, int):
                raise HarnessError(f"{path} is not a result of this harness; move it away or choose another --out.")
            if version > SCHEMA_VERSION:
                raise HarnessError(
                    f"{path} has schema version {version}, newer than {SCHEMA_VERSION} that this harness reads; "
                    f"update it."
                )
            return CellRecord.model_validate(migrated(data, path))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ValidationError, RecursionError) as error:
            raise HarnessError(
                f"{path} is damaged ({type(error).__name__}); remove its folder to run it again."
            ) from error

    def clear(self, stale: Iterable[str] | None = None) -> None:
        """Removes the named files from the cell's folder; by default everything but its lock."""
        for path in self.folder.iterdir():
            if path.name in stale if stale is not None else path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def write(self, record: CellRecord) -> None:
        write_json(self.folder / "cell.json", record.model_dump())

    def write_curves(self, record: CellRecord, rows: list[dict[str, Any]]) -> None:
        """`rows` hold step, phase, measure, value, unit, direction."""
        import io

        key = {name: getattr(record, name) for name in ("profile", "task", "reward", "variant", "seed", "identity")}
        frame = long_frame([{**key, **row} for row in rows])
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False)
        write_atomic(self.folder / "curves.parquet", buffer.getvalue())

    def write_samples(self, samples: Iterable[Mapping[str, Any]]) -> None:
        """One JSON object a line: step, index, prompt, text and the task's labels."""
        write_atomic(
            self.folder / "samples.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in samples)
        )

    def write_file(self, step: int, name: str, content: bytes) -> None:
        if not name or Path(name).name != name or name.startswith("."):
            raise HarnessError(f"The task wants to store a file named {name!r}; use a plain file name.")
        write_atomic(self.folder / f"step-{step}" / name, content)


def long_frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    import pandas

    frame = pandas.DataFrame(rows, columns=LONG_COLUMNS)
    return frame.astype({"seed": "int64", "step": "int64", "value": "float64"})
