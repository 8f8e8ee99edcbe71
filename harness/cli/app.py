"""The command line: each command reads its arguments, calls one function (harness/api.py has those that run something)
and prints; errors are a sentence and exit code 2. Here and in harness/api.py the harness and its reports meet."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape

from harness import api
from harness.cli import assets, evaluate, generate, kit, listing, studies, suites, tuning, where
from harness.contracts import HarnessError
from harness.machine.processes import MOST_THREADS, planned_for, rank
from harness.machine.terminal import Terminal, open_streams, standard_output
from harness.settings.profiles import parse_assignment

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Which reward signal trains a synthetic-data generator? Tasks x rewards through one GRPO runner, one table.",
)
console = standard_output()
errors = Terminal(stderr=True)

Found = TypeVar("Found")
Out = Annotated[Path, typer.Option("--out", help="Where results are kept; a second run continues there.")]


@app.command()
def run(
    task: Annotated[str, typer.Option(help="Task names or targets' files, comma-separated, or 'all' (see `list`).")],
    reward: Annotated[str, typer.Option(help="Reward names, comma-separated, or 'all'.")] = "all",
    profile: Annotated[str, typer.Option(help="tiny, another built-in profile, a YAML file or a folder.")] = "tiny",
    seeds: Annotated[str, typer.Option(help="Seeds: '0', '0,1,2' or '0-4'.")] = "0",
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any setting, e.g. grpo.steps=40 (repeatable); several values, as in grpo.lr=1e-4,3e-4, are compared.",
        ),
    ] = None,
    inner_steps: Annotated[
        str,
        typer.Option(
            help="T as an axis of the grid, e.g. '1,8,96', at equal numbers of examples: shorter trainings get "
            "fewer prompts a step and more steps."
        ),
    ] = "",
    out: Out = Path("runs"),
    workers: Annotated[
        int | None, typer.Option(min=0, max=MOST_THREADS, help="Cells at a time; 0: in this process.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="CPU threads a worker.")] = 1,
    executor: where.Executor = "local",
    address: where.Address = "",
    slurm: where.Slurm = "",
    processes: where.Processes = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show cells, work, memory, hours and downloads, and stop.")
    ] = False,
    on: Annotated[str, typer.Option(help="With --dry-run: plan for h200, h100, a100, l4 or rtx4090.")] = "",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="A few small steps, to see within a minute or two that everything works; labelled as such everywhere.",
        ),
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start every cell again, finished and interrupted ones too.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Go on with failed cells too, from their last checkpoint.")
    ] = False,
    only_missing: Annotated[
        bool,
        typer.Option("--only-missing", help="Run only cells that have no results at all, not even interrupted ones."),
    ] = False,
    tuned: Annotated[
        Path | None,
        typer.Option(help="A file of `tune`: its settings go over the profile's, and validation reads the test split."),
    ] = None,
    tuning_seeds: Annotated[
        bool, typer.Option("--tuning-seeds", help="Run seeds that the profile keeps for tuning, too.")
    ] = False,
    track: Annotated[str, typer.Option(help="none, or TRL's own reporting: tensorboard, wandb, trackio.")] = "none",
    trust: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with a model. Read it first.")
    ] = False,
) -> None:
    """Train a generator once per task, reward and seed; validate on held-out articles; print and store one table.

    Exit code 0: every cell that can be run has run. 1: some failed. 2: nothing ran, since something is set wrongly.
    3: some cells could not run as they are set (too few texts, a model that is missing), the others did.

    [bold]Examples[/bold]

      python -m harness run --task lambada_es --reward all

      python -m harness run --task lambada_es --reward naive --set grpo.lr=1e-4,3e-4 --quick

      python -m harness run --task lambada_de,lambada_it --reward adam_metagrad,naive --seeds 0-2

      python -m harness run --task lambada_es --set generator.model=./my-model --set data.articles=articles.jsonl
    """
    if trust:
        from harness.machine.trust import trust_remote_code

        trust_remote_code()
        errors.print("[yellow]Warning:[/yellow] code that comes with a model is run, with all that you may do.")
    given = dict(parse_assignment(text) for text in assignments or [])
    policy = _policy({"fresh": fresh, "retry-failed": retry_failed, "only-missing": only_missing})
    asked = task, reward, profile, seeds, given, inner_steps, quick, tuned or "", tuning_seeds
    if dry_run:
        from harness.planning.view import show

        chosen = api.cells(*asked)
        with planned_for(processes):
            show(chosen, console, on, out, policy)
        if executor == "slurm":
            from harness.workers.where import Where, slurm_scripts

            for script in slurm_scripts(chosen, Where(executor, address, workers, threads, slurm), out, policy):
                console.print(f"\n{script}", markup=False, highlight=False, soft_wrap=True)
        return
    results = _run_to_its_end(
        api.run,
        task,
        reward,
        profile=profile,
        seeds=seeds,
        set=given,
        inner_steps=inner_steps,
        out=out,
        workers=workers,
        threads=threads,
        executor=executor,
        address=address,
        slurm=slurm,
        processes=processes,
        policy=policy,
        track=track,
        quick=quick,
        tuned=tuned or "",
        tuning_seeds=tuning_seeds,
        progress=console,
    )
    if rank() > 0:
        return  # of a launcher's ranks the first shows the results
    console.print(results)
    if spent := results.spent:
        console.print(spent, highlight=False)
    console.print(
        f"Results: {results.place} (table.md, wide.parquet, long.parquet, one folder a cell)", highlight=False
    )
    if results.failed:
        console.print("Failed cells are kept; --retry-failed resumes them.")
        raise typer.Exit(1)
    if results.blocked:
        console.print("Some cells could not run as they are set; the table says why.")
        raise typer.Exit(3)


listing.add_to(app, console)


@app.command()
def table(
    place: Annotated[Path, typer.Argument(metavar="RUNS", help=studies.PLACE)] = Path("runs"),
    markdown: Annotated[bool, typer.Option("--markdown", help="As in table.md, with all columns.")] = False,
) -> None:
    """Print the standard table of stored results again, and those of signals compared before any RL and of what data
    are worth."""
    from harness.evaluation import records as trials
    from harness.signals import records
    from harness.store.frames import load
    from reports import evaluations, signals, tables

    wide, long = load(place)
    judged, worth = signals.rows(records.load(place)), evaluations.rows(trials.load(place))
    cells = len(wide) or not (judged or worth)
    if markdown:
        texts = [tables.markdown(wide, long)] if cells else []
        texts += [signals.markdown(judged)] if judged else []
        whole = "\n".join(texts + ([evaluations.markdown(worth)] if worth else []))
        return console.print(whole, markup=False, highlight=False, soft_wrap=True, end="")
    if cells:
        console.print(tables.rich(wide, long))
    if judged:
        console.print(signals.rich(judged))
    if worth:
        console.print(evaluations.rich(worth))


@app.command()
def report(
    runs: Annotated[
        Path, typer.Argument(help="A results folder, one that several were merged into, or a study.")
    ] = Path("runs"),
    out: Annotated[Path, typer.Option("--out", help="Where the page and its tables go.")] = Path("site"),
    reference: Annotated[
        str,
        typer.Option(
            help="The reward that the others are compared with, seed by seed; default: the one that declares itself "
            "the baseline."
        ),
    ] = "",
) -> None:
    """Turn stored results into one HTML page that works offline, the same as Markdown, tables as CSV, figures and
    pictures."""
    page = api.report(runs, out, reference=reference)
    console.print(f"Open {page} in a browser.", highlight=False)


@app.command()
def fidelity(
    task: Annotated[str, typer.Option(help="Task names or targets' files, comma-separated, or 'all' (see `list`).")],
    reward: Annotated[str, typer.Option(help="Reward names, comma-separated, or 'all'.")] = "all",
    profile: Annotated[str, typer.Option(help="tiny, another built-in profile, a YAML file or a folder.")] = "tiny",
    seeds: Annotated[str, typer.Option(help="Seeds: '0', '0,1,2' or '0-4'; each writes a pool of its own.")] = "0",
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Any setting (repeatable).")
    ] = None,
    pool: Annotated[int, typer.Option(min=16, help="Texts that signals are compared on.")] = 64,
    subsets: Annotated[int, typer.Option(min=10, help="Random halves that targets are trained on.")] = 100,
    references: Annotated[int, typer.Option(min=1, help="Reference texts for Φ and similarity, at most.")] = 128,
    out: Out = Path("runs"),
    workers: Annotated[
        int | None, typer.Option(min=0, max=MOST_THREADS, help="Tasks at a time; 0: in this process.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=MOST_THREADS, help="CPU threads a worker.")] = 1,
    executor: where.Executor = "local",
    address: where.Address = "",
    slurm: where.Slurm = "",
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure what is stored again.")] = False,
) -> None:
    """Judge the signals themselves, without any RL: do their rewards say what retraining the target says?"""
    found = _run_to_its_end(
        api.fidelity,
        task,
        reward,
        profile=profile,
        seeds=seeds,
        set=dict(parse_assignment(text) for text in assignments or []),
        pool=pool,
        subsets=subsets,
        references=references,
        out=out,
        workers=workers,
        threads=threads,
        executor=executor,
        address=address,
        slurm=slurm,
        fresh=fresh,
        progress=console,
    )
    console.print(found)
    console.print(
        f"Results: {found.place / 'fidelity'} (table.md with intervals, measures.parquet, one folder a task and seed)",
        highlight=False,
    )
    if found.failed:
        raise typer.Exit(1)


@app.command()
def diff(
    base: Annotated[Path, typer.Argument(help="Results to compare with.")],
    new: Annotated[Path, typer.Argument(help="Results to judge.")],
    tolerance: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the headroom that counts as no change.")
    ] = 0.05,
    partial: Annotated[bool, typer.Option("--partial", help="Rows that NEW lacks are not an error.")] = False,
) -> None:
    """Say per cell whether NEW is improved, same or worse than BASE. Exit code 0, 1 (worse) or 2 (cannot compare)."""
    from reports.diff import compare

    result = compare(base, new, tolerance=tolerance, partial=partial)
    console.print(result.rich())
    raise typer.Exit(result.exit_code)


# -------------------------------------------------------------------------------------------------------------- helpers


def _policy(chosen: dict[str, bool]) -> str:
    names = [name for name, on in chosen.items() if on]
    if len(names) > 1:
        raise HarnessError(f"--{names[0]} and --{names[1]} exclude each other; give one of them.")
    return names[0] if names else "continue"


assets.add_to(app, console)
studies.add_to(app, console)
kit.add_to(app, console)


def _run_to_its_end(function: Callable[..., Found], *arguments: Any, **options: Any) -> Found:
    """What the function of harness/api.py returns. Click would take a KeyboardInterrupt for a wish to leave, and forget
    which signal it was."""
    from harness.machine.stopping import Interrupted

    try:
        return function(*arguments, **options)
    except KeyboardInterrupt as stop:
        raise Interrupted(*stop.args) from stop


generate.add_to(app, console, _run_to_its_end)
tuning.add_to(app, console, _run_to_its_end)
suites.add_to(app, console, _run_to_its_end)
evaluate.add_to(app, console, _run_to_its_end)

MOST_SAID = 1500
"""Characters of a sentence about an error, which may repeat what was given."""


def _one_sentence(text: str) -> None:
    """Whatever the text holds, it stays one line that can be read."""
    line = " ".join(text.split())
    line = line if len(line) <= MOST_SAID else f"{line[: MOST_SAID - 200]} [...] {line[-200:]}"
    errors.print(f"[bold red]Error:[/bold red] {escape(line)}", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point: HarnessError -> one sentence, exit code 2; interruption -> 130 (or 143 after SIGTERM)."""
    from harness.machine.stopping import Interrupted, request_stop

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, request_stop)
    try:
        open_streams()
        code = app(standalone_mode=False)  # of a typer.Exit that a command raised; what a command returns else
    except HarnessError as error:
        _one_sentence(str(error))
        sys.exit(2)
    except OSError as error:  # the system's own refusals: a name too long, no more files, no room for scratch files
        _one_sentence(f"{error.filename or 'The system refuses'}: {error.strerror or error}.")
        sys.exit(2)
    except MemoryError:
        _one_sentence("Memory ran out; what was measured is stored. Free some, or make models or batches smaller.")
        sys.exit(2)
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except SystemExit as stop:
        if stop.code not in (None, 0):
            raise
        _one_sentence("Code of a task, a reward or a model ended the program before the command was done.")
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt, Interrupted) as stop:
        number = stop.args[0] if stop.args and isinstance(stop.args[0], int) else 2
        if number == signal.SIGPIPE:
            _one_sentence(f"Standard output cannot be written ({stop.args[1]}); what was measured is stored.")
            sys.exit(128 + number if stop.args[1] == os.strerror(errno.EPIPE) else 2)
        again = escape(shlex.join(["python", "-m", "harness", *sys.argv[1:]]))
        errors.print(f"Interrupted; what was measured is stored. Run it again to resume: {again}", highlight=False)
        sys.exit(128 + number)
    except Exception as error:
        # A usage error of click, which typer brings along under a name of its own.
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):
            _one_sentence(f"{error.format_message()} (see python -m harness --help)")
            sys.exit(2)
        raise
    sys.exit(code if isinstance(code, int) else 0)
