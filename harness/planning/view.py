"""A plan printed: one row a cell, the phases of the dearest cell of each task, and what must be downloaded."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.contracts import HarnessError
from harness.machine.devices import Device, device
from harness.planning.cells import Cell
from harness.planning.cost import CellEstimate, downloads, estimate, gpu_advice, needs_gpu, tokens_note
from harness.planning.fetch import existing_parent
from harness.planning.policy import Policy, kept
from harness.store.record import CellStore


def show(
    cells: Sequence[Cell], console: Console, on: str = "", runs: Path | None = None, policy: Policy = "continue"
) -> None:
    """Prints the plan for the device `on` (a name of DATASHEETS; "": the one at hand), and which cells `runs` holds
    already. Loads and writes nothing."""
    place = device(on)
    staying = {id(cell) for cell in cells if runs is not None and is_kept(cell, runs, policy)}
    found = {id(cell): _estimate(cell, place) for cell in cells if not cell.unsupported}
    console.print(_cells(cells, found, staying))
    ready = {cell.task: found[id(cell)] for cell in cells if isinstance(found.get(id(cell)), CellEstimate)}
    for cell in cells:
        one = found.get(id(cell))
        if isinstance(one, CellEstimate) and one.hours > ready[cell.task].hours:
            ready[cell.task] = one
    for one in ready.values():
        dearest = next(cell for cell in cells if found.get(id(cell)) is one)
        console.print(_phases(dearest, one, place))
    if ready:
        total = sum(one.hours for key, one in found.items() if isinstance(one, CellEstimate) and key not in staying)
        console.print(
            f"Together {_hours(total)} on {place.name}, one cell at a time; {tokens_note(cells[0].settings)}. "
            "An estimate: expect a factor of two either way.",
            highlight=False,
        )
        running = [one for key, one in found.items() if isinstance(one, CellEstimate) and key not in staying]
        if running:
            console.print(_disk(running, runs), highlight=False, markup=False)
        if needs_gpu(ready.values(), place):
            able = [cell for cell in cells if isinstance(found.get(id(cell)), CellEstimate)]
            advice = gpu_advice((cell.settings, cell.task, cell.reward) for cell in able)
            console.print(
                f"More than this CPU can do: it {advice}. With --on h200 the plan is for one.", highlight=False
            )
    console.print(_downloads(cells))


def show_parts(parts: Mapping[str, Sequence[Cell]], console: Console, on: str, runs: Path) -> None:
    """Prints the hours of every part of a suite, in the order in which they would run."""
    table = Table(title="Parts, in their order", title_justify="left")
    for head in ("part", "cells", "hours, one cell at a time"):
        table.add_column(head, justify="left" if head == "part" else "right")
    for name, cells in parts.items():
        table.add_row(escape(name), str(len(cells)), _hours(part_hours(cells, runs, "continue", on)))
    console.print(table)


def part_hours(cells: Sequence[Cell], runs: Path, policy: Policy, on: str = "") -> float:
    """Hours of the cells that are not stored yet, one at a time on the device `on` ("": the one at hand); 0 of those
    that cannot be told."""
    place = device(on)
    needed = (_estimate(cell, place) for cell in cells if not cell.unsupported and not is_kept(cell, runs, policy))
    return sum(one.hours for one in needed if isinstance(one, CellEstimate))


def _estimate(cell: Cell, place: Device) -> CellEstimate | str:
    try:
        return estimate(cell.settings, cell.task, cell.reward, place)
    except HarnessError as error:
        return str(error)


def is_kept(cell: Cell, runs: Path, policy: Policy) -> bool:
    """Whether the cell will be kept, as far as can be told without downloads. A damaged record is not kept here."""
    models, data = cell.references()
    if not cell.unsupported and not all(item.here for item in downloads([*models, *data])):
        return False  # its identity needs its assets, and a plan downloads nothing
    try:
        return kept(CellStore.of(runs, cell.record()), policy) is not None
    except HarnessError:
        return False


def _cells(cells: Sequence[Cell], found: dict[int, CellEstimate | str], staying: set[int]) -> Table:
    table = Table(title=f"{len(cells)} cells", title_justify="left")
    for name in ("cell", "steps", "rollouts", "tokens", "FLOP", "memory", "a step", "hours", "what happens"):
        table.add_column(name, justify="left" if name in ("cell", "what happens") else "right")
    for cell in cells:
        grpo, one = cell.settings.grpo, found.get(id(cell))
        rollouts = str(grpo.steps * grpo.rollouts_per_step)
        if isinstance(one, CellEstimate):
            fate = "kept" if id(cell) in staying else "run"
            table.add_row(
                cell.name,
                str(one.steps),
                rollouts,
                _short(one.tokens),
                _short(one.flops),
                _gib(one.memory),
                _seconds(one.step_seconds),
                _hours(one.hours),
                fate,
            )
            continue
        note = f"unsupported: {cell.unsupported}" if cell.unsupported else f"run ({one})"
        table.add_row(cell.name, str(grpo.steps), rollouts, "", "", "", "", "", escape(note))
    return table


def _phases(cell: Cell, one: CellEstimate, place: Device) -> Table:
    title = f"{cell.name} on {place.name}"
    table = Table("phase", title=escape(title), title_justify="left")
    for name in ("FLOP", f"memory, of {_gib(place.memory)}", "seconds"):
        table.add_column(name, justify="right")
    for phase in one.phases:
        fits = "" if phase.memory <= place.memory else "  too much"
        table.add_row(phase.name, _short(phase.flops), _gib(phase.memory) + fits, _seconds(phase.seconds))
    return table


def _disk(running: Sequence[CellEstimate], runs: Path | None) -> str:
    """What the cells that run leave on the disk."""
    kept, beside = sum(one.disk for one in running), max(one.checkpoints for one in running)
    free = shutil.disk_usage(existing_parent((runs or Path()).absolute())).free
    advice = "" if kept + beside <= free else ": too little; make room, or set keep.generator=none"
    return (
        f"On the disk: {_bytes(kept)} for the generators that are kept (keep.generator), up to {_bytes(beside)} for "
        f"checkpoints while a cell runs; {_bytes(free)} are free{advice}."
    )


def _downloads(cells: Sequence[Cell]) -> Table | str:
    refs = [ref for cell in cells if not cell.unsupported for part in cell.references() for ref in part]
    wanted = downloads(refs)
    if not wanted:
        return "Nothing to download: all assets are embedded."
    table = Table(title="Assets", title_justify="left")
    for name in ("asset", "size", "here", "licence", "gate"):
        table.add_column(name, overflow="fold", no_wrap=name in ("size", "here"))
    for item in wanted:
        size = f"{item.size / 1e9:.2f} GB" if item.size else "?"
        table.add_row(
            escape(_brief(item.ref)), size, "yes" if item.here else "no", escape(item.licence), item.gate or "none"
        )
    return table


def _brief(ref: str) -> str:
    """A reference with its commit cut to seven digits."""
    name, at, revision = ref.partition("@")
    return name + at + (revision[:7] if len(revision) == 40 else revision)


def _short(number: float) -> str:
    return f"{number:.2g}" if number else "0"


def _gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 600 else f"{value / 60:.0f} min"


def _hours(value: float) -> str:
    return f"{value:.1f} h" if value >= 1 else f"{value * 60:.1f} min"
