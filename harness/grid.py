"""The cross product tasks x rewards x variants x seeds: every cell of a grid, its settings resolved. Nothing is loaded.

Where the cells then run is said in harness/workers/executor.py; what one of them does, in harness/cell.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

from harness.planning.cells import Cell, said_contacts
from harness.settings.options import check_options
from harness.settings.profiles import Profile, resolve
from harness.settings.schema import Settings
from harness.settings.variants import QUICK, combinations


def cross_product(
    profile: Profile,
    tasks: Sequence[str],
    rewards: Sequence[str],
    seeds: Sequence[int],
    assignments: dict[str, Any],
    inner_steps: Sequence[int] = (),
    quick: bool = False,
) -> list[Cell]:
    """Every cell of the grid, in the order tasks, variants, rewards, seeds. Each of `inner_steps` (T) is a variant, and
    so is each combination of assignments that have several values (harness/settings/variants.py); without any there is
    one, with the settings as they are. `quick`: with much less work, each a variant called so. `assignments` are the
    user's own: a contact that they ask for is allowed. Raises HarnessError for bad settings."""
    check_options(profile, assignments, tasks, rewards)
    cells = []
    for task, (label, chosen), steps, reward in product(
        tasks, combinations(assignments), inner_steps or [None], rewards
    ):
        settings, given, variant = resolve(profile, task, reward, chosen), dict(chosen), ""
        if quick:
            given = little_work(settings, max([0, *inner_steps])) | given
            settings, variant = resolve(profile, task, reward, given), QUICK
        if steps is not None:
            given |= at_equal_examples(settings, steps, max(*inner_steps, settings.inner.steps))
            settings = resolve(profile, task, reward, given)
            variant = ", ".join(filter(None, (variant, f"T={steps}")))
        allowed = said_contacts(task, reward, chosen)
        cells += [
            Cell(profile.name, task, reward, seed, settings, variant, given, label, allowed=allowed) for seed in seeds
        ]
    return cells


QUICK_STEPS, QUICK_PROMPTS = 3, 16
"""GRPO steps, and prompts of a step and of a validation, of a quick run; more prompts where the inner training needs a
text for each of its steps."""


def little_work(settings: Settings, longest: int = 0) -> dict[str, Any]:
    """What a quick run sets: everything happens, a few times and with few texts. `longest`: the largest T of the grid.
    Numbers differ, so cells have other identities."""
    grpo, inner, validation = settings.grpo, settings.inner, settings.validation
    texts = max(QUICK_PROMPTS, inner.steps, inner.warmup_steps, validation.inner_steps or 0, longest)
    prompts = min(grpo.prompts_per_step, texts)
    rollouts = prompts * grpo.rollouts_per_prompt
    most = max(1, grpo.updates_per_step * prompts // grpo.prompts_per_step)
    return {
        "grpo.steps": min(grpo.steps, QUICK_STEPS),
        "grpo.prompts_per_step": prompts,
        "grpo.updates_per_step": next(count for count in range(most, 0, -1) if rollouts % count == 0),
        "validation.prompts": min(validation.prompts, texts),
    }


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
        "validation.every": max(1, round(validation.every * grpo.prompts_per_step / prompts))
        if validation.scaled
        else validation.every,
        "validation.inner_steps": validation.inner_steps or longest,
    }
