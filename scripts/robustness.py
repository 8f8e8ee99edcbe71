"""Nothing lost: kills, faults and fuzzed inputs counted, and what it costs. At most 15 minutes on 2 cores.

    python scripts/robustness.py [--kills 50] [--signals 6] [--faults 8] [--cases 150] [--steps 8] [--pairs 0]
                                 [--out reports/robustness]

1. scripts/kill_and_resume.py: a grid killed, stopped and starved, resumed and compared with one left alone.
2. tests/harness/test_fuzz.py with --cases inputs a test, and tests/harness/test_checks.py, test_security.py.
3. The share of a `tiny` cell's time that goes into storing records and checkpoints, timed inside the run; with --pairs,
   also CPU seconds of the whole process with and without checkpoints, alternating, the difference paired.

Writes results.json and README.md into --out and prints the latter; exit code 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
SUITES = ["tests/harness/test_fuzz.py", "tests/harness/test_checks.py", "tests/harness/test_security.py"]
LIMIT = 0.03
"""The share of a tiny run that storing may take."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--signals", type=int, default=6)
    parser.add_argument("--faults", type=int, default=8)
    parser.add_argument("--cases", type=int, default=150, help="fuzzed inputs a test")
    parser.add_argument("--steps", type=int, default=8, help="GRPO steps of the tiny cell whose storing is timed")
    parser.add_argument("--pairs", type=int, default=0, help="pairs of runs with and without checkpoints")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "robustness")
    options = parser.parse_args()
    began = time.monotonic()
    found: dict[str, Any] = {"arguments": {key: value for key, value in vars(options).items() if key != "out"}}
    found["kills"] = kills(options)
    found["suites"] = suites(options.cases)
    found["storing"] = storing(options.steps, options.pairs)
    found |= {"seconds": round(time.monotonic() - began), "machine": f"{platform.machine()}, {os.cpu_count()} cores",
              "load": [round(value, 1) for value in os.getloadavg()]}  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
    text = readme(found)
    (options.out / "README.md").write_text(text)
    print(text)
    return 1 if lost(found) else 0


def kills(options: argparse.Namespace) -> dict[str, Any]:
    numbers = [f"--{name}={getattr(options, name)}" for name in ("kills", "signals", "faults")]
    done = run([sys.executable, "scripts/kill_and_resume.py", *numbers])
    if not done.stdout.strip().endswith("}"):
        return {"lost": [f"kill_and_resume.py ended with code {done.returncode}: {done.stderr[-500:]}"]}
    return json.loads(done.stdout[done.stdout.index("{") :])


def suites(cases: int) -> dict[str, Any]:
    """Counts of pytest and, for the fuzzed tests, of Hypothesis: inputs tried, inputs that broke something."""
    command = [sys.executable, "-m", "pytest", "--hypothesis-show-statistics", *SUITES]
    done = run(command, HARNESS_FUZZ_CASES=str(cases))
    tried = [(int(good), int(bad)) for good, bad in re.findall(r"(\d+) passing[^,\n]*, (\d+) failing", done.stdout)]
    ended = {name: int(count) for count, name in re.findall(r"(\d+) (passed|failed|error)", done.stdout)}
    broken = [line[:300] for line in done.stdout.splitlines() if line.startswith("FAILED")]
    return {"fuzzed tests": len(tried), "inputs": sum(map(sum, tried)), "failing inputs": sum(bad for _, bad in tried),
            "tests": ended, "code": done.returncode, "broken": broken}  # fmt: skip


def storing(steps: int, pairs: int) -> dict[str, Any]:
    """Seconds of a tiny cell (lambada_es, adam_metagrad) in storing, over all its seconds; validation and checkpoint in
    the profile's rhythm, which `steps` must be long enough to hold."""
    with tempfile.TemporaryDirectory() as folder:
        record, _ = tiny(Path(folder) / "one", steps, 4)
        spent, total = record["seconds"]["storing"], record["seconds"]["total"]
        found = {"steps": steps, "checkpoints": (steps - 1) // 4, "seconds storing": round(spent, 3),
                 "seconds": round(total, 1), "share": round(spent / total, 5), "limit": LIMIT}  # fmt: skip
        differences = []
        for pair in range(pairs):
            order = [0, 4] if pair % 2 else [4, 0]
            cpu = {every: tiny(Path(folder) / f"{pair}-{every}", steps, every)[1] for every in order}
            differences.append(cpu[4] / cpu[0] - 1)
        if differences:
            found["paired CPU differences"] = [round(value, 4) for value in differences]
            found["paired median"] = round(statistics.median(differences), 4)
    return found


def tiny(out: Path, steps: int, every: int) -> tuple[dict[str, Any], float]:
    """(the record, CPU seconds of the process) of one cell with a checkpoint each `every` steps (0: none)."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "harness", "run", "--task", "lambada_es", "--reward", "adam_metagrad"]
    command += ["--out", str(out)]
    command += ["--workers", "0", "--set", f"grpo.steps={steps}", "--set", f"grpo.checkpoint_every={every}"]
    done = run(command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"The tiny run ended with code {done.returncode}: {done.stderr[-500:]}")
    record = json.loads(next(out.rglob("cell.json")).read_text())
    return record, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(command: list[str], **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT | environment, capture_output=True, text=True)


def lost(found: dict[str, Any]) -> list[str]:
    """Everything that must not be."""
    suites, share = found["suites"], found["storing"]["share"]
    wrong = list(found["kills"]["lost"])
    wrong += [f"{suites['failing inputs']} fuzzed inputs broke something"] if suites["failing inputs"] else []
    wrong += [f"tests ended with code {suites['code']}: {suites['broken']}"] if suites["code"] else []
    wrong += [f"storing takes {share:.1%} of a tiny run"] if share > LIMIT else []
    return wrong


def readme(found: dict[str, Any]) -> str:
    kills, suites, store = found["kills"], found["suites"], found["storing"]
    counts, wrong = kills.get("disturbances", {}), lost(found)
    lines = [
        "# Nothing lost", "", "`python scripts/robustness.py` writes this page.", "",
        "| what was done | count |", "|---|---:|",
        f"| SIGKILL at a random moment | {counts.get('killed', 0)} |",
        f"| SIGKILL inside a write | {counts.get('torn', 0)} |",
        f"| SIGTERM or SIGINT | {counts.get('stopped', 0)} |",
        f"| disk full in a write | {counts.get('full', 0)} |",
        f"| folder read-only from a write on | {counts.get('readonly', 0)} |",
        f"| grids that reached their end and equal the undisturbed one | {counts.get('grids compared', 0)} |",
        f"| fuzzed inputs (settings, YAML, JSON lines, model folders, results, checkpoints) | {suites['inputs']} |",
        f"| tests of faults, numbers and security passed | {suites['tests'].get('passed', 0)} |", "",
        f"Lost, changed, orphaned or unclear: **{len(wrong)}**." + "".join(f"\n- {line}" for line in wrong), "",
        f"Storing records and checkpoints took {store['seconds storing']} s of {store['seconds']} s, "
        f"{store['share']:.2%} of a `tiny` cell of {store['steps']} steps with {store['checkpoints']} checkpoints "
        f"(at most {LIMIT:.0%}).",
    ]  # fmt: skip
    if "paired median" in store:
        lines += ["", f"Paired CPU seconds with and without checkpoints: median {store['paired median']:+.2%}, "
                  f"all {store['paired CPU differences']}."]  # fmt: skip
    lines += ["", f"{found['seconds']} s on {found['machine']}; load average at the end {found['load'][0]}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
