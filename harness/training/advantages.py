"""From raw rewards to advantages: pure functions of tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any, Literal

import torch

from harness.contracts import Advantage, SignalError, completion_text

NO_SPREAD = 1e-6
"""Of the batch's deviation: what rewards of a group may differ by and still count as equal. A millionth of what the
rewards differ by elsewhere moves no weight."""


ORDINARY = 2.0**-400, 2.0**400
"""What rewards may differ by, at most and at least, so that squares of it are float64 numbers of full precision."""


def factor(values: torch.Tensor) -> float:
    """A power of two that brings values which are too large or too small to be squared to about 1, without rounding
    any; 1 for all others, and for values that are all equal."""
    spread, size = float(values.amax() - values.amin()), float(values.abs().amax())
    if not math.isfinite(size) or spread == 0 or ORDINARY[0] <= spread and size <= ORDINARY[1]:
        return 1.0
    return math.ldexp(1.0, -max(-1000, min(1000, math.frexp(size)[1])))


def moments(values: torch.Tensor) -> tuple[float, float]:
    """Mean and unbiased standard deviation, whatever the scale."""
    scale = factor(values)
    return float((values * scale).mean()) / scale, float((values * scale).std()) / scale


def rescale(raw: torch.Tensor) -> torch.Tensor:
    """Rewards (N,) divided by their unbiased standard deviation; all-equal rewards become zeros. Works in float64,
    since deviations near 1e-9 squared leave float32."""
    wide = raw.double()
    wide = wide * factor(wide)
    deviation = wide.std() if wide.numel() > 1 else wide.new_zeros(())
    return wide / deviation if deviation > 0 else torch.zeros_like(wide)


def advantages(
    rewards: torch.Tensor, group_size: int, kind: Advantage, eps: float, scale: Literal["group", "batch"] = "group"
) -> torch.Tensor:
    """(r - mean) / (std + eps), (N,): within each group of `group_size` neighbours, or over the whole batch.

    `scale` "batch" takes the deviation of the whole batch for either: groups in which nothing much differs then weigh
    little, while the paper's scaling by each group's own blows their noise up to full size. The deviation is
    unbiased, as in TRL and in verl, whose defaults the paper takes (Appendix E).
    """
    power = factor(rewards)
    rewards, eps = rewards * power, eps * power
    groups = rewards.view(-1, group_size) if kind == "group" else rewards.view(1, -1)
    centred = groups - groups.mean(dim=1, keepdim=True)
    deviation = groups.std(dim=1, keepdim=True) if scale == "group" else rewards.std()
    return (centred / (deviation + eps)).view(-1)


def zero_spread(rewards: torch.Tensor, group_size: int) -> float:
    """Share of groups with nothing to learn from: (rescaled) rewards equal up to `NO_SPREAD`."""
    groups = rewards.view(-1, group_size)
    return float((groups.amax(1) - groups.amin(1) <= NO_SPREAD).double().mean())


def check_rewards(name: str, values: Any, completions: Sequence[Any]) -> list[float]:
    """`values` as floats. Raises SignalError for what is no list of numbers (of a mapping only the keys would be read,
    a set has no order), naming the completions whose reward is missing, NaN or infinite."""
    if isinstance(values, Mapping | Set | str | bytes):
        raise SignalError(f"The reward '{name}' must return a list of numbers, not a {type(values).__name__}.")
    try:
        values = list(values)
        if texts := [value for value in values if isinstance(value, str | bytes | bytearray)]:
            raise TypeError(f"{texts[0][:40]!r} is no number")
        values = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise SignalError(f"The reward '{name}' must return a list of numbers ({error}).") from error
    if len(values) != len(completions):
        raise SignalError(f"The reward '{name}' returned {len(values)} numbers for {len(completions)} completions.")
    bad = [i for i, value in enumerate(values) if not math.isfinite(value)]
    if bad:
        shown = "; ".join(f"#{i} {values[i]} for {completion_text(completions[i])[:60]!r}" for i in bad[:3])
        raise SignalError(f"The reward '{name}' is not finite for {len(bad)} of {len(values)} completions: {shown}.")
    return values
