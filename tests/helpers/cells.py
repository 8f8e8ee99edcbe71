"""Cells of seconds on random models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.machine.stopping import Interrupted
from harness.planning.cells import Cell, said_contacts
from harness.settings.profiles import load_profile, resolve


def ignore(*_: Any) -> None:
    """An observer of events that does nothing."""


def cut_after(step: int) -> Callable[[dict[str, Any]], None]:
    """An observer that ends the run after the step, the way a signal does."""

    def notify(event: dict[str, Any]) -> None:
        if event.get("step") == step:
            raise Interrupted(15)

    return notify


def write_articles(path: Path, line: str = "Article number {i} is about the river {letter}.") -> Path:
    """24 articles as JSON lines, `line` filled in with their number and a letter."""
    texts = [line.format(i=i, square=i * i, letter=chr(97 + i % 26)) for i in range(24)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def keys(changes: dict[str, Any]) -> dict[str, Any]:
    """Setting names from keywords: grpo__steps -> grpo.steps."""
    return {key.replace("__", "."): value for key, value in changes.items()}


def quick_settings(model: Path, articles: Path, **more: Any) -> dict[str, Any]:
    """Assignments for a run of seconds: two steps of four rollouts of 12 tokens."""
    return {
        "generator.model": str(model),
        "target.model": str(model),
        "data.articles": str(articles),
        "generator.prompt": "Say: <article>",
        "generator.max_prompt_tokens": 48,
        "generator.max_completion_tokens": 12,
        "grpo.steps": 2,
        "grpo.prompts_per_step": 2,
        "grpo.rollouts_per_prompt": 2,
        "grpo.updates_per_step": 1,
        "inner.max_tokens": 16,
        "inner.steps": 1,
        "inner.warmup_steps": 0,
        "validation.prompts": 4,
        "validation.every": 1,
        "validation.inner_steps": None,
    } | keys(more)


def settings_of_task(task: str) -> dict[str, Any]:
    """What such a run also sets: few of the hundreds of passages of `lambada_*`, and a target that has what the other
    tasks are about."""
    if task.startswith("lambada"):
        return {"task.options.metric_examples": 16, "task.options.validation_examples": 16}
    return {"target.model": "embedded:target"}


def make_cell(task: str, reward: str, assignments: dict[str, Any], seed: int = 0) -> Cell:
    """A cell of the tiny profile with these assignments on top, as the command line makes it."""
    settings = resolve(load_profile("tiny"), task, reward, assignments)
    allowed = said_contacts(task, reward, assignments)
    return Cell("tiny", task, reward, seed, settings, given=assignments, allowed=allowed)
