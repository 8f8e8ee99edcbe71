"""Numbers that lie are stopped, outputs that mean nothing are flagged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.contracts import SignalError

if TYPE_CHECKING:
    import torch

    from harness.settings.schema import Settings

FEW_DIFFERENT = 0.05
"""Of the validation rollouts, at most this share different: flagged as all but identical."""


def check_update(logs: Mapping[str, Any], model: torch.nn.Module) -> None:
    """After the updates of a step. Raises SignalError for a loss, gradient or weight that is NaN or infinite."""
    import torch

    for name in ("loss", "grad_norm"):
        value = logs.get(name)
        if value is not None and not math.isfinite(value):
            raise SignalError(f"the generator's {name} is {value}; lower grpo.lr, or see which reward is that large.")
    bad = [name for name, weight in model.named_parameters() if not torch.isfinite(weight).all()]
    if bad:
        more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        raise SignalError(f"the generator's weights {bad[0]}{more} are not finite; lower grpo.lr.")


def check_advantages(advantages: torch.Tensor) -> None:
    """Raises SignalError where an advantage is NaN or infinite, or the finite rewards overflow on the way to it."""
    bad = int((~advantages.isfinite()).sum())
    if bad:
        raise SignalError(
            f"{bad} of {advantages.numel()} advantages are not finite though the rewards are; their scale overflows, "
            "so let the reward return smaller numbers."
        )


def finite_values(values: Mapping[str, float], headline: str) -> tuple[dict[str, float], list[str]]:
    """(what can be stored, flags for what is NaN or infinite). Raises SignalError where the headline is."""
    if not math.isfinite(values[headline]):
        raise SignalError(f"the task's measure {headline} is {values[headline]} on the validation rollouts.")
    kept = {name: value for name, value in values.items() if math.isfinite(value)}
    return kept, [f"{name} is {values[name]}" for name in values if name not in kept]


def flags(rollouts: Sequence[str]) -> list[str]:
    """What is wrong with a set of rollouts as texts: half of them empty, or (almost) all the same."""
    count = len(rollouts)
    empty = sum(not text.strip() for text in rollouts)
    different = len(set(rollouts))
    if 2 * empty >= count:
        return [f"{empty} of {count} rollouts are empty"]
    if count > 1 and different <= max(1, FEW_DIFFERENT * count):
        return [f"{count} rollouts are only {different} different texts"]
    return []


def memory_advice(error: Exception, settings: Settings) -> str | None:
    """What to do where the error means that memory ran out; None for any other error.

    No pass is halved behind the user's back: sums in another order differ in the last digits, so a smaller
    `grpo.microbatch` or `inner.microbatch` makes another cell, and the user chooses it. `inner.memory_budget` is no
    part of the identity though it does the same (a lower one recomputes what a higher one keeps, equal to rounding):
    it says what a machine has, not what is computed.
    """
    import traceback

    text = str(error)
    if not (isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "allocate memory" in text):
        return None
    names = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
    size = settings.grpo.backward_size()
    if "_generate" in names or "generate" in names:
        what = "while generating; set a lower grpo.prompts_per_step or generator.max_completion_tokens"
    elif "_calculate_rewards" in names or "evaluate" in names:
        what = (
            "in the target's training; set a lower inner.memory_budget (the same cell, --retry-failed resumes it) "
            "or a lower inner.microbatch"
        )
    elif size > 1:
        what = f"in the generator's backward pass over {size} rollouts; set grpo.microbatch={size // 2}"
    else:
        what = "in the generator's backward pass over one rollout; set a lower generator.max_completion_tokens"
    return f"out of memory {what}"
