"""What is known of a GRPO step when it is over, reported by the trainer and stored by the cell; what its phases did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness.machine.devices import Device
from harness.planning.cost import Lengths, PhaseWork, step_work, validation_work
from harness.planning.shapes import Shape
from harness.settings.schema import Settings

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
class KeptRollout:
    """One rollout of a step, to be looked at."""

    index: int
    """Its place in the step's batch; neighbours share a prompt."""
    prompt: Any
    text: str
    finish: str
    """"stop" with an end-of-text token, "length" where it was cut."""
    reward_value: float
    """As the reward gave it."""
    advantage: float
    """What its tokens were trained with; their mean where each has its own."""


def places(count: int, keep: int | str) -> list[int]:
    """Which of `count` rollouts are kept: all, or `keep` of them, evenly spaced and of different ranks in their groups,
    since a reward may give all rollouts of a rank the same."""
    wanted = count if keep == "all" else min(int(keep), count)
    return [number * count // wanted + number % (count // wanted) for number in range(wanted)]


@dataclass(frozen=True)
class StepReport:
    """One GRPO step, the `step`-th (from 1)."""

    step: int
    stats: RolloutStats
    logs: Mapping[str, Any]
    """What TRL logs, under its names."""
    seconds: Mapping[str, float]
    """Of the phases generation, reward and update."""
    kept: Sequence[KeptRollout] = ()

    def measures(self) -> dict[str, float]:
        """The known ones of TRAIN_MEASURES."""
        known = asdict(self.stats) | {f"seconds_{phase}": seconds for phase, seconds in self.seconds.items()}
        known |= {name: self.logs.get(name) for name in ("target_metric", "loss", "grad_norm", "entropy")}
        known["completion_tokens"] = self.logs.get("completions/mean_length")
        known["clipped_tokens"] = self.logs.get("clip_ratio/region_mean")
        return {name: float(known[name]) for name in TRAIN_MEASURES if known[name] is not None}


@dataclass
class Meter:
    """Counts what a cell's phases did, by the plan's formulas (harness/planning/cost.py) with the tokens that were read
    and written: padding counts nothing, and a rollout has as many tokens for the target as for the generator.

    shapes       of generator and target
    device       what large matrix products reach here, with this cell's threads
    referred     mean tokens of the task's references, for what its metric reads
    held_out     mean tokens of a held-out prompt
    tokens_seen  by the generator in training so far: TRL's count
    """

    settings: Settings
    task: str
    reward: str
    shapes: tuple[Shape, Shape]
    device: Device
    referred: float | None
    held_out: float
    tokens_seen: int = 0

    def step(self, report: StepReport, warmed: bool) -> dict[str, PhaseWork]:
        """Of generation, reward and update. `warmed`: whether the reward's trainings had their warm-up."""
        seen, rollout = int(report.logs["num_tokens"]), report.logs["completions/mean_length"]
        prompt = (seen - self.tokens_seen) / report.stats.rollouts - rollout
        self.tokens_seen = seen
        return step_work(self.settings, self.task, self.reward, self.shapes, self._lengths(prompt, rollout), warmed)

    def validation(self, rollout: float) -> PhaseWork:
        """Of a validation with rollouts of that many tokens on average."""
        return validation_work(self.settings, self.task, self.shapes, self._lengths(self.held_out, rollout))

    def _lengths(self, prompt: float, rollout: float) -> Lengths:
        inner = self.settings.inner
        trained = inner.max_tokens if inner.trained_padding is not None else min(rollout, inner.max_tokens)
        return Lengths(prompt, rollout, trained, self.referred)
