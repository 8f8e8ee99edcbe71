"""The commands about assets and the machine: `fetch` and `doctor`. Added to the application by harness.cli."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness import api
from harness.settings.profiles import load_profile, parse_assignment

if TYPE_CHECKING:
    from harness.planning.cells import Cell

ProfileOption = Annotated[str, typer.Option(help="A built-in profile, a YAML file or a folder.")]
TaskOption = Annotated[str, typer.Option(help="Task names, comma-separated, or 'all'.")]
RewardOption = Annotated[str, typer.Option(help="Reward names, comma-separated, or 'all'.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting (repeatable).")]


def add_to(app: typer.Typer, console: Console) -> None:
    """Registers both commands."""

    def cells(profile: str, task: str, reward: str, assignments: list[str] | None) -> list[Cell]:
        return api.cells(task, reward, profile, set=dict(parse_assignment(text) for text in assignments or []))

    @app.command()
    def fetch(
        profile: ProfileOption = "paper",
        task: TaskOption = "all",
        reward: RewardOption = "all",
        assignments: Assignments = None,
        lock: Annotated[
            Path | None, typer.Option(help="Where commits are recorded; default PROFILE.lock.json.")
        ] = None,
    ) -> None:
        """Download what a profile reads, so that it runs with HF_HUB_OFFLINE=1. HF_ENDPOINT names a mirror, HF_TOKEN
        your token, HF_HOME the cache; what comes from a local folder is only checked."""
        from harness.planning.fetch import fetch as get

        chosen = cells(profile, task, reward, assignments)
        place = lock or Path(f"{load_profile(profile).name}.lock.json")
        rows = get(chosen, place, lambda text: console.print(text, highlight=False, markup=False))
        if not rows:
            place.unlink(missing_ok=True)
            return console.print("Nothing to fetch: all assets are embedded.")
        console.print(
            f"{len(rows)} assets are here; {place} records their commits. HF_HUB_OFFLINE=1 works now.", highlight=False
        )

    @app.command()
    def doctor(
        profile: ProfileOption = "tiny",
        task: TaskOption = "all",
        reward: RewardOption = "all",
        assignments: Assignments = None,
    ) -> None:
        """Look at device, versions, disk, memory and assets, and say what would run. Exit code 1 if something is
        amiss."""
        from harness.planning.doctor import examine

        found = examine(cells(profile, task, reward, assignments))
        table = Table("what", "found", "advice", title=f"Profile {escape(profile)}", title_justify="left")
        for item in found:
            table.add_row(escape(item.what), escape(item.found), escape(item.advice) or "ok")
        console.print(table)
        if any(item.advice for item in found):
            raise typer.Exit(1)
