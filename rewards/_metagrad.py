"""The metagradient reward (PAPER.md, Method): tau_i = dPhi(theta_T)/dw_i at w = 1, for whichever inner optimizer.

The target is trained on the rollouts themselves, and the reward of each is what Phi would gain if that training leaned
a little more on it. With cross-group batching all rollouts of the call form one training set; without it rollout k of
every prompt forms training set k.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.contracts import InnerTraining, RewardContext, RewardFunction, completion_text
from rewards._shared import given, ranks

FAMILIES = {"adam": ("adamw", "adam"), "sgd": ("sgd",)}
"""Reward family -> names of InnerOptimizer that belong to it, the default first."""


def metagradient_reward(context: RewardContext, name: str, family: str) -> RewardFunction:
    """The reward `name`; it loads the target at once and gives one raw metagradient weight a completion.

    The optimizer and its settings come with `context.load_inner()`; where its name is of another family, only the name
    is changed. A completion whose text has no scored token (an empty one) cannot move the target: its weight is 0,
    which is the derivative, not a stand-in. Where the caller passes TRL's `log_metric`, the mean of Phi(theta_T) over
    the training sets is logged as `target_metric`.
    """
    inner = of_family(given(context.load_inner, name, "load_inner")(), family)
    metric = context.task.metric(inner)

    def reward(
        prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float]:
        texts = [completion_text(completion) for completion in completions]
        sets = [range(len(texts))] if context.cross_group else ranks(len(texts), context.num_generations, name)
        rewards = [float("nan")] * len(texts)
        values = []
        for members in sets:
            result = inner.metagradient([texts[i] for i in members], metric)
            values.append(float(result.value))
            for i, weight in zip(members, result.weights.tolist(), strict=True):
                rewards[i] = weight
        if "log_metric" in columns:
            columns["log_metric"]("target_metric", sum(values) / len(values))
        return rewards

    reward.__name__ = reward.__qualname__ = name
    return reward


def of_family(inner: InnerTraining, family: str) -> InnerTraining:
    """`inner` itself if its optimizer is of the family, else the same target trained by the family's default."""
    names = FAMILIES[family]
    return inner if inner.optimizer.name in names else inner.with_optimizer(name=names[0])
