"""Assets ahead of time, and a look at the machine: the commands `fetch` and `doctor`."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from harness import assets
from harness.assets import hub
from harness.cell import CellPlan
from harness.contracts import HarnessError
from harness.machine.devices import Device, device
from harness.plan import CellEstimate, Download, downloads, estimate
from harness.store.atomic import write_json

LOCK_VERSION = 1


# ---------------------------------------------------------------------------------------------------------------- fetch


def wanted(plans: Iterable[CellPlan]) -> dict[str, bool]:
    """Reference -> whether it is a data set, for everything outside the package that the cells read, in order."""
    found: dict[str, bool] = {}
    for plan in plans:
        if plan.unsupported:
            continue
        models, data = plan.references()
        found |= {ref: False for ref in models} | {ref: True for ref in data}
    return {ref: data for ref, data in found.items() if not assets.is_embedded(ref)}


def fetch(plans: Sequence[CellPlan], lock: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Gets every asset of the cells from the hub (or the mirror HF_ENDPOINT) into its cache, checks that models load as
    far as their headers, and writes `lock`: for each reference the commit and the sha256 over its content.

    Raises HarnessError, before anything is downloaded, for a gate without a token or a full disk.
    """
    refs = wanted(plans)
    missing = [item for item in downloads(refs) if not item.here]
    check_gates(missing)
    check_disk(missing)
    rows = []
    models = {plan.settings.generator.model for plan in plans} | {plan.settings.target.model for plan in plans}
    for ref, data in refs.items():
        say(f"{ref} ...")
        path = assets.resolve(ref, data)
        if ref in models:
            assets.check_model(ref)
        rows.append({"ref": ref, "kind": "data" if data else "model", "commit": hub.commit(path),
                     "sha256": assets.fingerprint(ref, data)})  # fmt: skip
    write_json(lock, {"version": LOCK_VERSION, "assets": rows})
    return rows


def check_gates(missing: Sequence[Download]) -> None:
    """Raises HarnessError if a gated asset is missing and there is no token. A mirror may ask for none."""
    from huggingface_hub import get_token

    gated = [item for item in missing if item.gate]
    if gated and not get_token() and not os.environ.get("HF_ENDPOINT"):
        names = " and ".join(item.ref.partition("@")[0] for item in gated)
        raise HarnessError(
            f"{names} is gated and no token is set: accept its licence at {gated[0].gate}, then set HF_TOKEN (or run "
            "`hf auth login`) and try again; or use --profile small, which needs none."
        )


def check_disk(missing: Sequence[Download]) -> None:
    """Raises HarnessError if the cache's disk is too small for what is missing."""
    needed = sum(item.size or 0 for item in missing)
    free = shutil.disk_usage(_existing(cache_folder())).free
    if needed > free:
        raise HarnessError(
            f"The assets need {needed / 1e9:.1f} GB and {cache_folder()} has {free / 1e9:.1f} GB free; make room or "
            "set HF_HOME to another disk."
        )


def cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


# --------------------------------------------------------------------------------------------------------------- doctor


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what was found, and what to do where that is not good enough ("": it is)."""

    what: str
    found: str
    advice: str = ""


def examine(plans: Sequence[CellPlan]) -> list[Finding]:
    """The machine as the cells need it: versions, device, memory, disk, assets, what would run. Downloads nothing."""
    here = device()
    return [*_versions(), *_machine(here), *_assets(plans), *_cells(plans, here)]


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
    from rewards.metagradient.plan import host_free

    rates = ", ".join(f"{name} {rate / 1e12:.3g} TFLOP/s" for name, rate in here.flops.items())
    free = shutil.disk_usage(_existing(cache_folder())).free
    return [
        Finding("device", f"{here.name}: {here.memory / 2**30:.1f} GiB free; {rates}; {here.bandwidth / 1e9:.0f} GB/s"),
        Finding("host memory", f"{host_free() / 2**30:.1f} GiB free"),
        Finding("disk", f"{free / 1e9:.1f} GB free at {cache_folder()}"),
    ]


def _assets(plans: Sequence[CellPlan]) -> list[Finding]:
    missing = [item for item in downloads(wanted(plans)) if not item.here]
    if not missing:
        return [Finding("assets", "all here")]
    found = []
    for check in (check_gates, check_disk):
        try:
            check(missing)
        except HarnessError as error:
            found.append(Finding("assets", "cannot be fetched", str(error)))
    size = sum(item.size or 0 for item in missing) / 1e9
    command = f"python -m harness fetch --profile {plans[0].profile}"
    return [*found, Finding("assets", f"{len(missing)} to fetch, {size:.1f} GB", command)]


def _cells(plans: Sequence[CellPlan], here: Device) -> list[Finding]:
    """What would run, one line a task, by its dearest reward."""
    found = []
    for task in dict.fromkeys(plan.task for plan in plans):
        mine = [plan for plan in plans if plan.task == task]
        ready = [plan for plan in mine if not plan.unsupported]
        try:
            costs: list[CellEstimate] = [estimate(p.settings, p.task, p.reward, here) for p in ready]
        except HarnessError as error:
            found.append(Finding(task, f"{len(ready)} of {len(mine)} rewards", str(error)))
            continue
        if not costs:
            found.append(Finding(task, "nothing", mine[0].unsupported or ""))
            continue
        hours, memory = max(cost.hours for cost in costs), max(cost.memory for cost in costs)
        seen = f"{len(ready)} of {len(mine)} rewards, up to {hours:.3g} h a cell, {memory / 2**30:.1f} GiB"
        advice = "" if memory <= here.memory else (
            "more than the device has; lower grpo.microbatch, inner.microbatch or generator.batch, or set "
            "generator.offload=always"
        )  # fmt: skip
        found.append(Finding(task, seen, advice))
    return found
