"""Odd and hostile inputs by the thousand: each is handled, or refused in one sentence, and what should work does.

    python scripts/odd_input.py [--only ranges,results] [--share 1.0] [--seed 0] [--patience 120] [--out FILE.json]

Every class of inputs is a generator of `Case`s below, in the order of what may go wrong: what leaks, what is silently
wrong, what stops a command, what takes the machine down, what is shown to people, numbers out of range, checkpoints,
surroundings. A case says what has to come of it: `works`, `refused` or, where both are right, `either`. Anything else,
a traceback and a case that takes longer than `--patience` seconds count as badly. Commands run in this process, but
where the process itself is what is tried. Prints a table and the total; exit code 1 where anything went badly.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

for name, value in {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}.items():
    os.environ.setdefault(name, value)

ROOT = Path(__file__).resolve().parents[1]
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


# ------------------------------------------------------------------------------------------------- calling the harness


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


# ----------------------------------------------------------------------------------------------------------- the world

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


# --------------------------------------------------------------------------------------------- what leaks (1 and 2)


class Listener:
    """A host that must not be asked; it answers as a judge would and keeps what it heard."""

    def __init__(self) -> None:
        heard = self.heard = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append(f"{self.headers} {self.rfile.read(int(self.headers['Content-Length'] or 0))!r}")
                body = json.dumps({"choices": [{"message": {"content": "Spanish"}}]}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


def keys(world: World) -> Iterator[Case]:
    """Records and profiles from elsewhere that name a host and a variable."""
    from harness.store.record import CellStore

    listener = Listener()
    secrets = {"MY_SECRET": SECRET, "OPENAI_API_KEY": SECRET, "HF_TOKEN": SECRET, "NO_PROXY": "127.0.0.1"}

    def unheard(said: Said) -> str:
        outcome = said.outcome()
        if listener.heard:
            raise Badly(f"{len(listener.heard)} requests went out, the key {SECRET in str(listener.heard)}")
        return outcome

    def rerun(options: dict[str, Any]) -> str:
        listener.heard.clear()
        runs, cell = (
            world.new(),
            quick_cell("lambada_es", "levenshtein", {f"task.options.{k}": v for k, v in options.items()}),
        )
        record = world.record().model_copy(update=cell.record().model_dump(exclude={"status"}))
        CellStore.of(runs, record).write(record)
        with patch.dict(os.environ, secrets):
            return unheard(command("rerun", str(runs)))

    def profile(options: dict[str, Any], place: str) -> str:
        listener.heard.clear()
        tiny = ROOT / "harness" / "profiles" / "tiny"
        folder = world.new()
        for file in tiny.iterdir():
            shutil.copy(file, folder)
        entry = {f"task.options.{key}": value for key, value in options.items()}
        path = folder / "pairs.yaml"
        path.write_text(json.dumps({"pairs": {"lambada_es": {"levenshtein": entry}}}))
        given = ["--profile", str(folder), "--task", "lambada_es", "--reward", "levenshtein", "--workers", "0"]
        with patch.dict(os.environ, secrets):
            return unheard(
                command("run", *given, "--out", str(world.new()), *flags(QUICK), *([place] if place else []))
            )

    for path, variable, model in product(
        ["", "/v1", "/v1/"], ["MY_SECRET", "OPENAI_API_KEY", "HF_TOKEN", "PATH", "HOME"], ["m", ""]
    ):
        options = {"judge": "openai", "judge_base_url": listener.url + path, "judge_key_variable": variable}
        options |= {"judge_model": model} if model else {}
        yield Case(f"rerun of a record with {variable} to {path}", "refused", lambda options=options: rerun(options))
        if not path:
            yield Case(f"a profile with {variable}", "refused", lambda options=options: profile(options, ""))
    yield Case("a profile that asks nobody", "works", lambda: profile({}, ""))


def links(world: World) -> Iterator[Case]:
    """Files of results that lead out of their folder."""
    secret = world.folder / "outside"
    secret.mkdir(exist_ok=True)
    (secret / "samples.jsonl").write_text(json.dumps({"step": 1, "index": 0, "text": MARK}) + "\n")
    (secret / "cell.json").write_text(
        world.record().model_copy(update={"reason": MARK, "variant": "T=8"}).model_dump_json()
    )
    (secret / "drawn.png").write_bytes(png(9, 9))
    (secret / "error.txt").write_text(MARK)

    def report(name: str, target: Path | str, kind: str) -> str:
        runs = world.copy()
        place = cell_folder(runs) / name
        if place.is_file():
            place.unlink()
        elif place.is_dir():
            shutil.rmtree(place)
        os.link(target, place) if kind == "hard" else place.symlink_to(target)
        site = world.new()
        outcome = [
            command("table", str(runs)),
            command("report", str(runs), "--out", str(site)),
            command("diff", str(runs), str(runs)),
        ]
        shown = "".join(said.out + said.err for said in outcome)
        pages = b"".join(path.read_bytes() for path in site.rglob("*") if path.is_file())
        if MARK in shown or MARK.encode() in pages or png(9, 9) in pages:
            raise Badly("what lies outside is shown")
        codes = (0,), (0,), (0, 1, 2)  # of `diff` 2 also says that rows could not be compared
        return [said.outcome(fine) for said, fine in zip(outcome, codes, strict=True)][1]

    targets: dict[str, list[Path | str]] = {
        "samples.jsonl": [secret / "samples.jsonl", "/etc/passwd", "/dev/zero", "../../nowhere"],
        "cell.json": [secret / "cell.json", "/etc/passwd", "/proc/self/environ"],
        "curves.parquet": ["/etc/passwd", "/dev/null", secret / "samples.jsonl"],
        "arrays.parquet": ["/etc/hostname", secret / "drawn.png"],
        "step-1": [secret, "/etc", "/"],
        "step-1/drawn.png": [secret / "drawn.png", "/etc/passwd"],
        "step-1/other.png": [secret / "drawn.png"],
        "error.txt": [secret / "error.txt"],
    }
    for name, places in targets.items():
        for target in places:
            yield Case(
                f"{name} leads to {target}", "either", lambda name=name, target=target: report(name, target, "soft")
            )
    yield Case("a results folder behind a link", "works", lambda: linked_folder(world))


def linked_folder(world: World) -> str:
    place = world.new("runs")
    place.symlink_to(world.results)
    return command("table", str(place)).outcome()


# ------------------------------------------------------------------------------------- what is silently wrong (3 to 5)


def weights(world: World) -> Iterator[Case]:
    """Models whose tensors are not those of their architecture."""
    from safetensors.torch import load_file, save_file

    from harness import assets

    whole = load_file(world.model / "model.safetensors")

    def load(change: Callable[[dict[str, Any]], None]) -> str:
        folder = world.new() / "model"
        shutil.copytree(world.model, folder)
        tensors = dict(whole)
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

        def both() -> None:
            assets.check_model(str(folder))
            assets.load_model(str(folder))

        return call(both)

    def rename(name: str, to: str) -> Callable[[dict[str, Any]], None]:
        return lambda tensors: tensors.update({to: tensors.pop(name)})

    names = sorted(whole)
    for name in names[::3]:
        yield Case(f"without {name}", "refused", lambda name=name: load(lambda t: t.pop(name)))
        yield Case(f"{name} renamed", "refused", lambda name=name: load(rename(name, f"old.{name}")))
        cut = lambda t, name=name: t.update({name: t[name][:-1].clone()})
        yield Case(f"{name} of another shape", "refused", lambda cut=cut: load(cut))
    for number in range(10):
        extra = lambda t, number=number: t.update(
            {f"transformer.h.{90 + number}.extra.weight": whole[names[0]].clone()}
        )
        yield Case(f"unexpected tensor {number}", "refused", lambda extra=extra: load(extra))
    yield Case("all renamed", "refused", lambda: load(lambda t: [t.update({f"x.{n}": t.pop(n)}) for n in list(t)]))
    yield Case("as it is", "works", lambda: load(lambda t: None))
    yield Case("in another order", "works", lambda: load(lambda t: [t.update({n: t.pop(n)}) for n in reversed(names)]))


def trained(world: World, function: Callable[[int], Any], *, task: str = "norm") -> tuple[Said, Any]:
    """The command's end and the record of one quick cell whose reward returns `function(completions)`."""
    from harness.registry import REWARDS, register_reward
    from harness.store.frames import find_cells

    name = f"odd_{next(world.numbers)}"
    REWARDS.names()
    register_reward(name, summary="odd")(
        lambda context: lambda prompts, completions, completion_ids, **columns: function(len(completions))
    )
    runs = world.new()
    said = command("run", "--task", task, "--reward", name, "--workers", "0", "--out", str(runs), *flags(QUICK))
    cells = find_cells(runs)
    return said, (cells[0].read(), cells[0].curves()) if cells else (None, None)


def scales(world: World) -> Iterator[Case]:
    """Rewards of every size that a float has."""

    def run(scale: float, offset: float) -> str:
        said, (record, curves) = trained(world, lambda n: [offset + scale * k for k in range(n)])
        if record is None or record.status not in ("done", "failed"):
            raise Badly(f"the cell is {record and record.status}: {said.err[-300:]}")
        if record.status == "failed":
            return "refused" if said.code == 1 and record.reason else Badly("no reason")
        norm = curves.loc[curves["measure"] == "grad_norm", "value"]
        if record.zero_spread or not (norm > 0).any():
            raise Badly(f"done, with zero spread {record.zero_spread} and gradients {norm.tolist()}")
        return said.outcome()

    for power in range(-320, 309, 17):
        usual: Expected = "works" if -30 < power < 30 else "either"
        yield Case(f"rewards near 1e{power}", usual, lambda power=power: run(float(f"1e{power}"), 0.0))
        yield Case(f"rewards near -1e{power}", usual, lambda power=power: run(-float(f"1e{power}"), 0.0))


def returns(world: World) -> Iterator[Case]:
    """What rewards return and raise, and texts that are none."""
    import numpy as np
    import torch

    def leave(error: BaseException) -> Callable[[int], Any]:
        def reward(count: int) -> Any:
            raise error

        return reward

    def run(function: Callable[[int], Any]) -> str:
        said, (record, _) = trained(world, function)
        if record is None or record.status not in ("done", "failed"):
            raise Badly(f"code {said.code}, the cell is {record and record.status}: {said.err[-300:]}")
        if record.status == "failed" and (said.code != 1 or not record.reason):
            raise Badly(f"failed with code {said.code} and the reason {record.reason!r}")
        return "works" if record.status == "done" and said.code == 0 else "refused"

    good = {
        "floats": lambda n: [float(k) for k in range(n)],
        "whole numbers": lambda n: list(range(n)),
        "NumPy floats": lambda n: list(np.arange(n, dtype=np.float32)),
        "an array": lambda n: np.arange(n, dtype=float),
        "a tensor": lambda n: torch.arange(n).float(),
        "a tuple": lambda n: tuple(range(n)),
        "tensors": lambda n: list(torch.arange(n).float()),
    }
    bad = {
        "a dict": lambda n: dict.fromkeys(range(n), 0.5),
        "a dict of texts": lambda n: {str(k): 0.5 for k in range(n)},
        "a set": lambda n: set(range(n)),
        "a text": lambda n: "1" * n,
        "bytes": lambda n: bytes(range(n)),
        "texts": lambda n: ["0.5"] * n,
        "a number": lambda n: 0.5,
        "nothing": lambda n: None,
        "too few": lambda n: [0.5] * (n - 1),
        "too many": lambda n: [0.5] * (n + 1),
        "none at all": lambda n: [],
        "nested": lambda n: [[0.5]] * n,
        "complex": lambda n: [1j] * n,
        "a plane": lambda n: np.zeros((n, 2)),
        "objects": lambda n: [object()] * n,
        "NaN": lambda n: [float("nan")] * n,
        "infinity": lambda n: [float("inf")] + [0.0] * (n - 1),
        "huge": lambda n: [10**400] * n,
        "exit 0": leave(SystemExit(0)),
        "exit 1": leave(SystemExit(1)),
        "exit with words": leave(SystemExit("bye")),
        "exit": leave(SystemExit()),
        "a generator's end": leave(GeneratorExit()),
        "no more": leave(StopIteration()),
        "out of memory": leave(MemoryError()),
        "too deep": leave(RecursionError("deep")),
        "assertion": leave(AssertionError()),
        "lone surrogate": leave(ValueError("bad \ud800 text")),
        "lines": leave(ValueError("one\ntwo\x1b[31m")),
        "a megabyte": leave(ValueError("x" * 2**20)),
        "no text": leave(ValueError()),
        "an error that cannot be shown": leave(type("E", (Exception,), {"__str__": lambda self: 1 / 0})()),
    }
    for name, function in good.items():
        yield Case(f"a reward returns {name}", "works", lambda function=function: run(function))
    for name, function in bad.items():
        yield Case(f"a reward returns or raises {name}", "refused", lambda function=function: run(function))
    yield from parquets(world)


def parquets(world: World) -> Iterator[Case]:
    """Tables of texts whose texts are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def run(values: list[Any], kind: Any, option: str) -> str:
        path = world.new("texts.parquet")
        pq.write_table(pa.table({"text": pa.array(values, type=kind)}), path)
        given = ["--task", "lambada_es", "--reward", "levenshtein", "--workers", "0", "--out", str(world.new())]
        chosen = {option: str(path)} | ({"data.validation_articles": str(path)} if option == "data.articles" else {})
        return command("run", *given, *flags(QUICK | chosen)).outcome()

    texts = world.articles
    tables = {
        "nulls": ([None] * 24, pa.string()),
        "some nulls": ([*texts[:20], None], pa.string()),
        "whole numbers": (list(range(24)), pa.int64()),
        "numbers": ([0.5] * 24, pa.float64()),
        "truth": ([True] * 24, pa.bool_()),
        "bytes": ([b"\xff\xfe"] * 24, pa.binary()),
        "lists": ([["a"]] * 24, pa.list_(pa.string())),
        "empty texts": ([""] * 24, pa.string()),
        "blanks": ([" \n"] * 24, pa.string()),
        "none": ([], pa.string()),
        "only null": ([None] * 24, pa.null()),
    }
    for (name, (values, kind)), option in product(tables.items(), ("data.articles", "data.references")):
        yield Case(f"{option} of {name}", "refused", lambda a=(values, kind, option): run(*a))
    yield Case("articles of texts", "works", lambda: run(texts, pa.string(), "data.articles"))
    yield Case("articles of large texts", "works", lambda: run(texts, pa.large_string(), "data.articles"))


# ------------------------------------------------------------------------------------------ what stops it (6 to 9)

ENDS = [
    "\x85",
    "\u2028",
    "\u2029",
    "\x0b",
    "\x0c",
    "\x1c",
    "\x1d",
    "\x1e",
    "\r",
    "\n",
    "\r\n",
    "\t",
    "\ufeff",
    "\0",
    '"',
    "\\",
]


def line_ends(world: World) -> Iterator[Case]:
    """Texts with whatever somebody might take for the end of a line: stored, read, packed and shown."""
    from harness import assets
    from harness.store.lines import as_lines, read_lines
    from harness.store.record import CellStore

    def text() -> str:
        return (
            "A"
            + "".join(world.random.choice([*ENDS, "river ", "ü", "🙂"]) for _ in range(world.random.randint(1, 9)))
            + "z"
        )

    def stored(texts: list[str]) -> str:
        store = CellStore(world.new())
        rows = [{"step": 0, "index": place, "text": each} for place, each in enumerate(texts)]
        store.write_samples(rows)
        if store.samples() != rows:
            raise Badly("other texts come back")
        return "works"

    def given(texts: list[str]) -> str:
        path = world.new("texts.jsonl")
        path.write_text(as_lines({"text": each} for each in texts), encoding="utf-8", newline="")
        if assets.texts(str(path), split=None) != texts or [row["text"] for row in read_lines(path)] != texts:
            raise Badly("other texts come back")
        return "works"

    def shown(texts: list[str]) -> str:
        runs = world.copy()
        store = CellStore(cell_folder(runs))
        store.write_samples({"step": 1, "index": place, "text": each} for place, each in enumerate(texts))
        site, study = world.new(), world.new() / "study"
        said = (
            command("report", str(runs), "--out", str(site)),
            command("pack", str(runs), str(study)),
            command("table", str(study)),
        )
        return max(each.outcome() for each in said[::-1]) if (site / "index.html").exists() else "refused"

    for number in range(130):
        texts = [text() for _ in range(3)]
        yield Case(f"samples {number}", "works", lambda texts=texts: stored(texts))
        yield Case(f"a data file {number}", "works", lambda texts=texts: given(texts))
    for end in ENDS:
        yield Case(f"a page with {end!r}", "works", lambda end=end: shown([f"A{end}z", end, end * 3]))


def labels(world: World) -> Iterator[Case]:
    """What tasks label rollouts with."""
    import datetime
    import decimal
    from dataclasses import replace

    import numpy as np

    from harness.registry import TASKS

    def run(make: Callable[[int], Any]) -> str:
        task = TASKS.get("norm").factory
        usual = task.evaluate

        def evaluate(self: Any, rollouts: Any, inner: Any) -> Any:
            return replace(usual(self, rollouts, inner), labels={"odd": [make(k) for k in range(len(rollouts))]})

        task.evaluate = evaluate
        try:
            said, (record, _) = trained(world, lambda n: list(range(n)))
        finally:
            task.evaluate = usual
        if (
            record is None
            or record.status not in ("done", "failed")
            or (record.status == "failed" and not record.reason)
        ):
            raise Badly(f"code {said.code}, the cell is {record and record.status}: {said.err[-300:]}")
        if said.code not in (0, 1):
            raise Badly(f"exit code {said.code}: {said.err[-300:]}")
        return "works" if record.status == "done" else "refused"

    for name, make in {
        "texts": lambda k: "x",
        "numbers": lambda k: k,
        "truth": lambda k: True,
        "nothing": lambda k: None,
    }.items():
        yield Case(f"labels that are {name}", "works", lambda make=make: run(make))
    odd: dict[str, Callable[[int], Any]] = {
        "NumPy integers": np.int64,
        "NumPy floats": np.float32,
        "NumPy truth": lambda k: np.bool_(True),
        "objects": lambda k: object(),
        "lone surrogates": lambda k: "\ud800",
        "bytes": lambda k: b"x",
        "NaN": lambda k: float("nan"),
        "infinity": lambda k: float("inf"),
        "sets": lambda k: {k},
        "complex": lambda k: 1j,
        "dates": lambda k: datetime.date(2026, 1, 1),
        "decimals": lambda k: decimal.Decimal("0.1"),
        "types": lambda k: int,
        "arrays": lambda k: np.arange(3),
        "dicts with odd keys": lambda k: {(1, 2): 3},
        "huge": lambda k: 10**5000,
        "nested": lambda k: deep(3000),
        "Path": lambda k: Path("x"),
        "lists": lambda k: [k, [k]],
        "control": lambda k: "\x1b[2J\0",
    }
    for name, make in odd.items():
        yield Case(f"labels that are {name}", "either", lambda make=make: run(make))


def deep(levels: int) -> Any:
    found: Any = 0
    for _ in range(levels):
        found = [found]
    return found


VALUES = [
    None,
    True,
    -1,
    0,
    2**64,
    -(2**70),
    1e308,
    "",
    "x",
    "\ud800",
    "x" * 3000,
    [],
    [1],
    {},
    {"a": 1},
    [[[]]],
    "nan",
    1.5,
]


def damaged(world: World) -> Iterator[Case]:
    """Results that are not as they were stored: such a cell is a row, the rest is reported."""
    chance = world.random
    files = ["cell.json", "curves.parquet", "samples.jsonl", "step-1/drawn.png"]
    everywhere: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda data: b"",
        "cut": lambda data: data[: len(data) // 2],
        "with a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
        "no UTF-8": lambda data: data[:10] + b"\xff\xfe" + data[10:],
        "blank lines": lambda data: b"\n \n" + data + b"\n\n",
        "not JSON": lambda data: b"hello",
        "nested 200 deep": lambda data: b"[" * 200 + b"]" * 200,
        "nested 5,000 deep": lambda data: b"[" * 5000 + b"]" * 5000,
        "a number": lambda data: b"7",
        "6,000 digits": lambda data: b"9" * 6000,
        "null": lambda data: b"null\n",
        "zeros": lambda data: bytes(len(data)),
    }

    def look(change: Callable[[Path], None], commands: tuple[str, ...]) -> str:
        runs = world.copy()
        change(cell_folder(runs))
        for name in commands:
            site = world.new()
            arguments = {"report": ["--out", str(site)], "diff": [str(world.results)]}.get(name, [])
            said = command(name, str(runs), *arguments)
            said.outcome((0, 1, 2) if name == "diff" and "verdict" in said.out else (0,)) == "works" or fail(said.err)
            if name == "table" and "adam_metagrad" not in said.out:
                raise Badly("the other cells are not shown")
            if name == "report" and not (site / "index.html").exists():
                raise Badly("there is no page")
        return "works"

    def rewritten(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        return lambda cell: (cell / name).write_bytes(change((cell / name).read_bytes())) and None

    for name, (how, change) in product(files, everywhere.items()):
        for commands in (("table",), ("diff",), ("report",)):
            given = rewritten(name, change), commands
            yield Case(f"{commands[0]} of {name} {how}", "works", lambda given=given: look(*given))
    for number in range(220):
        name, seed = files[number % len(files)], chance.random()
        change = rewritten(name, lambda data, seed=seed: mutated(data, random.Random(seed)))
        commands = ("report",) if number % 7 == 0 else ("table", "diff")
        yield Case(f"mutation {number} of {name}", "works", lambda a=(change, commands): look(*a))
    record = world.record().model_dump()
    for key, value in product(record, VALUES):
        edit = lambda cell, key=key, value=value: (
            (cell / "cell.json").write_text(json.dumps(record | {key: value})) and None
        )
        commands = ("report",) if chance.random() < 0.06 else ("table", "diff")
        yield Case(f"a record with {key}={str(value)[:20]!r}", "works", lambda a=(edit, commands): look(*a))
    sample = {"step": 1, "index": 0, "text": "A river."}
    for key, value in product([*sample, "label"], VALUES):
        edit = lambda cell, row=sample | {key: value}: (cell / "samples.jsonl").write_text(json.dumps(row)) and None
        yield Case(f"a sample with {key}={str(value)[:20]!r}", "works", lambda edit=edit: look(edit, ("report",)))
    for name in files[1:]:
        yield Case(
            f"without {name}", "works", lambda name=name: look(lambda cell: (cell / name).unlink(), ("table", "report"))
        )


def fail(why: str) -> None:
    raise Badly(why[-400:])


LONG, DEEP = "x" * 300, "x/" * 2500
PATHS = [
    "/",
    "",
    ".",
    "..",
    LONG,
    DEEP,
    "~",
    "~nobody/x",
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/proc/self/mem",
    "/proc",
    "embedded:",
    "embedded:../x",
    f"embedded:{LONG}",
    "a@b@c",
    "@",
    "-",
    " ",
    "\udc80",
    "%s",
    "🙂" * 99,
    "*",
    "a b",
    "a//b",
    "x.jsonl",
    f"{LONG}.jsonl",
    "x.parquet",
    "/etc/passwd",
    "/root/.bashrc",
    "https://example.invalid/x",
    "../" * 60,
    "\x1b[2J",
]
"""No model, no texts and no results."""


def arguments(world: World) -> Iterator[Case]:
    """What stands on the command line and in files that it names."""
    pair = ["--task", "norm", "--reward", "naive", "--workers", "0", *flags(QUICK)]
    run = lambda *more, task="norm": command("run", *pair, "--task", task, *more, "--out", str(world.new())).outcome()
    keys = ["generator.model", "target.model", "data.articles", "data.validation_articles"]
    for key, path in product(keys, PATHS):
        empty = path.strip() in ("", "~")  # no value, to YAML: validation articles are held out then
        expected: Expected = "either" if empty and key == "data.validation_articles" else "refused"
        yield Case(f"{key}={path[:30]!r}", expected, lambda a=f"{key}={path}": run("--set", a))
    for path in PATHS:
        yield Case(
            f"pattern {path[:30]!r}",
            "either" if path.strip() in ("", "~") else "refused",
            lambda a=path: run("--set", f"task.options.pattern={a}", task="67"),
        )
        yield Case(f"profile {path[:30]!r}", "refused", lambda a=path: run("--profile", a))
        if path not in ("/", ".", "..", "../" * 60, "~", "/proc"):  # all results of the machine may lie below these
            for name in ("table", "rerun", "report"):
                more = ["--out", str(world.folder / "page")] if name == "report" else []
                yield Case(
                    f"{name} {path[:30]!r}",
                    "either",
                    lambda a=(name, "--", path), m=more: command(*m[:0], a[0], *m, *a[1:]).outcome(),
                )
    for out in ("/dev/null", "/dev/null/x", LONG, DEEP, "/proc/x", "/sys/x"):
        yield Case(f"--out {out[:20]}", "refused", lambda out=out: command("run", *pair, "--out", out).outcome())
    plan = lambda *more: command("run", "--task", "norm", "--reward", "naive", "--dry-run", *more).outcome()
    for text in (
        "0-99999999999",
        "0-10000",
        "-1",
        "1-",
        "-",
        ",",
        "a",
        "1.5",
        "9" * 6000,
        "4294967296",
        "3-1",
        "0x10",
        "１",
        "1,,2",
        "",
        "1e3",
    ):
        yield Case(
            f"--seeds {text[:20]}", "either" if text == "１" else "refused", lambda text=text: plan(f"--seeds={text}")
        )
    for text in ("0", "0-4", "1,2,3", "4294967295", "0-2,7", " 1"):
        yield Case(f"--seeds {text}", "works", lambda text=text: plan(f"--seeds={text}"))
    for option, good, bad in (
        ("--threads", ["1", "2", "1024"], ["0", "-1", "1025", "9" * 30, "x", ""]),
        ("--workers", ["0", "2"], ["-1", "2000", "1.5"]),
    ):
        for text in (*good, *bad):
            yield Case(
                f"{option} {text[:12]}", "works" if text in good else "refused", lambda a=f"{option}={text}": plan(a)
            )
    for text in (
        "grpo.steps",
        "=",
        "=1",
        "grpo.steps=",
        "grpo.steps=[",
        "grpo.steps={a: 1",
        "x" * 5000 + "=1",
        "grpo.steps=" + "9" * 6000,
        "grpo.steps=" + "[" * 3000,
        "grpo..steps=1",
        ".=1",
        "grpo.steps=1e999",
        "grpo.steps=.inf",
        "grpo.betas=[1]",
        "grpo=1",
        "grpo.steps=!!python/object:os.system",
        "generator.prompt=" + "x" * 9000,
        "grpo.steps=&a [*a]",
        "grpo.lr=1e-400",
    ):
        yield Case(f"--set {text[:30]}", "refused", lambda text=text: plan("--set", text))
    for text in (
        "grpo.steps=3",
        "grpo.lr=1e-5",
        "grpo.betas=[0.5, 0.9]",
        "generator.prompt=Say <article>",
        "inner.shuffle_seed=null",
    ):
        yield Case(f"--set {text}", "works", lambda text=text: plan("--set", text))
    rows = world.articles
    for name, line in {
        "nested": "[" * 5000 + "]" * 5000,
        "nested in text": '{"text": ' + "[" * 5000 + "]" * 5000 + "}",
        "6,000 digits": '{"text": "x", "n": ' + "9" * 6000 + "}",
        "a number": "1",
        "no text": "{}",
        "not JSON": "{",
        "text of digits": '{"text": ' + "9" * 6000 + "}",
        "NaN": '{"text": NaN}',
        "null": "null",
        "zero": "\0",
    }.items():

        def lines(line: str = line) -> str:
            path = world.lines([{"text": text} for text in rows])
            path.write_text(path.read_text() + line + "\n")
            return run("--set", f"data.articles={path}")

        yield Case(f"a line that is {name}", "refused", lines)
    yield Case(
        "articles of one's own",
        "works",
        lambda: run("--set", f"data.articles={world.lines([{'text': t} for t in rows])}"),
    )
    yield Case("a model of one's own", "works", lambda: run("--set", f"generator.model={world.model}"))
    for threads in (0, -1, 10**9, 2**70, "2", [2], 1.5, {}, "x" * 9000, True):
        yield Case(
            f"rerun with threads={str(threads)[:12]}",
            "either" if threads in (0, [], {}) else "refused",
            lambda t=threads: rerun_with(world, t),
        )
    yield Case("rerun with one thread", "works", lambda: rerun_with(world, 1))
    study = "reports/studies/reference"
    for shell, codes in {
        f"HARNESS table {study} >&-": (2,),
        "HARNESS list >&-": (2,),
        f"HARNESS table {study} > /dev/full": (2,),
        "HARNESS list > /dev/full": (2,),
        "HARNESS run --task norm --dry-run > /dev/full": (2,),
        "set -o pipefail; HARNESS list --settings | true": (141, 0),
        f"set -o pipefail; HARNESS diff {study} {study} | true": (141, 0),
        "HARNESS list 2>&-": (0,),
        "HARNESS list <&-": (0,),
        "HARNESS list <&- 2>&-": (0,),
        "HARNESS list >&- 2>&-": (2,),
        "PYTHONIOENCODING=ascii HARNESS list --settings": (0,),
        f"PYTHONIOENCODING=latin-1 HARNESS table {study}": (0,),
    }.items():
        yield Case(shell, "works", lambda shell=shell, codes=codes: process(shell=shell).outcome(codes))


def rerun_with(world: World, threads: Any) -> str:
    from harness.store.record import CellStore

    runs, record = world.new(), world.record()
    record.provenance = record.provenance | {"threads": threads}
    CellStore.of(runs, record).write(record)
    CellStore.of(runs, record).write_curves(record, [])
    return command("rerun", str(runs)).outcome((0, 1))


# ------------------------------------------------------------------------------------- what takes the machine down (10)


def resources(world: World) -> Iterator[Case]:
    """Files that are small outside and large inside, that never end, or that are no files."""
    from harness import assets
    from harness.settings.profiles import load_profile, parse_assignment

    def written(content: bytes | str, name: str) -> Path:
        path = world.new(name)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def laughs(depth: int, width: int, merge: bool) -> str:
        first = "a0: &a0 {k: 1}\n" if merge else "a0: &a0 [x]\n"
        opening, closing = ("{<<: [", "]}") if merge else ("[", "]")
        return first + "".join(
            f"a{n}: &a{n} {opening}{', '.join([f'*a{n - 1}'] * width)}{closing}\n" for n in range(1, depth + 1)
        )

    for depth, width, merge in product((5, 9, 20), (6, 9), (False, True)):
        text = laughs(depth, width, merge)
        yield Case(
            f"{width}^{depth} aliases {merge}",
            "refused",
            lambda text=text: call(load_profile, str(written(text, "x.yaml"))),
        )
        inline = "task.options.x={" + ", ".join(text.strip().split("\n")) + "}"
        expected: Expected = "refused" if width**depth > 200_000 else "either"
        yield Case(
            f"{width}^{depth} aliases in --set {merge}", expected, lambda text=inline: call(parse_assignment, text)
        )
    tiny = "".join(path.read_text() for path in sorted((ROOT / "harness" / "profiles" / "tiny").iterdir()))
    yield Case("a profile in one file", "works", lambda: call(load_profile, str(written(tiny, "x.yaml"))))
    yield Case("a few aliases", "works", lambda: call(parse_assignment, "a={x: &a [1, 2], y: *a, z: *a}"))
    for size in (2, 50):
        for what in ("# comment\n", "- 1\n", "a: b\n", "["):
            content = what * (size * 2**20 // len(what))
            yield Case(
                f"a profile of {size} MB of {what!r}",
                "refused",
                lambda c=content: call(load_profile, str(written(c, "x.yaml"))),
            )

    def special(kind: str, name: str) -> Path:
        path = world.new(name)
        os.mkfifo(path) if kind == "pipe" else path.symlink_to(kind)
        return path

    kinds = ["pipe", "/dev/zero", "/dev/random", "/dev/tty", "/dev/null", "/proc/kmsg"]
    run = lambda task, key, value: command(
        "run",
        "--task",
        task,
        "--reward",
        "naive",
        "--workers",
        "0",
        "--out",
        str(world.new()),
        *flags(QUICK),
        "--set",
        f"{key}={value}",
    ).outcome()
    for kind in kinds:
        yield Case(f"a profile that is {kind}", "refused", lambda k=kind: call(load_profile, str(special(k, "x.yaml"))))
        yield Case(
            f"base.yaml that is {kind}",
            "refused",
            lambda k=kind: call(load_profile, str(special(k, "base.yaml").parent)),
        )
        for name, key in (
            ("x.jsonl", "data.articles"),
            ("x.parquet", "data.articles"),
            ("x.png", "task.options.pattern"),
            ("x.npy", "task.options.pattern"),
        ):
            task = "67" if "pattern" in key else "norm"
            yield Case(
                f"{name} that is {kind}", "refused", lambda a=(task, key), k=kind, n=name: run(*a, special(k, n))
            )
        for name in (
            "config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "extra.json",
        ):
            yield Case(
                f"a model's {name} that is {kind}",
                "either" if name == "extra.json" or kind == "/dev/null" else "refused",
                lambda n=name, k=kind: run("norm", "generator.model", odd_model(world, n, k)),
            )
        for name in ("cell.json", "curves.parquet", "samples.jsonl", "step-1/drawn.png", "step-1/other.png"):
            yield Case(f"{name} of results that is {kind}", "either", lambda n=name, k=kind: odd_results(world, n, k))

    for claim in ((30_000, 30_000), (2**31 - 1, 2**31 - 1), (5000, 5000), (100_000, 1000), (0, 0), (1, 2**30)):
        content = png(4, 4, claim)
        yield Case(
            f"a pattern of {claim}", "refused", lambda c=content: run("67", "task.options.pattern", written(c, "x.png"))
        )
        yield Case(f"a picture of {claim}", "either", lambda c=content: odd_results(world, "step-1/drawn.png", c))
    if os.environ.get("ODD_LARGE", "1") == "1":
        yield Case(
            "a picture of 30,000 x 30,000 white pixels",
            "works",
            lambda: odd_results(world, "step-1/drawn.png", flat_png(30_000)),
        )
    yield Case("a pattern of 8 x 8", "either", lambda: run("67", "task.options.pattern", written(png(7, 6), "x.png")))
    for shape in ("(1000000, 1000000)", "(-1, 4)", "(99999999999999999999, 1)", "()"):
        head = "{'descr': '<f8', 'fortran_order': False, 'shape': " + shape + ", }"
        head = head + " " * (117 - len(head)) + "\n"
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()
        yield Case(
            f"a .npy of {shape}", "refused", lambda c=content: run("67", "task.options.pattern", written(c, "x.npy"))
        )
    yield from tables(world, run)
    yield from templates(world)
    for size in (10**4, 10**6, 5 * 10**6):
        for name in ("table", "diff", "report"):
            yield Case(f"{name} with a reason of {size:,}", "works", lambda a=(size, name): long_reason(world, *a))
    yield Case("texts as usual", "works", lambda: call(assets.texts, str(world.lines([{"text": "x"}] * 5)), split=None))


def flat_png(side: int) -> bytes:
    """A white square, small as a file."""
    packer = zlib.compressobj(9)
    row = b"\0" + b"\xff" * side
    rows = b"".join([packer.compress(row) for _ in range(side)] + [packer.flush()])
    whole = png(4, 4, (side, side))
    start = whole.index(b"IDAT") - 4
    chunk = struct.pack(">I", len(rows)) + b"IDAT" + rows + struct.pack(">I", zlib.crc32(b"IDAT" + rows))
    return whole[:start] + chunk + whole[whole.index(b"IEND") - 4 :]


def odd_model(world: World, name: str, kind: str) -> Path:
    folder = world.new() / "model"
    shutil.copytree(world.model, folder)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name) if kind == "pipe" else (folder / name).symlink_to(kind)
    return folder


def odd_results(world: World, name: str, content: str | bytes) -> str:
    """The page of results with a file that is a pipe, a link or has this content."""
    runs = world.copy()
    place = cell_folder(runs) / name
    place.unlink(missing_ok=True)
    if isinstance(content, bytes):
        place.write_bytes(content)
    elif content == "pipe":
        os.mkfifo(place)
    else:
        place.symlink_to(content)
    return max(command("table", str(runs)).outcome(), command("report", str(runs), "--out", str(world.new())).outcome())


def tables(world: World, run: Callable[..., str]) -> Iterator[Case]:
    """Parquet files that unpack to far more than they are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def repeated(length: int, times: int) -> pa.Table:
        indices = pa.array([0], pa.int32()).take(pa.array([0] * times, pa.int32()))
        return pa.table({"text": pa.DictionaryArray.from_arrays(indices, pa.array(["x" * length]))})

    def bomb(table: pa.Table, name: str = "x.parquet") -> Path:
        path = world.new(name)
        pq.write_table(table, path, compression="zstd")
        return path

    for length, times in ((10**6, 5000), (10**5, 10**5), (10**7, 2000)):
        yield Case(
            f"texts of {length:,} x {times:,}",
            "refused",
            lambda a=(length, times): run("norm", "data.articles", bomb(repeated(*a))),
        )
        results = lambda a=(length, times): odd_results(world, "curves.parquet", bomb(repeated(*a)).read_bytes())
        yield Case(f"curves with texts of {length:,} x {times:,}", "either", results)
    many = lambda: pa.table({"text": pa.nulls(60_000_000, pa.int8())})
    yield Case("60 million rows", "refused", lambda: run("norm", "data.articles", bomb(many())))
    yield Case(
        "curves of 60 million rows", "either", lambda: odd_results(world, "curves.parquet", bomb(many()).read_bytes())
    )
    usual = lambda: run("norm", "data.articles", bomb(pa.table({"text": world.articles * 50})))
    yield Case("articles of 1,200 rows", "works", usual)


TEMPLATES = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "a long text": "{{ 'x' * 10**10 }}",
    "a power": "{{ 9 ** (10 ** 9) }}",
    "doubling": "{% set n = namespace(x='aaaa') %}"
    "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "padding": "{{ 'x'.center(9999999999) }}",
    "formats": "{{ '%09999999999d' % 1 }}",
    "much output": "{% for i in range(90000) %}{{ messages[0].content }}{% endfor %}",
    "lists": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "an exception": "{{ raise_exception('no') }}",
    "an escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "no syntax": "{% for %}",
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "an unknown filter": "{{ messages | nothing }}",
}


def templates(world: World) -> Iterator[Case]:
    """Chat templates are programs."""
    from harness.assets import load_tokenizer

    def load(template: str) -> str:
        folder = odd_model(world, "chat_template.jinja", "/dev/null")
        (folder / "chat_template.jinja").unlink()
        (folder / "chat_template.jinja").write_text(template)
        return call(load_tokenizer, str(folder))

    for name, template in TEMPLATES.items():
        yield Case(f"a chat template with {name}", "refused", lambda template=template: load(template))
    yield Case("a chat template of 2 MB", "refused", lambda: load("x" * 2_000_000))
    plain = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    yield Case("a plain chat template", "works", lambda: load(plain))


def long_reason(world: World, size: int, name: str) -> str:
    runs = world.copy()
    path = cell_folder(runs) / "cell.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed", "reason": "why " * (size // 4)}))
    more = {"diff": [str(world.results)], "report": ["--out", str(world.new())]}.get(name, [])
    said = command(name, str(runs), *more)
    if len(said.out) > 100_000:
        raise Badly(f"{len(said.out):,} characters are shown")
    return said.outcome((0, 1, 2) if name == "diff" else (0,))


# ----------------------------------------------------------------------------------------- what is shown to people (11)

STEERING = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x1b]8;;http://x\x1b\\",
    "\x9b31m",
    "\x07",
    "\x08" * 9,
    "\x7f",
    "\x00",
    "\u202e",
    "\u2066",
    "\u2069",
    "\u200e",
    "\u200f",
    "\u061c",
    "\u202a",
    "\u2028",
    "\x85",
    "\ufeff",
    "\U000e0041",
    "\r",
]


def steers(text: str) -> bool:
    allowed = {"\n", "\t", "\u200c", "\u200d", "\u00ad"}
    return any(c not in allowed and unicodedata.category(c) in ("Cc", "Cs", "Cf", "Zl", "Zp") for c in text)


def terminal(world: World) -> Iterator[Case]:
    """Characters that steer a terminal, and cells that a spreadsheet computes."""

    def show(fields: dict[str, Any], name: tuple[str, ...]) -> str:
        runs = world.copy()
        path = cell_folder(runs) / "cell.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | fields))
        said = command(name[0], str(runs), *([str(world.results)] if name[0] == "diff" else []), *name[1:])
        if steers(said.out + said.err):
            raise Badly(f"reaches the terminal: {[c for c in said.out + said.err if steers(c)][:3]!r}")
        return said.outcome((0, 1, 2) if name[0] == "diff" else (0,))

    for text in STEERING:
        marked = f"a{text}b"
        odd: list[dict[str, Any]] = [
            {"status": "failed", "reason": marked},
            {"variant": marked},
            {"notes": [marked]},
            {"unit": marked},
            {"settings": {"x": {"y": marked}}},
        ]
        for fields, name in product(odd, (("table",), ("table", "--markdown"), ("diff",))):
            yield Case(f"{name[-1]} with {text!r} in {next(iter(fields))}", "either", lambda a=(fields, name): show(*a))
        yield Case(f"an error with {text!r}", "refused", lambda text=marked: sentence(text))
    yield from spreadsheets(world)


def sentence(text: str) -> str:
    said = command("run", f"--task={text}")
    if steers(said.out + said.err):
        raise Badly("reaches the terminal")
    return said.outcome()


def spreadsheets(world: World) -> Iterator[Case]:
    """Texts as cells of CSV files, and numbers that stay numbers."""
    import csv

    import pandas

    from harness.store.atomic import csv_text

    def cells(values: list[Any], name: str = "column") -> str:
        frame = pandas.DataFrame({name: values})
        for (cell,) in list(csv.reader(io.StringIO(csv_text(frame), newline="")))[:]:
            if cell[:1] in tuple("=+-@\t\r") and cell:
                try:
                    float(cell)
                except ValueError:
                    raise Badly(f"a formula: {cell!r}") from None
        return "works"

    def numbers(values: list[float]) -> str:
        back = pandas.read_csv(io.StringIO(csv_text(pandas.DataFrame({"x": values, "y": [str(v) for v in values]}))))
        if back["x"].tolist() != values or back["y"].tolist() != values:
            raise Badly(f"{values} became {back.to_dict('list')}")
        return "works"

    for first, rest in product(
        "=+-@\t\r＝＋", ("1+1", "cmd|' /C calc'!A0", "SUM(A1)", "", "x", "1;2", "-", '"', "1e5x")
    ):
        yield Case(f"a cell {first + rest!r}", "works", lambda text=first + rest: cells([text, "x"]))
    for first in "=+-@":
        yield Case(f"a column named {first}x", "works", lambda first=first: cells(["x"], f"{first}1+1"))
    for values in ([-1.0, 2.5], [-1e-300, 1e300], [-0.5, 0.25, -3.0], [-12.0, 7.0]):
        yield Case(f"numbers {values}", "works", lambda values=values: numbers(values))


# ------------------------------------------------------------------------------------------------ numbers (12)


def ranges(world: World) -> Iterator[Case]:
    """Every number among the settings, inside its range and outside."""
    from harness.settings.profiles import load_profile, resolve
    from harness.settings.schema import Settings

    whole = Settings.model_json_schema()
    profile = load_profile("tiny")

    def found(
        schema: dict[str, Any], key: str = "", place: tuple[int, ...] = ()
    ) -> Iterator[tuple[str, dict[str, Any], tuple[int, ...]]]:
        schema = whole["$defs"][schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else schema
        for name, part in schema.get("properties", {}).items():
            yield from found(part, f"{key}.{name}" if key else name)
        for part in schema.get("anyOf", []):
            yield from found(part, key, place)
        for number, part in enumerate(schema.get("prefixItems", [])):
            yield from found(part, key, (number,))
        if schema.get("type") in ("integer", "number"):
            yield key, schema, place

    def give(key: str, value: Any, place: tuple[int, ...]) -> str:
        pair = [0.5, 0.5]
        if place:
            pair[place[0]] = value
        return call(resolve, profile, "norm", "naive", {key: pair if place else value})

    for key, schema, place in found(whole):
        low = schema.get("minimum", schema.get("exclusiveMinimum", 0))
        for value in (low - 1, -3, -0.001, 10**30, 1e300, float("nan"), float("inf"), "x", [1], {}, True):
            fits = value == -0.001 and low < -1
            yield Case(
                f"{key}={value}",
                "works" if fits else "refused" if value is not True else "either",
                lambda a=(key, value, place): give(*a),
            )
        inside = low + 1 if schema["type"] == "integer" else low + 0.5
        yield Case(
            f"{key}={inside}",
            "either" if "steps" in key or "prompts" in key else "works",
            lambda a=(key, inside, place): give(*a),
        )
    options = {"lambda": ["x", 0, -1, 10**400, None], "first_token": [-1, 1.5, 10**12, "x", [1]]}
    for name, values in options.items():
        for value in values:
            given = [
                "--task",
                "67",
                "--reward",
                "naive",
                "--workers",
                "0",
                "--out",
                str(world.new()),
                "--set",
                f"task.options.{name}={json.dumps(value)}",
            ]
            yield Case(
                f"task.options.{name}={str(value)[:12]}",
                "refused" if value is not None else "either",
                lambda g=given: command("run", *g, *flags(QUICK)).outcome(),
            )


# --------------------------------------------------------------------------------- where the first trial had stopped


def checkpoints(world: World) -> Iterator[Case]:
    """An interrupted cell with any of its files changed goes on, or starts again, and ends with the same numbers."""
    from harness.cell import run_cell
    from harness.store.frames import find_cells

    runs, cell = world.interrupted
    start = next(path.parent for path in runs.rglob("cell.json"))
    names = sorted(str(path.relative_to(start)) for path in start.rglob("*") if path.is_file())

    def final(place: Path) -> Any:
        stored = find_cells(place)[0]
        record, curves = stored.read(), stored.curves()
        kept = curves[~curves["measure"].str.startswith("seconds")]
        return (
            record.status,
            record.headline,
            kept[["step", "measure", "value"]].to_csv(),
            [row["text"] for row in stored.samples()],
        )

    expected: list[Any] = []

    def resume(change: Callable[[Path], None]) -> str:
        if not expected:
            run_cell(cell, world.folder / "whole", lambda event: None)
            expected.append(final(world.folder / "whole"))
        place = world.new() / "runs"
        shutil.copytree(runs, place)
        change(place / start.relative_to(runs))
        outcome = call(run_cell, cell, place, lambda event: None)
        if outcome == "works" and final(place) != expected[0]:
            raise Badly(f"other numbers: {final(place)[:2]}")
        return outcome

    def rewrite(name: str, content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        return lambda folder: (folder / name).write_bytes(content((folder / name).read_bytes())) and None

    for name in names:
        usual: Expected = "works" if name.startswith("checkpoints") else "either"
        for how, change in {
            "empty": lambda data: b"",
            "cut": lambda data: data[:-9],
            "zeros": lambda data: bytes(len(data)),
        }.items():
            yield Case(f"{name[:30]} {how}", usual, lambda a=(name, change): resume(rewrite(*a)))
        for number in range(3):
            seed = world.random.random()
            change = lambda data, seed=seed: mutated(data, random.Random(seed))
            yield Case(f"{name[:30]} mutated {number}", usual, lambda a=(name, change): resume(rewrite(*a)))
        yield Case(f"without {name[:30]}", usual, lambda name=name: resume(lambda folder: (folder / name).unlink()))
        pipe = lambda folder, name=name: ((folder / name).unlink(), os.mkfifo(folder / name)) and None
        yield Case(f"{name[:30]} a pipe", usual, lambda pipe=pipe: resume(pipe))
    yield Case("as it is", "works", lambda: resume(lambda folder: None))


SMALL = [
    "run",
    "--task",
    "norm",
    "--reward",
    "naive",
    *(part for pair in QUICK.items() for part in ("--set", f"{pair[0]}={pair[1]}")),
]


def surroundings(world: World) -> Iterator[Case]:
    """A machine that lacks something, as processes of their own."""

    def grid(*, before: str = "", workers: str = "0", **variables: str | None) -> str:
        out = world.new()
        line = f"{before} HARNESS {' '.join(SMALL)} --workers {workers} --out {out}"
        said = process(shell=line, **variables)
        outcome = said.outcome((0, 1))
        statuses = [json.loads(path.read_text())["status"] for path in out.rglob("cell.json")]
        if (
            "running" in statuses
            or (said.code == 1 and statuses != ["failed"])
            or (outcome == "works" and not statuses)
        ):
            raise Badly(f"code {said.code}, cells {statuses}: {said.err[-300:]}")
        return outcome if said.code != 1 else "refused"

    yield Case("as usual", "works", grid)
    for workers in "01":
        yield Case(f"HOME unset, {workers} workers", "works", lambda w=workers: grid(HOME=None, workers=w))
        yield Case(f"HOME nowhere, {workers} workers", "works", lambda w=workers: grid(HOME="/nonexistent", workers=w))
        yield Case(f"LC_ALL=C, {workers} workers", "works", lambda w=workers: grid(LC_ALL="C", LANG="C", workers=w))
        yield Case(
            f"64 open files, {workers} workers", "works", lambda w=workers: grid(before="ulimit -n 64;", workers=w)
        )
        yield Case(
            f"no files of more than 100 kB, {workers} workers",
            "refused",
            lambda w=workers: grid(before="ulimit -f 100;", workers=w),
        )
        yield Case(
            f"2 GB of memory, {workers} workers",
            "either",
            lambda w=workers: grid(before="ulimit -v 2000000;", workers=w),
        )
        yield Case(
            f"TMPDIR nowhere, {workers} workers", "either", lambda w=workers: grid(TMPDIR="/nonexistent", workers=w)
        )
        yield Case(
            f"TMPDIR a file, {workers} workers", "either", lambda w=workers: grid(TMPDIR="/etc/passwd", workers=w)
        )
        yield Case(
            f"the clock an hour back, {workers} workers",
            "works",
            lambda w=workers: grid(PYTHONSTARTUP="", TZ="UTC+23", workers=w),
        )
    for number in (12, 16, 24, 32, 48):
        yield Case(f"{number} open files", "either", lambda n=number: grid(before=f"ulimit -n {n};"))
    yield Case("the clock set back within a run", "works", lambda: clock_back(world))
    yield Case("other vocabularies for generator and target", "works", lambda: other_vocabulary(world))
    for name in ("sleeps", "forks", "threads"):
        yield Case(f"a reward that {name}", "works", lambda name=name: strange_reward(world, name))


def clock_back(world: World) -> str:
    """time.time goes back an hour at every call."""
    usual, calls = time.time, iter(range(10**9))
    time.time = lambda: usual() - 3600 * next(calls)
    try:
        said, (record, _) = trained(world, lambda n: list(range(n)))
    finally:
        time.time = usual
    return said.outcome() if record.status == "done" else "refused"


def other_vocabulary(world: World) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={token: place for place, token in enumerate([*alphabet, "<end>"])}, merges=[]))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    folder = world.new()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<end>", bos_token="<end>").save_pretrained(folder)
    GPT2LMHeadModel(GPT2Config(vocab_size=257, n_positions=128, n_embd=16, n_layer=1, n_head=2)).save_pretrained(folder)
    out = world.new()
    given = [
        "--task",
        "norm",
        "--reward",
        "adam_metagrad",
        "--workers",
        "0",
        "--out",
        str(out),
        *flags(QUICK | {"target.model": str(folder)}),
    ]
    return command("run", *given).outcome()


def strange_reward(world: World, how: str) -> str:
    def reward(count: int) -> list[float]:
        if how == "sleeps":
            time.sleep(1)
        elif how == "forks":
            pid = os.fork()
            if not pid:
                os._exit(0)
            os.waitpid(pid, 0)
        else:
            threads = [threading.Thread(target=time.sleep, args=(0.1,)) for _ in range(50)]
            [thread.start() for thread in threads], [thread.join() for thread in threads]
        return list(map(float, range(count)))

    said, (record, _) = trained(world, reward)
    return said.outcome() if record.status == "done" else "refused"


# ------------------------------------------------------------------------------------------------------------ the trial

KINDS: dict[str, Callable[[World], Iterator[Case]]] = {
    "keys": keys,
    "links": links,
    "weights": weights,
    "scales": scales,
    "returns": returns,
    "line_ends": line_ends,
    "labels": labels,
    "results": damaged,
    "arguments": arguments,
    "resources": resources,
    "terminal": terminal,
    "ranges": ranges,
    "checkpoints": checkpoints,
    "surroundings": surroundings,
}


def tried(case: Case, patience: int) -> tuple[str, str]:
    """("works" or "refused", "") as it should be, or ("badly", why)."""

    def late(number: int, frame: Any) -> None:
        raise Badly(f"took more than {patience} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(patience)
    try:
        outcome = case.do()
    except Badly as error:
        return "badly", str(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "badly", f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if outcome not in ("works", "refused") or case.expected not in ("either", outcome):
        return "badly", f"{outcome}, where it should be {case.expected}"
    return outcome, ""


def trial(world: World, kinds: list[str], share: float, patience: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Kind -> counts, seconds and what went badly. `share`: of every kind's cases only so many, evenly."""
    found: dict[str, Any] = {}
    for kind in kinds:
        began, counts, badly, owed = time.monotonic(), Counter[str](), [], 0.0
        for case in KINDS[kind](world):
            owed += share
            if owed < 1:
                continue
            owed -= 1
            outcome, why = tried(case, patience)
            counts[outcome] += 1
            if why:
                badly.append(f"{case.what}: {why}")
                say(f"{kind}: {badly[-1]}")
        found[kind] = {"inputs": counts.total(), **counts, "seconds": round(time.monotonic() - began), "list": badly}
        say(f"{kind}: {dict(counts)}, {found[kind]['seconds']} s")
    return found


def table(found: Mapping[str, Any]) -> str:
    """A line a kind and the total."""
    names = ("inputs", "works", "refused", "badly")
    rows = [(kind, *(one.get(name, 0) for name in names)) for kind, one in found.items()]
    rows.append(("all", *(sum(row[place] for row in rows) for place in range(1, 5))))
    lines = ["| inputs of the kind | tried | worked | refused | badly |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([*lines, "", f"{rows[-1][1]} inputs, {rows[-1][4]} badly"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(KINDS), help=f"some of {','.join(KINDS)}")
    parser.add_argument("--share", type=float, default=1.0, help="of every kind's inputs, evenly")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--patience", type=int, default=120, help="seconds that an input may take")
    parser.add_argument("--out", type=Path, help="keep counts and what went badly as JSON")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    from harness.machine.libraries import quiet

    quiet()
    with tempfile.TemporaryDirectory(prefix="odd-input-") as folder:
        os.chdir(folder)
        world = World(Path(folder), options.seed)
        say = lambda text: print(re.sub(r"[^\x20-\x7e]", "?", text)[:600], file=sys.stderr, flush=True)
        found = trial(world, options.only.split(","), options.share, options.patience, say)
        os.chdir(ROOT)
    if options.out:
        options.out.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
    return 1 if any(one.get("badly") for one in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
