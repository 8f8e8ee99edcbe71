"""Measure the metagradient engine: exactness, and time and memory against plain training and its rivals.

    python scripts/bench_metagradient.py                       # every part, about ten minutes on one quiet core
    python scripts/bench_metagradient.py --only exact,ratios   # parts: exact, ratios, memory, figure

Every measurement is a row of <out>/<part>.json, written as soon as it is made: an interrupted run resumes where it
stopped, `--again` starts its parts anew. The targets are then printed beside what was measured, and <out>/README.md and
the figure are written from whatever rows there are.

Ratios are taken within a round in one process, to plain training of the same T steps plus one gradient of the metric: a
stock loop, the model as Hugging Face made it, torch.optim, F.cross_entropy. They stand by wall clock and by CPU seconds
of the process; the latter hold on a machine that others use too. There every way keeps the memory that it frees, so
that page faults of the machine enter neither side. Memory is the high-water mark of resident memory above
the state before the call, in a process of its own with every large tensor mapped on its own, so that freed memory is
returned at once (CUDA: torch.cuda.max_memory_allocated).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import os
import platform
import statistics
import time
from functools import partial
from pathlib import Path

from metagradient_methods import METHODS, ROOT, SIZES, Setting, engine, torch, torchopt, transformers
from metagradient_report import write

from rewards.metagradient import InnerOptimizer, keep_freed_memory, metagradient, train
from rewards.metagradient.checkpointing import host_free

GRAPHS, LEAN, TIGHT = 12_000_000_000, 750_000_000, 300_000_000
"""Memory budgets in bytes: room for graphs; for most of those of eight steps; for a few dozen states."""


class Rows:
    """The rows of one part, on disk after every addition; `key` fields tell them apart."""

    def __init__(self, path: Path, again: bool) -> None:
        self.path = path
        self.rows = json.loads(path.read_text())["rows"] if path.exists() and not again else []

    def has(self, **key) -> bool:
        return any(all(row.get(k) == v for k, v in key.items()) for row in self.rows)

    def add(self, **row) -> dict:
        self.rows.append(row | {"load": os.getloadavg()[0]})
        text = json.dumps({"machine": machine(), "rows": self.rows}, indent=1)
        half = self.path.with_suffix(".part")
        half.write_text(text + "\n")
        os.replace(half, self.path)
        return row


def machine() -> dict:
    name = platform.processor() or platform.machine()
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "torchopt": torchopt.__version__,
        "transformers": transformers.__version__,
    }


def timed(run, device: str) -> tuple[object, float, float]:
    """(what it gives, wall seconds, CPU seconds of this process)."""
    begun, used = time.perf_counter(), time.process_time()
    found = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return found, time.perf_counter() - begun, time.process_time() - used


# ---------------------------------------------------------------------------------------------------------------- exact


def part_exact(rows: Rows, arguments: argparse.Namespace) -> None:
    """The ladder against float64 full unrolling (the tests have every other setting), and the authors' protocol."""
    from small_models import Double, build, lm_metric, make_batches, oracle, relative

    optimizer = InnerOptimizer("adamw", lr=1e-2, eps_root=1e-6, weight_decay=0.1)
    for kind in ("gpt2", "llama", "qwen"):
        for tied in (True, False):
            for steps in (1, 2, 3, 8):
                if rows.has(model=kind, tied=tied, T=steps):
                    continue
                model, batches = build(kind, tied), make_batches(steps)
                with Double():
                    _, expected = oracle(model, batches, lm_metric(model), optimizer)
                    double = metagradient(model, batches, lm_metric(model), optimizer).weights
                single = build(kind, tied).float()
                float32 = metagradient(single, batches, lm_metric(single), optimizer).weights
                rows.add(
                    check="ladder",
                    model=kind,
                    tied=tied,
                    T=steps,
                    float64=relative(double, expected),
                    float32=relative(float32, expected),
                )
    for steps, eps_root in ((1, 1e-6), (8, 1e-6), (1, 1e-9)):
        if not rows.has(check="protocol", T=steps, eps_root=eps_root):
            rows.add(check="protocol", T=steps, eps_root=eps_root, **protocol(steps, eps_root, arguments.device))


def protocol(steps: int, eps_root: float, device: str) -> dict:
    """20 random perturbations of the data weights of norm 1, predicted against actual change of Phi.

    In float64, since the changes are small against Phi. With the smaller eps_root an Adam step is nearly the sign of
    the gradient, and not linear over so large a perturbation: that limits any derivative, however exact.
    """
    s, optimizer = Setting("protocol", steps, device), InnerOptimizer("adam", lr=1e-5, eps_root=eps_root)
    s.model.double()
    found, start = engine(s, s.lm, optimizer=optimizer), s.lm(train(s.model, s.batches, optimizer))
    generator, predicted, actual = torch.Generator().manual_seed(0), [], []
    for _ in range(20):
        move = torch.randn(len(found.weights), generator=generator, dtype=torch.float64).to(found.weights.device)
        move /= move.norm()
        predicted.append(float(move @ found.weights))
        with torch.no_grad():
            actual.append(float(s.lm(train(s.model, s.batches, optimizer, weights=1 + move)) - start))
    correlation = float(torch.corrcoef(torch.tensor([predicted, actual]))[0, 1])
    return {"correlation": correlation, "predicted": predicted, "actual": actual}


# --------------------------------------------------------------------------------------------------------------- ratios

CASES = [  # size, T, metric, rounds, ways (name, method, budget; "states": every state and gradient, no graph)
    ("miniature", 1, "lm", 7, [("engine", "engine", GRAPHS)]),
    ("miniature", 1, "patch", 7, [("engine", "engine", GRAPHS)]),
    (
        "miniature",
        8,
        "lm",
        3,
        [
            ("engine", "engine", GRAPHS),
            ("states kept", "engine", "states"),
            ("lean", "engine", LEAN),
            ("torchopt", "torchopt", None),
            ("reverse over reverse", "reverse_over_reverse", None),
        ],
    ),
    ("gpt2", 1, "lm", 3, [("engine", "engine", GRAPHS)]),
    ("gpt2", 1, "patch", 3, [("engine", "engine", GRAPHS)]),
    ("gpt2 width", 4, "lm", 2, [("engine", "engine", GRAPHS)]),
    ("miniature", 96, "lm", 1, [("engine", "engine", GRAPHS), ("states kept", "engine", "states")]),
]


def part_ratios(rows: Rows, arguments: argparse.Namespace) -> None:
    """One row a round: seconds of plain training and of each way, run in turn."""
    keep_freed_memory()
    for size, steps, metric, rounds, ways in CASES:
        rounds = 1 if arguments.quick else rounds
        if arguments.quick and (steps > 8 or size.startswith("gpt2")):
            continue
        missing = [r for r in range(rounds) if not rows.has(size=size, T=steps, metric=metric, round=r)]
        if not missing:
            continue
        s = Setting(size, steps, arguments.device)
        states = int(4.1 * 4 * steps * sum(p.numel() for p in s.model.parameters()))
        runs = {"plain": ("plain", None)} | {name: (m, states if b == "states" else b) for name, m, b in ways}
        for index in ["first", *missing]:  # memory that was never used before is slow: the first round is not counted
            seconds, plans = in_turn(s, metric, runs, arguments.device)
            ratios = {k: f"{v['cpu_s'] / seconds['plain']['cpu_s']:.2f}" for k, v in seconds.items() if k != "plain"}
            print(f"ratios    {size} T={steps} {metric} round {index}, to plain by CPU time: {ratios}", flush=True)
            if index != "first":
                rows.add(
                    size=size, shape=SIZES[size], T=steps, metric=metric, round=index, seconds=seconds, plans=plans
                )


def in_turn(s: Setting, metric: str, runs: dict[str, tuple[str, int | None]], device: str) -> tuple[dict, dict]:
    """(seconds by way, plans of the engine's) of one round."""
    seconds, plans, of = {}, {}, getattr(s, metric)
    for name, (method, budget) in runs.items():
        found, wall, cpu = timed(partial(METHODS[method], s, of, budget), device)
        seconds[name] = {"wall_s": wall, "cpu_s": cpu}
        if method == "engine":
            plans[name] = {
                "strategy": found.plan.strategy,
                "recorded": found.plan.recorded,
                "graphs": found.plan.graphs,
                "budget": budget,
            }
        del found
    return seconds, plans


# ------------------------------------------------------------------------------------------------------ memory, figure


def resident() -> tuple[int, int]:
    """(bytes resident, high-water mark) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = {line[:5]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS:", "VmHWM:"))}
    return fields["VmRSS"], fields["VmHWM"]


def point(pipe, size: str, method: str, steps: int, budget: int | None, device: str, repeats: int) -> None:
    """In a process of its own: peak bytes above what was there before, and median seconds of `repeats` calls."""
    try:
        if platform.system() == "Linux":
            ctypes.CDLL(None).mallopt(-3, 1 << 18)  # M_MMAP_THRESHOLD
        torch.set_num_threads(1)
        s = Setting(size, steps, device)
        METHODS[method](Setting("figure", 2, device), s.lm, None)  # warm: also maps the libraries that the call needs
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        else:
            Path("/proc/self/clear_refs").write_text("5")
            before, _ = resident()
        found, *first = timed(lambda: METHODS[method](s, s.lm, budget), device)
        after = torch.cuda.max_memory_allocated() if device == "cuda" else resident()[1]
        plan = getattr(found, "plan", None)
        del found
        times = [first, *(timed(lambda: METHODS[method](s, s.lm, budget), device)[1:] for _ in range(repeats - 1))]
        row = {
            "peak_bytes": after - before,
            "wall_s": statistics.median(t[0] for t in times),
            "cpu_s": statistics.median(t[1] for t in times),
        }
        if plan is not None:
            row |= {"plan": plan.strategy, "graphs": plan.graphs, "plan_bytes": plan.bytes}
            row |= {"extra_passes": plan.extra_passes}
        pipe.send(row)
    except Exception as error:  # a point that cannot be had (too small a budget) is a row as well
        pipe.send({"error": f"{type(error).__name__}: {error}"})


def in_own_process(rows: Rows, arguments: argparse.Namespace, repeats: int = 1, **key) -> dict:
    """The row of this point, measured now if it is not there yet."""
    for row in rows.rows:
        if all(row.get(k) == v for k, v in key.items()):
            return row
    # Not forked: the child of a process that has freed gigabytes finds them resident and seems to need no memory at
    # all.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    child = context.Process(target=point, args=(there,), kwargs=key | {"device": arguments.device, "repeats": repeats})
    child.start()
    there.close()
    try:
        result = here.recv()
    except EOFError:
        result = {"error": "ended without a word, as a rule for want of memory"}
    child.join()
    row = rows.add(**key, **result)
    shown = row.get("error") or f"{row['peak_bytes'] / 1e6:.0f} MB, {row['cpu_s']:.1f} CPU s {row.get('plan', '')}"
    print(
        f"{rows.path.stem:9} {key['size']} {key['method']} T={key['steps']} budget {key['budget']}: {shown}", flush=True
    )
    return row


def part_memory(rows: Rows, arguments: argparse.Namespace) -> None:
    points = [("torchopt", 8, None), ("engine", 8, LEAN), ("engine", 8, TIGHT)]
    points += [] if arguments.quick else [("engine", 32, TIGHT), ("engine", 96, TIGHT), ("torchopt", 32, None)]
    for method, steps, budget in points:
        if (method, steps) == ("torchopt", 32) and host_free() < 12e9 and arguments.device == "cpu":
            print(
                "memory    torchopt T=32 left out: it needs about 8 GB, and a run with others no less than 12 GB free"
            )
            continue
        in_own_process(rows, arguments, size="miniature", method=method, steps=steps, budget=budget)


def part_figure(rows: Rows, arguments: argparse.Namespace) -> None:
    """Time and memory against T; a way whose next point would take more than 6 GB ends there."""
    for steps in [1, 2, 4, 8, 16] if arguments.quick else [1, 2, 4, 8, 16, 32, 64, 128, 256]:
        for method, budget in [
            ("plain", None),
            ("engine", 2_000_000_000),
            ("engine", 400_000_000),
            ("torchopt", None),
            ("reverse_over_reverse", None),
        ]:
            key = {"size": "figure", "method": method, "budget": budget}
            last = [r for r in rows.rows if r["steps"] < steps and all(r.get(k) == v for k, v in key.items())]
            if method not in ("plain", "engine") and last and 2 * last[-1].get("peak_bytes", 6e9) > 6e9:
                continue
            in_own_process(rows, arguments, repeats=3 if steps <= 8 else 1, **key, steps=steps)


PARTS = {"exact": part_exact, "ratios": part_ratios, "memory": part_memory, "figure": part_figure}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas; none: the report alone")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "metagradient", help="folder of what is written")
    parser.add_argument("--again", action="store_true", help="measure these parts anew")
    parser.add_argument("--quick", action="store_true", help="fewer, smaller runs")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    arguments = parser.parse_args()
    names = [name for name in arguments.only.split(",") if name and name != "none"]
    for name in names:
        if name not in PARTS:
            parser.error(f"no part {name!r}; parts are {', '.join(PARTS)}")
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        begun = time.perf_counter()
        PARTS[name](Rows(arguments.out / f"{name}.json", arguments.again), arguments)
        print(f"{name:9} took {time.perf_counter() - begun:.0f} s", flush=True)
    write(arguments.out, machine())


if __name__ == "__main__":
    main()
