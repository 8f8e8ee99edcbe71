"""A suite's sections (harness/suites/suite.py) beside what is stored: the paper's pieces in the paper's order.

Each has its claims, our figures, pictures and texts, and the paper's own numbers where it reports some."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.signals import theorem
from harness.suites.suite import Grid, Reported
from reports import claims, evaluations, figures, gather, stats, summary, tables
from reports.claims import StoredClaims
from reports.gather import Picture
from reports.markdown import grid as markdown_grid

if TYPE_CHECKING:
    import pandas

NOTHING = "-"
DECODED = "decoded"
"""What tasks that draw call the picture that was read off the weights."""
MOST_TEXT = 600
"""Characters of a text."""


@dataclass(frozen=True)
class Table:
    """Texts; a cell has a second, smaller line where its text has a line break."""

    title: str
    heads: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class PictureGrid:
    """A row a signal, a column a variant."""

    heads: list[str]
    rows: list[tuple[str, list[tuple[Picture, str] | None]]]
    """Label; picture and its value, or None where there is none."""


@dataclass(frozen=True)
class Shown:
    """A section with what there is of ours."""

    place: str
    title: str
    says: str
    claims: list[list[str]]
    """Rows under claims.HEADS."""
    figures: list[figures.Figure] = field(default_factory=list)
    pictures: list[tuple[str, list[Picture]]] = field(default_factory=list)
    grid: PictureGrid | None = None
    tables: list[Table] = field(default_factory=list)
    texts: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)
    """Task -> (label, text)."""


def shown(
    runs: Path,
    found: StoredClaims,
    wide: pandas.DataFrame,
    labels: Mapping[str, str],
    drawn: gather.Drawn,
    curves: Sequence[figures.Figure],
    worth: Sequence[evaluations.Row],
) -> list[Shown]:
    """The sections of a decided suite. `wide`, `labels` (folder -> row), `drawn`, `curves` and `worth` are those of the
    whole report; cells of the suite are told by what claims.json says of its parts. Raises DamagedError."""
    mine = wide[(wide["profile"] == found.profile) & (wide["status"] == "done")]
    mine = mine[mine["identity"].isin({identity for part in found.parts.values() for identity in part})]
    made = []
    for section in found.sections:
        own = [each for each in found.claims if each.place == section.place]
        made.append(
            Shown(
                section.place,
                section.title,
                section.says,
                claims.stored_rows(found.model_copy(update={"claims": own})),
                [f for f in curves if f.key in {figures.file_key(key, found.profile) for key in section.figures}],
                _pictures(mine, labels, drawn, section.pictures) if section.pictures else [],
                _grid(section.grid, found, mine, drawn) if section.grid else None,
                [
                    *([_slopes(runs)] if section.theorem else []),
                    *(_beside(reported, found.profile, worth) for reported in section.reported),
                ],
                _texts(mine, labels, section.samples),
            )
        )
    return made


# ---------------------------------------------------------------------------------------------------------------- parts


def _pictures(
    wide: pandas.DataFrame, labels: Mapping[str, str], drawn: gather.Drawn, task: str
) -> list[tuple[str, list[Picture]]]:
    found, _ = gather.pictures(wide[wide["task"] == task], labels, drawn)
    return [entry for cells in found.values() for entry in cells]


def _grid(asked: Grid, found: StoredClaims, wide: pandas.DataFrame, drawn: gather.Drawn) -> PictureGrid | None:
    """Of every signal and variant the first seed's final picture. Parts after the first are rows of their own."""
    cells: dict[tuple[str, str], tuple[Picture, str]] = {}
    for part in asked.parts:
        mine = wide[wide["identity"].isin(found.parts.get(part, [])) & (wide["task"] == asked.task)]
        for cell in mine.sort_values("seed").drop_duplicates(["reward", "variant"]).to_dict("records"):
            content = drawn.of.get(cell["folder"], {}).get(DECODED)
            if content is None:
                continue
            label = cell["reward"] if part == asked.parts[0] else f"{cell['reward']}, {part.replace('-', ' ')}"
            value = summary.shown(cell["headline"], cell["unit"])
            alt = f"final picture of {label}, {cell['variant']}: {value}"
            cells[label, cell["variant"]] = gather.picture(DECODED, alt, content), value
    if not cells:
        return None
    columns = sorted({variant for _, variant in cells}, key=figures.natural)
    rows = list(dict.fromkeys(label for label, _ in cells))
    return PictureGrid(
        ["signal", *columns], [(label, [cells.get((label, name)) for name in columns]) for label in rows]
    )


def _slopes(runs: Path) -> Table:
    """They are the same for all profiles: those of one are shown."""
    by_line: dict[tuple[str, str, float | None], list[float]] = {}
    for path in sorted(runs.rglob(theorem.FILE))[:1]:
        for each in theorem.kept_slopes(path.parent):
            by_line.setdefault((each.sweep, each.optimizer, each.eps_root), []).append(each.value)
    rows = []
    for (sweep, optimizer, root), values in by_line.items():
        interval = stats.mean_interval(np.array(values))
        ends = f"{interval.low:+.2f} .. {interval.high:+.2f}" if interval.bounded else NOTHING
        name = f"{optimizer}, eps_root {root:g}" if root is not None else optimizer
        rows.append([sweep, name, f"{interval.mean:+.2f}", ends, str(len(values))])
    heads = ["bias over", "inner training", "slope of its logarithm", "95 % over worlds", "worlds"]
    return Table("", heads, rows)


def _beside(reported: Reported, profile: str, worth: Sequence[evaluations.Row]) -> Table:
    """The paper's perplexity and the share that is left of the untrained target's; ours in the next column."""
    ours = {
        (row.task, row.name): row
        for row in worth
        if row.profile == profile and row.target == reported.ours and row.trials
    }
    heads = ["trained on"]
    for head in reported.columns.values():
        heads += [f"{head}, paper", f"{head}, here"]
    before = dict(zip(reported.columns, next(iter(reported.rows.values())), strict=True))
    rows = []
    for name, numbers in reported.rows.items():
        line = [name]
        for task, number in zip(reported.columns, numbers, strict=True):
            line += [f"{number}\n{_share(float(number) / float(before[task]))}", _ours(ours.get((task, name)))]
        rows.append(line)
    return Table(f"{reported.title} [{reported.unit}; of before]", heads, rows)


def _ours(row: evaluations.Row | None) -> str:
    if row is None:
        return NOTHING
    value = math.exp(-row.mean) if row.unit.startswith("nats") else row.mean
    left = 1.0 if row.name == next(iter(evaluations.REFERENCES)) else row.left
    return f"{summary.number(value)}\n{_share(left)}" if math.isfinite(left) else summary.number(value)


def _share(value: float) -> str:
    return f"{value:.0%}"


def _texts(
    wide: pandas.DataFrame, labels: Mapping[str, str], tasks: Sequence[str]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """The first held-out text of the last validation of every row's first seed."""
    found = []
    for task in tasks:
        mine = wide[wide["task"] == task].sort_values(["reward", "variant", "seed"])
        rows = []
        for cell in mine.drop_duplicates(["reward", "settings_key"]).to_dict("records"):
            texts = sorted(gather.read_samples(cell["folder"]), key=lambda row: (-row[0], row[1]))
            if texts:
                text = str(texts[0][3])
                rows.append((labels[cell["folder"]], text if len(text) <= MOST_TEXT else text[:MOST_TEXT] + " [...]"))
        if rows:
            found.append((task, rows))
    return found


# ------------------------------------------------------------------------------------------------------------- markdown


def markdown(sections: Sequence[Shown]) -> str:
    """Sections with claims, tables and texts; figures and pictures are files beside the page."""
    parts = []
    for each in sections:
        parts.append(f"### {tables.escape(each.place)}: {tables.escape(each.title)}\n\n{tables.escape(each.says)}\n")
        if each.claims:
            parts.append(markdown_grid(list(claims.HEADS), each.claims))
        for table in each.tables:
            title = f"{tables.escape(table.title)}\n\n" if table.title else ""
            flat = [[text.replace("\n", " ") for text in row] for row in table.rows]
            parts.append(title + markdown_grid(table.heads, flat))
    return "\n".join(parts)
