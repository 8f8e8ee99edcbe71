"""The command `tune`: settings chosen by trials, alike for every reward. Added to the app by harness.cli.app."""

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
    """Registers the command. `to_its_end` calls a function of harness/api.py that may be interrupted."""

    @app.command()
    def tune(
        task: Annotated[
            str, typer.Option(help="Task names or targets' files, comma-separated, or 'all' (see `list`).")
        ],
        reward: Annotated[str, typer.Option(help="Reward names, comma-separated, or 'all'.")] = "all",
        profile: Annotated[str, typer.Option(help="tiny, another built-in profile, a YAML file or a folder.")] = "tiny",
        seeds: Annotated[
            str, typer.Option(help="Seeds of every trial; default: the first that the profile keeps for tuning.")
        ] = "",
        trials: Annotated[
            int | None, typer.Option(min=1, help="Points tried for every reward; default: the profile's (14).")
        ] = None,
        space: Annotated[
            list[str] | None,
            typer.Option(
                metavar="KEY=START..END:xN",
                help="An axis for all rewards, each value N times the last (repeatable: all combinations); default: "
                "the learning rate of each, doubling around what the profile sets: the inner training's where the "
                "reward trains a target, else, and where the headline grows with that by itself, the generator's.",
            ),
        ] = None,
        assignments: Annotated[
            list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any other setting (repeatable).")
        ] = None,
        out: Annotated[Path, typer.Option("--out", help="Where trials are kept; a second call goes on there.")] = Path(
            "tuning"
        ),
        file: Annotated[
            Path | None, typer.Option("--file", help="Where the choice goes; default: tuned/PROFILE.yaml.")
        ] = None,
        workers: Annotated[
            int | None, typer.Option(min=0, max=MOST_THREADS, help="Trials at a time; 0: in this process.")
        ] = None,
        threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="CPU threads a worker.")] = 1,
        executor: where.Executor = "local",
        address: where.Address = "",
        slurm: where.Slurm = "",
        processes: where.Processes = 1,
        retry_failed: Annotated[
            bool, typer.Option("--retry-failed", help="Go on with failed trials too, from their last checkpoint.")
        ] = False,
    ) -> None:
        """Choose settings by trials: the same number over the same range for every reward, on seeds of their own.

        Chosen is the best median at the last validation, on validation prompts. `run --tuned FILE` then reports other
        seeds on test prompts. Trials that diverge are results: they cannot be chosen, and the table says so.

        [bold]Examples[/bold]

          python -m harness tune --task lambada_es --reward all

          python -m harness run --task lambada_es --reward all --seeds 0-9 --tuned tuned/tiny.yaml

          python -m harness tune --task norm --space grpo.lr=1e-4..1e-2:x3 --seeds 100-102
        """
        found = to_its_end(
            api.tune,
            task,
            reward,
            profile=profile,
            seeds=seeds,
            trials=trials,
            space=space or (),
            set=dict(parse_assignment(text) for text in assignments or []),
            out=out,
            file=file or "",
            workers=workers,
            threads=threads,
            executor=executor,
            address=address,
            slurm=slurm,
            processes=processes,
            policy="retry-failed" if retry_failed else "continue",
            progress=console,
        )
        console.print(found)
        console.print(
            f"Chosen: {found.file} (for `run --tuned`); trials: {found.results.place} (`report` draws them)",
            highlight=False,
        )
