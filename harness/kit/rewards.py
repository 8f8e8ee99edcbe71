"""The contract of rewards, a probe a promise (`RewardFunction`, `Resumable` and `RewardEntry` say what is promised)."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from random import Random
from typing import Any

from harness.contracts import Resumable
from harness.kit.findings import Fault, Finding, LeftOut, Probe, ask
from harness.kit.ranks import under_two_processes
from harness.kit.subjects import Subject
from harness.kit.world import GENERATIONS, PROMPTS, Batch, World, demand_alike, task_for, texts, trl_columns
from harness.machine.devices import cuda_devices, peak_memory, reset_peak_memory
from harness.registry import FROM_FILE, REWARDS

MIB = 2**20
REPEATED = 20
"""How often the long completion says all of a batch's texts: several times what a target of the miniature reads."""
STRANGE = (
    "今天天气很好。",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "שלום עולם",
    "Привет, мир!",
    "👩\u200d🚀🏳️\u200d🌈",
    "e\u0301\u0302 ｆｕｌｌ",
    "\x00\u2028 \t",
)


class Bench:
    """What the probes of one reward share."""

    def __init__(self, subject: Subject, task: str, given: Mapping[str, Any], rollouts: int, processes: bool) -> None:
        self.subject, self.task, self.rollouts, self.processes = subject, task, rollouts, processes
        self.entry = REWARDS.get(subject.entry.name)
        self.world = World(task_for(self.entry.name, task), self.entry.name, given)


def check_reward(
    subject: Subject, task: str, given: Mapping[str, Any], rollouts: int, processes: bool, only: Collection[str]
) -> list[Finding]:
    """The findings of every probe, or of those in `only`. Raises HarnessError for a task that lacks what the reward
    needs and for bad settings."""
    return list(ask(subject.name, PROBES, Bench(subject, task, given, rollouts, processes), only))


def made(bench: Bench) -> str:
    if not callable(reward := bench.world.reward()):
        raise Fault(f"The factory returns a {type(reward).__name__}; it has to return TRL's reward callable.")
    return f"for the task {bench.world.task_name}"


def finite(bench: Bench) -> str:
    found = bench.world.rewards(bench.world.batch)
    return f"{len(found)} numbers from {min(found):.4g} to {max(found):.4g}"


def inputs(bench: Bench) -> str:
    """It is not the only one that reads them: further rewards, the trainer and the logs come after it."""
    batch = bench.world.batch
    given, before = batch.columns(), batch.columns()
    bench.world.reward()(**given, **trl_columns())
    if changed := [name for name in given if given[name] != before[name]]:
        raise Fault(f"It changes its {' and '.join(changed)}; others read them after it, so let it work on copies.")
    return "are as they were"


def order(bench: Bench) -> str:
    """Groups in another order, and rollouts within groups where no training set depends on their places there."""
    if not bench.entry.exchangeable:
        raise LeftOut("It declares that the place in the batch counts (exchangeable=False).")
    rng, training = Random(0), bench.entry.training
    whole = training is not None and not training.crosses_groups
    groups = [list(range(start, start + GENERATIONS)) for start in range(0, PROMPTS * GENERATIONS, GENERATIONS)]
    groups = [groups[number] for number in rng.sample(range(PROMPTS), PROMPTS)]
    moved = [place for group in groups for place in (group if whole else rng.sample(group, GENERATIONS))]
    found = bench.world.rewards(bench.world.batch)
    again = bench.world.rewards(bench.world.batch.in_order(moved))
    back = [again[moved.index(place)] for place in range(len(moved))]
    demand_alike(
        found,
        back,
        "when the rollouts come in another order",
        "a reward belongs to its completion, so compute it from that, or declare exchangeable=False",
    )
    return "another order of groups" + ("" if whole else " and rollouts") + " gives the same rewards in that order"


def deterministic(bench: Bench) -> str:
    one, other = (bench.world.rewards(bench.world.batch) for _ in range(2))
    demand_alike(one, other, "when it is made and asked again", "it is random, so give it a generator with a seed")
    return "made and asked twice, the same rewards"


def empty(bench: Bench) -> str:
    batch, tokenizer = bench.world.batch, bench.world.inner.tokenizer
    some = [text if place % 4 else "" for place, text in enumerate(batch.completions)]
    for completions in (some, [""] * len(some)):
        bench.world.rewards(Batch.of(completions, GENERATIONS, tokenizer))
    return "some empty, and all of them"


def long(bench: Bench) -> str:
    completions = [" ".join(bench.world.batch.completions * REPEATED), *bench.world.batch.completions[1:]]
    bench.world.rewards(Batch.of(completions, GENERATIONS, bench.world.inner.tokenizer))
    return f"{len(completions[0].split()):,} words"


def scripts(bench: Bench) -> str:
    completions = [STRANGE[place % len(STRANGE)] for place in range(PROMPTS * GENERATIONS)]
    bench.world.rewards(Batch.of(completions, GENERATIONS, bench.world.inner.tokenizer))
    return "Chinese, Arabic, Hindi, Hebrew, Russian, emoji, combining and control characters"


def conversational(bench: Bench) -> str:
    batch = bench.world.batch
    demand_alike(
        bench.world.rewards(batch),
        bench.world.rewards(batch.conversational()),
        "when prompts and completions are lists of messages",
        "read both with harness.contracts.completion_text",
    )
    return "messages get the rewards of their texts"


def generations(bench: Bench) -> str:
    tokenizer = bench.world.inner.tokenizer
    for group in (1, GENERATIONS):
        bench.world.rewards(Batch.of(texts(2 * group), group, tokenizer), bench.world.reward(group))
    return f"1 and {GENERATIONS} rollouts a prompt"


def cost(bench: Bench) -> str:
    if not bench.rollouts:
        raise LeftOut("Not asked for.")
    reward = bench.world.in_float32()
    batch = Batch.of(texts(bench.rollouts), GENERATIONS, bench.world.inner.tokenizer)
    bench.world.rewards(bench.world.batch, reward)  # what is loaded when first asked for is no part of it
    reset_peak_memory()
    before, begun = peak_memory() or 0, time.perf_counter()
    bench.world.rewards(batch, reward)
    seconds, more = time.perf_counter() - begun, ((peak_memory() or 0) - before) / MIB
    what = f"{bench.rollouts:,} rollouts of {_mean_tokens(batch):.0f} tokens"
    return f"{what}: {seconds:.2g} s, {more:.0f} MiB more{_on_gpu()}"


def _mean_tokens(batch: Batch) -> float:
    """Of a completion."""
    return sum(map(len, batch.completion_ids)) / len(batch.completion_ids)


def _on_gpu() -> str:
    if not cuda_devices():
        return ""
    import torch

    return f", {torch.cuda.max_memory_allocated() / MIB:.0f} MiB of the GPU"


STATE_METHODS = ("state_dict", "load_state_dict")


def state(bench: Bench) -> str:
    """What it remembers from step to step must survive a checkpoint, or a resumed run goes on otherwise."""
    world, reward = bench.world, bench.world.reward()
    methods = [name for name in STATE_METHODS if hasattr(reward, name)]
    if len(methods) == 1:
        raise Fault(f"It has {methods[0]} alone; a checkpoint needs {' and '.join(STATE_METHODS)}.")
    world.rewards(world.batch, reward)
    if not isinstance(reward, Resumable):
        demand_alike(
            world.rewards(world.other),
            world.rewards(world.other, reward),
            "after it has seen another batch",
            f"it remembers something, so give it {' and '.join(STATE_METHODS)}, or a resumed run goes on otherwise",
        )
        return "it remembers nothing from step to step"
    given = reward.state_dict()
    try:
        kept = json.loads(json.dumps(given))
    except (TypeError, ValueError) as error:
        raise Fault(f"Its state_dict is no plain JSON data ({error}); return numbers, texts, lists, dicts.") from error
    restored = world.reward()
    restored.load_state_dict(kept)
    demand_alike(
        world.rewards(world.other, reward),
        world.rewards(world.other, restored),
        "after its state was saved and restored",
        "its state_dict forgets something that rewards depend on",
    )
    return "saved and restored, it goes on with the same rewards"


def two_processes(bench: Bench) -> str:
    """Every rank of a launcher has all rollouts of a step and computes all rewards, sharing the trainings."""
    name, world = bench.entry.name, bench.world
    if not bench.processes:
        raise LeftOut("Not asked for.")
    if not REWARDS.everywhere(name) and not bench.entry.factory.__module__.startswith(f"{FROM_FILE}."):
        raise LeftOut("It is of this session alone, which other processes do not have; put it into a file.")
    alone = world.rewards(world.batch)
    ranks = under_two_processes([(bench.subject.word, bench.task, name, world.given)])[0]
    for number, found in enumerate(ranks):
        demand_alike(
            alone,
            found,
            f"for process {number} of two than for one alone",
            "every process must come to the same rewards, so let none depend on hashes, the process or the clock",
        )
    return "both come to the rewards of one alone"


PROBES = (
    Probe("made", "when it is made", made),
    Probe("finite", "on ordinary rollouts", finite),
    Probe("inputs", "on ordinary rollouts", inputs),
    Probe("order", "when rollouts come in another order", order),
    Probe("deterministic", "when it is asked again", deterministic),
    Probe("empty", "on empty completions", empty),
    Probe("long", "on a long completion", long),
    Probe("scripts", "on texts that are not Latin", scripts),
    Probe("conversational", "on conversational prompts", conversational),
    Probe("generations", f"with 1 or {GENERATIONS} rollouts a prompt", generations),
    Probe("state", "when its state is saved and restored", state),
    Probe("processes", "under two processes", two_processes),
    Probe("cost", "on many rollouts", cost),
)
