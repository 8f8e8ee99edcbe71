"""`python -m harness report RUNS --out SITE`: results as a page that needs nothing but a browser.

    SITE/index.html            everything in one file: no network, no script from elsewhere, works from file://
    SITE/report.md             the same as Markdown; summary.md is its short beginning, for a pull request's comment
    SITE/data/*.csv            the tables: wide (a cell a row), long (a measurement a row), comparisons
    SITE/figures/*.svg, *.png  the paper's figures
    SITE/pictures/...          what each finished cell's task draws of its last evaluation, in folders as in the results

Texts in results were written by models and by packages from outside: Jinja escapes all of them, sampled texts reach the
page as JSON and the document as text nodes only, and the page's Content-Security-Policy admits exactly this page's own
script and style, by hash.
"""

from __future__ import annotations

import base64
import hashlib
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError, unknown
from harness.evaluation import records as trials
from harness.signals import records
from harness.store.atomic import csv_text, write_atomic
from harness.store.damage import DamagedError
from harness.store.frames import load
from reports import (
    aggregate,
    answer,
    claims,
    evaluations,
    figures,
    gather,
    markdown,
    sensitivity,
    signals,
    stats,
    style,
    summary,
    svg,
    tables,
)
from reports import paper as suite_pages
from reports.stats import Comparison
from reports.summary import Block, Row

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Cell:
    """One cell of a sortable table."""

    text: str
    sort: str | float
    quiet: str = ""
    """A second, smaller line."""


NOT_RUN = "\u00b7"
"""In the matrix of rewards and tasks, a pair that nobody ran: a mark that does not drown the values."""


def build(runs: Path, out: Path, *, reference: str = "") -> Path:
    """Reads every result below `runs` and writes the page, its Markdown, tables and figures into `out`.

    `reference` names the reward that the others are compared with ("": `summary.baseline`). Returns the page's path.
    Raises HarnessError where there are no results, results are damaged, `out` cannot be written, or no cell has the
    reward `reference` (the default may be missing; the comparisons then say so).
    """
    wide, long = load(runs)
    if wide.empty:
        raise HarnessError(f"There are no results in {runs}; run `python -m harness run ...` first.")
    rewards = sorted(wide["reward"].unique())
    if reference and reference not in rewards:
        raise HarnessError(unknown("reward", reference, rewards))
    reference = reference or summary.baseline(rewards)
    wide = summary.prepared(wide)
    blocks = summary.blocks(wide)
    curves = figures.reduce(wide, long, blocks)
    compared = [(block, stats.against(block, reference), stats.pairs(block)) for block in blocks]

    paper = figures.task_figures(curves)
    clock = figures.wall_clock(blocks, curves)
    judged, worth = signals.rows(records.load(runs)), evaluations.rows(trials.load(runs))
    tried = sensitivity.found(wide)
    images = gather.drawn(wide)
    findings, pieces = _findings(runs, wide, row_labels(wide, blocks), images, paper, worth)
    shown = [*paper, *([clock] if clock else [])]
    page = _page(wide, blocks, compared, reference, shown, curves, judged, worth, tried, findings, pieces, images)
    write_atomic(out / "index.html", page)
    text = markdown.report(wide, blocks, compared, reference)
    if judged:
        text += f"\n## Signals before any RL\n\n{signals.markdown(judged)}"
        write_atomic(out / "data" / "signals.csv", csv_text(signals.frame(judged)))
    if worth:
        text += f"\n## What the data is worth\n\n{evaluations.markdown(worth)}"
        write_atomic(out / "data" / "evaluation.csv", csv_text(evaluations.frame(worth)))
    for title, lines in findings:
        text += f"\n## Claims: {tables.escape(title)}\n\n{markdown.grid(list(claims.HEADS), lines)}"
    for title, sections in pieces:
        text += f"\n## Piece by piece: {tables.escape(title)}\n\n{suite_pages.markdown(sections)}"
    if tried:
        text += f"\n## Sensitivity\n\n{sensitivity.markdown(tried)}"
    write_atomic(out / "report.md", text)
    write_atomic(out / "summary.md", markdown.short(blocks, compared, reference))
    _write_data(wide, long, compared, runs, out / "data")
    for figure in [*paper, *filter(None, [sensitivity.figure(tried)])]:
        figures.save(figure, *(out / "figures" / f"{figure.key}{suffix}" for suffix in (".svg", ".png")))
    for name, cells in _picture_rows(wide, row_labels(wide, blocks), images).items():
        figures.save_pictures(cells, out / "figures" / f"{name}.png")
    for place, pictures in images.files.items():
        for name, content in pictures.items():
            write_atomic(out / "pictures" / place / f"{name}.png", content)
    return out / "index.html"


def _page(
    wide: pandas.DataFrame,
    blocks: list[Block],
    compared: list[tuple[Block, list[Comparison], list[Comparison]]],
    reference: str,
    paper: list[figures.Figure],
    curves: figures.Curves,
    judged: list[signals.Row],
    worth: list[evaluations.Row],
    tried: list[sensitivity.Tuned],
    findings: list[tuple[str, list[list[str]]]],
    pieces: list[tuple[str, list[suite_pages.Shown]]],
    images: gather.Drawn,
) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "panel": lambda drawn, figure: Markup(svg.panel(drawn, figure.limits(drawn))),
        "swatch": lambda line: Markup(svg.swatch(line)),
    }
    styles = style.css() + _template("page.css")
    script = _template("page.js")
    labels = row_labels(wide, blocks)
    shown, left_out = gather.pictures(wide, labels, images)
    records = summary.read_records(wide)
    environments, environment_of = gather.environments(records)
    return environment.get_template("page.html.j2").render(
        policy=policy(styles, script),
        styles=Markup(styles),
        script=Markup(script),
        title=f"Reward signals on {', '.join(sorted({block.task for block in blocks}))}",
        counts=_counts(wide),
        newest=max((str(record.provenance.get("started", "")) for record in records.values()), default=""),
        answers=answer.answers(blocks),
        picture=answer.picture(blocks, curves),
        row_names=sorted({row.label for block in blocks for row in block.rows} | {block.task for block in blocks}),
        glance=glance(blocks),
        blocks=[
            (block, tables.columns(block), untuned(block), [row_cells(block, row) for row in block.rows])
            for block in blocks
        ],
        over_seeds=[(each, aggregate.heads(each), over_rows(each)) for each in tables.over_seeds(blocks, reference)],
        over_legend=aggregate.LEGEND,
        legend=tables.legend(),
        reference=reference,
        comparisons=[_comparison_block(*entry) for entry in compared],
        figures=paper,
        curves=figures.learning_curves(curves),
        signals=signal_tables(judged),
        signals_legend=signals.legend(judged),
        claims=findings,
        claims_heads=claims.HEADS,
        pieces=pieces,
        sensitivity=[(one.heading, sensitivity_rows(one)) for one in tried],
        sensitivity_heads=sensitivity.HEADS,
        sensitivity_figure=sensitivity.figure(tried),
        sensitivity_legend=sensitivity.LEGEND,
        worth=worth_tables(worth),
        worth_legend=evaluations.legend(worth),
        pictures=shown,
        pictures_left_out=left_out,
        pictures_missing=images.missing,
        samples=gather.samples(wide, labels),
        cells=_cell_rows(wide, records, labels, environment_of),
        spent_heads=[*gather.PHASES, "rest"],
        spent_legend=gather.SPENT_LEGEND,
        environments=environments,
        settings=_settings(wide, records, labels),
    )


def _picture_rows(
    wide: pandas.DataFrame, labels: dict[str, str], images: gather.Drawn
) -> dict[str, list[tuple[str, dict[str, bytes]]]]:
    """File name -> the final pictures of every row's first finished seed."""
    found: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
    done = wide[wide["status"] == "done"].sort_values(["task", "reward", "variant", "seed"])
    for cell in done.drop_duplicates(["profile", "task", "reward", "variant", "settings_key"]).itertuples():
        if pictures := images.of.get(cell.folder):
            name = f"{labels[cell.folder]}\nseed {cell.seed}: {summary.shown(cell.headline, cell.unit)}"
            found.setdefault(figures.file_key("figure-3", cell.profile, cell.task), []).append((name, pictures))
    return found


def policy(styles: str, script: str) -> str:
    """The page's Content-Security-Policy: its own style and script by hash, pictures from data, nothing else."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; style-src {digest(styles)}; script-src {digest(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _template(name: str) -> str:
    return (resources.files("reports") / "templates" / name).read_text(encoding="utf-8")


def _counts(wide: pandas.DataFrame) -> str:
    counts = wide["status"].value_counts()
    return ", ".join(f"{counts[status]} {status}" for status in summary.STATUS_ORDER if status in counts)


def row_labels(wide: pandas.DataFrame, blocks: list[Block]) -> dict[str, str]:
    """Folder -> label of the row that the cell belongs to."""
    names = {
        (block.profile, block.task, row.reward, row.variant, row.settings_key): row.label
        for block in blocks
        for row in block.rows
    }
    keys = zip(*(wide[name] for name in ("profile", "task", "reward", "variant", "settings_key")), strict=True)
    return {folder: names[key] for folder, key in zip(wide["folder"], keys, strict=True)}


# ------------------------------------------------------------------------------------------------------------- tables


def glance(blocks: list[Block]) -> dict[str, Any]:
    """Rewards x tasks: medians and points of the headline, floor first and ceiling last."""
    heads = [
        "reward",
        *(f"{block.heading}: {block.measure.replace('_', ' ')}{tables.better(block)}" for block in blocks),
    ]
    labels = sorted({row.label for block in blocks for row in block.rows}, key=figures.natural)
    rows: list[list[Cell]] = []
    for label in labels:
        cells = [Cell(label, label)]
        for block in blocks:
            row = next((row for row in block.rows if row.label == label), None)
            cells.append(_glance_cell(block, row))
        rows.append(cells)
    floor = [Cell(tables.UNTUNED, ""), *(Cell(summary.shown(block.floor, block.unit), "", "floor") for block in blocks)]
    ceiling = [
        Cell("best possible", ""),
        *(Cell(summary.shown(block.ceiling, block.unit), "", "ceiling") for block in blocks),
    ]
    gaps = sum(cell.text == NOT_RUN for cells in rows for cell in cells)
    every = len(labels) * len(blocks)
    return {"heads": heads, "rows": rows, "floor": floor, "ceiling": ceiling, "gaps": gaps, "all": every}


def _glance_cell(block: Block, row: Row | None) -> Cell:
    if row is None:
        return Cell(NOT_RUN, "")
    if not row.seeds:
        return Cell(summary.status(row), "")
    return Cell(summary.shown(row.median, block.unit), row.median, summary.points(row.headline, block.unit))


def signal_tables(found: list[signals.Row]) -> list[tuple[str, list[str], list[list[Cell]]]]:
    """(title, column heads, rows) of every task for the page; a cell's quiet line holds its interval."""
    made = []
    for title, block in signals.blocks(found):
        lines = []
        for row in block:
            cells = [Cell(row.reward, signals.label(row), f"own training: {row.training}" if row.own else "")]
            for name in signals.COLUMNS:
                interval, text = row.found.get(name), signals.shown(row, name, bounds=False)
                ends = signals.shown(row, name).removeprefix(text).strip(" []")
                cells.append(Cell(text, "" if interval is None else interval.mean, ends))
            lines.append([*cells, Cell(row.status, row.status)])
        made.append((title, ["signal", *signals.COLUMNS, "status"], lines))
    return made


def _findings(
    runs: Path,
    wide: pandas.DataFrame,
    labels: dict[str, str],
    images: gather.Drawn,
    curves: list[figures.Figure],
    worth: list[evaluations.Row],
) -> tuple[list[tuple[str, list[list[str]]]], list[tuple[str, list[suite_pages.Shown]]]]:
    """(title, rows under claims.HEADS) of the claims that were decided, and (title, sections) of suites that have some.
    A file that cannot be used is one row."""
    try:
        stored = claims.stored(runs)
        titles = [f"{found.suite} ({found.profile})" for found in stored]
        pieces = [suite_pages.shown(runs, found, wide, labels, images, curves, worth) for found in stored]
    except DamagedError as error:
        return [(claims.FILE, [["", "damaged", "-", "-", error.what]])], []
    rows = [claims.stored_rows(found) for found in stored]
    return list(zip(titles, rows, strict=True)), [pair for pair in zip(titles, pieces, strict=True) if pair[1]]


def over_rows(found: aggregate.Table) -> list[list[Cell]]:
    """The rows of a table over seeds; estimates sort by their value."""
    made = []
    for row in found.rows:
        values = [
            row.iqm.value,
            row.median.value,
            row.over_reference and row.over_reference.value,
            row.over_untuned.value,
        ]
        sorts = [row.label, min(row.seeds), *("" if value is None else value for value in values)]
        made.append([Cell(text, sort) for text, sort in zip(aggregate.cells(found, row), sorts, strict=True)])
    return made


def sensitivity_rows(one: sensitivity.Tuned) -> list[list[Cell]]:
    """The table of a task's trials; numbers sort as numbers."""
    made = []
    for each, texts in zip(one.choices, sensitivity.rows(one), strict=True):
        best = each.tried[each.chosen] if each.chosen is not None else None
        value = next(iter(best.point.values())) if best and len(best.point) == 1 else ""
        headline = best.median if best else ""
        sorts = [*texts[:2], len(each.tried), value, headline, headline, texts[6], _sort(each.decades), texts[-1]]
        made.append([Cell(text, sort) for text, sort in zip(texts, sorts, strict=True)])
    return made


def worth_tables(found: list[evaluations.Row]) -> list[tuple[str, list[str], list[list[Cell]]]]:
    """The same of what the data are worth."""
    made = []
    for title, block in evaluations.blocks(found):
        lines = []
        for row in block:
            texts = [text.partition(" [") for text in evaluations.cells(block, row)[:-1]]
            cells = [Cell(text, _number(text), ends.rstrip("]")) for text, _, ends in texts]
            lines.append([*cells, Cell(row.status, row.status)])
        made.append((title, evaluations.columns(block), lines))
    return made


def _number(text: str) -> str | float:
    """What a column sorts a cell's text by."""
    try:
        return float(text.rstrip("%"))
    except ValueError:
        return "" if text == "-" else text


def untuned(block: Block) -> list[Cell]:
    return [Cell(text, "") for text in tables.untuned_cells(block)]


def row_cells(block: Block, row: Row) -> list[Cell]:
    """`tables.row_cells` with what to sort by, and the mean's interval below the points."""
    texts = tables.row_cells(block, row)
    measures = [row.measures[name] for name in block.measures]
    sorts = [
        row.label,
        row.median,
        row.median,
        summary.median(row.gain),
        *measures,
        row.zero_spread,
        row.seconds_step,
        row.seconds_total,
        row.peak_memory_bytes,
        len(row.seeds),
        texts[-1],
    ]
    cells = [Cell(text, _sort(sort)) for text, sort in zip(texts, sorts, strict=True)]
    cells[2] = Cell(cells[2].text, cells[2].sort, _mean_interval(block, row))
    return cells


def _sort(value: str | float) -> str | float:
    """What to sort by; what is not there comes last."""
    return "" if isinstance(value, float) and math.isnan(value) else value


def _mean_interval(block: Block, row: Row) -> str:
    values = row.headline
    if len(values) < 2 or not all(math.isfinite(value) for value in values):
        return ""
    interval = stats.mean_interval(values)
    if not interval.bounded:
        return f"{interval.n} seeds, all the same: no interval"
    low, high = interval.low, interval.high
    if block.unit == "fraction":  # the mean of a share lies in [0, 1], whatever Student says
        low, high = max(0.0, low), min(1.0, high)
    return f"mean {summary.shown(low, block.unit)}..{summary.shown(high, block.unit)} (95 %)"


def _comparison_block(block: Block, found: list[Comparison], every: list[Comparison]) -> dict[str, Any]:
    from markupsafe import Markup

    sides = [side for c in found for side in (*c.differences, c.interval.low, c.interval.high)]
    reach = [0.0, *(side for side in sides if math.isfinite(side))]
    # A t interval from two seeds may be a hundred times as wide as the points; the plot keeps to a readable reach.
    points = [abs(value) for c in found for value in c.differences] + [1e-12]
    low, high = max(min(reach), -3 * max(points)), min(max(reach), 3 * max(points))
    if low == high:  # nothing differs from the reference anywhere
        low, high = -1.0, 1.0
    rows = [(c, verdict(c), Markup(svg.forest(c, low, high))) for c in found]
    return {
        "heading": block.heading,
        "unit": block.unit,
        "measure": block.measure.replace("_", " "),
        "rows": rows,
        "pairs": len(every),
        "unseparated": [c for c in every if not c.separated],
        "show": lambda value: summary.signed(value, block.unit),
        "bounds": lambda interval: stats.bounds(interval, block.unit),
    }


def verdict(comparison: Comparison) -> str:
    """better, worse or not separated; after Holm's correction over the task. Of seeds that all say the same, that."""
    interval = comparison.interval
    if not comparison.separated and interval.n > 1 and not interval.bounded and interval.mean:
        return f"{'better' if interval.mean > 0 else 'worse'} by the same in all {interval.n} seeds; not separated"
    if not comparison.separated:
        return "not separated"
    return "better" if comparison.interval.mean > 0 else "worse"


# --------------------------------------------------------------------------------------------- settings and provenance


def _cell_rows(
    wide: pandas.DataFrame, records: dict[str, Any], labels: dict[str, str], environment_of: dict[str, str]
) -> list[dict[str, Any]]:
    rows = []
    for cell in wide.sort_values(["profile", "task", "reward", "variant", "seed"]).to_dict("records"):
        record = records.get(cell["folder"])
        if record is None:
            continue
        rows.append(
            {
                "record": record,
                "label": labels[cell["folder"]],
                "settings": cell["settings_key"],
                "headline": "-" if record.headline is None else summary.shown(record.headline, record.unit),
                "total": summary.seconds(record.seconds.get("total", math.nan)),
                "spent": [
                    Cell(summary.seconds(one.seconds), _sort(one.seconds), gather.spent_words(one))
                    for one in gather.spent(record)
                ],
                "environment": environment_of.get(cell["folder"], "-"),
                "rerun": gather.rerun(record),
            }
        )
    return rows


def _settings(wide: pandas.DataFrame, records: dict[str, Any], labels: dict[str, str]) -> list[dict[str, Any]]:
    """Every different set of settings once, with the assets it read."""
    found = {}
    for cell in wide.sort_values(["profile", "task", "reward", "variant"]).to_dict("records"):
        key = (cell["profile"], cell["task"], cell["reward"], cell["variant"], cell["settings_key"])
        record = records.get(cell["folder"])
        if record is not None and record.settings and key not in found:
            name = f"{cell['task']} ({cell['profile']}), {labels[cell['folder']]}"
            found[key] = {
                "key": cell["settings_key"],
                "name": name,
                "settings": gather.flat(record.settings),
                "given": gather.flat(record.given) if record.given else {},
                "assets": record.assets,
            }
    return list(found.values())


def _write_data(
    wide: pandas.DataFrame,
    long: pandas.DataFrame,
    compared: list[tuple[Block, list[Comparison], list[Comparison]]],
    runs: Path,
    out: Path,
) -> None:
    # Where results lay on the machine that made the report is nobody's business; where in the results is.
    relative = [str(Path(folder).relative_to(runs)) for folder in wide["folder"]]
    frames = {"wide": wide.assign(folder=relative), "long": long, "comparisons": comparison_frame(compared)}
    for name, frame in frames.items():
        write_atomic(out / f"{name}.csv", csv_text(frame))


def comparison_frame(compared: list[tuple[Block, list[Comparison], list[Comparison]]]) -> pandas.DataFrame:
    """Every pair of every task, one a row."""
    import pandas

    rows = [
        {
            "profile": block.profile,
            "task": block.task,
            "measure": block.measure,
            "unit": block.unit,
            "name": c.name,
            "reference": c.reference,
            "seeds": " ".join(map(str, c.seeds)),
            "mean_difference": c.interval.mean,
            "low": c.interval.low,
            "high": c.interval.high,
            "method": c.interval.method,
            "p": c.interval.p,
            "adjusted_p": c.adjusted_p,
            "separated": c.separated,
        }
        for block, _, every in compared
        for c in every
    ]
    return pandas.DataFrame(rows)
