"""The tables and the picture of Theorem 3.1, measured (harness/signals/theorem.py says how).

python scripts/theorem.py [--out reports/studies/fidelity] [--worlds 8]
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas
import torch

from harness.signals.theorem import AXIS, lines_of, slope, table

LABELS = {"batch": "batch size n", "lr": "inner learning rate"}
"""Sweep -> what its axis is called, where that is not the sweep's own name."""


def markdown(frame: pandas.DataFrame) -> str:
    """The tables, one a sweep, and the slopes."""
    heads = [
        "optimizer",
        "eps_root",
        "\\|g\\| / sqrt(eps_root)",
        "lr",
        "T",
        "n",
        "bias",
        "over worlds",
        "cosine",
        "deviation",
        "naive's deviation",
        "naive trainings for the same error",
    ]
    parts = []
    for sweep, x in AXIS.items():
        part = frame[frame["sweep"] == sweep]
        slopes = ", ".join(f"{name} {slope(rows, x):+.2f}" for name, rows in lines_of(frame, sweep))
        rows = [
            [
                r.optimizer,
                *_root(r),
                f"{r.lr:g}",
                str(r.T),
                str(r.n),
                f"{r.bias:.2g}",
                f"{r.bias_low:.1g}..{r.bias_high:.1g}",
                f"{r.cosine:.4f}",
                f"{r.deviation:.2g}",
                f"{r.plain_deviation:.3g}",
                f"{r.trainings:.3g}",
            ]
            for r in part.itertuples()
        ]
        lines = [heads, ["---"] * len(heads), *rows]
        parts.append(f"### {LABELS.get(sweep, sweep)}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines))
        parts.append(f"Slope of log bias: {slopes}.")
    return "\n\n".join(parts) + "\n"


def _root(row: Any) -> tuple[str, str]:
    adam = row.optimizer == "adam"
    return (f"{row.eps_root:g}", f"{row.gradient_over_root:.2g}") if adam else ("-", "-")


def draw(frame: pandas.DataFrame, *paths: Path) -> None:
    """Bias and deviation of DPG, deviation of naive, over each sweep."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from reports import style
    from reports.figures import write

    with rc_context({"svg.hashsalt": "theorem"}):
        canvas = Figure(figsize=(13.5, 3.4), layout="constrained")
        axes = canvas.subplots(1, len(AXIS))
        for axis, (sweep, x) in zip(axes, AXIS.items(), strict=True):
            for slot, (name, rows) in enumerate(lines_of(frame, sweep)):
                slot = slot if sweep != "eps_root" else 1
                look = {"color": style.LIGHT_SERIES[slot], "marker": style.MARKERS[slot], "markersize": 4, "lw": 1.4}
                axis.fill_between(rows[x], rows["bias_low"], rows["bias_high"], color=look["color"], alpha=0.12, lw=0)
                axis.loglog(rows[x], rows["bias"], label=f"{name}: bias", **look)
                axis.loglog(rows[x], rows["deviation"], ls="--", label=f"{name}: one estimate's deviation", **look)
                if slot == (1 if sweep == "eps_root" else 0):
                    axis.loglog(
                        rows[x],
                        rows["plain_deviation"],
                        ls=":",
                        color=style.LIGHT_SERIES[7],
                        marker="x",
                        label="naive (SGD): deviation",
                    )
            axis.set_xlabel(LABELS.get(sweep, sweep), fontsize=8)
            axis.tick_params(labelsize=7)
            axis.spines[["top", "right"]].set_visible(False)
            if x == "T":
                axis.set_xticks([1, 2, 3, 4], ["1", "2", "3", "4"], minor=False)
                axis.set_xticks([], minor=True)
        axes[0].set_ylabel("relative to |grad J|", fontsize=8)
        handles, names = axes[0].get_legend_handles_labels()
        canvas.legend(handles, names, loc="outside lower center", ncols=4, fontsize=7, frameon=False)
        for path in paths:
            write(canvas, path, dpi=130)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reports/studies/fidelity"))
    parser.add_argument("--worlds", type=int, default=8)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    frame = table(options.worlds)
    from harness.store.atomic import csv_text, write_atomic

    write_atomic(options.out / "theorem.csv", csv_text(frame))
    write_atomic(options.out / "theorem.md", markdown(frame))
    draw(frame, options.out / "theorem.png")
    print(markdown(frame))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
