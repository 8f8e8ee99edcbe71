"""Cells -> one block a task with one row a reward: the plain data that the Markdown, terminal and HTML tables render.

Cells are pooled over seeds only where profile, task, reward, variant and settings agree. Two sets of settings under one
name are two rows, told apart by the key of their settings, never one median.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contracts import TaskDeclarations
from harness.registry import REWARDS, TASKS
from harness.settings import variants
from harness.settings.schema import Settings
from harness.store.frames import record_of
from harness.store.record import CellRecord, identity
from reports import measured

if TYPE_CHECKING:
    import pandas

STATUS_ORDER = ("done", "running", "interrupted", "failed", "unsupported", "damaged")
FEW_SEEDS = 5
"""Below this many seeds the points themselves are shown instead of a range."""

MOST_MEASURES = 2
"""Key measures of a task that have a column beside the headline."""


@dataclass(frozen=True)
class Row:
    """One reward (and variant) on one task, over seeds. Arrays are float64 (finished seeds,), in seed order."""

    reward: str
    variant: str
    settings_key: str
    seeds: tuple[int, ...]
    """Seeds of finished cells, ascending; the axis of every array here."""
    headline: np.ndarray
    gain: np.ndarray
    """Improvement over the same seed's untuned generator, in the headline's unit; positive is better."""
    measures: dict[str, float] = field(default_factory=dict)
    """Final value of a key measure, median over seeds (`Block.relative`: over the untuned generator's)."""
    zero_spread: float = math.nan
    seconds_step: float = math.nan
    """Generation + reward + update of one GRPO step, median over seeds."""
    seconds_total: float = math.nan
    peak_memory_bytes: float = math.nan
    """Largest over seeds; of the accelerator where one was used, else of the process."""
    counts: dict[str, int] = field(default_factory=dict)
    """Status -> number of cells, in STATUS_ORDER."""
    reasons: tuple[str, ...] = ()
    """Why cells are not `done`, each different reason once, and what finished ones are flagged with."""
    differs: str = ""
    """What tells its settings from those of the reward's other rows, e.g. "lr 3e-4"; empty where there is one row."""

    @property
    def kind(self) -> str:
        """Variant and settings, as far as there are several."""
        return ", ".join(filter(None, (self.variant, self.differs)))

    @property
    def quick(self) -> bool:
        """Whether it is of a quick run, which says that everything works and not which signal is better."""
        return self.variant.startswith(variants.QUICK)

    @property
    def label(self) -> str:
        return f"{self.reward} ({self.kind})" if self.kind else self.reward

    @property
    def median(self) -> float:
        return median(self.headline)


@dataclass(frozen=True)
class Block:
    """One task of one profile, as far as it was measured in one way: the untuned generator and every reward, best
    first."""

    profile: str
    task: str
    measure: str
    unit: str
    direction: str
    """"higher" or "lower" is better; "" where no cell got as far as to say."""
    ceiling: float
    floor: float
    """Headline of the untuned generator: median over seeds of the median of their finished cells' own floors."""
    measures: tuple[str, ...]
    """The key measures that have a column, in order."""
    relative: frozenset[str]
    """Those of them that are shown as a share of the untuned generator's."""
    initial: dict[str, float]
    """The same of the untuned generator (1 for relative ones)."""
    rows: tuple[Row, ...]
    """Finished rewards best first, then those without a finished cell by name."""
    measured: str = ""
    """How its cells' validations differ from those of the task's other blocks (reports/measured.py)."""

    @property
    def heading(self) -> str:
        """The task, and which of its blocks."""
        notes = ", ".join(filter(None, (self.profile, self.measured)))
        return f"{self.task} ({notes})" if notes else self.task


def median(values: Iterable[float]) -> float:
    """Median of the finite values; NaN if there are none."""
    array = np.asarray(list(values), dtype=float)
    array = array[np.isfinite(array)]
    return float(np.median(array)) if array.size else math.nan


def improvement(new: Any, old: Any, direction: str) -> Any:
    """`new` - `old` with the sign that makes positive better. Works on numbers and arrays."""
    return (old - new) if direction == "lower" else (new - old)


def settings_key(record: CellRecord) -> str:
    """Six hexadecimal digits that agree exactly where two cells differ in nothing but the seed: the identity at seed 0.

    Settings of another version of the harness that are no longer there count with their stored values; where the others
    no longer validate, all of them do.
    """
    gone: dict[str, Any] = {}
    whole: list[Any]
    try:
        settings = Settings.model_validate(variants.known_part(record.settings, gone))
    except ValueError:
        whole = [record.task, record.reward, record.settings, record.assets]
    else:
        found = identity(record.task, record.reward, 0, settings, record.assets)
        if not gone:
            return found[:6]
        whole = [found, gone]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:6]


def read_records(wide: pandas.DataFrame) -> dict[str, CellRecord]:
    """Folder -> the cell's record, for every row of `wide` whose cell is at hand."""
    return {folder: record for folder, record in _each_record(wide) if record}


def _each_record(wide: pandas.DataFrame) -> Iterator[tuple[str, CellRecord | None]]:
    """(folder, record) of every row, one after the other: thousands need not be held at once."""
    if "folder" in wide:
        for folder, status, reason in zip(wide["folder"], wide["status"], wide["reason"], strict=True):
            yield folder, record_of(folder, status, reason)


def prepared(wide: pandas.DataFrame) -> pandas.DataFrame:
    """`wide` with the columns `settings_key` ("" where the folder is not at hand), `differs` (`Row.differs`) and
    `measured` (`Block.measured`), without cells stored twice.

    Results merged from several machines may hold one cell twice (same profile and identity): the most finished stays.
    """
    if wide.empty or "settings_key" in wide:
        return wide
    known: dict[str, tuple[str, dict[str, Any]]] = {"": ("", {})}  # most cells of a grid differ in the seed alone
    texts = []
    for _, record in _each_record(wide):
        whole = [record.task, record.reward, record.settings, record.assets] if record and record.settings else None
        texts.append(json.dumps(whole) if whole else "")
        if record and texts[-1] not in known:
            known[texts[-1]] = settings_key(record), variants.dotted(record.settings)
    texts = texts or [""] * len(wide)
    frame = wide.assign(settings_key=[known[text][0] for text in texts])
    frame["variant"] = frame["variant"].fillna("")
    views = [known[text][1] for text in texts]
    frame["differs"], frame["measured"] = _differing(frame, views), measured.ways(frame, views)
    frame = _adopted(frame)
    rank = frame["status"].map({status: position for position, status in enumerate(STATUS_ORDER)})
    frame = frame.assign(_rank=rank).sort_values("_rank", kind="stable")
    frame = frame.drop_duplicates(["profile", "task", "reward", "variant", "seed", "identity"])
    return frame.drop(columns="_rank").sort_index()


def _differing(frame: pandas.DataFrame, views: Sequence[dict[str, Any]]) -> list[str]:
    """Of every cell, what tells its settings from others of its profile, task, reward and variant."""
    places = list(zip(*(frame[name] for name in ("profile", "task", "reward", "variant")), strict=True))
    groups: dict[Any, dict[str, dict[str, Any]]] = {}
    for place, key, view in zip(places, frame["settings_key"], views, strict=True):
        groups.setdefault(place, {}).setdefault(key, view)
    named = {place: variants.names(group) for place, group in groups.items()}
    return [named[place][key] for place, key in zip(places, frame["settings_key"], strict=True)]


def _adopted(frame: pandas.DataFrame) -> pandas.DataFrame:
    """Damaged cells whose settings nobody can read, in the row of the only settings that their reward has beside
    them, if there are no others."""
    lost = (frame["status"] == "damaged") & (frame["settings_key"] == "")
    for key, part in frame[lost].groupby(["profile", "task", "reward"]):
        whole = frame[~lost & (frame[["profile", "task", "reward"]] == list(key)).all(axis=1)]
        if len(rows := whole[["variant", "settings_key", "measured"]].drop_duplicates()) == 1:
            for name in rows:
                frame.loc[part.index, name] = rows[name].iloc[0]
    return frame


def blocks(wide: pandas.DataFrame) -> list[Block]:
    """One block a (profile, task), sorted by name; several where a task was measured in several ways, the one with the
    profile's own settings first."""
    if wide.empty:
        return []
    found = []
    for (profile, task), cells in prepared(wide).groupby(["profile", "task"]):
        parts = sorted(cells.groupby("measured"), key=lambda part: ((part[1]["variant"] != "").all(), part[0]))
        found += [_block(str(profile), str(task), str(way), part) for way, part in parts]
    return found


def _block(profile: str, task: str, way: str, frame: pandas.DataFrame) -> Block:
    done = frame[frame["status"] == "done"]
    direction = _first(done if len(done) else frame, "direction")
    measures = _key_measures(task, done, _first(done if len(done) else frame, "measure"))
    relative = frozenset(measures) & relative_measures(task)
    rows = []
    for (reward, variant), part in frame.groupby(["reward", "variant"]):
        for key in sorted(part["settings_key"].unique()):
            rows.append(
                _row(
                    str(reward),
                    str(variant),
                    part[part["settings_key"] == key],
                    direction,
                    measures,
                    relative,
                )
            )
    rows.sort(
        key=lambda row: (
            not len(row.seeds),
            -improvement(row.median, 0.0, direction) if len(row.seeds) else 0,
            row.label,
        )
    )
    # By seed first: a seed that more rewards were run on does not weigh more.
    floors = done.groupby("seed")["floor"].median().to_numpy(dtype=float) if len(done) else np.empty(0)
    return Block(
        profile=profile,
        task=task,
        measure=_first(done if len(done) else frame, "measure"),
        unit=_first(done if len(done) else frame, "unit"),
        direction=direction,
        ceiling=median(frame["ceiling"].to_numpy(dtype=float)) if "ceiling" in frame else math.nan,
        floor=median(floors),
        measures=measures,
        relative=relative,
        initial={name: 1.0 if name in relative else median(_column(done, f"initial_{name}")) for name in measures},
        rows=tuple(rows),
        measured=way,
    )


def _row(
    reward: str,
    variant: str,
    cells: pandas.DataFrame,
    direction: str,
    measures: tuple[str, ...],
    relative: frozenset[str],
) -> Row:
    done = cells[cells["status"] == "done"].sort_values("seed")
    values = {}
    for name in measures:
        final = _column(done, f"final_{name}")
        if name in relative:  # a generator that starts at entropy 0 has no share of it: NaN, as for no value at all
            initial = _column(done, f"initial_{name}")
            final = final / np.where(initial > 0, initial, np.nan)
        values[name] = median(final)
    step = sum(_column(done, f"seconds_{phase}") for phase in ("generation", "reward", "update")) / _column(
        done, "steps_done"
    )
    device, process = _column(done, "device_memory_bytes"), _column(done, "peak_memory_bytes")
    memory = device if np.isfinite(device).any() else process
    counts = {status: int((cells["status"] == status).sum()) for status in STATUS_ORDER}
    unfinished = cells[cells["status"] != "done"]
    reasons = (
        f"{status}: {why or 'no reason stored'}"
        for status, why in zip(unfinished["status"], unfinished["reason"], strict=True)
        if status != "running"
    )
    headline = _column(done, "headline")
    return Row(
        reward=reward,
        variant=variant,
        settings_key=str(cells["settings_key"].iloc[0]),
        seeds=tuple(int(seed) for seed in done["seed"]),
        headline=headline,
        gain=improvement(headline, _column(done, "floor"), direction),
        measures=values,
        zero_spread=median(_column(done, "zero_spread")),
        seconds_step=median(step),
        seconds_total=median(_column(done, "seconds_total")),
        peak_memory_bytes=float(np.nanmax(memory)) if np.isfinite(memory).any() else math.nan,
        counts={status: count for status, count in counts.items() if count},
        reasons=tuple(dict.fromkeys([*reasons, *_flags(done)])),
        differs=str(cells["differs"].iloc[0]),
    )


def _flags(done: pandas.DataFrame) -> list[str]:
    """What finished cells say about themselves, e.g. that all their rollouts are the same."""
    notes = done["notes"] if "notes" in done else []
    return [
        f"seed {seed} {note}" for seed, note in zip(done["seed"], notes, strict=False) if isinstance(note, str) and note
    ]


def declarations(task: str) -> TaskDeclarations:
    """What the task says of itself; of one that is not installed here, the defaults."""
    entry = TASKS.find(task)
    return entry.declares if entry else TaskDeclarations()


def relative_measures(task: str) -> frozenset[str]:
    """The task's measures that say something only beside the untuned generator's; none known if it is not installed."""
    entry = TASKS.find(task)
    return frozenset(measure.name for measure in entry.factory.measures if measure.relative) if entry else frozenset()


def _key_measures(task: str, done: pandas.DataFrame, headline: str) -> tuple[str, ...]:
    """Those that the task declares, without a declaration the first ones stored; as far as they have values."""
    stored = [str(name).removeprefix("final_") for name in done if str(name).startswith("final_")]
    declared = declarations(task).key_measures
    names = stored if declared is None else declared
    known = [name for name in names if name != headline and np.isfinite(_column(done, f"final_{name}")).any()]
    return tuple(known[:MOST_MEASURES])


def _column(frame: pandas.DataFrame, name: str) -> np.ndarray:
    """A column as float64 (rows,), NaN where it is missing."""
    if name not in frame:
        return np.full(len(frame), math.nan)
    import pandas

    return pandas.to_numeric(frame[name], errors="coerce").to_numpy(dtype=float)


def _first(frame: pandas.DataFrame, name: str) -> str:
    """The first non-empty text of a column."""
    return next((str(value) for value in frame.get(name, ()) if isinstance(value, str) and value), "")


# ------------------------------------------------------------------------------------------------------ numbers as text


def number(value: float | None, digits: int = 4) -> str:
    """`digits` significant digits; "-" for what is not there."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    return f"{value:.{digits}g}" if not 1e-3 <= abs(value) < 1e5 else f"{value:#.{digits}g}".rstrip("0").rstrip(".")


def signed(value: float, unit: str = "") -> str:
    """A difference with its sign."""
    return ("+" if math.isfinite(value) and value >= 0 else "") + shown(value, unit)


def seconds(value: float) -> str:
    """5.2 s, 12 min, 3.4 h."""
    if not math.isfinite(value):
        return "-"
    if value < 120:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def rate(value: float) -> str:
    """FLOPs a second as GFLOP/s or TFLOP/s."""
    return f"{value / 1e9:.2g} GFLOP/s" if value < 99.5e9 else f"{value / 1e12:.2g} TFLOP/s"


def size(value: float) -> str:
    """Bytes as MiB or GiB."""
    if not math.isfinite(value):
        return "-"
    return f"{value / 2**20:.0f} MiB" if value < 2**30 else f"{value / 2**30:.3g} GiB"


def shown(value: float, unit: str) -> str:
    """A headline value: three decimals for a share, as no validation is larger than that resolves; else four digits."""
    return f"{value:.3f}" if unit == "fraction" and math.isfinite(value) else number(value)


def points(values: np.ndarray, unit: str = "") -> str:
    """What lies behind a median: the points of few seeds, the range of many, nothing for one."""
    finite = np.sort(values[np.isfinite(values)])
    if finite.size < FEW_SEEDS:
        return ", ".join(shown(value, unit) for value in finite) if finite.size > 1 else ""
    return span(values, unit)


def span(values: np.ndarray, unit: str = "") -> str:
    """lowest..highest, nothing for one value. With three seeds that and the median are all the points."""
    finite = values[np.isfinite(values)]
    return f"{shown(finite.min(), unit)}..{shown(finite.max(), unit)}" if finite.size > 1 else ""


def status(row: Row) -> str:
    """done, or how many cells ended how."""
    if set(row.counts) == {"done"}:
        return "done"
    if len(row.counts) == 1:
        return next(iter(row.counts))
    return ", ".join(f"{count} {name}" for name, count in row.counts.items())


def title(measure: str, relative: bool) -> str:
    """A column head: underscores as spaces, and what a relative measure is relative to."""
    return measure.replace("_", " ") + (" / untuned" if relative else "")


def baseline(rewards: Sequence[str]) -> str:
    """Of the `rewards` of some results, the one that the others are compared with unless told otherwise: what declares
    itself the baseline, whether it is among them or not; where nothing does, the first."""
    declared = [entry.name for entry in REWARDS if entry.baseline]
    return next((name for name in [*rewards, *declared] if name in declared), rewards[0])
