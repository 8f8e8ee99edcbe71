"""The standard table: for each task the untuned generator first, then every reward, best first.

`markdown` and `rich` say the same; what could not run stands in the table with its reason. Text that came out of a run
(reasons, names from outside packages) is escaped: Markdown is shown by sites that read markup and call people.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.store.cards import escape
from reports import aggregate, summary
from reports.summary import Block, Row

if TYPE_CHECKING:
    import pandas
    import rich.console
    import rich.table

UNTUNED = "untuned generator"
QUICK_NOTE = "quick: a few small steps, to see that everything works. They do not say which signal is better."


def markdown(wide: pandas.DataFrame, long: pandas.DataFrame) -> str:
    """The table of every task as GitHub Markdown, with a note of how to read it. `long` is not needed yet accepted, so
    that every view of results is called alike. An empty result set gives one sentence."""
    found = summary.blocks(wide)
    if not found:
        return "No cells are stored yet.\n"
    over = over_seeds(found)
    together = [markdown_over_seeds(over), aggregate.LEGEND + "\n"] if over else []
    return "\n".join([*map(markdown_block, found), legend() + "\n", *together]).rstrip("\n") + "\n"


def markdown_matrix(blocks: Sequence[Block]) -> str:
    """Tasks x rewards as Markdown: median headlines, behind them the seeds' values or their range. Of a task that was
    measured in several ways its first block alone."""
    tasks: dict[tuple[str, str], Block] = {}
    for block in blocks:
        tasks.setdefault((block.profile, block.task), block)
    labels = sorted({row.label for block in tasks.values() for row in block.rows})
    lines = [["task", "untuned", *labels, "best possible"]]
    for block in tasks.values():
        rows = {row.label: row for row in block.rows}
        what = f"{block.heading}: {(block.measure or 'headline').replace('_', ' ')}{better(block)}"
        ends = [summary.shown(value, block.unit) for value in (block.floor, block.ceiling)]
        lines.append([what, ends[0], *(_matrix_cell(block, rows.get(label)) for label in labels), ends[1]])
    texts = [f"| {' | '.join(map(escape, line))} |" for line in lines]
    return "\n".join([texts[0], f"| --- |{' ---: |' * (len(lines[0]) - 1)}", *texts[1:]]) + "\n"


def _matrix_cell(block: Block, row: Row | None) -> str:
    if row is None or not row.seeds:
        return "" if row is None else summary.status(row)
    values = summary.points(row.headline, block.unit)
    return summary.shown(row.median, block.unit) + (f" ({values})" if values else "")


def over_seeds(blocks: Sequence[Block], reference: str = "") -> list[aggregate.Table]:
    """What several seeds and tasks say together, against the reward `reference`; by default `summary.baseline`."""
    rewards = sorted({row.reward for block in blocks for row in block.rows})
    return aggregate.tables(blocks, reference or summary.baseline(rewards)) if rewards else []


def markdown_over_seeds(found: Sequence[aggregate.Table]) -> str:
    """The tables of `over_seeds` as Markdown, a heading each."""
    parts = []
    for each in found:
        lines = [aggregate.heads(each), *(aggregate.cells(each, row) for row in each.rows)]
        texts = [f"| {' | '.join(map(escape, line))} |" for line in lines]
        rule = f"| --- |{' ---: |' * (len(aggregate.HEADS) - 1)}"
        notes = "".join(f"\n\n{escape(note)}." for note in each.notes)
        parts.append(f"**Over seeds: {escape(each.heading)}**\n\n" + "\n".join([texts[0], rule, *texts[1:]]) + notes)
    return "\n\n".join(parts) + "\n"


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
    note = f"\n\n{QUICK_NOTE}" if any(row.quick for row in block.rows) else ""
    return f"### {escape(block.heading)}\n\n" + "\n".join(lines) + ceiling + note + "\n"


def rich(wide: pandas.DataFrame, long: pandas.DataFrame) -> rich.console.RenderableType:
    """The same for a terminal: reasons stand below their table instead of in it; a narrow one gets fewer columns."""
    from rich.console import Group
    from rich.text import Text

    found = summary.blocks(wide)
    if not found:
        return Text("No cells are stored yet.")
    parts = [part for block in found for part in _rich_block(block)]
    return Group(*parts, *(part for each in over_seeds(found) for part in _rich_over_seeds(each)))


def _rich_over_seeds(found: aggregate.Table) -> list[rich.console.RenderableType]:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = Text(f"Over seeds: {found.heading}")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.padding = (0, 1, 0, 0)  # type: ignore[assignment]
    for place, head in enumerate(aggregate.heads(found)):
        # Short, as in the table above it: at 80 columns an interval then fits its line.
        name = Text("n" if head == "seeds" else head.replace("than ", "than\n"))
        table.add_column(name, justify="right" if place else "left", overflow="fold", min_width=0 if place else 13)
    for row in found.rows:
        table.add_row(*map(Text, aggregate.cells(found, row)))
    return [table, *(Text(f"{note}.") for note in found.notes), Text("")]


def _rich_block(block: Block) -> list[rich.console.RenderableType]:
    from rich.text import Text

    notes = [Text(f"{row.label}: {status(row)}") for row in block.rows if row.reasons]
    notes += [Text(QUICK_NOTE)] if any(row.quick for row in block.rows) else []
    return [_Fitted(block), Text(""), *notes, *([Text("")] if notes else [])]


GIVEN_UP = (-3, -6, -5, 5, 4, 2, -4)
"""Places of columns, counted from either end of `columns`, that a narrow terminal goes without, the first one first."""


class _Fitted:
    """One task's table with as many columns as fit: the reward's name stays whole."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def __rich_console__(
        self, console: rich.console.Console, options: rich.console.ConsoleOptions
    ) -> rich.console.RenderResult:
        from rich.text import Text

        heads = columns(self.block)
        own = [place for place in GIVEN_UP if place < 0 or 4 <= place < 4 + len(self.block.measures) or place == 2]
        order = [place % len(heads) for place in own]
        for count in range(len(order) + 1):
            table = _rich_table(self.block, frozenset(order[:count]))
            if console.measure(table, options=options.update(width=10**4)).maximum <= options.max_width:
                break
        yield table
        if count:
            names = ", ".join(heads[place] for place in sorted(order[:count]))
            yield Text(f"Not shown at this width: {names} (table.md has them).", style="dim")


def _rich_table(block: Block, hidden: frozenset[int]) -> rich.table.Table:
    """The table without the columns at the places `hidden`, and without the last, whose reasons stand below it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    title = f"{block.heading}: {(block.measure or 'headline').replace('_', ' ')}{better(block)}"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.padding = (0, 1, 0, 0)  # type: ignore[assignment]
    short = {1: "median", 2: "range", 3: "gain", -6: "zero\nspread", -5: "a step", -3: "peak\nmemory", -2: "n"}
    heads = columns(block)
    shown = [place for place in range(len(heads) - 1) if place not in hidden]
    for place in shown:
        head = heads[place].replace("distinct ", "dist ").replace(" / ", " /").replace(" ", "\n")
        name = Text(short.get(place) or short.get(place - len(heads)) or head)
        if place == 0:
            table.add_column(name, justify="left", overflow="fold", min_width=13)
        else:
            table.add_column(name, justify="right", no_wrap=True)
    untuned = untuned_cells(block)
    table.add_row(*(Text(untuned[place]) for place in shown), style="dim")
    for row in block.rows:
        cells = row_cells(block, row)
        cells[2] = summary.span(row.headline, block.unit)
        table.add_row(*(Text(cells[place]) for place in shown))
    return table


def html(wide: pandas.DataFrame, long: pandas.DataFrame) -> str:
    """The same for a notebook."""
    found = summary.blocks(wide)
    if not found:
        return "<p>No cells are stored yet.</p>"
    main = [
        html_table(
            block.heading, [columns(block), untuned_cells(block), *(row_cells(block, row) for row in block.rows)]
        )
        for block in found
    ]
    together = [
        html_table(
            f"Over seeds: {each.heading}",
            [aggregate.heads(each), *(aggregate.cells(each, row) for row in each.rows)],
        )
        for each in over_seeds(found)
    ]
    return "".join([*main, *together])


def html_table(title: str, lines: Sequence[Sequence[str]]) -> str:
    """Texts as an HTML table, the first line its heads; whatever they hold is inert."""
    from html import escape as inert

    rows = [
        "<tr>" + "".join(f"<{tag}>{inert(text)}</{tag}>" for text in line) + "</tr>"
        for tag, line in zip(["th"] + ["td"] * (len(lines) - 1), lines, strict=True)
    ]
    return f"<table><caption>{inert(title)}</caption>{''.join(rows)}</table>"


def spent(wide: pandas.DataFrame) -> str:
    """Where the time of some cells went, in a sentence; empty where none has run."""
    names = {name: f"seconds_{name}" for name in ("load", "generation", "reward", "update", "validation")}
    ran = wide[wide["seconds_total"] > 0] if "seconds_total" in wide else wide[:0]
    total = float(ran["seconds_total"].sum())
    if not total:
        return ""
    shares = {name: float(ran[column].sum()) / total for name, column in names.items()}
    shares["the rest"] = max(0.0, 1 - sum(shares.values()))
    said = ", ".join(f"{name} {share:.0%}" for name, share in shares.items())
    cells = f"{len(ran)} cells" if len(ran) > 1 else "one cell"
    return f"Where the time went: {summary.seconds(total)} in {cells}: {said}."
