"""The page's content as Markdown: whole (`report`) and short enough for a pull request's comment (`short`)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.store import cards
from reports import aggregate, answer, gather, stats, summary, tables
from reports.stats import Comparison
from reports.summary import Block

if TYPE_CHECKING:
    import pandas

Compared = list[tuple[Block, list[Comparison], list[Comparison]]]
MOST_COMMENT = 60_000
"""Characters; GitHub refuses comments of more than 65,536."""


def short(blocks: list[Block], compared: Compared, reference: str) -> str:
    """The tables and the comparisons; whole tasks are left out at the end where it would be too long."""
    parts = [
        tables.markdown_block(block) + "\n" + comparisons([entry], reference)
        for block, entry in zip(blocks, compared, strict=True)
    ]
    kept, size = [], 0
    for part in parts:
        size += len(part)
        if size > MOST_COMMENT:
            kept.append(f"{len(parts) - len(kept)} more tasks are in the full report.\n")
            break
        kept.append(part)
    return "\n".join([*kept, tables.legend(), ""])


def report(wide: pandas.DataFrame, blocks: list[Block], compared: Compared, reference: str) -> str:
    """Everything that can be said without pictures."""
    figures = (
        "The figures are in `figures/`, the tables as CSV in `data/`, the tasks' pictures in `pictures/`, and "
        "`index.html` has everything."
    )
    said = [f"**{tables.escape(each.heading)}.** {tables.escape(each.text)}" for each in answer.answers(blocks)]
    parts = [
        "# Reward signals compared",
        *said,
        figures,
        *(["## Rewards and tasks", tables.markdown_matrix(blocks)] if len(blocks) > 1 else []),
        "## Results",
        *map(tables.markdown_block, blocks),
        tables.legend(),
    ]
    if over := tables.over_seeds(blocks, reference):
        parts += [tables.markdown_over_seeds(over), aggregate.LEGEND]
    parts += ["## Paired differences", comparisons(compared, reference)]
    parts += ["## Sampled texts", _samples(wide)]
    parts += ["## Cells", _cells(wide)]
    parts += ["## Where the time went", _spent(wide), gather.SPENT_LEGEND]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


MOST_PAIRS = 15
"""Pairs that are listed by name: those of six rewards. The page has them all."""


def comparisons(compared: Compared, reference: str) -> str:
    """Differences against the reference, and the pairs that the data cannot separate."""
    parts = []
    for block, found, every in compared:
        rows = [_comparison(c, block.unit) for c in found]
        heading, other = tables.escape(block.heading), tables.escape(reference)
        parts.append(f"**{heading}**, differences from {other}, seed by seed (positive is better)\n")
        if rows:
            parts.append(grid(["reward", "mean difference", "95 % interval", "by seed", "p (Holm)", "interval"], rows))
        else:
            parts.append(f"No finished cell of {tables.escape(reference)} shares a seed with another reward.\n")
        if unseparated := [c for c in every if not c.separated]:
            listed = ", ".join(tables.escape(f"{c.name} and {c.reference}") for c in unseparated[:MOST_PAIRS])
            more = f" and {len(unseparated) - MOST_PAIRS} more" if len(unseparated) > MOST_PAIRS else ""
            parts.append(f"The data cannot separate {len(unseparated)} of {len(every)} pairs: {listed}{more}.\n")
    return "\n".join(parts)


def _comparison(c: Comparison, unit: str) -> list[str]:
    by_seed = " ".join(summary.signed(difference, unit) for difference in c.differences)
    p = "-" if math.isnan(c.adjusted_p) else f"{c.adjusted_p:.2g}"
    return [c.name, summary.signed(c.interval.mean, unit), stats.bounds(c.interval, unit), by_seed, p, c.interval.note]


def grid(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([tables.escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def fenced(text: str) -> str:
    """Text in a code fence longer than any run of backticks in it: nothing in it is markup."""
    return cards.fenced(text, "text").removesuffix("\n")


def _samples(wide: pandas.DataFrame) -> str:
    """The first text of the first and of the last step, of every row's lowest seed."""
    parts = []
    done = wide[wide["status"] == "done"].sort_values(["profile", "task", "reward", "variant", "seed"])
    for cell in done.drop_duplicates(["profile", "task", "reward", "variant", "settings_key"]).itertuples():
        rows = [row for row in gather.read_samples(cell.folder) if row[1] == 0]
        for row in rows[:1] + rows[1:][-1:]:
            variant = f" ({cell.variant})" if cell.variant else ""
            name = f"{cell.task}, {cell.reward}{variant}, seed {cell.seed}, step {row[0]}"
            parts.append(f"{tables.escape(name)}{': ' + tables.escape(row[2]) if row[2] else ''}\n\n{fenced(row[3])}")
    return "\n\n".join(parts) or "No texts are stored."


def _cells(wide: pandas.DataFrame) -> str:
    """One line a cell: how it ended and where it comes from; then the commands that run them again."""
    records = list(summary.read_records(wide).values())
    heads = ["task", "reward", "variant", "seed", "identity", "status", "reason", "commit", "device"]
    rows = []
    for record in records:
        dirty = " (dirty)" if record.provenance.get("dirty") else ""
        commit = str(record.provenance.get("commit") or "-")[:10] + dirty
        place = [record.task, record.reward, record.variant or "-", str(record.seed), record.identity]
        rows.append([*place, record.status, record.reason or "-", commit, str(record.provenance.get("device", "-"))])
    commands = "\n".join(dict.fromkeys(gather.rerun(record) for record in records))
    return f"{grid(heads, rows)}\nTo run them again, on the same commit:\n\n{fenced(commands)}"


def _spent(wide: pandas.DataFrame) -> str:
    """One line a cell that ran: seconds of each phase and what was reached in them."""
    heads = ["task", "reward", "variant", "seed", "total", *gather.PHASES, "rest"]
    rows = []
    for record in summary.read_records(wide).values():
        if record.seconds:
            phases = [
                "; ".join(filter(None, (summary.seconds(one.seconds), gather.spent_words(one))))
                for one in gather.spent(record)
            ]
            total = summary.seconds(record.seconds.get("total", math.nan))
            rows.append([record.task, record.reward, record.variant or "-", str(record.seed), total, *phases])
    return grid(heads, rows) if rows else "No seconds are stored."
