"""All that only a GPU can say, in one visit of minutes: tests, the main job, phases at full size, the engine, a cell.

    python scripts/gpu_visit.py                          # on a machine with a GPU where the project is installed
    python scripts/gpu_visit.py --only tests,phases      # some of the pieces
    python scripts/gpu_visit.py --cpu                    # the rehearsal: every piece on a CPU, at 1/16 of the width
    python scripts/gpu_visit.py --wheels .wheels         # beforehand: what a bare machine lacks, downloaded here
    python scripts/gpu_visit.py --install .wheels        # there: installed from that folder, then the visit

Pieces, most important first, each useful alone:

{pieces}

A call ends within --minutes. A piece that would not fit is not begun, one that takes too long is stopped, and a later
call goes on with what is missing: of every piece the finished steps stand in OUT/PIECE.json. OUT/README.md is written
after every piece from what there is. Ends with 1, naming what failed, and with 3 where pieces are missing for want of
time.

A bare machine is one without a network that has Python 3.12, torch 2.11 (CUDA 13), transformers 5.17, accelerate,
sentence-transformers, pandas, SciPy, matplotlib, OpenCV, Typer, Rich, Jinja2, pytest and hypothesis, and may be sent no
more than 64 MiB. It lacks these, 14 MB of wheels for Python 3.12 on Linux (x86-64, glibc 2.28):

{wheels}

fastText's own release has no wheel and takes a compiler a minute; fasttext-community is the same code as one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import xml.etree.ElementTree as xml
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "gpu_visit"
"""What pieces leave behind on the way; the ignored folder of builds."""
SITE = WORK / "site"
"""Where --install puts packages."""
WHEELS = {
    "annotated-types": ("0.8.0", 0.01),
    "datasets": ("5.2.0", 0.6),
    "dill": ("0.4.1", 0.1),
    "fasttext-community": ("0.11.9", 5.5),
    "graphviz": ("0.21", 0.05),
    "levenshtein": ("0.27.5", 0.2),
    "multiprocess": ("0.70.19", 0.2),
    "optree": ("0.20.0", 0.5),
    "pydantic": ("2.14.3", 0.5),
    "pydantic-core": ("2.50.4", 2.3),
    "python-levenshtein": ("0.27.5", 0.01),
    "rapidfuzz": ("3.14.6", 3.2),
    "segno": ("1.6.6", 0.1),
    "torchopt": ("0.7.3", 0.2),
    "trl": ("1.16.0", 0.9),
    "typing-extensions": ("4.16.0", 0.05),
    "typing-inspection": ("0.4.5", 0.01),
}
"""Name -> version and megabytes of what a bare machine lacks."""
PLATFORMS = ("2_34", "2_28", "2_27", "2_24", "2_17")
MOST_BYTES = 64 * 2**20
"""What may be carried, the checkout and the wheels together."""
SMALL_GPU = 110 * 2**30
"""Below it the paper's inner microbatches do not fit (64 texts of Llama-3.2-1B, 128 of GPT-2); then these."""
SMALL_MICROBATCH = {"lambada_es": 16, "67": 32}
MAIN_REWARDS = ("embedding", "fasttext", "levenshtein", "adam_metagrad", "naive", "sgd_metagrad")
SEED = 21
"""Of the main job: the reference's first."""
TAIL = 4000
"""Characters of a failed step's output that are kept."""


# -------------------------------------------------------------------------------------------------------------- pieces


@dataclass(frozen=True)
class Step:
    """A command of a piece; it has done its work where it ends with one of `codes`."""

    name: str
    command: list[str]
    codes: tuple[int, ...] = (0,)


@dataclass
class Row:
    """What was measured beside what was asked; `good` None: nothing was asked, or it is a rehearsal."""

    what: str
    measured: str
    asked: str = ""
    good: bool | None = None


@dataclass(frozen=True)
class Piece:
    """`seconds` is what it takes a large GPU, by the plan; `steps` and `read` are given the visit."""

    name: str
    summary: str
    seconds: float
    steps: Callable[[Visit], list[Step]]
    read: Callable[[Visit], tuple[list[Row], str]]


@dataclass
class Visit:
    """The options of a call and what the machine is (`look`)."""

    cpu: bool
    out: Path
    work: Path
    tiny: bool = False
    machine: dict[str, Any] = field(default_factory=dict)

    def python(self, *words: str) -> list[str]:
        return [sys.executable, *words]

    def row(self, what: str, value: float | None, unit: str, most: float | None = None) -> Row:
        """A number, judged on a GPU alone."""
        if value is None:
            return Row(what, "not measured", "", None)
        asked = "" if most is None else f"<= {most:g} {unit}".strip()
        good = None if self.cpu or most is None else value <= most
        return Row(what, f"{value:.3g} {unit}".strip(), asked, good)


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def tests_steps(visit: Visit) -> list[Step]:
    """Without a GPU the same tests run on one that is pretended (tests/helpers/pretend_cuda.py)."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.cuda" in path.read_text("utf-8")]
    own = Path(__file__).name  # this script's own tests name the mark too
    files = [str(path.relative_to(ROOT)) for path in files if own.removesuffix(".py") not in path.name]
    more = ["-k", "float64_equals and 1-gpt2"] if visit.tiny else []
    words = ["-m", "pytest", "-n", "0", "-m", "cuda", f"--junitxml={visit.work / 'tests.xml'}"]
    return [Step("pytest", visit.python(*words, *more, *files), (0, 1))]


def tests_read(visit: Visit) -> tuple[list[Row], str]:
    path = visit.work / "tests.xml"
    if not path.is_file():
        return [], ""
    cases = list(xml.parse(path).getroot().iter("testcase"))
    is_a = lambda case, *kinds: any(case.find(kind) is not None for kind in kinds)
    bad = [case for case in cases if is_a(case, "failure", "error")]
    skipped = sum(is_a(case, "skipped") for case in cases)
    where = "on a pretended device" if visit.cpu else "on the GPU"
    passed = f"{len(cases) - len(bad) - skipped} passed, {skipped} skipped, {where}"
    rows = [Row("tests marked cuda", passed, "none fails", not bad and len(cases) > skipped)]
    return rows + [Row(case.get("name", "?"), "failed", "passes", False) for case in bad], ""


def main_steps(visit: Visit) -> list[Step]:
    words = ["-m", "harness", "run", "--task", "lambada_es", "--reward", "all", "--seeds", str(SEED)]
    words += ["--out", str(visit.work / "main")]
    # Cells of a miniature leave a GPU waiting for Python: three share it.
    words += ["--quick"] if visit.cpu else ["--workers", "3"]
    if visit.tiny:
        words[words.index("all")] = "embedding"
        words += ["--set", "grpo.steps=1", "--set", "task.options.validation_examples=16"]
    return [Step("run", visit.python(*words), (0, 1))]


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("cell.json"))]


def main_read(visit: Visit) -> tuple[list[Row], str]:
    found = {record["reward"]: record for record in records(visit.work / "main")}
    known = visit.machine.get("reference", {})
    lines = [
        "| reward | here | CPU reference | seconds here | CPU | status |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    cell = lambda record, key: "" if record is None or record.get(key) is None else f"{record[key]:.3f}"
    total = lambda record: f"{record['seconds'].get('total', 0):.0f}" if record else ""
    for name in MAIN_REWARDS:
        here, there = found.get(name), known.get(name)
        lines.append(
            f"| {name} | {cell(here, 'headline')} | {cell(there, 'headline')} | {total(here)} | {total(there)} | "
            f"{here['status'] if here else 'missing'} |"
        )
    bad = [f"{name}: {record['reason']}" for name, record in found.items() if record["status"] != "done"]
    wanted = 1 if visit.tiny else len(MAIN_REWARDS)
    rows = [Row("cells done", f"{len(found) - len(bad)} of {wanted}", "all", not bad and len(found) == wanted)]
    rows += [Row("a cell that failed", reason, "done", False) for reason in bad]
    spent = step_seconds(visit, "main")
    rows.append(visit.row(f"the six cells of `lambada_es`, seed {SEED}, three at a time", spent.get("run"), "s", 180))
    return rows, "\n".join(lines) + "\n\nTarget language of the last validation, one seed.\n"


def step_seconds(visit: Visit, piece: str) -> dict[str, float]:
    """Step -> seconds, of those that have ended."""
    stored = read_json(visit.out / f"{piece}.json") or {"steps": {}}
    return {name: step["seconds"] for name, step in stored["steps"].items()}


PHASES = {
    # name -> what bench_phases.py is given beside the width; a step is linear in its rollouts at a given microbatch
    "lambada_es": ["--task", "lambada_es", "--prompts", "64"],
    "67": ["--task", "67", "--target", "gpt2", "--inner-steps", "8", "--prompts", "256"],
}
STEP_SECONDS = {"lambada_es": 40.0, "67": None}
"""What is asked of a GRPO step of the paper's size."""
MOST_GPU_BYTES = 120 * 2**30
PLAN_FACTOR = 2.0
"""How far seconds may lie from the plan."""


def phases_steps(visit: Visit) -> list[Step]:
    steps = []
    for name, words in list(PHASES.items())[: 1 if visit.tiny else None]:
        words = [*words, "--steps", "1", "--width-divisor", "16" if visit.cpu else "1"]
        if visit.cpu:
            words[words.index("--prompts") + 1] = "2" if visit.tiny else "4"
        if visit.tiny:
            words[-1] = "64"
            short = ["generator.max_prompt_tokens=24", "generator.max_completion_tokens=8", "inner.max_tokens=8"]
            words += ["--passages", "8", *(word for setting in short for word in ("--set", setting))]
        if 0 < visit.machine.get("memory", 0) < SMALL_GPU:
            words += ["--set", f"inner.microbatch={SMALL_MICROBATCH[name]}"]
        out = ["--out", str(visit.work / f"phases_{name}")]
        steps.append(Step(name, visit.python("scripts/bench_phases.py", *words, *out)))
    return steps


def phases_read(visit: Visit) -> tuple[list[Row], str]:
    rows, texts = [], []
    for name in PHASES:
        path = visit.work / f"phases_{name}.json"
        result = read_json(path)
        if result is None:
            continue
        texts.append(path.with_suffix(".md").read_text(encoding="utf-8"))
        rows.append(
            visit.row(f"{name}: a step of the profile's size", result["profile_step_seconds"], "s", STEP_SECONDS[name])
        )
        rows.append(visit.row(f"{name}: a cell", result["profile_cell_hours"], "h"))
        phases = result["phases"].values()
        ratio = sum(row["seconds"] for row in phases) / sum(row["planned_seconds"] for row in phases)
        rows.append(visit.row(f"{name}: seconds / plan", ratio, "", PLAN_FACTOR))
        peak = max((row["peak_bytes"] or 0 for row in phases), default=0)
        if peak:
            rows.append(visit.row(f"{name}: peak memory", peak / 2**30, "GiB", MOST_GPU_BYTES / 2**30))
    return rows, "\n".join(texts)


def engine_steps(visit: Visit) -> list[Step]:
    words = ["scripts/bench_metagradient.py", "--out", str(visit.work / "engine")]
    words += ["--device", "cpu" if visit.cpu else "cuda", *(["--quick"] if visit.cpu else [])]
    words += ["--cases", "1"] if visit.tiny else []
    parts = ["ratios"] if visit.tiny else ["ratios", "memory"]
    return [Step(part, visit.python(*words, "--only", part)) for part in parts]


ENGINE_MOST = {("miniature", 1): 1.3, ("gpt2", 1): 1.3, ("miniature", 8): 3.5, ("gpt2 width", 4): 3.5}
"""Size and T -> the asked ratio to plain training and one gradient of the metric."""


def engine_read(visit: Visit) -> tuple[list[Row], str]:
    """By wall clock: a process's CPU seconds say nothing of a GPU's work."""
    rows = []
    groups: dict[tuple[str, int, str, str], list[float]] = {}
    for row in (read_json(visit.work / "engine" / "ratios.json") or {"rows": []})["rows"]:
        for way, seconds in row["seconds"].items():
            if way != "plain":
                key = (row["size"], row["T"], row["metric"], way)
                groups.setdefault(key, []).append(seconds["wall_s"] / row["seconds"]["plain"]["wall_s"])
    for (size, steps, metric, way), ratios in groups.items():
        most = ENGINE_MOST.get((size, steps)) if way == "engine" and metric == "lm" else None
        rows.append(visit.row(f"{size}, T={steps}, {metric}, {way}: time / plain", median(ratios), "", most))
    for row in (read_json(visit.work / "engine" / "memory.json") or {"rows": []})["rows"]:
        what = f"{row['method']}, T={row['steps']}, budget {row['budget']}: peak memory"
        value = row["peak_bytes"] / 2**20 if "peak_bytes" in row else None
        rows.append(visit.row(f"{what} ({row.get('plan', row.get('error', ''))})", value, "MiB"))
    return rows, ""


SMALL = {"grpo.steps": 2, "validation.every": 2, "validation.prompts": 64, "grpo.checkpoint_every": 1}
SMALL |= {"inner.memory_budget": 10 * 2**30}
"""Of a cell of `small` that is to show that it runs: two steps of the profile's own size. The engine takes half of what
the card has free to save time; on a large card it is held to what it would take on one of 24 GB."""


def cell_steps(visit: Visit) -> list[Step]:
    """Weights from the hub where it answers or its cache has them; else random ones of their shape."""
    stand_in = visit.work / "stand_in"
    given = dict(SMALL)
    steps = []
    if not visit.machine.get("hub"):
        divisor = "64" if visit.tiny else "16" if visit.cpu else "1"
        words = ["scripts/gpu_visit.py", "--stand-in", str(stand_in), "--width-divisor", divisor]
        steps.append(Step("stand_in", visit.python(*words)))
        model = str(stand_in / "model")
        given |= {"generator.model": model, "target.model": model, "data.articles": str(stand_in / "articles.jsonl")}
        given |= {"data.references": str(stand_in / "references.jsonl"), "data.article_count": 256}
        given |= {"task.options.language_id": "embedded:language_id"}
    if visit.cpu:
        given |= {"grpo.prompts_per_step": 4, "grpo.updates_per_step": 2, "validation.prompts": 4}
        given |= {"task.options.metric_examples": 16}
    if visit.tiny:
        given |= {"grpo.steps": 1, "generator.max_completion_tokens": 8, "generator.max_prompt_tokens": 96}
        given |= {"task.options.metric_examples": 8, "task.options.validation_examples": 8}
    words = ["-m", "harness", "run", "--profile", "small", "--task", "lambada_es", "--reward", "adam_metagrad"]
    words += ["--seeds", "0", "--out", str(visit.work / "small"), "--retry-failed"]
    words += [word for key, value in given.items() for word in ("--set", f"{key}={value}")]
    return [*steps, Step("run", visit.python(*words), (0, 1))]


def cell_read(visit: Visit) -> tuple[list[Row], str]:
    found = records(visit.work / "small")
    weights = "weights from the hub" if visit.machine.get("hub") else "random weights of the true shape, no hub here"
    rows = [
        Row(f"a cell of `small` ({weights})", record["status"], "done", record["status"] == "done") for record in found
    ]
    for record in found:
        if record["reason"]:
            rows.append(Row("why", record["reason"]))
        steps = max(1, record["steps_done"] or 0)
        for phase in ("generation", "reward", "update"):
            rows.append(visit.row(f"{phase}, a step", record["seconds"].get(phase, 0) / steps, "s"))
        if record.get("device_memory_bytes"):
            rows.append(visit.row("peak memory on the device", record["device_memory_bytes"] / 2**30, "GiB", 24))
    return rows, ""


PIECES = [
    Piece(
        "tests",
        "`pytest -m cuda`: the engine's exactness, cells of every reward, bf16, resuming, memory",
        90,
        tests_steps,
        tests_read,
    ),
    Piece("main", "the main job on `tiny` beside the CPU's table", 180, main_steps, main_read),
    Piece(
        "phases",
        "seconds and memory of phases at full size, random weights of the true shapes",
        200,
        phases_steps,
        phases_read,
    ),
    Piece("engine", "the engine: time to plain training, memory against T", 170, engine_steps, engine_read),
    Piece("cell", "a real cell of `small`, from weights to table", 180, cell_steps, cell_read),
]


# --------------------------------------------------------------------------------------------------------------- visit

LOOK = """
import json, os, sys
from pathlib import Path
import torch, transformers
gpu = torch.cuda.is_available()
found = {"torch": torch.__version__, "transformers": transformers.__version__, "python": sys.version.split()[0]}
found["cores"] = os.cpu_count()
if gpu:
    found["device"] = torch.cuda.get_device_name()
    found["memory"] = torch.cuda.get_device_properties(0).total_memory
    found["capability"] = ".".join(map(str, torch.cuda.get_device_capability()))
    found["cuda"] = torch.version.cuda
    from harness.machine.devices import launch_seconds, measured_device
    found["launch"] = launch_seconds()
    found["tflops"] = measured_device().flops["bfloat16"] / 1e12
from harness.assets import hub
from harness.contracts import HarnessError
from harness.settings.profiles import load_profile, resolve
settings = resolve(load_profile("small"), "lambada_es", "adam_metagrad")
wanted = [settings.generator.model, settings.data.articles, settings.data.references]
try:
    if not all(hub.cached(ref) for ref in wanted):
        if hub.endpoint() is None:
            raise HarnessError("offline")
        hub.check_reachable(hub.endpoint())
    found["hub"] = True
except HarnessError:
    found["hub"] = False
from harness.store.frames import find_cells
known = [cell.read() for cell in find_cells(Path("reports/studies/reference"))]
seed = int(sys.argv[1])
found["reference"] = {
    record.reward: {"headline": record.headline, "seconds": record.seconds} for record in known if record.seed == seed
}
print(json.dumps(found))
"""


def look(visit: Visit) -> dict[str, Any] | None:
    """What the machine is; None where the project cannot be imported."""
    looked = run(visit.python("-c", LOOK, str(SEED)), environment(visit.cpu), 300)
    if looked.code == 0:
        return json.loads(looked.output.strip().rpartition("\n")[2])
    print(looked.output[-TAIL:], file=sys.stderr)
    return None


def environment(cpu: bool) -> dict[str, str]:
    """Children find installed wheels first, then this checkout; in a rehearsal they see no GPU."""
    paths = [str(SITE)] if SITE.is_dir() else []
    paths += [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | own | ({"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"} if cpu else {})


@dataclass(frozen=True)
class Ended:
    """How a command ended; code None: it was stopped."""

    code: int | None
    seconds: float
    output: str


def run(command: list[str], env: dict[str, str], limit: float) -> Ended:
    """The command with its output shown, stopped with all its children at the limit."""
    begun = time.monotonic()
    log = WORK / "step.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w+", encoding="utf-8", errors="replace") as file:
        child = subprocess.Popen(
            command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code: int | None = child.wait(timeout=max(1.0, limit))
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            code = None
    output = log.read_text(encoding="utf-8", errors="replace").replace(f"{ROOT}/", "")
    return Ended(code, time.monotonic() - begun, output)


def visit_piece(piece: Piece, visit: Visit, deadline: float) -> dict[str, Any]:
    """Runs what is missing of a piece and stores it: {"status", "reason", "steps", "rows", "text", ...}."""
    path = visit.out / f"{piece.name}.json"
    stored = read_json(path)
    same = stored and stored["cpu"] == visit.cpu and stored["machine"].get("device") == visit.machine.get("device")
    if same and stored["status"] == "done":
        return stored
    result: dict[str, Any] = {"piece": piece.name, "cpu": visit.cpu, "machine": visit.machine}
    result |= {"status": "done", "reason": "", "steps": stored["steps"] if same else {}, "rows": [], "text": ""}
    if not same and visit.work.is_dir():
        forget(visit.work, piece.name)
    for step in piece.steps(visit):
        if result["steps"].get(step.name, {}).get("code") in step.codes:
            continue
        left = deadline - time.monotonic()
        if left < 5:
            result |= {"status": "stopped", "reason": f"{step.name}: no time left"}
            break
        print(f"{piece.name}: {step.name}, at most {left:.0f} s", flush=True)
        ended = run(step.command, environment(visit.cpu), left)
        kept = "" if ended.code == 0 else ended.output[-TAIL:]
        result["steps"][step.name] = {"code": ended.code, "seconds": ended.seconds, "output": kept}
        write_json(path, result)
        if ended.code not in step.codes:
            why = "stopped at the limit" if ended.code is None else f"ended with {ended.code}"
            result |= {"status": "stopped" if ended.code is None else "failed", "reason": f"{step.name} {why}"}
            print(kept, flush=True)
            if ended.code is None:
                break
    rows, result["text"] = piece.read(visit)
    again = {row.what for row in rows}
    # What an earlier call measured stays, also where the folder of its raw results did not travel with the page.
    before = [row for row in (stored["rows"] if same else []) if row["what"] not in again]
    result["rows"] = [*before, *(asdict(row) for row in rows)]
    missed = [row["what"] for row in result["rows"] if row["good"] is False]
    if result["status"] == "done" and missed:
        result |= {"status": "failed", "reason": "; ".join(missed)}
    write_json(path, result)
    return result


def forget(work: Path, piece: str) -> None:
    """What another machine left of a piece."""
    left = {"tests": ["tests.xml"], "main": ["main"], "engine": ["engine"], "cell": ["small", "stand_in"]}
    names = left.get(piece, [path.name for path in work.glob("phases_*")])
    for path in (work / name for name in names):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def write_json(path: Path, data: Any) -> None:
    write(path, json.dumps(data, indent=1) + "\n")


def write(path: Path, text: str) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(".part")
    half.write_text(text, encoding="utf-8")
    os.replace(half, path)


def page(visit: Visit, results: dict[str, dict[str, Any]]) -> str:
    """README.md of what there is."""
    machine = visit.machine
    where = machine.get("device", "a CPU")
    memory = f", {machine['memory'] / 2**30:.0f} GiB" if "memory" in machine else ""
    versions = ", ".join(
        f"{name} {machine[name]}" for name in ("torch", "cuda", "transformers", "python") if name in machine
    )
    lines = ["# A visit to a GPU", ""]
    if visit.cpu:
        lines += [
            "**A rehearsal on a CPU at 1/16 of the width. Nothing here was measured on a GPU**, and no number is "
            "judged; it shows that every piece runs.",
            "",
        ]
    command = "python scripts/gpu_visit.py" + (" --cpu" if visit.cpu else "")
    lines += [f"`{command}` on {where}{memory}; {versions}.", ""]
    if "launch" in machine:
        lines += [
            f"Launching a small kernel takes {1e6 * machine['launch']:.0f} microseconds here, a large bfloat16 product "
            f"runs at {machine['tflops']:.0f} TFLOP/s.",
            "",
        ]
    verdicts = {True: "met", False: "**missed**", None: ""}
    for piece in PIECES:
        result = results.get(piece.name)
        lines += [f"## {piece.name}: {piece.summary}", ""]
        if result is None:
            lines += ["Not begun.", ""]
            continue
        spent = sum(step["seconds"] for step in result["steps"].values())
        reason = f" ({result['reason']})" if result["reason"] else ""
        lines += [f"{result['status']}{reason}; {spent:.0f} s.", ""]
        if result["rows"]:
            lines += ["| measured | value | asked | |", "| --- | ---: | --- | --- |"]
            for row in result["rows"]:
                plain = lambda text: " ".join(str(text).split()).replace("|", "\\|")
                lines.append(
                    f"| {plain(row['what'])} | {plain(row['measured'])} | {row['asked']} | {verdicts[row['good']]} |"
                )
            lines.append("")
        if result["text"]:
            lines += [result["text"].strip(), ""]
    return "\n".join(lines)


def results_in(visit: Visit) -> dict[str, dict[str, Any]]:
    found = {piece.name: read_json(visit.out / f"{piece.name}.json") for piece in PIECES}
    return {name: result for name, result in found.items() if result and result["cpu"] == visit.cpu}


def whole_visit(options: argparse.Namespace) -> int:
    deadline = time.monotonic() + 60 * options.minutes
    visit = Visit(options.cpu, options.out.resolve(), WORK, options.tiny)
    found = look(visit)
    if found is None:
        print("Error: the project cannot be imported here; see --install.", file=sys.stderr)
        return 2
    visit.machine = found
    if not options.cpu and "device" not in visit.machine:
        print("Error: torch finds no CUDA device here; --cpu rehearses without one.", file=sys.stderr)
        return 2
    failed: list[str] = []
    missing: list[str] = []
    for piece in PIECES:
        if piece.name not in options.only:
            continue
        left = deadline - time.monotonic()
        if not options.cpu and left < piece.seconds / 2:
            missing.append(f"{piece.name} (takes some {piece.seconds:.0f} s, {max(0.0, left):.0f} s are left)")
            continue
        result = visit_piece(piece, visit, deadline)
        write(visit.out / "README.md", page(visit, results_in(visit)))
        print(f"{piece.name}: {result['status']} {result['reason']}", flush=True)
        if result["status"] == "failed":
            failed.append(f"{piece.name}: {result['reason']}")
        elif result["status"] != "done":
            missing.append(f"{piece.name}: {result['reason']}")
    print(f"{visit.out / 'README.md'} is written.")
    for words, found in (("failed", failed), ("missing", missing)):
        for text in found:
            print(f"{words}: {text}", file=sys.stderr)
    return 1 if failed else 3 if missing else 0


# ------------------------------------------------------------------------------------------------- what a visit needs


def wheels(folder: Path, python: str) -> int:
    """Downloads `WHEELS` for that Python and says what they weigh; 2 where that is too much to carry."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(folder)]
    command += ["--python-version", python, "--implementation", "cp"]
    command += [word for number in PLATFORMS for word in ("--platform", f"manylinux_{number}_x86_64")]
    command += ["--platform", "manylinux2014_x86_64"]
    command += [f"{name}=={version}" for name, (version, _) in WHEELS.items()]
    code = subprocess.run(command).returncode
    if code:
        print(f"Error: pip download ended with {code}; what it printed says why.", file=sys.stderr)
        return 2
    found = sorted(folder.glob("*.whl"))
    for path in found:
        print(f"{path.stat().st_size / 1e6:6.2f} MB  {path.name}")
    checkout = sum(path.stat().st_size for path in tracked())
    total = checkout + sum(path.stat().st_size for path in found)
    mib = lambda count: f"{count / 2**20:.0f}"
    print(f"{mib(total)} MiB with the checkout's {mib(checkout)}, of {mib(MOST_BYTES)} that may travel")
    if total > MOST_BYTES:
        print("Error: that is too much to carry; leave results behind.", file=sys.stderr)
        return 2
    return 0


def tracked() -> Iterator[Path]:
    """The files of the checkout that git does not ignore."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    yield from (path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


def install(folder: Path) -> int:
    """Installs the folder's wheels for the children of this script alone."""
    found = sorted(str(path) for path in folder.glob("*.whl"))
    if not found:
        print(f"Error: there are no wheels in {folder}; `--wheels {folder}` gets them.", file=sys.stderr)
        return 2
    words = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--upgrade"]
    return subprocess.run([sys.executable, *words, "--target", str(SITE), *found]).returncode


def stand_in(folder: Path, divisor: int) -> int:
    """A model of `small`'s shape with random weights, a tokenizer of words, articles and references."""
    import torch

    from harness.planning.shapes import shape_of
    from harness.store.lines import as_lines
    from scripts.bench_phases import NAMES, random_model, text, words

    torch.manual_seed(0)
    shape = shape_of(NAMES["qwen2.5-0.5b"]).divided(divisor)
    random_model(shape, "sdpa").save_pretrained(folder / "model")
    words(shape.vocab).save_pretrained(folder / "model")
    for name, count, length in (("articles", 256 + 64, 200), ("references", 600, 40)):
        write(folder / f"{name}.jsonl", as_lines({"text": text(length, shape.vocab, seed)} for seed in range(count)))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"    {piece.name:8} {piece.summary}" for piece in PIECES)
    carried = ", ".join(f"{name} {version} ({size:g} MB)" for name, (version, size) in WHEELS.items())
    carried = textwrap.indent(textwrap.fill(carried, 112), "    ")
    parser = argparse.ArgumentParser(
        description=__doc__.format(pieces=listed, wheels=carried), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [piece.name for piece in PIECES]
    parser.add_argument("--only", default=",".join(names), help="pieces, separated by commas")
    parser.add_argument("--minutes", type=float, default=9.0, help="this call's, at most (9)")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "studies" / "gpu")
    parser.add_argument("--cpu", action="store_true", help="the rehearsal")
    parser.add_argument("--tiny", action="store_true", help="with --cpu: every piece in its smallest form")
    parser.add_argument("--again", action="store_true", help="measure these pieces anew")
    parser.add_argument("--install", type=Path, metavar="FOLDER", help="install the folder's wheels first")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="download the wheels, and nothing else")
    parser.add_argument("--python", default="3.12", help="with --wheels: for this Python (3.12)")
    parser.add_argument(
        "--stand-in", type=Path, metavar="FOLDER", help="write random weights and texts, and nothing else"
    )
    parser.add_argument("--width-divisor", type=int, default=1, help="with --stand-in: of the true width")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",")
    unknown = [name for name in options.only if name not in names]
    if unknown:
        parser.error(f"no piece {unknown[0]!r}; pieces are {', '.join(names)}")
    if options.tiny and not options.cpu:
        parser.error("--tiny goes with --cpu")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.wheels:
        return wheels(options.wheels, options.python)
    if options.stand_in:
        return stand_in(options.stand_in, options.width_divisor)
    if options.install and (code := install(options.install)):
        return code
    if options.again:
        for name in options.only:
            (options.out / f"{name}.json").unlink(missing_ok=True)
            if WORK.is_dir():
                forget(WORK, name)
    return whole_visit(options)


if __name__ == "__main__":
    raise SystemExit(main())
