"""The command `list`: what there is, and which settings a cell gets from where. Added to the application by
harness.cli.app."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.contracts import HarnessError
from harness.registry import REWARDS, TASKS, task_of
from harness.settings.options import check_options
from harness.settings.profiles import (
    Profile,
    load_profile,
    origins,
    parse_assignment,
    profile_names,
    resolve,
)
from harness.settings.schema import known_keys


def add_to(app: typer.Typer, console: Console) -> None:
    """Registers the command."""

    @app.command("list")
    def list_(
        settings: Annotated[
            bool, typer.Option("--settings", help="Every setting that --set takes: its value, and where that is from.")
        ] = False,
        profile: Annotated[str, typer.Option(help="With --settings: a profile's name, YAML file or folder.")] = "tiny",
        task: Annotated[str, typer.Option(help="With --settings: as this task, or a target's file, gets them.")] = "",
        reward: Annotated[str, typer.Option(help="With --settings: as this reward gets them.")] = "",
        assignments: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="With --settings: any setting (repeatable)."),
        ] = None,
    ) -> None:
        """Tasks, rewards and profiles, a line each; or one profile's settings."""
        if settings:
            given = dict(parse_assignment(text) for text in assignments or [])
            task = task_of(task).name if task else ""
            return console.print(settings_table(load_profile(profile), task, reward, given))
        if task or reward or assignments:
            raise HarnessError("--task, --reward and --set go with --settings; add it, or leave them out.")
        blocks = {
            "Tasks": [(entry.name, entry.summary) for entry in TASKS],
            "Rewards": [(entry.name, entry.summary) for entry in REWARDS],
            "Profiles": [(name, load_profile(name).summary) for name in profile_names()],
        }
        for title, rows in blocks.items():
            table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
            for name, summary in rows:
                table.add_row(f"[bold]{escape(name)}[/bold]", escape(summary))
            console.print(table)
            console.print()


def settings_table(profile: Profile, task: str, reward: str, given: dict[str, Any]) -> Table:
    """Every setting of a cell with its value and where that comes from; with a task or reward also the options that it
    reads. Empty names: as a task or reward without entries gets them. Raises HarnessError."""
    check_options(profile, given, [task] if task else [], [reward] if reward else [])
    table = Table(
        title=f"Settings of {escape(profile.name)} (--set KEY=VALUE)",
        title_justify="left",
        caption="The later wins: default, what is extended, base, task, reward, pair, tuned, --set.",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
    )
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", overflow="fold")
    for key, value, source in _rows(profile, task, reward, given):
        style = "dim" if source == UNSET else None
        table.add_row(escape(key), escape(value.replace("\n", "\\n")), escape(source), style=style)
    return table


UNSET = "not set"


def _rows(profile: Profile, task: str, reward: str, given: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """(setting, value, where from) in the order of the schema; an option that is not set comes with what it is for."""
    view = resolve(profile, task, reward, given).model_dump()
    found = origins(profile, task, reward, given)
    declared = {
        "task.options": (TASKS.get(task).options if task else None) or {},
        "reward.options": (REWARDS.get(reward).options if reward else None) or {},
    }
    for key in known_keys():
        for each in found:
            if each == key or each.startswith(f"{key}."):
                yield each, str(_value(view, each)), str(found[each])
        for name, line in declared.get(key, {}).items():
            if f"{key}.{name}" not in found:
                yield f"{key}.{name}", line, UNSET


def _value(view: dict[str, Any], key: str) -> Any:
    """What stands at a dotted key; a task's or a reward's own name may hold dots itself."""
    if key in view:
        return view[key]
    part, _, rest = key.partition(".")
    return _value(view[part], rest)
