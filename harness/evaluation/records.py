"""What is stored of an evaluation: a record for each training of a target, and how they are read back.

    <out>/<profile>/evaluation/<task>/<target>-<row>-seed<k>-<identity>.json   one trial
    <out>/<profile>/evaluation/table.md, measures.parquet                      made by reports/evaluations.py
    <out>/<profile>/evaluation/data/, targets/                                 data sets, and a target that was made

Packed into a study they are the rows of `evaluation.parquet`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.contracts import HarnessError
from harness.machine.files import read_json, read_table
from harness.store.atomic import parquet_bytes, write_atomic
from harness.store.damage import DamagedError, check_plain, reading
from harness.store.record import Said

SCHEMA_VERSION = 1
FOLDER = "evaluation"
PACKED = "evaluation.parquet"
BEFORE, REPLAY, UNTUNED, SFT = "before", "replay", "untuned", "sft"
FURTHER = (BEFORE, REPLAY, UNTUNED, SFT)
"""Rows beside the rewards: no training; replay alone; the untuned generator's texts; the task's own train texts."""
FREE = ("settings", "given")
"""What may hold any numbers."""


class TrialRecord(BaseModel):
    """One training of one target on the data of one row."""

    model_config = ConfigDict(extra="forbid")

    schema_version: int = SCHEMA_VERSION
    profile: str
    task: str
    target: str
    """own or other."""
    row: str
    """A reward, or one of FURTHER."""
    seed: int
    rate: float | None = None
    """Learning rate; None where there is none to choose."""
    multiple: int | None = None
    """Of a step's texts, how many times so many; None: continued pre-training."""
    identity: str
    settings_key: str
    """Rows and seeds are compared where it agrees: everything that the numbers depend on but the data."""
    status: Literal["done", "failed", "unsupported", "damaged"]
    reason: Said = ""
    measure: str = ""
    """The measure that judges, its unit and its direction."""
    unit: str = ""
    direction: str = ""
    validation: dict[str, float] = Field(default_factory=dict)
    test: dict[str, float] = Field(default_factory=dict)
    """Every measure of the trained target on the task's splits."""
    articles: float | None = None
    """Nats a token on held-out articles."""
    lm_eval: float | None = None
    """Perplexity on the test split by EleutherAI's harness, where it was asked."""
    train_loss: float | None = None
    texts: int = 0
    tokens: int = 0
    """Of the training, replay counted."""
    replayed: int = 0
    updates: int = 0
    data: dict[str, Any] = Field(default_factory=dict)
    """What was trained on, by content."""
    target_model: str = ""
    """The target's fingerprint."""
    seconds: float = 0.0
    settings: dict[str, Any] = Field(default_factory=dict)
    given: dict[str, Any] = Field(default_factory=dict)
    provenance: dict[str, Any] = Field(default_factory=dict)

    @property
    def place(self) -> Path:
        """Its file below its results."""
        name = f"{self.target}-{self.row}-seed{self.seed}-{self.identity}.json"
        return Path(self.profile, FOLDER, self.task, name)


def chosen_rate(trials: Iterable[TrialRecord]) -> float | None:
    """The protocol of every row: of the rates that were tried with one seed, the one whose target does best on the
    *validation* passages; of equal ones the lowest. None where no training came to its end."""
    sign = lambda trial: -1 if trial.direction == "lower" else 1
    done = [t for t in trials if t.status == "done" and t.rate is not None and math.isfinite(judged(t, "validation"))]
    best = max(done, key=lambda t: (sign(t) * judged(t, "validation"), -(t.rate or 0.0)), default=None)
    return best.rate if best else None


def judged(trial: TrialRecord, split: Literal["validation", "test"]) -> float:
    """The measure that judges, on a split; NaN where it was not taken."""
    values = trial.validation if split == "validation" else trial.test
    return values.get(trial.measure, math.nan)


# --------------------------------------------------------------------------------------------------------------- files


def parsed(data: Any, path: Path) -> TrialRecord:
    """The record that `path` holds as plain data. Raises ValueError for what is none, HarnessError for a newer one."""
    version = data.get("schema_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise HarnessError(f"{path} has schema version {version}, newer than {SCHEMA_VERSION}; update the harness.")
    check_plain({name: value for name, value in data.items() if name not in FREE} if isinstance(data, dict) else data)
    return TrialRecord.model_validate(data)


def read(path: Path) -> TrialRecord | None:
    """The stored trial, or None. Raises HarnessError for one that is damaged or newer."""
    try:
        with reading(path, path.parent, "remove it to make it again"):
            return parsed(read_json(path), path)
    except FileNotFoundError:
        return None


def load(place: Path) -> list[TrialRecord]:
    """Every trial stored below `place`, in folders or in packed studies, sorted. What cannot be read is a trial with
    the status "damaged" and the reason."""
    root, found = place.resolve(), []
    for path in sorted(place.rglob(f"{FOLDER}/*/*.json")):
        if path.parent.resolve().is_relative_to(root):
            try:
                record = read(path)
            except HarnessError as error:
                record = _damaged(path, error)
            found += [record] if record else []
    for path in sorted(place.rglob(PACKED)):
        try:
            found += unpacked(path)
        except HarnessError as error:
            found.append(_damaged(path, error))
    return sorted(found, key=_order)


def _order(trial: TrialRecord) -> tuple[Any, ...]:
    place = (trial.profile, trial.task, trial.settings_key, trial.target, trial.row)
    return (*place, trial.seed, trial.multiple or 0, trial.rate or 0.0, trial.identity)


def _damaged(path: Path, error: HarnessError) -> TrialRecord:
    """What is left of a trial that cannot be read, under the names of its file."""
    what = error.what if isinstance(error, DamagedError) else str(error)
    inside = path.name != PACKED and len(path.parts) > 3
    profile, task = (path.parts[-4], path.parts[-2]) if inside else ("(unknown)", "(unknown)")
    target, _, rest = path.stem.partition("-")
    row = rest.partition("-seed")[0] if inside else ""
    return TrialRecord(
        profile=profile,
        task=task,
        target=target if row else "(unknown)",
        row=row or "(unknown)",
        seed=0,
        identity=path.stem,
        settings_key="",
        status="damaged",
        reason=what,
    )


def unpacked(path: Path) -> list[TrialRecord]:
    """A study's evaluations. Raises DamagedError."""
    with reading(path, path.parent, "bring back the committed file or pack it again"):
        return [parsed(json.loads(text), path) for text in read_table(path)["record"]]


def files_of(path: Path) -> list[tuple[Path, dict[str, Any]]]:
    """The same as places below the results, and what each file holds."""
    return [(trial.place, trial.model_dump()) for trial in unpacked(path)]


def write_packed(study: Path, trials: Sequence[TrialRecord]) -> None:
    """Makes `trials` the evaluations in a study's folder. Raises StorageError where it cannot."""
    import pandas

    keys = ("profile", "task", "target", "row", "seed", "identity")
    rows = [
        {name: getattr(trial, name) for name in keys} | {"record": trial.model_dump_json()}
        for trial in sorted(trials, key=_order)
    ]
    write_atomic(study / PACKED, parquet_bytes(pandas.DataFrame(rows)))


def packed(old: Sequence[TrialRecord], new: Sequence[TrialRecord], *, replace: bool = False) -> list[TrialRecord]:
    """`old` and `new` together, each trial once. Raises HarnessError for damaged ones, and where both have one with
    different content, unless `replace`: then `new`'s is taken."""
    if lost := [trial for trial in (*old, *new) if trial.status == "damaged"]:
        raise HarnessError(f"{lost[0].task}/{lost[0].row} is damaged ({lost[0].reason}); remove it first.")
    found = {trial.place: trial for trial in old}
    conflicts = [str(one.place) for one in new if one.place in found and found[one.place] != one and not replace]
    if conflicts:
        raise HarnessError(
            f"Stored already with other content: {', '.join(sorted(conflicts))}; --replace takes the new ones."
        )
    return list((found | {trial.place: trial for trial in new}).values())
