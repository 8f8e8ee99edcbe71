"""Nothing lost: kills, faults and fuzzed inputs counted, and what it costs. About 15 minutes on 2 cores.

    python scripts/robustness.py [--only kills,launcher,suites,storing] [--pieces 1] [--kills 100] [--signals 8]
                                 [--faults 12] [--cases 150] [--steps 5] [--pairs 3]
                                 [--out reports/studies/robustness]

1. scripts/kill_and_resume.py: a grid killed, stopped and starved, resumed and compared with one left alone. Every run
   of it is a piece with a seed of its own: `--pieces` more are made, each is stored when it ends, and all add up.
2. scripts/kill_ranks.py: the same of a cell that two processes of a launcher share.
3. tests/harness/test_fuzz.py with --cases inputs a test, and tests/harness/training/test_checks.py, test_security.py.
4. Pairs of `tiny` cells, side by side on a core each: one with the profile's checkpoints, one without. The share of the
   former's time that goes into storing, timed inside the run, and the paired difference in CPU seconds.

Writes results.json and README.md into --out and prints the latter; exit code 1 where anything was lost. What --only
leaves out stays as it was stored, with the commit it was measured at; `--only none` writes the page again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
SUITES = ["tests/harness/test_fuzz.py", "tests/harness/training/test_checks.py", "tests/harness/test_security.py"]
LIMIT = 0.03
"""The share of a tiny run that storing may take."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="kills,launcher,suites,storing", help="some of the four")
    parser.add_argument("--pieces", type=int, default=1, help="runs of kill_and_resume.py to add")
    parser.add_argument("--kills", type=int, default=100, help="of a piece")
    parser.add_argument("--signals", type=int, default=8, help="of a piece")
    parser.add_argument("--faults", type=int, default=12, help="of a piece")
    parser.add_argument("--cases", type=int, default=150, help="fuzzed inputs a test")
    parser.add_argument("--steps", type=int, default=5, help="GRPO steps of the tiny cells whose storing is timed")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of runs with and without checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "studies" / "robustness")
    options = parser.parse_args()
    if options.pairs < 1:
        parser.error("--pairs must be at least 1.")
    stored = options.out / "results.json"
    found: dict[str, Any] = {"pieces": []} | (json.loads(stored.read_text()) if stored.exists() else {})
    wanted = options.only.split(",")
    for _ in range(options.pieces if "kills" in wanted else 0):
        seed = 1 + max((piece["seed"] for piece in found["pieces"]), default=0)
        found["pieces"].append(kills(options, seed))
        write(stored, found)
    if "launcher" in wanted:
        done = run([sys.executable, "scripts/kill_ranks.py", "--kills=20"])
        if not done.stdout:
            parser.error(f"kill_ranks.py ended with code {done.returncode}: {done.stderr[-500:]}")
        found["launcher"] = json.loads(done.stdout) | surroundings()
    if "suites" in wanted:
        found["suites"] = suites(options.cases) | surroundings()
    if "storing" in wanted:
        found["storing"] = storing(options.steps, options.pairs) | surroundings()
    missing = [name for name in ("pieces", "launcher", "suites", "storing") if not found.get(name)]
    if missing:
        parser.error(f"There are no results of {', '.join(missing)} yet; leave --only out.")
    write(stored, found)
    text = readme(found)
    (options.out / "README.md").write_text(text)
    print(text)
    return 1 if lost(found) else 0


def write(path: Path, found: dict[str, Any]) -> None:
    """Whole or not at all: pieces take minutes each."""
    from harness.store.atomic import write_atomic

    write_atomic(path, json.dumps(found, indent=1) + "\n")


def surroundings() -> dict[str, Any]:
    """Where and with what something was measured."""
    commit = run(["git", "rev-parse", "--short", "HEAD"]).stdout.strip()
    load = round(os.getloadavg()[0], 1)
    return {"commit": commit, "machine": f"{platform.machine()}, {os.cpu_count()} cores", "load": load}


def kills(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One piece."""
    numbers = [f"--{name}={getattr(options, name)}" for name in ("kills", "signals", "faults")]
    began = time.monotonic()
    done = run([sys.executable, "scripts/kill_and_resume.py", f"--seed={seed}", *numbers])
    piece: dict[str, Any] = {"seed": seed} | surroundings()
    if not done.stdout.strip().endswith("}"):
        why = f"kill_and_resume.py ended with code {done.returncode}: {done.stderr[-500:]}"
        return piece | {"seconds": round(time.monotonic() - began), "lost": [why]}
    return piece | json.loads(done.stdout[done.stdout.index("{") :])


def suites(cases: int) -> dict[str, Any]:
    """Counts of pytest and, for the fuzzed tests, of Hypothesis: inputs tried, inputs that broke something."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "--hypothesis-show-statistics", *SUITES]
    done = run(command, HARNESS_FUZZ_CASES=str(cases))
    tried = [(int(good), int(bad)) for good, bad in re.findall(r"(\d+) passing[^,\n]*, (\d+) failing", done.stdout)]
    ended = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    broken = [line[:300] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return {
        "fuzzed tests": len(tried),
        "inputs": sum(map(sum, tried)),
        "failing inputs": sum(bad for _, bad in tried),
        "tests": ended,
        "code": done.returncode,
        "broken": broken,
    }


def storing(steps: int, pairs: int) -> dict[str, Any]:
    """Seconds of tiny cells (lambada_es, adam_metagrad) in storing, over all their seconds, and what the process as a
    whole takes more with checkpoints than without, pair by pair."""
    spent, total, more = [], [], []
    for pair in range(pairs):
        with tempfile.TemporaryDirectory() as folder:
            order = ["without", "with"] if pair % 2 else ["with", "without"]
            begun = {name: tiny(Path(folder) / name, steps, checkpoints=name == "with") for name in order}
            cpu = {name: cpu_seconds(process) for name, process in begun.items()}
            record = json.loads(next((Path(folder) / "with").rglob("cell.json")).read_text())
        spent.append(record["seconds"]["storing"])
        total.append(record["seconds"]["total"])
        more.append(round(cpu["with"] / cpu["without"] - 1, 4))
    every = record["settings"]["grpo"]["checkpoint_every"]
    return {
        "steps": steps,
        "checkpoints": (steps - 1) // every,
        "seconds storing": statistics.median(spent),
        "seconds": statistics.median(total),
        "share": round(sum(spent) / sum(total), 5),
        "limit": LIMIT,
        "paired CPU differences": more,
        "paired median": statistics.median(more),
    }


def tiny(out: Path, steps: int, checkpoints: bool) -> subprocess.Popen:
    """One cell with the profile's checkpoints, or with none, started."""
    command = [sys.executable, "-m", "harness", "run", "--task", "lambada_es", "--reward", "adam_metagrad"]
    command += ["--out", str(out)]
    command += ["--workers", "0", "--set", f"grpo.steps={steps}"]
    command += [] if checkpoints else ["--set", "grpo.checkpoint_every=0"]
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cpu_seconds(process: subprocess.Popen) -> float:
    """Waits for its end."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"The tiny run ended with code {process.returncode}: {' '.join(map(str, process.args))}")
    return used.ru_utime + used.ru_stime


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT | environment, capture_output=True, text=True)


def lost(found: dict[str, Any]) -> list[str]:
    """Everything that must not be."""
    suites, share = found["suites"], found["storing"]["share"]
    wrong = [f"seed {piece['seed']}: {line}" for piece in found["pieces"] for line in piece["lost"]]
    wrong += [f"launcher: {line}" for line in found["launcher"]["lost"]]
    wrong += [] if suites["inputs"] else ["no fuzzed input was counted"]
    wrong += [f"{suites['failing inputs']} fuzzed inputs broke something"] if suites["failing inputs"] else []
    wrong += [f"tests ended with code {suites['code']}: {suites['broken']}"] if suites["code"] else []
    wrong += [f"storing takes {share:.1%} of a tiny run"] if share > LIMIT else []
    least = min(found["storing"]["paired CPU differences"])  # single pairs scatter by some 4 % either way
    wrong += [f"a tiny run takes at least {least:.1%} more CPU time with checkpoints"] if least > LIMIT else []
    return wrong


def readme(found: dict[str, Any]) -> str:
    pieces, suites, store = found["pieces"], found["suites"], found["storing"]
    counts: Counter[str] = Counter()
    for piece in pieces:
        counts.update(piece.get("disturbances", {}))
    wrong, more, ranks = lost(found), store["paired CPU differences"], found["launcher"]
    kills_of_ranks = sum(ranks["kills"].values()) - ranks["kills"]["compared"]
    commits = lambda parts: ", ".join(dict.fromkeys(part["commit"] for part in parts))
    lines = [
        "# Nothing lost",
        "",
        "`python scripts/robustness.py` writes this page; `--only kills --pieces 5` adds five hundred kills to it.",
        "",
        "| what was done | count |",
        "|---|---:|",
        f"| SIGKILL at a random moment | {counts.get('killed', 0)} |",
        f"| SIGKILL inside a write | {counts.get('torn', 0)} |",
        f"| SIGTERM or SIGINT | {counts.get('stopped', 0)} |",
        f"| disk full in a write | {counts.get('full', 0)} |",
        f"| folder read-only from a write on | {counts.get('readonly', 0)} |",
        f"| grids that reached their end and equal the undisturbed one | {counts.get('grids compared', 0)} |",
        f"| a launcher's {ranks['ranks']} processes on one cell: one, all killed, or SIGTERM | {kills_of_ranks} |",
        f"| such cells that reached their end and equal the undisturbed one | {ranks['kills']['compared']} |",
        f"| fuzzed inputs (settings, YAML, JSON lines, model folders, results, checkpoints) | {suites['inputs']} |",
        f"| tests of faults, numbers and security passed | {suites['tests'].get('passed', 0)} |",
        "",
        f"Lost, changed, orphaned or unclear: **{len(wrong)}**." + "".join(f"\n- {line}" for line in wrong),
        "",
        f"Storing records and checkpoints took {store['seconds storing']:.3f} s of {store['seconds']:.1f} s, "
        f"{store['share']:.2%} of a `tiny` cell of {store['steps']} steps with {store['checkpoints']} checkpoints "
        f"(at most {LIMIT:.0%}).",
        "",
        f"CPU seconds of the whole process with checkpoints over those without, minus 1, of {len(more)} pairs run side "
        f"by side: {', '.join(f'{value:+.2%}' for value in more)}; median {store['paired median']:+.2%}.",
        "",
        f"The kills and faults are {len(pieces)} pieces with seeds of their own, "
        f"{sum(piece['seconds'] for piece in pieces):,.0f} s in all (commit {commits(pieces)}); "
        f"the launcher's are of {commits([ranks])}, "
        f"the tests of {commits([suites])}, the seconds of {commits([store])}. "
        f"Machine: {pieces[-1]['machine']}, shared with other work (load average {pieces[-1]['load']}).",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
