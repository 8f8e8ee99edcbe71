"""Where work runs: options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Executor = Annotated[
    str, typer.Option("--executor", help="local, or ray: on the nodes of a Ray cluster (extra `ray`).")
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
