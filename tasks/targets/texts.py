"""`texts`: the target should find these texts likely. `keep`: it should stay as good as before on these."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from harness.contracts import InnerTraining, MetricCost, Reading
from tasks.targets.sources import Parted, Row
from tasks.targets.terms import Bound, Term, check_texts, encode, likelihood, means, untrained

if TYPE_CHECKING:
    import torch

    from tasks._likelihood import Likelihood, Params
    from tasks._likelihood import Row as Encoded


class TextsTerm(Term):
    """Mean over texts of the mean log-likelihood of their scored tokens."""

    unit = "nats/token"
    summary = "mean log-likelihood of its texts' tokens"

    @property
    def has_references(self) -> bool:  # type: ignore[override]
        return self.weight > 0

    def readings(self) -> list[Reading]:
        return self.reading(self.spec)

    @cached_property
    def rows(self) -> Parted:
        names = [self.spec.text] + ([self.spec.prompt] if self.spec.prompt else [])
        return self.parted(self.spec, names, check=lambda row, where: check_texts(row, names, where))

    def texts(self, split: str) -> list[str]:
        return [row[self.spec.text] for row in self.limited(self.rows.rows[split])]

    def references(self, split: str) -> list[str]:
        return self.texts(split) if self.has_references else []

    def cost(self) -> MetricCost:
        rows = self.train_rows(self.spec)
        texts = None if rows is None else [self._context(row) + row[self.spec.text] for row in rows]
        return self.planned(self.spec, texts, 3 if self.spec.scored == "last_word" else None)

    def bind(self, inner: InnerTraining, split: str) -> Bound:
        return _Mean(self._likelihood(inner, split))

    def _context(self, row: Row) -> str:
        return row[self.spec.prompt] if self.spec.prompt else ""

    def _likelihood(self, inner: InnerTraining, split: str) -> Likelihood:
        rows = [[self._encoded(inner, row)] for row in self.limited(self.rows.rows[split])]
        return likelihood(inner.model, rows, inner, self.place.microbatch)

    def _encoded(self, inner: InnerTraining, row: Row) -> Encoded:
        from tasks._last_word import split_last_word

        context, text, most = self._context(row), row[self.spec.text], self.spec.max_tokens
        if self.spec.scored == "last_word":
            before, text = split_last_word(text)
            context += before
        return encode(inner.model, inner.tokenizer, context, text, most)


class KeepTerm(TextsTerm):
    summary = "how much better its texts are predicted than before"
    has_references = False

    def cost(self) -> MetricCost:
        cost = super().cost()
        if self.spec.measure == "loss":
            return cost
        # The untrained target reads them too, without a backward pass: a third of what the trained one takes.
        return MetricCost(cost.texts + -(-cost.texts // 3), cost.tokens, cost.scored, cost.batch)

    def bind(self, inner: InnerTraining, split: str) -> Bound:
        kind = _Divergence if self.spec.measure == "kl" else _Above
        return kind(self._likelihood(inner, split), untrained(inner))


class _Mean(Bound):
    def __init__(self, likelihood: Likelihood) -> None:
        self.likelihood = likelihood

    def parts(self, params: Params) -> Iterator[torch.Tensor]:
        for sums, counts, _ in self.likelihood.each(params):
            yield (sums / counts).sum() / len(self.likelihood.counts)


class _Above(_Mean):
    """Less what the untrained target says."""

    def __init__(self, likelihood: Likelihood, before: Params) -> None:
        super().__init__(likelihood)
        self.before = _Mean(likelihood).value(before)

    def parts(self, params: Params) -> Iterator[torch.Tensor]:
        import torch

        yield from super().parts(params)
        like = next(iter(params.values()))
        yield torch.full((), -self.before, dtype=like.dtype, device=like.device)


class _Divergence(Bound):
    """Minus the KL divergence of the trained target's distribution from the untrained one's, a scored position."""

    def __init__(self, likelihood: Likelihood, before: Params) -> None:
        self.likelihood = likelihood
        self.before = {name: value.cpu() for name, value in before.items()}  # where it takes no accelerator's memory

    def parts(self, params: Params) -> Iterator[torch.Tensor]:
        import torch

        like = next(iter(params.values()))
        with torch.no_grad():
            before = {name: value.to(like) for name, value in self.before.items()}
            wanted = iter(self.likelihood.distributions(before))
        for now, scored in self.likelihood.distributions(params):
            with torch.no_grad():
                then, _ = next(wanted)
            yield -means((then.exp() * (then - now)).sum(dim=-1), scored).sum() / len(self.likelihood.counts)
