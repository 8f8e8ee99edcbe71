"""What stops a command: ends of lines, labels, damaged results, arguments."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from scripts.odd_input.world import QUICK, Badly, Case, Expected, World, cell_folder, command, flags, mutated, process
from scripts.odd_input.wrong import trained

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
