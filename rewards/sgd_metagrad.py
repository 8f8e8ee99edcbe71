"""Metagradients through plain SGD: the paper's ablation of the inner optimizer."""

from __future__ import annotations

from harness.contracts import Needs, RewardContext, RewardFunction
from harness.registry import register_reward
from rewards._metagrad import METAGRADIENT_OPTIONS, metagradient_reward


@register_reward(
    "sgd_metagrad",
    needs=Needs(metric=True),
    advantage="group",
    summary="metagradient of the target metric through inner training with SGD",
    options=METAGRADIENT_OPTIONS,
)
def make(context: RewardContext) -> RewardFunction:
    return metagradient_reward(context, "sgd_metagrad", "sgd")
