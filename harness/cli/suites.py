"""The command `paper`: a suite of cells and claims. Added to the application by harness.cli.app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harness import api
from harness.cli import where
from harness.contracts import HarnessError
from harness.machine.processes import MOST_THREADS
from harness.settings.profiles import parse_assignment


def add_to(app: typer.Typer, console: Console, to_its_end: Callable[..., Any]) -> None:
    """Registers the command. `to_its_end` calls a function of harness/api.py that may be interrupted."""

    @app.command()
    def paper(
        profile: Annotated[str, typer.Option(help="tiny, another built-in profile, a YAML file or a folder.")] = "tiny",
        seeds: Annotated[str, typer.Option(help="Seeds: '0', '0,1,2' or '0-4'.")] = "0",
        only: Annotated[str, typer.Option(help="Parts of the suite, comma-separated; default: all.")] = "",
        budget: Annotated[
            str, typer.Option(help="Time, as 60m or 2h: parts in their order as long as they fit, by the plan.")
        ] = "",
        suite: Annotated[str, typer.Option(help="A suite of your own: a YAML file like harness/suites/paper.yaml.")] = (
            "paper"
        ),
        assignments: Annotated[
            list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting of all parts (repeatable).")
        ] = None,
        out: Annotated[
            Path, typer.Option("--out", help="Where results are kept; a second run continues there.")
        ] = Path("runs"),
        workers: Annotated[
            int | None, typer.Option(min=0, max=MOST_THREADS, help="Cells at a time; 0: in this process.")
        ] = None,
        threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="CPU threads a worker.")] = 1,
        executor: where.Executor = "local",
        address: where.Address = "",
        slurm: where.Slurm = "",
        processes: where.Processes = 1,
        stored: Annotated[
            bool, typer.Option("--stored", help="Run nothing; decide from what is there, of every seed asked for.")
        ] = False,
        retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Go on with failed cells too.")] = False,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Show cells, memory, hours and downloads, and stop.")
        ] = (False),
        tuned: Annotated[
            Path | None, typer.Option(help="What `tune` chose; validation then reads the test split.")
        ] = None,
        on: Annotated[str, typer.Option(help="With --dry-run: plan for h200, h100, a100, l4 or rtx4090.")] = "",
    ) -> None:
        """Run what is missing of the paper's experiments and say which of its findings hold here.

        Every finding is a check on stored results: holds, does not hold, not decided (by these seeds) or not run. One
        seed decides little; three decide most. Results: claims.json and claims.md beside the cells.

        Exit code 0; 1 where a cell failed, or a finding does not hold that is not known not to; 2: set wrongly.

        [bold]Examples[/bold]

          python -m harness paper --budget 60m

          python -m harness paper --seeds 0-2 --only spanish,norm

          python -m harness paper --profile paper --dry-run --on h200
        """
        names = [name.strip() for name in only.split(",") if name.strip()]
        given = dict(parse_assignment(text) for text in assignments or [])
        if dry_run:
            return _plan(console, suite, profile, seeds, names, given, on, out, tuned or "")
        if on:
            raise HarnessError("--on goes with --dry-run; add it, or leave --on out.")
        from harness.suites.suite import hours_of

        found = to_its_end(
            api.paper,
            suite=suite,
            profile=profile,
            seeds=seeds,
            only=names,
            budget=hours_of(budget) if budget else None,
            set=given,
            out=out,
            workers=workers,
            threads=threads,
            executor=executor,
            address=address,
            slurm=slurm,
            processes=processes,
            policy="retry-failed" if retry_failed else "continue",
            run=not stored,
            tuned=tuned or "",
            progress=console,
        )
        console.print(found)
        console.print(f"Claims: {found.place / 'claims.json'}, claims.md", highlight=False)
        if found.surprising:
            console.print(f"Not known not to hold: {', '.join(found.surprising)}.", highlight=False)
        if found.surprising or found.results.failed:
            raise typer.Exit(1)


def _plan(
    console: Console,
    suite: str,
    profile: str,
    seeds: str,
    only: list[str],
    given: dict[str, Any],
    on: str,
    out: Path,
    tuned: str | Path,
) -> None:
    from harness.planning.view import show, show_parts
    from harness.suites.suite import load_suite, selected

    parts = api.suite_cells(selected(load_suite(suite), only), profile, seeds, given, tuned)
    show([cell for found in parts.values() for cell in found], console, on, out)
    show_parts(parts, console, on, out)
