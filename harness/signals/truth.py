"""The truth that signals are measured against: Phi of targets that were really trained again, on part of the pool or
with other weights.

Everything is computed in float64, since leaving one text out moves Phi by less than float32 resolves. With T = 1 a
training is one gradient and one update, and the gradient of any part is a weighted sum of per-example gradients: those
are taken once, and each further training costs a matrix product and a metric. Before that is used, one training of all
texts is done both ways; where they differ (a loss that looks at its neighbours), every training is done in full.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from harness.contracts import Metric, Task
from harness.training.inner import InnerTrainer
from rewards.metagradient.errors import NoScoredTokensError
from rewards.metagradient.network import Layout
from rewards.metagradient.optimizer import updated

if TYPE_CHECKING:
    from torch import Tensor

MOST_BYTES = 2 << 30
"""Of per-example gradients; above it every training is done in full."""
BLOCK = 8
"""Trainings whose gradients are summed at once: the per-example gradients are read from memory once a block."""
AGREEMENT = 1e-7
"""Relative to how far a training moves the weights: float64 rounds the short way and the long otherwise."""


def in_float64(inner: InnerTrainer) -> InnerTrainer:
    """The same training of a float64 copy of the target."""
    return InnerTrainer(copy.deepcopy(inner.model).double(), inner.tokenizer, inner.settings, steps=inner.steps)


class Retraining:
    """Phi(theta_T) after training on the texts again.

    inner   a float64 trainer (`in_float64`)
    task    gives Phi
    texts   the pool, N of them
    known   the per-example gradients (N, P) where another optimizer's `one_step` has them already
    """

    def __init__(self, inner: InnerTrainer, task: Task, texts: Sequence[str], known: Tensor | None = None) -> None:
        self.inner, self.texts = inner, list(texts)
        self.metric: Metric = task.metric(inner)
        shared = known is not None and inner.steps == 1
        one_step = OneStep(inner, known) if shared else OneStep.of(inner, self.texts)
        self.one_step = one_step if one_step is not None and one_step.agrees(inner.train(self.texts)) else None

    def untrained(self) -> float:
        with torch.no_grad():
            return float(self.metric(dict(self.inner.model.named_parameters())))

    def subsets(self, parts: Sequence[Sequence[int]]) -> list[float]:
        """Phi after training on each part (indices into the texts) alone, with T steps and the mean over the part."""
        if self.one_step is not None:
            weights = torch.zeros(len(parts), len(self.texts), dtype=torch.float64)
            for row, part in zip(weights, parts, strict=True):
                row[list(part)] = len(self.texts) / len(part)
            return self.weighted(weights)
        return [self._value(self.inner.train([self.texts[i] for i in part])) for part in parts]

    def weighted(self, weights: Tensor) -> list[float]:
        """Phi after training on all texts with data weights (M, N): the loss is a metagradient's, mean_i w_i l_i."""
        if self.one_step is not None:
            return [self._value(params) for params in self.one_step.trained(weights)]
        return [self._value(self.inner.train(self.texts, weights=row)) for row in weights]

    def _value(self, params: dict[str, Tensor]) -> float:
        with torch.no_grad():
            return float(self.metric(params))


class OneStep:
    """Every training of one step on weighted texts, from the per-example gradients (N, P)."""

    def __init__(self, inner: InnerTrainer, gradients: Tensor) -> None:
        self.gradients = gradients
        self.layout, self.params = Layout(inner.model), dict(inner.model.named_parameters())
        self.rule = inner.rule().rule()
        self.theta = self.layout.flatten(self.params)

    @classmethod
    def of(cls, inner: InnerTrainer, texts: Sequence[str]) -> OneStep | None:
        """None for more than one step, a warm-up before it, or more bytes than `MOST_BYTES`."""
        layout = Layout(inner.model)
        theta = layout.flatten(dict(inner.model.named_parameters()))
        several = inner.steps != 1 or inner.settings.warmup_steps
        if several or len(texts) * theta.numel() * theta.element_size() > MOST_BYTES:
            return None
        gradients = theta.new_zeros(len(texts), theta.numel())
        plain = inner.with_optimizer(name="sgd", lr=1.0, momentum=0.0, weight_decay=0.0)
        for row, text in zip(gradients, texts, strict=True):
            try:
                row.copy_(theta - layout.flatten(plain.train([text])))  # one step of SGD at rate 1 is the gradient
            except NoScoredTokensError:
                pass  # an empty text counts in the mean and moves nothing
        return cls(inner, gradients)

    def trained(self, weights: Tensor) -> Iterator[dict[str, Tensor]]:
        """Yields theta_1 for every row of weights (M, N), keyed as the model's parameters."""
        weights = weights.to(self.gradients)
        for start in range(0, len(weights), BLOCK):
            for gradient in weights[start : start + BLOCK] @ self.gradients / len(self.gradients):
                theta, _ = updated(self.rule, 0, self.theta, self.rule.init(self.theta), gradient)
                yield self.params | self.layout.views(theta)

    def agrees(self, trained: dict[str, Tensor]) -> bool:
        """Whether a real training on all texts, which came to `trained`, gave what this class says."""
        (ours,) = self.trained(torch.ones(1, len(self.gradients), dtype=torch.float64))
        move = self.layout.flatten(trained) - self.theta
        off = self.layout.flatten(ours) - self.theta - move
        return bool(off.norm() <= AGREEMENT * move.norm())
