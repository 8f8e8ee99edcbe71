"""Measure the metagradient engine: exactness, speed against plain training and TorchOpt, memory, and the figure over T.

    python scripts/bench_metagradient.py all            # everything, into reports/metagradient/ (about ten minutes)
    python scripts/bench_metagradient.py speed --quick  # one part, fewer and smaller runs

Ratios are medians over interleaved runs in one process, by wall clock and by CPU seconds of the process (the second
stands on a machine that others use too). Memory is the high-water mark of resident memory above the state before the
call, each point in its own process (CUDA: torch.cuda.max_memory_allocated). "Plain" is a stock training loop: the model
as Hugging Face made it, torch.optim, F.cross_entropy, followed by one gradient of the metric.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "rewards" / "metagradient")]

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
import torchopt  # noqa: E402
import transformers  # noqa: E402
from torch.func import functional_call  # noqa: E402

from rewards.metagradient import InnerOptimizer, metagradient, train  # noqa: E402

OPTIMIZER = InnerOptimizer("adamw", lr=1e-5, betas=(0.9, 0.95), eps=1e-8, eps_root=1e-9, weight_decay=1e-4)
SIZES = {  # layers, width, heads, vocabulary, examples, tokens
    "figure": (3, 128, 4, 1024, 8, 32),
    "protocol": (3, 128, 4, 1024, 256, 32),
    "miniature": (3, 128, 4, 1024, 32, 64),
    "gpt2": (12, 768, 12, 50257, 4, 128),
}
UNITS = {"plain": 3, "graph": 6, "again": 9, "rates": 3}
"""Matrix products per layer: a gradient pass; the way back from a kept graph; from scratch; forward mode alone."""


class Setting:
    """A model with an untied head, T batches, and the two metrics."""

    def __init__(self, size: str, steps: int, device: str) -> None:
        layers, width, heads, vocabulary, self.examples, self.tokens = SIZES[size]
        torch.manual_seed(0)
        config = transformers.GPT2Config(
            n_layer=layers, n_embd=width, n_head=heads, vocab_size=vocabulary, n_positions=128, bos_token_id=0,
            eos_token_id=0, tie_word_embeddings=False, attn_implementation="eager",
        )  # fmt: skip
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


# -------------------------------------------------------------------------------------------------------------- methods


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


def engine(s: Setting, metric, budget=None):
    return metagradient(s.model, s.batches, metric, OPTIMIZER, memory_budget=budget)


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
    adjoint = list(torch.autograd.grad(metric(dict(zip(names, params, strict=True))), params, materialize_grads=True,
                                       allow_unused=True)) + [torch.zeros_like(t) for t in moving]  # fmt: skip
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


# ---------------------------------------------------------------------------------------------------------- measurement


def interleaved(runs: dict[str, Callable[[], object]], repeats: int, warm: bool = True) -> dict[str, dict[str, float]]:
    """Median wall and CPU seconds of each, and medians of the ratios to the first within a round."""
    wall, cpu = {k: [] for k in runs}, {k: [] for k in runs}
    for index in range(repeats + warm):
        for name, run in runs.items():
            begun, used = time.perf_counter(), time.process_time()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if index >= warm:
                wall[name].append(time.perf_counter() - begun)
                cpu[name].append(time.process_time() - used)
    base = next(iter(runs))
    ratio = lambda times, name: statistics.median(a / b for a, b in zip(times[name], times[base], strict=True))
    return {
        name: {
            "wall_s": statistics.median(wall[name]),
            "cpu_s": statistics.median(cpu[name]),
            "wall_ratio": ratio(wall, name),
            "cpu_ratio": ratio(cpu, name),
            "runs": repeats,
        }
        for name in runs
    }


def resident() -> tuple[int, int]:
    """(bytes resident, high-water mark) of this process."""
    fields = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(("VmRSS:", "VmHWM:")):
            fields[line[:5]] = int(line.split()[1]) * 1024
    return fields["VmRSS"], fields["VmHWM"]


def point(size: str, method: str, metric: str, steps: int, budget: int | None, device: str) -> dict:
    """One call in this process: seconds and peak bytes above what was there before."""
    warm = Setting("figure", 1, device)
    METHODS[method](warm, warm.lm)
    del warm
    s = Setting(size, steps, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")
        before, _ = resident()
    begun, used = time.perf_counter(), time.process_time()
    found = METHODS[method](s, getattr(s, metric), budget)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    after = torch.cuda.max_memory_allocated() if device == "cuda" else resident()[1]
    result = {"size": size, "method": method, "metric": metric, "T": steps, "budget": budget, "wall_s": seconds,
              "cpu_s": cpu, "peak_bytes": after - before}  # fmt: skip
    if method == "engine":
        result |= {"plan": found.plan.strategy, "graphs": found.plan.graphs, "plan_bytes": found.plan.bytes,
                   "extra_passes": found.plan.extra_passes}  # fmt: skip
    return result


def subprocess_point(arguments: argparse.Namespace, **fields) -> dict:
    command = [sys.executable, __file__, "point", "--threads", str(arguments.threads), "--device", arguments.device]
    command += ["--point", json.dumps(fields)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"MALLOC_ARENA_MAX": "1"})
    if done.returncode:
        return fields | {
            "error": done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"
        }
    return json.loads(done.stdout.splitlines()[-1])


# ---------------------------------------------------------------------------------------------------------------- parts


def part_exact(arguments: argparse.Namespace) -> dict:
    """Relative error against float64 full unrolling on small random models (see the tests for every other setting)."""
    from small_models import Double, build, lm_metric, make_batches, oracle, relative

    optimizer, rows = InnerOptimizer("adamw", lr=1e-2, eps_root=1e-6, weight_decay=0.1), []
    for kind in ("gpt2", "llama", "qwen"):
        for tied in (True, False):
            for steps in (1, 2, 3, 8):
                model, batches = build(kind, tied), make_batches(steps)
                with Double():
                    _, expected = oracle(model, batches, lm_metric(model), optimizer)
                    double = metagradient(model, batches, lm_metric(model), optimizer).weights
                single = build(kind, tied).float()
                float32 = metagradient(single, batches, lm_metric(single), optimizer).weights
                rows.append({"model": kind, "tied": tied, "T": steps, "float64": relative(double, expected),
                             "float32": relative(float32, expected)})  # fmt: skip
    worst = {dtype: max(row[dtype] for row in rows) for dtype in ("float64", "float32")}
    print(
        f"exact     worst of {len(rows)}: float64 {worst['float64']:.1e} (<= 1e-9), "
        f"float32 {worst['float32']:.1e} (<= 1e-4)"
    )
    return {"rows": rows, "worst": worst}


def part_protocol(arguments: argparse.Namespace) -> dict:
    """The authors' check: 20 random perturbations of the data weights of norm 1, predicted against actual Phi.

    In float64, since the changes are small against Phi.
    """
    rows = []
    for steps in (1, 8):
        s = Setting("protocol", steps, arguments.device)
        s.model.double()
        found, start = engine(s, s.lm), s.lm(train(s.model, s.batches, OPTIMIZER))
        generator = torch.Generator().manual_seed(0)
        predicted, actual = [], []
        for _ in range(20):
            move = torch.randn(len(found.weights), generator=generator, dtype=torch.float64).to(found.weights.device)
            move /= move.norm()
            predicted.append(float(move @ found.weights))
            with torch.no_grad():
                actual.append(float(s.lm(train(s.model, s.batches, OPTIMIZER, weights=1 + move)) - start))
        correlation = float(torch.corrcoef(torch.tensor([predicted, actual]))[0, 1])
        rows.append({"T": steps, "correlation": correlation, "predicted": predicted, "actual": actual})
        print(f"protocol  T={steps}: correlation of predicted and actual Phi {correlation:.6f} (>= 0.99)")
    return {"rows": rows}


def part_speed(arguments: argparse.Namespace) -> dict:
    """Seconds as a ratio to plain training of the same T steps plus one gradient of the metric."""
    quick, rows = arguments.quick, []
    cases = [("miniature", 1, "lm", 1.3), ("miniature", 1, "patch", 1.05), ("miniature", 8, "lm", 3.5)]
    cases += [] if quick else [("miniature", 96, "lm", 3.5), ("gpt2", 1, "lm", 1.3), ("gpt2", 1, "patch", 1.05)]
    cases += [] if quick else [("gpt2", 2, "lm", 3.5)]
    for size, steps, metric, bound in cases:
        s = Setting(size, steps, arguments.device)
        of = getattr(s, metric)
        vector = 4 * sum(p.numel() for p in s.model.parameters())
        runs = {"plain": lambda s=s, of=of: plain(s, of), "engine": lambda s=s, of=of: engine(s, of)}
        if steps > 1:  # every state, no graph: what a larger model can afford
            states = int(4.1 * vector * steps)
            runs["engine, states kept"] = lambda s=s, of=of, states=states: engine(s, of, states)
        if (size, steps) == ("miniature", 8):
            runs["engine, 800 MB"] = lambda s=s, of=of: engine(s, of, 800_000_000)
            runs["torchopt"] = lambda s=s, of=of: torchopt_unrolled(s, of)
            runs["reverse_over_reverse"] = lambda s=s, of=of: reverse_over_reverse(s, of)
        repeats = 3 if quick else {"gpt2": 3 if steps == 1 else 2, "miniature": 2 if steps > 8 else 7}[size]
        measured = interleaved(runs, repeats, warm=size != "gpt2" and steps <= 8)
        for name, numbers in measured.items():
            rows.append({"size": size, "shape": SIZES[size], "T": steps, "metric": metric, "method": name} | numbers)
            if name != "plain":
                print(
                    f"speed     {size:9} T={steps:<3} {metric:5} {name:20} {numbers['wall_ratio']:.2f}x plain "
                    f"({numbers['cpu_ratio']:.2f}x by CPU time){f'; asked {bound}x' if name == 'engine' else ''}"
                )
    return {"rows": rows}


def part_memory(arguments: argparse.Namespace) -> dict:
    """Peak memory, each in its own process."""
    rows = []
    run = lambda **fields: rows.append(subprocess_point(arguments, size="miniature", metric="lm", **fields))
    tight = 300_000_000
    run(method="plain", steps=8, budget=None)
    run(method="torchopt", steps=8, budget=None)
    run(method="engine", steps=8, budget=None)
    run(method="engine", steps=8, budget=800_000_000)
    run(method="engine", steps=8, budget=tight)
    run(method="engine", steps=32, budget=tight)
    if not arguments.quick:
        run(method="torchopt", steps=32, budget=None)
        run(method="engine", steps=96, budget=tight)
        run(method="plain", steps=96, budget=None)
    peak = {(r["method"], r["T"], r["budget"]): r["peak_bytes"] for r in rows if "error" not in r}
    for row in rows:
        shown = (
            row.get("error") or f"{row['peak_bytes'] / 1e6:8.0f} MB  {row['cpu_s']:6.1f} CPU s  {row.get('plan', '')}"
        )
        print(f"memory    {row['method']:9} T={row.get('T', row.get('steps')):<3} budget {row['budget']}: {shown}")
    for label, one, two, bound in [
        ("T=8 engine, 800 MB / torchopt", ("engine", 8, 800_000_000), ("torchopt", 8, None), 0.4),
        ("T=32 engine / torchopt", ("engine", 32, tight), ("torchopt", 32, None), 0.15),
        ("engine T=96 / T=8", ("engine", 96, tight), ("engine", 8, tight), 1.5),
    ]:
        if one in peak and two in peak:
            print(f"memory    {label}: {peak[one] / peak[two]:.2f} (<= {bound})")
    return {"rows": rows}


def part_figure(arguments: argparse.Namespace) -> dict:
    """Time and memory against T."""
    rows, limit = [], 6e9
    grid = [1, 2, 4, 8, 16] if arguments.quick else [1, 2, 4, 8, 16, 32, 64, 128, 256]
    largest: dict[str, float] = {}
    for steps in grid:
        for method, budget in [("plain", None), ("engine", 2_000_000_000), ("engine", 100_000_000), ("torchopt", None),
                               ("reverse_over_reverse", None)]:  # fmt: skip
            key = f"{method} {budget}"
            if method != "plain" and 2 * largest.get(key, 0) > limit:
                continue  # would not fit
            row = subprocess_point(arguments, size="figure", method=method, metric="lm", steps=steps, budget=budget)
            largest[key] = row.get("peak_bytes", 0)
            rows.append(row)
    (arguments.out / "figure.json").write_text(json.dumps({"rows": rows, "quick": arguments.quick}, indent=1))
    plot(rows, arguments.out / "metagradient.png", arguments)
    return {"rows": rows}


def plot(rows: list[dict], path: Path, arguments: argparse.Namespace) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = {
        ("engine", 2_000_000_000): ("engine, 2 GB budget", "tab:blue", "-"),
        ("engine", 100_000_000): ("engine, 100 MB budget", "tab:cyan", "-"),
        ("torchopt", None): ("TorchOpt, unrolled", "tab:red", "-"),
        ("reverse_over_reverse", None): ("reverse over reverse, states kept", "tab:orange", "-"),
    }
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    base = {row["T"]: row["cpu_s"] for row in rows if row["method"] == "plain"}
    for (method, budget), (label, colour, style) in names.items():
        own = [r for r in rows if r["method"] == method and r["budget"] == budget and "error" not in r]
        ratios = [r["cpu_s"] / base[r["T"]] for r in own]
        left.plot([r["T"] for r in own], ratios, style, color=colour, marker="o", ms=3, label=label)
        right.plot([r["T"] for r in own], [r["peak_bytes"] / 1e6 for r in own], style, color=colour, marker="o", ms=3)
    grid = sorted(base)
    floor = lambda way_back, first: [
        (UNITS["plain"] * (t + 1) + way_back * (t - 1) + first) / (UNITS["plain"] * (t + 1)) for t in grid
    ]
    left.plot(grid, floor(UNITS["graph"], 2), "k:", label="floor: matrix products, graphs kept")
    left.plot(grid, floor(UNITS["again"], UNITS["rates"]), "k--", label="floor: matrix products, recomputed")
    own = [r for r in rows if r["method"] == "plain" and "error" not in r]
    right.plot([r["T"] for r in own], [r["peak_bytes"] / 1e6 for r in own], "k:", label="plain training")
    left.set(
        xscale="log",
        xlabel="T, optimizer steps",
        ylabel="CPU time / (plain training + metric gradient)",
        ylim=(0, None),
    )
    right.set(xscale="log", yscale="log", xlabel="T, optimizer steps", ylabel="peak memory above start, MB")
    for axis in (left, right):
        axis.set_xticks(grid, [str(t) for t in grid])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    left.legend(fontsize=7)
    right.legend(fontsize=7)
    layers, width, _, vocabulary, examples, tokens = SIZES["figure"]
    where = f"{machine(arguments)['device']}, {arguments.threads} thread(s)"
    shape = f"GPT-2 shape {layers}x{width}, vocabulary {vocabulary}, batch {examples}x{tokens}"
    figure.suptitle(f"{shape}, AdamW, float32, {where}", fontsize=9)
    figure.savefig(path, dpi=150)


def machine(arguments: argparse.Namespace) -> dict:
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "threads": arguments.threads, "torch": torch.__version__, "torchopt": torchopt.__version__,
            "transformers": transformers.__version__, "load": os.getloadavg()}  # fmt: skip


PARTS = {
    "exact": part_exact,
    "protocol": part_protocol,
    "speed": part_speed,
    "memory": part_memory,
    "figure": part_figure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "part", choices=[*PARTS, "all", "plot", "point"], help="what to measure; plot: redraw the figure"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "reports" / "metagradient", help="folder of the JSON and PNG"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true", help="fewer, smaller runs")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    if arguments.part == "point":
        print(json.dumps(point(device=arguments.device, **arguments.point)))
        return
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.part == "plot":
        plot(
            json.loads((arguments.out / "figure.json").read_text())["rows"],
            arguments.out / "metagradient.png",
            arguments,
        )
        return
    for name in PARTS if arguments.part == "all" else [arguments.part]:
        begun = time.perf_counter()
        result = PARTS[name](arguments) | {"machine": machine(arguments), "quick": arguments.quick}
        result["seconds"] = time.perf_counter() - begun
        (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=1))
        print(f"          {name} took {result['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
