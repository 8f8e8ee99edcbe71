"""The commands that keep, join and repeat results: `rerun`, `pack`, `merge`. Added to the app by harness.cli.app."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from harness.contracts import Contact, HarnessError
from harness.registry import TARGET_FILES, task_of
from harness.store.record import StoredCell
from harness.training.kept import FOLDER

PLACE = "A results folder, a packed study, or a folder of several."


def add_to(app: typer.Typer, console: Console) -> None:
    """Registers the commands."""

    @app.command()
    def rerun(
        place: Annotated[Path, typer.Argument(metavar="CELL", help="A finished cell's folder, or as for `table`.")],
        task: Annotated[
            str,
            typer.Option(
                help="Of several cells, only those of this task; a target's file: of it, and its files may be read."
            ),
        ] = "",
        reward: Annotated[str, typer.Option(help="Only those of this reward.")] = "",
        seed: Annotated[int | None, typer.Option(help="Only those of this seed.")] = None,
        contact: Annotated[
            list[str] | None,
            typer.Option(
                metavar="[VARIABLE=]URL",
                help="A host that cells may contact, and the environment variable that may go there (repeatable). "
                "Without it none is contacted, whatever the records say.",
            ),
        ] = None,
    ) -> None:
        """Repeat stored cells from their own records and say, a line each, whether the numbers agree. Exit code 0, 1
        where they do not, or 2 where a cell could not be repeated."""
        from harness import rerun as repeating
        from harness.machine.libraries import quiet

        quiet()
        allowed = frozenset(map(_contact, contact or []))
        if task.endswith(TARGET_FILES):
            task = task_of(task).name
        codes = [_repeated(cell, console, allowed) for cell in repeating.chosen(place, task, reward, seed)]
        raise typer.Exit(1 if 1 in codes else max(codes))

    @app.command()
    def pack(
        runs: Annotated[Path, typer.Argument(help=PLACE)],
        study: Annotated[Path, typer.Argument(help="The study's folder; made if missing.")],
        replace: Annotated[
            bool, typer.Option("--replace", help="Take the new one of cells that the study has with other content.")
        ] = False,
        no_rollouts: Annotated[
            bool,
            typer.Option("--no-rollouts", help="Leave out the kept rollouts of training, most of a study's bytes."),
        ] = False,
    ) -> None:
        """Pack results into a study: a few compact files that `table`, `report`, `diff` and `rerun` read as they read
        a results folder. What is in the study already stays."""
        from harness.evaluation import records as trials
        from harness.signals import records
        from harness.store.frames import find_cells
        from harness.store.study import NoRollouts, is_study, open_study, packed, write_study

        new, judged, worth = find_cells(runs), records.load(runs), trials.load(runs)
        if not new and not judged and not worth:
            raise HarnessError(f"There are no results in {runs}; run `python -m harness run ...` first.")
        kept = [cell.folder / FOLDER for cell in new if (cell.folder / FOLDER).is_dir()]
        before = [path for path in runs.rglob("*") if path.is_file() and not any(map(path.is_relative_to, kept))]
        sizes = _sizes(before)
        taken = [NoRollouts(cell) for cell in new] if no_rollouts else new
        cells = packed(open_study(study).cells if is_study(study) else [], taken, replace=replace)
        signals = records.packed(records.load(study) if study.exists() else [], judged, replace=replace)
        evaluated = trials.packed(trials.load(study) if study.exists() else [], worth, replace=replace)
        left_out = sum((record := cell.read()) is None or record.status == "running" for cell in new)
        if cells:
            write_study(study, cells)
        if signals:
            records.write_packed(study, signals)
        if evaluated:
            trials.write_packed(study, evaluated)
        decided = _packed_claims(runs, study)
        after = [path for path in study.rglob("*") if path.suffix in (".jsonl", ".parquet") or path.name in decided]
        pools = f" and {len(signals)} pools" if signals else ""
        pools += f" and {len(evaluated)} trainings of targets" if evaluated else ""
        say = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
        say(f"{study}: {len(cells)} cells{pools}; {sizes} before, {_sizes(after)} now.")
        if kept:
            say(f"{len(kept)} kept generators were left out: a study holds none, so they stay where they are.")
        if left_out:
            say(f"{left_out} cells have not ended and were left out.")

    @app.command()
    def merge(
        places: Annotated[
            list[Path],
            typer.Argument(metavar="RUNS...", help="Results folders, of several machines say, or packed studies."),
        ],
        out: Annotated[Path, typer.Option("--out", help="The folder that holds them all; made if missing.")],
    ) -> None:
        """Put results from several places into one folder. A cell that lies in several is kept once; a finished one
        goes before an unfinished one; where two say other numbers, both are named and what was there first stays.
        A packed study is unpacked, so that the command that made it can go on: with more seeds, say.

        Exit code 0; 1 where some differ; 2 where something could not be used."""
        from harness import api

        say = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
        found = api.merge(places, out, progress=False)
        say(f"{out}: {found.copied} copied, {found.same} there already, {len(found.conflicts)} in conflict.")
        for line in found.conflicts:
            say(f"Conflict: {line}; what was there first stays.")
        for line in found.left_out:
            say(f"Left out: {line}.")
        if found.conflicts or found.left_out:
            raise typer.Exit(1 if found.conflicts else 2)


def _contact(text: str) -> Contact:
    variable, separator, url = text.partition("=")
    return Contact(url, variable) if separator and re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable) else Contact(text)


def _repeated(cell: StoredCell, console: Console, allowed: frozenset[Contact]) -> int:
    """Repeats one cell and prints how that went; 0 the same, 1 not the same, 2 not repeated (0 where nobody could)."""
    from harness.rerun import rerun

    record = cell.read()
    if record is None:
        return 0
    say = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
    variant = f" ({record.variant})" if record.variant else ""
    name = f"{record.task} / {record.reward}{variant}, seed {record.seed}"

    def tell(event: dict[str, Any]) -> None:
        if event["event"] == "contacts":
            say(f"{name}: contacts {', '.join(map(str, event['contacts']))}")

    if record.status != "done":
        say(f"{name}: {record.status}, nothing to repeat")
        return 0
    try:
        found = rerun(cell, tell, allowed)
    except HarnessError as error:
        say(f"{name}: not repeated: {error}")
        return 2
    if found.equal:
        say(f"{name}: all {found.numbers} numbers are the same to the last bit")
        return 0
    differences = [f"{measure} by up to {share:.2g}" for measure, share in found.largest.items()]
    say(f"{name}: differs in {', '.join([*differences, *found.others]) or 'its final values'} (relative)")
    for what, (then, now) in found.environment.items():
        say(f"    {what} was {then}, is {now}")
    return 1


def _sizes(paths: Iterable[Path]) -> str:
    sizes = [path.stat().st_size for path in paths]
    return f"{len(sizes)} files with {sum(sizes):,} bytes"


def _packed_claims(runs: Path, study: Path) -> tuple[str, ...]:
    """Copies what `paper` decided into the study; the files' names."""
    from harness.machine.files import read_text
    from harness.signals import theorem
    from harness.store.atomic import write_atomic
    from harness.suites import suite

    names = (suite.CLAIMS, theorem.FILE)
    for name in names:
        found = sorted(runs.rglob(name))
        for path in found:
            write_atomic(study / (name if len(found) == 1 else path.relative_to(runs)), read_text(path))
    return names
