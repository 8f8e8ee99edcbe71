"""The cross product tasks x rewards x variants x seeds: every cell of a grid, its settings resolved. Nothing is loaded.

Where the cells then run is said in harness/workers/executor.py; what one of them does, in harness/cell.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.planning.cells import Cell, said_contacts
from harness.settings.options import check_options
from harness.settings.profiles import Profile, resolve
from harness.settings.schema import Settings


def cross_product(
    profile: Profile,
    tasks: Sequence[str],
    rewards: Sequence[str],
    seeds: Sequence[int],
    assignments: dict[str, Any],
    inner_steps: Sequence[int] = (),
) -> list[Cell]:
    """Every cell of the grid, in the order tasks, variants, rewards, seeds. Each of `inner_steps` (T) is a variant;
    without any there is one, with the settings as they are. `assignments` are the user's own: a contact that they ask
    for is allowed. Raises HarnessError for bad settings."""
    check_options(profile, assignments, tasks, rewards)
    cells = []
    for task in tasks:
        for steps in inner_steps or [None]:
            for reward in rewards:
                settings, given, variant = resolve(profile, task, reward, assignments), dict(assignments), ""
                if steps is not None:
                    given |= at_equal_examples(settings, steps, max(*inner_steps, settings.inner.steps))
                    settings, variant = resolve(profile, task, reward, given), f"T={steps}"
                allowed = said_contacts(task, reward, assignments)
                cells += [Cell(profile.name, task, reward, seed, settings, variant, given, allowed) for seed in seeds]
    return cells


def at_equal_examples(settings: Settings, steps: int, longest: int) -> dict[str, Any]:
    """What a variant of `steps` inner steps sets, so that every variant sees the settings' total number of examples, in
    inner batches of one size (Appendix E of the paper).

    The `longest` T has the settings' prompts a step and number of steps, a shorter one fewer prompts and more steps.
    Validation comes after as many examples and trains for the longest T, unless the settings name another.
    """
    grpo, validation = settings.grpo, settings.validation
    prompts = max(1, grpo.prompts_per_step * steps // longest)
    return {
        "inner.steps": steps,
        "grpo.prompts_per_step": prompts,
        "grpo.updates_per_step": max(1, grpo.updates_per_step * prompts // grpo.prompts_per_step),
        "grpo.steps": max(1, round(grpo.steps * grpo.prompts_per_step / prompts)),
        "validation.every": max(1, round(validation.every * grpo.prompts_per_step / prompts)),
        "validation.inner_steps": validation.inner_steps or longest,
    }
