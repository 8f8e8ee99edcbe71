"""What would stop a cell later, found before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import assets
from harness.contracts import ChecksTarget, HarnessError
from harness.machine import processes
from harness.planning.cells import Cell, articles, make_task, told_splits
from harness.registry import REWARDS, TASKS
from harness.settings.schema import Settings


def _check_task(cell: Cell, say: Callable[[str], None]) -> None:
    """Makes the task once: raises HarnessError for values of its options that it refuses, and where the target lacks
    what it is about. `say` is told what it has to say."""
    target = cell.settings.target
    try:
        task = make_task(cell)
        if isinstance(task, ChecksTarget):
            for line in task.check_target(assets.outline(target.model, target.untie_head)):
                say(line)
    except HarnessError:
        raise
    except (Exception, SystemExit, GeneratorExit):  # a fault in a task's own code costs its own rows, and they say it
        pass


def _check_references(cell: Cell) -> None:
    """Raises HarnessError where the task's own texts cannot be read; embedded ones are checked by hash."""
    ref, entry = cell.settings.data.references, TASKS.get(cell.task)
    if entry.factory.offers.references and not entry.declares.own_texts and not assets.is_embedded(ref):
        assets.texts(ref, split="train", language=entry.declares.language)


def _check_steps(cell: Cell) -> None:
    """Raises HarnessError where a training set, of a reward or of the validation, has fewer texts than inner steps."""
    grpo, inner, validation = cell.settings.grpo, cell.settings.inner, cell.settings.validation
    training = REWARDS.get(cell.reward).training
    trained = [(validation.prompts, validation.inner_steps or inner.steps, "validation.prompts")]
    if training:
        sets = training.sets(inner.cross_group, grpo.rollouts_per_prompt)
        trained.append((grpo.rollouts_per_step // sets, inner.steps_of_set(sets), "grpo.prompts_per_step"))
    for texts, steps, setting in trained:
        if texts < max(steps, inner.warmup_steps):
            lower = "inner.steps" if steps > inner.warmup_steps else "inner.warmup_steps"
            if setting == "validation.prompts" and lower == "inner.steps" and validation.inner_steps:
                lower = "validation.inner_steps"
            raise HarnessError(
                f"{cell.task}/{cell.reward} would split training sets of {texts} texts into "
                f"{max(steps, inner.warmup_steps)} inner steps; raise {setting} or lower {lower}."
            )


def _check_ranks(settings: Settings) -> None:
    """Raises HarnessError where the target's training is to be divided among processes and there is one."""
    if settings.inner.sharded and processes.sharing_count() == 1:
        raise HarnessError(processes.NOT_LAUNCHED)


def preflight(cells: Sequence[Cell], runs: Path, say: Callable[[str], None] = lambda line: None) -> list[Cell]:
    """Finds out now what would stop a cell later: missing assets, broken model folders, too few texts. Returns the
    cells, in order, those that cannot run as they are set with the reason in `blocked`: each becomes a row and the
    others run. Raises HarnessError where that is every cell, and for an unwritable folder; nothing has been written
    then. `say` is told which splits one's own texts have."""
    from harness.store.atomic import check_writable

    checks = _Checks(say)
    found = [cell if cell.unsupported else checks.marked(cell) for cell in cells]
    blocked = [cell.blocked for cell in found if cell.blocked]
    if blocked and all(cell.unsupported for cell in found):
        raise HarnessError(blocked[0])
    check_writable(runs)
    for line in told_splits([cell for cell in found if not cell.unsupported]):
        say(line)
    return found


class _Checks:
    """What has been looked at: many cells share a model or a set of texts, and each is looked at once."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.reasons: dict[Any, str] = {}
        self.say = say

    def marked(self, cell: Cell) -> Cell:
        """The cell, with the first reason why it cannot run."""
        from harness.assets.models import check_model

        settings = cell.settings
        checks: dict[Any, Callable[[], object]] = {
            ("ranks", settings.inner.sharded): lambda: _check_ranks(settings),
            ("assets", *map(tuple, cell.references())): lambda: cell.assets,
            ("steps", cell.task, cell.reward, repr(settings)): lambda: _check_steps(cell),
            ("task", cell.task, repr(settings.task.options), settings.data, settings.target): lambda: _check_task(
                cell, self.say
            ),
            ("model", settings.generator.model): lambda: check_model(settings.generator.model),
            ("model", settings.target.model): lambda: check_model(settings.target.model),
            ("references", cell.task, settings.data.references): lambda: _check_references(cell),
            ("articles", settings.data, settings.validation.prompts, settings.grpo.prompts_per_step): lambda: (
                _check_articles(settings)
            ),
        }
        why = next((reason for key, check in checks.items() if (reason := self._reason(key, check))), "")
        return replace(cell, blocked=why) if why else cell

    def _reason(self, key: Any, check: Callable[[], object]) -> str:
        if key not in self.reasons:
            try:
                check()
                self.reasons[key] = ""
            except HarnessError as error:
                self.reasons[key] = str(error)
        return self.reasons[key]


def _check_articles(settings: Settings) -> None:
    """Raises HarnessError where there are fewer training articles than a step has prompts."""
    train, _ = articles(settings)
    if len(train) < settings.grpo.prompts_per_step:
        raise HarnessError(
            f"There are {len(train)} training articles but grpo.prompts_per_step is "
            f"{settings.grpo.prompts_per_step}; add articles or lower it."
        )
