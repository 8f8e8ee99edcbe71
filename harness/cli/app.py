"""The command line, and the one place where the harness and its reports meet: no other module of `harness/` imports
`reports`. Each command reads its arguments, calls one function and prints; errors are a sentence and exit code 2."""

from __future__ import annotations

import errno
import importlib.util
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from harness.cli import assets, listing, studies
from harness.contracts import HarnessError
from harness.machine import processes
from harness.machine.processes import MOST_THREADS
from harness.machine.terminal import Terminal, open_streams, standard_output
from harness.registry import REWARDS, TASKS
from harness.settings.profiles import load_profile, parse_assignment

if TYPE_CHECKING:
    from harness.planning.cells import Cell
    from harness.workers.executor import Event, Executor

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Which reward signal trains a synthetic-data generator? Tasks x rewards through one GRPO runner, one table.",
)
console = standard_output()
errors = Terminal(stderr=True)

Out = Annotated[Path, typer.Option("--out", help="Where results are kept; a second run continues there.")]


@app.command()
def run(
    task: Annotated[str, typer.Option(help="Task names, comma-separated, or 'all' (see `list`).")],
    reward: Annotated[str, typer.Option(help="Reward names, comma-separated, or 'all'.")] = "all",
    profile: Annotated[str, typer.Option(help="tiny, another built-in profile, a YAML file or a folder.")] = "tiny",
    seeds: Annotated[str, typer.Option(help="Seeds: '0', '0,1,2' or '0-4'.")] = "0",
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, e.g. grpo.steps=40 (repeatable)."),
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show cells, work, memory, hours and downloads, and stop.")
    ] = False,
    on: Annotated[str, typer.Option(help="With --dry-run: plan for h200, h100, a100, l4 or rtx4090.")] = "",
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
    track: Annotated[str, typer.Option(help="none, or TRL's own reporting: tensorboard, wandb, trackio.")] = "none",
    trust: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with a model. Read it first.")
    ] = False,
) -> None:
    """Train a generator once per task, reward and seed; validate on held-out articles; print and store one table.

    [bold]Examples[/bold]

      python -m harness run --task lambada_es --reward all

      python -m harness run --task lambada_de,lambada_it --reward adam_metagrad,naive --seeds 0-2

      python -m harness run --task lambada_es --set generator.model=./my-model --set data.articles=articles.jsonl
    """
    from harness.grid import cross_product
    from harness.planning.preflight import preflight
    from harness.workers.grid import run_grid
    from reports.store import store_tables

    if trust:
        from harness.machine.trust import trust_remote_code

        trust_remote_code()
        errors.print("[yellow]Warning:[/yellow] code that comes with a model is run, with all that you may do.")
    chosen = load_profile(profile)
    given = dict(parse_assignment(text) for text in assignments or [])
    steps = _numbers(inner_steps, "--inner-steps") if inner_steps else []
    cells = cross_product(
        chosen, _names(task, TASKS), _names(reward, REWARDS), _numbers(seeds, "--seeds"), given, steps
    )
    _check_tracker(track)
    policy = _policy({"fresh": fresh, "retry-failed": retry_failed, "only-missing": only_missing})
    if dry_run:
        from harness.planning.view import show

        return show(cells, console, on, out, policy)
    preflight(cells, out)
    with _observer(cells) as observe:
        run_grid(cells, out, observe, _executor(workers, threads, len(cells)), policy=policy, report_to=track)
    if processes.rank() > 0:
        return  # of a launcher's ranks the first shows the results
    from reports import tables

    folder = out / chosen.name
    wide, long = store_tables(folder)
    ours = wide[wide["identity"].isin({cell.record().identity for cell in cells})]
    console.print(tables.rich(ours, long[long["identity"].isin(set(ours["identity"]))]))
    console.print(f"Results: {folder} (table.md, wide.parquet, long.parquet, one folder a cell)", highlight=False)
    if (ours["status"] == "failed").any():
        console.print("Failed cells are kept; --retry-failed resumes them.")
        raise typer.Exit(1)


listing.add_to(app, console)


@app.command()
def table(
    place: Annotated[Path, typer.Argument(metavar="RUNS", help=studies.PLACE)] = Path("runs"),
    markdown: Annotated[bool, typer.Option("--markdown", help="As in table.md, with all columns.")] = False,
) -> None:
    """Print the standard table of stored results again, and that of the signals compared before any RL."""
    from harness.fidelity import records
    from harness.store.frames import load
    from reports import signals, tables

    wide, long = load(place)
    judged = signals.rows(records.load(place))
    cells = len(wide) or not judged
    if markdown:
        texts = [tables.markdown(wide, long)] if cells else []
        whole = "\n".join(texts + ([signals.markdown(judged)] if judged else []))
        return console.print(whole, markup=False, highlight=False, soft_wrap=True, end="")
    if cells:
        console.print(tables.rich(wide, long))
    if judged:
        console.print(signals.rich(judged))


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
    from reports import site

    page = site.build(runs, out, reference=reference)
    console.print(f"Open {page} in a browser.", highlight=False)


@app.command()
def fidelity(
    task: Annotated[str, typer.Option(help="Task names, comma-separated, or 'all' (see `list`).")],
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
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure what is stored again.")] = False,
) -> None:
    """Judge the signals themselves, without any RL: do their rewards say what retraining the target says?"""
    from harness.fidelity.records import Spec, load
    from harness.fidelity.run import fidelity_cells, run_all
    from harness.machine.libraries import quiet
    from harness.store.atomic import check_writable, parquet_bytes, write_atomic
    from harness.workers.local import default_workers, local
    from reports import signals

    chosen = load_profile(profile)
    given = dict(parse_assignment(text) for text in assignments or [])
    names, spec = _names(reward, REWARDS), Spec(pool=pool, subsets=subsets, references=references)
    cells = fidelity_cells(chosen, _names(task, TASKS), names, _numbers(seeds, "--seeds"), given, spec)
    identities = {cell.identity for cell in cells}  # finds missing assets before anything loads
    check_writable(out)
    quiet()
    count = default_workers(len(cells)) if workers is None else workers
    say = lambda text: errors.print(text, highlight=False, markup=False, style="dim")
    for cell in {cell.base.task: cell for cell in cells}.values():
        steps, whole = cell.base.settings.inner.steps, cell.base.settings.grpo.rollouts_per_step
        if steps < cell.steps_of_a_run:
            say(
                f"{cell.base.task}: T={steps} in place of {cell.steps_of_a_run}, since the pool has {spec.pool} "
                f"texts and a "
                f"step {whole}; --set inner.steps={cell.steps_of_a_run} keeps it"
            )
    records = run_all(cells, out, say, local(count, threads), fresh=fresh)
    folder = out / chosen.name / "fidelity"
    everything = load(out / chosen.name)
    found = signals.rows(everything)
    write_atomic(folder / "table.md", signals.markdown(found))
    write_atomic(folder / "measures.parquet", parquet_bytes(signals.frame(found)))
    ours = [each for each in everything if each.pool.identity in identities]
    console.print(signals.rich(signals.rows(ours)))
    console.print(
        f"Results: {folder} (table.md with intervals, measures.parquet, one folder a task and seed)", highlight=False
    )
    if any(record.status == "failed" for record in records):
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


def _names(text: str, registry: object) -> list[str]:
    names = registry.names() if text == "all" else [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise HarnessError(f"Name at least one {registry.kind}, or 'all'.")
    for name in names:
        registry.get(name)
    return list(dict.fromkeys(names))


MOST_SEED, MOST_NUMBERS = 2**32 - 1, 10_000
"""Generators of random numbers take no larger seed; and a grid of more cells a pair is a slip of the finger."""


def _numbers(text: str, option: str) -> list[int]:
    ranges: list[range] = []
    given = text[:80]
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            ranges.append(range(int(first), int(last if dash else first) + 1))
    except ValueError as error:
        raise HarnessError(f"{option} takes whole numbers such as 0,1,2 or 0-4, not '{given}'.") from error
    if not any(ranges) or any(part.start < 0 or part.stop > MOST_SEED + 1 for part in ranges):
        raise HarnessError(f"{option} takes at least one number, none below 0 or above {MOST_SEED}; given '{given}'.")
    if sum(map(len, ranges)) > MOST_NUMBERS:
        raise HarnessError(f"{option} takes at most {MOST_NUMBERS} numbers; '{given}' has more.")
    return list(dict.fromkeys(number for part in ranges for number in part))


def _policy(chosen: dict[str, bool]) -> str:
    names = [name for name, on in chosen.items() if on]
    if len(names) > 1:
        raise HarnessError(f"--{names[0]} and --{names[1]} exclude each other; give one of them.")
    return names[0] if names else "continue"


def _executor(workers: int | None, threads: int, cells: int) -> Executor:
    """Where cells run: on all ranks of the launcher that started this process, else on this machine."""
    from harness.workers.local import default_workers, local

    if processes.launched_count() > 1:
        from harness.machine.libraries import quiet
        from harness.workers.launcher import Ranks

        quiet()
        return Ranks()
    return local(default_workers(cells) if workers is None else workers, threads)


def _observer(cells: Sequence[Cell]) -> AbstractContextManager[Callable[[Cell, Event], None]]:
    """Who shows what happens to the cells; of a launcher's ranks the first."""
    from harness.cli.progress import Progress

    return Progress(cells, console) if processes.rank() == 0 else nullcontext(lambda cell, event: None)


def _check_tracker(track: str) -> None:
    if track not in ("none", "tensorboard", "wandb", "trackio"):
        raise HarnessError(f"--track takes none, tensorboard, wandb or trackio, not '{track}'.")
    if track != "none" and importlib.util.find_spec(track) is None:
        raise HarnessError(f"--track {track} needs the package {track}; install it with `pip install {track}`.")


assets.add_to(app, console, _names)
studies.add_to(app, console)


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
        sys.exit(code if isinstance(code, int) else 0)
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
