"""A look at the machine as the cells need it: the command `doctor`."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from harness.assets import hub
from harness.contracts import HarnessError
from harness.machine.devices import Device, device, driver_shows
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
    return [*_versions(), *_machine(here), *_gpu(), *_hub(cells), *_assets(cells), *_cells(cells, here)]


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


def _gpu() -> list[Finding]:
    """The GPU, its driver and torch's build, where there is any of them."""
    import torch

    build = torch.version.cuda
    if not torch.cuda.is_available():
        if not driver_shows():
            return []
        if build is None:
            return [Finding("gpu", "a driver, but torch is a CPU build", "install a CUDA build of torch")]
        advice = f"torch is built for CUDA {build}; update the driver, or install a build for an older CUDA"
        return [Finding("gpu", "a driver, but torch cannot use it", advice)]
    free, total = torch.cuda.mem_get_info()
    major, minor = torch.cuda.get_device_capability()
    own, compiled = f"sm_{major}{minor}", torch.cuda.get_arch_list()
    runs = own in compiled or any(name.endswith(f"_{major}0") for name in compiled)
    old = "" if runs or not compiled else f"torch was built for {', '.join(compiled)}; install a build for {own}"
    found = [Finding("gpu", f"compute capability {major}.{minor}, CUDA build {build}", old)]
    busy = "" if free >= FREE_SHARE * total else "other processes hold the rest; end them (nvidia-smi lists them)"
    found.append(Finding("gpu memory", f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free", busy))
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    slow = "" if bfloat16 else "set generator.dtype=float32: bfloat16 is emulated there"
    return [*found, Finding("bfloat16", "yes" if bfloat16 else "no", slow)]


FREE_SHARE = 0.9
"""Of a GPU's memory, what is free where nobody else is at work."""


def _hub(cells: Sequence[Cell]) -> list[Finding]:
    """Whether the hub answers, and shows the gated models that are missing, where any asset is missing."""
    from huggingface_hub import auth_check

    missing = [item for item in downloads(to_fetch(cells)) if not item.here]
    place = hub.endpoint()
    if not missing or place is None:
        return [Finding("hub", "not needed" if not missing else "offline (HF_HUB_OFFLINE)")]
    try:
        hub.check_reachable(place)
    except HarnessError as error:
        return [Finding("hub", f"no answer from {place}", str(error))]
    found = [Finding("hub", f"{place} answers")]
    for item in missing:
        if item.gate:
            try:
                auth_check(hub.parse(item.ref).repo)
            except Exception as error:  # of the client, a dozen kinds
                found.append(Finding("hub", f"{item.ref} is closed", str(hub.explain(item.ref, error))))
            else:
                found.append(Finding("hub", f"{item.ref} is open to your token"))
    return found


def _pins(cells: Sequence[Cell]) -> list[Finding]:
    """Assets of the hub that no commit pins: what they are tomorrow is another's choice."""
    loose = [item.ref for item in downloads(to_fetch(cells)) if item.licence != "yours" and "@" not in item.ref]
    if not loose:
        return []
    return [Finding("pins", f"no commit is named for {', '.join(loose)}; `fetch` shows and records it")]


def _assets(cells: Sequence[Cell]) -> list[Finding]:
    missing = [item for item in downloads(to_fetch(cells)) if not item.here]
    if not missing:
        return [*_pins(cells), Finding("assets", "all here")]
    found = _pins(cells)
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
