"""What the benchmark workflow does, and what anybody can do on their machine: run a grid, report it, diff it.

    python scripts/ci_benchmark.py [--profile tiny] [--task lambada_es] [--reward all] [--seeds 21,22,23]
                                   [--runs runs] [--site site] [--reference reports/studies/reference]
                                   [--tolerance 0.05] [--skip-run] [--renew]

Decides the claims of the paper's suite that are about these tasks, writes the report into --site and `comment.md`
beside it (the tables, the claims, the comparisons and the diff), and appends the same to the file that
GITHUB_STEP_SUMMARY names, where there is one. Ends with the diff's exit code (1: something is
worse, 2: something could not be compared), or with 1 where cells failed.

--renew replaces the reference by the results in --runs instead of comparing with it: look at the report first, then
commit reports/studies/reference. The reference is a packed study of the records of finished and unsupported cells,
without curves and texts, and what was decided of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from harness import api
from harness.contracts import HarnessError
from harness.machine.files import read_text
from harness.store.atomic import write_atomic
from harness.store.frames import find_cells
from harness.store.study import is_study, open_study, write_records
from harness.suites.suite import CLAIMS, load_suite
from reports import claims, diff, markdown, site

KEPT = ("done", "unsupported")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--task", default="lambada_es")
    parser.add_argument("--reward", default="all")
    parser.add_argument("--seeds", default="21,22,23")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--site", type=Path, default=Path("site"))
    parser.add_argument("--reference", type=Path, default=Path("reports/studies/reference"))
    parser.add_argument("--tolerance", type=float, default=diff.TOLERANCE)
    parser.add_argument("--skip-run", action="store_true", help="report and compare what --runs holds already")
    parser.add_argument("--renew", action="store_true", help="make --runs the new reference instead of comparing")
    options = parser.parse_args(arguments)
    try:
        failed = 0 if options.skip_run else run(options)
        decide(options)
        site.build(options.runs, options.site)
        if options.renew:
            print(f"{renew(options.runs, options.reference)} cells are the new reference in {options.reference}.")
            return failed
        return max(publish(options), failed)
    except HarnessError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """The grid, in a process of its own; 1 where cells failed. Raises HarnessError where it could not start."""
    command = [sys.executable, "-m", "harness", "run", "--profile", options.profile, "--task", options.task]
    command += ["--reward", options.reward, "--seeds", options.seeds, "--out", str(options.runs)]
    code = subprocess.run(command).returncode
    if code not in (0, 1):
        raise HarnessError(f"The grid ended with exit code {code}; what it printed says why.")
    return code


def decide(options: argparse.Namespace) -> None:
    """Stores the verdicts on the claims that these tasks' cells can decide beside the results."""
    tasks = {name.strip() for name in options.task.split(",")}
    parts = [
        part.name
        for part in load_suite("paper").cell_parts
        if not part.inner_steps and ("all" in tasks or {name.strip() for name in part.task.split(",")} <= tasks)
    ]
    if parts:
        given = {"profile": options.profile, "seeds": options.seeds, "only": parts, "out": options.runs}
        api.paper(**given, run=False, progress=False)


def publish(options: argparse.Namespace) -> int:
    """The diff, the comment and the step summary; returns the diff's exit code."""
    result = diff.compare(options.reference, options.runs, tolerance=options.tolerance, partial=True)
    tables = (options.site / "summary.md").read_text(encoding="utf-8")
    said = [row for found in claims.stored(options.runs) for row in claims.stored_rows(found) if row[1] != "not run"]
    findings = f"\n## The paper's findings\n\n{markdown.grid(list(claims.HEADS), said)}" if said else ""
    text = f"## Benchmark\n\n{result.reason}\n\n{tables}{findings}\n## Against the reference\n\n{result.markdown()}"
    write_atomic(options.site / "comment.md", text)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as file:
            file.write(text)
    print(result.reason)
    return result.exit_code


def renew(runs: Path, reference: Path) -> int:
    """Replaces the reference's cells of the profiles in `runs` by the records there; returns how many."""
    new = [record for cell in find_cells(runs) if (record := cell.read()) and record.status in KEPT]
    if not new:
        raise HarnessError(f"There is no finished cell in {runs}; run the grid first.")
    profiles = {record.profile for record in new}
    old = [cell.read() for cell in open_study(reference).cells] if is_study(reference) else []
    write_records(reference, [record for record in old if record.profile not in profiles] + new)
    for path in sorted(runs.rglob(CLAIMS)):
        write_atomic(reference / (CLAIMS if len(profiles) == 1 else path.relative_to(runs)), read_text(path))
    return len(new)


if __name__ == "__main__":
    raise SystemExit(main())
