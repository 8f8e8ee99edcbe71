"""The command that writes data with a cell's generator: `generate`. Added to the application by harness.cli.app."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harness import api
from harness.cli import where
from harness.machine.processes import MOST_THREADS
from harness.settings.profiles import parse_assignment


def add_to(app: typer.Typer, console: Console, to_its_end: Callable[..., Any]) -> None:
    """Registers the command. `to_its_end(function, ...)` calls a function of harness/api.py."""

    @app.command()
    def generate(
        cell: Annotated[
            str, typer.Argument(metavar="CELL", help="A finished cell's folder, or 'untuned' for the base generator.")
        ],
        tokens: Annotated[str, typer.Option(help="How many at least: 250k, 1M, 1000000.")],
        out: Annotated[Path, typer.Option("--out", help="The data set's folder; a second run continues there.")],
        prompts: Annotated[
            Path | None,
            typer.Option(help="Articles of your own, JSON lines or Parquet with `text`; default: the profile's."),
        ] = None,
        dedup: Annotated[bool, typer.Option("--dedup", help="Leave out texts that were written before.")] = False,
        seed: Annotated[int, typer.Option(help="Another one gives other rows.")] = 0,
        profile: Annotated[str | None, typer.Option(help="Of 'untuned': whose generator; default tiny.")] = None,
        task: Annotated[str | None, typer.Option(help="Of 'untuned': the task whose settings it writes by.")] = None,
        assignments: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="generator.* or data.articles (repeatable)."),
        ] = None,
        contact: Annotated[
            list[str] | None,
            typer.Option(metavar="URL", help="A hub that may be asked for the articles that a record names."),
        ] = None,
        push_to_hub: Annotated[
            str, typer.Option(metavar="OWNER/NAME", help="Upload data set and generator there, with HF_TOKEN.")
        ] = "",
        threads: Annotated[
            int, typer.Option(min=1, max=MOST_THREADS, help="CPU threads of a cluster's job (with --executor).")
        ] = 1,
        executor: where.Executor = "local",
        address: where.Address = "",
        slurm: where.Slurm = "",
    ) -> None:
        """Write a data set with the generator that a cell kept: sharded Parquet that `datasets.load_dataset` reads.

        What is interrupted or killed goes on where it was, and the same shards come out bit for bit.

        [bold]Examples[/bold]

          python -m harness generate runs/tiny/lambada_es/adam_metagrad/seed0-0123456789 --tokens 1M --out data

          python -m harness generate untuned --task lambada_es --tokens 250k --out base --dedup
        """
        made = to_its_end(
            api.generate,
            cell,
            tokens,
            out,
            prompts=prompts,
            dedup=dedup,
            seed=seed,
            profile=profile,
            task=task,
            set=dict(parse_assignment(text) for text in assignments or []),
            contact=contact or (),
            push_to_hub=push_to_hub,
            threads=threads,
            executor=executor,
            address=address,
            slurm=slurm,
            progress=console,
        )
        left = "left out" if dedup else "kept"
        console.print(
            f"{made.folder}: {made.rows:,} texts with {made.tokens:,} tokens in {made.shards} shards; "
            f"{made.cut:,} cut, {made.empty:,} empty, {made.duplicates:,} exact duplicates {left}.",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
