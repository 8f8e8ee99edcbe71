"""What the reward files share: reading completions, resolving what the context offers, naming the function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.contracts import HarnessError, RewardContext, RewardFunction, completion_text


def text_reward(name: str, score: Callable[[list[str]], Sequence[float]]) -> RewardFunction:
    """TRL's reward callable around a function of the completions' texts: (N texts) -> N values.

    Strings and conversational completions are both read; prompts, token ids and further columns are ignored. TRL logs
    a reward under its `__name__`, which is set to the registered name.
    """

    def reward(
        prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], **columns: Any
    ) -> list[float]:
        return [float(value) for value in score([completion_text(completion) for completion in completions])]

    reward.__name__ = reward.__qualname__ = name
    return reward


def references(context: RewardContext, reward: str) -> list[str]:
    """The task's reference texts. Raises HarnessError if there are none."""
    texts = context.task.references()
    if not texts:
        raise HarnessError(
            f"The reward {reward} compares with reference texts, and the task has none; check data.references."
        )
    return texts


def asset(context: RewardContext, reward: str, option: str, default: str) -> Path:
    """The local path of the asset that `reward.options.<option>` names. Raises HarnessError if it is no text."""
    ref = context.options.get(option, default)
    if not isinstance(ref, str):
        raise HarnessError(f"reward.options.{option} must name an asset (a path or a hub id), not {ref!r}.")
    return given(context.asset, reward, "asset")(ref)


def given(value: Callable[..., Any] | None, reward: str, field: str) -> Callable[..., Any]:
    """The context's callable. Raises HarnessError if the context was made without it."""
    if value is None:
        raise HarnessError(f"The reward {reward} needs RewardContext.{field}; give it when you make the context.")
    return value


def choice(context: RewardContext, option: str, choices: Sequence[str]) -> str:
    """One of `choices` among `reward.options`, the first where it is not set. Raises HarnessError for anything else."""
    value = context.options.get(option, choices[0])
    if value not in choices:
        raise HarnessError(f"reward.options.{option} must be one of {', '.join(choices)}, not {value!r}.")
    return value


def positive(context: RewardContext, option: str, default: float) -> float:
    """A number above 0 among `reward.options`. Raises HarnessError for anything else."""
    value = context.options.get(option, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
        raise HarnessError(f"reward.options.{option} must be a number above 0, not {str(value)[:80]!r}.")
    return float(value)


def flag(context: RewardContext, option: str) -> bool:
    """A truth value among `reward.options`, false where it is not set. Raises HarnessError for anything else."""
    value = context.options.get(option, False)
    if not isinstance(value, bool):
        raise HarnessError(f"reward.options.{option} must be true or false, not {value!r}.")
    return value
