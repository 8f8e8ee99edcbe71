"""`preference`: chosen completions likelier than rejected ones. Rows are as in TRL's preference data sets: texts or
lists of messages, with a prompt of their own or with one that both completions begin with."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import assets
from harness.contracts import HarnessError, InnerTraining, MetricCost, Reading
from tasks.targets.sources import Parted, Row
from tasks.targets.terms import Bound, Term, check_texts, encode, likelihood, untrained

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tasks._likelihood import Likelihood, Params
    from tasks._likelihood import Row as Encoded

UNTRAINED = "untrained"


class PreferenceTerm(Term):
    unit = "nats"
    summary = "mean margin of chosen over rejected completions"

    @property
    def has_references(self) -> bool:  # type: ignore[override]
        return self.weight > 0

    def readings(self) -> list[Reading]:
        ref = self.spec.reference
        if ref is None or ref == UNTRAINED:
            return self.reading(self.spec)
        return [*self.reading(self.spec), self.model(ref)]

    @cached_property
    def rows(self) -> Parted:
        fields = [self.spec.chosen, self.spec.rejected]
        prompt = [self.spec.prompt] if self.spec.prompt else []

        def check(row: Row, where: str) -> None:
            kinds = {isinstance(row[name], list) for name in [*fields, *prompt] if name in row}
            if len(kinds) > 1:
                raise HarnessError(
                    f"{where}: some of its fields are texts and others lists of messages; make them alike."
                )
            if kinds == {True}:
                for name in [*fields, *prompt]:
                    _check_messages(row.get(name, []), name, where)
            else:
                check_texts(row, fields, where)
            if row[self.spec.chosen] == row[self.spec.rejected]:
                raise HarnessError(f"{where}: what is chosen is what is rejected; take the row out.")

        together = lambda row: repr(row[prompt[0]]) if prompt and row.get(prompt[0]) else ""
        return self.parted(self.spec, fields, optional=prompt, check=check, together=together)

    def references(self, split: str) -> list[str]:
        rows = self.limited(self.rows.rows[split]) if self.has_references else []
        chosen = [self._apart(row)[1] for row in rows]
        return ["".join(m["content"] for m in each) if isinstance(each, list) else each for each in chosen]

    def cost(self) -> MetricCost:
        rows = self.train_rows(self.spec)
        names = (self.spec.chosen, self.spec.rejected)
        texts = (
            None if rows is None else [str(row.get(self.spec.prompt, "")) + str(row[n]) for row in rows for n in names]
        )
        return self.planned(self.spec, texts)

    def bind(self, inner: InnerTraining, split: str) -> Bound:
        rows = self.limited(self.rows.rows[split])
        groups = [list(self._encoded(inner.model, inner.tokenizer, row)) for row in rows]
        bound = _Margin(likelihood(inner.model, groups, inner, self.place.microbatch), self.spec)
        ref = self.spec.reference
        if ref == UNTRAINED:
            bound.less(bound.margins(untrained(inner)))
        elif ref is not None:
            where = self.model(ref).ref
            model, tokenizer = assets.load_model(where).to(inner.model.device), assets.load_tokenizer(where)
            own = [list(self._encoded(model, tokenizer, row)) for row in rows]
            other = _Margin(likelihood(model, own, inner, self.place.microbatch), self.spec)
            bound.less(other.margins(dict(model.named_parameters())))
        return bound

    def _apart(self, row: Row) -> tuple[Any, Any, Any]:
        """(prompt, chosen, rejected): where the row has no prompt, what both completions begin with, as TRL has it."""
        chosen, rejected = row[self.spec.chosen], row[self.spec.rejected]
        prompt = row.get(self.spec.prompt) if self.spec.prompt else None
        if prompt:
            return prompt, chosen, rejected
        if isinstance(chosen, list):
            same = 0
            while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
                same += 1
        else:
            same = len(commonprefix([chosen, rejected]))
            same -= chosen[:same].endswith(" ")
        return chosen[:same], chosen[same:], rejected[same:]

    def _encoded(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, row: Row) -> Iterator[Encoded]:
        prompt, *completions = self._apart(row)
        if not isinstance(prompt, list):
            yield from (encode(model, tokenizer, prompt, text) for text in completions)
            return
        if not tokenizer.chat_template:
            raise HarnessError(
                f"{self.name} compares lists of messages, and the target's tokenizer has no chat template; use texts."
            )
        context = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
        for messages in completions:
            whole = tokenizer.apply_chat_template([*prompt, *messages], tokenize=False)
            if not whole.startswith(context):
                raise HarnessError(
                    f"{self.name}: the target's chat template writes the prompt otherwise where an answer follows, so "
                    "that the two cannot be told apart; use texts."
                )
            yield encode(model, tokenizer, context, whole.removeprefix(context))

    def model(self, ref: str) -> Reading:
        """A model that the file names: a folder from there, an embedded one or one of the hub."""
        if not assets.is_embedded(ref) and (Path(self.place.folder, ref).is_dir() or assets.is_local(ref)):
            return self.file(ref)
        return Reading(ref, ref)


class _Margin(Bound):
    def __init__(self, likelihood: Likelihood, spec: Any) -> None:
        self.likelihood, self.spec = likelihood, spec
        self.before: torch.Tensor | None = None

    def less(self, before: torch.Tensor) -> None:
        """What is taken off each pair's margin, (pairs,)."""
        self.before = before

    def margins(self, params: Params) -> torch.Tensor:
        """(pairs,) without a graph."""
        import torch

        with torch.no_grad():
            found = [(margin, pairs) for margin, pairs in self._each(params)]
            margins = torch.cat([margin for margin, _ in found])
            return torch.zeros_like(margins).index_copy(0, torch.cat([pairs for _, pairs in found]), margins)

    def parts(self, params: Params) -> Iterator[torch.Tensor]:
        import torch.nn.functional as F

        for margin, pairs in self._each(params):
            if self.before is not None:
                margin = margin - self.before.to(margin)[pairs]
            if self.spec.form == "log_sigmoid":
                margin = F.logsigmoid(self.spec.beta * margin)
            yield margin.sum() / (len(self.likelihood.counts) // 2)

    def _each(self, params: Params) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(margins, pairs' numbers) of a batch."""
        for sums, counts, places in self.likelihood.each(params):
            values = (sums / counts if self.spec.length == "mean" else sums).view(-1, 2)
            yield values[:, 0] - values[:, 1], places.view(-1, 2)[:, 0] // 2


def _check_messages(messages: Any, name: str, where: str) -> None:
    """Raises HarnessError for what is no list of messages with a role and a content."""
    for message in messages:
        said = message if isinstance(message, dict) else {}
        if not all(isinstance(said.get(key), str) for key in ("role", "content")):
            raise HarnessError(f"{where}: `{name}` must be a text or a list of messages with role and content.")
