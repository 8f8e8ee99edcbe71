"""What stands beside the tables in a cell's folder: texts, pictures, settings and provenance, cut to what a page
can carry."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.store.record import CellRecord
from reports import summary

if TYPE_CHECKING:
    import pandas

PNG = b"\x89PNG\r\n\x1a\n"
MOST_TEXT = 700
"""Characters of one sampled text on the page."""
MOST_SAMPLE_BYTES = 1_500_000
MOST_PICTURE_BYTES = 1_000_000
"""Of all texts, and of all pictures, on one page; the rest stays in the results and the page says so."""


@dataclass(frozen=True)
class Samples:
    """Sampled texts: `texts[task][label] = {"seed": k, "rows": [[step, index, labels, text], ...]}`."""

    texts: dict[str, dict[str, dict[str, Any]]]
    left_out: int
    """Texts of the seeds shown that did not fit."""


def samples(wide: pandas.DataFrame, labels: Mapping[str, str]) -> Samples:
    """The texts of every row's lowest finished seed. `labels` maps folders to row labels.

    Steps and indices are thinned evenly, first and last step kept, until all texts fit `MOST_SAMPLE_BYTES`.
    """
    done = wide[wide["status"] == "done"].sort_values("seed")
    rows_of = ["profile", "task", "reward", "variant", "settings_key"]
    chosen = done.drop_duplicates(rows_of).sort_values(["profile", "task"])
    everything: dict[str, dict[str, dict[str, Any]]] = {}
    for cell in chosen.itertuples():
        rows = read_samples(Path(cell.folder) / "samples.jsonl")
        if rows:
            entry = {"seed": int(cell.seed), "rows": rows}
            everything.setdefault(f"{cell.task} ({cell.profile})", {})[labels[cell.folder]] = entry
    total = sum(len(entry["rows"]) for task in everything.values() for entry in task.values())
    steps, indices = 12, 8
    while True:
        kept = {
            task: {name: _thinned(entry, steps, indices) for name, entry in rows.items()}
            for task, rows in everything.items()
        }
        size = len(json.dumps(kept, ensure_ascii=False).encode())
        if size <= MOST_SAMPLE_BYTES or (steps, indices) == (2, 1):
            break
        steps, indices = (steps, indices // 2) if indices > 2 else (max(2, steps // 2), 1 if steps <= 4 else indices)
    shown = sum(len(entry["rows"]) for task in kept.values() for entry in task.values())
    return Samples(kept, total - shown)


def read_samples(path: Path) -> list[list[Any]]:
    """A `samples.jsonl` as [[step, index, labels, text], ...]; what else a task wrote becomes "name: value" labels."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        extra = {name: value for name, value in row.items() if name not in ("step", "index", "text", "prompt")}
        text = str(row["text"])
        text = text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + " [...]"
        rows.append([int(row["step"]), int(row["index"]), ", ".join(f"{k}: {v}" for k, v in extra.items()), text])
    return rows


def _thinned(entry: dict[str, Any], steps: int, indices: int) -> dict[str, Any]:
    known = sorted({row[0] for row in entry["rows"]})
    if len(known) > steps:
        known = [known[round(place * (len(known) - 1) / (steps - 1))] for place in range(steps)]
    keep = set(known)
    return entry | {"rows": [row for row in entry["rows"] if row[0] in keep and row[1] < indices]}


@dataclass(frozen=True)
class Picture:
    """One PNG of a task's last evaluation."""

    name: str
    """target, decoded or delta."""
    alt: str
    uri: str


def pictures(
    wide: pandas.DataFrame, labels: Mapping[str, str]
) -> tuple[dict[str, list[tuple[str, list[Picture]]]], int]:
    """Task -> [(cell's name, its final pictures)], and how many cells were left out for size.

    The first seed of every row comes before the second of any, so that what is left out is never a whole reward.
    """
    found: dict[str, list[tuple[str, list[Picture]]]] = {}
    size, left_out = 0, 0
    done = wide[wide["status"] == "done"].copy()
    done["_nth"] = done.groupby(["profile", "task", "reward", "variant", "settings_key"])["seed"].rank()
    for cell in done.sort_values(["_nth", "task", "reward", "variant"]).to_dict("records"):
        files = final_pictures(Path(cell["folder"]))
        if not files:
            continue
        spent = sum(len(content) for content in files.values())
        if size + spent > MOST_PICTURE_BYTES:
            left_out += 1
            continue
        size += spent
        name = f"{labels[cell['folder']]}, seed {cell['seed']}"
        value = f"{cell['measure'].replace('_', ' ')} {summary.shown(cell['headline'], cell['unit'])}"
        shown = [
            Picture(kind, f"{kind} picture of {name}: {value}", _data_uri(content)) for kind, content in files.items()
        ]
        found.setdefault(f"{cell['task']} ({cell['profile']})", []).append((f"{name}: {value}", shown))
    for cells in found.values():
        cells.sort(key=lambda entry: entry[0])
    return found, left_out


def final_pictures(folder: Path) -> dict[str, bytes]:
    """Name -> PNG of the last step that stored any, in the order target, decoded, delta, others."""
    steps = [path for path in folder.glob("step-*") if path.name[5:].isdigit() and any(path.glob("*.png"))]
    if not steps:
        return {}
    last = max(steps, key=lambda path: int(path.name[5:]))
    order = ("target", "decoded", "delta")
    files = sorted(
        last.glob("*.png"), key=lambda path: (order.index(path.stem) if path.stem in order else 9, path.name)
    )
    contents = {path.stem: path.read_bytes() for path in files}
    return {name: content for name, content in contents.items() if content.startswith(PNG)}


def _data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


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
    parts = ["python", "-m", "harness", "run", "--profile", record.profile, "--task", record.task]
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
