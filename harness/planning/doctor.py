"""A look at the machine as the cells need it: the command `doctor`."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from harness.contracts import HarnessError
from harness.machine.devices import Device, device
from harness.planning.cells import Cell
from harness.planning.cost import CellEstimate, downloads, estimate, gpu_advice, needs_gpu
from harness.planning.fetch import cache_folder, check_disk, check_gates, existing_parent, to_fetch

# --------------------------------------------------------------------------------------------------------------- doctor


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was found, and what to do where that is not good enough ("": it is)."""

    what: str
    found: str
    advice: str = ""


def examine(cells: Sequence[Cell]) -> list[Finding]:
    """The machine as the cells need it: versions, device, memory, disk, assets, what would run. Downloads nothing."""
    here = device()
    return [*_versions(), *_machine(here), *_assets(cells), *_cells(cells, here)]


def _versions() -> list[Finding]:
    found = [Finding("python", platform.python_version())]
    for line in _requirements():
        try:
            installed = metadata.version(line.name)
        except metadata.PackageNotFoundError:
            found.append(Finding(line.name, "not installed", f"pip install '{line}'"))
            continue
        fits = line.specifier.contains(installed, prereleases=True)
        found.append(
            Finding(line.name, installed, "" if fits else f"{line.specifier} was tested; pip install '{line}'")
        )
    try:
        found.append(Finding("vllm (optional)", metadata.version("vllm")))
    except metadata.PackageNotFoundError:
        found.append(Finding("vllm (optional)", "not installed; transformers generates"))
    return found


def _requirements() -> list[Any]:
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires("dpg-harness") or []
    except metadata.PackageNotFoundError:
        return []
    parsed = [Requirement(line) for line in lines]
    return [line for line in parsed if not line.marker and line.name in ("torch", "transformers", "trl", "accelerate")]


def _machine(here: Device) -> list[Finding]:
    from rewards.metagradient.checkpointing import host_free

    rates = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in here.flops.items())
    free = shutil.disk_usage(existing_parent(cache_folder())).free
    return [
        Finding("device", f"{here.name}: {here.memory / 2**30:.1f} GiB free; {rates}; {here.bandwidth / 1e9:.0f} GB/s"),
        Finding("host memory", f"{host_free() / 2**30:.1f} GiB free"),
        Finding("disk", f"{free / 1e9:.1f} GB free at {cache_folder()}"),
    ]


def _assets(cells: Sequence[Cell]) -> list[Finding]:
    missing = [item for item in downloads(to_fetch(cells)) if not item.here]
    if not missing:
        return [Finding("assets", "all here")]
    found = []
    for check in (check_gates, check_disk):
        try:
            check(missing)
        except HarnessError as error:
            found.append(Finding("assets", "cannot be fetched", str(error)))
    size = sum(item.size or 0 for item in missing) / 1e9
    command = f"python -m harness fetch --profile {cells[0].profile}"
    return [*found, Finding("assets", f"{len(missing)} to fetch, {size:.1f} GB", command)]


def _cells(cells: Sequence[Cell], here: Device) -> list[Finding]:
    """What would run, one line a task, by its dearest reward."""
    found = []
    for task in dict.fromkeys(cell.task for cell in cells):
        mine = [cell for cell in cells if cell.task == task]
        ready = [cell for cell in mine if not cell.unsupported]
        try:
            costs: list[CellEstimate] = [estimate(p.settings, p.task, p.reward, here) for p in ready]
        except HarnessError as error:
            found.append(Finding(task, f"{len(ready)} of {len(mine)} rewards", str(error)))
            continue
        if not costs:
            found.append(Finding(task, "nothing", mine[0].unsupported or ""))
            continue
        hours, memory = max(cost.hours for cost in costs), max(cost.memory for cost in costs)
        what = f"{len(ready)} of {len(mine)} rewards"
        if needs_gpu(costs, here):
            advice = gpu_advice((cell.settings, cell.task, cell.reward) for cell in ready)
            found.append(Finding(task, f"{what}, more than this CPU can do", advice))
            continue
        advice = (
            ""
            if memory <= here.memory
            else (
                "more than the device has; lower grpo.microbatch, inner.microbatch or generator.batch, or set "
                "generator.offload=always"
            )
        )
        found.append(Finding(task, f"{what}, up to {hours:.3g} h a cell, {memory / 2**30:.1f} GiB", advice))
    return found
