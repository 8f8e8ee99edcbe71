"""Rewards that train the target on the rollouts: what they share, and the metagradient among them (PAPER.md, Method).

The metagradient reward is tau_i = dPhi(theta_T)/dw_i at w = 1: what Phi would gain if the training leaned a little more
on rollout i. With cross-group batching all rollouts of the call form one training set; without it rollout k of every
prompt forms training set k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError, InnerTraining, Metric, RewardContext, RewardFunction, completion_text
from rewards._shared import given

if TYPE_CHECKING:
    import torch

FAMILIES = {"adam": ("adamw", "adam"), "sgd": ("sgd",)}
"""Reward family -> names of InnerOptimizer that belong to it, the default first."""

METAGRADIENT_OPTIONS = {
    "standardise_steps": "rewards minus the mean of their inner step, over its deviation; the authors do not (false)"
}
"""Options (`reward.options`) of every metagradient reward."""

OneSet = Callable[[InnerTraining, Metric, list[str]], tuple[float, list[float]]]
"""(inner, metric, the texts of one training set, not all empty) -> (Phi(theta_T), one reward a text)."""


def metagradient_reward(context: RewardContext, name: str, family: str, *, standardise: bool) -> RewardFunction:
    """The reward `name`: one raw metagradient weight a completion.

    The optimizer and its settings come with `context.load_inner()`; where its name is of another family, only the name
    is changed. An empty completion has no loss and cannot move the target: its weight is 0, which is the derivative,
    not a stand-in; so are all weights of a training set of empty ones.

    Which inner step trains on a text is chance, and steps differ in what any text is worth there. With `standardise` a
    reward is compared with those of its own step alone: a baseline that the text has no part in but for its own share
    of the mean. At T = 1 it changes nothing that the runner's scaling would not.
    """

    def one_set(inner: InnerTraining, metric: Metric, texts: list[str]) -> tuple[float, list[float]]:
        if not any(texts):
            return untrained_value(inner, metric), [0.0] * len(texts)
        result = inner.metagradient(texts, metric)
        weights = result.weights
        if standardise:
            weights = standardised(weights, inner.steps_of(len(texts)))
        return float(result.value), weights.tolist()

    inner = of_family(given(context.load_inner, name, "load_inner")(), family)
    return training_reward(context, name, inner, one_set, cross_group=context.cross_group)


def standardised(weights: torch.Tensor, steps: Sequence[int]) -> torch.Tensor:
    """(N,) weights less the mean of their step, over its standard deviation; a step without spread gives 0."""
    import torch

    where = torch.tensor(steps, device=weights.device)
    count = torch.bincount(where).to(weights)
    sums = lambda values: torch.zeros_like(count).index_add_(0, where, values)
    centred = weights - (sums(weights) / count)[where]
    deviation = (sums(centred.square()) / count).sqrt()[where]
    return torch.where(deviation > 0, centred / deviation, torch.zeros_like(centred))


def training_reward(
    context: RewardContext, name: str, inner: InnerTraining, one_set: OneSet, *, cross_group: bool
) -> RewardFunction:
    """TRL's reward callable: splits the rollouts into training sets, asks `one_set` about each, and puts the rewards
    back into the order of the rollouts. Where the caller passes TRL's `log_metric`, the mean of Phi(theta_T) over the
    sets is logged as `target_metric`."""
    metric = context.task.metric(inner)

    def reward(
        prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float]:
        texts = [completion_text(completion) for completion in completions]
        sets = [range(len(texts))] if cross_group else ranks(len(texts), context.num_generations, name)
        rewards = [float("nan")] * len(texts)
        values = []
        for members in sets:
            value, found = one_set(inner, metric, [texts[i] for i in members])
            values.append(value)
            for i, one in zip(members, found, strict=True):
                rewards[i] = float(one)
        if "log_metric" in columns:
            columns["log_metric"]("target_metric", sum(values) / len(values))
        return rewards

    reward.__name__ = reward.__qualname__ = name
    return reward


def ranks(count: int, num_generations: int, reward: str) -> list[range]:
    """Training sets without cross-group batching: rollout k of every prompt is in set k (PAPER.md, Method).

    Rollouts of a prompt are neighbours, so set k holds positions k, k + G, k + 2G, ... of the `count` rollouts.
    Raises HarnessError if `count` is no multiple of G.
    """
    if count % num_generations:
        raise HarnessError(
            f"The reward {reward} got {count} rollouts, which is no multiple of num_generations={num_generations}; "
            "hand it whole groups."
        )
    return [range(k, count, num_generations) for k in range(num_generations)]


def untrained_value(inner: InnerTraining, metric: Metric) -> float:
    """Phi of the target as it comes."""
    import torch

    with torch.no_grad():
        return float(metric(dict(inner.model.named_parameters())))


def of_family(inner: InnerTraining, family: str) -> InnerTraining:
    """`inner` itself if its optimizer is of the family, else the same target trained by the family's default."""
    names = FAMILIES[family]
    return inner if inner.optimizer.name in names else inner.with_optimizer(name=names[0])
