"""Which tokens can a picture be drawn on? How far a choice among given texts gets, before any RL.

    python scripts/picture_tokens.py [--task 67] [--first 0,64] [--texts 768] [--out reports/picture_tokens]

The texts are the pool of `python -m harness fidelity`: half rollouts of the untuned generator, half articles, texts in
other languages and rollouts. Instead of a generator, a distribution over them is trained, by the metagradient of Phi
through one step of Adam at the profile's rate for 67: what GRPO could reach if it could only choose among them. One
step moves the patch by the texts' own gradients of it, so that nothing else need be trained:

    g_i = mean over positions of (p - onehot(y)) h^T,  g = mean of the drawn g_i
    dW = -lr g / (sqrt(g^2 + eps_root) + eps)

Where the texts hardly hold a column's token, no choice among them sets the column's signs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor

from harness import assets
from harness.cell import make_task
from harness.config import load_profile
from harness.fidelity import plan_fidelity
from harness.fidelity_pool import build_pool
from harness.fidelity_records import Spec
from harness.grid import quiet
from harness.inner import InnerTrainer
from harness.results import write_atomic

RATE_OF_67 = 0.1
STEPS, SIZE, RATE, LIMIT = 200, 768, 0.02, 4.0
"""Updates of the distribution; texts drawn for each; its rate; advantages are cut there (in standard deviations)."""


def patch_gradients(inner: InnerTrainer, texts: list[str], first: int, shape: tuple[int, int]) -> Tensor:
    """Every text's gradient of the loss in the patch, (texts, hidden dimensions, tokens) float64."""
    hidden, tokens = shape
    columns, found = slice(first, first + tokens), []
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([inner.encode(text)])
            out = inner.model(input_ids=ids, output_hidden_states=True)
            errors = out.logits[0, :-1].softmax(-1)[:, columns].clone()
            errors -= (ids[0, 1:, None] == torch.arange(first, first + tokens)).to(errors)
            found.append((errors.T @ out.hidden_states[-1][0, :-1, :hidden]).T / len(errors))
    return torch.stack(found).double()


def adam_step(gradient: Tensor, lr: float, eps_root: float, eps: float) -> Tensor:
    """The change that the first step of Adam makes: its bias corrections undo the decay."""
    return -lr * gradient / ((gradient**2 + eps_root).sqrt() + eps)


def chosen_accuracy(
    gradients: Tensor, picture: Tensor, scale: float, optimizer: dict[str, float], seed: int
) -> list[float]:
    """Pixels right at each update of the distribution over texts."""
    generator = torch.Generator().manual_seed(seed)
    logits, found = torch.zeros(len(gradients)).double(), []
    for _ in range(STEPS):
        drawn = torch.multinomial(logits.softmax(0), SIZE, replacement=True, generator=generator)
        weights = torch.ones(SIZE).double().requires_grad_()
        change = adam_step((weights[:, None, None] * gradients[drawn]).mean(0), **optimizer)
        phi = torch.nn.functional.logsigmoid(scale * picture * change).mean()
        (reward,) = torch.autograd.grad(phi, weights)
        advantage = ((reward - reward.mean()) / (reward.std() + 1e-30)).clamp(-LIMIT, LIMIT)
        logits = logits.index_add(0, drawn, RATE * advantage)
        found.append(float((change.detach().sign() == picture).double().mean()))
    return found


def measure(task_name: str, first: int, texts: int) -> dict[str, Any]:
    given = {"task.options.first_token": first, "inner.optimizer.total_lr": RATE_OF_67}
    plan = plan_fidelity(load_profile("tiny"), [task_name], [], [0], given, Spec(pool=texts))[0]
    settings, task = plan.base.settings, make_task(plan.base)
    generator = assets.load_model(settings.generator.model, dtype=settings.generator.dtype, attention="sdpa")
    tokenizer = assets.load_tokenizer(settings.generator.model)
    pool = build_pool(settings, task, generator, tokenizer, size=texts, seed=0)
    target = assets.load_model(settings.target.model, untie_head=settings.target.untie_head)
    inner = InnerTrainer(target, assets.load_tokenizer(settings.target.model), settings.inner)
    optimizer = settings.inner.optimizer
    rate = {"lr": optimizer.total_lr or optimizer.lr, "eps_root": optimizer.eps_root, "eps": optimizer.eps}
    gradients = patch_gradients(inner, pool.texts, first, task.picture.shape)
    found = chosen_accuracy(gradients, torch.from_numpy(task.picture).double(), task.scale, rate, seed=0)
    names = [tokenizer.decode([first + k]) for k in range(task.picture.shape[1])]
    ids = [set(inner.encode(text)) for text in pool.texts]
    rarest = min(sum(first + k in held for held in ids) for k in range(len(names)))
    tail = found[-STEPS // 10 :]
    return {"first_token": first, "tokens": " ".join(names), "texts with the rarest": rarest,
            "pixels, first draw": found[0], "pixels, at the end": sum(tail) / len(tail)}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="67", choices=["67", "qr"])
    parser.add_argument("--first", default="0,64", help="first tokens, e.g. 0,64")
    parser.add_argument("--texts", type=int, default=768)
    parser.add_argument("--out", type=Path, default=Path("reports/picture_tokens"))
    given = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    rows = pandas.DataFrame([measure(given.task, int(first), given.texts) for first in given.first.split(",")])
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomic(given.out / f"{given.task}.csv", rows.to_csv(index=False))
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
