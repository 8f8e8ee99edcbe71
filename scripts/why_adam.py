"""Why Adam? How well metagradients through Adam and through SGD predict retraining, and where their rewards come from.

    python scripts/why_adam.py [--tasks lambada_es,67] [--out reports/studies/fidelity] [--profile tiny]

Two tables on the pool of `python -m harness fidelity` (seed 0), in float64:

    settings     over optimizer, eps_root, learning rate and T: does tau predict Phi after training with other data
                 weights (score, and error of the predicted change), does it predict the own training of the profile on
                 halves of the pool, and how alike is its order of the texts to the own one of the profile
    coordinates  T = 1: tau_i = sum_p d_p g_ip / N over parameters p, split by the size of the batch's gradient g_p.
                 A part's share is Cov(tau's part, tau) / Var(tau) over the texts; shares add up to 1. Parameters that
                 no text touches are left out
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
from torch import Tensor

from harness import assets
from harness.contracts import Task
from harness.machine.libraries import quiet
from harness.planning.cells import make_task
from harness.settings.profiles import load_profile
from harness.signals.pool import build_pool
from harness.signals.records import Spec
from harness.signals.run import draw_parts, fidelity_cells, training_name
from harness.signals.truth import OneStep, Retraining, in_float64
from harness.store.atomic import csv_text, write_atomic
from harness.training.inner import InnerTrainer
from reports.signals import spearman
from rewards.metagradient.optimizer import pulled_back, updated

HALVES = 40
HALVES_IN_FULL = 16
"""Where every training has to be done in full (T > 1)."""
CHANGES = (0.1, 1.0)
ADAM_ROOTS = (1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
ADAM_RATES = (1e-6, 1e-5, 1e-4, 1e-3)
SGD_RATES = (1e-4, 1e-3, 1e-2, 1e-1)
SHARES = (0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0)
"""Edges of the parts, as shares of the touched parameters in order of |g|, smallest first."""


@dataclass(frozen=True)
class Bench:
    """A pool, a task and a float64 target."""

    task: Task
    texts: list[str]
    halves: list[list[int]]
    inner: InnerTrainer
    """The profile's own training."""


def make_bench(profile: str, name: str, given: dict[str, Any]) -> Bench:
    cell = fidelity_cells(load_profile(profile), [name], [], [0], given, Spec(subsets=HALVES))[0]
    settings, task = cell.base.settings, make_task(cell.base)
    generator = assets.load_model(settings.generator.model, dtype=settings.generator.dtype, attention="sdpa")
    tokenizer = assets.load_tokenizer(settings.generator.model)
    pool = build_pool(settings, task, generator, tokenizer, size=cell.spec.pool, seed=0)
    target = assets.load_model(settings.target.model, untie_head=settings.target.untie_head)
    inner = InnerTrainer(target, assets.load_tokenizer(settings.target.model), settings.inner)
    return Bench(task, pool.texts, draw_parts(pool, cell.spec, 0)["halves"], in_float64(inner))


def grid(inner: InnerTrainer) -> list[InnerTrainer]:
    """The trainings that are compared, the profile's own first."""
    own = inner.settings.optimizer
    adam = [inner.with_optimizer(eps_root=root) for root in ADAM_ROOTS if root != own.eps_root]
    adam += [inner.with_optimizer(lr=lr) for lr in ADAM_RATES if lr != inner.lr]
    sgd = [inner.with_optimizer(name="sgd", lr=lr) for lr in SGD_RATES]
    longer = [each.with_steps(4) for each in (inner, inner.with_optimizer(lr=10 * inner.lr), sgd[1], sgd[2])]
    return [inner, *adam, *sgd, *longer]


def directions(halves: Sequence[Sequence[int]], count: int) -> Tensor:
    """(M, N): +1 inside a half, -1 outside."""
    signs = torch.full((len(halves), count), -1.0, dtype=torch.float64)
    for row, half in zip(signs, halves, strict=True):
        row[list(half)] = 1.0
    return signs


def fidelity_of(bench: Bench, trainings: Sequence[InnerTrainer]) -> list[dict[str, Any]]:
    """One row a training; see the module."""
    signs = directions(bench.halves, len(bench.texts))
    lines, own, known = [], None, None
    for inner in trainings:
        metric = bench.task.metric(inner)
        tau = inner.metagradient(bench.texts, metric).weights
        retraining = Retraining(inner, bench.task, bench.texts, known)
        if retraining.one_step is not None:
            known = retraining.one_step.gradients
        (whole,) = retraining.subsets([range(len(bench.texts))])
        used = signs if retraining.one_step is not None else signs[:HALVES_IN_FULL]
        predicted = (used @ tau).numpy()
        settings = inner.settings.optimizer
        line: dict[str, Any] = {
            "optimizer": settings.name,
            "lr": inner.lr,
            "eps_root": settings.eps_root,
            "T": inner.steps,
            "training": training_name(inner.settings.model_copy(update={"steps": inner.steps})),
            "move": whole - retraining.untrained(),
        }
        for change in CHANGES:
            phi = np.array(retraining.weighted(1 + change * used))
            moved = phi - whole
            line[f"score {change:g}"] = float(spearman(predicted, phi))
            line[f"error {change:g}"] = float(np.linalg.norm(moved - change * predicted) / np.linalg.norm(moved))
            if own is None and change == CHANGES[-1]:
                own = phi, tau.numpy()
        line["profile score"] = float(spearman((signs @ tau).numpy(), own[0]))
        line["profile order"] = float(spearman(tau.numpy(), own[1]))
        lines.append(line)
    return lines


def coordinates_of(bench: Bench, trainings: Sequence[InnerTrainer]) -> list[dict[str, Any]]:
    """One row a training of one step and a part of the parameters; see the module."""
    gradients = OneStep.of(bench.inner, bench.texts).gradients
    mean = gradients.mean(0)
    touched = (gradients != 0).any(0).nonzero()[:, 0]
    order = touched[mean[touched].abs().argsort()]
    edges = [round(share * len(order)) for share in SHARES]
    lines = []
    for inner in trainings:
        step = OneStep(inner, gradients)
        direction, moved = reward_direction(step, bench.task.metric(inner), mean)
        parts = [gradients[:, order[a:b]] @ direction[order[a:b]] / len(gradients) for a, b in pairwise(edges)]
        tau = sum(parts)
        check = inner.metagradient(bench.texts, bench.task.metric(inner)).weights
        if not torch.allclose(tau, check, rtol=1e-6, atol=1e-9 * float(check.abs().max())):
            raise RuntimeError("The parts do not add up to the engine's metagradient.")
        settings = inner.settings.optimizer
        for (a, b), (low, high), part in zip(pairwise(edges), pairwise(SHARES), parts, strict=True):
            centred, whole = part - part.mean(), tau - tau.mean()
            lines.append(
                {
                    "optimizer": settings.name,
                    "lr": inner.lr,
                    "eps_root": settings.eps_root,
                    "from": low,
                    "to": high,
                    "median |g|": float(mean[order[a:b]].abs().median()),
                    "share of the step": float((moved[order[a:b]] ** 2).sum() / (moved**2).sum()),
                    "share of the reward": float((centred @ whole) / (whole @ whole)),
                    "order as the reward": float(spearman(part.numpy(), tau.numpy())),
                }
            )
    return lines


def reward_direction(step: OneStep, metric: Any, mean: Tensor) -> tuple[Tensor, Tensor]:
    """(dPhi/dg (P,) of one step, the step itself (P,))."""
    theta, _ = updated(step.rule, 0, step.theta, step.rule.init(step.theta), mean)
    leaf = theta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(metric(step.params | step.layout.views(leaf)), leaf)
    state = step.rule.init(theta)
    zeros = tuple(torch.zeros_like(each) for each in state)
    _, _, direction = pulled_back(step.rule, 0, step.theta, state, mean, slope.clone(), zeros)
    return direction, theta - step.theta


# --------------------------------------------------------------------------------------------------------------- output


def grid_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, ["---"] * len(heads), *rows]) + "\n"


def settings_table(settings: pandas.DataFrame) -> str:
    parts = []
    for task, rows in settings.groupby("task", sort=False):
        heads = [
            "optimizer",
            "eps_root",
            "lr",
            "T",
            "Phi moved by",
            "score (error) at 0.1",
            "score (error) at 1",
            "score of the profile's training",
            "order as the profile's",
        ]
        lines = [
            [
                r["optimizer"],
                "-" if r["optimizer"] == "sgd" else f"{r['eps_root']:g}",
                f"{r['lr']:g}",
                str(r["T"]),
                f"{r['move']:.2g}",
                *(f"{r[f'score {c:g}']:.3f} ({r[f'error {c:g}']:.0%})" for c in CHANGES),
                f"{r['profile score']:.2f}",
                f"{r['profile order']:.2f}",
            ]
            for _, r in rows.iterrows()
        ]
        parts += [f"### {task}: settings\n", grid_table(heads, lines)]
    return "\n".join(parts)


def coordinates_table(coordinates: pandas.DataFrame) -> str:
    parts = []
    for task, rows in coordinates.groupby("task", sort=False):
        parts.append(f"### {task}: parameters by the size of the batch's gradient (T = 1)\n")
        names = [f"{100 * low:g}..{100 * high:g} %" for low, high in pairwise(SHARES)]
        heads = ["share of the reward", *names]
        size = [f"{value:.1e}" for value in rows["median |g|"][: len(names)]]
        lines = [["median \\|g\\|", *size]]
        for _, part in rows.groupby(["optimizer", "lr", "eps_root"], sort=False):
            first = part.iloc[0]
            adam = f"adam, eps_root {first['eps_root']:g} (sqrt {math.sqrt(first['eps_root']):.0e})"
            name = f"sgd, lr {first['lr']:g}" if first["optimizer"] == "sgd" else adam
            lines.append([name, *(f"{value:.1%}" for value in part["share of the reward"])])
            lines.append([f"{name}: of the step", *(f"{value:.1%}" for value in part["share of the step"])])
        parts.append(grid_table(heads, lines))
    return "\n".join(parts)


PARTS = {"coordinates": coordinates_table, "settings": settings_table}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="lambada_es,67")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--part", choices=("all", *PARTS), default="all")
    parser.add_argument("--passages", type=int, default=32, help="passages of Phi on the lambada tasks")
    parser.add_argument("--out", type=Path, default=Path("reports/studies/fidelity"))
    options = parser.parse_args(arguments)
    quiet()
    lines: dict[str, list[dict[str, Any]]] = {part: [] for part in PARTS if options.part in ("all", part)}
    for name in options.tasks.split(","):
        begun = time.perf_counter()
        given = {"task.options.metric_examples": options.passages} if name.startswith("lambada") else {}
        bench = make_bench(options.profile, name, given)
        trainings = grid(bench.inner)
        for part in lines:
            found = fidelity_of(bench, trainings) if part == "settings" else coordinates_of(bench, _one_step(trainings))
            lines[part] += [{"task": name, **line} for line in found]
            frame = pandas.DataFrame(lines[part])
            write_atomic(options.out / f"why_adam_{part}.csv", csv_text(frame))
            write_atomic(options.out / f"why_adam_{part}.md", PARTS[part](frame))
        print(f"{name}: {time.perf_counter() - begun:.0f} s", flush=True)
    print("\n".join(PARTS[part](pandas.DataFrame(lines[part])) for part in lines))
    return 0


def _one_step(trainings: Sequence[InnerTrainer]) -> list[InnerTrainer]:
    """Adam over eps_root and one SGD: the learning rate only scales what the parts share."""
    one = [inner for inner in trainings if inner.steps == 1]
    rate = one[0].lr
    adam = [inner for inner in one if inner.settings.optimizer.name != "sgd" and inner.lr == rate]
    sgd = [inner for inner in one if inner.settings.optimizer.name == "sgd"]
    return [*sorted(adam, key=lambda inner: inner.settings.optimizer.eps_root), *sgd[1:2]]


if __name__ == "__main__":
    raise SystemExit(main())
