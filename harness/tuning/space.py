"""What is tried: for every reward as many trials over a range as wide, so that no signal is tuned better than another.

By default the axis is the learning rate that a signal's strength depends on: the inner training's where the reward
trains a target, the generator's where it does not, and where the task's headline grows with the inner rate by itself.
The values double from one trial to the next, as in the paper (Appendix E), with what the profile sets in their middle.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from harness.contracts import HarnessError, unknown
from harness.registry import REWARDS, TASKS
from harness.settings.profiles import RATE, TOTAL_RATE
from harness.settings.schema import Settings, known_keys

GENERATOR_RATE = "grpo.lr"
DOUBLING = 2.0
DIGITS = 6
"""Significant digits of a tried value."""
MOST_TRIALS = 1000


@dataclass(frozen=True)
class Axis:
    """A setting and the values of it that are tried, ascending."""

    key: str
    values: tuple[float, ...]


def parse_axis(text: str) -> Axis:
    """`KEY=START..END:xN` -> the values from START on, each N times the one before, as far as END; `:xN` may be left
    out and is then `:x2`. Raises HarnessError."""
    key, _, said = (part.strip() for part in text.partition("="))
    first, dots, rest = said.partition("..")
    last, colon, times = rest.partition(":x")
    if not (key and dots and first and last) or (colon and not times):
        raise HarnessError(f"--space takes KEY=START..END:xN (as in grpo.lr=1e-5..1e-3:x2), not '{text[:80]}'.")
    if key not in known_keys():
        raise HarnessError(unknown("setting", key[:80], list(known_keys())))
    try:
        start, end, factor = float(first), float(last), float(times or DOUBLING)
    except ValueError as error:
        raise HarnessError(f"--space {key} takes numbers, as in 1e-5..1e-3:x2, not '{said[:80]}'.") from error
    if not (0 < start <= end < math.inf and 1 < factor < math.inf):
        raise HarnessError(f"--space {key} takes 0 < START <= END and a factor above 1, not '{said[:80]}'.")
    count = math.floor((math.log(end) - math.log(start)) / math.log(factor) + 1e-9) + 1
    if count > MOST_TRIALS:
        raise HarnessError(f"--space {key} has {count:,} values, and at most {MOST_TRIALS:,} can be tried.")
    return Axis(key, tuple(_rounded(start * factor**place) for place in range(count)))


def default_axis(task: str, reward: str, settings: Settings, trials: int) -> Axis:
    """The learning rate of this pair: `trials` values that double, the settings' own one among them, in the middle."""
    optimizer = settings.inner.optimizer
    key, now = GENERATOR_RATE, settings.grpo.lr
    if REWARDS.get(reward).training and not TASKS.get(task).declares.follows_rate:
        key, now = (RATE, optimizer.lr) if optimizer.total_lr is None else (TOTAL_RATE, optimizer.total_lr)
    first = -((trials - 1) // 2)
    return Axis(key, tuple(_rounded(now * DOUBLING**place) for place in range(first, first + trials)))


def points(axes: Sequence[Axis], settings: Settings) -> list[dict[str, Any]]:
    """Every combination of the axes' values as assignments, in order. A setting that takes whole numbers gets them."""
    found = []
    for values in product(*(axis.values for axis in axes)):
        point = {axis.key: _of_kind(settings, axis.key, value) for axis, value in zip(axes, values, strict=True)}
        if point not in found:
            found.append(point)
    return found


def check_comparable(axes: Sequence[Axis], task: str) -> None:
    """Raises HarnessError for an axis along which the task's headlines do not compare."""
    for axis in axes:
        if axis.key in (RATE, TOTAL_RATE) and TASKS.get(task).declares.follows_rate:
            raise HarnessError(
                f"--space names {axis.key}, with which {task}'s headline grows whatever the texts are; tune "
                f"{GENERATOR_RATE} instead, which is the default there."
            )


def check_trials(axes: Sequence[Axis], trials: int) -> None:
    """Raises HarnessError where axes that were named have more combinations than `trials`."""
    count = math.prod(len(axis.values) for axis in axes)
    if count > trials:
        raise HarnessError(f"--space has {count:,} combinations, more than --trials {trials}; raise it or narrow them.")


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _of_kind(settings: Settings, key: str, value: float) -> float | int:
    now: Any = settings
    for part in key.split("."):
        now = getattr(now, part)
    if isinstance(now, bool) or not isinstance(now, int | float | None):
        raise HarnessError(f"--space names {key}, which is no number; name a setting that is one.")
    return round(value) if isinstance(now, int) else value
