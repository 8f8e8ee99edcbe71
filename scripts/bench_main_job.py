"""CPU seconds of the main job with this commit and with an earlier one, in turn, and what came out of both.

    python scripts/bench_main_job.py                            # HEAD against 7b536e5: half an hour, two cores
    python scripts/bench_main_job.py --repeats 3 --reward naive --set grpo.steps=2
    python scripts/bench_main_job.py --here-only                # HEAD alone; a later call adds the other's runs

Each commit is checked out into a temporary folder and runs there, with this interpreter and the same arguments, one
after the other: this, the earlier, this, the earlier, ... What is not committed is not measured. CPU seconds are those
of the process and of all its children (wait4), so that other load on the machine matters little; wall seconds are shown
beside them. OUT/runs.json keeps every finished run: a second call goes on there, unless commits or arguments changed.
OUT/README.md has the seconds, their ratio, the settings that differ, and both tables.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.store.atomic import write_atomic, write_json

ROOT = Path(__file__).resolve().parents[1]
BASE = "7b536e5"
"""The last commit before rollouts were written in place and updates packed."""
SIDES = ("here", "base")


def main(arguments: list[str] | None = None, repository: Path = ROOT) -> dict[str, Any]:
    options = parse(arguments)
    commits = {side: full_hash(repository, getattr(options, side)) for side in SIDES}
    asked = {"commits": commits, "arguments": run_arguments(options)}
    result = asked | {"machine": machine(), "runs": stored_runs(options.out / "runs.json", asked)}
    sides = SIDES[:1] if options.here_only else SIDES
    with checkouts(repository, {side: commits[side] for side in sides}) as folders:
        for repeat in range(options.repeats):
            for side in sides:
                if any((run["side"], run["repeat"]) == (side, repeat) for run in result["runs"]):
                    continue
                found = one_run(folders[side], asked["arguments"])
                result["runs"].append({"side": side, "repeat": repeat} | found)
                write_json(options.out / "runs.json", result)
                print(
                    f"{side} {repeat + 1}: {found['cpu_seconds']:.0f} CPU s, {found['wall_seconds']:.0f} s", flush=True
                )
    write_atomic(options.out / "README.md", page(result))
    print(page(result))
    return result


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--here", default="HEAD", help="the commit to judge")
    parser.add_argument("--base", default=BASE, help="the commit that it is compared with")
    parser.add_argument("--here-only", action="store_true", help="run the commit to judge alone")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--task", default="lambada_es")
    parser.add_argument("--reward", default="all")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--set", action="append", default=[], dest="assignments", metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("reports/studies/main_job"))
    return parser.parse_args(arguments)


def run_arguments(options: argparse.Namespace) -> list[str]:
    """What both commits' command lines get, but for where results go."""
    given = ["run", "--task", options.task, "--reward", options.reward, "--seeds", options.seeds]
    return given + [word for assignment in options.assignments for word in ("--set", assignment)]


def stored_runs(path: Path, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs in `path`, if they are of these commits and arguments."""
    if not path.exists():
        return []
    stored = json.loads(path.read_text(encoding="utf-8"))
    return stored["runs"] if all(stored[name] == value for name, value in asked.items()) else []


def machine() -> dict[str, Any]:
    import torch

    return {"cores": os.cpu_count(), "torch": torch.__version__, "python": sys.version.split()[0]}


# ------------------------------------------------------------------------------------------------------------- commits


def git(repository: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=repository, check=True, capture_output=True, text=True).stdout.strip()


def full_hash(repository: Path, commit: str) -> str:
    return git(repository, "rev-parse", "--verify", f"{commit}^{{commit}}")


@contextmanager
def checkouts(repository: Path, commits: dict[str, str]) -> Iterator[dict[str, Path]]:
    """A folder with each commit, gone afterwards."""
    with tempfile.TemporaryDirectory() as place:
        folders = {side: Path(place, side) for side in commits}
        try:
            for side, commit in commits.items():
                git(repository, "worktree", "add", "--detach", str(folders[side]), commit)
            yield folders
        finally:
            for folder in folders.values():
                if folder.exists():
                    git(repository, "worktree", "remove", "--force", str(folder))


# ------------------------------------------------------------------------------------------------------------- one run


def one_run(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """The job in `folder`: its seconds, its table, and what each cell says. Raises RuntimeError where it fails."""
    with tempfile.TemporaryDirectory() as results:
        environment = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", *arguments, "--out", results],
            cwd=folder,
            env=environment | {"PYTHONPATH": str(folder)},
            stdout=subprocess.DEVNULL,
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"`harness {' '.join(arguments)}` ended with exit code {process.returncode} in {folder}")
        records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(results).rglob("cell.json"))]
        return {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds)),
            "cpu_seconds": used.ru_utime + used.ru_stime,
            "wall_seconds": seconds,
            "phases": phase_seconds(records),
            "table": next(Path(results).glob("*/table.md")).read_text(encoding="utf-8"),
            "settings": {record["reward"]: flat(record["settings"]) for record in records},
        }


def phase_seconds(records: list[dict[str, Any]]) -> dict[str, float]:
    """Phase -> wall seconds, over all cells."""
    names = dict.fromkeys(name for record in records for name in record["seconds"])
    return {name: sum(record["seconds"].get(name, 0.0) for record in records) for name in names}


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    parts = [flat(value, f"{prefix}.{key}" if prefix else key) for key, value in tree.items()]
    return {key: value for part in parts for key, value in part.items()}


# ------------------------------------------------------------------------------------------------------------ the page


def page(result: dict[str, Any]) -> str:
    runs = {side: [run for run in result["runs"] if run["side"] == side] for side in SIDES}
    names = {side: f"`{result['commits'][side][:7]}`" for side in SIDES}
    of_machine = result["machine"]
    lines = [
        "# The main job, now and then",
        "",
        f"`python -m harness {' '.join(result['arguments'])}` with {names['here']} and with {names['base']} in turn, "
        f"by `python scripts/bench_main_job.py`; {of_machine['cores']} cores, torch {of_machine['torch']}. CPU seconds "
        "of all processes, medians; phases in wall seconds, all cells together.",
        "",
        *seconds_table(runs, names),
    ]
    if all(runs.values()):
        lines += ["", "Settings that differ: " + (differing_settings(runs) or "none") + "."]
    for side in SIDES:
        if runs[side]:
            lines += ["", f"## {names[side]}", "", runs[side][-1]["table"].strip()]
    return "\n".join(lines) + "\n"


def seconds_table(runs: dict[str, list[dict[str, Any]]], names: dict[str, str]) -> list[str]:
    """A line of seconds each for the whole job and for every phase, one column a commit, then the ratio."""
    shown = [side for side in SIDES if runs[side]]
    rows = {
        f"{kind} seconds": {side: [run[f"{kind.lower()}_seconds"] for run in runs[side]] for side in shown}
        for kind in ("CPU", "wall")
    }
    phases = dict.fromkeys(phase for side in shown for run in runs[side] for phase in run["phases"])
    rows |= {phase: {side: [run["phases"].get(phase, 0.0) for run in runs[side]] for side in shown} for phase in phases}
    lines = [f"| | {' | '.join(names[side] for side in shown)} | ratio |", "| --- |" + " ---: |" * (len(shown) + 1)]
    for name, values in rows.items():
        middle = {side: statistics.median(values[side]) for side in shown}
        ratio = f"{middle['here'] / middle['base']:.2f}" if len(middle) == 2 and middle["base"] else ""
        lines.append(f"| {name} | {' | '.join(spread(values[side]) for side in shown)} | {ratio} |")
    return lines


def spread(values: list[float]) -> str:
    """The median, and all values where there are several."""
    shown = f"{statistics.median(values):.1f}"
    return shown if len(values) == 1 else f"{shown} ({', '.join(f'{value:.1f}' for value in values)})"


def differing_settings(runs: dict[str, list[dict[str, Any]]]) -> str:
    """`key` here in place of there, each once; keys that only one commit knows are left out."""
    here, base = (runs[side][-1]["settings"] for side in SIDES)
    found = dict.fromkeys(
        f"`{key}` {json.dumps(value)} in place of {json.dumps(base[reward][key])}"
        for reward in here.keys() & base.keys()
        for key, value in here[reward].items()
        if key in base[reward] and base[reward][key] != value
    )
    return ", ".join(sorted(found))


if __name__ == "__main__":
    main()
