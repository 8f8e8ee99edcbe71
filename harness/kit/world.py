"""The world that plug-ins are tried in: the miniature's target trained for one step on a few short texts, in float64,
so that two ways to the same number differ by no more than rounding."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, cycle, islice
from math import ceil
from typing import Any

from harness import assets
from harness.contracts import HarnessError, RewardFunction, Task, completion_text
from harness.kit.findings import Fault
from harness.kit.subjects import task_named
from harness.planning.cells import Cell, make_reward, make_task, said_contacts
from harness.registry import REWARDS, TASKS, unsupported
from harness.settings.options import check_options
from harness.settings.profiles import DEFAULT, load_profile, resolve
from harness.training.advantages import check_rewards
from harness.training.credit import check_credits
from harness.training.inner import InnerTrainer, load_target

PROMPTS, GENERATIONS = 4, 4
"""Of a batch: groups, and rollouts a group."""
WORDS = 12
"""Of a rollout."""
MOST_TEXTS = 4096
"""Of a source; where more rollouts are asked for they come again."""
REFERENCES = 16
"""Reference texts a split, at most."""
SMALL = {
    "target.dtype": "float64",
    "grpo.prompts_per_step": PROMPTS,
    "grpo.rollouts_per_prompt": GENERATIONS,
    "grpo.updates_per_step": 1,
    "inner.steps": 1,
    "inner.warmup_steps": 0,
    "inner.max_tokens": 24,
    "validation.inner_steps": None,
}
"""Settings over the profile's. With one inner step no text's worth hangs on the step that it falls into."""
LANGUAGES = ("de", "es", "fr", "it")

ROUNDING, SHARE = 1e-9, 1e-3
"""What equal rewards may differ by: this much of the largest one, or this share of what a batch's rewards differ by."""


def cell_of(task: str, reward: str, given: Mapping[str, Any], **more: Any) -> Cell:
    """A cell of the miniature at the kit's sizes; `given` goes over them, and `more` (dots as __) over that. Raises
    HarnessError for bad settings."""
    profile = load_profile(DEFAULT)
    check_options(profile, given, [task] if task else [], [reward] if reward else [])
    chosen = SMALL | dict(given) | {key.replace("__", "."): value for key, value in more.items()}
    settings = resolve(profile, task, reward, chosen)
    return Cell(profile.name, task, reward, 0, settings, allowed=said_contacts(task, reward, given))


def task_for(reward: str, task: str) -> str:
    """The task that the reward is tried on: `task`, or the first one that has what the reward needs, of the package's
    before others and with references before others. Raises HarnessError where there is none."""
    entry = REWARDS.get(reward)
    if task:
        task = task_named(task)
        why = unsupported(TASKS.get(task), entry)
    else:
        fitting = [each for each in TASKS if unsupported(each, entry) is None]
        if fitting:
            ours = lambda each: each.factory.__module__.startswith(f"{TASKS.package}.")
            return max(fitting, key=lambda each: (ours(each), each.factory.offers.references)).name
        why = next((unsupported(each, entry) for each in TASKS if each.factory.offers.references), "there is no task")
    if why:
        whose = f"the task {task}" if task else "any task"
        raise HarnessError(f"The reward {reward} cannot be had for {whose}: {why}.")
    return task


def texts(count: int) -> list[str]:
    """Short texts of the miniature: articles and passages in its languages in turn."""
    each = min(MOST_TEXTS, ceil(count / (1 + len(LANGUAGES))))
    sources = [assets.texts("embedded:articles", split="train", limit=each)]
    sources += [assets.texts("embedded:passages", split="train", limit=each, language=code) for code in LANGUAGES]
    mixed = chain.from_iterable(zip(*sources, strict=True))
    return list(islice(cycle(" ".join(text.split()[:WORDS]) for text in mixed), count))


@dataclass(frozen=True)
class Batch:
    """Rollouts as TRL hands them to a reward: all lists have N entries, rollouts of a prompt are neighbours."""

    prompts: list[Any]
    completions: list[Any]
    completion_ids: list[list[int]]

    @classmethod
    def of(cls, completions: Sequence[str], group: int, tokenizer: Any) -> Batch:
        """The texts in groups of `group`."""
        prompts = [f"Rephrase this article:\nArticle number {place // group}." for place in range(len(completions))]
        ids = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in completions]
        return cls(prompts, list(completions), ids)

    def in_order(self, order: Sequence[int]) -> Batch:
        """The rollouts at these places."""
        columns = self.prompts, self.completions, self.completion_ids
        return Batch(*([column[place] for place in order] for column in columns))

    def conversational(self) -> Batch:
        """The same as lists of messages."""
        prompts = [[{"role": "user", "content": prompt}] for prompt in self.prompts]
        completions = [[{"role": "assistant", "content": text}] for text in self.completions]
        return Batch(prompts, completions, self.completion_ids)

    def columns(self) -> dict[str, list[Any]]:
        """A copy: what a reward does to it stays its own."""
        return copy.deepcopy(
            {"prompts": self.prompts, "completions": self.completions, "completion_ids": self.completion_ids}
        )


class World:
    """A task and perhaps a reward on the small target; what is heavy is loaded when first asked for."""

    def __init__(self, task: str, reward: str, given: Mapping[str, Any]) -> None:
        self.task_name, self.reward_name, self.given = task, reward, dict(given)
        self.cell = cell_of(task, reward, given)  # bad settings are found here

    @cached_property
    def inner(self) -> InnerTrainer:
        return self._trainer(self.cell)

    def _trainer(self, cell: Cell) -> InnerTrainer:
        tokenizer = assets.load_tokenizer(cell.settings.target.model)
        return InnerTrainer(load_target(cell.settings.target), tokenizer, cell.settings.inner)

    def task(self) -> Task:
        """A fresh one, with a few references."""
        return make_task(self.cell, REFERENCES)

    def reward(self, generations: int = GENERATIONS) -> RewardFunction:
        """A fresh one for groups of `generations`."""
        grpo = self.cell.settings.grpo.model_copy(update={"rollouts_per_prompt": generations})
        cell = Cell(
            **{name: getattr(self.cell, name) for name in ("profile", "task", "reward", "seed", "allowed")},
            settings=self.cell.settings.model_copy(update={"grpo": grpo}),
        )
        return make_reward(cell, self.task(), self.inner)

    def in_float32(self) -> RewardFunction:
        """The reward as a run has it, for measuring what it costs."""
        cell = cell_of(self.task_name, self.reward_name, self.given, target__dtype="float32")
        return make_reward(cell, make_task(cell, REFERENCES), self._trainer(cell))

    @cached_property
    def batch(self) -> Batch:
        """PROMPTS groups of GENERATIONS rollouts."""
        return Batch.of(texts(PROMPTS * GENERATIONS), GENERATIONS, self.inner.tokenizer)

    @cached_property
    def other(self) -> Batch:
        """As many others."""
        count = PROMPTS * GENERATIONS
        return Batch.of(texts(2 * count)[count:], GENERATIONS, self.inner.tokenizer)

    def rewards(self, batch: Batch, reward: RewardFunction | None = None) -> list[float]:
        """What the reward, a fresh one where none is given, says of the batch when called as the runner does: one
        finite number a completion and, where it credits characters, one a character, or SignalError."""
        reward, credited = reward or self.reward(), []
        found = reward(**batch.columns(), **trl_columns(), credit_characters=credited.append)
        for credits in credited:
            check_credits(self.reward_name, credits, [completion_text(each) for each in batch.completions])
        return check_rewards(self.reward_name, found, batch.completions)


def trl_columns() -> dict[str, Callable[..., None] | Any]:
    """What TRL passes beside the rollouts."""
    from transformers import TrainerState

    ignore = lambda *given: None
    return {"trainer_state": TrainerState(), "log_extra": ignore, "log_metric": ignore}


def unlike(one: Sequence[float], other: Sequence[float]) -> list[int]:
    """The places where two lists of rewards differ by more than rounding."""
    allowed = max(ROUNDING * max(map(abs, one)), SHARE * (max(one) - min(one)))
    return [place for place, (a, b) in enumerate(zip(one, other, strict=True)) if abs(a - b) > allowed]


def demand_alike(one: Sequence[float], other: Sequence[float], when: str, so: str) -> None:
    """Raises Fault where two lists of rewards of the same completions differ; `when` and `so` complete the sentence."""
    if places := unlike(one, other):
        first = places[0]
        raise Fault(
            f"{len(places)} of {len(one)} rewards are others {when} (#{first}: {one[first]:.6g}, then "
            f"{other[first]:.6g}); {so}."
        )
