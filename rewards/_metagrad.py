"""Rewards that train the target on the rollouts: what they share, and the metagradient among them (section 3.1).

The metagradient reward is tau_i = dPhi(theta_T)/dw_i at w = 1: what Phi would gain if the training leaned a little more
on rollout i. With cross-group batching all rollouts of the call form one training set; without it rollout k of every
prompt forms training set k.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from harness.contracts import (
    CreditCharacters,
    HarnessError,
    InnerTraining,
    LogMetric,
    Metric,
    RewardContext,
    RewardFunction,
    Training,
    completion_text,
)
from rewards._shared import given

if TYPE_CHECKING:
    import torch

FAMILIES = {"adam": ("adamw", "adam"), "sgd": ("sgd",)}
"""Reward family -> names of InnerOptimizer that belong to it, the default first."""

METAGRADIENT_OPTIONS = {
    "credit": "text: a rollout's tokens share its reward (text, as the authors); token: each has its own part "
    "of the sum",
    "scale": "what metagradients are multiplied by; the authors' come out microbatch times as large, 8 for Llama and "
    "128 for GPT-2 (1)",
    "standardise_steps": "rewards minus the mean of their inner step, over its deviation; the authors do not (false)",
}
"""Options (`reward.options`) of every metagradient reward."""
METAGRADIENT_TRAINING = Training(metagradient=True)

OfOneSet = tuple[float, list[float], list[list[float]] | None]
"""(Phi(theta_T), one reward a text, what its characters earned of it where that is known)."""
OneSet = Callable[[InnerTraining, Metric, list[str]], OfOneSet]
"""(inner, metric, the texts of one training set) -> what came of it."""


CREDITS = ("text", "token")


def metagradient_reward(
    context: RewardContext, name: str, family: str, *, standardise: bool, credit: str, scale: float = 1.0
) -> RewardFunction:
    """The reward `name`: one raw metagradient weight a completion.

    The optimizer and its settings come with `context.load_inner()`; where its name is of another family, only the name
    is changed. An empty completion has no loss and cannot move the target: its weight is 0, which is the derivative,
    not a stand-in; so are all weights of a training set of empty ones.

    Which inner step trains on a text is chance, and steps differ in what any text is worth there. With `standardise` a
    reward is compared with those of its own step alone: a baseline that the text has no part in but for its own share
    of the mean. At T = 1 it changes nothing that the runner's scaling would not.

    A metagradient is the sum of its text's tokens' own, which cost little more. With `credit` "token" they go to whom
    the caller names in `credit_characters` (harness/training/credit.py), the rewards being the same.

    `scale` multiplies them all. It matters where rewards are not divided by their deviation first: the authors' epsilon
    beside it (`grpo.advantage_eps`) then outweighs rewards that are small.
    """
    per_token = credit == "token"

    def one_set(inner: InnerTraining, metric: Metric, texts: list[str]) -> OfOneSet:
        if not any(texts):
            return untrained_value(inner, metric), [0.0] * len(texts), [[0.0] * len(text) for text in texts]
        result = inner.metagradient(texts, metric, per_token=per_token)
        weights, scales = result.weights * scale if scale != 1 else result.weights, [scale] * len(texts)
        if standardise:
            weights, over = standardised(weights, inner.steps_of(len(texts)))
            scales = (over * scale).tolist()
        credits = None
        if result.tokens is not None:
            credits = [
                [scale * value for value in inner.spread(text, own.tolist())]
                for text, own, scale in zip(texts, result.tokens, scales, strict=True)
            ]
        return float(result.value), weights.tolist(), credits

    inner = of_family(given(context.load_inner, name, "load_inner")(), family)
    return training_reward(context, name, inner, one_set, METAGRADIENT_TRAINING)


def standardised(weights: torch.Tensor, steps: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """((N,) weights less the mean of their step, over its standard deviation; (N,) one over that deviation). A step
    without spread gives 0 for both."""
    import torch

    where = torch.tensor(steps, device=weights.device)
    count = torch.bincount(where).to(weights)
    sums = lambda values: torch.zeros_like(count).index_add_(0, where, values)
    centred = weights - (sums(weights) / count)[where]
    deviation = (sums(centred.square()) / count).sqrt()[where]
    scales = torch.where(deviation > 0, 1 / deviation, torch.zeros_like(deviation))
    return centred * scales, scales


def training_reward(
    context: RewardContext, name: str, inner: InnerTraining, one_set: OneSet, training: Training
) -> RewardFunction:
    """TRL's reward callable: splits the rollouts into training sets as `training` declares, asks `one_set` about each,
    and puts the rewards back into the order of the rollouts. Where the caller passes TRL's `log_metric`, the mean of
    Phi(theta_T) over the sets is logged as `target_metric`; where it passes `credit_characters`, that is told the
    characters' parts."""
    metric = context.task.metric(inner)

    def reward(
        prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float]:
        texts = [completion_text(completion) for completion in completions]
        one = training.sets(context.cross_group, context.num_generations) == 1
        sets = [range(len(texts))] if one else separate_sets(len(texts), context.num_generations, name)
        rewards, values = [float("nan")] * len(texts), []
        credits: dict[int, list[float]] = {}
        for members in sets:
            value, found, characters = one_set(inner, metric, [texts[i] for i in members])
            values.append(value)
            for i, own in zip(members, found, strict=True):
                rewards[i] = float(own)
            credits |= dict(zip(members, characters, strict=True)) if characters is not None else {}
        credit_characters: CreditCharacters | None = columns.get("credit_characters")
        log_metric: LogMetric | None = columns.get("log_metric")
        if credits and credit_characters is not None:
            credit_characters([credits[i] for i in range(len(texts))])
        if log_metric is not None:
            log_metric("target_metric", sum(values) / len(values))
        return rewards

    reward.__name__ = reward.__qualname__ = name
    return reward


def separate_sets(count: int, num_generations: int, reward: str) -> list[range]:
    """Training sets without cross-group batching: rollout k of every prompt is in set k (Appendix B, Figure 6).

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
