"""What is kept between the walk forward and the walk back, chosen by a cost model under a memory budget.

Step t needs its state (theta_t, optimizer) and gradient g_t again on the way back. Given g, states are replayed by the
optimizer's update alone, which is cheap; without it, the gradient pass runs once more. So the choice is: a checkpoint of
the state every `segment` steps; gradients kept or recomputed; both in memory, or spilled to host memory or disk. Memory
left over keeps the differentiable graphs of the last steps, each of which saves one gradient pass.
"""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from itertools import product

import torch

from rewards.metagradient.errors import MemoryBudgetError

FREE_SHARE = 0.5
"""Share of the free memory that is the default budget."""
HOST_SECONDS_PER_BYTE = 1.0 / 8e9
DISK_SECONDS_PER_BYTE = 1.0 / 5e8


@dataclass(frozen=True)
class Costs:
    """What the cost model knows: bytes of one parameter-sized vector, tensors in an optimizer state, bytes of one step's
    differentiable graph, seconds of one step's gradient pass and of one optimizer update."""

    vector: int
    slots: int
    graph: int
    gradient_seconds: float
    update_seconds: float


@dataclass(frozen=True)
class Tier:
    """A place to keep things: "memory" (where the model is), "host" or "disk"; bytes free, seconds per byte one way."""

    name: str
    free: int
    seconds_per_byte: float = 0.0


@dataclass(frozen=True)
class Plan:
    """How a metagradient was computed.

    strategy       "unrolled" (every graph kept), "kept", "replayed" (gradients kept, states replayed), "recomputed"
                   (gradients too), or "spilled" (something lies in host memory or on disk)
    segment        steps between checkpoints of the state
    checkpoints    tier of the checkpoints: "memory", "host" or "disk"
    gradients      tier of the gradients, or "recomputed"
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
    graphs: int
    bytes: int
    spilled_bytes: int
    extra_passes: float
    seconds: float
    budget: int


def choose(steps: int, costs: Costs, tiers: list[Tier]) -> Plan:
    """The cheapest plan that fits; among equals the smallest. The first tier is "memory", its `free` the budget.

    Raises MemoryBudgetError where none fits.
    """
    memory = tiers[0]
    by_name = {tier.name: tier for tier in tiers}
    best, least = None, math.inf
    for segment, where, gradients in product(_segments(steps), by_name, ["recomputed", *by_name]):
        if segment == 1 and gradients == "recomputed":
            continue
        used = dict.fromkeys(by_name, 0)
        state = (1 + costs.slots) * costs.vector
        used[where] += state * math.ceil(steps / segment)
        if gradients == "recomputed":
            used[memory.name] += costs.vector * segment
        else:
            used[gradients] += costs.vector * steps
        replayed = state * (segment - 1) if segment > 1 else 0
        loaded = (state if where != memory.name else 0) + (
            costs.vector * segment if gradients not in (memory.name, "recomputed") else 0
        )
        used[memory.name] += replayed + loaded
        least = min(least, used[memory.name])
        if any(used[name] > by_name[name].free for name in used):
            continue
        again = max(steps - segment, 0) if gradients == "recomputed" else 0
        seconds = again * costs.gradient_seconds + (steps * costs.update_seconds if segment > 1 else 0.0)
        seconds += sum(2 * used[name] * by_name[name].seconds_per_byte for name in used)
        graphs = min(steps, (memory.free - used[memory.name]) // max(costs.graph, 1))
        seconds -= graphs * costs.gradient_seconds
        spilled = sum(amount for name, amount in used.items() if name != memory.name)
        total = used[memory.name] + graphs * costs.graph
        plan = Plan(
            _name(segment, gradients, graphs == steps, spilled > 0), steps, segment, where, gradients, int(graphs), int(total),
            int(spilled), again / steps, seconds, int(memory.free),
        )  # fmt: skip
        if best is None or (plan.seconds, plan.bytes) < (best.seconds, best.bytes):
            best = plan
    if best is None:
        raise MemoryBudgetError(
            f"memory_budget of {memory.free:,} bytes is too small for {steps} steps of {costs.vector:,} bytes of parameters: "
            f"the least is {int(least):,} bytes; raise it, or give spill_dir so that states may go to disk."
        )
    return best


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
        tiers.append(Tier("disk", int(0.9 * shutil.disk_usage(spill_dir).free), DISK_SECONDS_PER_BYTE))
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
