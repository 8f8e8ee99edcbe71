"""What cases are made of: calling the harness, and what they start from."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

for name, value in {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
    os.environ.setdefault(name, value)

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 24 * 2**30
"""Bytes of address space for everything; what wants more goes badly here instead of taking the machine down."""
SECRET = "sk-a-secret-that-nobody-repeats"
MARK = "what lies outside of the results"

Expected = Literal["works", "refused", "either"]


@dataclass(frozen=True)
class Case:
    """One input: `do` says whether it "works" or is "refused", and raises whatever is neither."""

    what: str
    expected: Expected
    do: Callable[[], str]


class Badly(Exception):
    """Why a case went badly."""


def call(function: Callable[..., Any], *arguments: Any, **options: Any) -> str:
    """How a function of the harness took it."""
    from harness.contracts import HarnessError

    try:
        function(*arguments, **options)
    except HarnessError as error:
        return one_sentence(str(error), 0)
    return "works"


def one_sentence(text: str, lines: int) -> str:
    if not text.strip() or text.strip().count("\n") > lines or len(text) > 6000 or "Traceback" in text:
        raise Badly(f"not one sentence: {text[-400:]!r}")
    return "refused"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    def outcome(self, good: tuple[int, ...] = (0,)) -> str:
        if "Traceback" in self.out + self.err:
            raise Badly(f"a traceback: {(self.out + self.err)[-400:]}")
        if self.code in good:
            return "works"
        if self.code != 2:
            raise Badly(f"exit code {self.code}: {self.err[-400:]}")
        return one_sentence(self.err if "Error:" in self.err else self.out, 0 if "Error:" in self.err else 9)


def command(*arguments: str) -> Said:
    """`python -m harness ARGUMENTS` in this process."""
    from harness.cli import app

    out, err = io.StringIO(), io.StringIO()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before, sys.argv = sys.argv, ["harness", *arguments]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            app.main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        sys.argv = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Said(code, out.getvalue(), err.getvalue())


def process(*arguments: str, shell: str = "", **variables: str | None) -> Said:
    """The same as a process; `shell` holds HARNESS where the command goes, variables that are None are unset."""
    python = f"{sys.executable} -m harness"
    line = shell.replace("HARNESS", python) if shell else " ".join([python, *arguments])
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | {k: v for k, v in variables.items() if v is not None}
    for name in (key for key, value in variables.items() if value is None):
        environment.pop(name, None)
    done = subprocess.run(["bash", "-c", line], cwd=ROOT, env=environment, capture_output=True, timeout=600)
    return Said(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))


QUICK = {
    "grpo.steps": 1,
    "grpo.prompts_per_step": 2,
    "grpo.rollouts_per_prompt": 2,
    "grpo.updates_per_step": 1,
    "generator.max_completion_tokens": 6,
    "validation.prompts": 4,
    "data.article_count": 32,
}
"""A cell of a second on the embedded models."""


def flags(assignments: Mapping[str, Any]) -> list[str]:
    return [part for key, value in assignments.items() for part in ("--set", f"{key}={json.dumps(value)}")]


class World:
    """What cases start from, made once in a temporary folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random, self.numbers = folder, random.Random(seed), iter(range(10**9))

    def new(self, name: str = "") -> Path:
        """A path that nothing has used yet."""
        place = self.folder / f"{next(self.numbers)}"
        place.mkdir()
        return place / name if name else place

    @cached_property
    def results(self) -> Path:
        """Three finished cells in folders: with texts, with a picture in a file and with arrays to be drawn."""
        import numpy as np

        from harness.store.record import CellStore

        runs = self.folder / "results"
        arrays = {0: {name: np.ones((6, 7)) for name in ("target", "delta")}}
        for task, reward in (("norm", "naive"), ("norm", "adam_metagrad"), ("67", "naive")):
            record = self.record(task, reward)
            store = CellStore.of(runs, record)
            row = {
                "step": 1,
                "phase": "validation",
                "measure": record.measure,
                "value": 0.5,
                "unit": "",
                "direction": "",
            }
            store.write_curves(record, [row, row | {"step": 0, "value": 0.25}])
            store.write_samples({"step": step, "index": 0, "text": "A river.", "label": "x"} for step in (0, 1))
            store.write_file(1, "drawn.png", png(8, 8))
            if task == "67":
                store.write_arrays(arrays)
            store.write(record)
        return runs

    def record(self, task: str = "norm", reward: str = "naive") -> Any:
        """A finished cell's record of quick settings."""
        record = quick_cell(task, reward).record()
        record.status, record.headline, record.floor, record.steps_done = "done", 0.5, 0.25, 1
        record.final, record.initial = {record.measure: 0.5}, {record.measure: 0.25}
        record.seconds, record.provenance = {"total": 1.0}, {"threads": 1, "commit": "c", "packages": {"torch": "2"}}
        return record

    def copy(self) -> Path:
        """The results once more, to be damaged: the cell of norm / naive; the other two stay whole."""
        runs = self.new() / "runs"
        shutil.copytree(self.results, runs)
        return runs

    @cached_property
    def model(self) -> Path:
        """The embedded generator as a folder of the user's own."""
        from harness import assets

        return Path(shutil.copytree(assets.resolve("embedded:generator"), self.folder / "model"))

    @cached_property
    def articles(self) -> list[str]:
        return [f"Article number {number} is about the river {chr(97 + number)}." for number in range(24)]

    def lines(self, rows: list[Any]) -> Path:
        path = self.new("texts.jsonl")
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    @cached_property
    def interrupted(self) -> tuple[Path, Any]:
        """(results with a cell that was stopped after its second step of three, that cell)."""
        from harness.cell import run_cell
        from harness.machine.stopping import Interrupted

        def stop(event: dict[str, Any]) -> None:
            if event.get("step") == 3:
                raise Interrupted(15)

        runs, cell = (
            self.folder / "interrupted",
            quick_cell("norm", "naive", {"grpo.steps": 3, "grpo.checkpoint_every": 1}),
        )
        with contextlib.suppress(Interrupted):
            run_cell(cell, runs, stop)
        return runs, cell


def quick_cell(task: str, reward: str, more: Mapping[str, Any] | None = None) -> Any:
    from harness.grid import cross_product
    from harness.settings.profiles import load_profile

    return cross_product(load_profile("tiny"), [task], [reward], [0], QUICK | dict(more or {}))[0]


def cell_folder(runs: Path, task: str = "norm", reward: str = "naive") -> Path:
    return next((runs / "tiny" / task / reward).glob("seed0-*"))


def png(width: int, height: int, claim: tuple[int, int] | None = None) -> bytes:
    """A white PNG; `claim`: what its header says instead, with pixels that are not there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(b"".join(b"\0" + b"\xff" * width for _ in range(height)))
    header = struct.pack(">IIBBBBB", *(claim or (width, height)), 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, removed, doubled, or the end cut off."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place, length = chance.randrange(max(1, len(changed))), chance.randint(1, 40)
        how = chance.choice(["set", "remove", "insert", "cut"])
        if how == "set" and changed:
            changed[place] = chance.randrange(256)
        elif how == "remove":
            del changed[place : place + length]
        elif how == "insert":
            changed[place:place] = chance.randbytes(length)
        else:
            del changed[place:]
    return bytes(changed)
