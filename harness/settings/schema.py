"""Settings: every number and name that a cell depends on, with types, ranges and defaults.

Values come from a profile (harness/settings/profiles.py says how its layers go over each other) and from `--set`.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NEUTRAL = {"identity": False}
"""Marks a field that cannot change a number; it stays out of the cell's identity."""
ADDED = {"identity": "unless default"}
"""Marks a field that came after cells had been stored: it enters the identity only where it is not at its default."""


MOST = 10**9
Count = Annotated[int, Field(ge=1, le=MOST)]
"""Steps, texts, tokens: every number of a setting has a least and a largest value, or it is found out hours later. A
bound of a field's own would be passed by beside these: where one differs the field says both."""
Share = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(gt=0, le=1e6)]
"""Learning rates, clips and temperatures; the paper tries learning rates up to 14."""
Weight = Annotated[float, Field(ge=0, le=1e6)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class GeneratorSettings(Section):
    """The policy that writes training texts."""

    model: str = Field(description="Asset: embedded:NAME, a local Hugging Face folder, or a hub id (ID@REVISION).")
    dtype: Literal["float32", "bfloat16"] = "float32"
    prompt: str = Field(description="The user message; <article> is replaced by the article (Appendix G).")
    max_prompt_tokens: int = Field(1024, ge=8, le=MOST, description="The article is cut so that the whole prompt fits.")
    max_completion_tokens: Count = 128
    temperature: Rate = 1.0
    template_values: dict[str, str] = Field(
        default_factory=dict,
        description="Variables of the chat template, such as date_string of Llama's, which is else the day of the run.",
        json_schema_extra=ADDED,
    )
    backend: Literal["transformers", "vllm"] = Field(
        "transformers",
        description="Who generates: batched transformers, or vLLM in TRL's colocated mode (package extra `vllm`).",
        json_schema_extra=ADDED,
    )
    true_positions: bool = Field(
        False,
        description="Updates see left-padded prompts at the positions they were generated at. TRL counts "
        "padding too, which "
        "is wrong for absolute position embeddings such as GPT-2's.",
        json_schema_extra=ADDED,
    )
    batch: Count | None = Field(
        None,
        description="Rollouts generated at a time, longest prompts first; default: all.",
        json_schema_extra=ADDED,
    )
    offload: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Whether generator and target leave the GPU while only the other works; auto: if they do "
        "not both fit.",
        json_schema_extra=NEUTRAL,
    )

    @model_validator(mode="after")
    def _has_slot(self) -> GeneratorSettings:
        if "<article>" not in self.prompt:
            raise ValueError("the prompt must contain <article>")
        return self


class TargetSettings(Section):
    """The model that is trained on the generator's texts."""

    model: str
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    untie_head: bool = Field(
        False, description="Give the LM head its own weights, as the authors' loader does for gpt2."
    )
    dropout: Share = Field(
        0.0,
        description="Dropout of the target's embeddings, residuals and MLPs, one mask for all of a run; the authors' "
        "GPT-2 has 0.1.",
        json_schema_extra=ADDED,
    )
    tf32: bool = Field(
        False, description="Let a GPU multiply float32 in TF32, as JAX does by default.", json_schema_extra=ADDED
    )


class DataSettings(Section):
    articles: str = Field(
        description="Articles to rephrase: embedded:articles, a JSON-lines file with `text`, or a hub set."
    )
    validation_articles: str | None = Field(None, description="Default: held out from the end of `articles`.")
    references: str = Field("embedded:passages", description="The task's texts: embedded, file or hub set.")
    held_out: Literal["validation", "test"] = Field(
        "validation",
        description="The split that validations read, of articles and of the task's texts: settings are chosen on "
        "validation, and what was chosen is reported on test.",
        json_schema_extra=ADDED,
    )
    article_count: int = Field(4096, ge=2, le=MOST, description="How many training articles to read at most.")


class GrpoSettings(Section):
    """The generator's training. TRL's names differ in places; grpo.py maps them."""

    steps: Count = Field(description="GRPO steps = rollout batches.")
    prompts_per_step: Count
    rollouts_per_prompt: int = Field(4, ge=2, le=MOST)
    updates_per_step: Count = Field(1, description="Optimizer updates on each rollout batch.")
    microbatch: Count | None = Field(None, description="Rollouts per backward pass at most; default: all of an update.")
    lr: Rate
    lr_schedule: Literal["constant", "linear", "cosine", "late_linear"] = Field(
        "constant",
        description="What becomes of lr over the steps: all but constant end at 0, so that the last policies "
        "differ little; "
        "late_linear falls in the last third alone.",
        json_schema_extra=ADDED,
    )
    betas: tuple[Share, Share] = (0.9, 0.999)
    weight_decay: Weight = 0.01
    max_grad_norm: float = Field(1.0, gt=0, le=1e12)
    clip_low: Rate = 0.2
    clip_high: Rate = 0.2
    dual_clip: float | None = Field(3.0, gt=1, le=1e6, description="Upper bound of the ratio for negative advantages.")
    kl: Weight = 0.0
    entropy_coef: Weight = Field(
        0.0,
        description="Weight of a bonus for the mean entropy of a rollout's tokens, beside advantages of deviation 1.",
        json_schema_extra=ADDED,
    )
    loss: Literal["dapo", "bnpo", "grpo", "dr_grpo"] = Field("dapo", description="dapo: mean over tokens, as verl.")
    scale_rewards: Literal["group", "batch"] = Field(
        "group",
        description="Whose standard deviation divides an advantage. batch: rare large rewards keep their weight.",
        json_schema_extra=ADDED,
    )
    advantage_eps: Weight = Field(1e-6, description="Beside the standard deviation, after rewards were rescaled.")
    credit_discount: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Of what later tokens earned, what a token is credited with; for rewards with "
        "reward.options.credit=token.",
        json_schema_extra=ADDED,
    )
    rescale: bool = Field(
        True,
        description="Divide raw rewards by their deviation over the batch first; the authors do not.",
        json_schema_extra=ADDED,
    )
    shared_prompts: bool = Field(
        False,
        description="Updates read each prompt once for its whole group, at its true positions; groups are "
        "shuffled, not rollouts.",
        json_schema_extra=ADDED,
    )
    checkpoint_every: int = Field(
        8,
        ge=0,
        le=MOST,
        description="GRPO steps between checkpoints that an interrupted cell resumes from; 0: none.",
        json_schema_extra=NEUTRAL,
    )

    @property
    def rollouts_per_step(self) -> int:
        return self.prompts_per_step * self.rollouts_per_prompt

    def backward_size(self, processes: int = 1) -> int:
        """Rollouts per backward pass and process: the largest divisor of a process's share of an update that is at
        most `microbatch`."""
        share = self.rollouts_per_step // self.updates_per_step // processes
        limit = min(self.microbatch or share, share)
        return next(size for size in range(limit, 0, -1) if share % size == 0)

    @model_validator(mode="after")
    def _divides(self) -> GrpoSettings:
        if self.rollouts_per_step % self.updates_per_step:
            raise ValueError(f"{self.rollouts_per_step} rollouts cannot be split into {self.updates_per_step} updates")
        return self


class OptimizerSettings(Section):
    """The optimizer of the inner training (InnerOptimizer of the engine)."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: Rate
    total_lr: Rate | None = Field(
        None,
        description="In place of lr: each of a training's T steps has total_lr / T, so that short and long ones "
        "move as far.",
        json_schema_extra=ADDED,
    )
    betas: tuple[Share, Share] = (0.9, 0.95)
    eps: Weight = 1e-8
    eps_root: Weight = 1e-9
    weight_decay: Weight = 1e-4
    momentum: Share = 0.0

    def rate(self, steps: int) -> float:
        """The learning rate of each step of a training of `steps` steps."""
        return self.lr if self.total_lr is None else self.total_lr / steps


class InnerSettings(Section):
    """The learning algorithm A: how the target is trained on rollouts."""

    steps: Count = Field(1, description="T, optimizer steps of the training whose metagradient is taken.")
    warmup_steps: int = Field(
        0,
        ge=0,
        le=MOST,
        description="Steps on the same texts before those: trained, not differentiated; the T steps then start "
        "from there.",
        json_schema_extra=ADDED,
    )
    warmup_lr: Rate | None = Field(
        None, description="Learning rate of the warm-up; default: the optimizer's.", json_schema_extra=ADDED
    )
    warmup_after: int = Field(
        0,
        ge=0,
        le=MOST,
        description="GRPO steps whose rewards come without the warm-up, before it sets in.",
        json_schema_extra=ADDED,
    )
    cross_group: bool = Field(
        True, description="All rollouts of a step train one target; off: one target per rollout rank."
    )
    set_steps: Literal["whole", "share"] = Field(
        "whole",
        description="Inner steps of a set that holds one rollout of each prompt: whole, T of them, as the paper says; "
        "share, T divided by the number of sets, so that steps are as large as ever, as the authors' code does.",
        json_schema_extra=ADDED,
    )
    optimizer: OptimizerSettings
    max_tokens: int = Field(128, ge=2, le=MOST)
    prepend_bos: bool = Field(True, description="So that a text's first token is scored too.")
    append_eos: bool = False
    score_eos: bool = Field(
        True,
        description="Train on end-of-text tokens too; the authors leave every one out.",
        json_schema_extra=ADDED,
    )
    shuffle_seed: Seed | None = Field(42, description="One fixed order of the training set; null: as generated.")
    fixed_length: Count | None = Field(
        None, description="Authors: loss of an example = sum of token NLL / this number."
    )
    summed_microbatches: Count | None = Field(
        None, description="Authors: an inner batch is this many microbatches whose mean gradients are summed."
    )
    trained_padding: TokenId | None = Field(
        None,
        description="Authors: pad every text to max_tokens with this token id and train on it, but not on its first.",
        json_schema_extra=ADDED,
    )
    microbatch: Count | None = Field(None, description="Examples per pass; equal numbers, less memory.")
    memory_budget: int | None = Field(
        None, ge=1, le=2**60, description="Bytes for stored states.", json_schema_extra=NEUTRAL
    )
    sharded: bool = Field(
        False,
        description="Under a launcher each process holds its share of the target's weights and optimizer states, and "
        "of the weights beside it one layer at a time; equal numbers to rounding, for a target larger than one GPU.",
        json_schema_extra=NEUTRAL,
    )

    def steps_of_set(self, sets: int) -> int:
        """Inner steps of each of `sets` training sets that a GRPO step's rollouts form."""
        return self.steps if self.set_steps == "whole" else max(1, self.steps // sets)


class ValidationSettings(Section):
    every: Count = Field(5, description="GRPO steps between validations; the last step is always validated.")
    scaled: bool = Field(
        True,
        description="With --inner-steps, validate after as many examples at every T; false: after as many GRPO steps, "
        "as the authors do.",
        json_schema_extra=ADDED,
    )
    prompts: Count = Field(64, description="Held-out articles, one rollout each.")
    inner_steps: Count | None = Field(None, description="T of the validation training; default: inner.steps.")
    samples: int = Field(
        8, ge=0, le=10**6, description="Sampled texts kept at each validation.", json_schema_extra=NEUTRAL
    )


class KeepSettings(Section):
    """What is kept of a training to look at; it changes no number."""

    rollouts: Annotated[int, Field(ge=0, le=1_000_000)] | Literal["all"] = Field(
        8, description="Rollouts kept of each GRPO step, with reward, advantage and prompt: a number, or all."
    )
    generator: Literal["final", "best", "none"] = Field(
        "final",
        description="Which trained generator stays in the cell's folder: that of the last step, that of the best "
        "validation (the first of several that are as good), or none.",
    )


class EvaluationSettings(Section):
    """How `evaluate` trains fresh targets on generated data (Appendix C): plain training as a user would do it, the
    same for every row of its table. No cell depends on it."""

    tokens: Count = Field(100_000, description="Generated tokens that a target is trained on, replay not counted.")
    replay: str | None = Field(None, description="Texts that are mixed in: as data.articles, which is the default.")
    replay_share: Share = Field(0.25, description="Of the tokens of a training, those of replay.")
    rates: tuple[Rate, ...] = Field(
        (1e-4, 3e-4, 1e-3),
        min_length=1,
        description="Learning rates that every row tries; one is chosen by the validation passages.",
    )
    batch: Count = Field(64, description="Rows an update: texts, or contexts where they are packed.")
    microbatch: Count | None = Field(None, description="Rows a backward pass; default: all of an update.")
    context: int | None = Field(
        None, ge=8, le=MOST, description="Tokens of a context that texts are packed into; default: a text a row."
    )
    warmup_share: Share = Field(0.1, description="Of the updates, those in which the rate rises; then it falls.")
    weight_decay: Weight = 0.01
    betas: tuple[Share, Share] = (0.9, 0.95)
    max_grad_norm: float = Field(1.0, gt=0, le=1e12)
    articles: Count = Field(256, description="Held-out articles whose loss says what it cost elsewhere.")
    other_target: str | None = Field(
        None,
        description="A target that no signal ever saw; null: one made of the embedded world, if the profile has that.",
    )
    multiples: tuple[Count, ...] = Field(
        (1, 4, 16),
        min_length=1,
        description="Of a step's texts, how many times so many a target is trained on where a task has no passages.",
    )


class TaskSettings(Section):
    options: dict[str, Any] = Field(default_factory=dict)


class RewardSettings(Section):
    options: dict[str, Any] = Field(default_factory=dict)
    seconds: float | None = Field(
        None,
        gt=0,
        le=1e7,
        description="Seconds that the rewards of one step may take before the cell fails; default: any.",
        json_schema_extra=NEUTRAL,
    )


class Settings(Section):
    """Everything that one cell needs, resolved."""

    generator: GeneratorSettings
    target: TargetSettings
    data: DataSettings
    grpo: GrpoSettings
    inner: InnerSettings
    validation: ValidationSettings = ValidationSettings()
    keep: KeepSettings = Field(KeepSettings(), json_schema_extra=NEUTRAL)
    evaluation: EvaluationSettings = Field(EvaluationSettings(), json_schema_extra=NEUTRAL)
    task: TaskSettings = TaskSettings()
    reward: RewardSettings = RewardSettings()


OPTIONS = ("task.options", "reward.options")
"""Where the names are the task's and the reward's own: they declare them (harness/registry.py)."""


@cache
def known_keys(model: type[BaseModel] = Settings, prefix: str = "") -> tuple[str, ...]:
    """Every dotted key that `--set` takes, in the order of the schema."""
    keys: list[str] = []
    for name, info in model.model_fields.items():
        annotation = info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys += known_keys(annotation, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return tuple(keys)


@cache
def required_keys(model: type[BaseModel] = Settings, prefix: str = "") -> tuple[str, ...]:
    """Dotted keys without a default: those that a profile has to give."""
    keys: list[str] = []
    for name, info in model.model_fields.items():
        if info.is_required():
            section = info.annotation
            below = isinstance(section, type) and issubclass(section, BaseModel)
            keys += required_keys(section, f"{prefix}{name}.") if below else [f"{prefix}{name}"]
    return tuple(keys)


@cache
def neutral_keys(model: type[BaseModel] = Settings, prefix: str = "", all_below: bool = False) -> frozenset[str]:
    """Every dotted key that cannot change a number."""
    keys: set[str] = set()
    for name, info in model.model_fields.items():
        extra = info.json_schema_extra
        neutral = all_below or (isinstance(extra, dict) and extra.get("identity") is False)
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            keys |= neutral_keys(info.annotation, f"{prefix}{name}.", neutral)
        elif neutral:
            keys.add(f"{prefix}{name}")
    return frozenset(keys)


@cache
def groups() -> frozenset[str]:
    """Every dotted name that stands for several settings, such as `inner.optimizer`."""
    parts = (key.split(".") for key in known_keys())
    return frozenset(OPTIONS) | {".".join(part[:n]) for part in parts for n in range(1, len(part))}


def identity_view(section: BaseModel) -> dict[str, Any]:
    """The section as plain data without the fields that cannot change a number."""
    view: dict[str, Any] = {}
    for name, info in type(section).model_fields.items():
        extra = info.json_schema_extra
        mark = extra.get("identity") if isinstance(extra, dict) else None
        value = getattr(section, name)
        if mark is False or (mark == ADDED["identity"] and value == info.get_default(call_default_factory=True)):
            continue
        view[name] = identity_view(value) if isinstance(value, BaseModel) else value
    return view
