"""The standard table: for each task the untuned generator first, then every reward, best first.

`markdown` and `rich` say the same; what could not run stands in the table with its reason. Text that came out of a run
(reasons, names from outside packages) is escaped: Markdown is shown by sites that read markup and call people.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports import summary
from reports.summary import Block, Row

if TYPE_CHECKING:
    import pandas
    import rich.console

UNTUNED = "untuned generator"


def markdown(wide: pandas.DataFrame, long: pandas.DataFrame) -> str:
    """The table of every task as GitHub Markdown, with a note of how to read it. `long` is not needed yet accepted, so
    that every view of results is called alike. An empty result set gives one sentence."""
    parts = [markdown_block(block) for block in summary.blocks(wide)]
    if not parts:
        return "No cells are stored yet.\n"
    return "\n".join([*parts, legend(), ""])


def legend() -> str:
    """How to read the tables, in one paragraph."""
    return (
        "The first row of a task is the untuned generator on the same held-out prompts (the floor). A headline is "
        "the median over seeds; behind it stand the points, or the range where there are "
        f"{summary.FEW_SEEDS} seeds or more. The gain is taken seed by seed against that seed's own floor, positive is "
        "better, and its median is shown. Zero spread is the share of groups whose raw rewards were all equal: they "
        "teach nothing. Memory is the accelerator's peak where one was used, else the process's."
    )


def columns(block: Block) -> list[str]:
    """Column heads of a task's table."""
    unit = f" [{block.unit}]" if block.unit else ""
    headline = f"{(block.measure or 'headline').replace('_', ' ')}{unit}{better(block)}"
    return [
        *("reward", headline, "seeds' values", "gain over floor"),
        *(summary.title(name, name in block.relative) for name in block.measures),
        *("zero spread", "a GRPO step", "total", "peak memory", "seeds", "status"),
    ]


def better(block: Block) -> str:
    return {"higher": ", higher is better", "lower": ", lower is better"}.get(block.direction, "")


def untuned_cells(block: Block) -> list[str]:
    """The first row: the floor, as texts under `columns`."""
    measures = [summary.number(block.initial[name], 3) for name in block.measures]
    seeds = len({seed for row in block.rows for seed in row.seeds})
    return [UNTUNED, summary.shown(block.floor, block.unit), "", "", *measures, *[""] * 4, str(seeds), "floor"]


def row_cells(block: Block, row: Row) -> list[str]:
    """One reward's row, as texts under `columns`."""
    return [
        row.label,
        summary.shown(row.median, block.unit),
        summary.points(row.headline, block.unit),
        summary.signed(summary.median(row.gain), block.unit),
        *(summary.number(row.measures[name], 3) for name in block.measures),
        summary.number(row.zero_spread, 2),
        summary.seconds(row.seconds_step),
        summary.seconds(row.seconds_total),
        summary.size(row.peak_memory_bytes),
        str(len(row.seeds)),
        status(row),
    ]


def status(row: Row) -> str:
    """done, "unsupported: why", or how many cells ended how, with every reason."""
    if len(row.counts) == 1 and row.reasons and "done" not in row.counts:
        return "; ".join(row.reasons)
    return summary.status(row) + (f" ({'; '.join(row.reasons)})" if row.reasons else "")


def heading(block: Block) -> str:
    return f"{block.task}" + (f" ({block.profile})" if block.profile else "")


def escape(text: str) -> str:
    """Text as inert Markdown inside a table cell: no markup, no links, no line breaks, nobody called by @name."""
    text = "".join(character if character.isprintable() else " " for character in " ".join(text.split()))
    text = (
        text.replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
        .replace("@", "@\u200b")
        .replace("://", ":\u200b//")
    )
    return re.sub(r"([\\`*\[\]|~!#$])", r"\\\1", text)


def markdown_block(block: Block) -> str:
    """One task as a heading and a table."""
    table = [columns(block), untuned_cells(block), *(row_cells(block, row) for row in block.rows)]
    texts = [[escape(cell) for cell in line] for line in table]
    rule = ["---"] + ["---:"] * (len(texts[0]) - 2) + ["---"]
    lines = [f"| {' | '.join(line)} |" for line in [texts[0], rule, *texts[1:]]]
    ceiling = (
        f"\n\nThe best possible value is {summary.number(block.ceiling)}."
        if summary.number(block.ceiling) != "-"
        else ""
    )
    return f"### {escape(heading(block))}\n\n" + "\n".join(lines) + ceiling + "\n"


def rich(wide: pandas.DataFrame, long: pandas.DataFrame) -> rich.console.RenderableType:
    """The same for a terminal of 100 columns: reasons stand below their table instead of in it."""
    from rich.console import Group
    from rich.text import Text

    found = summary.blocks(wide)
    if not found:
        return Text("No cells are stored yet.")
    return Group(*(part for block in found for part in _rich_block(block)))


def _rich_block(block: Block) -> list[rich.console.RenderableType]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"{heading(block)}: {(block.measure or 'headline').replace('_', ' ')}{better(block)}"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.padding = (0, 1, 0, 0)  # type: ignore[assignment]
    short = {1: "median", 2: "range", 3: "gain", -6: "zero\nspread", -5: "a step", -3: "peak\nmemory", -2: "n"}
    heads = columns(block)
    for position, head in enumerate(heads[:-1]):
        name = (
            short.get(position)
            or short.get(position - len(heads))
            or head.replace("distinct ", "dist ").replace(" / ", " /").replace(" ", "\n")
        )
        left = position == 0
        width = 13 if left else None
        table.add_column(
            Text(name), justify="left" if left else "right", no_wrap=not left, overflow="fold", min_width=width
        )
    table.add_row(*map(Text, untuned_cells(block)[:-1]), style="dim")
    for row in block.rows:
        cells = row_cells(block, row)
        cells[2] = summary.span(row.headline, block.unit)
        table.add_row(*map(Text, cells[:-1]))
    notes = [Text(f"{row.label}: {status(row)}") for row in block.rows if row.reasons]
    return [table, Text(""), *notes, *([Text("")] if notes else [])]


def html(wide: pandas.DataFrame, long: pandas.DataFrame) -> str:
    """The same for a notebook."""
    found = summary.blocks(wide)
    if not found:
        return "<p>No cells are stored yet.</p>"
    return "".join(
        html_table(
            heading(block), [columns(block), untuned_cells(block), *(row_cells(block, row) for row in block.rows)]
        )
        for block in found
    )


def html_table(title: str, lines: Sequence[Sequence[str]]) -> str:
    """Texts as an HTML table, the first line its heads; whatever they hold is inert."""
    from html import escape as inert

    rows = [
        "<tr>" + "".join(f"<{tag}>{inert(text)}</{tag}>" for text in line) + "</tr>"
        for tag, line in zip(["th"] + ["td"] * (len(lines) - 1), lines, strict=True)
    ]
    return f"<table><caption>{inert(title)}</caption>{''.join(rows)}</table>"
