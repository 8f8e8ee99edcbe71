"""What tasks, rewards and the harness agree on: plain data and protocols, nothing else.

Three nouns: a **task** has a metric Phi and a way to look at the outcome, a **reward** scores rollouts, the **harness**
trains a generator with GRPO on the reward and measures the task. Tasks and rewards know this module and each other only
through it. The module is light on purpose (no torch at import time), so that `harness list` and every check of a
setting answer at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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
class Training:
    """How a reward trains targets on the rollouts of a GRPO step: what its settings must allow, and what it costs."""

    metagradient: bool = True
    """It differentiates the metric through the training; False: it trains plainly and looks at what comes out."""
    crosses_groups: bool = True
    """All rollouts of a step may form one training set, if `inner.cross_group` says so; False: rollout k of every
    prompt forms set k, whatever the setting says."""

    def sets(self, cross_group: bool, rollouts_per_prompt: int) -> int:
        """Training sets of a step, all of one size."""
        return 1 if cross_group and self.crosses_groups else rollouts_per_prompt


@dataclass(frozen=True)
class Offers:
    """What a task has to give; the other half of `Needs`."""

    references: bool = False
    metric: bool = True


@dataclass(frozen=True)
class MetricCost:
    """What one evaluation of a task's Phi sends through the target: an estimate, for plans."""

    texts: int
    tokens: int
    """Of a text."""
    scored: int
    """Tokens of a text whose logits are computed."""
    batch: int = 32
    """Texts a pass."""


@dataclass(frozen=True)
class Contact:
    """A host that a task or reward sends something to. Who says so must be the user's own command line: options come
    from records and profiles too, and those may be anybody's."""

    url: str
    variable: str = ""
    """Environment variable whose content goes there; "": none does."""

    def __str__(self) -> str:
        """As `rerun --contact` takes it."""
        return f"{self.variable}={self.url}" if self.variable else self.url


@dataclass(frozen=True)
class Reading:
    """A file, model or data set that a task reads because of what its options hold."""

    name: str
    """As it is written there: what a record calls it."""
    ref: str
    """Where it is: an asset reference; "" where nobody of this session said where its files lie."""
    data: bool = False
    """A data set, not a model or a file."""
    local: bool = False
    """Files of the user's own: repeating a record does not open them unless the user names them again."""


@dataclass(frozen=True)
class Outline:
    """A target as its configuration describes it; no weights are loaded for it."""

    parameters: Mapping[str, tuple[int, ...]]
    """Name, as in `dict(model.named_parameters())` -> shape."""
    modules: Sequence[str]
    head: str
    """The LM head's parameter."""
    hidden: int | None
    """Width of hidden states, where the configuration says."""


@dataclass(frozen=True)
class Measure:
    """One thing that is measured, with its unit and the direction that is better (None: neither)."""

    name: str
    unit: str = ""
    direction: Direction | None = None
    summary: str = ""
    relative: bool = field(default=False, kw_only=True)
    """It says something only beside the untuned generator's value: tables show the share of that."""


@dataclass(frozen=True)
class Headline(Measure):
    """The measure a task is judged by. The floor is not here: it is measured on the untuned generator."""

    ceiling: float | None = None
    """The best value there can be, if there is one."""


@dataclass(frozen=True)
class TaskFigure:
    """A figure of the report over GRPO steps. Tasks that declare the same one share it."""

    key: str
    """Names its files, e.g. "figure-2"; a report shows its figures in the order of their keys."""
    title: str
    caption: str
    measures: tuple[str, ...]
    by: Literal["measure", "reward"] = "measure"
    """measure: a panel for every measure of every task, a line a reward. reward: a panel for every reward, a line a
    measure."""
    y_label: str = ""
    """What the lines of a panel by reward have in common, with its unit."""


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


@dataclass(frozen=True)
class MetricOf:
    """A metric that says which parameters it reads, by name: it is given these alone, and the training before it need
    not form what only the others are for. Any callable with such an attribute will do."""

    reads: tuple[str, ...]
    phi: Metric

    def __call__(self, params: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self.phi(params)


class MetagradientResult(Protocol):
    """What `InnerTraining.metagradient` found."""

    @property
    def value(self) -> float:
        """Phi(theta_T)."""
        ...

    @property
    def weights(self) -> torch.Tensor:
        """dPhi/dw_i at w = 1, (N,) float, in the order of the texts."""
        ...

    @property
    def tokens(self) -> tuple[torch.Tensor, ...] | None:
        """With `per_token`: for each text what its scored tokens earned, (its scored tokens,); they add up to its
        weight."""
        ...


class OptimizerView(Protocol):
    """What a reward may know of the inner optimizer."""

    @property
    def name(self) -> str:
        """adamw, adam or sgd."""
        ...

    @property
    def lr(self) -> float: ...


@runtime_checkable
class InnerTraining(Protocol):
    """The learning algorithm A (section 3.1 of the paper) bound to one target, one optimizer and one T.

    Model and optimizer state start afresh at every call. Texts are re-tokenised with the target's tokenizer, cut to
    `max_tokens`, and split in order into at most T batches of equal size (the last may be short).
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def optimizer(self) -> OptimizerView: ...

    def metagradient(self, texts: Sequence[str], metric: Metric, *, per_token: bool = False) -> MetagradientResult:
        """Exact dPhi/dw_i for every text, in the order of `texts`; `per_token` asks for the tokens' parts too, which
        cost little more."""
        ...

    def spread(self, text: str, tokens: Sequence[float]) -> list[float]:
        """What the scored tokens of a text earned (one of `.tokens`) by its characters: one number a character, as
        `CreditCharacters` takes them."""
        ...

    def train(self, texts: Sequence[str], *, only: Collection[str] | None = None) -> dict[str, torch.Tensor]:
        """Theta_T after plain training on `texts` with unit weights, keyed as `dict(model.named_parameters())`. `only`:
        the names of the parameters that are wanted, which may save work."""
        ...

    def steps_of(self, count: int) -> list[int]:
        """The inner step, from 0, that trains on each of `count` texts, in their order."""
        ...

    def with_optimizer(self, **changes: Any) -> InnerTraining:
        """The same target trained by another optimizer, e.g. `with_optimizer(name="sgd", lr=1e-3)`."""
        ...


@runtime_checkable
class HasMemoryBudget(Protocol):
    """An InnerTraining that says how many bytes may be held between passes: a metric that takes its texts in several
    passes makes them no larger."""

    @property
    def memory_budget(self) -> int | None:
        """None: nobody said."""
        ...


CreditCharacters = Callable[[Sequence[Sequence[float]]], None]
"""Takes what each character of each completion earned of its reward: one list a completion, one number a character."""
LogMetric = Callable[[str, float], None]
"""TRL's: logs a number of this step under a name."""


class RewardFunction(Protocol):
    """TRL's reward callable. `completions` are strings, or message lists as TRL makes them of conversational prompts;
    `completion_text` below reads both. Returns one float a completion, higher is better, raw (the runner rescales).

    Among the `columns` a reward finds, besides those of the data set, what TRL passes (`trainer_state`, `log_extra`,
    `log_metric`: a `LogMetric`) and, from this runner, `credit_characters`: a `CreditCharacters`. A reward that calls
    it gives every token an advantage of its own. Other trainers lack it, so a reward looks whether it is there.
    """

    def __call__(
        self,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        completion_ids: Sequence[Sequence[int]],
        **columns: Any,
    ) -> list[float]: ...


@runtime_checkable
class Resumable(Protocol):
    """A task or reward function that remembers something from step to step: a checkpoint keeps it. Most have neither
    method."""

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON data."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Takes up what `state_dict` gave."""
        ...


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
    """The profile's `task.options`."""
    references: Callable[[str], list[str]] | None = None
    """`references("train" | "validation" | "test")`: the task's texts from the profile's `data.references`."""
    asset: Callable[[str], Path] | None = None
    held_out: str = "validation"
    """The split that evaluations read, for a task with texts of its own: `references` has it built in."""
    most_texts: int | None = None
    """Texts of a split at most; the same."""


@runtime_checkable
class Task(Protocol):
    """One target behaviour. Class attributes are read before anything loads; methods may load.

    What a class attribute may say beside these is in `TaskDeclarations`; what an instance may do beside these, in
    `HasTargetTexts` and `Resumable`.
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


@runtime_checkable
class HasTargetTexts(Protocol):
    """A task that can say what it asks for: `python -m harness fidelity` looks whether signals tell such texts from
    others. Of a task without this method the references are taken, if there are any."""

    def target_texts(self) -> list[str]:
        """Texts of the kind that the task asks for."""
        ...


@runtime_checkable
class ChecksTarget(Protocol):
    """A task that can say before anything loads whether a target has what it is about."""

    def check_target(self, outline: Outline) -> Sequence[str]:
        """Lines that the user should know, on how texts were parted say. Raises HarnessError for what is missing."""
        ...


@runtime_checkable
class Examines(Protocol):
    """A task that can put any model to its test: `python -m harness evaluate` trains targets in ways of its own.

    Where the task offers references too, a target is trained on data as a user would (continued pre-training) and put
    to the test of the split "test"; learning rates are chosen by "validation"."""

    examined: tuple[Measure, ...]
    """What `examine` returns; the first one judges. It must have a direction."""

    def examine(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, split: str) -> Mapping[str, float]:
        """Measure name -> value for the model as it is."""
        ...


@runtime_checkable
class HasScoredPairs(Protocol):
    """A task whose test is how likely a model finds one text after another: other evaluation programs can ask the
    same."""

    def scored_pairs(self, tokenizer: PreTrainedTokenizerBase, split: str) -> list[tuple[str, str]]:
        """(context, what is scored after it), as they are tokenised one after the other; a beginning-of-text token
        that belongs before a context is written out."""
        ...


def _no_cost(options: Mapping[str, Any]) -> None:
    """A metric that reads no texts, or few enough not to count."""


def _no_readings(options: Mapping[str, Any]) -> Sequence[Reading]:
    """Of what reads nothing that is not declared otherwise."""
    return ()


def no_contacts(options: Mapping[str, Any]) -> Sequence[Contact]:
    """Of what talks to no host."""
    return ()


@dataclass(frozen=True)
class TaskDeclarations:
    """What a task may say as class attributes of these names, and what holds where it does not."""

    options: Mapping[str, str] | None = None
    """Every name that it reads below `task.options`, with a line about it: misspelled names are noticed, and
    `list --settings` shows them. None: not declared."""
    asset_options: tuple[str, ...] = ()
    """Those options that name an asset: it is fetched, and counts by its content in a cell's identity."""
    readings: Callable[[Mapping[str, Any]], Sequence[Reading]] = _no_readings
    """A static or class method: what it reads beside these, with these `task.options`. It counts by content too."""
    own_texts: bool = False
    """Its references are among its `readings`; it reads no `data.references`."""
    language: str = "en"
    """Two-letter code of the language of its texts."""
    greedy_validation: bool = False
    """Validation rollouts are decoded at temperature 0."""
    follows_rate: bool = False
    """Its headline grows with the inner training's learning rate whatever the texts are, so that values at different
    rates do not compare: `tune` then varies the generator's."""
    metric_cost: Callable[[Mapping[str, Any]], MetricCost | None] = _no_cost
    """A static or class method: the metric's cost with these `task.options`. None: it costs nothing worth counting."""
    reads_head_alone: bool = False
    """Its metric is a `MetricOf` the target's LM head and nothing else, so that the last step of a training sends no
    gradient into the body; for plans and floors."""
    contacts: Callable[[Mapping[str, Any]], Sequence[Contact]] = no_contacts
    """A static or class method: the hosts that it sends something to with these `task.options`. A cell is run only if
    the same options, given on the command line, ask for them."""
    key_measures: tuple[str, ...] | None = None
    """Measures worth a column of the table beside the headline, most telling first (the first two that were stored are
    shown). None: the first ones that `evaluate` returns."""
    figure: TaskFigure | None = None
    """The figure that shows its outcome; every measure has a learning curve anyway."""
    draw: Callable[[Mapping[str, np.ndarray]], Mapping[str, bytes]] | None = None
    """A static or class method: `Evaluation.arrays` -> name and PNG of every picture. Reports ask for them, nobody
    stores them."""

    @classmethod
    def of(cls, task: type) -> TaskDeclarations:
        return cls(**{item.name: getattr(task, item.name) for item in fields(cls) if hasattr(task, item.name)})


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
