"""Where work runs: options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

from harness.machine.processes import MOST_THREADS

Executor = Annotated[
    str,
    typer.Option(
        "--executor",
        help="local; ray: on the nodes of a Ray cluster (extra `ray`); slurm: as jobs of a Slurm cluster (extra "
        "`slurm`).",
    ),
]
Address = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="HOST:PORT",
        help="With --executor ray: the cluster's head, or 'auto' for the one that this machine belongs to; default: a "
        "Ray of its own on this machine.",
    ),
]
Slurm = Annotated[
    str,
    typer.Option(
        "--slurm",
        metavar="FILE",
        help="With --executor slurm: YAML with partition, account, gpus, gpu (the kind), hours, memory_gib, options "
        "(any of sbatch) and setup (lines of shell); default: what the plan says, on the default partition.",
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        "--processes",
        min=1,
        max=MOST_THREADS,
        help="With --executor ray: that share a cell, each with a GPU where there are any, as under torchrun.",
    ),
]
