"""What does a metagradient reward on `uuid`? Texts are drawn around a string, and their rewards compared with the
letters that are right in them.

    python scripts/uuid_signal.py [--texts 768] [--repeats 1] [--out reports/studies/uuid_signal]

Three kinds of texts stand for the stages of a run: every letter kept right with probability 1/16 (a generator that
writes any hexadecimal) or 0.4 and else any, and letters of a string that a run got stuck at (STUCK), each changed at
times, wrong ones also to the right letter. A row is an inner training:

    text              correlation of a text's reward (in units of its inner step's standard deviation) with "the letter
                      at this place is right", over texts; the mean over places. A sum of right letters has
                      1 / sqrt(places)
    against           places where it is negative
    by thirds         the same mean for the texts of the first, second and last third of the inner steps
    token, against    the same of what the letter and, discounted as tiny's uuid does, later ones earned
                      (reward.options.credit=token)
    Phi, seconds      of the trained target; of one metagradient

The stuck string comes from a run of 140 GRPO steps at T = 32, seed 100 (README, Known not to work).
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import torch

from harness import assets
from harness.contracts import TaskContext
from harness.machine.libraries import quiet
from harness.registry import TASKS
from harness.settings.profiles import load_profile, resolve
from harness.store.atomic import csv_text, write_atomic
from harness.training.credit import discounted
from harness.training.inner import InnerTrainer
from reports.markdown import grid
from rewards._metagrad import standardised

STUCK = "644777d3-69bf-69db-b5d0-864443322fb3"
LETTERS = "0123456789abcdef"
TRAININGS: tuple[dict[str, Any], ...] = (
    {"steps": 1, "lr": 1e-3},
    {"steps": 8, "lr": 1e-3},
    {"steps": 32, "lr": 3e-4},
    {"steps": 96, "lr": 3e-4},
    {"steps": 1, "lr": 2e-4, "warmup_steps": 96, "warmup_lr": 1e-3},
    {"steps": 32, "lr": 3e-4, "warmup_steps": 96, "warmup_lr": 1e-3},
)


def kinds(wanted: str) -> dict[str, Callable[[random.Random], str]]:
    """Name -> a writer of texts; dashes stay."""

    def scattered(share: float) -> Callable[[random.Random], str]:
        return lambda rng: "".join(c if c == "-" or rng.random() < share else rng.choice(LETTERS) for c in wanted)

    def stuck(rng: random.Random) -> str:
        text = []
        for here, right in zip(STUCK, wanted, strict=True):
            draw = rng.random()
            change = right != "-" and draw < 0.2
            text.append(right if change and here != right and draw < 0.12 else rng.choice(LETTERS) if change else here)
        return "".join(text)

    return {"any hexadecimal": scattered(1 / 16), "0.4 right": scattered(0.4), "stuck": stuck}


def correlations(rewards: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Pearson's, of rewards (N, 1 or places) with the columns of right (N, places). (places,) float64."""
    x, y = right - right.mean(0), rewards - rewards.mean(0)
    return (x * y).mean(0) / (x.std(0, unbiased=False) * y.std(0, unbiased=False))


def row(
    inner: InnerTrainer,
    phi: Any,
    wanted: str,
    write: Callable,
    places: list[int],
    texts: int,
    repeats: int,
    discount: float,
) -> dict[str, Any]:
    """One inner training on `repeats` sets of texts."""
    rewards, earned, right, steps, begin = [], [], [], [], time.perf_counter()
    for repeat in range(repeats):
        rng = random.Random(repeat)
        rollouts = [write(rng) for _ in range(texts)]
        result = inner.metagradient(rollouts, phi, per_token=True)
        at = inner.steps_of(texts)
        reward, scales = standardised(result.weights.double().cpu(), at)
        rewards.append(reward)
        credits = [inner.spread(text, own.tolist()) for text, own in zip(rollouts, result.tokens, strict=True)]
        earned.append(discounted(torch.tensor(credits) * scales[:, None], discount)[:, places])
        right.append(torch.tensor([[float(text[p] == wanted[p]) for p in places] for text in rollouts]).double())
        steps.append(torch.tensor(at))
    seconds = (time.perf_counter() - begin) / repeats
    reward, matches, step = torch.cat(rewards), torch.cat(right), torch.cat(steps)
    found = correlations(reward[:, None], matches)
    by_token = correlations(torch.cat(earned), matches)
    thirds = []
    if inner.steps >= 3:
        third = step * 3 // inner.steps
        thirds = [float(correlations(reward[third == k, None], matches[third == k]).mean()) for k in range(3)]
    return {
        "text": float(found.mean()),
        "against": int((found < 0).sum()),
        "places": len(places),
        "token": float(by_token.mean()),
        "token against": int((by_token < 0).sum()),
        "by thirds": ", ".join(f"{value:.3f}" for value in thirds) or "-",
        "Phi": float(result.value),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=768, help="texts a metagradient (768)")
    parser.add_argument("--repeats", type=int, default=1, help="metagradients a row, on fresh texts (1)")
    parser.add_argument("--out", type=Path, default=Path("reports/studies/uuid_signal"))
    given = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    settings = resolve(load_profile("tiny"), "uuid", "adam_metagrad")
    task = TASKS.get("uuid").factory(TaskContext(options=settings.task.options))
    target, tokenizer = assets.load_model(settings.target.model), assets.load_tokenizer(settings.target.model)
    rows = []
    for kind, write in kinds(task.text).items():
        # Stuck, the question is whether right letters are rewarded where the string is wrong.
        places = [p for p, c in enumerate(task.text) if c != "-" and not (kind == "stuck" and STUCK[p] == c)]
        for training in TRAININGS:
            changes = {f"inner.{'optimizer.' if key == 'lr' else ''}{key}": value for key, value in training.items()}
            changes = {"inner.warmup_steps": 0} | changes
            inner = InnerTrainer(
                target, tokenizer, resolve(load_profile("tiny"), "uuid", "adam_metagrad", changes).inner
            )
            name = f"T={training['steps']}, lr {training['lr']:g}"
            if "warmup_steps" in training:
                name = f"{training['warmup_steps']} steps at {training['warmup_lr']:g} before, then {name}"
            found = row(
                inner,
                task.metric(inner),
                task.text,
                write,
                places,
                given.texts,
                given.repeats,
                settings.grpo.credit_discount,
            )
            rows.append({"texts": kind, "training": name} | found)
            print(rows[-1], flush=True)
            write_results(pandas.DataFrame(rows), given.out)


def write_results(rows: pandas.DataFrame, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "signal.csv", csv_text(rows))
    lines = ["# What metagradients reward on `uuid`", ""]
    lines += ["Made by `python scripts/uuid_signal.py`, which says what the columns are.", ""]
    for kind, part in rows.groupby("texts", sort=False):
        cells = [
            [
                r["training"],
                f"{r['text']:.3f}",
                f"{r['against']} of {r['places']}",
                r["by thirds"],
                f"{r['token']:.3f}",
                f"{r['token against']} of {r['places']}",
                f"{r['Phi']:.2f}",
                f"{r['seconds']:.0f}",
            ]
            for r in part.to_dict("records")
        ]
        heads = ["training", "text", "against", "by thirds", "token", "against", "Phi", "seconds"]
        lines += [f"## {kind}", "", grid(heads, cells)]
        lines.append("")
    write_atomic(out / "README.md", "\n".join(lines))


if __name__ == "__main__":
    main()
