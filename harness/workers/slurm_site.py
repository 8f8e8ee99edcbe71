"""What a Slurm cluster wants to know beside the plan, and what a job asks it for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from harness.contracts import HarnessError
from harness.machine.devices import CPU_CORE, DATASHEETS, GIB
from harness.planning.cost import needs_gpu
from harness.settings.reading import explained, read_yaml_file
from harness.workers.executor import Job

FOLDER = ".slurm"
"""In the results folder: orders, and what workers tell."""
ARRAY = 1000
"""Jobs of one array, as many as Slurm takes where nobody has set another MaxArraySize."""
TIME_FACTOR, TIME_BESIDE = 3.0, 0.25
"""A job's time limit: the plan's hours so many times, and hours for loading."""
MEMORY_FACTOR, MEMORY_BESIDE = 1.5, 2 * GIB
"""A job's memory on a CPU: the plan's so many times, and the libraries."""
HOST_MEMORY = 8 * GIB
"""A job's memory beside a GPU, and twice what a checkpoint takes."""
UNPLANNED_HOURS, UNPLANNED_MEMORY = 12.0, 16 * GIB
"""Of work that has no plan."""
LEAST_NOTICE, MOST_NOTICE = 120, 3600
"""Seconds before its time limit at which a job is warned: three steps of its plan, within these."""

OURS = frozenset({"array", "error", "open-mode", "output", "requeue", "signal", "time", "mem"})
"""Options of sbatch that are set here."""


class Site(BaseModel):
    """What a cluster wants to know beside the plan: the file of `--slurm`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    partition: str = ""
    account: str = ""
    gpus: int | None = Field(None, ge=0)
    """Of a job; None: one where the plan is too large for a CPU."""
    gpu: Literal[tuple(DATASHEETS)] = "a100"  # type: ignore[valid-type]
    """The kind, by which the plan's hours are counted."""
    hours: float | None = Field(None, gt=0, le=8760, strict=False)
    """The time limit; None: by the plan."""
    memory_gib: float | None = Field(None, gt=0, le=2**20, strict=False)
    """None: by the plan."""
    options: dict[str, str | int | bool] = {}
    """Any others of sbatch, by their long names."""
    setup: list[str] = []
    """Lines of shell before the job, such as `module load cuda`."""

    @field_validator("options")
    @classmethod
    def _others(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
                raise ValueError(f"'{name}' is no long option of sbatch; write it without dashes before it")
            if name in OURS:
                raise ValueError(f"--{name} is set by the harness (hours and memory_gib say how much)")
        return options

    @field_validator("partition", "account", "setup")
    @classmethod
    def _one_line(cls, given: Any) -> Any:
        if any("\n" in line for line in ([given] if isinstance(given, str) else given)):
            raise ValueError("a line break; give one line an entry")
        return given


def read_site(path: str | Path) -> Site:
    """The file of `--slurm`; "": nothing is said. Raises HarnessError."""
    if not str(path):
        return Site()
    what = f"The file of --slurm, {path},"
    try:
        return Site.model_validate(read_yaml_file(Path(path), what) or {})
    except ValidationError as error:
        raise HarnessError(f"{what} is wrong at {explained(error)}.") from error


class Needs(NamedTuple):
    """What a job asks Slurm for."""

    minutes: int
    mib: int
    gpus: int
    notice: int
    """Seconds before the time limit at which it is warned."""


def needs(job: Job, site: Site) -> Needs:
    """By the job's plan where it has one, else by what the file says, else by `UNPLANNED_...`."""
    planned = getattr(job, "planned", lambda device: None)
    plan = planned(CPU_CORE)
    gpus = site.gpus if site.gpus is not None else int(plan is not None and needs_gpu([plan], CPU_CORE))
    if gpus and plan:
        plan = planned(DATASHEETS[site.gpu])
    hours, memory, step = UNPLANNED_HOURS, UNPLANNED_MEMORY, 0.0
    if plan:
        hours, step = plan.hours * TIME_FACTOR + TIME_BESIDE, plan.step_seconds
        memory = HOST_MEMORY + 2 * plan.checkpoints if gpus else plan.memory * MEMORY_FACTOR + MEMORY_BESIDE
    minutes = max(1, round((site.hours or hours) * 60))
    notice = min(max(LEAST_NOTICE, 3 * step), MOST_NOTICE, minutes * 30)
    return Needs(minutes, round(site.memory_gib * 1024 if site.memory_gib else memory / 2**20), gpus, round(notice))


def parameters(jobs: Sequence[Job], site: Site, threads: int, most: int | None) -> dict[str, Any]:
    """Of submitit's Slurm executor, for one array: the jobs of one array all get what the largest needs."""
    asked = Needs(*map(max, zip(*(needs(job, site) for job in jobs), strict=True)))
    numbers = [f"export {name}={threads}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    options = {name: value for name, value in site.options.items() if value is not False}
    found = {
        "job_name": "dpg-harness",
        "partition": site.partition or None,
        "account": site.account or None,
        "time": asked.minutes,
        "mem": f"{asked.mib}MB",
        "cpus_per_task": threads,
        "gpus_per_node": asked.gpus or None,
        "signal_delay_s": asked.notice,
        "array_parallelism": most or len(jobs),
        "additional_parameters": {"requeue": True, **options},
        "setup": [*site.setup, *numbers],
        "srun_args": [f"--cpus-per-task={threads}"],  # srun does not take it from sbatch any more
        "stderr_to_stdout": True,
    }
    return {name: value for name, value in found.items() if value is not None}


def scripts(jobs: Sequence[Job], place: Path, site: Site, threads: int, most: int | None) -> list[str]:
    """What sbatch would be given for these jobs, one script an array. Nothing is written, and no Slurm is asked."""
    check_installed()
    import sys

    from submitit.slurm.slurm import _make_sbatch_string as script

    found = []
    for start in range(0, len(jobs), ARRAY):
        part = jobs[start : start + ARRAY]
        count = {"map_count": len(part)} if len(part) > 1 else {}
        logs = place.absolute() / FOLDER / "COMMAND" / "logs"
        command = f"{sys.executable} -u -m submitit.core._submit {logs}"
        found.append(script(command=command, folder=logs, **count, **parameters(part, site, threads, most)))
    return found


def check_installed() -> None:
    """Raises HarnessError where the extra is missing."""
    if find_spec("submitit") is None:
        raise HarnessError(
            "--executor slurm needs the package submitit; install it with `pip install 'dpg-harness[slurm]'`."
        )
