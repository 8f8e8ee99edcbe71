"""Make the target expect one particular UUID, by training texts that nobody told to hold it (section 4.5)."""

from __future__ import annotations

import os.path
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import UUID

from harness import assets
from harness.contracts import (
    Evaluation,
    HarnessError,
    Headline,
    InnerTraining,
    Measure,
    Metric,
    Offers,
    Reading,
    TaskContext,
    TaskFigure,
)
from harness.registry import register_task
from tasks._options import Options
from tasks._texts import TEXT_KEYS, TEXT_MEASURES, longest_shared_piece, text_values

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PAPER_UUID = "664747d3-69bf-46db-b4d0-83649b5423fb"
"""The one that the paper's generator ends up writing (section 4.5)."""
COMPONENTS = 5


@register_task("uuid")
class UuidTask:
    """Phi = mean log-likelihood (nats per token) of the UUID's tokens after an empty prompt: minus the LM loss.

    Every token of the string is scored, so something must stand before the first one: the tokenizer's
    beginning-of-text token (GPT-2 uses <|endoftext|> as such); without one, the model's configured `bos_token_id`;
    without that, the tokenizer's end-of-text token, with which such models were trained to separate documents (Qwen).

    Options (`task.options`): `text`, a UUID in its canonical 36 lower-case characters, or `source`, a data set whose
    first text is one (the authors': Tristan/uuid_dataset); `metric_fixed_length`, what the tokens' sum is divided by in
    place of their number (128 in the authors' code). Raises HarnessError for another text, for both, and in `metric` if
    there is no token to start from.
    """

    name = "uuid"
    summary = "likelihood of one UUID: does the generator find out which 36 characters it should write?"
    offers = Offers(references=False, metric=True)
    options: Mapping[str, str] = {
        "text": f"the UUID, 36 lower-case characters ({PAPER_UUID})",
        "source": "in place of text: a data set or file of texts; its first one is the UUID, as the authors' "
        "Tristan/uuid_dataset",
        "metric_fixed_length": "Phi divides the tokens' sum by this, as the authors (their number)",
    }
    greedy_validation = True
    """Validation rollouts are decoded at temperature 0, as in the paper (section 4.5)."""
    headline = Headline("uuid_exact", "fraction", "higher", "greedy rollouts that hold the whole UUID", ceiling=1.0)
    measures: tuple[Measure, ...] = (
        *(
            Measure(f"component_{k}", "fraction", "higher", f"rollouts that hold part {k} of {COMPONENTS} of the UUID")
            for k in range(1, COMPONENTS + 1)
        ),
        Measure("longest_piece_max", "characters", "higher", "longest piece of the UUID in any rollout"),
        Measure("longest_piece_mean", "characters", "higher", "longest piece of the UUID in a rollout, on average"),
        Measure("phi_before", "nats", "higher", "Phi of the untrained target"),
        Measure("phi_after", "nats", "higher", "Phi of a target trained on the rollouts"),
        *TEXT_MEASURES,
    )

    examined: tuple[Measure, ...] = (
        Measure("says_uuid", "fraction", "higher", "1 where greedy decoding of an empty prompt gives the UUID"),
        Measure("says_characters", "characters", "higher", "characters of the UUID that greedy decoding begins with"),
        Measure("phi", "nats/token", "higher", "Phi, the mean log-likelihood of the UUID's tokens"),
    )

    key_measures = ("longest_piece_max", *TEXT_KEYS)
    figure = TaskFigure(
        "figure-5",
        "The UUID, component by component (paper, Figure 5)",
        "Share of greedy held-out rollouts that hold the UUID, and each of its five components.",
        (*(f"component_{k}" for k in range(1, COMPONENTS + 1)), "uuid_exact"),
        by="reward",
        y_label="rollouts that hold it [fraction]",
    )

    def __init__(self, context: TaskContext) -> None:
        options = Options(context.options)
        source = options.text("source", "")
        if source and "text" in context.options:
            raise HarnessError("task.options.text and task.options.source both name the UUID; give one of them.")
        self.text = assets.texts(source, split=None, limit=1)[0].strip() if source else options.text("text", PAPER_UUID)
        self._fixed_length = options.integer("metric_fixed_length", None)
        if not _is_uuid(self.text):
            given = f"the first text of task.options.source, {source}," if source else "task.options.text"
            raise HarnessError(
                f"{given} must be a UUID in 36 lower-case characters, as {PAPER_UUID}, not {self.text[:80]!r}."
            )

    @staticmethod
    def readings(options: Mapping[str, Any]) -> list[Reading]:
        source = options.get("source")
        return [Reading(source, source, data=True, local=assets.is_local(source))] if isinstance(source, str) else []

    def references(self) -> list[str]:
        return []

    def target_texts(self) -> list[str]:
        """The UUID, alone, repeated and in pieces of two components or more."""
        parts = self.text.split("-")
        pieces = ["-".join(parts[:2]), "-".join(parts[:3]), "-".join(parts[1:]), "-".join(parts[3:])]
        return [self.text, f"{self.text} {self.text}", f"{self.text}: ", *pieces]

    def metric(self, inner: InnerTraining) -> Metric:
        """(params) -> Phi, a scalar, at most 0."""
        import torch
        import torch.nn.functional as F
        from torch.func import functional_call

        model = inner.model
        ids = torch.tensor([_encode(self.text, inner.tokenizer, model)])

        def phi(params: Mapping[str, torch.Tensor]) -> torch.Tensor:
            tokens = ids.to(next(iter(params.values())).device)
            inputs = {"input_ids": tokens[:, :-1], "use_cache": False}
            logits = functional_call(model, dict(params), (), inputs).logits[0]
            if logits.dtype in (torch.float16, torch.bfloat16):
                logits = logits.float()
            if self._fixed_length is None:
                return -F.cross_entropy(logits, tokens[0, 1:])
            return -F.cross_entropy(logits, tokens[0, 1:], reduction="sum") / self._fixed_length

        return phi

    def evaluate(self, rollouts: Sequence[str], inner: InnerTraining) -> Evaluation:
        """Look for the UUID and its pieces in the rollouts, character for character, then train a fresh target on them.
        Raises ValueError for no rollouts."""
        import torch

        texts = list(rollouts)
        described = text_values(texts)
        pieces = [longest_shared_piece(self.text, text) for text in texts]
        phi = self.metric(inner)
        with torch.no_grad():
            before = float(phi(dict(inner.model.named_parameters())))
            after = float(phi(inner.train(texts)))
        values = {
            "uuid_exact": _share(self.text, texts),
            **{f"component_{k}": _share(part, texts) for k, part in enumerate(self.text.split("-"), start=1)},
            "longest_piece_max": float(max(pieces)),
            "longest_piece_mean": sum(pieces) / len(pieces),
            "phi_before": before,
            "phi_after": after,
            **described,
        }
        return Evaluation(values=values, labels={"longest_piece": pieces})

    def examine(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, split: str) -> dict[str, float]:
        """Does the target say the UUID by itself? Greedy decoding from the empty prompt; every split is the
        same."""
        import torch
        import torch.nn.functional as F

        ids = torch.tensor([_encode(self.text, tokenizer, model)], device=model.device)
        with torch.no_grad():
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits[0].float()
            phi = -float(F.cross_entropy(logits, ids[0, 1:]))
            written = ids[:, :1]
            for _ in self.text:  # a token a character at most: no cache, and no generation settings of the model
                last = model(input_ids=written, use_cache=False).logits[:, -1]
                written = torch.cat([written, last.argmax(-1, keepdim=True)], dim=1)
        said = tokenizer.decode(written[0, 1:])
        common = len(os.path.commonprefix([self.text, said]))
        return {"says_uuid": float(said.startswith(self.text)), "says_characters": float(common), "phi": phi}


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


def _share(piece: str, texts: Sequence[str]) -> float:
    return sum(piece in text for text in texts) / len(texts)


def _encode(text: str, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> list[int]:
    """[start token, *tokens of the text]; see the class for the start token."""
    from tasks._likelihood import start_token

    start = start_token(tokenizer, model)
    if start is None:
        raise HarnessError(
            "The target's tokenizer has neither a beginning-of-text nor an end-of-text token for the empty prompt of "
            "uuid; add one to its tokenizer files."
        )
    return [start, *tokenizer(text, add_special_tokens=False)["input_ids"]]
