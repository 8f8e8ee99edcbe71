"""What stands beside the tables in a cell's folder: texts, pictures, settings and provenance, cut to what a page
can carry."""

from __future__ import annotations

import base64
import json
import math
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError
from harness.machine.files import check_png
from harness.registry import DEFINITION, TASKS
from harness.store.frames import cell_at
from harness.store.record import CellRecord, StoredCell, place_of
from reports import summary

if TYPE_CHECKING:
    import pandas

PNG = b"\x89PNG\r\n\x1a\n"
Place = tuple[str, str, str]
"""Of a cell's texts on the page: task, row's label, seed."""
MOST_TEXT = 700
"""Characters of one sampled text on the page."""
MOST_SAMPLE_BYTES = 1_500_000
MOST_PICTURE_BYTES = 1_000_000
"""Of all texts, and of all pictures, on one page; the rest stays in the results and the page says so."""

MOST_DRAWN = 1_000_000
"""Numbers that a task is asked to draw; each becomes many pixels."""


HELD_OUT, TRAINING = "held-out", "training"
"""Kinds of texts: on held-out articles at validations, and kept rollouts of training steps with their rewards."""


@dataclass(frozen=True)
class Samples:
    """Sampled texts: `texts[task][label][seed][kind] = [[step, index, labels, text, reward or None], ...]`."""

    texts: dict[str, dict[str, dict[str, dict[str, list[list[Any]]]]]]
    left_out: int
    """Texts of finished cells that did not fit."""


def samples(wide: pandas.DataFrame, labels: Mapping[str, str]) -> Samples:
    """The texts of every finished cell. `labels` maps folders to row labels.

    Steps and texts of a step are thinned evenly, first and last step kept, until all texts fit `MOST_SAMPLE_BYTES`;
    where even that is too much, seeds after a row's first are left out.
    """
    done = wide[wide["status"] == "done"].sort_values(["profile", "task", "seed"])
    found = {}
    for cell in done.to_dict("records"):
        kinds = {HELD_OUT: read_samples(cell["folder"]), TRAINING: read_rollouts(cell["folder"])}
        place = (f"{cell['task']} ({cell['profile']})", labels[cell["folder"]], str(cell["seed"]))
        if kinds := {kind: rows for kind, rows in kinds.items() if rows}:
            found[place] = kinds
    total = sum(len(rows) for kinds in found.values() for rows in kinds.values())
    firsts = {place[:2]: place for place in reversed(found)}
    for steps, texts, chosen in _thinner(found, set(firsts.values())):
        kept = {place: {kind: _thinned(rows, steps, texts) for kind, rows in found[place].items()} for place in chosen}
        if len(json.dumps(list(kept.values()), ensure_ascii=False).encode()) <= MOST_SAMPLE_BYTES:
            break
    shown = sum(len(rows) for kinds in kept.values() for rows in kinds.values())
    tree: dict[str, dict[str, dict[str, dict[str, list[list[Any]]]]]] = {}
    for (task, label, seed), kinds in kept.items():
        tree.setdefault(task, {}).setdefault(label, {})[seed] = kinds
    return Samples(tree, total - shown)


def _thinner(found: Mapping[Place, Any], firsts: set[Place]) -> Iterator[tuple[int, int, list[Place]]]:
    """(steps, texts of a step, cells), fewer each time."""
    every = list(found)
    for steps, texts in ((12, 8), (12, 4), (12, 2), (6, 2), (3, 1)):
        yield steps, texts, every
    for steps, texts in ((6, 2), (3, 1), (2, 1)):
        yield steps, texts, [place for place in every if place in firsts]


def read_samples(folder: str) -> list[list[Any]]:
    """A cell's texts on held-out articles as [[step, index, labels, text, None], ...]; what else is stored with them
    becomes "name: value" labels. They were not scored by the reward."""
    cell = cell_at(folder)
    rows = []
    for row in cell.samples() if cell else []:
        extra = {name: value for name, value in row.items() if name not in ("step", "index", "text", "prompt", "seed")}
        rows.append([int(row["step"]), int(row["index"]), _labels(extra), _cut(str(row["text"])), None])
    return rows


def read_rollouts(folder: str) -> list[list[Any]]:
    """A cell's kept rollouts of training, in the same form, each with its reward."""
    cell = cell_at(folder)
    rows = []
    for row in cell.rollouts().to_dict("records") if cell else []:
        said = {
            "reward": summary.number(row["reward_value"], 3),
            "advantage": summary.number(row["advantage"], 3),
            **{name: row[name] for name in ("finish", "title", "article")},
        }
        reward = float(row["reward_value"])
        value = reward if math.isfinite(reward) else None
        rows.append([int(row["step"]), int(row["index"]), _labels(said), _cut(str(row["text"])), value])
    return rows


def _labels(named: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in named.items())


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + " [...]"


def _thinned(rows: list[list[Any]], steps: int, texts: int) -> list[list[Any]]:
    known = sorted({row[0] for row in rows})
    if len(known) > steps:
        known = [known[round(place * (len(known) - 1) / (steps - 1))] for place in range(steps)]
    return [row for step in known for row in [each for each in rows if each[0] == step][:texts]]


@dataclass(frozen=True)
class Picture:
    """One PNG of a task's last evaluation."""

    name: str
    """As its task names it."""
    alt: str
    uri: str


@dataclass(frozen=True)
class Drawn:
    """The pictures of every finished cell's last evaluation that has any."""

    of: dict[str, dict[str, bytes]]
    """Cell's folder -> name -> PNG."""
    files: dict[Path, dict[str, bytes]]
    """The same by the place of the cell below its results."""
    missing: tuple[str, ...]
    """A sentence for each reason why pictures could not be drawn."""


def drawn(wide: pandas.DataFrame) -> Drawn:
    """Lets the tasks draw."""
    found, files, missing = {}, {}, []
    for folder in wide.loc[wide["status"] == "done", "folder"]:
        cell = cell_at(folder)
        record = cell.read() if cell else None
        if not record:
            continue
        try:
            shown = final_pictures(cell, record.task)
        except Undrawable as why:
            missing.append(str(why))
            continue
        if shown:
            found[folder] = files[place_of(record)] = shown
    return Drawn(found, files, tuple(dict.fromkeys(missing)))


class Undrawable(Exception):
    """Arrays that nobody here can draw: a sentence."""


def final_pictures(cell: StoredCell, task: str) -> dict[str, bytes]:
    """Name -> PNG of the last step with arrays or files, what `task` draws of the arrays, in its order, then stored
    files that are PNGs. Raises Undrawable where arrays are stored and cannot be drawn."""
    arrays, stored = cell.arrays(), cell.files()
    last = max([*arrays, *stored], default=None)
    if last is None:
        return {}
    contents = dict(_draw(task, arrays[last])) if last in arrays else {}
    contents |= {Path(name).stem: content for name, content in stored.get(last, {}).items() if name.endswith(".png")}
    found = {name: content for name, content in contents.items() if content.startswith(PNG)}
    for name, content in found.items():
        try:
            check_png(content, f"The picture {name} of {task}")
        except HarnessError as error:
            raise Undrawable(str(error)) from error
    return found


def _draw(task: str, arrays: Mapping[str, Any]) -> Mapping[str, bytes]:
    if (entry := TASKS.find(task)) is None:
        raise Undrawable(f"The pictures of {task} are not drawn: that task is not installed here.")
    if (entries := sum(array.size for array in arrays.values())) > MOST_DRAWN:
        raise Undrawable(f"The pictures of {task} are not drawn: {entries:,} numbers, and at most {MOST_DRAWN:,} are.")
    draw = entry.declares.draw
    if draw is None:
        return {}
    try:
        return draw(arrays)
    except Exception as error:  # a task may be anybody's code
        raise Undrawable(f"The pictures of {task} are not drawn: {type(error).__name__} in its `draw`.") from error


def pictures(
    wide: pandas.DataFrame, labels: Mapping[str, str], drawn: Drawn
) -> tuple[dict[str, list[tuple[str, list[Picture]]]], int]:
    """Task -> [(cell's name, its final pictures)], and how many cells were left out for size.

    The first seed of every row comes before the second of any, so that what is left out is never a whole reward.
    """
    found: dict[str, list[tuple[str, list[Picture]]]] = {}
    size, left_out = 0, 0
    done = wide[wide["status"] == "done"].copy()
    done["_nth"] = done.groupby(["profile", "task", "reward", "variant", "settings_key"])["seed"].rank()
    for cell in done.sort_values(["_nth", "task", "reward", "variant"]).to_dict("records"):
        files = drawn.of.get(cell["folder"])
        if not files:
            continue
        spent = sum(len(content) for content in files.values())
        if size + spent > MOST_PICTURE_BYTES:
            left_out += 1
            continue
        size += spent
        name = f"{labels[cell['folder']]}, seed {cell['seed']}"
        value = f"{cell['measure'].replace('_', ' ')} {summary.shown(cell['headline'], cell['unit'])}"
        shown = [picture(kind, f"{kind} picture of {name}: {value}", content) for kind, content in files.items()]
        found.setdefault(f"{cell['task']} ({cell['profile']})", []).append((f"{name}: {value}", shown))
    for cells in found.values():
        cells.sort(key=lambda entry: entry[0])
    return found, left_out


def picture(name: str, alt: str, content: bytes) -> Picture:
    """A PNG as the page holds it."""
    return Picture(name, alt, "data:image/png;base64," + base64.b64encode(content).decode())


# ------------------------------------------------------------------------------------------- settings and provenance


def flat(tree: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted keys with values to read."""
    if isinstance(tree, dict) and tree:
        merged: dict[str, str] = {}
        for key, value in tree.items():
            merged |= flat(value, f"{prefix}.{key}" if prefix else str(key))
        return merged
    return {prefix: tree if isinstance(tree, str) else json.dumps(tree, ensure_ascii=False)}


def rerun(record: CellRecord) -> str:
    """The command that makes this cell again, on the same commit and with the same assets."""
    task, settings = record.task, record.settings.get("task")
    if isinstance(settings, dict) and DEFINITION in (settings.get("options") or {}):
        task = f"{task}.yaml"  # of a target's file its reader knows where it lies; the record does not
    parts = ["python", "-m", "harness", "run", "--profile", record.profile, "--task", task]
    parts += ["--reward", record.reward, "--seeds", str(record.seed)]
    for key, value in record.given.items():
        parts += ["--set", f"{key}={json.dumps(value, ensure_ascii=False)}"]
    return shlex.join(parts)


@dataclass(frozen=True)
class Environment:
    """One machine and set of packages; what all its cells share."""

    name: str
    facts: dict[str, str]


PER_CELL = ("started", "finished", "threads")
"""Provenance that differs from cell to cell on one machine."""


def environments(records: Mapping[str, CellRecord]) -> tuple[list[Environment], dict[str, str]]:
    """The different environments of all cells, and folder -> environment's name."""
    names: dict[str, str] = {}
    found: list[Environment] = []
    of: dict[str, str] = {}
    for folder, record in records.items():
        facts = flat({key: value for key, value in record.provenance.items() if key not in PER_CELL})
        if not record.provenance:
            continue
        key = json.dumps(facts, sort_keys=True)
        if key not in names:
            names[key] = f"E{len(names) + 1}"
            found.append(Environment(names[key], facts))
        of[folder] = names[key]
    return found, of


# -------------------------------------------------------------------------------------------------- where the time went

PHASES = ("generation", "reward", "update", "validation")


@dataclass(frozen=True)
class Spent:
    """A phase of a cell: NaN where nothing is stored.

    seconds   of the phase
    share     of the cell's seconds
    rate      FLOPs a second
    products  share of the rate that large matrix products reach on that machine (model FLOP utilisation)
    """

    phase: str
    seconds: float
    share: float
    rate: float
    products: float


def spent(record: CellRecord) -> list[Spent]:
    """The four phases, then "rest": loading, storing and what is between phases."""
    seconds = {phase: record.seconds.get(phase, math.nan) for phase in PHASES}
    total = record.seconds.get("total", math.nan)
    seconds["rest"] = total - sum(seconds.values())
    return [
        Spent(
            phase,
            value,
            _ratio(value, total),
            _ratio(record.flops.get(phase, math.nan), value),
            _ratio(record.floor_seconds.get(phase, math.nan), value),
        )
        for phase, value in seconds.items()
    ]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else math.nan


def spent_words(one: Spent) -> str:
    """Share of the time, FLOP/s and share of the matrix products' rate, as far as they are known. A reward without a
    model (0 FLOPs) has no rate worth a word."""
    words = [f"{one.share:.0%}"] if math.isfinite(one.share) else []
    if one.rate > 0:
        words.append(f"{summary.rate(one.rate)}, {one.products:.0%} of products")
    return "; ".join(words)


SPENT_LEGEND = (
    "Seconds of each phase and their share of the cell's; FLOP/s, counted from the tokens that were read and written "
    "(padding counts nothing), and their share of what large matrix products reach on that machine with the cell's "
    "threads (model FLOP utilisation). The clock is the wall's: where other processes use the cores, shares fall."
)
