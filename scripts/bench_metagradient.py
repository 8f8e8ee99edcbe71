"""Measure the metagradient engine: exactness, and time and memory against plain training and its rivals.

    python scripts/bench_metagradient.py                       # every part, about ten minutes on one quiet core
    python scripts/bench_metagradient.py --only exact,ratios   # parts: exact, ratios, memory, sharded, figure

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
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
import torchopt
import transformers
from torch.func import functional_call

from rewards.metagradient import InnerOptimizer, keep_freed_memory, metagradient, train
from rewards.metagradient.checkpointing import host_free
from rewards.metagradient.testing import Double, build, lm_metric, make_batches, oracle, relative

ROOT = Path(__file__).resolve().parents[1]

GRAPHS, LEAN, TIGHT = 12_000_000_000, 750_000_000, 300_000_000
"""Memory budgets in bytes: room for graphs; for most of those of eight steps; for a few dozen states."""


# ---------------------------------------------------------------------------------------------------- settings and ways

OPTIMIZER = InnerOptimizer("adamw", lr=1e-5, betas=(0.9, 0.95), eps=1e-8, eps_root=1e-9, weight_decay=1e-4)
SIZES = {  # layers, width, heads, vocabulary, examples, tokens
    "figure": (3, 128, 4, 1024, 8, 32),
    "protocol": (2, 64, 4, 512, 512, 16),
    "miniature": (3, 128, 4, 1024, 32, 64),
    "gpt2": (12, 768, 12, 50257, 4, 128),
    "gpt2 width": (2, 768, 12, 50257, 4, 128),
    "wide": (4, 512, 8, 1024, 8, 32),
}
UNITS = {"plain": 3, "graph": 6, "again": 8, "rates": 3}
"""Matrix products per layer: a gradient pass; the way back from a kept graph; from scratch, whose weight gradients
nobody needs; forward mode alone."""


class Setting:
    """A GPT-2 with an untied head, T batches, and two metrics: an LM loss, and a patch of the LM head (the paper's)."""

    def __init__(self, size: str, steps: int, device: str) -> None:
        layers, width, heads, vocabulary, self.examples, self.tokens = SIZES[size]
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            n_layer=layers,
            n_embd=width,
            n_head=heads,
            vocab_size=vocabulary,
            n_positions=128,
            bos_token_id=0,
            eos_token_id=0,
            tie_word_embeddings=False,
            attn_implementation="eager",
        )
        self.model = transformers.GPT2LMHeadModel(config).eval().to(device)
        draw = lambda: torch.randint(1, vocabulary, (self.examples, self.tokens), device=device)
        self.batches = [{"input_ids": ids, "labels": ids} for ids in (draw() for _ in range(steps))]
        if size == "protocol":  # the same examples whatever T
            self.batches = [{k: v[i::steps] for k, v in self.batches[0].items()} for i in range(steps)]
        self.held = draw()
        self.head = self.model.lm_head.weight.detach()[:7, :6].clone()
        self.signs = torch.randn(7, 6, device=device).sign()

    def losses(self, params, ids) -> torch.Tensor:
        logits = functional_call(self.model, params, (), {"input_ids": ids, "use_cache": False}).logits[:, :-1]
        nll = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none")
        return nll.view(len(ids), -1).mean(1)

    def lm(self, params) -> torch.Tensor:
        return -self.losses(params, self.held).mean()

    def patch(self, params) -> torch.Tensor:
        return F.logsigmoid(20 * self.signs * (params["lm_head.weight"][:7, :6] - self.head)).mean()


def plain(s: Setting, metric, budget=None) -> None:
    o = OPTIMIZER
    params = {k: p.detach().clone().requires_grad_() for k, p in s.model.named_parameters()}
    optimizer = torch.optim.AdamW(params.values(), o.lr, o.betas, o.eps, o.weight_decay)
    for batch in s.batches:
        optimizer.zero_grad()
        s.losses(params, batch["input_ids"]).mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    metric(params).backward()


def engine(s: Setting, metric, budget=None, optimizer=OPTIMIZER):
    return metagradient(s.model, s.batches, metric, optimizer, memory_budget=budget)


def torchopt_unrolled(s: Setting, metric, budget=None) -> torch.Tensor:
    """The whole training as one graph."""
    o = OPTIMIZER
    rule = torchopt.adamw(o.lr, o.betas, o.eps, o.weight_decay, eps_root=o.eps_root)
    names = [k for k, _ in s.model.named_parameters()]
    params = tuple(p.detach().clone().requires_grad_() for _, p in s.model.named_parameters())
    weights = torch.ones(len(s.batches), s.examples, device=params[0].device, requires_grad=True)
    state = rule.init(params)
    for step, batch in enumerate(s.batches):
        losses = s.losses(dict(zip(names, params, strict=True)), batch["input_ids"])
        grads = torch.autograd.grad((losses * weights[step]).mean(), params, create_graph=True)
        updates, state = rule.update(grads, state, params=params, inplace=False)
        params = torchopt.apply_updates(params, updates, inplace=False)
    return torch.autograd.grad(metric(dict(zip(names, params, strict=True))), weights)[0].flatten()


def reverse_over_reverse(s: Setting, metric, budget=None) -> torch.Tensor:
    """States kept, one step's graph at a time, by autograd through loss, update and all, on stock operations."""
    o = OPTIMIZER
    rule = torchopt.adamw(o.lr, o.betas, o.eps, o.weight_decay, eps_root=o.eps_root)
    names = [k for k, _ in s.model.named_parameters()]
    params = tuple(p.detach().clone() for _, p in s.model.named_parameters())
    state, states = rule.init(params), []

    def step(batch, params, state, weights, create_graph):
        losses = s.losses(dict(zip(names, params, strict=True)), batch["input_ids"])
        grads = torch.autograd.grad((losses * weights).mean(), params, create_graph=create_graph)
        updates, state = rule.update(grads, state, params=params, inplace=False)
        return torchopt.apply_updates(params, updates, inplace=False), state

    def leaves(params, state):
        flat, spec = torchopt.pytree.tree_flatten(state)
        flat = [t.detach().requires_grad_() if torch.is_floating_point(t) else t for t in flat]
        moving = [t for t in flat if torch.is_floating_point(t)]
        return tuple(p.detach().requires_grad_() for p in params), torchopt.pytree.tree_unflatten(spec, flat), moving

    ones = torch.ones(s.examples, device=params[0].device)
    for batch in s.batches:
        params, state, _ = leaves(params, state)
        states.append((params, state))
        params, state = step(batch, params, state, ones, False)
    params, state, moving = leaves(params, state)
    adjoint = list(
        torch.autograd.grad(
            metric(dict(zip(names, params, strict=True))), params, materialize_grads=True, allow_unused=True
        )
    ) + [torch.zeros_like(t) for t in moving]
    out = []
    for batch in reversed(s.batches):
        params, state, moving = leaves(*states.pop())
        weights = ones.clone().requires_grad_()
        new, news = step(batch, params, state, weights, True)
        ends = [*new, *(t for t in torchopt.pytree.tree_leaves(news) if torch.is_floating_point(t))]
        found = torch.autograd.grad(
            ends, [weights, *params, *moving], adjoint, allow_unused=True, materialize_grads=True
        )
        out.append(found[0])
        adjoint = list(found[1:])
    return torch.cat(out[::-1])


METHODS = {
    "plain": plain,
    "engine": engine,
    "torchopt": torchopt_unrolled,
    "reverse_over_reverse": reverse_over_reverse,
}


# ------------------------------------------------------------------------------------------------------------ measuring


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
    for size, steps, metric, rounds, ways in CASES[: arguments.cases]:
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


# -------------------------------------------------------------------------------------------------------------- sharded

RANKS = (1, 2, 4)


def part_sharded(rows: Rows, arguments: argparse.Namespace) -> None:
    """A row a number of ranks: what a rank of the sharded mode takes, on its share of the examples; 1: the engine as it
    is. Ranks run beside each other, on however few cores there are: the CPU seconds of a rank are what counts."""
    for steps in (1,) if arguments.quick else (4, 1):
        for ranks in RANKS:
            if rows.has(ranks=ranks, T=steps):
                continue
            with tempfile.TemporaryDirectory() as folder:
                mp.spawn(rank_point, (ranks, steps, folder, arguments.device), nprocs=ranks)
                found = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(ranks)]
            row = {key: max(each[key] for each in found) for key in ("peak_bytes", "wall_s", "cpu_s", "vector_bytes")}
            rows.add(size="wide", T=steps, ranks=ranks, weights=found[0]["weights"], **row)
            print(f"sharded   {ranks} ranks T={steps}: {row}", flush=True)


def rank_point(rank: int, ranks: int, steps: int, folder: str, device: str) -> None:
    """One rank: peak bytes above what was there before a call, its seconds, and all ranks' weights in batch order."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    s = Setting("wide", steps, device)
    batches = [{key: value[rank::ranks] for key, value in batch.items()} for batch in s.batches]
    options = {"process_group": dist.group.WORLD, "sharded": True} if ranks > 1 else {}
    states = int(4.1 * 4 * max(steps, 2) * sum(p.numel() for p in s.model.parameters())) // ranks  # no graphs
    run = lambda: metagradient(s.model, batches, s.lm, OPTIMIZER, memory_budget=states, **options)
    run()  # the first call also maps libraries
    Path("/proc/self/clear_refs").write_text("5")
    before, _ = resident()
    found, wall, cpu = timed(run, device)
    weights = torch.zeros(steps, s.examples)
    weights[:, rank::ranks] = found.weights.cpu().view(steps, -1)
    dist.all_reduce(weights)
    row = {
        "peak_bytes": resident()[1] - before,
        "wall_s": wall,
        "cpu_s": cpu,
        "vector_bytes": -(-4 * sum(p.numel() for p in s.model.parameters()) // ranks),
        "weights": weights.flatten().tolist(),
    }
    Path(folder, f"{rank}.json").write_text(json.dumps(row))
    dist.destroy_process_group()


# --------------------------------------------------------------------------------------------------------------- report

COMMAND = "python scripts/bench_metagradient.py"


def rows_of(folder: Path, part: str) -> list[dict]:
    path = folder / f"{part}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def machine_of(folder: Path, part: str, otherwise: dict) -> dict:
    """Where a part was measured last."""
    path = folder / f"{part}.json"
    return json.loads(path.read_text())["machine"] if path.exists() else otherwise


def ratio(rows: list[dict], size: str, steps: int, metric: str, way: str, to: str = "plain", clock: str = "cpu_s"):
    """Median over rounds of way / to, None where nothing was measured."""
    found = [
        row["seconds"][way][clock] / row["seconds"][to][clock] for row in rows if is_of(row, size, steps, metric, way)
    ]
    return statistics.median(found) if found else None


def is_of(row: dict, size: str, steps: int, metric: str, way: str) -> bool:
    return (row["size"], row["T"], row["metric"]) == (size, steps, metric) and way in row["seconds"]


def targets(folder: Path) -> list[tuple[str, float | None, str, float, str]]:
    """(what, measured or None, "<=" or ">=", bound, note)."""
    exact, ratios, memory = (rows_of(folder, part) for part in ("exact", "ratios", "memory"))
    ladder = [row for row in exact if row["check"] == "ladder"]
    worst = lambda dtype: max((row[dtype] for row in ladder), default=None)
    found = [
        (f"worst error of {len(ladder)} models, float64", worst("float64"), "<=", 1e-9, "full unrolling in float64"),
        ("the same in float32", worst("float32"), "<=", 1e-4, ""),
    ]
    for row in exact:
        if row["check"] == "protocol":
            mild = row["eps_root"] >= 1e-6  # with less, Adam itself is not linear over so large a perturbation
            what = f"authors' protocol, T={row['T']}, eps_root {row['eps_root']:g}"
            found.append((what, row["correlation"], ">=", 0.99 if mild else 0.7, "20 perturbations of norm 1"))
    for size, steps, metric, way, bound in [
        ("miniature", 1, "lm", "engine", 1.3),
        ("gpt2", 1, "lm", "engine", 1.3),
        ("miniature", 1, "patch", "engine", 1.05),
        ("gpt2", 1, "patch", "engine", 1.05),
        ("miniature", 8, "lm", "engine", 3.5),
        ("miniature", 8, "lm", "states kept", 3.5),
        ("gpt2 width", 4, "lm", "engine", 3.5),
        ("miniature", 96, "lm", "engine", 3.5),
        ("miniature", 96, "lm", "states kept", 3.5),
    ]:
        measured = ratio(ratios, size, steps, metric, way)
        wall = ratio(ratios, size, steps, metric, way, clock="wall_s")
        what = f"{size}, T={steps}, {metric} metric, {way}: time / plain"
        plans = [row["plans"][way] for row in ratios if is_of(row, size, steps, metric, way)]
        graphs = min((plan["graphs"] for plan in plans), default=0)
        recorded = all(plan["recorded"] for plan in plans)
        note = "" if wall is None else f"wall {wall:.2f}; products alone {floor(steps, graphs, metric, recorded):.2f}"
        note += f", {graphs} graphs kept" if wall is not None and steps > 1 else ""
        found.append((what, measured, "<=", bound, note))
    faster = ratio(ratios, "miniature", 8, "lm", "torchopt", "engine")
    found.append(("TorchOpt / engine, time at T=8", faster, ">=", 1.3, "or the next two"))
    found.append(("the same, engine with 750 MB", ratio(ratios, "miniature", 8, "lm", "torchopt", "lean"), ">=", 1, ""))
    peak = {(row["method"], row["steps"], row["budget"]): row.get("peak_bytes") for row in memory}
    extra = {row["steps"]: row.get("extra_passes") for row in memory if row["budget"] == 300_000_000}
    for what, one, two, bound in [
        ("its peak memory / TorchOpt's", ("engine", 8, 750_000_000), ("torchopt", 8, None), 0.4),
        ("peak memory / TorchOpt's at T=32", ("engine", 32, 300_000_000), ("torchopt", 32, None), 0.15),
        ("peak memory T=96 / T=8, budget 300 MB", ("engine", 96, 300_000_000), ("engine", 8, 300_000_000), 1.5),
    ]:
        had = peak.get(one) and peak.get(two)
        note = f"{peak[one] / 1e6:.0f} of {peak[two] / 1e6:.0f} MB" if had else ""
        found.append((what, peak[one] / peak[two] if had else None, "<=", bound, note))
    found.append(("its further plain passes at T=96", extra.get(96), "<=", 1.0, "of the plan"))
    return found


def floor(steps: int, graphs: int, metric: str, recorded: bool) -> float:
    """Matrix products of a call over those of plain training and the metric's gradient; the graphs are the last
    steps'."""
    plain, back = UNITS["plain"] * (steps + 1), min(graphs, steps - 1)
    first = 0 if metric == "patch" else 1 if recorded else UNITS["rates"]
    return (plain + UNITS["graph"] * back + UNITS["again"] * (steps - 1 - back) + first) / plain


def sharded_lines(rows: list[dict], machine: dict) -> list[str]:
    """The table of the sharded mode, empty without rows."""
    if not rows:
        return []
    loads = [row["load"] for row in rows]
    alone = {row["T"]: row for row in rows if row["ranks"] == 1}
    lines = [
        "",
        "Sharded (`sharded=True`): a rank's own peak memory and CPU seconds, each against one process that holds all "
        "and does all; GPT-2 shape wide, LM metric, gloo on one machine "
        f"({machine['device']}, load average {min(loads):.1f} to {max(loads):.1f}). "
        "A step gathers each layer up to seven times (forward, and every backward pass through it) and reduces its "
        "gradient and its Hessian-vector product; gloo does that with the CPU,"
        " which with so few tokens a step more than doubles the seconds of all ranks together.",
        "",
        "| T | ranks | a vector | peak memory of a rank | to one process | CPU s of a rank | all ranks to one process "
        "| relative difference of the weights |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["T"], row["ranks"])):
        one = alone[row["T"]]
        apart = relative(torch.tensor(row["weights"]), torch.tensor(one["weights"]))
        lines.append(
            f"| {row['T']} | {row['ranks']} | {row['vector_bytes'] / 1e6:.0f} MB | {row['peak_bytes'] / 1e6:.0f} MB | "
            f"{row['peak_bytes'] / one['peak_bytes']:.2f} | {row['cpu_s']:.1f} | "
            f"{row['ranks'] * row['cpu_s'] / one['cpu_s']:.2f} | {apart:.0e} |"
        )
    return lines


def verdict(measured: float | None, sign: str, bound: float) -> str:
    if measured is None:
        return "not measured"
    return "pass" if (measured <= bound if sign == "<=" else measured >= bound) else "miss"


def write(folder: Path, machine: dict) -> None:
    """Prints the targets; writes README.md and, where there are rows for it, the figure."""
    shown = lambda x: "" if x is None else f"{x:.1e}" if abs(x) < 1e-3 else f"{x:.4f}" if 0.9 < x < 1 else f"{x:.2f}"
    lines = ["| measured | value | asked | | |", "|---|---|---|---|---|"]
    for what, measured, sign, bound, note in targets(folder):
        asked = f"{sign} {bound:g}"
        print(f"{what:55} {shown(measured):>8}  {asked:>8}  {verdict(measured, sign, bound):12} {note}")
        lines.append(f"| {what} | {shown(measured)} | {asked} | {verdict(measured, sign, bound)} | {note} |")
    loads = [row["load"] for part in ("ratios", "memory", "figure") for row in rows_of(folder, part)]
    busy = f"{min(loads):.1f} to {max(loads):.1f}" if loads else "unknown"
    first = machine_of(folder, "ratios", machine)
    shapes = "; ".join(f"{k} {v[0]}x{v[1]}, vocabulary {v[3]}, batch {v[4]}x{v[5]}" for k, v in SIZES.items())
    text = [
        "# The metagradient engine, measured",
        "",
        f"`{COMMAND}` makes everything here (`--only ratios --again` measures one part anew).",
        f"{first['device']}, {first['threads']} thread(s), torch {first['torch']}, transformers "
        f"{first['transformers']}, TorchOpt {first['torchopt']}; load average during the measurements: {busy}.",
        "",
        "Ratios are CPU seconds of the process, medians over rounds that run every way in turn, to plain training of "
        "the same T steps plus one gradient of the metric; where the load is above the number of cores, wall clock "
        'says "others were here" and little else. "Products alone" counts matrix products. Each comparison is run '
        "once before it is measured, in a process that keeps freed memory (`keep_freed_memory`, as the "
        "harness's workers "
        "do): a first call also pays for fresh pages, the more the more graphs it keeps.",
        f"GPT-2 shapes (layers x width, examples x tokens), float32, AdamW, untied head: {shapes}.",
        "",
        *lines,
    ]
    text += sharded_lines(rows_of(folder, "sharded"), machine_of(folder, "sharded", machine))
    if rows_of(folder, "figure"):
        plot(rows_of(folder, "figure"), folder / "metagradient.png", machine_of(folder, "figure", machine))
        text += ["", "![Time and memory against T](metagradient.png)"]
    (folder / "README.md").write_text("\n".join(text) + "\n")


def plot(rows: list[dict], path: Path, machine: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from reports.figures import write as write_figure

    names = {
        ("engine", 2_000_000_000): ("engine, 2 GB budget", "tab:blue"),
        ("engine", 400_000_000): ("engine, 400 MB budget", "tab:cyan"),
        ("torchopt", None): ("TorchOpt, unrolled", "tab:red"),
        ("reverse_over_reverse", None): ("reverse over reverse, states kept", "tab:orange"),
    }
    rows = [row for row in rows if "error" not in row]
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    base = {row["steps"]: row["cpu_s"] for row in rows if row["method"] == "plain"}
    for (method, budget), (label, colour) in names.items():
        own = [row for row in rows if (row["method"], row["budget"]) == (method, budget) and row["steps"] in base]
        grid, ratios = [row["steps"] for row in own], [row["cpu_s"] / base[row["steps"]] for row in own]
        left.plot(grid, ratios, color=colour, marker="o", ms=3, label=label)
        right.plot(grid, [row["peak_bytes"] / 1e6 for row in own], color=colour, marker="o", ms=3)
    grid = sorted(base)
    count = lambda back: [
        (UNITS["plain"] * (t + 1) + UNITS[back] * (t - 1) + 1) / UNITS["plain"] / (t + 1)  # 1: the recorded first step
        for t in grid
    ]
    left.plot(grid, count("graph"), "k:", label="floor: matrix products, graphs kept")
    left.plot(grid, count("again"), "k--", label="floor: matrix products, recomputed")
    own = [row for row in rows if row["method"] == "plain"]
    right.plot([row["steps"] for row in own], [row["peak_bytes"] / 1e6 for row in own], "k:", label="plain training")
    time_label = "CPU time / (plain training + metric gradient)"
    left.set(xscale="log", xlabel="T, optimizer steps", ylabel=time_label, ylim=(0, None))
    right.set(xscale="log", yscale="log", xlabel="T, optimizer steps", ylabel="peak memory above start, MB")
    for axis in (left, right):
        axis.set_xticks(grid, [str(t) for t in grid])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    left.legend(fontsize=7)
    right.legend(fontsize=7)
    layers, width, _, vocabulary, examples, tokens = SIZES["figure"]
    shape = f"GPT-2 shape {layers}x{width}, vocabulary {vocabulary}, batch {examples}x{tokens}"
    where = f"{machine['device']}, {machine['threads']} thread(s)"
    figure.suptitle(f"{shape}, AdamW, float32, {where}", fontsize=9)
    write_figure(figure, path)
    plt.close(figure)


# -------------------------------------------------------------------------------------------------------------- command

PARTS = {
    "exact": part_exact,
    "ratios": part_ratios,
    "memory": part_memory,
    "sharded": part_sharded,
    "figure": part_figure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas; none: the report alone")
    out = ROOT / "reports" / "studies" / "metagradient"
    parser.add_argument("--out", type=Path, default=out, help="folder of what is written")
    parser.add_argument("--again", action="store_true", help="measure these parts anew")
    parser.add_argument("--quick", action="store_true", help="fewer, smaller runs")
    parser.add_argument("--cases", type=int, help="the first so many comparisons of the part ratios")
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
