"""EleutherAI's evaluation harness (extra `lm-eval`) asked the same of a trained target, offline: a task made of the
same passages, the target as a Hugging Face folder, the harness's own result as plain data.

What has to agree with ours: a beginning-of-text token is written into each context, since not every tokenizer adds it
by itself (theirs then adds none); context and last word are joined without a delimiter. Passages that do not fit the
model lose tokens on the left in both, there the beginning-of-text token too.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PACKAGE = "lm_eval"
BATCH = 32


def check_installed() -> None:
    """Raises HarnessError where the extra is missing."""
    if find_spec(PACKAGE) is None:
        raise HarnessError("--lm-eval needs EleutherAI's harness; `pip install 'dpg-harness[lm-eval]'` brings it.")


def ask(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], name: str
) -> dict[str, Any]:
    """What `lm_eval.simple_evaluate` says of the model on a task of these (context, last word) pairs: its results with
    `perplexity` (per last word) and `acc`, as its command would write them. Raises HarnessError without the package."""
    check_installed()
    from lm_eval import simple_evaluate
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

    task = ConfigurableTask(config=_task(name, pairs))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        arguments = {"pretrained": folder, "dtype": "float32", "add_bos_token": False}
        found = simple_evaluate(
            model="hf",
            model_args=arguments,
            tasks=[task],
            batch_size=BATCH,
            device=str(model.device),
            task_manager=TaskManager(include_defaults=False),
            log_samples=False,
            bootstrap_iters=0,
            verbosity="ERROR",
        )
    found["config"] = {**found.get("config", {}), "model_args": "pretrained=(a trained target),dtype=float32"}
    return json.loads(json.dumps(found, default=str).replace(json.dumps(folder)[1:-1], "(a trained target)"))


def perplexity(found: dict[str, Any]) -> float:
    """Its perplexity of the one task in its results."""
    (values,) = found["results"].values()
    return float(values["perplexity,none"])


def _task(name: str, pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """The task as its lambada tasks have it."""
    from datasets import Dataset

    rows = [{"context": context, "word": word} for context, word in pairs]
    return {
        "task": name,
        "custom_dataset": lambda **_: {"test": Dataset.from_list(rows)},
        "output_type": "loglikelihood",
        "test_split": "test",
        "doc_to_text": "context",
        "doc_to_target": "word",
        "target_delimiter": "",
        "metric_list": [
            {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
            {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
        ],
        "metadata": {"version": 1.0},
    }
