"""The tasks' figures (the paper's among them) and the learning curves, as data first: what is drawn is a `Figure`, and
who draws it is another matter (`svg.py` for the page, `save` here for files).

Lines are medians over seeds, bands reach from the lowest to the highest seed. Only finished cells are drawn: a median
over cells that stop at different steps would jump where they stop.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.contracts import HarnessError, TaskFigure
from reports import style, summary
from reports.summary import Block

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas

Style = str | Path | Mapping[str, Any]
"""A matplotlib style: a name, a style sheet's path, or settings (rcParams)."""
MOST_POINTS = 60
"""Points of one line; longer training is drawn at evenly spaced steps, first and last included."""

LARGEST = 1e300
"""What is further from zero is drawn there: the ends of an axis must not overflow when subtracted."""
SMALLEST = 1e-300
"""What is nearer to zero is drawn as zero: a tenth of it is hardly a number of double precision any more."""
FLAT = 1e-6
"""Of the values themselves, a variation that is no more than rounding: float32 has seven digits."""


@dataclass(frozen=True)
class Series:
    """One line. Arrays are float64 (points,), x ascending."""

    name: str
    slot: int
    """Colour and marker, an index into style.*_SERIES and style.MARKERS."""
    dash: int
    x: np.ndarray
    y: np.ndarray
    """Median over seeds."""
    low: np.ndarray
    high: np.ndarray
    """Lowest and highest seed."""
    seeds: int

    @property
    def first(self) -> float:
        """The first value that is there; NaN if none is."""
        return next(iter(self.y[np.isfinite(self.y)]), math.nan)

    @property
    def last(self) -> float:
        """The last value that is there; NaN if none is."""
        return next(iter(self.y[np.isfinite(self.y)][::-1]), math.nan)


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]

    @property
    def alt(self) -> str:
        """What the panel shows, in words and numbers."""
        ends = (
            f"{line.name} from {summary.number(line.first, 3)} to {summary.number(line.last, 3)}"
            for line in self.series
        )
        return f"{self.title}: {self.y_label} over {self.x_label}. {'; '.join(ends)}."


@dataclass(frozen=True)
class Figure:
    """Panels with one legend."""

    key: str
    """A file name's worth of identity: letters, digits, - and _."""
    title: str
    caption: str
    panels: tuple[Panel, ...]

    @property
    def legend(self) -> list[Series]:
        """One series of each name, in order of appearance."""
        return list({line.name: line for panel in self.panels for line in panel.series}.values())

    def limits(self, panel: Panel) -> tuple[float, float] | None:
        """Lowest and highest value over all panels of the same fraction, which share a y axis; None: not a fraction."""
        lines = [line for each in self.panels if each.y_label == panel.y_label for line in each.series]
        if not lines or not panel.y_label.endswith("[fraction]"):
            return None
        return finite_range([side for line in lines for side in (line.low, line.high)])


def finite_range(arrays: Sequence[np.ndarray]) -> tuple[float, float]:
    """Lowest and highest finite value, at most `LARGEST` from zero; zeros where there is none."""
    values = np.concatenate([np.zeros(0), *arrays])
    finite = np.clip(values[np.isfinite(values)], -LARGEST, LARGEST)
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def widened(low: float, high: float) -> tuple[float, float]:
    """The range as an axis shows it: what varies by no more than rounding is flat, in the middle of a wider one."""
    low, high = (min(max(bound, -LARGEST), LARGEST) for bound in (low, high))
    size = max(abs(low), abs(high))
    if size < SMALLEST:
        return -1.0, 1.0
    return (low - 0.1 * size, high + 0.1 * size) if high - low <= FLAT * size else (low, high)


# ------------------------------------------------------------------------------------------------------------ the data


@dataclass(frozen=True)
class Curves:
    """The long table, reduced over seeds once for all figures."""

    frame: pandas.DataFrame
    """Columns profile, task, label, reward, variant, rollouts (in a GRPO step), phase, measure, unit, step, median,
    min, max, seeds."""
    slots: Mapping[str, int]
    """Reward -> colour, the same in every figure."""
    dashes: Mapping[str, int]
    """Variant (`Row.kind`) -> dash where there are several; empty where there is one: the dash goes with the colour."""


def reduce(wide: pandas.DataFrame, long: pandas.DataFrame, blocks: Sequence[Block] | None = None) -> Curves:
    """Median, lowest and highest over seeds of every measure at every step of the finished cells.

    `blocks` are `summary.blocks(wide)`, made here if not at hand.
    """
    import pandas

    rewards = sorted(wide["reward"].unique()) if len(wide) else []
    cells = summary.prepared(wide)
    kinds = (
        [", ".join(filter(None, pair)) for pair in zip(cells["variant"], cells["differs"], strict=True)]
        if len(wide)
        else []
    )
    variants = sorted(set(kinds), key=natural)
    slots = {reward: place % style.SLOTS for place, reward in enumerate(rewards)}
    dashes = {variant: place % style.SLOTS for place, variant in enumerate(variants)} if len(variants) > 1 else {}
    keys = ["profile", "task", "reward", "variant", "seed", "identity"]
    columns = ["profile", "task", "label", "reward", "variant", "rollouts", "phase", "measure", "unit", "step"]
    if wide.empty or long.empty:
        return Curves(pandas.DataFrame(columns=[*columns, "median", "min", "max", "seeds"]), slots, dashes)
    labels = {
        (block.profile, block.task, row.reward, row.variant, row.settings_key): row.label
        for block in (summary.blocks(wide) if blocks is None else blocks)
        for row in block.rows
    }
    cells = cells.assign(kind=kinds)
    cells = cells[cells["status"] == "done"].drop_duplicates(keys)
    named = cells[keys].assign(
        label=[
            labels[key]
            for key in zip(
                *(cells[name] for name in ("profile", "task", "reward", "variant", "settings_key")), strict=True
            )
        ],
        rollouts=cells["rollouts"].clip(lower=1) / cells["steps_done"].clip(lower=1),
        kind=cells["kind"],
    )
    filled = long.assign(variant=long["variant"].fillna(""), unit=long["unit"].fillna(""))
    rows = filled.drop_duplicates([*keys, "phase", "measure", "step"]).merge(named, on=keys)
    rows["variant"] = rows["kind"]
    reduced = rows[np.isfinite(rows["value"])].groupby(columns, sort=True)["value"]
    return Curves(
        reduced.agg(["median", "min", "max", "count"]).rename(columns={"count": "seeds"}).reset_index(), slots, dashes
    )


def natural(text: str) -> list[tuple[int, float, str]]:
    """Sort key that puts T=8 before T=96."""
    parts = re.split(r"(\d+)", text)
    return [(0, float(part), "") if part.isdigit() else (1, 0.0, part) for part in parts if part]


def panel(curves: Curves, profile: str, task: str, measure: str, phase: str = "validation") -> Panel | None:
    """One measure of one task, a line a reward; None if nothing was measured."""
    frame = curves.frame
    part = frame[(frame["profile"] == profile) & (frame["task"] == task)]
    return _panel(curves, part[(part["measure"] == measure) & (part["phase"] == phase)], task)


def of_block(curves: Curves, block: Block) -> pandas.DataFrame:
    """The curves of a block's rows."""
    frame, labels = curves.frame, {row.label for row in block.rows}
    return frame[(frame["profile"] == block.profile) & (frame["task"] == block.task) & frame["label"].isin(labels)]


def headline(curves: Curves, block: Block, *, steps: bool = False) -> Panel | None:
    """The headline of a block's rows on held-out prompts; None if nothing was measured."""
    part = of_block(curves, block)
    part = part[(part["measure"] == block.measure) & (part["phase"] == "validation")]
    title = f"{block.task}, {block.measured}" if block.measured else block.task
    return _panel(curves, part, title, steps=steps)


def _panel(curves: Curves, part: pandas.DataFrame, title: str = "", *, steps: bool = False) -> Panel | None:
    """`title` defaults to the measure. Where a step of one line holds more rollouts than one of another (inner steps as
    an axis), x counts rollouts, unless `steps` are wanted."""
    if part.empty:
        return None
    lines, x_label = [], "GRPO step"
    if part["rollouts"].nunique() > 1 and not steps:
        part, x_label = part.assign(step=part["step"] * part["rollouts"]), "rollouts trained on"
    for (label, reward, variant), points in part.groupby(["label", "reward", "variant"], sort=False):
        slot = curves.slots[reward]
        dash = curves.dashes[variant] if curves.dashes else slot
        lines.append(_series(str(label), slot, dash, points))
    measure, unit = str(part["measure"].iloc[0]), str(part["unit"].iloc[0])
    y_label = measure.replace("_", " ") + (f" [{unit}]" if unit else "")
    return Panel(title or y_label, x_label, y_label, tuple(sorted(lines, key=lambda line: natural(line.name))))


def _series(name: str, slot: int, dash: int, points: pandas.DataFrame) -> Series:
    points = points.sort_values("step")
    if len(points) > MOST_POINTS:
        points = points.iloc[np.unique(np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int))]
    x, y, low, high = (points[name].to_numpy(dtype=float) for name in ("step", "median", "min", "max"))
    return Series(name, slot, dash, x, y, low, high, int(points["seeds"].max()))


# --------------------------------------------------------------------------------------------------------- the figures


def learning_curves(curves: Curves) -> list[Figure]:
    """One figure a task (and profile) and phase, a panel a measure."""
    found = []
    groups = sorted(
        curves.frame.groupby(["profile", "task", "phase"]), key=lambda group: (*group[0][:2], group[0][2] == "train")
    )
    for (profile, task, phase), part in groups:
        panels = [_panel(curves, rows) for _, rows in part.groupby("measure", sort=True)]
        where = "on held-out prompts" if phase == "validation" else "during training"
        found.append(
            Figure(
                key=file_key("curves", str(profile), str(task), str(phase)),
                title=f"{task}, {phase}",
                caption=f"Every measure of {task} ({profile}) {where}: median over seeds, band from lowest to highest.",
                panels=tuple(panel for panel in panels if panel),
            )
        )
    return found


def task_figures(curves: Curves) -> list[Figure]:
    """The figures that tasks declare (the paper's Figures 2, 4 and 5 are those of the built-in ones), as far as their
    measures are there; one set a profile."""
    found = []
    for profile in sorted(curves.frame["profile"].unique()):
        sharing: dict[TaskFigure, list[str]] = {}
        for task in sorted(curves.frame.loc[curves.frame["profile"] == profile, "task"].unique()):
            if declared := summary.declarations(task).figure:
                sharing.setdefault(declared, []).append(task)
        for declared in sorted(sharing, key=lambda figure: natural(figure.key)):
            panels = _panels_by_measure if declared.by == "measure" else _panels_by_reward
            if drawn := panels(curves, profile, sharing[declared], declared):
                key, title = file_key(declared.key, profile), f"{declared.title}, {profile}"
                found.append(Figure(key, title, declared.caption, drawn))
    return found


def _panels_by_measure(curves: Curves, profile: str, tasks: Sequence[str], declared: TaskFigure) -> tuple[Panel, ...]:
    panels = (panel(curves, profile, task, measure) for measure in declared.measures for task in tasks)
    return tuple(each for each in panels if each)


def _panels_by_reward(curves: Curves, profile: str, tasks: Sequence[str], declared: TaskFigure) -> tuple[Panel, ...]:
    frame = curves.frame
    frame = frame[(frame["profile"] == profile) & frame["task"].isin(tasks) & (frame["phase"] == "validation")]
    panels = []
    for (task, label), rows in frame[frame["measure"].isin(declared.measures)].groupby(["task", "label"], sort=True):
        there = [name for name in declared.measures if (rows["measure"] == name).any()]
        lines = [
            _series(name.replace("_", " "), place % style.SLOTS, place % style.SLOTS, rows[rows["measure"] == name])
            for place, name in enumerate(there)
        ]
        title = str(label) if len(tasks) == 1 else f"{task}, {label}"
        panels.append(Panel(title, "GRPO step", declared.y_label, tuple(lines)))
    return tuple(panels)


def headlines(blocks: Sequence[Block], curves: Curves) -> Figure | None:
    """Every task's headline over GRPO steps, a panel a task; None where no cell is finished."""
    panels = (headline(curves, block) for block in blocks)
    caption = "Each task's headline on held-out prompts: median over seeds, band from lowest to highest."
    there = tuple(each for each in panels if each)
    return Figure("headline", "Headlines", caption, there) if there else None


def available(wide: pandas.DataFrame, long: pandas.DataFrame) -> dict[str, Figure]:
    """Every figure that there is of these results, by its key."""
    if wide.empty:
        return {}
    blocks = summary.blocks(wide)
    curves = reduce(wide, long, blocks)
    found = [headlines(blocks, curves), wall_clock(blocks, curves), *task_figures(curves), *learning_curves(curves)]
    return {figure.key: figure for figure in found if figure and figure.panels}


def wall_clock(blocks: Sequence[Block], curves: Curves) -> Figure | None:
    """Headline against seconds of training (generation, reward and update; validation is not counted).

    x is the median over seeds of the seconds until that step, y the median of the headline there.
    """
    phases = [f"seconds_{phase}" for phase in ("generation", "reward", "update")]
    panels = []
    for block in blocks:
        built = headline(curves, block, steps=True)
        if built is None:
            continue
        part = of_block(curves, block)
        spent = part[(part["phase"] == "train") & part["measure"].isin(phases)]
        lines = []
        for line in built.series:
            own = spent[spent["label"] == line.name]
            if own.empty:
                continue
            per_step = own.groupby("step")["median"].sum().sort_index().cumsum()
            before = np.concatenate([[0.0], per_step.to_numpy(dtype=float)])
            x = before[np.searchsorted(per_step.index.to_numpy(dtype=float), line.x, side="right")]
            lines.append(Series(line.name, line.slot, line.dash, x, line.y, line.low, line.high, line.seeds))
        if lines:
            panels.append(Panel(built.title, "seconds of training", built.y_label, tuple(lines)))
    caption = "The headline against the time that generation, reward and update took (medians over seeds)."
    return Figure("wall-clock", "Reward against wall-clock", caption, tuple(panels)) if panels else None


def file_key(*parts: str) -> str:
    """Parts joined into a file name without anything a file system or a shell could mind."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", "-".join(parts))


# --------------------------------------------------------------------------------------------------------------- files


def save(figure: Figure, *paths: Path) -> None:
    """Draws a figure into files; each suffix says how (.svg, .png, .pdf)."""
    from matplotlib import rcParams

    with _styled(figure, ()):
        canvas = draw(figure)
        for path in paths:
            write(canvas, path, dpi=rcParams["savefig.dpi"])
            canvas.set_layout_engine("none")  # laid out once is enough


def drawn(
    figure: Figure, *, style: Style | Sequence[Style] = (), path: str | Path | None = None
) -> matplotlib.figure.Figure:
    """The figure in a reader's own style, also written to `path` where one is given. Raises HarnessError for a style
    that is not there and for a suffix that matplotlib cannot write."""
    from matplotlib import rcParams

    with _styled(figure, [style] if isinstance(style, str | Path | Mapping) else list(style)):
        canvas = draw(figure)
        if path is not None:
            kinds = canvas.canvas.get_supported_filetypes()
            if Path(path).suffix.lstrip(".") not in kinds:
                raise HarnessError(
                    f"No figure can be written to {path}; its name must end in one of .{', .'.join(kinds)}."
                )
            write(canvas, Path(path), dpi=rcParams["savefig.dpi"])
    return canvas


def house_style() -> dict[str, object]:
    """The settings (rcParams) that figures of reports are drawn with, and that a reader's style goes over."""
    from cycler import cycler

    looks = cycler(
        color=style.LIGHT_SERIES, marker=style.MARKERS, linestyle=[(0, d) if d else "-" for d in style.DASHES]
    )
    return {
        "axes.prop_cycle": looks,
        "axes.titlesize": 9,
        "axes.labelsize": 8,
        "xtick.labelsize": 7,
        "ytick.labelsize": 7,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "lines.linewidth": 1.4,
        "lines.markersize": 4,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "savefig.dpi": 150,
        "pdf.fonttype": 42,  # letters stay letters, as venues ask for
    }


@contextmanager
def _styled(figure: Figure, styles: Sequence[Style]) -> Iterator[None]:
    """The house's style with others over it."""
    from matplotlib import style as matplotlib_style

    # Names from outside packages may hold dollars, which are not mathematics here. No date and a fixed salt: the same
    # results make the same file.
    fixed = {"text.parse_math": False, "svg.hashsalt": figure.key}
    try:
        chosen = matplotlib_style.context(
            [house_style(), *(dict(s) if isinstance(s, Mapping) else s for s in styles), fixed]
        )
        chosen.__enter__()
    except (OSError, KeyError, ValueError, TypeError) as error:
        first = " ".join(str(error).split())[:200]
        raise HarnessError(
            f"The style cannot be used ({first}); name a style sheet of matplotlib's or a file."
        ) from error
    try:
        yield
    finally:
        chosen.__exit__(None, None, None)


def draw(figure: Figure) -> matplotlib.figure.Figure:
    """The figure by the present rcParams: colours, markers and dashes of the series are those of the property cycle,
    and the size, where `figure.figsize` is not matplotlib's own, is that of the whole."""
    from matplotlib import rcParams, rcParamsDefault
    from matplotlib.lines import Line2D

    across = min(4, len(figure.panels))
    down = -(-len(figure.panels) // across)
    names = min(
        4, 2 * across, len(figure.legend) or 1
    )  # in a row of the legend, so that it is no wider than the panels
    rows = -(-len(figure.legend) // names)
    size: Sequence[float] = rcParams["figure.figsize"]
    if list(size) == list(rcParamsDefault["figure.figsize"]):
        size = (3.6 * across, 2.7 * down + max(0.5, 0.1 + 0.2 * rows))
    canvas = _canvas()(figsize=size, layout="constrained")
    axes = canvas.subplots(down, across, squeeze=False)
    for place, axis in enumerate(axes.flat):
        if place >= len(figure.panels):
            axis.set_axis_off()
            continue
        drawn = figure.panels[place]
        axis.set_title(drawn.title)
        axis.set_xlabel(drawn.x_label)
        axis.set_ylabel(drawn.y_label)
        for line in drawn.series:
            look = _look(line)
            y, low, high = (np.clip(side, -LARGEST, LARGEST) for side in (line.y, line.low, line.high))
            axis.fill_between(line.x, low, high, color=look["color"], alpha=0.15, lw=0)
            axis.plot(line.x, y, **look, markevery=max(1, len(line.x) // 8))
        if limits := figure.limits(drawn):
            room = 0.05 * max(limits[1] - limits[0], 0.1)
            axis.set_ylim(limits[0] - room, limits[1] + room)
        else:
            own = finite_range([side for line in drawn.series for side in (line.low, line.high)])
            if widened(*own) != own:
                axis.set_ylim(*widened(*own))
    handles = [Line2D([], [], label=line.name, **_look(line)) for line in figure.legend]
    canvas.legend(handles=handles, loc="outside lower center", ncols=names)
    return canvas


@cache
def _canvas() -> type[matplotlib.figure.Figure]:
    """Matplotlib's figure, without pyplot, that a notebook shows nevertheless."""
    import io

    from matplotlib.figure import Figure as Canvas

    class Drawn(Canvas):
        def _repr_png_(self) -> bytes:
            buffer = io.BytesIO()
            self.savefig(buffer, dpi=100, format="png")
            return buffer.getvalue()

    return Drawn


def write(canvas: matplotlib.figure.Figure, path: Path, *, dpi: float | str = 150) -> None:
    """A drawn canvas as a file whose suffix says how. A PNG gets a palette of 256 colours: lines and letters look the
    same in a third of the bytes, and figures are kept beside studies."""
    import io

    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".png":
        dated = {".svg": "Date", ".pdf": "CreationDate"}.get(path.suffix)
        canvas.savefig(path, dpi=dpi, metadata={dated: None} if dated else None)
        return
    from PIL import Image

    buffer = io.BytesIO()
    canvas.savefig(buffer, dpi=dpi, format="png")
    with Image.open(buffer) as image:
        image.convert("RGB").quantize(256).save(path, optimize=True)


def save_pictures(cells: Sequence[tuple[str, Mapping[str, bytes]]], *paths: Path) -> None:
    """The paper's Figure 3: a row a cell, a column a picture. A cell is (name, {"target": PNG, ...})."""
    import io

    from matplotlib.figure import Figure as Canvas
    from matplotlib.image import imread

    kinds = list(dict.fromkeys(kind for _, pictures in cells for kind in pictures))
    canvas = Canvas(figsize=(1.5 * len(kinds) + 1.4, 1.5 * len(cells) + 0.2), layout="constrained")
    axes = canvas.subplots(len(cells), len(kinds), squeeze=False)
    for kind, axis in zip(kinds, axes[0], strict=True):
        axis.set_title(kind, fontsize=9)
    for line, (name, pictures) in zip(axes, cells, strict=True):
        for axis, kind in zip(line, kinds, strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            if kind in pictures:
                axis.imshow(imread(io.BytesIO(pictures[kind]), format="png"), cmap="gray", interpolation="nearest")
        line[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center", parse_math=False)
    for path in paths:
        write(canvas, path, dpi=120)


def _look(line: Series) -> dict[str, object]:
    """By the present property cycle; what a style's cycle leaves out is the house's."""
    from matplotlib import rcParams

    own = rcParams["axes.prop_cycle"].by_key()
    pick = lambda values, place: values[place % len(values)]
    dash = pick(style.DASHES, line.dash)
    return {
        "color": pick(own.get("color", style.LIGHT_SERIES), line.slot),
        "marker": pick(own.get("marker", style.MARKERS), line.slot),
        "linestyle": pick(own["linestyle"], line.dash) if "linestyle" in own else (0, dash) if dash else "-",
    }
