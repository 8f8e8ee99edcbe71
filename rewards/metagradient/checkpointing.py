"""What is kept between the walk forward and the walk back, chosen by a cost model under a memory budget.

Step t needs its state (theta_t, optimizer) and gradient g_t again on the way back. Given the gradients, states are
replayed by the optimizer's update alone, which is cheap; without them, the gradient pass runs once more. So the choice
is: a checkpoint of the state every `segment` steps; gradients kept or recomputed; both in memory, or spilled to host
memory or disk. Memory left over, up to `GRAPHS_AT_MOST`, keeps the differentiable graphs of the last steps: each saves
one gradient pass. So does a recording of the first step's backward pass (directional.py), which needs no second
derivative.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from itertools import product

import torch

from rewards.metagradient.allocator import keeps_freed_memory
from rewards.metagradient.errors import MemoryBudgetError

FREE_SHARE = 0.5
"""Share of the free memory that is the default budget."""
DISK_SHARE = 0.9
"""Share of the free disk that may hold spilled states: a file system that is full to the last byte stops others too."""
HOST_SECONDS_PER_BYTE = 1.0 / 8e9
"""One way between a device and host memory: 8 GB/s, about what PCIe gives to memory that is not pinned."""
DISK_SECONDS_PER_BYTE = 1.0 / 5e8
"""One way to a disk: 500 MB/s, as an ordinary SSD."""
UPDATE_VECTORS, VECTOR_BYTES_PER_SECOND = 8, 5e9
"""Parameter-sized vectors that an optimizer's update reads or writes, and how fast: a slow host's memory. The time
matters only against recomputation and spilling, so its order of magnitude is enough."""

GRAPHS_AT_MOST = 2 << 30
"""Bytes of graphs of several steps that are worth their memory on a CPU. Measured on the miniature on a machine of
24 GB that other programs used as well, beside states kept alone: 1.3 GB of graphs (8 steps) saved a fifth of the time,
6 GB (34 of 96) nothing, and 12 GB (81 of 96) cost two fifths, presumably because a host has to find and zero every page
that is used for the first time."""
GRAPHS_AT_MOST_IF_KEPT = 8 << 30
"""The same where the process keeps freed memory, so that pages are new in the first call alone
(reports/studies/metagradient, T = 96)."""

PASS_FLOPS = 6
"""FLOP a parameter and token: a multiplication and an addition, forward and twice backward."""
FLOPS = {"cpu": 6e10}
"""FLOP a second of a gradient pass, by device, else `FLOPS_ELSE`: on one core of the miniature's machines 4e10 to 6e10.
No clock is asked: plans differ in the last digits of what they compute, so that a plan by the clock would make the same
training end otherwise when the machine is busy."""
FLOPS_ELSE = 3e13
"""Of an accelerator, assumed: some tens of TFLOP/s in float32 or TF32 is what any of the last years reaches."""


@dataclass(frozen=True)
class Costs:
    """What the cost model knows.

    vector            bytes of one parameter-sized vector
    slots             such vectors in an optimizer state
    graph             bytes of one step's differentiable graph, its own vectors included
    gradient_seconds  of one step's gradient pass (`pass_seconds`)
    update_seconds    of one optimizer update
    single_pass       whether a step is one pass (no microbatches), whose own graph is not counted against the budget
    graphs_at_most    bytes of kept graphs that pay, whatever the budget
    recording         bytes of the recording of the first step's backward pass; None: there is none
    """

    vector: int
    slots: int
    graph: int
    gradient_seconds: float
    update_seconds: float
    single_pass: bool = True
    graphs_at_most: float = math.inf
    recording: int | None = None


@dataclass(frozen=True)
class Tier:
    """A place to keep things: "memory" (where the model is), "host" or "disk"; bytes free, seconds per byte one way."""

    name: str
    free: int
    seconds_per_byte: float = 0.0


@dataclass(frozen=True)
class MemoryPlan:
    """How a metagradient was computed.

    strategy       "unrolled" (every graph kept), "kept" (every state), "replayed" (gradients kept, states replayed),
                   "recomputed" (gradients too), or "spilled" (something lies in host memory or on disk)
    segment        steps between checkpoints of the state
    checkpoints    tier of the checkpoints: "memory", "host" or "disk"
    gradients      tier of the gradients, or "recomputed"
    joint          whether a recomputed gradient may share its graph with the directional pass that follows it at once
    recorded       whether the first step keeps a recording of its backward pass
    graphs         how many last steps keep their differentiable graph
    bytes          expected peak of what is kept in memory; `spilled_bytes`: elsewhere
    extra_passes   expected cost beside the two walks, in plain gradient passes over all T steps
    seconds        expected cost beside the two walks
    budget         bytes
    """

    strategy: str
    steps: int
    segment: int
    checkpoints: str
    gradients: str
    joint: bool
    recorded: bool
    graphs: int
    bytes: int
    spilled_bytes: int
    extra_passes: float
    seconds: float
    budget: int


def graphs_at_most(device: str) -> float:
    """Bytes of kept graphs that are worth their memory on a device of this type."""
    if device != "cpu":
        return math.inf
    return GRAPHS_AT_MOST_IF_KEPT if keeps_freed_memory() else GRAPHS_AT_MOST


def update_seconds(vector: int) -> float:
    """Expected seconds of one optimizer update of `vector` bytes of parameters."""
    return UPDATE_VECTORS * vector / VECTOR_BYTES_PER_SECOND


def pass_seconds(parameters: int, tokens: float, device: str) -> float:
    """Expected seconds of a gradient pass; attention's own products are left out."""
    return PASS_FLOPS * parameters * tokens / FLOPS.get(device, FLOPS_ELSE)


def choose(steps: int, costs: Costs, tiers: list[Tier]) -> MemoryPlan:
    """The cheapest plan that fits; among equals the smallest. The first tier is "memory", its `free` the budget.

    Raises MemoryBudgetError where none fits.
    """
    names = [tier.name for tier in tiers]
    candidates = [
        _evaluate(steps, costs, tiers, *choice)
        for choice in product(_segments(steps), names, ["recomputed", *names], {False, costs.recording is not None})
    ]
    fitting = [plan for plan, fits in candidates if fits]
    if not fitting:
        least = min(plan.bytes for plan, _ in candidates)
        raise MemoryBudgetError(
            f"A memory_budget of {tiers[0].free:,} bytes is too small for {steps} steps with {costs.vector:,} bytes of "
            f"parameters: the least is {least:,} bytes; raise it, or give spill_dir so that states may go to disk."
        )
    return min(fitting, key=lambda plan: (plan.seconds, plan.bytes))


def _evaluate(
    steps: int, costs: Costs, tiers: list[Tier], segment: int, checkpoints: str, gradients: str, recorded: bool
) -> tuple[MemoryPlan, bool]:
    """(plan, whether it fits)."""
    used = {tier.name: 0 for tier in tiers}
    memory, state = tiers[0], (1 + costs.slots) * costs.vector
    used[checkpoints] += state * math.ceil(steps / segment)
    again = 0
    if gradients == "recomputed":
        used[memory.name] += costs.vector * (segment + (steps > segment))
    else:
        used[gradients] += costs.vector * steps
    if segment > 1:  # the states replayed within a segment
        used[memory.name] += state * (segment - 1)
    if checkpoints != memory.name:
        used[memory.name] += state
    if gradients not in (memory.name, "recomputed"):
        used[memory.name] += costs.vector * segment
    if recorded:
        used[memory.name] += costs.recording
    left = memory.free - used[memory.name]
    joint = costs.single_pass or left >= costs.graph
    graphs = int(min(steps - recorded, max(min(left, costs.graphs_at_most), 0) // max(costs.graph, 1)))
    if gradients == "recomputed":
        whole = (steps - 1) // segment  # segments before the last, whose gradients the walk forward has just made
        again = whole * (segment - 1 if joint else segment)
        again = max(again - max(graphs - (steps - whole * segment), 0), 0)  # a graph comes with its gradient
    seconds = again * costs.gradient_seconds + (steps * costs.update_seconds if segment > 1 else 0.0)
    seconds += sum(2 * used[tier.name] * tier.seconds_per_byte for tier in tiers)
    spilled = sum(used[tier.name] for tier in tiers[1:])
    plan = MemoryPlan(
        strategy=_name(segment, gradients, graphs + recorded == steps, spilled > 0),
        steps=steps,
        segment=segment,
        checkpoints=checkpoints,
        gradients=gradients,
        joint=joint,
        recorded=recorded,
        graphs=graphs,
        bytes=used[memory.name] + graphs * costs.graph,
        spilled_bytes=spilled,
        extra_passes=again / steps,
        seconds=seconds - (graphs + recorded) * costs.gradient_seconds,
        budget=memory.free,
    )
    return plan, all(used[tier.name] <= tier.free for tier in tiers)


def _name(segment: int, gradients: str, every_graph: bool, spilled: bool) -> str:
    if spilled:
        return "spilled"
    if every_graph:
        return "unrolled"
    if segment == 1:
        return "kept"
    return "recomputed" if gradients == "recomputed" else "replayed"


def _segments(steps: int) -> list[int]:
    """Lengths worth trying: each gives another number of checkpoints."""
    root = math.isqrt(steps)
    return sorted({1, steps} | set(range(1, root + 2)) | {math.ceil(steps / n) for n in range(1, root + 2)})


def free_tiers(device: torch.device, budget: int | None, spill_dir: str | None) -> list[Tier]:
    """The places there are. Disk only where the caller names a directory; host memory where the model is elsewhere."""
    host = int(FREE_SHARE * host_free())
    if budget is None:
        budget = host if device.type == "cpu" else int(FREE_SHARE * _device_free(device))
    tiers = [Tier("memory", budget)]
    if device.type != "cpu":
        tiers.append(Tier("host", host, HOST_SECONDS_PER_BYTE))
    if spill_dir is not None:
        os.makedirs(spill_dir, exist_ok=True)
        tiers.append(Tier("disk", int(DISK_SHARE * shutil.disk_usage(spill_dir).free), DISK_SECONDS_PER_BYTE))
    return tiers


def host_free() -> int:
    """Bytes of host memory that can be had without swapping."""
    try:
        with open("/proc/meminfo") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    import psutil

    return psutil.virtual_memory().available


def _device_free(device: torch.device) -> int:
    if device.type != "cuda":
        return host_free()
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
