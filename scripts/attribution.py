"""Which ten of my texts raise a metric most? The metagradient engine alone, on a Hugging Face model and the stream of
batches that a `Trainer` would train it on: data attribution, without a generator, rewards or the benchmark.

    python scripts/attribution.py                                       # the miniature: which texts teach Spanish?
    python scripts/attribution.py --texts mine.jsonl --metric wanted.jsonl --model ./my-model --lr 1e-5
    python scripts/attribution.py --metric my_module:make_metric        # (model, tokenizer) -> metric

Every text's weight is dPhi(theta_T)/dw_i: what the metric Phi of the trained model would gain if the training leaned a
little more on text i. `--metric` names texts that the model should find likely (Phi: their mean log-likelihood in nats
per token), or a function of your own that returns Phi as the engine takes it: parameters -> scalar tensor. Texts are
JSON lines with a field `text`, Parquet with such a column, or a hub data set. Prints the highest and the lowest.
"""

from __future__ import annotations

import argparse
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from rich.table import Table
from rich.text import Text
from torch.func import functional_call

from harness import assets
from harness.contracts import HarnessError, Metric
from harness.machine.libraries import quiet
from harness.machine.terminal import Terminal
from rewards.metagradient import InnerOptimizer, metagradient

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LANGUAGES = ("en", "de", "es", "fr", "it")
OF_EACH = 24
"""Passages of each language where no texts are named."""
WANTED = "es"
"""The language of the texts that the model should find likely where no metric is named."""
MOST_WANTED = 64


@dataclass(frozen=True)
class Attribution:
    """Phi after the training, and dPhi/dw_i of every text, in the order of the texts."""

    value: float
    texts: Sequence[str]
    weights: Sequence[float]

    def ranked(self) -> list[tuple[float, str]]:
        """(weight, text), highest first."""
        return sorted(zip(self.weights, self.texts, strict=True), key=lambda pair: -pair[0])


def trainer_batches(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, size: int, max_tokens: int, seed: int
) -> tuple[list[int], list[Mapping[str, torch.Tensor]]]:
    """(order, batches): one epoch as transformers' `Trainer` makes it, shuffled, padded on the right by its collator
    (input_ids, attention_mask, labels with -100 for padding); place j of the batches' rows holds texts[order[j]]."""
    from torch.utils.data import DataLoader
    from transformers import DataCollatorForLanguageModeling

    tokenizer.padding_side = "right"
    rows = [tokenizer(text, truncation=True, max_length=max_tokens) for text in texts]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    collate = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    return order, list(DataLoader(rows, batch_size=size, sampler=order, collate_fn=collate))


def likelihood_of(texts: Sequence[str], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Metric:
    """Phi: the mean over the texts' tokens of their log-likelihood, in nats."""
    tokenizer.padding_side = "right"
    inputs = tokenizer(list(texts), return_tensors="pt", padding=True, truncation=True, max_length=128).to(model.device)
    targets = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)[:, 1:]

    def phi(params: Mapping[str, torch.Tensor]) -> torch.Tensor:
        logits = functional_call(model, dict(params), (), dict(inputs)).logits[:, :-1]
        return -torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)

    return phi


def attribute(
    model: PreTrainedModel,
    texts: Sequence[str],
    batches: tuple[list[int], list[Mapping[str, torch.Tensor]]],
    metric: Metric,
    optimizer: InnerOptimizer,
) -> Attribution:
    """The metagradient of every text through the training on `batches` (`trainer_batches`)."""
    order, stream = batches
    here = [{name: value.to(model.device) for name, value in batch.items()} for batch in stream]
    found = metagradient(model, here, metric, optimizer)
    weights = torch.empty(len(texts), dtype=torch.float64)
    weights[torch.tensor(order)] = found.weights.double().cpu()
    return Attribution(found.value, texts, weights.tolist())


def default_texts() -> list[str]:
    """Passages of the miniature in five languages."""
    return [
        text
        for code in LANGUAGES
        for text in assets.texts("embedded:passages", split="train", limit=OF_EACH, language=code)
    ]


def make_metric(named: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Metric:
    """Phi as `--metric` names it. Raises HarnessError."""
    if not named:
        wanted = assets.texts("embedded:passages", split="validation", limit=MOST_WANTED, language=WANTED)
        return likelihood_of(wanted, model, tokenizer)
    if ":" in named and not named.startswith("embedded:"):
        try:
            return pkgutil.resolve_name(named)(model, tokenizer)
        except (ImportError, AttributeError, ValueError) as error:
            raise HarnessError(f"There is no function {named} ({error}); write --metric MODULE:FUNCTION.") from error
    return likelihood_of(assets.texts(named, split=None, limit=MOST_WANTED), model, tokenizer)


def tables(found: Attribution, count: int) -> list[Table]:
    """The highest and the lowest `count` texts."""
    ranked = found.ranked()
    shown = []
    for title, rows in (("raise it most", ranked[:count]), ("lower it most", ranked[::-1][:count])):
        table = Table(title=f"The {len(rows)} texts that {title}", title_justify="left", box=None)
        table.add_column("dPhi/dw", justify="right", no_wrap=True, min_width=len("+1.234e-05"))
        table.add_column("text", overflow="ellipsis", no_wrap=True)
        for weight, text in rows:
            table.add_row(f"{weight:+.3e}", Text(" ".join(text.split())))
        shown.append(table)
    return shown


def main(arguments: Sequence[str] | None = None) -> Attribution:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", default="", help="the training texts; default: passages in five languages")
    parser.add_argument("--metric", default="", help="wanted texts, or MODULE:FUNCTION; default: Spanish passages")
    parser.add_argument("--model", default="embedded:target", help="a Hugging Face folder or hub id")
    parser.add_argument("--optimizer", default="adamw", choices=["adamw", "adam", "sgd"])
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--batch", type=int, default=16, help="texts an optimizer step")
    parser.add_argument("--max-tokens", type=int, default=96, help="of a text; the rest is cut off")
    parser.add_argument("--top", type=int, default=10, help="texts shown of each end")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the texts")
    given = parser.parse_args(arguments)
    quiet()
    texts = assets.texts(given.texts, split=None) if given.texts else default_texts()
    model, tokenizer = assets.load_model(given.model), assets.load_tokenizer(given.model)
    metric = make_metric(given.metric, model, tokenizer)
    batches = trainer_batches(texts, tokenizer, size=given.batch, max_tokens=given.max_tokens, seed=given.seed)
    rule = InnerOptimizer(name=given.optimizer, lr=given.lr)
    with torch.no_grad():
        before = float(metric(dict(model.named_parameters())))
    found = attribute(model, texts, batches, metric, rule)
    console = Terminal()
    steps = len(batches[1])
    console.print(f"{len(texts)} texts, {steps} steps: the metric goes from {before:.6g} to {found.value:.6g}.")
    for table in tables(found, given.top):
        console.print(table)
    return found


if __name__ == "__main__":
    try:
        main()
    except HarnessError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
