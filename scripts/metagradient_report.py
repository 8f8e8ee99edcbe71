"""The targets beside what `bench_metagradient.py` measured, as text, README.md and figure."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from metagradient_methods import SIZES, UNITS

COMMAND = "python scripts/bench_metagradient.py"


def rows_of(folder: Path, part: str) -> list[dict]:
    path = folder / f"{part}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


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
    """Matrix products of a call over those of plain training and the metric's gradient; graphs are kept of
    the last steps."""
    plain, back = UNITS["plain"] * (steps + 1), min(graphs, steps - 1)
    first = 0 if metric == "patch" else 1 if recorded else UNITS["rates"]
    return (plain + UNITS["graph"] * back + UNITS["again"] * (steps - 1 - back) + first) / plain


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
    shapes = "; ".join(f"{k} {v[0]}x{v[1]}, vocabulary {v[3]}, batch {v[4]}x{v[5]}" for k, v in SIZES.items())
    text = [
        "# The metagradient engine, measured",
        "",
        f"`{COMMAND}` makes everything here (`--only ratios --again` measures one part anew).",
        f"{machine['device']}, {machine['threads']} thread(s), torch {machine['torch']}, transformers "
        f"{machine['transformers']}, TorchOpt {machine['torchopt']}; load average during the measurements: {busy}.",
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
    if rows_of(folder, "figure"):
        plot(rows_of(folder, "figure"), folder / "metagradient.png", machine)
        text += ["", "![Time and memory against T](metagradient.png)"]
    (folder / "README.md").write_text("\n".join(text) + "\n")


def plot(rows: list[dict], path: Path, machine: dict) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

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
    figure.savefig(path, dpi=150)
    plt.close(figure)
