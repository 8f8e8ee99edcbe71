"""What a grid would cost before anything is loaded: FLOPs, memory and hours per phase, and what must be downloaded.

Counted per GRPO step with texts at their full allowed length, so every number is an upper bound of the work:

    forward of n tokens             F(n) = 2 * body * n + 4 * layers * heads * head_dim * span * n + 2 * head * scored
    training (forward and backward) 3 F
    metagradient, step t > 0        9 F: the gradient 3, differentiated once more from its graph 6
                                    (rewards/metagradient/gradients.py); 2 F in seconds for a graph that is built anew
    metagradient, step 0            4 F: read off the backward pass; 6 F with credit by token, in forward mode
    last step, the metric reading   at T = 1, F of the body and 3 F of the head; else 3 F and 7 F
    the head alone
    generation                      F of each prompt, once a group, and of each new token
    update                          3 F of each prompt (once a group with shared_prompts) and of each completion, and F
                                    again for the old log-probabilities where those of the draw do not serve

Seconds of a phase = FLOPs / rate + bytes / bandwidth + layer calls x their fixed price. Bytes are the weights read by
each pass, what elementwise operations move (ELEMENTWISE vectors a token and layer, LOGITS per logit) and the keys and
values read at each new token. scripts/bench_phases.py holds these estimates against measured phases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from harness import assets
from harness.machine import processes
from harness.machine.devices import DATASHEETS, Device
from harness.planning.shapes import Shape, known_assets, shape_of
from harness.registry import REWARDS, TASKS
from harness.settings.schema import Settings
from harness.store.checkpoint import KEPT as CHECKPOINTS

ELEMENTWISE = 65
"""Hidden-sized vectors read or written per token and layer of a forward pass: norms, residuals, rotations, MLP."""
LOGITS = 8
"""Reads and writes per logit of a forward pass: the product itself, its float32 copy, softmax, loss."""
SCORES = 8
"""Reads and writes per attention score where attention is eager (targets)."""
USABLE_MEMORY = 0.9
"""Share of a device's memory that may be planned with: its context and the allocator's gaps take the rest."""
TRAINING_FORWARDS = 3
"""Forward passes' worth of work (F above) of a training step."""
RECORDED_FORWARDS, FORWARD_MODE_FORWARDS, SECOND_FORWARDS, AGAIN_FORWARDS = 1, 3, 6, 2
"""What a metagradient adds: to the first step where its rewards are read off its backward pass, or found in forward
mode; to a later step whose graph is kept; and where it is not, for building it anew."""
TRAINING_VECTORS, METAGRADIENT_VECTORS = 10, 40
"""Parameter-sized vectors read or written a step: optimizer updates; with their pullbacks and the adjoints."""
OPTIMIZER_VECTORS = 8
"""The same of one AdamW update of the generator, float32: weights, gradient and two moments, each read and written."""
ACTIVATION_VECTORS = 12
"""Hidden-sized vectors a token and layer keeps for its backward pass: inputs of norms, projections and residuals."""
MLP_VECTORS = 4
"""Vectors of the MLP's width that it keeps: gate, up, their product, the activation."""
UPDATE_LOGITS, GENERATION_LOGITS, TRAINING_LOGITS = 4, 3, 3
"""Copies of the logits held at the peak of the generator's update, of generation and of inner training."""
SCORE_COPIES = 3
"""Copies of the attention scores that an eager layer keeps: before and after softmax, and masked."""
TRAINING_STATES, METAGRADIENT_STATES = 3, 4
"""Parameter-sized vectors resident in inner training (weights before and after an update, gradient), and those that a
metagradient adds (adjoint, direction, Hessian-vector product, a checkpoint's weights). To each come the optimizer's."""
GATHERED_COPIES = 4
"""Of a sharded training's largest layer: its weight, a direction, and what is sent to be summed of both."""
ADAM_SLOTS = 2
"""Moments of Adam."""
GRAPH_FACTOR = 2.5
"""A graph that can be differentiated twice against one that cannot, in bytes."""


@dataclass(frozen=True)
class Work:
    """Floating-point operations, bytes moved, layer calls; adds and scales.

    again  operations done a second time to save memory: they take time, and no floor counts them
    """

    flops: float = 0.0
    moved: float = 0.0
    calls: float = 0.0
    again: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.flops + other.flops, self.moved + other.moved, self.calls + other.calls, self.again + other.again
        )

    def __mul__(self, times: float) -> Work:
        return Work(self.flops * times, self.moved * times, self.calls * times, self.again * times)

    def seconds(self, device: Device, dtype: str) -> float:
        products = (self.flops + self.again) / device.rate(dtype)
        return products + self.moved / (device.bandwidth * device.share) + self.calls * device.call


@dataclass(frozen=True)
class Phase:
    """One phase of a GRPO step; `memory` in bytes at its peak, with what stays resident."""

    name: str
    flops: float
    seconds: float
    memory: int


@dataclass(frozen=True)
class CellEstimate:
    """A cell's phases ("validation" is one validation, not one step) and totals."""

    phases: tuple[Phase, ...]
    steps: int
    validations: int
    rollouts: int
    tokens: int
    """Generated and read by the generator over the whole cell, validation included."""
    disk: int
    """Bytes of the generator that it keeps."""
    checkpoints: int
    """Bytes that it has on the disk beside while it runs, at most."""

    @property
    def flops(self) -> float:
        return sum(phase.flops * self._times(phase) for phase in self.phases)

    @property
    def hours(self) -> float:
        return sum(phase.seconds * self._times(phase) for phase in self.phases) / 3600

    @property
    def memory(self) -> int:
        return max(phase.memory for phase in self.phases)

    @property
    def step_seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases if phase.name != "validation")

    def _times(self, phase: Phase) -> int:
        return self.validations if phase.name == "validation" else self.steps


WIDTH = {"bfloat16": 2, "float32": 4, "float64": 8}
"""Bytes of a number."""


def forward(
    shape: Shape, tokens: float, *, span: float, scored: float, bytes_each: int, passes: float = 1, eager: bool = False
) -> Work:
    """`tokens` through the model in `passes` calls, each looking back over `span` positions on average, with logits at
    `scored` of them. `eager`: attention scores are written to memory."""
    width = shape.heads * shape.head_dim
    flops = 2 * shape.body * tokens + 4 * shape.layers * width * span * tokens + 2 * shape.head * scored
    weights = passes * (shape.body + shape.head) * bytes_each
    moved = tokens * shape.layers * shape.hidden * ELEMENTWISE * bytes_each + scored * shape.vocab * LOGITS * 4
    if eager:
        moved += tokens * shape.layers * shape.heads * span * SCORES * bytes_each
    return Work(flops, moved + weights, passes * shape.layers)


@dataclass(frozen=True)
class Lengths:
    """Mean tokens of a text: what a plan allows, or what was counted."""

    prompt: float
    rollout: float
    trained: float
    """A rollout as the target reads it."""
    referred: float | None = None
    """A text that the metric reads; None: as long as the task declares."""

    @classmethod
    def allowed(cls, settings: Settings) -> Lengths:
        generator = settings.generator
        return cls(generator.max_prompt_tokens, generator.max_completion_tokens, settings.inner.max_tokens)


def generation(shape: Shape, settings: Settings, lengths: Lengths, prompts: int, group: int) -> Work:
    """Prompts read, then one pass a new token over all rollouts that are under way together."""
    generator = settings.generator
    prompt, new, each = lengths.prompt, lengths.rollout, WIDTH[generator.dtype]
    rollouts = prompts * group
    batch = min(generation_batch(settings), rollouts)
    rounds = math.ceil(rollouts / batch)
    work = forward(shape, prompts * prompt, span=prompt / 2, scored=prompts, bytes_each=each, passes=rounds)
    work += forward(
        shape, rollouts * new, span=prompt + new / 2, scored=rollouts * new, bytes_each=each, passes=rounds * new
    )
    cache = 2 * shape.layers * shape.kv_heads * shape.head_dim * each  # keys and values of one token
    return work + Work(moved=new * (prompts * prompt + rollouts * new / 2) * cache)


def update(shape: Shape, settings: Settings, lengths: Lengths) -> Work:
    generator, grpo = settings.generator, settings.grpo
    prompt, new, each = lengths.prompt, lengths.rollout, WIDTH[generator.dtype]
    rollouts, size = grpo.rollouts_per_step, grpo.backward_size()
    passes = rollouts / size
    if grpo.shared_prompts:
        read = passes * math.ceil(size / grpo.rollouts_per_prompt)
        one = forward(shape, read * prompt, span=prompt / 2, scored=read, bytes_each=each, passes=passes)
        one += forward(
            shape, rollouts * new, span=prompt + new / 2, scored=rollouts * new, bytes_each=each, passes=passes
        )
    else:
        length = prompt + new
        one = forward(shape, rollouts * length, span=length / 2, scored=rollouts * new, bytes_each=each, passes=passes)
    optimizer = Work(moved=grpo.updates_per_step * shape.parameters * WIDTH["float32"] * OPTIMIZER_VECTORS)
    drawn = generator.dtype == "float32" and generator.backend == "transformers"
    # Whether the draw's log-probabilities are the old ones.
    serves = drawn and (grpo.shared_prompts or generator.true_positions)
    return one * (TRAINING_FORWARDS + (grpo.updates_per_step > 1 and not serves)) + optimizer


@dataclass(frozen=True)
class Forwards:
    """Forward passes' worth of work of an inner training, summed over its steps: those of the body and of the head, and
    those of both that save memory (`Work.again`)."""

    body: int
    head: int
    again: int = 0


def inner_forwards(steps: int, *, metagradient: bool, by_token: bool = False, head_alone: bool = False) -> Forwards:
    """Of `steps` optimizer steps, each on its own texts, or of the metagradient through them.

    by_token    credit goes to tokens, which one backward pass does not tell apart but at the head
    head_alone  nothing but the head is read after the last step, which then sends no gradient into the body
    """
    body = head = TRAINING_FORWARDS * steps
    if head_alone:
        body, head = body - 2, head - 1
    if not metagradient:
        return Forwards(body, head)
    if steps == 1 and head_alone:
        return Forwards(body, head + RECORDED_FORWARDS)
    first = FORWARD_MODE_FORWARDS if by_token else RECORDED_FORWARDS
    later, again = SECOND_FORWARDS * (steps - 1), AGAIN_FORWARDS * (steps - 1)
    if head_alone:  # <direction, the head's gradient> has one backward pass through the body, not two in one another
        return Forwards(body + first + later - 4, head + first + later - 1, again - 1)
    return Forwards(body + first + later, head + first + later, again)


def training(
    shape: Shape,
    settings: Settings,
    lengths: Lengths,
    texts: int,
    steps: int,
    metagradient: bool = False,
    head_alone: bool = False,
) -> Work:
    """Inner training on `texts` in `steps` optimizer steps, or the metagradient through it. `head_alone`: the metric
    reads the LM head and nothing else."""
    inner, each, length = settings.inner, WIDTH[settings.target.dtype], lengths.trained
    passes = max(steps, texts / (inner.microbatch or texts))
    one = forward(
        shape, texts * length, span=length / 2, scored=texts * length, bytes_each=each, passes=passes, eager=True
    )
    # A head that is also the embeddings is moved through the body too.
    head_alone = head_alone and not shape.tied
    by_token = metagradient and settings.reward.options.get("credit") == "token"
    count = inner_forwards(steps, metagradient=metagradient, by_token=by_token, head_alone=head_alone)
    at_head = 2 * shape.head * texts * length
    work = one * (count.body / steps) + Work(flops=at_head * (count.head - count.body) / steps)
    again = replace(one * (count.again / steps), flops=0.0, again=one.flops * count.again / steps)
    vectors = (METAGRADIENT_VECTORS if metagradient else TRAINING_VECTORS) * shape.parameters * each
    return work + again + Work(moved=steps * vectors)


def warmup(shape: Shape, settings: Settings, lengths: Lengths, texts: int) -> Work:
    """The plain training on the same texts before, if the settings ask for one."""
    steps = settings.inner.warmup_steps
    return training(shape, settings, lengths, texts, steps) if steps else Work()


def metric(shape: Shape, settings: Settings, lengths: Lengths, task: str, factor: float) -> Work:
    """`factor` forward passes over what the task's metric reads, as the task declares it."""
    cost = TASKS.get(task).declares.metric_cost(settings.task.options)
    if cost is None:
        return Work()
    length = min(lengths.referred or cost.tokens, shape.positions or cost.tokens)
    each = WIDTH[settings.target.dtype]
    work = forward(
        shape,
        cost.texts * length,
        span=length / 2,
        scored=cost.texts * cost.scored,
        bytes_each=each,
        passes=cost.texts / cost.batch,
        eager=True,
    )
    return work * factor


@dataclass(frozen=True)
class PhaseWork:
    """What the generator and the target do in a phase."""

    generator: Work = Work()
    target: Work = Work()

    @property
    def flops(self) -> float:
        return self.generator.flops + self.target.flops

    def seconds(self, device: Device, settings: Settings) -> float:
        """What it takes, as the module's docstring says."""
        generator, target = dtypes(settings)
        return self.generator.seconds(device, generator) + self.target.seconds(device, target)

    def floor_seconds(self, device: Device, settings: Settings) -> float:
        """What its FLOPs alone would take as large matrix products, each model's in its own dtype."""
        generator, target = dtypes(settings)
        return self.generator.flops / device.product_rate(generator) + self.target.flops / device.product_rate(target)


def dtypes(settings: Settings) -> tuple[str, str]:
    """(generator's, target's) by the names of `Device.flops`."""
    target = settings.target
    return settings.generator.dtype, "tf32" if target.tf32 and target.dtype == "float32" else target.dtype


def step_work(
    settings: Settings, task: str, reward: str, shapes: tuple[Shape, Shape], lengths: Lengths, warmed: float
) -> dict[str, PhaseWork]:
    """Generation, reward and update of a GRPO step with generator and target of these shapes. `warmed`: 1 where the
    reward's trainings have their warm-up, 0 where they have none; the share of such steps for a mean step."""
    generator_shape, target_shape = shapes
    grpo, inner, how = settings.grpo, settings.inner, REWARDS.get(reward).training
    scored = Work()
    if how:
        sets = how.sets(inner.cross_group, grpo.rollouts_per_prompt)
        scored = warmup(target_shape, settings, lengths, grpo.rollouts_per_step) * warmed
        head_alone = TASKS.get(task).declares.reads_head_alone
        steps = inner.steps_of_set(sets)
        scored += training(target_shape, settings, lengths, grpo.rollouts_per_step, steps, how.metagradient, head_alone)
        passes = TRAINING_FORWARDS if how.metagradient else 1
        scored += metric(target_shape, settings, lengths, task, sets * passes)
    made = generation(generator_shape, settings, lengths, grpo.prompts_per_step, grpo.rollouts_per_prompt)
    return {
        "generation": PhaseWork(made),
        "reward": PhaseWork(target=scored),
        "update": PhaseWork(update(generator_shape, settings, lengths)),
    }


def validation_work(settings: Settings, task: str, shapes: tuple[Shape, Shape], lengths: Lengths) -> PhaseWork:
    """One validation: rollouts on held-out prompts, a fresh target trained on them, and the metric of it before and
    after."""
    generator_shape, target_shape = shapes
    validation = settings.validation
    steps = validation.inner_steps or settings.inner.steps
    checked = warmup(target_shape, settings, lengths, validation.prompts)
    head_alone = TASKS.get(task).declares.reads_head_alone
    checked += training(target_shape, settings, lengths, validation.prompts, steps, head_alone=head_alone)
    checked += metric(target_shape, settings, lengths, task, 2)
    return PhaseWork(generation(generator_shape, settings, lengths, validation.prompts, 1), checked)


# --------------------------------------------------------------------------------------------------------------- memory


def generation_batch(settings: Settings) -> int:
    """Rollouts under way at a time."""
    return settings.generator.batch or settings.grpo.rollouts_per_step


def generator_states(shape: Shape, settings: Settings) -> int:
    """Weights, gradients and the optimizer: bf16 weights and gradients with a float32 copy and two moments, or those
    four in float32 throughout."""
    return shape.parameters * (2 + 2 + 3 * 4 if settings.generator.dtype == "bfloat16" else 4 * 4)


def generation_memory(shape: Shape, settings: Settings) -> int:
    each, generator = WIDTH[settings.generator.dtype], settings.generator
    batch = min(generation_batch(settings), settings.grpo.rollouts_per_step)
    groups = math.ceil(batch / settings.grpo.rollouts_per_prompt)
    tokens = groups * generator.max_prompt_tokens + batch * generator.max_completion_tokens
    cache = 2 * shape.layers * shape.kv_heads * shape.head_dim * each * tokens
    return int(cache + batch * shape.vocab * WIDTH["float32"] * GENERATION_LOGITS)


def update_memory(shape: Shape, settings: Settings) -> int:
    """Activations of one backward pass, and its logits."""
    each, rows = WIDTH[settings.generator.dtype], settings.grpo.backward_size()
    prompt, new = settings.generator.max_prompt_tokens, settings.generator.max_completion_tokens
    wide = ACTIVATION_VECTORS * shape.hidden + MLP_VECTORS * shape.intermediate
    tokens, copied = rows * (prompt + new), 0
    if settings.grpo.shared_prompts:
        tokens = math.ceil(rows / settings.grpo.rollouts_per_prompt) * prompt + rows * new
        copied = 2 * 2 * shape.kv_heads * shape.head_dim * rows * (prompt + new)  # keys, values of a prompt by rollout
    logits = rows * new * shape.vocab * WIDTH["float32"]
    return int((tokens * wide + copied) * shape.layers * each + UPDATE_LOGITS * logits)


def metric_memory(shape: Shape, settings: Settings, task: str) -> int:
    """Activations and logits of a pass over some of the texts that the task's metric reads: passes of a task that heeds
    `inner.memory_budget` are no larger than that, but for a single text."""
    entry = TASKS.get(task)
    cost = entry.declares.metric_cost(settings.task.options)
    if cost is None:
        return 0
    each, length = WIDTH[settings.target.dtype], min(cost.tokens, shape.positions or cost.tokens)
    wide = ACTIVATION_VECTORS * shape.hidden + MLP_VECTORS * shape.intermediate
    per_token = shape.layers * (wide + SCORE_COPIES * shape.heads * length)
    one = int((length * per_token + cost.scored * TRAINING_LOGITS * shape.vocab) * each)
    whole = min(cost.batch, cost.texts) * one
    budget = settings.inner.memory_budget if entry.made_of else None
    return whole if budget is None else max(one, min(whole, budget))


def training_memory(shape: Shape, settings: Settings, steps: int, metagradient: bool) -> int:
    """Parameter-sized vectors, one microbatch's activations (kept twice over for second derivatives) and its logits."""
    inner, each = settings.inner, WIDTH[settings.target.dtype]
    rows = inner.microbatch or math.ceil(settings.grpo.rollouts_per_step / steps)
    slots = 0 if inner.optimizer.name == "sgd" else ADAM_SLOTS
    vectors = TRAINING_STATES + slots + (METAGRADIENT_STATES + slots if metagradient else 0)
    wide = ACTIVATION_VECTORS * shape.hidden + MLP_VECTORS * shape.intermediate
    per_token = shape.layers * (wide + SCORE_COPIES * shape.heads * inner.max_tokens)
    held = rows * inner.max_tokens * (per_token + TRAINING_LOGITS * shape.vocab) * each
    states = vectors * shape.parameters * each / shards(settings) + gathered_memory(shape, settings)
    return int(states + held * (GRAPH_FACTOR if metagradient and steps > 1 else 1))


def resident_target(shape: Shape, settings: Settings, device: Device) -> int:
    """The model itself on the device; of a sharded training it stays in host memory."""
    return 0 if settings.inner.sharded and device.gpu else shape.parameters * WIDTH[settings.target.dtype]


def shards(settings: Settings) -> int:
    """Ranks that a parameter-sized vector of the target's training is divided among."""
    return processes.sharing_count() if settings.inner.sharded else 1


def gathered_memory(shape: Shape, settings: Settings) -> int:
    """What a sharded training holds whole at a time: of the largest layer its weight, a direction, their gradients."""
    if not settings.inner.sharded:
        return 0
    largest = max(shape.hidden * shape.vocab, shape.hidden * shape.intermediate)
    return GATHERED_COPIES * largest * WIDTH[settings.target.dtype]


# ------------------------------------------------------------------------------------------------------------ the whole


def estimate(
    settings: Settings, task: str, reward: str, device: Device, shapes: tuple[Shape, Shape] | None = None
) -> CellEstimate:
    """A cell's cost on `device`, with generator and target of the given shapes (default: the settings' models). Raises
    HarnessError if a model's shape is not known offline."""
    generator_shape, target_shape = shapes or (shape_of(settings.generator.model), shape_of(settings.target.model))
    if settings.target.untie_head:
        target_shape = target_shape.untied()
    shapes = generator_shape, target_shape
    grpo, inner, validation = settings.grpo, settings.inner, settings.validation
    how = REWARDS.get(reward).training
    metagradient = how is not None and how.metagradient
    allowed = Lengths.allowed(settings)
    warmed = max(0, grpo.steps - inner.warmup_after) / grpo.steps  # of the steps; one stands for the mean of all
    works = step_work(settings, task, reward, shapes, allowed, warmed)
    works["validation"] = validation_work(settings, task, shapes, allowed)

    states, target = generator_states(generator_shape, settings), resident_target(target_shape, settings, device)
    reward_peak = 0
    if how:
        passes = training_memory(target_shape, settings, inner.steps, metagradient)
        reward_peak = max(passes, metric_memory(target_shape, settings, task)) + target
    last_steps = validation.inner_steps or inner.steps
    validation_peak = training_memory(target_shape, settings, last_steps, False) + target
    rest = (0, 0) if offloads(settings, device, generator_shape, target_shape) else (states, target)
    memory = {
        "generation": states + generation_memory(generator_shape, settings) + rest[1],
        "reward": reward_peak + rest[0],
        "update": states + update_memory(generator_shape, settings) + rest[1],
        "validation": validation_peak + rest[0],
    }
    phases = tuple(
        Phase(name, work.flops, work.seconds(device, settings), memory[name]) for name, work in works.items()
    )
    validations = 1 + math.ceil(grpo.steps / validation.every)
    length = settings.generator.max_prompt_tokens + settings.generator.max_completion_tokens
    rollouts = grpo.steps * grpo.rollouts_per_step
    tokens = (rollouts + validations * validation.prompts) * length
    disk = kept_bytes(generator_shape, settings), checkpoint_bytes(generator_shape, settings)
    return CellEstimate(phases, grpo.steps, validations, rollouts, tokens, *disk)


def kept_bytes(shape: Shape, settings: Settings) -> int:
    """Of the generator in the cell's folder; its tokenizer is small beside it."""
    return shape.parameters * WIDTH[settings.generator.dtype] if settings.keep.generator != "none" else 0


def checkpoint_bytes(shape: Shape, settings: Settings) -> int:
    """Of two checkpoints and one that is being written: float32 weights, two moments, and the best weights where those
    are kept."""
    every = settings.grpo.checkpoint_every
    if not every or every >= settings.grpo.steps:
        return 0
    vectors = 1 + ADAM_SLOTS + (settings.keep.generator == "best")
    return (CHECKPOINTS + 1) * vectors * shape.parameters * WIDTH["float32"]


def offloads(settings: Settings, device: Device, generator_shape: Shape, target_shape: Shape) -> bool:
    """Whether generator and target take turns on the device: as set, or where both at work would fill it."""
    if settings.generator.offload != "auto":
        return settings.generator.offload == "always"
    states, target = generator_states(generator_shape, settings), resident_target(target_shape, settings, device)
    working = max(
        generation_memory(generator_shape, settings),
        update_memory(generator_shape, settings),
        training_memory(target_shape, settings, settings.inner.steps, True),
    )
    return states + target + working > USABLE_MEMORY * device.memory


MOST_CPU_HOURS = 100
"""A cell that would take a CPU longer is not one for it."""


def least_memory(settings: Settings, task: str, reward: str) -> int:
    """Bytes that a GPU must have for the cell as it is set, if generator and target take turns on it."""
    turns = settings.model_copy(update={"generator": settings.generator.model_copy(update={"offload": "always"})})
    return math.ceil(estimate(turns, task, reward, DATASHEETS["h200"]).memory / USABLE_MEMORY)


def needs_gpu(costs: Iterable[CellEstimate], device: Device) -> bool:
    """Whether one of the cells is too large or too long for this device, a CPU."""
    return not device.gpu and any(cost.memory > device.memory or cost.hours > MOST_CPU_HOURS for cost in costs)


def gpu_advice(cells: Iterable[tuple[Settings, str, str]]) -> str:
    """What the cells (settings, task, reward) need, in the unit that GPUs are sold by."""
    return f"needs a GPU with at least {math.ceil(max(least_memory(*cell) for cell in cells) / 1e9)} GB"


# -------------------------------------------------------------------------------------------------------- what to fetch


@dataclass(frozen=True)
class Download:
    """One asset of a plan: where it is, what it weighs (bytes, None: unknown), under which licence and gate."""

    ref: str
    here: bool
    size: int | None
    licence: str
    gate: str


def downloads(refs: Iterable[str]) -> list[Download]:
    """Every reference that is not embedded, each once."""
    from harness.assets import hub

    found = []
    for ref in dict.fromkeys(refs):
        if assets.is_embedded(ref):
            continue
        if assets.is_local(ref):
            found.append(Download(ref, True, None, "yours", ""))
            continue
        known = known_assets().get(hub.parse(ref).repo, {})
        size = int(float(known["bytes"])) if "bytes" in known else None
        licence = known.get("licence", "see its page on the hub")
        found.append(Download(ref, hub.cached(ref) is not None, size, licence, known.get("gate", "")))
    return found


def tokens_note(settings: Settings) -> str:
    g = settings.generator
    return f"texts of full length: prompts of {g.max_prompt_tokens}, rollouts of {g.max_completion_tokens} tokens"
