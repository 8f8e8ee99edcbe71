"""What is stored of a comparison of signals: the records of `harness/fidelity/run.py`, and how they are read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from harness.contracts import HarnessError
from harness.fidelity.pool import Pool
from harness.machine.files import read_json, read_table
from harness.store.atomic import parquet_bytes, write_atomic
from harness.store.record import Said

SCHEMA_VERSION = 1
SMALL = 0.1
"""The change of the data weights that every half is tried with."""
PACKED = "fidelity.parquet"
"""A study's file: a row a record, with the pool's profile, task, seed and identity, its kind ("pool", "truth" or
"signal", a pool before what belongs to it) and itself as JSON. Most of it is numbers: JSON lines would be four times as
large."""
Record = TypeVar("Record", bound=BaseModel)


class Spec(BaseModel):
    """Sizes of the experiment; part of the identity."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pool: int = Field(64, ge=16, description="Texts, rounded down to whole groups.")
    subsets: int = Field(100, ge=10, description="Random halves of the pool that targets are trained on.")
    removals: int = Field(30, ge=10, description="Random eighths of the pool that are left out.")
    changes: tuple[float, ...] = (0.03, 0.1, 0.3)
    """Sizes of a change of the data weights: half of the texts get 1 + c, the other half 1 - c. A change of 1 is the
    training on one half alone."""
    swept: int = Field(25, ge=10, description="Halves that are tried with the changes other than `SMALL`.")
    references: int = Field(128, ge=1, description="Texts of the task's data that Phi and similarity rewards get.")
    draws: int = Field(8, ge=2, description="Batches of half of the groups, for the noise across batches.")


class PoolRecord(BaseModel):
    """`pool.json`. Indices count the texts from 0."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    profile: str
    task: str
    seed: int
    identity: str
    spec: Spec
    texts: list[str]
    groups: list[int]
    sources: list[str]
    articles: list[str]
    halves: list[list[int]]
    """Random halves: what is trained on."""
    removed: list[list[int]]
    """Random eighths: what is left out."""
    batches: list[list[int]]
    """Draws of half of the groups, each group's rollouts shuffled."""
    assets: dict[str, str] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    given: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def pool(self) -> Pool:
        return Pool(self.texts, self.groups, self.sources, self.articles)


class TruthRecord(BaseModel):
    """`truth-<key>.json`: Phi after training again, in the order of the pool's parts."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    identity: str
    name: str
    """The inner training in words."""
    untrained: float
    whole: float
    without_one: list[float]
    """Empty, as the next, for an inner training that belongs to single rewards only."""
    without_part: list[float]
    halves: list[float]
    changed: dict[str, list[float]]
    """Size of the change -> Phi after it, one for each half from the first on (the half gets more)."""
    one_step: bool
    """Whether per-example gradients were combined (they agreed with a real training)."""
    seconds: float
    provenance: dict[str, Any] = Field(default_factory=dict)


class SignalRecord(BaseModel):
    """`reward-<name>.json`."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    profile: str
    task: str
    reward: str
    seed: int
    identity: str
    status: str
    """done, failed or unsupported."""
    reason: Said = ""
    advantage: str = "group"
    truths: list[str] = Field(default_factory=list)
    """Keys of the truths it is compared with: the task's own, then the reward's where its inner training differs."""
    rewards: list[float] = Field(default_factory=list)
    draws: list[list[float]] = Field(default_factory=list)
    """Rewards of each of the pool's batches."""
    seconds_per_1000: float | None = None
    """Of the batches, after a first call; the batches hold half of the pool."""
    batch: int = 0
    provenance: dict[str, Any] = Field(default_factory=dict)


def read(path: Path, kind: type[Record]) -> Record | None:
    """The stored record, or None if there is none. Raises HarnessError if it is damaged or newer than this harness."""
    if not path.exists():
        return None
    try:
        return parsed(read_json(path), kind, path)
    except (OSError, ValueError) as error:
        raise HarnessError(f"{path} is damaged ({type(error).__name__}); remove it to make it again.") from error


def parsed(data: Any, kind: type[Record], path: Path) -> Record:
    """The record that `path` holds as plain data. Raises ValueError for what is none, HarnessError for a newer one."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise HarnessError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}; update the harness.")
    return kind.model_validate(data)


@dataclass(frozen=True)
class Judged:
    """What is stored of one task and seed."""

    pool: PoolRecord
    truths: dict[str, TruthRecord]
    """By key."""
    signals: list[SignalRecord]

    @property
    def place(self) -> Path:
        """Its folder below a profile's results."""
        return Path(self.pool.profile, "fidelity", self.pool.task, f"seed{self.pool.seed}-{self.pool.identity}")


def load(place: Path) -> list[Judged]:
    """Everything stored below `place`, in folders or in packed studies, sorted by task and seed. Raises HarnessError
    for damaged or newer records."""
    found = []
    for path in sorted(place.rglob("fidelity/*/seed*/pool.json")):
        pool = read(path, PoolRecord)
        truths = [read(file, TruthRecord) for file in sorted(path.parent.glob("truth-*.json"))]
        signals = [read(file, SignalRecord) for file in sorted(path.parent.glob("reward-*.json"))]
        found.append(Judged(pool, {truth.identity: truth for truth in truths}, signals))
    for path in sorted(place.rglob(PACKED)):
        found += _unpacked(path)
    return sorted(found, key=lambda judged: judged.place)


# ---------------------------------------------------------------------------------------------------------- packed


def _unpacked(path: Path) -> list[Judged]:
    try:
        found: dict[tuple[Any, ...], Judged] = {}
        for row in read_table(path).itertuples(index=False):
            key, data = (row.profile, row.task, row.seed, row.identity), json.loads(row.record)
            if row.kind == "pool":
                found[key] = Judged(parsed(data, PoolRecord, path), {}, [])
            elif row.kind == "truth":
                truth = parsed(data, TruthRecord, path)
                found[key].truths[truth.identity] = truth
            else:
                found[key].signals.append(parsed(data, SignalRecord, path))
        return list(found.values())
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise HarnessError(
            f"{path} is damaged ({type(error).__name__}); bring back the committed file or pack it again."
        ) from error


def write_packed(study: Path, judged: Sequence[Judged]) -> None:
    """Makes `judged` the comparisons of signals in a study's folder. Raises StorageError where it cannot."""
    import pandas

    rows = []
    for one in sorted(judged, key=lambda one: one.place):
        key = {name: getattr(one.pool, name) for name in ("profile", "task", "seed", "identity")}
        for kind, records in (("pool", [one.pool]), ("truth", one.truths.values()), ("signal", one.signals)):
            rows += [key | {"kind": kind, "record": record.model_dump_json()} for record in records]
    write_atomic(study / PACKED, parquet_bytes(pandas.DataFrame(rows)))


def packed(old: Sequence[Judged], new: Sequence[Judged], *, replace: bool = False) -> list[Judged]:
    """`old` and `new` together, each task and seed once. Raises HarnessError where both have one with different
    content, unless `replace`: then `new`'s is taken."""
    found = {judged.place: judged for judged in old}
    conflicts = [str(one.place) for one in new if one.place in found and found[one.place] != one and not replace]
    if conflicts:
        raise HarnessError(
            f"Stored already with other content: {', '.join(sorted(conflicts))}; --replace takes the new ones."
        )
    return list((found | {judged.place: judged for judged in new}).values())
