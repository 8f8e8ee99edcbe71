"""Where work runs and who shows it, as the commands are asked: on this machine, a launcher's ranks, Ray or Slurm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from harness.contracts import HarnessError
from harness.machine.processes import MOST_THREADS, launched_count, rank
from harness.registry import REWARDS, TASKS
from harness.settings.choices import check_choice

if TYPE_CHECKING:
    from rich.console import Console

    from harness.planning.cells import Cell
    from harness.planning.policy import Policy
    from harness.workers.executor import Event, Executor


class Where(NamedTuple):
    """Where work runs, as `run` is asked."""

    executor: str
    address: str
    workers: int | None
    threads: int
    slurm: str | Path = ""
    processes: int = 1


EXECUTORS = ("local", "ray", "slurm")


def executor_of(where: Where, chosen: Sequence[Cell], place: Path, jobs: int, ranks: bool = True) -> Executor:
    """On all ranks of the launcher that started this process (`ranks`), on a cluster, else on this machine. Raises
    HarnessError for what does not go together or cannot be reached."""
    from harness.workers.local import default_workers, local

    check_where(where)
    everywhere = all(
        TASKS.everywhere(cell.task) and (not cell.reward or REWARDS.everywhere(cell.reward)) for cell in chosen
    )
    if where.executor != "local":
        if launched_count() > 1:
            raise HarnessError(f"Under a launcher all ranks work on one cell; leave --executor {where.executor} out.")
        if not everywhere:
            raise HarnessError("Other machines lack a task or reward of this session alone; register it in a package.")
        return _cluster(where, place)
    if ranks and launched_count() > 1:
        from harness.machine.libraries import quiet
        from harness.workers.launcher import Ranks

        quiet()
        return Ranks()
    if where.workers is None and everywhere:
        return local(default_workers(jobs), where.threads)
    return local(where.workers or 0, where.threads)


def check_where(where: Where) -> None:
    """Raises HarnessError for options that do not go together."""
    check_choice("executor", where.executor, EXECUTORS)
    for option, given, of in (("address", where.address, "ray"), ("slurm", where.slurm, "slurm")):
        if given and where.executor != of:
            raise HarnessError(f"--{option} goes with --executor {of}; add it, or leave --{option} out.")
    if where.processes != 1 and where.executor != "ray":
        raise HarnessError(
            "--processes goes with --executor ray; on one machine start the command with torchrun --nproc-per-node N."
        )
    if not 1 <= where.processes <= MOST_THREADS:
        raise HarnessError(f"--processes takes 1 to {MOST_THREADS}, not {where.processes}.")


def _cluster(where: Where, place: Path) -> Executor:
    most = where.workers or None
    if where.executor == "ray":
        from harness.workers.ray import Cluster

        return Cluster(where.address, place, where.threads, most=most, ranks=where.processes)
    from harness.workers.slurm import Slurm
    from harness.workers.slurm_site import read_site

    return Slurm(place, where.threads, most=most, site=read_site(where.slurm))


def slurm_scripts(
    chosen: Sequence[Cell], where: Where, place: str | Path = "runs", policy: Policy = "continue"
) -> list[str]:
    """What `run` would give sbatch for those of the cells that are not kept: a script an array of jobs. Raises
    HarnessError."""
    from harness.planning.view import is_kept
    from harness.workers.grid import CellJob, dearest_first
    from harness.workers.slurm_site import read_site, scripts

    check_where(where)
    runs = Path(place)
    missing = [cell for cell in chosen if not cell.unsupported and not is_kept(cell, runs, policy)]
    jobs = [CellJob(missing[number], runs, policy) for number in dearest_first(missing)]
    return scripts(jobs, runs, read_site(where.slurm), where.threads, where.workers or None)


def observer(
    chosen: Sequence[Cell], progress: Console | bool, slots: int
) -> AbstractContextManager[Callable[[Cell, Event], None]]:
    """Who shows what happens to the cells; of a launcher's ranks the first."""
    from harness.machine.terminal import Terminal
    from harness.workers.progress import Progress

    if progress is False or rank() > 0:
        return nullcontext(lambda cell, event: None)
    return Progress(chosen, Terminal() if progress is True else progress, slots)


def remarks(progress: Console | bool) -> Callable[[str], None]:
    """Where remarks go: standard error, or the notebook."""
    from harness.machine.terminal import Terminal

    if progress is False or rank() > 0:
        return lambda line: None
    return lambda line: Terminal(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True, style="dim")
