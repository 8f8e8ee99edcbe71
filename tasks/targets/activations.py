"""`activations`: hidden states of a layer further along a direction."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError, InnerTraining, MetricCost, Outline, Reading
from tasks.targets.sources import Parted, Row, local
from tasks.targets.terms import Bound, Term, check_texts, encode, likelihood, means, untrained

if TYPE_CHECKING:
    import torch

    from tasks._likelihood import Likelihood, Params
    from tasks._likelihood import Row as Encoded
    from tasks.targets.schema import Texts


class ActivationsTerm(Term):
    summary = "mean projection of the layer's hidden states on the direction"

    def readings(self) -> list[Reading]:
        found = self.reading(self.spec)
        if self.spec.direction is not None:
            found.append(self.file(self._file[0]))
        for source in self._sides:
            found += self.reading(source)
        return found

    @property
    def _sides(self) -> list[Texts]:
        sides = self.spec.difference
        return [] if sides is None else [sides.toward, sides.away]

    @property
    def _file(self) -> tuple[str, str]:
        """(file, tensor in it or "")."""
        name, _, tensor = self.spec.direction.rpartition(".safetensors:")
        return (f"{name}.safetensors", tensor) if name else (self.spec.direction, "")

    @cached_property
    def rows(self) -> Parted:
        for side in self._sides:
            self._parted(side)  # what is wrong with them is said before anything loads
        if self.spec.direction is not None:
            local(self._file[0], self.place.folder)
        return self._parted(self.spec)

    def _parted(self, source: Texts) -> Parted:
        return self.parted(source, [source.text], check=lambda row, where: check_texts(row, [source.text], where))

    def check(self, outline: Outline) -> None:
        if self.spec.layer not in outline.modules:
            near = difflib.get_close_matches(self.spec.layer, outline.modules, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(list(outline.modules)[:8])}."
            raise HarnessError(f"{self.name}: the target has no layer '{self.spec.layer}'; {hint}")
        if self.spec.direction is not None and outline.hidden is not None:
            if (width := len(self._read())) != outline.hidden:
                raise HarnessError(
                    f"{self.name}: the direction has {width} numbers, and the target's hidden states {outline.hidden}; "
                    "take one that was made for this target."
                )

    def cost(self) -> MetricCost:
        rows = self.train_rows(self.spec)
        return self.planned(self.spec, None if rows is None else [row[self.spec.text] for row in rows], 1)

    def bind(self, inner: InnerTraining, split: str) -> Bound:
        import torch

        model = inner.model
        if self.spec.layer not in dict(model.named_modules()):
            raise HarnessError(f"{self.name}: the target has no layer '{self.spec.layer}'.")
        if self.spec.direction is not None:
            direction = self._read()
        else:
            with torch.no_grad():
                toward, away = (self._mean(inner, side) for side in self._sides)
            direction = toward - away
        length = float(direction.double().norm())
        if not 0 < length < float("inf"):
            raise HarnessError(f"{self.name}: the direction has the length {length}, so it points nowhere.")
        texts = self._likelihood(inner, self.limited(self.rows.rows[split]), self.spec)
        return _Projection(texts, self.spec.layer, direction / length)

    def _read(self) -> torch.Tensor:
        """The direction of the file, (width,). Raises HarnessError."""
        from safetensors import SafetensorError, safe_open

        file, tensor = self._file
        try:
            with safe_open(local(file, self.place.folder), framework="pt") as tensors:
                names = list(tensors.keys())
                wanted = tensor or (names[0] if len(names) == 1 else "")
                value = tensors.get_tensor(wanted) if wanted in names else None
        except (SafetensorError, OSError) as error:
            raise HarnessError(f"{self.name}: {file} is no safetensors file; save the direction as one.") from error
        if value is None:
            raise HarnessError(
                f"{self.name}: name the direction's tensor as {file}:NAME; the file has {', '.join(names[:8])}."
            )
        import torch

        if value.ndim != 1 or not bool(torch.isfinite(value).all()):
            raise HarnessError(f"{self.name}: the direction in {file} must be one row of finite numbers.")
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

    def _mean(self, inner: InnerTraining, side: Texts) -> torch.Tensor:
        """The mean hidden state over a side's train texts, untrained target."""
        rows = self.limited(self._parted(side).rows["train"])
        texts = self._likelihood(inner, rows, side)
        total: Any = 0.0
        for hidden, scored, _ in texts.hidden(untrained(inner), self.spec.layer):
            mask = scored.unsqueeze(-1)
            total = total + ((hidden * mask).sum(dim=1) / mask.sum(dim=1)).sum(dim=0)
        return total / len(texts.counts)

    def _likelihood(self, inner: InnerTraining, rows: Sequence[Row], source: Texts) -> Likelihood:
        groups = [[self._encoded(inner, row[source.text])] for row in rows]
        return likelihood(inner.model, groups, inner, self.place.microbatch)

    def _encoded(self, inner: InnerTraining, text: str) -> Encoded:
        """The text with a token after it, which is not read: hidden states are of every token of the text."""
        from tasks._likelihood import positions_of

        most = positions_of(inner.model)  # with the token before it and without the one after
        limit = [each for each in (self.spec.max_tokens, None if most is None else most - 1) if each is not None]
        ids, scored = encode(inner.model, inner.tokenizer, "", text, min(limit, default=None))
        scored = scored if self.spec.positions == "all" else 1
        return [*ids, ids[-1]], scored


class _Projection(Bound):
    def __init__(self, texts: Likelihood, layer: str, direction: torch.Tensor) -> None:
        self.texts, self.layer, self.direction = texts, layer, direction

    def parts(self, params: Params) -> Iterator[torch.Tensor]:
        for hidden, scored, _ in self.texts.hidden(params, self.layer):
            along = hidden @ self.direction.to(hidden)
            yield means(along, scored).sum() / len(self.texts.counts)
