"""What is stored of a comparison of signals: the records of `harness/signals/run.py`, and how they are read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from harness.contracts import HarnessError
from harness.machine.files import read_json, read_table
from harness.signals.pool import Pool
from harness.store.atomic import parquet_bytes, write_atomic
from harness.store.damage import DamagedError, check_plain, reading
from harness.store.record import Said

SCHEMA_VERSION = 1
SMALL = 0.1
"""The change of the data weights that every half is tried with."""
PACKED = "fidelity.parquet"
"""A study's file: a row a record, with the pool's profile, task, seed and identity, its kind ("pool", "truth" or
"signal", a pool before what belongs to it) and itself as JSON. Most of it is numbers: JSON lines would be four times as
large."""
FREE = ("settings", "given")
"""What may hold any numbers."""
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
    try:
        with reading(path, path.parent, "remove it to make it again"):
            return parsed(read_json(path), kind, path)
    except FileNotFoundError:
        return None


def parsed(data: Any, kind: type[Record], path: Path) -> Record:
    """The record that `path` holds as plain data. Raises ValueError for what is none, HarnessError for a newer one."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise HarnessError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}; update the harness.")
    check_plain({name: value for name, value in data.items() if name not in FREE} if isinstance(data, dict) else data)
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
    """Everything stored below `place`, in folders or in packed studies, sorted by task and seed. Of what is damaged or
    newer, signals are left with the status "damaged" and the reason."""
    root = place.resolve()
    paths = [
        path for path in sorted(place.rglob("fidelity/*/seed*/pool.json")) if path.parent.resolve().is_relative_to(root)
    ]
    found = [_judged(path) for path in paths]
    for path in sorted(place.rglob(PACKED)):
        try:
            found += unpacked(path)
        except HarnessError as error:
            found.append(_lost(path, error))
    return sorted(map(_consistent, found), key=lambda judged: judged.place)


def _judged(path: Path) -> Judged:
    """What lies beside the pool in `path`."""
    try:
        pool = read(path, PoolRecord)
    except HarnessError as error:
        return _lost(path, error)
    truths, signals, damaged = {}, [], {}
    for file in sorted(path.parent.glob("truth-*.json")):
        try:
            truth = read(file, TruthRecord)
            truths[truth.identity] = truth
        except HarnessError as error:
            damaged[file.stem.removeprefix("truth-")] = _what(error)
    for file in sorted(path.parent.glob("reward-*.json")):
        try:
            signals.append(read(file, SignalRecord))
        except HarnessError as error:
            signals.append(_damaged(pool, file.stem.removeprefix("reward-"), _what(error)))
    for place, signal in enumerate(signals):
        if reasons := [damaged[key] for key in signal.truths if key in damaged]:
            signals[place] = _damaged(pool, signal.reward, reasons[0])
    return Judged(pool, truths, signals)


def _lost(path: Path, error: HarnessError) -> Judged:
    """What is left of comparisons whose pool cannot be read: signals that say so, under the names of the folders."""
    inside = path.name == "pool.json"
    profile, task = (path.parts[-5], path.parts[-3]) if inside and len(path.parts) > 4 else ("(unknown)", "(unknown)")
    empty: dict[str, list[Any]] = {
        name: [] for name in ("texts", "groups", "sources", "articles", "halves", "removed", "batches")
    }
    pool = PoolRecord(profile=profile, task=task, seed=0, identity=path.parent.name, spec=Spec(), **empty)
    names = [file.stem.removeprefix("reward-") for file in sorted(path.parent.glob("reward-*.json")) if inside]
    return Judged(pool, {}, [_damaged(pool, name, _what(error)) for name in names or ["(unknown)"]])


def _damaged(pool: PoolRecord, reward: str, what: str) -> SignalRecord:
    return SignalRecord(
        profile=pool.profile,
        task=pool.task,
        reward=reward,
        seed=pool.seed,
        identity=pool.identity,
        status="damaged",
        reason=what,
    )


def _what(error: HarnessError) -> str:
    return error.what if isinstance(error, DamagedError) else str(error)


def _consistent(judged: Judged) -> Judged:
    """The same, with signals marked as damaged whose numbers do not fit their pool and truths."""
    pool, count = judged.pool, len(judged.pool.texts)
    indices = [i for part in (*pool.halves, *pool.removed, *pool.batches) for i in part]
    fits = {len(pool.groups), len(pool.sources), len(pool.articles)} == {count} and all(0 <= i < count for i in indices)
    signals = []
    for signal in judged.signals:
        truths = [judged.truths[key] for key in signal.truths if key in judged.truths]
        numbers = len(signal.rewards) == count and [*map(len, signal.draws)] == [*map(len, pool.batches)]
        whole = fits and numbers and all(_fits(pool, truth) for truth in truths)
        done = signal.status == "done"
        signals.append(
            signal if whole or not done else _damaged(pool, signal.reward, "numbers that do not fit its pool")
        )
    return Judged(pool, judged.truths, signals)


def _fits(pool: PoolRecord, truth: TruthRecord) -> bool:
    """Whether a truth has one number for each part of the pool. That of a reward's own training leaves none out."""
    parts = ((truth.without_one, pool.texts), (truth.without_part, pool.removed))
    left_out = all(len(values) in ({0} if not truth.without_one else {len(part)}) for values, part in parts)
    changes = all(0 < len(values) <= len(pool.halves) and _is_number(size) for size, values in truth.changed.items())
    return len(truth.halves) == len(pool.halves) and left_out and changes


def _is_number(text: str) -> bool:
    try:
        return float(text) > 0
    except ValueError:
        return False


# ---------------------------------------------------------------------------------------------------------- packed


def unpacked(path: Path) -> list[Judged]:
    """A study's comparisons of signals. Raises DamagedError."""
    with reading(path, path.parent, "bring back the committed file or pack it again"):
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


def files_of(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The same as places below the results, and what each file holds."""
    found: list[tuple[Path, dict[str, Any]]] = []
    for judged in unpacked(path):
        records: dict[str, BaseModel] = {"pool.json": judged.pool}
        records |= {f"truth-{key}.json": truth for key, truth in judged.truths.items()}
        records |= {f"reward-{signal.reward}.json": signal for signal in judged.signals}
        found += [(judged.place / name, record.model_dump()) for name, record in records.items()]
    return found


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
    """`old` and `new` together, each task and seed once. Raises HarnessError for damaged ones, and where both have one
    with different content, unless `replace`: then `new`'s is taken."""
    damaged = [signal for one in (*old, *new) for signal in one.signals if signal.status == "damaged"]
    if damaged:
        raise HarnessError(f"{damaged[0].task}/{damaged[0].reward} is damaged ({damaged[0].reason}); remove it first.")
    found = {judged.place: judged for judged in old}
    conflicts = [str(one.place) for one in new if one.place in found and found[one.place] != one and not replace]
    if conflicts:
        raise HarnessError(
            f"Stored already with other content: {', '.join(sorted(conflicts))}; --replace takes the new ones."
        )
    return list((found | {judged.place: judged for judged in new}).values())
