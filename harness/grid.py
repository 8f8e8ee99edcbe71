"""The cross product tasks x rewards x variants x seeds, and where it executes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.planning.cells import CellPlan
from harness.settings.options import check_options
from harness.settings.profiles import Profile, resolve


def plan_grid(
    profile: Profile,
    tasks: Sequence[str],
    rewards: Sequence[str],
    seeds: Sequence[int],
    assignments: dict[str, Any],
    inner_steps: Sequence[int] = (),
) -> list[CellPlan]:
    """Every cell of the grid, in the order tasks, variants, rewards, seeds. Raises HarnessError for bad settings.

    With `inner_steps` every variant sees the settings' total number of examples, in inner batches of one size
    (Appendix E of the paper): the longest T has the settings' prompts a step and number of steps, a shorter one
    fewer prompts and more steps. Validation comes after as many examples and trains for the longest T, unless the
    settings name another.
    """
    check_options(profile, assignments, tasks, rewards)
    cells = []
    for task in tasks:
        for steps in inner_steps or [None]:
            for reward in rewards:
                settings = resolve(profile, task, reward, assignments)
                given, variant = dict(assignments), ""
                if steps is not None:
                    base, variant = settings.grpo, f"T={steps}"
                    longest = max(*inner_steps, settings.inner.steps)
                    prompts = max(1, base.prompts_per_step * steps // longest)
                    total = base.steps * base.prompts_per_step
                    updates = max(1, base.updates_per_step * prompts // base.prompts_per_step)
                    every = settings.validation.every * base.prompts_per_step
                    given |= {
                        "inner.steps": steps,
                        "grpo.prompts_per_step": prompts,
                        "grpo.updates_per_step": updates,
                        "grpo.steps": max(1, round(total / prompts)),
                        "validation.every": max(1, round(every / prompts)),
                        "validation.inner_steps": settings.validation.inner_steps or longest,
                    }
                    settings = resolve(profile, task, reward, given)
                cells += [CellPlan(profile.name, task, reward, seed, settings, variant, given) for seed in seeds]
    return cells
