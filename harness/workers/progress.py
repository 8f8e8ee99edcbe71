"""What a user sees while a grid runs: live bars in a terminal and, with ipywidgets, in a notebook, one readable line an
event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from harness.planning.cells import Cell
from harness.workers.grid import usual_hours

BARS_PER_SECOND = 1
"""How often the bars are drawn: rich's ten times take two per cent of a core from the cells."""


class TimeLeft:
    """How long the grid will still take: by the plan before the first step, then by how fast the plan's work is done.

    The plan's seconds of a cell are those of a usual device (harness/planning/cost.py), until the cell has loaded and
    says what it takes at the rates measured there.
    """

    def __init__(self, cells: Sequence[Cell], slots: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.usual = {cell.name: usual_hours(cell) * 3600 for cell in cells if not cell.unsupported}
        self.measured: dict[str, float] = {}
        self.done = dict.fromkeys(self.usual, 0.0)
        """Share of each cell's steps that this run has done or need not do."""
        self.slots, self.clock, self.begun = max(1, slots), clock, clock()
        self.worked = 0.0
        """Planned seconds of the steps that were done here."""

    def plan(self, cell: Cell, seconds: float) -> None:
        """The cell has loaded; by its plan it takes so long."""
        self.measured[cell.name] = seconds

    def step(self, cell: Cell, share: float) -> None:
        """The cell has done this share of its steps."""
        if cell.name in self.done:
            self.worked += self._seconds(cell.name) * (share - self.done[cell.name])
            self.done[cell.name] = share

    def ended(self, cell: Cell) -> None:
        """The cell is kept, finished or has failed: nothing of it is left."""
        if cell.name in self.done:
            self.done[cell.name] = 1.0

    def left(self) -> float | None:
        """Seconds; None where the plan knows nothing of what is left."""
        rest = [self._seconds(name) * (1 - share) for name, share in self.done.items() if share < 1]
        if not rest or not all(rest):
            return None
        planned = max(sum(rest) / self.slots, max(rest))
        elapsed = (self.clock() - self.begun) * min(self.slots, len(self.done))
        return planned * elapsed / self.worked if self.worked > 0 else planned

    def _seconds(self, name: str) -> float:
        if name in self.measured:
            return self.measured[name]
        usual = sum(self.usual[other] for other in self.measured)
        return self.usual[name] * (sum(self.measured.values()) / usual if usual else 1.0)


def about(seconds: float) -> str:
    """Seconds as precisely as a plan knows them."""
    if seconds < 90:
        return f"{max(5, 5 * round(seconds / 5))} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Progress:
    """Observer of `run_grid`: `progress(cell, event)`; a context manager around it."""

    def __init__(self, cells: Sequence[Cell], console: Console, slots: int = 1) -> None:
        self.console, self.count = console, len(cells)
        self.numbers: dict[str, int] = {}
        """Cell -> its number, in the order in which they start or turn out to be kept."""
        self.time, self.planned = TimeLeft(cells, slots), False
        self.bars: RichProgress | None = None
        self.tasks: dict[str, Any] = {}
        self.started: dict[str, float] = {}

    def __enter__(self) -> Progress:
        if self.console.is_terminal or (self.console.is_jupyter and find_spec("ipywidgets")):
            self.bars = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[headline]}"),
                console=self.console,
                refresh_per_second=BARS_PER_SECOND,
            )
            self.bars.start()
            self.overall = self.bars.add_task("[bold]cells", total=self.count, headline="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    def __call__(self, cell: Cell, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "plan":
            self._plan(cell, event["seconds"])
        elif kind == "start":
            self.started[cell.name] = time.monotonic()
            self.numbers.setdefault(cell.name, len(self.numbers) + 1)
            if self.bars:
                self.tasks[cell.name] = self.bars.add_task(
                    escape(cell.name), total=cell.settings.grpo.steps, headline="loading"
                )
            else:
                self._line(cell, "starts")
        elif kind == "end":
            self._end(cell, event)
        elif kind == "again":
            self._line(cell, f"{event['reason']}; another one goes on from the last checkpoint")
        elif kind == "elsewhere":
            if self.bars and cell.name in self.tasks:
                self.bars.remove_task(self.tasks.pop(cell.name))
            self._line(cell, "runs in another process; its turn comes last")
        else:
            self._step(cell, event)

    def _plan(self, cell: Cell, seconds: float) -> None:
        """Once, before the first step, what everything will take."""
        self.time.plan(cell, seconds)
        left = self.time.left()
        if not self.planned and left is not None:
            self.planned = True
            text = f"about {about(left)} for everything by the plan; expect a factor of two either way"
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _step(self, cell: Cell, event: dict[str, Any]) -> None:
        kind = event["event"]
        self.time.step(cell, event["step"] / event["of"])
        left = self.time.left() if event["step"] else None
        if self.bars:
            headline = _headline(cell, event["headline"])
            self.bars.update(self.tasks[cell.name], completed=event["step"], headline=headline)
        elif kind == "validation":
            rest = f" (about {about(left)} left)" if left is not None else ""
            self._line(cell, f"step {event['step']}/{event['of']}: {_headline(cell, event['headline'])}{rest}")

    def _end(self, cell: Cell, event: dict[str, Any]) -> None:
        record = event["record"]
        self.time.ended(cell)
        took = f" in {time.monotonic() - self.started[cell.name]:.0f} s" if cell.name in self.started else ""
        text = {
            "done": f"{'kept, ' if event.get('kept') else ''}done{took}: {_headline(cell, record.headline)}",
            "unsupported": f"unsupported: {record.reason}",
        }.get(record.status, f"{'kept, ' if event.get('kept') else ''}{record.status}: {record.reason}")
        if self.bars:
            if cell.name in self.tasks:
                self.bars.remove_task(self.tasks.pop(cell.name))
            self.bars.advance(self.overall)
        self._line(cell, text)

    def _line(self, cell: Cell, text: str) -> None:
        clock = time.strftime("%H:%M:%S")
        number = self.numbers.setdefault(cell.name, len(self.numbers) + 1)
        self.console.print(
            f"{clock} [{number}/{self.count}] {cell.name}: {text}", markup=False, highlight=False, soft_wrap=True
        )


class TokenProgress:
    """Shows how a data set grows (the events of harness/generated/dataset.py); a context manager around it."""

    SECONDS = 30
    """Between lines where there is no bar."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console, self.clock = console, clock
        self.begun = self.told = clock()
        self.bar: RichProgress | None = None

    def __enter__(self) -> TokenProgress:
        if self.console.is_terminal or (self.console.is_jupyter and find_spec("ipywidgets")):
            columns = [TextColumn("tokens"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
            rate = TextColumn("{task.fields[rate]}")
            self.bar = RichProgress(
                *columns, TimeRemainingColumn(), rate, console=self.console, refresh_per_second=BARS_PER_SECOND
            )
            self.bar.start()
            self.task = self.bar.add_task("", total=None, rate="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        now = self.clock()
        rate = f"{event['drawn'] / max(now - self.begun, 1e-3):,.0f} tokens/s" if event["drawn"] else ""
        if self.bar:
            self.bar.update(self.task, completed=min(event["tokens"], event["of"]), total=event["of"], rate=rate)
        elif now - self.told >= self.SECONDS or event["tokens"] >= event["of"]:
            self.told = now
            told = f"{event['tokens']:,} of {event['of']:,} tokens in {event['rows']:,} rows"
            line = f"{time.strftime('%H:%M:%S')} {told}{f', {rate}' if rate else ''}"
            self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def _headline(cell: Cell, value: float | None) -> str:
    from harness.registry import TASKS

    name = TASKS.get(cell.task).factory.headline.name
    return f"{name} {value:.3g}" if value is not None else ""
