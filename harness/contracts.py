"""What tasks, rewards and the harness agree on: plain data and protocols, nothing else.

Three nouns: a **task** has a metric Phi and a way to look at the outcome, a **reward** scores rollouts, the **harness**
trains a generator with GRPO on the reward and measures the task. Tasks and rewards know this module and each other only
through it. The module is light on purpose (no torch at import time), so that `harness list` and every check of a
setting answer at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rewards.metagradient import Metagradient

Advantage = Literal["group", "batch"]
Direction = Literal["higher", "lower"]


class HarnessError(Exception):
    """A mistake the user can fix: one sentence that says what to do. The command line ends with exit code 2 on it."""


class SignalError(HarnessError):
    """A reward returned something no one may train on (NaN, infinite, wrong length); the cell ends as `failed`."""


# ---------------------------------------------------------------------------------------------------------- plain data


@dataclass(frozen=True)
class Needs:
    """What a reward needs from the task and the machine; matched against `Offers` before anything is loaded."""

    references: bool = False
    """Texts of the task that a rollout may be compared with."""
    metric: bool = False
    """A differentiable Phi of the trained target."""
    packages: tuple[str, ...] = ()
    """Importable packages beyond torch and transformers, e.g. ("fasttext",)."""


@dataclass(frozen=True)
class Offers:
    """What a task has to give; the other half of `Needs`."""

    references: bool = False
    metric: bool = True


@dataclass(frozen=True)
class Measure:
    """One thing that is measured, with its unit and the direction that is better (None: neither)."""

    name: str
    unit: str = ""
    direction: Direction | None = None
    summary: str = ""


@dataclass(frozen=True)
class Headline(Measure):
    """The measure a task is judged by. The floor is not here: it is measured on the untuned generator."""

    ceiling: float | None = None
    """The best value there can be, if there is one."""


@dataclass(frozen=True)
class Evaluation:
    """What a task found out about one set of validation rollouts."""

    values: Mapping[str, float]
    """Measure name -> value; every name is declared in the task's `measures` or is its headline."""
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Column name -> one entry a rollout (e.g. the judged language); stored beside the sampled texts."""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Name -> array of numbers, stored exactly: what the task's `draw` makes pictures of."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """File name -> content of what cannot be drawn from arrays; stored in the cell's folder under the step."""


# ------------------------------------------------------------------------------------------------------------ protocols

Metric = Callable[["Mapping[str, torch.Tensor]"], "torch.Tensor"]
"""Phi: parameters keyed as `dict(model.named_parameters())` -> scalar tensor, higher is better, differentiable."""


@runtime_checkable
class InnerTraining(Protocol):
    """The learning algorithm A (section 3.1 of the paper) bound to one target, one optimizer and one T.

    Model and optimizer state start afresh at every call. Texts are re-tokenised with the target's tokenizer, cut to
    `max_tokens`, and split in order into at most T batches of equal size (the last may be short).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    optimizer: Any
    """Its settings: `.name` ("adamw" | "adam" | "sgd"), `.lr`, ..."""

    def metagradient(self, texts: Sequence[str], metric: Metric) -> Metagradient:
        """Exact dPhi/dw_i for every text, in the order of `texts`: `.weights` (N,) float, `.value` Phi(theta_T)."""
        ...

    def train(self, texts: Sequence[str]) -> dict[str, torch.Tensor]:
        """Theta_T after plain training on `texts` with unit weights, keyed as `dict(model.named_parameters())`."""
        ...

    def steps_of(self, count: int) -> list[int]:
        """The inner step, from 0, that trains on each of `count` texts, in their order."""
        ...

    def with_optimizer(self, **changes: Any) -> InnerTraining:
        """The same target trained by another optimizer, e.g. `with_optimizer(name="sgd", lr=1e-3)`."""
        ...


class RewardFunction(Protocol):
    """TRL's reward callable. `completions` are strings, or message lists as TRL makes them of conversational prompts;
    `completion_text` below reads both. Returns one float a completion, higher is better, raw (the runner rescales).

    The runner also passes `credit_characters`, a function: a reward that knows what each character of the completions
    earned of it may call it with one list of floats a completion, and every token then gets its own advantage."""

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float]: ...


@dataclass(frozen=True)
class RewardContext:
    """What the harness hands a reward's factory. Everything heavy is behind a call, made only by those who need it."""

    task: Task
    num_generations: int
    """G: rollouts per prompt. Rollouts of one prompt are neighbours in every batch."""
    cross_group: bool
    """True: all rollouts of a step train one target. False: rollout k of every prompt trains target k."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The profile's `reward.options`."""
    load_inner: Callable[[], InnerTraining] | None = None
    """Loads the target and binds A to it (cached: the same object for every caller)."""
    load_tokenizer: Callable[[], PreTrainedTokenizerBase] | None = None
    """The target's tokenizer alone."""
    asset: Callable[[str], Path] | None = None
    """Resolves an asset reference ("embedded:embedding", a local path, a hub id) to a local folder or file."""


class RewardFactory(Protocol):
    """`(context) -> reward`. Registered with `@register_reward("name", needs=..., advantage=..., summary=...)`."""

    def __call__(self, context: RewardContext) -> RewardFunction: ...


@dataclass(frozen=True)
class TaskContext:
    """What the harness hands a task's constructor. Everything heavy is behind a call."""

    options: Mapping[str, Any] = field(default_factory=dict)
    """The profile's `task.options` (a text for `qr`, a judge for `lambada_*`)."""
    references: Callable[[str], list[str]] | None = None
    """`references("train" | "validation" | "test")`: the task's texts from the profile's `data.references`."""
    asset: Callable[[str], Path] | None = None


@runtime_checkable
class Task(Protocol):
    """One target behaviour. Class attributes are read before anything loads; methods may load.

    A task may also have `target_texts() -> list[str]`, texts of the kind that it asks for: `python -m harness fidelity`
    looks whether signals tell them from others. Without it the references are taken, if there are any. With a class
    attribute `options`, a mapping from every name that it reads below `task.options` to a line about it, misspelled
    names are noticed and `list --settings` shows them. A class method `draw(arrays) -> {name: PNG}` makes pictures of
    the `arrays` of one evaluation: reports ask for them, nobody stores them.
    """

    name: str
    summary: str
    offers: Offers
    headline: Headline
    measures: tuple[Measure, ...]
    """Every further measure `evaluate` may return."""

    def __init__(self, context: TaskContext) -> None: ...

    def references(self) -> list[str]:
        """The reference texts (train split). Only called where `offers.references`."""
        ...

    def metric(self, inner: InnerTraining) -> Metric:
        """Phi for this target (higher is better). Only called where `offers.metric`."""
        ...

    def evaluate(self, rollouts: Sequence[str], inner: InnerTraining) -> Evaluation:
        """Look at validation rollouts: texts first; `inner.train(rollouts)` where a freshly trained target matters."""
        ...


# -------------------------------------------------------------------------------------------------------------- helpers


def completion_text(completion: Any) -> str:
    """The text of one completion as TRL hands it over: a string, or a list of messages (their contents joined)."""
    if isinstance(completion, str):
        return completion
    return "".join(message["content"] for message in completion)


def unknown(kind: str, name: str, names: list[str]) -> str:
    """The sentence for a name that is not there: the nearest names, or all of them."""
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}."
    return f"There is no {kind} named '{name}'; {hint}"
