"""What a user sees while a grid runs: live bars in a terminal, one readable line an event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from harness.planning.cells import CellPlan


class Progress:
    """Observer of `run_grid`: `progress(plan, event)`; a context manager around it."""

    def __init__(self, plans: Sequence[CellPlan], console: Console) -> None:
        self.console, self.count, self.ended = console, len(plans), 0
        self.bars: RichProgress | None = None
        self.tasks: dict[str, Any] = {}
        self.started: dict[str, float] = {}

    def __enter__(self) -> Progress:
        if self.console.is_terminal:
            self.bars = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[headline]}"),
                console=self.console,
            )
            self.bars.start()
            self.overall = self.bars.add_task("[bold]cells", total=self.count, headline="")
        return self

    def __exit__(self, *_: object) -> None:
        if self.bars:
            self.bars.stop()

    def __call__(self, plan: CellPlan, event: dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "start":
            self.started[plan.name] = time.monotonic()
            if self.bars:
                self.tasks[plan.name] = self.bars.add_task(
                    escape(plan.name), total=plan.settings.grpo.steps, headline="loading"
                )
            else:
                self._line(plan, "starts")
        elif kind == "end":
            self._end(plan, event)
        elif kind == "elsewhere":
            if self.bars and plan.name in self.tasks:
                self.bars.remove_task(self.tasks.pop(plan.name))
            self._line(plan, "runs in another process; its turn comes last")
        elif self.bars:
            headline = _headline(plan, event["headline"])
            self.bars.update(self.tasks[plan.name], completed=event["step"], headline=headline)
        elif kind == "validation":
            self._line(plan, f"step {event['step']}/{event['of']}: {_headline(plan, event['headline'])}")

    def _end(self, plan: CellPlan, event: dict[str, Any]) -> None:
        record = event["record"]
        self.ended += 1
        took = f" in {time.monotonic() - self.started[plan.name]:.0f} s" if plan.name in self.started else ""
        text = {
            "done": f"{'kept, ' if event.get('kept') else ''}done{took}: {_headline(plan, record.headline)}",
            "unsupported": f"unsupported: {record.reason}",
        }.get(record.status, f"{'kept, ' if event.get('kept') else ''}{record.status}: {record.reason}")
        if self.bars:
            if plan.name in self.tasks:
                self.bars.remove_task(self.tasks.pop(plan.name))
            self.bars.advance(self.overall)
        self._line(plan, text)

    def _line(self, plan: CellPlan, text: str) -> None:
        clock = time.strftime("%H:%M:%S")
        self.console.print(
            f"{clock} [{self.ended}/{self.count}] {plan.name}: {text}", markup=False, highlight=False, soft_wrap=True
        )


def _headline(plan: CellPlan, value: float | None) -> str:
    from harness.registry import TASKS

    name = TASKS.get(plan.task).factory.headline.name
    return f"{name} {value:.3g}" if value is not None else ""
