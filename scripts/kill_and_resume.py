"""Kills a grid again and again and lets it go on: is the outcome the same as of a run that was left alone?

    python scripts/kill_and_resume.py [--kills 50] [--signals 6] [--faults 6] [--seed 0] [--steps 4] [--folder FOLDER]

A grid of two tasks on the embedded models, a few steps of a few rollouts, runs once undisturbed and then over and over
while its process is
  killed    SIGKILL at a random moment
  torn      SIGKILL inside a write: before the flush (the file half written), between flush and rename, after the rename
  stopped   SIGTERM or SIGINT at a random moment: exit code 143 or 130, nothing left running
  full      from a random write on the disk is full, or a file may not grow any more: exit code 2 and one sentence
  readonly  from a random write on no file can be made: exit code 2 and one sentence
and started again on the same folder. After each disturbance every stored file is read and finished cells are compared
with their bytes before; where the grid reaches its end, everything but times is compared with the undisturbed run, and
the list of files too (no orphans). Prints the counts as JSON; exit code 1 where anything was lost.

Each run is a fork of one warm process, since importing the libraries takes longer than the grid.
"""

from __future__ import annotations

import argparse
import errno
import gc
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

GRID = [("norm", "adam_metagrad"), ("norm", "naive"), ("lambada_es", "levenshtein")]
TIMED = ("seconds", "floor_seconds", "provenance", "peak_memory", "device_memory")
STOPS = (signal.SIGINT, signal.SIGTERM)
WRITES = ("torn", "full", "readonly")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs, every second one inside a write")
    parser.add_argument("--signals", type=int, default=6, help="SIGTERMs and SIGINTs")
    parser.add_argument("--faults", type=int, default=6, help="full disks and read-only folders")
    parser.add_argument("--steps", type=int, default=4, help="GRPO steps a cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep the runs here (default: a temporary folder, removed)")
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="kill-and-resume-"))
    try:
        found = Trial(folder, options.steps, options.seed).run(options.kills, options.signals, options.faults)
    finally:
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found, indent=2))
    return 1 if found["lost"] else 0


def small_cells(grid: Sequence[tuple[str, str]], steps: int, seeds: Sequence[int] = (0,)) -> list[Any]:
    """Cells of `tiny` for each (task, reward) that take a second or two and store all that a cell stores."""
    from harness.planning.cells import Cell
    from harness.settings.profiles import load_profile, resolve

    settings = {
        "grpo.steps": steps,
        "grpo.prompts_per_step": 2,
        "grpo.rollouts_per_prompt": 2,
        "grpo.updates_per_step": 1,
        "grpo.checkpoint_every": 1,
        "generator.max_completion_tokens": 8,
        "validation.prompts": 4,
        "validation.every": 2,
        "data.article_count": 32,
    }
    found = []
    for task, reward in grid:
        more = {"task.options.metric_examples": 4} if task.startswith("lambada") else {}
        resolved = resolve(load_profile("tiny"), task, reward, settings | more)
        found += [Cell("tiny", task, reward, seed, resolved) for seed in seeds]
    return found


class Trial:
    """One undisturbed run in `folder`/whole, then disturbed ones in `folder`/cut."""

    def __init__(self, folder: Path, steps: int, seed: int) -> None:
        from harness.machine.libraries import quiet

        self.whole, self.cut = folder / "whole", folder / "cut"
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.lost: list[str] = []
        self.cells = small_cells(GRID, steps)
        import harness.training.grpo  # noqa: F401  the slow imports, once
        import rewards.metagradient  # noqa: F401
        from harness.planning.preflight import preflight

        quiet()
        preflight(self.cells, folder)
        gc.collect()
        gc.freeze()  # else a child's collections copy and go through all that was imported

    # ------------------------------------------------------------------------------------------------------- one run

    def start(self, runs: Path, disturb: Any = None) -> tuple[int, Path]:
        """A child that runs the grid; (pid, the file that holds what it said on stderr)."""
        said = runs.with_suffix(".err")
        sys.stdout.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # a signal waits until the child has its handlers
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            return pid, said
        code = 70
        try:
            handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, 2)
            os.dup2(handle, 1)
            code = self.child(runs, disturb)
        finally:
            os._exit(code)

    def child(self, runs: Path, disturb: Any) -> int:
        """What `python -m harness run --workers 0` does, with the command's exit codes."""
        import traceback

        from harness.contracts import HarnessError
        from harness.machine.stopping import Interrupted, request_stop
        from harness.workers.grid import run_grid
        from harness.workers.local import InProcess
        from reports.store import store_tables

        for number in STOPS:
            signal.signal(number, request_stop)
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            if disturb:
                disturb()
            run_grid(self.cells, runs, lambda cell, event: None, InProcess())
            store_tables(runs / "tiny")
            for number in STOPS:
                signal.signal(number, signal.SIG_IGN)  # it is over
            return 0
        except Interrupted as stop:
            return 128 + stop.args[0]
        except HarnessError as error:
            sys.stderr.write(f"Error: {error}\n")
            sys.stderr.flush()
            return 2
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            return 1

    def disturbed(self, kind: str, span: float, writes: int) -> int:
        """One run of the cut grid with one disturbance; its exit code (negative: killed by that signal)."""
        at_write = self.random.randrange(1, max(2, writes // 2)) if kind in WRITES else 0
        how = self.random.randrange(3)
        disturb = {
            "torn": lambda: die_in_write(at_write, how),
            "full": lambda: fill_disk(at_write, how),
            "readonly": lambda: forbid_files(at_write),
        }.get(kind)
        pid, self.said = self.start(self.cut, disturb)
        if kind in ("killed", "stopped"):
            time.sleep(self.random.uniform(0, span))
            number = signal.SIGKILL if kind == "killed" else self.random.choice([signal.SIGTERM, signal.SIGINT])
            os.kill(pid, number)  # our own child: it cannot have been replaced before we wait for it
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    # ------------------------------------------------------------------------------------------------------ the trial

    def run(self, kills: int, signals: int, faults: int) -> dict[str, Any]:
        began = time.monotonic()
        counter = self.whole.parent / "writes"
        pid, _ = self.start(self.whole, lambda: count_writes(counter))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if code:
            said = self.whole.with_suffix(".err").read_text()
            raise SystemExit(f"The undisturbed run ended with code {code}: {said}")
        span, writes = time.monotonic() - began, counter.stat().st_size
        self.expected = outcome(self.whole)
        todo = ["killed"] * (kills - kills // 2) + ["torn"] * (kills // 2) + ["stopped"] * signals
        todo += ["full"] * (faults - faults // 2) + ["readonly"] * (faults // 2)
        self.random.shuffle(todo)
        while todo:
            kind = todo.pop()
            before = finished(self.cut)
            code = self.disturbed(kind, span / 2, writes)
            if code == 0:  # it had ended before: that is a finished grid, and the disturbance is still owed
                todo.append(kind)
                self.random.shuffle(todo)
                self.compare()
                continue
            self.counts[kind] += 1
            self.check(kind, code, before)
        self.counts["resumed to the end"] += 1
        pid, self.said = self.start(self.cut)
        if code := os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
            self.lost.append(f"the last run ended with code {code}: {self.said.read_text()[-300:]}")
        else:
            self.compare()
        return {
            "disturbances": dict(self.counts),
            "cells": len(self.cells),
            "writes_of_a_run": writes,
            "undisturbed_seconds": round(span, 1),
            "seconds": round(time.monotonic() - began, 1),
            "lost": self.lost,
        }

    def check(self, kind: str, code: int, before: dict[str, dict[str, bytes]]) -> None:
        """After a disturbance: the exit code, one sentence where due, all files whole, finished cells as before."""
        from harness.store.frames import find_cells, load

        said = self.said.read_text() if self.said.exists() else ""
        expected = {"killed": (-9,), "torn": (-9,), "stopped": (143, 130)}.get(kind, (2,))
        if code not in expected:
            self.lost.append(f"{kind}: exit code {code}, expected {expected}: {said[-300:]}")
        if kind in ("full", "readonly") and (said.count("\n") != 1 or not said.startswith("Error: Cannot write")):
            self.lost.append(f"{kind}: not one sentence: {said[-300:]}")
        try:
            if self.cut.exists():
                load(self.cut)
                for cell in find_cells(self.cut):
                    cell.samples(), cell.arrays()
                for path in self.cut.rglob("*.json"):
                    if not in_the_making(path.relative_to(self.cut)):
                        json.loads(path.read_text())
        except Exception as error:
            self.lost.append(f"{kind}: a stored file is damaged: {error}")
        now = finished(self.cut)
        for cell, files in before.items():
            if now.get(cell) != files:
                self.lost.append(f"{kind}: the finished cell {cell} has changed")

    def compare(self) -> None:
        """The grid has reached its end: the same outcome and the same files as undisturbed? Then all over again."""
        self.counts["grids compared"] += 1
        found = outcome(self.cut)
        for name, value in self.expected.items():
            if found.get(name) != value:
                self.lost.append(f"{name} differs from the undisturbed run")
        for name in found.keys() - self.expected.keys():
            self.lost.append(f"an orphan: {name}")
        shutil.rmtree(self.cut)


# --------------------------------------------------------------------------------------------------------- disturbances


def count_writes(counter: Path) -> None:
    """Every flush adds a byte to `counter`."""
    flush, handle = os.fsync, os.open(counter, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.fsync = lambda file: (os.write(handle, b"."), flush(file))[1]


def die_in_write(number: int, how: int) -> None:
    """SIGKILL at the `number`-th flush: before it with half the file (0), after it (1), after the next rename (2)."""
    flush, replace, seen = os.fsync, os.replace, [0]

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def fsync(file: int) -> None:
        seen[0] += 1
        if seen[0] == number and how == 0:
            try:
                os.truncate(f"/proc/self/fd/{file}", os.fstat(file).st_size // 2)
            except OSError:
                pass  # a folder, or no Linux: nothing to cut
            die()
        flush(file)
        if seen[0] == number and how == 1:
            die()

    def rename(*names: Any) -> None:
        replace(*names)
        if seen[0] >= number and how == 2:
            die()

    os.fsync, os.replace = fsync, rename


def fill_disk(number: int, how: int) -> None:
    """From the `number`-th flush on nothing can be written: ENOSPC, or (how 2) files may not grow past 10 kB."""
    flush, seen = os.fsync, [0]

    def fsync(file: int) -> None:
        seen[0] += 1
        if seen[0] >= number and how == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        elif seen[0] >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        flush(file)

    os.fsync = fsync


def forbid_files(number: int) -> None:
    """From the `number`-th temporary file on none can be made, as in a read-only folder (root may write there)."""
    make, seen = tempfile.mkstemp, [0]

    def mkstemp(*arguments: Any, **options: Any) -> Any:
        seen[0] += 1
        if seen[0] >= number and "dir" in options:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return make(*arguments, **options)

    tempfile.mkstemp = mkstemp


# ------------------------------------------------------------------------------------------------------------- outcomes


def outcome(runs: Path) -> dict[str, Any]:
    """File -> its content without times, memory and provenance. Hidden files count: they would be orphans."""
    import pandas

    found: dict[str, Any] = {}
    for path in sorted(item for item in runs.rglob("*") if item.is_file()):
        name = str(path.relative_to(runs))
        if path.name == "cell.json":
            record = json.loads(path.read_text())
            found[name] = {key: value for key, value in record.items() if not key.startswith(TIMED)}
        elif path.suffix == ".parquet":
            frame = pandas.read_parquet(path)
            if "measure" in frame and "step" in frame:
                frame = frame[~frame["measure"].str.startswith("seconds")]
            found[name] = frame[[column for column in frame if not column.startswith(TIMED)]].to_csv(index=False)
        elif path.name == "table.md":
            found[name] = None  # holds seconds; made from the same tables
        else:
            found[name] = path.read_bytes()
    return found


def in_the_making(place: Path) -> bool:
    """Whether it lies in a temporary folder, which becomes a generator's as a whole or never. The next run removes one
    that was left, and `compare` calls what it does not remove an orphan."""
    return any(part.startswith(".") and part.endswith(".tmp") for part in place.parts)


def finished(runs: Path) -> dict[str, dict[str, bytes]]:
    """Finished cell -> file -> bytes, without what its owner may not have tidied up yet."""
    cells = {}
    for path in runs.rglob("cell.json") if runs.exists() else []:
        if json.loads(path.read_text())["status"] == "done":
            files = [item for item in path.parent.rglob("*") if item.is_file() and not item.name.startswith(".")]
            kept = [item for item in files if "checkpoints" not in item.parts]
            cells[str(path.parent)] = {str(item): item.read_bytes() for item in kept}
    return cells


if __name__ == "__main__":
    sys.exit(main())
