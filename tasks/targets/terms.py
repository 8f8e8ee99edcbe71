"""What every kind of term has: what it declares before anything loads, its rows, and its value as parts that add up.

A term's value is a sum of scalars, each of a few texts, so that one such graph is held at a time
(tasks/_likelihood.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.assets.rows import check_text
from harness.contracts import (
    Direction,
    HarnessError,
    HasMemoryBudget,
    InnerTraining,
    Measure,
    MetricCost,
    Outline,
    Reading,
)
from tasks.targets.schema import Shares, Source
from tasks.targets.sources import UNREAD, Parted, Row, is_here, local, parted

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tasks._likelihood import Likelihood, Params
    from tasks._likelihood import Row as Encoded

BYTES_A_TOKEN = 3
"""Of UTF-8, about, for plans."""
MOST_PLANNED = 1024
"""Tokens of a text that a plan counts at most: no target here reads more at once."""


@dataclass(frozen=True)
class Surroundings:
    """What a term knows of the file that it stands in."""

    folder: str
    shares: Shares
    seed: int
    microbatch: int
    most: int | None = None
    """Rows of a split at most, whatever the file says."""


class Bound(ABC):
    """A term for one target and one split."""

    reads: tuple[str, ...] | None = None
    """Parameters that it reads; None: all."""

    @abstractmethod
    def parts(self, params: Params) -> Iterator[torch.Tensor]:
        """Scalars that add up to the value, each with a graph of its own."""

    def value(self, params: Params) -> float:
        import torch

        with torch.no_grad():
            return float(sum(self.parts(params)))

    def looked(self, params: Params) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """(further measures, arrays that pictures are drawn of)."""
        return {}, {}


class Term(ABC):
    """One term of a target's file; `spec` is what the file says of its kind."""

    unit = ""
    summary: str
    """What its value is."""

    def __init__(self, name: str, weight: float, spec: Any, place: Surroundings) -> None:
        self.name, self.weight, self.spec, self.place = name, weight, spec, place

    def measures(self) -> tuple[Measure, ...]:
        """What an evaluation says of it; `bind(...).looked` may give those after the first two."""
        direction: Direction = "higher" if self.weight >= 0 else "lower"
        return (
            Measure(f"{self.name}_gain", self.unit, direction, f"what training on the rollouts adds to {self.name}"),
            Measure(self.name, self.unit, direction, f"{self.summary}, held-out data, trained target"),
        )

    def readings(self) -> list[Reading]:
        """Files, models and data sets that it names."""
        return []

    @cached_property
    def rows(self) -> Parted | None:
        """Its rows by split; None: it has none. Raises HarnessError for what cannot be used."""
        return None

    def check(self, outline: Outline) -> None:
        """Raises HarnessError where the target lacks what the term is about."""
        return

    def references(self, split: str) -> list[str]:
        """Texts that a rollout may be compared with; [] where it has none."""
        return []

    has_references = False
    """Whether it has such texts."""

    def cost(self) -> MetricCost | None:
        """What its value takes of the target, for plans; reads rows where they are here."""
        return None

    @abstractmethod
    def bind(self, inner: InnerTraining, split: str) -> Bound:
        """The term for this target as it stands now, and the rows of a split."""

    # ------------------------------------------------------------------------------------------- for kinds with rows

    def parted(self, source: Source, names: Sequence[str], **more: Any) -> Parted:
        """The rows of a source with these fields."""
        return parted(source, self.place.folder, self.place.shares, self.place.seed, names, **more)

    def reading(self, source: Source) -> list[Reading]:
        """What a source names."""
        if source.dataset is not None:
            return [Reading(source.dataset, source.dataset, data=True)]
        return [self.file(source.file)] if source.file is not None else []

    def file(self, name: str) -> Reading:
        """A file or folder that is named as a path from the target's file."""
        return Reading(name, str(local(name, self.place.folder)) if self.place.folder else "", local=True)

    def limited(self, rows: Sequence[Row]) -> Sequence[Row]:
        return rows[: self.place.most]

    def planned(self, source: Source, texts: Sequence[str] | None, scored: float | None = None) -> MetricCost:
        """The cost of passes over these texts (None: they are not here)."""
        count = len(texts) if texts is not None else (source.examples or UNREAD)
        tokens = sum(len(text.encode()) for text in texts) // (BYTES_A_TOKEN * max(1, count)) if texts else 100
        tokens = min(max(1, tokens), MOST_PLANNED)
        return MetricCost(max(1, count), tokens, max(1, round(scored or tokens)), self.place.microbatch)

    def train_rows(self, source: Source) -> Sequence[Row] | None:
        """Rows of the train split where they can be read without a network."""
        return self.limited(self.rows.rows["train"]) if self.rows and is_here(source) else None


def check_texts(row: Row, names: Sequence[str], where: str) -> None:
    """Raises HarnessError where one of the fields is no text, or an empty one."""
    for name in names:
        check_text(row[name], name, where)
        if not row[name].strip():
            raise HarnessError(f"{where}: `{name}` is empty; fill it or take the row out.")


def encode(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    context: str,
    text: str,
    max_tokens: int | None = None,
) -> Encoded:
    """[start, context, text] with the text's tokens scored.

    Context and text are tokenised apart and joined. The text is cut from the right to `max_tokens` and to what the
    model reads, the context then from the left. Raises HarnessError where nothing is left to score."""
    from tasks._likelihood import positions_of, start_token

    start = start_token(tokenizer, model)
    begins = [] if start is None or (tokenizer.bos_token and context.startswith(tokenizer.bos_token)) else [start]
    before = tokenizer(context, add_special_tokens=False)["input_ids"] if context else []
    ids = tokenizer(text, add_special_tokens=False)["input_ids"][:max_tokens]
    room = positions_of(model)
    if room is not None:  # the last token is not read, so one more than the model's positions fits
        ids = ids[: room + 1 - len(begins)]
        before = before[max(0, len(before) - (room + 1 - len(begins) - len(ids))) :]
    scored = len(ids) if begins or before else len(ids) - 1
    if scored < 1:
        raise HarnessError(f"The text '{text[:60]}' has no token that the target could predict; take it out.")
    return [*begins, *before, *ids], scored


def likelihood(model: PreTrainedModel, groups: Sequence[Sequence[Encoded]], inner: Any, most: int) -> Likelihood:
    """Of at most `most` rows a pass, fewer where a pass would keep more than the inner training's memory budget."""
    from tasks._likelihood import Likelihood, saved_bytes

    budget = inner.memory_budget if isinstance(inner, HasMemoryBudget) else None
    if budget is not None:
        longest = max(groups, key=lambda group: max(len(ids) for ids, _ in group))
        one = Likelihood(model, [longest])
        params = dict(model.named_parameters())
        size = saved_bytes(lambda: [sums for sums, _, _ in one.each(params)], params) // len(longest)
        most = max(1, min(most, budget // max(1, size)))
    return Likelihood(model, groups, microbatch=most)


def means(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B,): the mean of each row's values (B, K) where the mask (B, K) says so."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1)


def untrained(inner: InnerTraining) -> Mapping[str, torch.Tensor]:
    """The target's parameters as they stand now; training makes others."""
    return {name: value.detach() for name, value in inner.model.named_parameters()}
