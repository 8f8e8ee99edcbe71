"""The naive signal: the trained target's metric itself, the same for every rollout of its training set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.contracts import Needs, RewardContext, RewardFunction
from harness.registry import register_reward
from rewards._shared import given, ranks, text_reward


@register_reward(
    "naive",
    needs=Needs(metric=True),
    advantage="batch",
    summary="target metric after inner training, broadcast to the whole training set",
)
def make(context: RewardContext) -> RewardFunction:
    """Phi(theta_T), broadcast to the examples of its training set (PAPER.md, Method).

    Rollout k of every prompt trains target k, whatever `context.cross_group` says: with one training set for all
    rollouts all rewards would be equal. Inside a group only rollouts of different sets differ, so advantages are
    taken over the whole batch.
    """
    inner = given(context.load_inner, "naive", "load_inner")()
    metric = context.task.metric(inner)

    def score(texts: list[str]) -> Sequence[float]:
        import torch

        rewards: list[Any] = [None] * len(texts)
        for members in ranks(len(texts), context.num_generations, "naive"):
            trained = inner.train([texts[i] for i in members])
            with torch.no_grad():
                value = float(metric(trained))
            for i in members:
                rewards[i] = value
        return rewards

    return text_reward("naive", score)
