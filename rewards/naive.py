"""The naive signal: the trained target's metric itself, the same for every rollout of its training set."""

from __future__ import annotations

from harness.contracts import InnerTraining, Metric, Needs, RewardContext, RewardFunction, Training
from harness.registry import register_reward
from rewards._metagrad import OfOneSet, training_reward, untrained_value
from rewards._shared import given

TRAINING = Training(metagradient=False, crosses_groups=False)


@register_reward(
    "naive",
    needs=Needs(metric=True),
    advantage="batch",
    summary="target metric after inner training, broadcast to the whole training set",
    options={},
    training=TRAINING,
    baseline=True,
)
def make(context: RewardContext) -> RewardFunction:
    """Phi(theta_T), broadcast to the examples of its training set (section 4 of the paper).

    Rollout k of every prompt trains target k, whatever `context.cross_group` says: with one training set for all
    rollouts all rewards would be equal. Inside a group only rollouts of different sets differ, so advantages are
    taken over the whole batch. A training set of empty rollouts trains nothing: its Phi is the untrained target's.
    """
    inner = given(context.load_inner, "naive", "load_inner")()
    return training_reward(context, "naive", inner, _one_set, TRAINING)


def _one_set(inner: InnerTraining, metric: Metric, texts: list[str]) -> OfOneSet:
    import torch

    if not any(texts):
        value = untrained_value(inner, metric)
    else:
        trained = inner.train(texts, only=getattr(metric, "reads", None))
        with torch.no_grad():
            value = float(metric(trained))
    return value, [value] * len(texts), None
