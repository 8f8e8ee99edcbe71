"""The command line, run in this process (quick: for what it says) or as one of its own (for signals and workers)."""

from __future__ import annotations

import io
import multiprocessing
import multiprocessing.context
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""


class Finished(NamedTuple):
    code: int
    out: str
    err: str


def run_harness(*arguments: str, cwd: Path, width: int = 120) -> Finished:
    """`python -m harness ARGUMENTS` in `cwd`, without a process of its own; tables are `width` characters wide."""
    from harness.cli import app

    out, err = io.StringIO(), io.StringIO()
    usual, app.console.width = app.console.width, width
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with (
        chdir(cwd),
        patch.object(sys, "argv", ["harness", *arguments]),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            app.main()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code
        finally:
            app.console.width = usual
            for number, handler in handlers.items():
                signal.signal(number, handler)
    return Finished(code, out.getvalue(), err.getvalue())


def start(command: Sequence[str], cwd: Path, **more: str) -> subprocess.Popen[str]:
    """Python with these arguments, importing this checkout; more variables of its environment as keywords."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "120"} | more
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=cwd,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def start_harness(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """`python -m harness ARGUMENTS` in `cwd` as a process."""
    return start(["-m", "harness", *arguments], cwd)


def forked() -> multiprocessing.context.ForkServerContext:
    """Makes processes as copies of one that has imported what trains, which takes longer than what they then do. It
    starts with the first of them. At their end nothing is called that `atexit` registered."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["harness.training.grpo", "rewards.metagradient.testing"])
    return context


def python(code: str, *arguments: str) -> str:
    """What a fresh interpreter prints that runs `code`; it must end well."""
    process = start(["-c", code, *arguments], ROOT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.strip()


def flags(assignments: Mapping[str, Any]) -> list[str]:
    """`--set KEY=VALUE` for each; None is left out."""
    return [part for key, value in assignments.items() if value is not None for part in ("--set", f"{key}={value}")]
