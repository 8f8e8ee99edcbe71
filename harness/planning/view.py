"""A plan printed: one row a cell, the phases of the dearest cell of each task, and what must be downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.contracts import HarnessError
from harness.machine.devices import Device, device
from harness.planning.cells import CellPlan
from harness.planning.cost import CellEstimate, downloads, estimate, tokens_note
from harness.planning.policy import Policy, kept
from harness.store.record import CellStore


def show(
    plans: Sequence[CellPlan], console: Console, on: str = "", runs: Path | None = None, policy: Policy = "continue"
) -> None:
    """Prints the plan for the device `on` (a name of DATASHEETS; "": the one at hand), and which cells `runs` holds
    already. Loads and writes nothing."""
    place = device(on)
    staying = {id(plan) for plan in plans if runs is not None and _is_kept(plan, runs, policy)}
    found = {id(plan): _estimate(plan, place) for plan in plans if not plan.unsupported}
    console.print(_cells(plans, found, staying))
    ready = {plan.task: found[id(plan)] for plan in plans if isinstance(found.get(id(plan)), CellEstimate)}
    for plan in plans:
        one = found.get(id(plan))
        if isinstance(one, CellEstimate) and one.hours > ready[plan.task].hours:
            ready[plan.task] = one
    for one in ready.values():
        dearest = next(plan for plan in plans if found.get(id(plan)) is one)
        console.print(_phases(dearest, one, place))
    if ready:
        total = sum(one.hours for key, one in found.items() if isinstance(one, CellEstimate) and key not in staying)
        console.print(
            f"Together {_hours(total)} on {place.name}, one cell at a time; {tokens_note(plans[0].settings)}. "
            "An estimate: expect a factor of two either way.",
            highlight=False,
        )
    console.print(_downloads(plans))


def _estimate(plan: CellPlan, place: Device) -> CellEstimate | str:
    try:
        return estimate(plan.settings, plan.task, plan.reward, place)
    except HarnessError as error:
        return str(error)


def _is_kept(plan: CellPlan, runs: Path, policy: Policy) -> bool:
    models, data = plan.references()
    if not plan.unsupported and not all(item.here for item in downloads([*models, *data])):
        return False  # its identity needs its assets, and a plan downloads nothing
    try:
        return kept(CellStore.of(runs, plan.record()), policy) is not None
    except HarnessError:
        return False


def _cells(plans: Sequence[CellPlan], found: dict[int, CellEstimate | str], staying: set[int]) -> Table:
    table = Table(title=f"{len(plans)} cells", title_justify="left")
    for name in ("cell", "steps", "rollouts", "tokens", "FLOP", "memory", "a step", "hours", "what happens"):
        table.add_column(name, justify="left" if name in ("cell", "what happens") else "right")
    for plan in plans:
        grpo, one = plan.settings.grpo, found.get(id(plan))
        rollouts = str(grpo.steps * grpo.rollouts_per_step)
        if isinstance(one, CellEstimate):
            fate = "kept" if id(plan) in staying else "run"
            table.add_row(
                plan.name,
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
        note = f"unsupported: {plan.unsupported}" if plan.unsupported else f"run ({one})"
        table.add_row(plan.name, str(grpo.steps), rollouts, "", "", "", "", "", escape(note))
    return table


def _phases(plan: CellPlan, one: CellEstimate, place: Device) -> Table:
    title = f"{plan.name} on {place.name}"
    table = Table("phase", title=escape(title), title_justify="left")
    for name in ("FLOP", f"memory, of {_gib(place.memory)}", "seconds"):
        table.add_column(name, justify="right")
    for phase in one.phases:
        fits = "" if phase.memory <= place.memory else "  too much"
        table.add_row(phase.name, _short(phase.flops), _gib(phase.memory) + fits, _seconds(phase.seconds))
    return table


def _downloads(plans: Sequence[CellPlan]) -> Table | str:
    refs = [ref for plan in plans if not plan.unsupported for part in plan.references() for ref in part]
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


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 600 else f"{value / 60:.0f} min"


def _hours(value: float) -> str:
    return f"{value:.1f} h" if value >= 1 else f"{value * 60:.1f} min"
