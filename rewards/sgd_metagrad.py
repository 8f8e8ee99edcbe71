"""Metagradients through plain SGD: the paper's ablation of the inner optimizer."""

from __future__ import annotations

from harness.contracts import Needs, RewardContext, RewardFunction
from harness.registry import register_reward
from rewards._metagrad import CREDITS, METAGRADIENT_OPTIONS, METAGRADIENT_TRAINING, metagradient_reward
from rewards._shared import choice, flag, positive


@register_reward(
    "sgd_metagrad",
    needs=Needs(metric=True),
    advantage="group",
    summary="metagradient of the target metric through inner training with SGD",
    options=METAGRADIENT_OPTIONS,
    training=METAGRADIENT_TRAINING,
)
def make(context: RewardContext) -> RewardFunction:
    standardise, credit = flag(context, "standardise_steps"), choice(context, "credit", CREDITS)
    scale = positive(context, "scale", 1.0)
    return metagradient_reward(context, "sgd_metagrad", "sgd", standardise=standardise, credit=credit, scale=scale)
