"""What a user sees while a grid runs: live bars in a terminal and, with ipywidgets, in a notebook, one readable line an
event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from harness.planning.cells import Cell

BARS_PER_SECOND = 1
"""How often the bars are drawn: rich's ten times take two per cent of a core from the cells."""


class Progress:
    """Observer of `run_grid`: `progress(cell, event)`; a context manager around it."""

    def __init__(self, cells: Sequence[Cell], console: Console) -> None:
        self.console, self.count, self.ended = console, len(cells), 0
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
        if kind == "start":
            self.started[cell.name] = time.monotonic()
            if self.bars:
                self.tasks[cell.name] = self.bars.add_task(
                    escape(cell.name), total=cell.settings.grpo.steps, headline="loading"
                )
            else:
                self._line(cell, "starts")
        elif kind == "end":
            self._end(cell, event)
        elif kind == "elsewhere":
            if self.bars and cell.name in self.tasks:
                self.bars.remove_task(self.tasks.pop(cell.name))
            self._line(cell, "runs in another process; its turn comes last")
        elif self.bars:
            headline = _headline(cell, event["headline"])
            self.bars.update(self.tasks[cell.name], completed=event["step"], headline=headline)
        elif kind == "validation":
            self._line(cell, f"step {event['step']}/{event['of']}: {_headline(cell, event['headline'])}")

    def _end(self, cell: Cell, event: dict[str, Any]) -> None:
        record = event["record"]
        self.ended += 1
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
        self.console.print(
            f"{clock} [{self.ended}/{self.count}] {cell.name}: {text}", markup=False, highlight=False, soft_wrap=True
        )


def _headline(cell: Cell, value: float | None) -> str:
    from harness.registry import TASKS

    name = TASKS.get(cell.task).factory.headline.name
    return f"{name} {value:.3g}" if value is not None else ""
