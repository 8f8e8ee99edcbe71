"""Numbers that lie are stopped, outputs that mean nothing are flagged."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError, Metric, SignalError
from harness.store.plain import plain_text, said, storable

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


NUDGE = 1e-3
"""Of a parameter's own size: how far the target is moved for a second look at a gradient that is zero."""


def check_metric(metric: Metric, model: torch.nn.Module, task: str) -> None:
    """Raises HarnessError where no parameter that trains has a gradient of the metric, neither as the target is nor a
    little beside that: a reward that differentiates it would have nothing to say."""
    import torch

    names = getattr(metric, "reads", None)
    generator = torch.Generator().manual_seed(0)
    for nudge in (0.0, NUDGE):
        leaves = {}
        for name, value in model.named_parameters():
            if names is None or name in names:
                leaf = value.detach().to(torch.promote_types(value.dtype, torch.float32), copy=True)
                if nudge and leaf.numel() > 1:
                    noise = torch.randn(leaf.shape, generator=generator, dtype=torch.float32).to(leaf)
                    leaf += nudge * leaf.std() * noise
                leaves[name] = leaf.requires_grad_(value.requires_grad)
        trained = [leaf for leaf in leaves.values() if leaf.requires_grad]
        with torch.enable_grad():
            value = metric(leaves)
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            raise HarnessError(f"The metric of {task} must be one number as a tensor, not {type(value).__name__}.")
        if trained and value.requires_grad:
            found = torch.autograd.grad(value.sum(), trained, allow_unused=True)
            if any(grad is not None and bool(grad.any()) for grad in found):
                return
    raise HarnessError(
        f"The metric of {task} has no gradient in any parameter that trains (an argmax or a rounding in it, a detach, "
        "or only frozen parameters); compute it from the parameters it is given with operations that have one."
    )


def check_advantages(advantages: torch.Tensor, zero_spread: float) -> None:
    """Raises SignalError where an advantage is NaN or infinite, or the finite rewards overflow on the way to it; and
    where all are zero though rewards differ within groups (`zero_spread` is not 1): the step would teach nothing."""
    bad = int((~advantages.isfinite()).sum())
    if bad:
        raise SignalError(
            f"{bad} of {advantages.numel()} advantages are not finite though the rewards are; their scale overflows, "
            "so let the reward return smaller numbers."
        )
    if zero_spread < 1 and not bool(advantages.any()):
        raise SignalError(
            f"all {advantages.numel()} advantages are 0 though the rewards differ: what they differ by is lost in "
            "float32 or beside grpo.advantage_eps, or their credits do not differ; set grpo.rescale=true, or let the "
            "reward return numbers near 1."
        )


def storable_labels(labels: Mapping[str, Any], count: int, shown: int) -> list[dict[str, Any]]:
    """The task's labels of the first `shown` of `count` rollouts as JSON data, one mapping a rollout. Raises
    SignalError for a column without an entry a rollout, and for what cannot be stored."""
    found: list[dict[str, Any]] = [{} for _ in range(shown)]
    for name, column in labels.items():
        odd = isinstance(column, Mapping | Set | str | bytes) or not hasattr(column, "__len__")
        if odd or len(column) != count:
            raise SignalError(f"the task's label {name!r} must have one entry for each of {count} rollouts, in order.")
        if name in ("step", "index", "text"):
            raise SignalError(f"the task's label {name!r} has the name of something else that is stored; rename it.")
        for index, row in enumerate(found):
            row[plain_text(str(name))] = storable(column[index], f"the task's label {name!r}")
    return found


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


def memory_advice(error: BaseException, settings: Settings) -> str | None:
    """What to do where the error means that memory ran out; None for any other error.

    No pass is halved behind the user's back: sums in another order differ in the last digits, so a smaller
    `grpo.microbatch` or `inner.microbatch` makes another cell, and the user chooses it. `inner.memory_budget` is no
    part of the identity though it does the same (a lower one recomputes what a higher one keeps, equal to rounding):
    it says what a machine has, not what is computed.
    """
    import traceback

    text = said(error)
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
