"""The commands for who writes a reward or a task: `check` and `new`. Added to the application by harness.cli.app."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from harness import api
from harness.kit import ROLLOUTS
from harness.settings.profiles import parse_assignment


def add_to(app: typer.Typer, console: Console) -> None:
    """Registers both commands."""

    say = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)

    @app.command()
    def check(
        name: Annotated[
            str,
            typer.Argument(
                metavar="NAME_OR_FILE", help="A reward, a task, a Python file that registers some, or a target's YAML."
            ),
        ],
        task: Annotated[str, typer.Option(help="The task that rewards are tried on; default: one that fits.")] = "",
        rollouts: Annotated[
            int, typer.Option(min=0, help="That seconds and memory of a reward are measured on; 0: not measured.")
        ] = ROLLOUTS,
        one_process: Annotated[
            bool, typer.Option("--one-process", help="Leave out whether a reward is the same under two processes.")
        ] = False,
        only: Annotated[str, typer.Option(help="Probes, comma-separated, as the table names them; default: all.")] = "",
        assignments: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="Any setting, such as an option of the plug-in."),
        ] = None,
        as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
    ) -> None:
        """Try every promise of a reward or task on a really small world: order, determinism, odd texts, state, the
        metric's gradient, declared measures, and more.

        Exit code 0; 1 where a promise is broken, with a sentence that says which; 2: no such plug-in, or set wrongly.

        [bold]Examples[/bold]

          python -m harness check naive

          python -m harness check my_reward.py --task norm --json

          python -m harness check mine.yaml
        """
        given = dict(parse_assignment(text) for text in assignments or [])
        found = api.check(name, task, set=given, rollouts=rollouts, processes=not one_process, only=only)
        if as_json:
            say(json.dumps(found.as_data(), indent=2))
        else:
            console.print(found)
        if not found.ok:
            raise typer.Exit(1)

    @app.command()
    def new(
        kind: Annotated[str, typer.Argument(metavar="reward|task", help="What the package registers.")],
        name: Annotated[str, typer.Argument(metavar="NAME", help="Its name: small letters, digits and underscores.")],
        out: Annotated[Path | None, typer.Option("--out", help="Where the package goes; default: ./NAME.")] = None,
    ) -> None:
        """Write a package of your own with a reward or task: an example that runs, its entry point, a test that checks
        its contract, a README."""
        folder = api.new(kind, name, out or "")
        say(f"{folder} is a package with the {kind} {name}. Next:")
        say(f"  pip install -e {folder}")
        say(f"  python -m harness check {name}")
