"""The first hour of a new user who knows the field, point by point: commands and Python as the README has them, run in
an empty folder, and a check of what each says. Nothing of the repository is used but what is installed.

    python scripts/first_hour.py [--only articles,quick] [--keep FOLDER] [--untimed]

Prints a table of ok and failed; exit code 1 where anything failed. A quarter of an hour on two idle cores. --untimed
leaves out what a busy machine cannot show: that the first numbers come within 30 seconds, and --quick within 90.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pandas
from rich.console import Console
from rich.table import Table

from harness.store.lines import as_lines, read_lines

ROOT = Path(__file__).resolve().parents[1]
FIRST_NUMBERS, QUICK = 30, 90
"""Seconds from the command to the first measured numbers, and to the end of the README's command with --quick."""
SMALL = {
    "grpo.steps": "2",
    "grpo.prompts_per_step": "8",
    "grpo.updates_per_step": "4",
    "validation.prompts": "8",
}
"""Settings of a run of seconds on the embedded models."""


class Failed(Exception):
    """A point does not hold: what was found instead."""


class Said(NamedTuple):
    """How a command ended."""

    code: int
    text: str
    """Standard output and error, one line after the other."""
    seconds: float
    first_numbers: float
    """Seconds until the first measured numbers were printed; infinite where none were."""

    @property
    def line(self) -> str:
        """The text without line breaks: terminals break where they like."""
        return " ".join(self.text.split())


@dataclass
class User:
    """Who sits in front of an empty folder and types commands."""

    folder: Path
    timed: bool
    said: list[str] = field(default_factory=list)
    """What is worth a word in the table."""

    def harness(self, *words: str, columns: int = 120, env: Mapping[str, str] | None = None) -> Said:
        """`python -m harness WORDS` in the folder."""
        return self._run([sys.executable, "-m", "harness", *words], {"COLUMNS": str(columns), **(env or {})})

    def python(self, code: str) -> Said:
        return self._run([sys.executable, "-c", code], {})

    def small_run(self, *words: str, code: int = 0, **settings: str) -> Said:
        """A run of seconds; its exit code must be `code`."""
        chosen = SMALL | {key.replace("__", "."): value for key, value in settings.items()}
        flags = [part for key, value in chosen.items() for part in ("--set", f"{key}={value}")]
        found = self.harness("run", *words, *flags)
        check(found.code == code, f"exit code {found.code}: {found.line[-300:]}")
        return found

    def _run(self, command: Sequence[str], env: Mapping[str, str]) -> Said:
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **env}
        begun, lines, first = time.monotonic(), [], float("inf")
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if re.search(r": step \d+/\d+: ", line):
                    first = min(first, time.monotonic() - begun)
        return Said(process.returncode, "".join(lines), time.monotonic() - begun, first)

    def wide(self, runs: str = "runs") -> pandas.DataFrame:
        return pandas.read_parquet(self.folder / runs / "tiny" / "wide.parquet")

    def page(self, runs: str = "runs") -> str:
        """The report's page on these results."""
        found = self.harness("report", runs, "--out", f"site-{runs}")
        check(found.code == 0, f"report ends with {found.code}: {found.line[-300:]}")
        return (self.folder / f"site-{runs}" / "index.html").read_text(encoding="utf-8")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, encoding="utf-8")

    def lines(self, name: str, rows: Sequence[Mapping[str, str]]) -> None:
        self.write(name, as_lines(rows))


def check(holds: bool, otherwise: str) -> None:
    """Raises Failed with what was found instead."""
    if not holds:
        raise Failed(otherwise)


def one_sentence(found: Said) -> None:
    """A mistake is answered with exit code 2 and one line, without a traceback."""
    check(found.code == 2, f"exit code {found.code} instead of 2")
    check("Traceback" not in found.text and len(found.text.strip().splitlines()) == 1, f"not one line: {found.text}")


# ----------------------------------------------------------------------------------------------------------- the points


def articles(user: User) -> None:
    """1: own articles keep their splits; a text in two splits is refused"""
    kinds = {"train": 40, "validation": 10, "test": 6}
    rows = [
        {"text": f"The {kind} town number {number} lies by a river.", "split": kind}
        for kind, count in kinds.items()
        for number in range(count)
    ]
    user.lines("articles.jsonl", rows)
    user.lines("dev.jsonl", [row | {"split": row["split"].replace("validation", "dev")} for row in rows])
    for name in ("articles", "dev"):
        given = {"data__articles": f"{name}.jsonl", "keep__rollouts": "all"}
        found = user.small_run("--task", "norm", "--reward", "naive", "--out", name, **given)
        for kind, count in kinds.items():
            check(
                re.search(rf"\b{count}\b[^.;]*{kind}|{kind}\w*\W+{count}\b", found.line) is not None, found.line[:300]
            )
        (cell,) = (user.folder / name / "tiny" / "norm" / "naive").iterdir()
        trained = pandas.read_parquet(cell / "rollouts")["title"]
        check(trained.str.startswith("The train town").all(), f"trained on {sorted(set(trained))[:3]}")
        held_out = [sample["title"] for sample in read_lines(cell / "samples.jsonl")]
        check(all(title.startswith("The validation town") for title in held_out), f"held out {held_out[:3]}")
    user.lines("leak.jsonl", [*rows, {"text": rows[0]["text"], "split": "validation"}])
    one_sentence(user.harness("run", "--task", "norm", "--reward", "naive", "--set", "data.articles=leak.jsonl"))


def short_runs(user: User) -> None:
    """2: `report` draws whatever short runs leave; equal seeds are not sold as certainty"""
    user.small_run("--task", "norm,lambada_es", "--reward", "naive,levenshtein", grpo__steps="1")
    user.page()
    user.small_run("--task", "norm", "--reward", "naive", "--seeds", "0,1", "--out", "two", grpo__lr="1e-12")
    check("0.000..0.000" not in user.page("two"), "an interval without width is shown")


def own_profile(user: User) -> None:
    """3: a profile of one's own holds what it changes; errors name every fault"""
    user.write("mine.yaml", "extends: tiny\nname: mine\nsummary: fewer steps\nsettings:\n  grpo.steps: 2\n")
    found = user.harness("run", "--profile", "mine.yaml", "--task", "norm", "--reward", "naive", "--dry-run")
    check(found.code == 0 and "norm/naive" in found.text, found.line[-300:])
    user.write("bad.yaml", "extends: tiny\nname: bad\nsummary: two faults\nsettings: {grpo.steps: 0, grpo.lr: -1}\n")
    found = user.harness("run", "--profile", "bad.yaml", "--task", "norm", "--reward", "naive")
    one_sentence(found)
    check("grpo.steps" in found.line and "grpo.lr" in found.line, f"not every fault: {found.line}")
    user.write("bare.yaml", "name: bare\nsummary: nothing in it\nsettings: {grpo.steps: 2}\n")
    found = user.harness("run", "--profile", "bare.yaml", "--task", "norm", "--reward", "naive")
    one_sentence(found)
    check("generator" in found.line and "target" in found.line, f"not every missing field: {found.line}")


def python_interface(user: User) -> None:
    """4: `harness.run` in Python: tables, samples, a figure for a paper, a table in a notebook"""
    settings = {key: int(value) for key, value in SMALL.items()}
    code = f"""
import harness

if __name__ == "__main__":
    results = harness.run(task="norm", reward=["naive"], seeds=[0, 1], set={settings!r}, out="python")
    assert len(results.wide) == 2 and len(results.long) > 10 and len(results.samples) > 2
    results.figure("headline", path="figure.pdf")
    results.figure("headline", path="figure.svg")
    assert "<table" in results._repr_html_()
"""
    user.write("use.py", code)
    found = user._run([sys.executable, "use.py"], {})
    check(found.code == 0, found.line[-400:])
    for name, start in (("figure.pdf", b"%PDF"), ("figure.svg", b"<?xml")):
        check((user.folder / name).read_bytes().startswith(start), f"{name} is none")


def comparing(user: User) -> None:
    """5: --set KEY=A,B makes variants that tables, page and diff name by what differs"""
    words = ("--task", "norm", "--reward", "naive")
    found = user.small_run(*words, grpo__lr="1e-4,3e-4", grpo__betas="[0.9,0.99]")
    for value in ("1e-4", "3e-4"):
        check(f"naive (lr {value})" in found.text, f"no row for lr {value}: {found.line[-400:]}")
    for name in ("wide", "long"):
        frame = pandas.read_parquet(user.folder / "runs" / "tiny" / f"{name}.parquet")
        check(sorted(set(frame["grpo.lr"])) == [1e-4, 3e-4], f"the {name} table lacks grpo.lr")
    page = user.page()
    check("naive (lr 3e-4)" in page and 'id="filter"' in page, "the page names no variant, or has no filter")
    found = user.harness("diff", "runs", "runs")
    check(found.code == 0 and "(lr 1e-4)" in found.text, found.line[-300:])


def samples(user: User) -> None:
    """6: samples say where they come from; all rollouts on request"""
    words = ("--task", "lambada_es", "--reward", "levenshtein")
    user.small_run(*words, "--seeds", "0,1", keep__rollouts="all", validation__samples="8")
    cells = sorted((user.folder / "runs" / "tiny" / "lambada_es" / "levenshtein").iterdir())
    for cell in cells:
        kept = pandas.read_parquet(cell / "rollouts")
        wanted = {"seed", "step", "text", "reward_value", "advantage", "finish", "title", "article"}
        check(wanted <= set(kept), f"{sorted(wanted - set(kept))} are missing")
        check(len(kept) == 2 * 8 * 4, f"{len(kept)} rollouts of 64")
    before = len(user.wide())
    user.small_run(*words, "--seeds", "0,1", keep__rollouts="3", validation__samples="8")
    check(len(user.wide()) == before, "keeping other rollouts made another cell")
    page = user.page()
    shown = json.loads(re.search(r'id="sample-data">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    seeds = shown["lambada_es (tiny)"]["levenshtein"]
    check(set(seeds) == {"0", "1"} and all("training" in kinds for kinds in seeds.values()), "not every seed is shown")
    check("highest reward first" in page, "texts cannot be sorted by reward")


def bad_pair(user: User) -> None:
    """7: one bad pair does not stop a grid"""
    user.small_run("--task", "norm,uuid", "--reward", "naive", code=3)
    wide = user.wide().set_index("task")
    check(wide.loc["norm", "status"] == "done" and wide.loc["uuid", "status"] == "unsupported", str(wide["status"]))
    check("texts" in wide.loc["uuid", "reason"], wide.loc["uuid", "reason"])


def terminal(user: User) -> None:
    """8: terminal: 80 columns, numbers that count, time left, quiet in one process"""
    words = ("run", "--task", "norm", "--reward", "naive,adam_metagrad", "--workers", "0")
    flags = [part for key, value in SMALL.items() for part in ("--set", f"{key}={value}")]
    found = user.harness(*words, *flags, columns=80)
    check(found.code == 0, found.line[-300:])
    check("newly initialized" not in found.text, "libraries talk")
    for number in ("[1/2]", "[2/2]"):
        check(any(number in line and line.endswith("starts") for line in found.text.splitlines()), f"no {number}")
    check(found.text.index("by the plan") < found.text.index("step 0/2"), "no estimate before the first step")
    check("Where the time went" in found.text, "no summary of where the time went")
    table = user.harness("table", columns=80)
    check(max(map(len, table.text.splitlines())) <= 80, "the table is wider than 80 columns")
    check("adam_metagrad " in table.text, "a reward's name is lost")


def offline(user: User) -> None:
    """9: without a network and on small machines, one sentence says what to do"""
    lost = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0", "HF_HOME": str(user.folder / "empty")}
    found = user.harness("fetch", "--profile", "paper", "--task", "lambada_es", "--reward", "naive", env=lost)
    check(found.code == 2 and "Traceback" not in found.text, f"exit code {found.code}: {found.line[-300:]}")
    check(found.text.strip().endswith("."), f"half a sentence: {found.line[-200:]}")
    if user.timed:
        check(found.seconds < 30, f"it took {found.seconds:.0f} s to say so")
    found = user.harness("doctor", "--profile", "paper", "--task", "lambada_es", env={"CUDA_VISIBLE_DEVICES": ""})
    check(re.search(r"needs a GPU with (at least|≥) ?\d+", found.line) is not None, found.line[-400:])
    plan = user.harness("run", "--task", "all", "--dry-run")
    check(plan.code == 0 and not re.search(r"-\d[\d.]* (s|min|h)\b", plan.text), "negative seconds in a plan")


def first_page(user: User) -> None:
    """10: the report opens with the answer, a picture, then the matrix"""
    user.small_run("--task", "lambada_es", "--reward", "naive,levenshtein", "--seeds", "0,1")
    user.small_run("--task", "norm", "--reward", "sgd_metagrad")
    page = user.page()
    places = [page.find(mark) for mark in ("<h2>The answer</h2>", "untuned generator&#39;s", "<svg", 'id="glance"')]
    check(-1 not in places and places == sorted(places), f"the order is {places}")
    check("not run</" not in page, "cells that were not run are spelled out")


def quick(user: User) -> None:
    """11: the README's command: numbers within 30 seconds; --quick within 90, and it says so everywhere"""
    found = user.harness("run", "--task", "lambada_es", "--reward", "all", "--quick")
    check(found.code == 0, found.line[-300:])
    rewards = 6
    check(found.text.count(" (quick) ") == rewards, f"{found.text.count(' (quick) ')} rows are labelled")
    table = (user.folder / "runs" / "tiny" / "table.md").read_text()
    page = user.page()
    check(table.count("(quick)") == rewards and "(quick)" in page and "quick run" in page, "a table or page hides it")
    user.said.append(f"first numbers after {found.first_numbers:.0f} s, all after {found.seconds:.0f} s")
    if user.timed:
        check(found.first_numbers <= FIRST_NUMBERS, f"first numbers after {found.first_numbers:.0f} s")
        check(found.seconds <= QUICK, f"--quick took {found.seconds:.0f} s")


POINTS: tuple[Callable[[User], None], ...] = (
    *(articles, short_runs, own_profile, python_interface, comparing, samples),
    *(bad_pair, terminal, offline, first_page, quick),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [point.__name__ for point in POINTS]
    parser.add_argument("--only", default=",".join(names), help=f"points, comma-separated: {', '.join(names)}")
    parser.add_argument("--keep", type=Path, help="a folder where what was made stays")
    parser.add_argument("--untimed", action="store_true", help="nothing fails for taking long")
    options = parser.parse_args()
    chosen = options.only.split(",")
    if wrong := [name for name in chosen if name not in names]:
        parser.error(f"there is no point {wrong[0]}; there are {', '.join(names)}")
    table = Table("point", "", "seconds", "found", title=f"The first hour, load {os.getloadavg()[0]:.1f}")
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        for point in POINTS:
            if point.__name__ not in chosen:
                continue
            folder = (options.keep or Path(scratch)).resolve() / point.__name__
            folder.mkdir(parents=True, exist_ok=True)
            user, begun, what = User(folder, not options.untimed), time.monotonic(), (point.__doc__ or "").strip()
            try:
                point(user)
                outcome, found = "ok", "; ".join(user.said)
            except Exception as error:  # what a point trips over is that point's failure; the others still have a say
                failed += 1
                outcome, found = "failed", f"{type(error).__name__}: {error}"
            print(f"{outcome}: {what} {found}", flush=True)
            table.add_row(what, outcome, f"{time.monotonic() - begun:.0f}", found)
    Console().print(table)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
