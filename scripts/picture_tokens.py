"""Which tokens can a picture be drawn on? How far a choice among given texts gets, before any RL.

    python scripts/picture_tokens.py [--task 67] [--first 0,64] [--texts 768,4096]
                                     [--out picture_tokens]

The texts are rollouts of the untuned generator. Instead of a generator, a distribution P over them is trained, by
gradient ascent on Phi through one step of Adam at the profile's rate for the task, exactly and with nothing drawn: what
GRPO could reach if it could only choose among these texts and saw no noise. One step moves the patch by the texts' own
gradients of it, so that nothing else need be trained:

    g_i = mean over positions of (p - onehot(y)) h^T,  g = sum of P_i g_i
    dW = -lr g / (sqrt(g^2 + eps_root) + eps)

"texts left" is 1 / sum P_i^2. Where the texts hardly hold a column's token, no choice among them sets its signs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor

from harness import assets
from harness.grid import cross_product
from harness.machine.libraries import quiet
from harness.planning.cells import articles, make_task
from harness.settings.profiles import load_profile
from harness.settings.schema import Settings
from harness.store.atomic import csv_text, write_atomic
from harness.training.generation import generate
from harness.training.inner import InnerTrainer
from harness.training.prompts import bind_template, build_prompts

STEPS, RATE = 400, 0.05
"""Updates of the distribution's logits, by Adam, and their rate."""


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


def choose(gradients: Tensor, picture: Tensor, scale: float, optimizer: dict[str, float]) -> tuple[list[float], float]:
    """(pixels right at each update of P, texts left at the end)."""
    logits = torch.zeros(len(gradients), dtype=torch.float64, requires_grad=True)
    adam, found = torch.optim.Adam([logits], lr=RATE), []
    for _ in range(STEPS):
        chosen = logits.softmax(0)
        change = adam_step(torch.einsum("n,nht->ht", chosen, gradients), **optimizer)
        adam.zero_grad()
        (-torch.nn.functional.logsigmoid(scale * picture * change).mean()).backward()
        adam.step()
        found.append(float((change.detach().sign() == picture).double().mean()))
    return found, float(1 / logits.detach().softmax(0).square().sum())


def rollouts(settings: Settings, count: int) -> list[str]:
    """Texts of the untuned generator, some for each training article."""
    generator = assets.load_model(settings.generator.model, dtype=settings.generator.dtype, attention="sdpa")
    tokenizer = assets.load_tokenizer(settings.generator.model)
    bind_template(tokenizer, settings.generator.template_values)
    prompts = build_prompts(tokenizer, settings.generator, articles(settings)[0])
    return generate(generator, tokenizer, [prompts[i % len(prompts)] for i in range(count)], settings.generator, seed=0)


def measure(task_name: str, first: int, counts: list[int]) -> list[dict[str, Any]]:
    cell = cross_product(
        load_profile("tiny"), [task_name], ["adam_metagrad"], [0], {"task.options.first_token": first}
    )[0]
    settings, task = cell.settings, make_task(cell)
    target = assets.load_model(settings.target.model, untie_head=settings.target.untie_head)
    inner = InnerTrainer(target, assets.load_tokenizer(settings.target.model), settings.inner)
    optimizer = settings.inner.optimizer
    rate = {"lr": optimizer.total_lr or optimizer.lr, "eps_root": optimizer.eps_root, "eps": optimizer.eps}
    names = " ".join(inner.tokenizer.decode([first + k]) for k in range(task.picture.shape[1]))
    texts = [text for text in rollouts(settings, max(counts)) if inner.tokenizer(text)["input_ids"]]
    gradients = patch_gradients(inner, texts, first, task.picture.shape)
    ids = [set(inner.encode(text)) for text in texts]
    rows = []
    for count in counts:
        found, left = choose(gradients[:count], torch.from_numpy(task.picture).double(), task.scale, rate)
        rarest = min(sum(first + k in held for held in ids[:count]) for k in range(task.picture.shape[1]))
        rows.append(
            {
                "first_token": first,
                "tokens": names,
                "texts": count,
                "with the rarest": rarest,
                "pixels, untuned": found[0],
                "pixels, chosen": found[-1],
                "texts left": round(left),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="67", choices=["67", "qr"])
    parser.add_argument("--first", default="0,64", help="first tokens, e.g. 0,64")
    parser.add_argument("--texts", default="768,4096", help="sizes of the choice (768,4096)")
    parser.add_argument("--out", type=Path, default=Path("picture_tokens"))
    given = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    counts = [int(count) for count in given.texts.split(",")]
    rows = pandas.DataFrame(
        [row for first in given.first.split(",") for row in measure(given.task, int(first), counts)]
    )
    given.out.mkdir(parents=True, exist_ok=True)
    write_atomic(given.out / f"{given.task}.csv", csv_text(rows))
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
