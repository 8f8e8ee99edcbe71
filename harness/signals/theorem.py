"""Theorem 3.1, measured: how far is the Dataset Policy Gradient from the gradient that it stands for?

A policy over K texts (softmax of K logits phi) writes data sets D of n texts for each of T steps; a target is trained
on them; J = E Phi(A(D)). With few texts every data set can be listed (as counts, in any order), so J, its gradient

    grad J = sum_D P(D) Phi(D) grad log P(D),

and the whole distribution of every estimator are exact: no sampling anywhere. Two estimators, one inner training each:

    DPG    sum_i tau_i grad log pi(x_i),  tau_i = dPhi/dw_i at w = 1
    naive  (Phi - J) sum_i grad log pi(x_i), REINFORCE with the best constant baseline: unbiased

The target is a bigram model (a table of logits), trained on the mean loss of each batch by SGD or Adam as in the
harness; Phi is the log-likelihood of a text that the policy cannot write. The tests hold its metagradients against the
engine's.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pandas
import torch
from torch import Tensor

from harness.machine.files import read_json
from harness.store.atomic import write_json
from harness.store.damage import reading

FILE = "theorem.json"
VOCABULARY, LENGTH = 4, 8


@dataclass(frozen=True)
class World:
    """Texts as transition counts that sum to 1. Everything is float64."""

    texts: Tensor
    """(K, V, V)"""
    wanted: Tensor
    """(V, V): the text that Phi scores."""
    theta: Tensor
    """(V, V): logits of the untrained target, row: the token read."""
    logits: Tensor
    """(K,): of the policy."""


@dataclass(frozen=True)
class Setting:
    optimizer: str = "sgd"
    lr: float = 1.0
    steps: int = 1
    batch: int = 8
    eps_root: float = 1e-9
    texts: int = 4


@dataclass(frozen=True)
class Estimator:
    """Exact moments of an estimator of grad J (all relative to |grad J|)."""

    bias: float
    """|E g - grad J|"""
    cosine: float
    """Between E g and grad J."""
    deviation: float
    """sqrt(E |g - E g|^2) of one estimate, that is of one inner training."""

    @property
    def error(self) -> float:
        """Root mean squared error of one estimate."""
        return math.hypot(self.bias, self.deviation)


def make_world(seed: int, texts: int) -> World:
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(VOCABULARY, (texts + 1, LENGTH), generator=random)
    counts = torch.zeros(texts + 1, VOCABULARY, VOCABULARY, dtype=torch.float64)
    for row, text in zip(counts, tokens.tolist(), strict=True):
        for first, second in zip(text, text[1:], strict=False):
            row[first, second] += 1 / (LENGTH - 1)
    normal = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=random)
    return World(counts[:-1], counts[-1], normal(VOCABULARY, VOCABULARY), 0.5 * normal(texts))


def log_likelihood(theta: Tensor, counts: Tensor) -> Tensor:
    """(D, V, V) logits, (..., V, V) counts -> (D,), nats per token."""
    return (theta.log_softmax(-1) * counts).sum((-1, -2))


def gradient(theta: Tensor, counts: Tensor) -> Tensor:
    """d/dtheta of the mean loss of texts with these mean counts, (D, V, V)."""
    return counts.sum(-1, keepdim=True) * theta.softmax(-1) - counts


def train(world: World, counts: Tensor, weights: Tensor, setting: Setting) -> Tensor:
    """theta_T (D, V, V) of D data sets. counts (D, T, K): how often each text is in each batch; weights: their data
    weights, same shape. The rules are those of rewards/metagradient/optimizer.py."""
    theta = world.theta.expand(len(counts), -1, -1)
    m = v = torch.zeros_like(theta)
    mixed = torch.einsum("dtk,kab->tdab", counts * weights / setting.batch, world.texts)
    for step, batch in enumerate(mixed):
        g = gradient(theta, batch)
        if setting.optimizer == "sgd":
            theta = theta - setting.lr * g
            continue
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        first, second = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.95 ** (step + 1))
        theta = theta - setting.lr * first / ((second + setting.eps_root).sqrt() + 1e-8)
    return theta


def data_sets(setting: Setting, policy: Tensor) -> tuple[Tensor, Tensor]:
    """Every data set: counts (D, T, K) and probabilities (D,)."""
    k, n = setting.texts, setting.batch
    batches = [
        [b - a - 1 for a, b in zip((-1, *bars), (*bars, n + k - 1), strict=True)]
        for bars in combinations(range(n + k - 1), k - 1)
    ]
    rows = torch.tensor(batches, dtype=torch.float64)
    log_p = math.lgamma(n + 1) - torch.lgamma(rows + 1).sum(-1) + rows @ policy.log()
    chosen = torch.tensor(list(product(range(len(batches)), repeat=setting.steps)))
    return rows[chosen], log_p[chosen].sum(-1).exp()


def measure(world: World, setting: Setting) -> tuple[Estimator, Estimator]:
    """(DPG, naive), exactly."""
    policy = world.logits.softmax(0)
    counts, p = data_sets(setting, policy)
    weights = torch.ones_like(counts, requires_grad=True)
    phi = log_likelihood(train(world, counts, weights, setting), world.wanted)
    (slopes,) = torch.autograd.grad(phi.sum(), weights)  # texts of one kind in one batch share their weight here
    phi = phi.detach()
    size = setting.batch * setting.steps
    score = counts.sum(1) - size * policy  # (D, K): grad log P(D); grad log pi(k) = e_k - pi
    mean = (p * phi).sum()
    truth = (p * phi) @ score
    rates = slopes.sum(1)
    dpg = rates - rates.sum(-1, keepdim=True) * policy
    return moments(dpg, p, truth), moments((phi - mean)[:, None] * score, p, truth)


def typical_gradient(world: World, setting: Setting) -> float:
    """Root mean square of a coordinate of the first batch's gradient, over data sets: what eps_root is beside."""
    counts, p = data_sets(replace(setting, steps=1), world.logits.softmax(0))
    mixed = torch.einsum("dtk,kab->dab", counts / setting.batch, world.texts)
    squares = gradient(world.theta.expand(len(counts), -1, -1), mixed) ** 2
    return float((p * squares.mean((-1, -2))).sum().sqrt())


def moments(estimates: Tensor, p: Tensor, truth: Tensor) -> Estimator:
    """estimates (D, K) with probabilities p (D,); truth (K,)."""
    mean, size = p @ estimates, truth.norm()
    spread = (p * ((estimates - mean) ** 2).sum(-1)).sum().sqrt()
    cosine = torch.dot(mean, truth) / (mean.norm() * size)
    return Estimator(float((mean - truth).norm() / size), float(cosine), float(spread / size))


# --------------------------------------------------------------------------------------------------------------- sweeps

BATCHES = (1, 2, 4, 8, 16, 32)
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
ROOTS = (1e-9, 1e-6, 1e-4, 1e-2, 1.0)


def sweeps() -> dict[str, list[Setting]]:
    """Name of the sweep -> settings. A sweep varies one thing for SGD and for Adam."""
    adam = Setting("adam", 0.03)
    short = {"texts": 3, "batch": 4}
    return {
        "batch": [
            replace(base, batch=n) for base in (Setting(lr=0.3), adam, replace(adam, eps_root=1e-2)) for n in BATCHES
        ],
        "lr": [replace(base, lr=lr) for base in (Setting(), adam) for lr in RATES],
        "T, same lr": [replace(base, steps=t, **short) for base in (Setting(lr=0.3), adam) for t in (1, 2, 3, 4)],
        "T, same lr x T": [
            replace(base, steps=t, lr=base.lr / t, **short)
            for base in (Setting(lr=1.2), replace(adam, lr=0.12))
            for t in (1, 2, 3, 4)
        ],
        "eps_root": [replace(adam, eps_root=root) for root in ROOTS],
    }


def table(worlds: int) -> pandas.DataFrame:
    """One row a sweep and setting: medians over random worlds, and the range of the DPG's bias."""
    lines = []
    for sweep, settings in sweeps().items():
        for setting in settings:
            found = [measure(make_world(seed, setting.texts), setting) for seed in range(worlds)]
            dpg, plain = ([pair[side] for pair in found] for side in (0, 1))
            middle = lambda values: float(np.median(list(values)))
            biases = [each.bias for each in dpg]
            size = middle(typical_gradient(make_world(seed, setting.texts), setting) for seed in range(worlds))
            lines.append(
                {
                    "sweep": sweep,
                    "optimizer": setting.optimizer,
                    "lr": setting.lr,
                    "T": setting.steps,
                    "n": setting.batch,
                    "eps_root": setting.eps_root if setting.optimizer == "adam" else math.nan,
                    "gradient_over_root": size / math.sqrt(setting.eps_root),
                    "bias": middle(biases),
                    "bias_low": min(biases),
                    "bias_high": max(biases),
                    "cosine": middle(each.cosine for each in dpg),
                    "deviation": middle(each.deviation for each in dpg),
                    "error": middle(each.error for each in dpg),
                    "plain_deviation": middle(each.deviation for each in plain),
                    "trainings": middle((b.deviation / a.error) ** 2 for a, b in found),
                }
            )
    return pandas.DataFrame(lines)


def slope(frame: pandas.DataFrame, x: str, y: str = "bias") -> float:
    """Least squares slope of log y over log x."""
    return float(np.polyfit(np.log(frame[x]), np.log(frame[y]), 1)[0])


AXIS = {"batch": "n", "lr": "lr", "T, same lr": "T", "T, same lr x T": "T", "eps_root": "eps_root"}
"""Sweep -> the column that it varies."""


def lines_of(frame: pandas.DataFrame, sweep: str) -> list[tuple[str, pandas.DataFrame]]:
    """(name, rows) of every line of a sweep."""
    part = frame[frame["sweep"] == sweep]
    named = part.assign(root=part["eps_root"].fillna(-1))
    keys = ["optimizer"] if sweep == "eps_root" else ["optimizer", "root"]
    found = []
    for key, rows in named.groupby(keys, sort=False):
        root = f", eps_root {key[1]:g}" if len(key) > 1 and key[1] > 0 and named["root"].nunique() > 2 else ""
        found.append((f"{'SGD' if key[0] == 'sgd' else 'Adam'}{root}", rows))
    return found


@dataclass(frozen=True)
class Slope:
    """How the DPG's bias grows with what a sweep varies, in one random world: the slope of its logarithm."""

    sweep: str
    optimizer: str
    eps_root: float | None
    """None for SGD, and where it is what varies."""
    world: int
    value: float


def slopes(worlds: int) -> list[Slope]:
    """The slope of every line of every sweep, world by world; about two seconds a world."""
    found = []
    for sweep, settings in sweeps().items():
        lines: dict[tuple[str, float | None], list[Setting]] = {}
        for setting in settings:
            root = setting.eps_root if setting.optimizer == "adam" and sweep != "eps_root" else None
            lines.setdefault((setting.optimizer, root), []).append(setting)
        for (optimizer, root), line in lines.items():
            for world in range(worlds):
                rows = [
                    {"bias": measure(make_world(world, one.texts), one)[0].bias, AXIS[sweep]: _varied(one, sweep)}
                    for one in line
                ]
                value = slope(pandas.DataFrame(rows), AXIS[sweep])
                found.append(Slope(sweep, optimizer, root, world, value))
    return found


def _varied(setting: Setting, sweep: str) -> float:
    names = {"n": setting.batch, "lr": setting.lr, "T": setting.steps, "eps_root": setting.eps_root}
    return names[AXIS[sweep]]


def kept_slopes(place: Path, worlds: int | None = None) -> list[Slope]:
    """What `measured` stored in a folder; empty where that is nothing, or of another number of worlds. Raises
    DamagedError."""
    path = place / FILE
    if not path.exists():
        return []
    with reading(path, place, "remove it; it is measured again in seconds"):
        data = read_json(path)
        found = [Slope(**{**each, "value": float(each["value"])}) for each in data["slopes"]]
        return found if worlds in (None, data["worlds"]) else []


def measured(place: Path, worlds: int) -> list[Slope]:
    """The slopes of so many worlds, from the folder or measured now and stored there."""
    if found := kept_slopes(place, worlds):
        return found
    found = slopes(worlds)
    write_json(place / FILE, {"worlds": worlds, "slopes": [asdict(each) for each in found]})
    return found
