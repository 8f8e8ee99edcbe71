"""The command that says what generated data are worth: `evaluate`. Added to the application by harness.cli.app."""

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
    def evaluate(
        task: Annotated[
            str, typer.Option(help="Task names or targets' files, comma-separated, or 'all' (see `list`).")
        ],
        reward: Annotated[str, typer.Option(help="Reward names, comma-separated, or 'all'.")] = "all",
        runs: Annotated[Path, typer.Option(help="Where the cells lie whose generators write the data.")] = Path("runs"),
        profile: Annotated[str, typer.Option(help="tiny, another built-in profile, a YAML file or a folder.")] = "tiny",
        seeds: Annotated[str, typer.Option(help="Seeds: '0', '0,1,2' or '0-4'; the first chooses the rates.")] = "0",
        tokens: Annotated[
            str | None, typer.Option(help="Generated tokens to train a target on: 100k, 10M; default: the profile's.")
        ] = None,
        targets: Annotated[str, typer.Option(help="own, other (one that no signal ever saw), or both.")] = "own,other",
        assignments: Annotated[
            list[str] | None,
            typer.Option("--set", metavar="KEY=VALUE", help="evaluation.*, and what cells were run with (repeatable)."),
        ] = None,
        lm_eval: Annotated[
            bool, typer.Option("--lm-eval", help="Ask EleutherAI's harness too (extra `lm-eval`), offline.")
        ] = False,
        tuned: Annotated[
            Path | None, typer.Option(help="The file that the cells were run with (`run --tuned`).")
        ] = None,
        out: Annotated[
            Path, typer.Option("--out", help="Where results are kept; a second run continues there.")
        ] = Path("runs"),
        workers: Annotated[
            int | None, typer.Option(min=0, max=MOST_THREADS, help="Rows at a time; 0: in this process.")
        ] = None,
        threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="CPU threads a worker.")] = 1,
        executor: where.Executor = "local",
        address: where.Address = "",
        slurm: where.Slurm = "",
    ) -> None:
        """What are the generated data worth? Train fresh targets on them as a user would, and test those.

        Rows: the target before, replay articles alone, the untuned generator's texts, each reward's, the task's own
        train texts. A reward without a finished cell is a row that says so.

        [bold]Examples[/bold]

          python -m harness evaluate --task lambada_es --seeds 0-2

          python -m harness evaluate --task lambada_es --reward adam_metagrad --tokens 50k --targets own --lm-eval
        """
        found = to_its_end(
            api.evaluate,
            task,
            reward,
            profile=profile,
            seeds=seeds,
            set=dict(parse_assignment(text) for text in assignments or []),
            tokens=tokens,
            targets=targets,
            runs=runs,
            out=out,
            lm_eval=lm_eval,
            tuned=tuned or "",
            workers=workers,
            threads=threads,
            executor=executor,
            address=address,
            slurm=slurm,
            progress=console,
        )
        console.print(found)
        place = found.place / "evaluation"
        console.print(f"Results: {place} (table.md, measures.parquet, one file a training, data)", highlight=False)
        if found.failed:
            raise typer.Exit(1)
