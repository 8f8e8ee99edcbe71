"""What is shown to people: texts that steer a terminal or a spreadsheet."""

from __future__ import annotations

import io
import json
import unicodedata
from collections.abc import Iterator
from itertools import product
from typing import Any

from scripts.odd_input.world import Badly, Case, World, cell_folder, command

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
