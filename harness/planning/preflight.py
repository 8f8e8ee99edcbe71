"""What would stop a cell later, found before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import assets
from harness.contracts import HarnessError
from harness.planning.cells import Cell, articles, make_task
from harness.registry import REWARDS, TASKS


def _check_task(cell: Cell) -> None:
    """Makes the task once: raises HarnessError for values of its options that it refuses."""
    try:
        make_task(cell)
    except HarnessError:
        raise
    except (Exception, SystemExit):  # a fault in a task's own code costs its own rows, and they say it
        pass


def _check_references(cell: Cell, seen: set[Any]) -> None:
    """Raises HarnessError where the task's own texts cannot be read; embedded ones are checked by hash."""
    ref, entry = cell.settings.data.references, TASKS.get(cell.task)
    if entry.factory.offers.references and not assets.is_embedded(ref) and ("references", ref) not in seen:
        seen.add(("references", ref))
        assets.texts(ref, split="train", language=entry.declares.language)


def _check_steps(cell: Cell) -> None:
    """Raises HarnessError where a training set, of a reward or of the validation, has fewer texts than inner steps."""
    grpo, inner, validation = cell.settings.grpo, cell.settings.inner, cell.settings.validation
    training = REWARDS.get(cell.reward).training
    trained = [(validation.prompts, validation.inner_steps or inner.steps, "validation.prompts")]
    if training:
        texts = grpo.rollouts_per_step // training.sets(inner.cross_group, grpo.rollouts_per_prompt)
        trained.append((texts, inner.steps, "grpo.prompts_per_step"))
    for texts, steps, setting in trained:
        if texts < max(steps, inner.warmup_steps):
            lower = "inner.steps" if steps > inner.warmup_steps else "inner.warmup_steps"
            if setting == "validation.prompts" and lower == "inner.steps" and validation.inner_steps:
                lower = "validation.inner_steps"
            raise HarnessError(
                f"{cell.task}/{cell.reward} would split training sets of {texts} texts into "
                f"{max(steps, inner.warmup_steps)} inner steps; raise {setting} or lower {lower}."
            )


def preflight(cells: Sequence[Cell], runs: Path) -> None:
    """Finds out now what would stop a cell later: missing assets, broken model folders, an unwritable folder. Raises
    HarnessError; nothing has been written then."""
    from harness.assets.models import check_model
    from harness.store.atomic import check_writable

    seen: set[Any] = set()
    for cell in cells:
        if cell.unsupported:
            continue
        cell.assets  # noqa: B018  computing it is the check
        settings = cell.settings
        _check_steps(cell)
        made = (cell.task, repr(settings.task.options), settings.data)
        if made not in seen:
            seen.add(made)
            _check_task(cell)
        for model in (settings.generator.model, settings.target.model):
            if model not in seen:
                seen.add(model)
                check_model(model)
        _check_references(cell, seen)
        key = (settings.data, settings.validation.prompts)
        if key not in seen:
            seen.add(key)
            train, _ = articles(settings)
            if len(train) < settings.grpo.prompts_per_step:
                raise HarnessError(
                    f"There are {len(train)} training articles but grpo.prompts_per_step is "
                    f"{settings.grpo.prompts_per_step}; add articles or lower it."
                )
    check_writable(runs)
