"""Lower the norm of the LM head by nothing but training texts (section 4.3 of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.contracts import Evaluation, Headline, InnerTraining, Measure, Metric, MetricOf, Offers, TaskContext
from harness.registry import register_task
from tasks._figures import PIXELS_AND_NORM
from tasks._head import head_parameter
from tasks._texts import TEXT_KEYS, TEXT_MEASURES, text_values

if TYPE_CHECKING:
    import torch


@register_task("norm")
class Norm:
    """Phi = -||W_head||, Frobenius norm of the whole head, (vocab, hidden); no options.

    With a tied head that is the norm of the embeddings, which training moves from both sides.
    """

    name = "norm"
    summary = "lower the norm of the target's LM head: do the texts shrink the weights of a model trained on them?"
    offers = Offers(references=False, metric=True)
    options: Mapping[str, str] = {}
    headline = Headline("norm_change", "", "lower", "head norm after training on the rollouts minus the norm before")
    measures: tuple[Measure, ...] = (
        Measure("norm_change_relative", "fraction", "lower", "norm_change over the norm before"),
        Measure("norm_before", "", None, "Frobenius norm of the untrained target's head"),
        Measure("norm_after", "", "lower", "Frobenius norm of the head after training on the rollouts"),
        *TEXT_MEASURES,
    )

    follows_rate = True
    reads_head_alone = True
    key_measures = ("norm_change_relative", *TEXT_KEYS)
    figure = PIXELS_AND_NORM

    def __init__(self, context: TaskContext) -> None:
        pass

    def references(self) -> list[str]:
        return []

    def metric(self, inner: InnerTraining) -> Metric:
        """(params) -> minus the head's Frobenius norm, a scalar in the head's dtype."""
        name = head_parameter(inner.model)

        def phi(params: Mapping[str, torch.Tensor]) -> torch.Tensor:
            return -params[name].norm()

        return MetricOf((name,), phi)

    def evaluate(self, rollouts: Sequence[str], inner: InnerTraining) -> Evaluation:
        """Train a fresh target on the rollouts and compare norms, summed in float64: the change is small beside the
        norm. Raises ValueError for no rollouts."""
        texts = text_values(rollouts)
        name = head_parameter(inner.model)
        before = float(dict(inner.model.named_parameters())[name].detach().double().norm())
        after = float(inner.train(rollouts, only=(name,))[name].detach().double().norm())
        change = after - before
        values = {
            "norm_change": change,
            "norm_change_relative": change / before,
            "norm_before": before,
            "norm_after": after,
            **texts,
        }
        return Evaluation(values=values)
