"""What can go wrong, each with its own name; the message says what to do."""

from __future__ import annotations


class MetagradientError(Exception):
    """Any failure of this package."""


class NonFiniteError(MetagradientError):
    """A loss, gradient, adjoint or metric is NaN or infinite. `step` is None where it is the metric.

    step      the 0-based optimizer step, or None
    examples  positions in that step's batch of the examples at fault, empty where no single one is
    """

    def __init__(self, message: str, *, step: int | None = None, examples: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.step, self.examples = step, examples


class MetricError(MetagradientError):
    """The metric does not depend on any parameter that trains, or is no differentiable scalar."""


class NoScoredTokensError(MetagradientError):
    """A batch has no label other than -100 after the shift, so its loss is undefined."""


class SecondDerivativeError(MetagradientError):
    """The model uses an operation (as a rule a fused attention kernel) that cannot be differentiated twice."""


class MemoryBudgetError(MetagradientError):
    """`memory_budget` is below the least that any strategy needs."""


class BatchError(MetagradientError):
    """A batch is not what the contract asks for (keys, shapes, dtypes)."""
