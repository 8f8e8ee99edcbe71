"""What is known of a GRPO step when it is over: reported by the trainer, stored by the cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

TRAIN_MEASURES = {
    "reward_raw_mean": "",
    "reward_raw_std": "",
    "reward_scaled_mean": "",
    "reward_scaled_std": "",
    "zero_spread": "fraction",
    "empty_fraction": "fraction",
    "distinct_fraction": "fraction",
    "target_metric": "",
    "loss": "",
    "grad_norm": "",
    "entropy": "nats",
    "completion_tokens": "tokens",
    "clipped_tokens": "fraction",
    "seconds_generation": "s",
    "seconds_reward": "s",
    "seconds_update": "s",
}
"""What is stored of every step, in this order, with its unit. `target_metric` is there for rewards that log it, the
next five are TRL's averages over the step's updates, the rest comes from the step's rollouts and the clock."""


@dataclass(frozen=True)
class RolloutStats:
    """The rollouts of one step, of all ranks, and their rewards: as given (raw) and over their standard deviation."""

    rollouts: int
    reward_raw_mean: float
    reward_raw_std: float
    reward_scaled_mean: float
    reward_scaled_std: float
    zero_spread: float
    """Share of groups whose rewards are all equal."""
    empty_fraction: float
    distinct_fraction: float


@dataclass(frozen=True)
class StepReport:
    """One GRPO step, the `step`-th (from 1)."""

    step: int
    stats: RolloutStats
    logs: Mapping[str, Any]
    """What TRL logs, under its names."""
    seconds: Mapping[str, float]
    """Of the phases generation, reward and update."""

    def measures(self) -> dict[str, float]:
        """The known ones of TRAIN_MEASURES."""
        known = asdict(self.stats) | {f"seconds_{phase}": seconds for phase, seconds in self.seconds.items()}
        known |= {name: self.logs.get(name) for name in ("target_metric", "loss", "grad_norm", "entropy")}
        known["completion_tokens"] = self.logs.get("completions/mean_length")
        known["clipped_tokens"] = self.logs.get("clip_ratio/region_mean")
        return {name: float(known[name]) for name in TRAIN_MEASURES if known[name] is not None}
