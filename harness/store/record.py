"""What is stored of a cell, and where: the schema, the identity, atomic files, and the two tables every report reads.

    <runs>/<profile>/<task>/<reward>/seed<k>-<identity>/
        cell.json        the record below: status and why, settings, provenance, seconds, headline value and floor
        curves.parquet   long table: one measurement a row (step, phase, measure, value, unit, direction)
        samples.jsonl    texts on held-out articles at fixed steps, with article, finish reason, seed and the task's
                         labels; samples.parquet where there are more than a handful (`HANDFUL`) a step
        rollouts/        kept rollouts of training: article, reward, advantage, finish reason; a Parquet file for every
                         few steps, read together by `pandas.read_parquet(CELL/rollouts)`
        generator/       the trained generator as a Hugging Face folder (harness/training/kept.py)
        arrays.parquet   arrays of the task's evaluations, what its pictures are drawn from
        step-<s>/...     files of the task's evaluations that cannot be drawn
    <runs>/<profile>/    wide.parquet (one cell a row), long.parquet, table.md

Results that are kept are packed into fewer files (`harness/store/study.py`); both are read through `StoredCell`.

Every file is written to a temporary name, flushed and renamed: it is whole or it is not there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from harness.contracts import HarnessError
from harness.machine.files import read_arrow, read_bytes, read_json, read_table
from harness.registry import DEFINITION
from harness.settings.schema import Settings, identity_view
from harness.store.arrays import StepArrays, StepFiles, arrays_frame, arrays_of
from harness.store.atomic import parquet_bytes, write_atomic, write_json
from harness.store.damage import check_long, check_plain, check_sample, reading
from harness.store.lines import as_lines, read_lines
from harness.store.plain import plain_text

if TYPE_CHECKING:
    import pandas
    import pyarrow

SCHEMA_VERSION = 3
IDENTITY_VERSION = 2
MIGRATIONS: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda data: data,  # 2 added `flops` and `floor_seconds`, which nobody can tell of older cells
    2: lambda data: data,  # 3 added `generator_step` and `generator_sha256`: older cells kept none
}
"""Schema version -> a record's plain data of that version as data of the next; one for each rise of SCHEMA_VERSION."""
MOST_SAID = 2200


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_SAID else f"{text[:MOST_SAID]} [...]"


Said = Annotated[str, AfterValidator(_shortened)]
"""A sentence of a record; of what is stored longer the beginning is read."""
Status = Literal["running", "done", "failed", "unsupported", "interrupted", "damaged"]
"""What a cell is. "damaged" is never stored: it is what reading makes of a cell whose files cannot be used."""

KEY_COLUMNS = ["profile", "task", "reward", "variant", "seed", "identity"]
HANDFUL = 16
"""Sampled texts of a step that a file to read with one's eyes may hold."""
SAMPLE_COLUMNS = ["step", "index", "text", "labels"]
"""Of a table of sampled texts; `labels` is JSON."""
ROLLOUT_COLUMNS = [
    *KEY_COLUMNS,
    *("step", "index", "text", "reward_value", "advantage", "finish", "title", "article"),
]
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
    generator_step: int | None = None
    """The step after which the kept generator was as it is; None: none is kept."""
    generator_headline: float | None = None
    """The headline measure of that step."""
    generator_sha256: str = ""
    """Over its folder's names and contents, as of any asset (`harness.assets.fingerprint`)."""
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
        if DEFINITION in options:
            view[section]["options"][DEFINITION] = by_content(options[DEFINITION], assets)
    whole = {"version": IDENTITY_VERSION, "task": task, "reward": reward, "seed": seed, "settings": view}
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def by_content(value: Any, assets: Mapping[str, str]) -> Any:
    """What a target's file says, with the content of what it names in the place of the names."""
    if isinstance(value, Mapping):
        return {key: by_content(each, assets) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [by_content(each, assets) for each in value]
    return assets.get(value, value) if isinstance(value, str) else value


def digest(*parts: Any) -> str:
    """Ten hexadecimal digits over plain data: the identity of what is stored beside cells."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()[:10]


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
    if type(version) is not int:
        raise HarnessError(f"{path} is not a result of this harness; move it away or choose another --out.")
    if version > SCHEMA_VERSION:
        raise HarnessError(
            f"{path} has schema version {version}, newer than {SCHEMA_VERSION} that this harness reads; update it."
        )
    for name, value in data.items():  # settings may be any numbers, and no table holds them
        check_plain(value, numbers=name not in ("settings", "given"))
    record = CellRecord.model_validate(migrated(data, path))
    if record.status == "damaged":
        raise ValueError("the status `damaged`, which nobody stores")
    try:
        place_of(record)
    except HarnessError as error:
        raise ValueError(str(error)) from error
    return record


def check_name(name: str) -> None:
    """Raises HarnessError for the name of a profile, task or reward that cannot be a folder's name everywhere."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,99}", name):
        raise HarnessError(
            f"{name!r} cannot be the name of a profile, task or reward: results lie in folders named after it; use "
            "letters, digits, '.', '_' and '-', beginning with a letter or digit."
        )


class StoredCell(Protocol):
    """A cell to read, wherever it is stored: in a folder of its own (`CellStore`) or in a packed study. What cannot be
    read, or leads out of its folder, raises DamagedError."""

    @property
    def folder(self) -> Path:
        """Where it lies; in a study, where it would lie if that were a results folder. Its name in the tables."""
        ...

    def read(self) -> CellRecord | None: ...

    def curves(self) -> pandas.DataFrame: ...

    def measurements(self) -> pyarrow.Table: ...

    def samples(self) -> list[dict[str, Any]]: ...

    def rollouts(self) -> pandas.DataFrame: ...

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
        """The stored record, or None. Raises HarnessError if there is one that cannot be read: damaged, or newer."""
        try:
            with self._reading("cell.json") as path:
                return parsed(read_json(path), path)
        except FileNotFoundError:
            return None

    def curves(self) -> pandas.DataFrame:
        """Every measurement, LONG_COLUMNS; no rows where nothing was measured. Raises DamagedError for a damaged
        file, as the next three do."""
        try:
            with self._reading("curves.parquet") as path:
                return check_long(read_table(path), LONG_COLUMNS)
        except FileNotFoundError:  # not yet, or just started again by another process
            return long_frame([])

    def measurements(self) -> pyarrow.Table:
        """The same in `long_schema`: what the tables of thousands of cells are put together from."""
        try:
            with self._reading("curves.parquet") as path:
                return long_table(read_arrow(path))
        except FileNotFoundError:
            return long_schema().empty_table()

    def samples(self) -> list[dict[str, Any]]:
        """Sampled texts in their order: step, index, text and the task's labels."""

        try:
            if (self.folder / "samples.parquet").exists():
                with self._reading("samples.parquet") as path:
                    return [check_sample(value) for value in samples_of(read_table(path))]
            with self._reading("samples.jsonl") as path:
                return [check_sample(value) for value in read_lines(path, strict=True)]
        except FileNotFoundError:
            return []

    def rollouts(self) -> pandas.DataFrame:
        """Kept rollouts of training, ROLLOUT_COLUMNS; no rows where none were kept."""
        import pandas

        parts = []
        for path in sorted((self.folder / "rollouts").glob("step-*.parquet")):
            try:
                with self._reading(f"rollouts/{path.name}") as whole:
                    parts.append(read_table(whole)[ROLLOUT_COLUMNS])
            except FileNotFoundError:
                continue  # just started again by another process
        return pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=ROLLOUT_COLUMNS)

    def arrays(self) -> StepArrays:
        """Step -> name -> array, of every evaluation that gave arrays."""
        try:
            with self._reading("arrays.parquet") as path:
                return arrays_of(read_table(path))
        except FileNotFoundError:
            return {}

    def files(self) -> StepFiles:
        """Step -> name -> content, of every evaluation that gave files."""
        steps = [path for path in _listed(self.folder) if re.fullmatch("step-[0-9]{1,18}", path.name)]
        paths = [path for step in steps for path in _listed(step)]
        found: dict[int, dict[str, bytes]] = {}
        for path in sorted(paths, key=lambda path: (int(path.parent.name[5:]), path.name)):
            if not path.name.startswith("."):
                with self._reading(f"{path.parent.name}/{path.name}"):
                    found.setdefault(int(path.parent.name[5:]), {})[path.name] = read_bytes(path)
        return found

    def _reading(self, name: str) -> AbstractContextManager[Path]:
        return reading(self.folder / name, self.folder, "remove its folder to run it again")

    def clear(self, stale: Iterable[str] | None = None) -> None:
        """Removes the named files from the cell's folder; by default everything but its lock."""
        for path in self.folder.iterdir():
            if path.name in stale if stale is not None else path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def write(self, record: CellRecord) -> None:
        write_json(self.folder / "cell.json", record.model_dump())

    def write_curves(self, record: CellRecord, rows: list[dict[str, Any]]) -> None:
        """`rows` hold step, phase, measure, value, unit, direction."""
        frame = long_frame([{**key_of(record), **row} for row in rows])
        write_atomic(self.folder / "curves.parquet", parquet_bytes(frame))

    def write_samples(self, samples: Iterable[Mapping[str, Any]]) -> None:
        """One JSON object a line: step, index, text and labels; a Parquet file where that is too much to read."""
        rows = list(samples)
        table, lines = self.folder / "samples.parquet", self.folder / "samples.jsonl"
        large = max(Counter(row["step"] for row in rows).values(), default=0) > HANDFUL
        if large:
            write_atomic(table, parquet_bytes(samples_frame(rows)))
        else:
            write_atomic(lines, as_lines(rows))
        (lines if large else table).unlink(missing_ok=True)

    def write_rollouts(self, record: CellRecord, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rollouts of some steps, in a file named after the last one; those of earlier files stay."""
        import pandas

        frame = pandas.DataFrame([{**key_of(record), **row} for row in rows], columns=ROLLOUT_COLUMNS)
        path = self.folder / "rollouts" / f"step-{int(frame['step'].max()):08d}.parquet"
        write_atomic(path, parquet_bytes(frame, plain=("text", "reward_value", "advantage")))

    def forget_rollouts(self, after: int) -> None:
        """Removes the files of later steps, which a resumed cell makes again."""
        for path in (self.folder / "rollouts").glob("step-*.parquet"):
            if int(path.stem.removeprefix("step-")) > after:
                path.unlink(missing_ok=True)

    def write_arrays(self, arrays: StepArrays) -> None:
        """All arrays of all steps, in one file. Raises HarnessError for what is no array of numbers."""
        write_atomic(self.folder / "arrays.parquet", parquet_bytes(arrays_frame(arrays)))

    def write_file(self, step: int, name: str, content: bytes) -> None:
        if not re.fullmatch(r"[^\x00-\x1f/\\]{1,100}", plain_text(name)) or name.startswith("."):
            raise HarnessError(f"The task wants to store a file named {name[:120]!r}; use a plain file name.")
        if not isinstance(content, bytes | bytearray):
            raise HarnessError(f"The task wants to store a {type(content).__name__} as {name!r}; give it bytes.")
        write_atomic(self.folder / f"step-{step}" / plain_text(name), bytes(content))


def _listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing where it is none, not there any more, or not to be read."""
    try:
        return [folder / name for name in os.listdir(folder)]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def samples_frame(samples: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Sampled texts as a table, SAMPLE_COLUMNS."""
    import pandas

    rows = []
    for sample in samples:
        labels = {name: value for name, value in sample.items() if name not in SAMPLE_COLUMNS[:3]}
        rows.append([sample["step"], sample["index"], sample["text"], json.dumps(labels, ensure_ascii=False)])
    return pandas.DataFrame(rows, columns=SAMPLE_COLUMNS)


def samples_of(frame: pandas.DataFrame) -> list[dict[str, Any]]:
    """The inverse. Raises KeyError or ValueError for a frame that `samples_frame` did not make."""
    return [
        {"step": int(row.step), "index": int(row.index_), "text": row.text} | json.loads(row.labels)
        for row in frame[SAMPLE_COLUMNS].rename(columns={"index": "index_"}).itertuples(index=False)
    ]


@cache
def long_schema() -> pyarrow.Schema:
    """LONG_COLUMNS and what each holds."""
    import pyarrow as pa

    kinds = {"seed": pa.int64(), "step": pa.int64(), "value": pa.float64()}
    return pa.schema([(name, kinds.get(name, pa.large_string())) for name in LONG_COLUMNS])


def long_table(table: pyarrow.Table) -> pyarrow.Table:
    """A long table as it was read, in `long_schema`. Raises KeyError, TypeError or ValueError where it is none."""
    import pyarrow as pa

    schema = long_schema()
    if table.schema.equals(schema) and not table["seed"].null_count and not table["step"].null_count:
        try:
            table.validate(full=True)  # texts are UTF-8
            return table.replace_schema_metadata(None)
        except pa.ArrowInvalid:
            pass  # the check of frames says what is wrong
    return pa.Table.from_pandas(check_long(table.to_pandas(), LONG_COLUMNS), schema, preserve_index=False)


def long_frame(rows: list[dict[str, Any]]) -> pandas.DataFrame:
    import pandas

    frame = pandas.DataFrame(rows, columns=LONG_COLUMNS)
    return frame.astype({"seed": "int64", "step": "int64", "value": "float64"})
