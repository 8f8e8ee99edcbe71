"""Where a result comes from: commit, versions, device, time."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.machine import processes
from harness.machine.trust import trusted
from harness.registry import REWARDS

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "torchopt",
    "datasets",
    "numpy",
    "pandas",
    "tokenizers",
    "accelerate",
)
"""What every cell runs on; what single rewards need besides is theirs to say (`Needs.packages`)."""


# ----------------------------------------------------------------------------------------------------------- provenance


@lru_cache(maxsize=1)
def _static_provenance() -> str:
    import torch

    root = Path(__file__).resolve().parents[2]
    cuda = torch.cuda.is_available()
    found = {
        "commit": _git(root, "rev-parse", "HEAD"),
        "dirty": bool(_git(root, "status", "--porcelain", "--", "harness", "rewards", "tasks")),
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
        "machine": platform.machine(),
        "packages": {name: _version(name) for name in (*PACKAGES, *_needed())},
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "cuda": torch.version.cuda if cuda else None,
        "cores": os.cpu_count(),
    }
    return json.dumps(found)


def provenance() -> dict[str, Any]:
    """Where a result comes from: commit, dirty flag, versions, device, threads, time (UTC)."""
    import torch

    found = json.loads(_static_provenance()) | {"threads": torch.get_num_threads(), "started": now()}
    if (ranks := processes.world_size()) > 1:
        found["processes"] = ranks
    if trusted():
        found["warning"] = "code that comes with models was run (--trust-remote-code)"
    return found


def continued(
    now: dict[str, Any], before: dict[str, Any], earlier: list[dict[str, Any]], step: int, damaged: list[str]
) -> dict[str, Any]:
    """The provenance `now` of a run that resumes the one with provenance `before` after `step`: it started when that
    one did, and `resumed` has, after the `earlier` entries, one that says when, what of the surroundings differs, and
    which checkpoints were found damaged."""
    shared = ("commit", "python", "packages", "device", "threads", "processes")
    differs = [key for key in shared if before.get(key) != now.get(key)]
    entry = {"step": step, "at": now["started"], "differs": differs, "damaged": damaged}
    return now | {"started": before["started"], "resumed": [*earlier, entry]}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        out = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return out.stdout.strip() if out.returncode == 0 else None


def _needed() -> list[str]:
    """Distributions that hold the packages that rewards need, sorted."""
    imported = {package for reward in REWARDS for package in reward.needs.packages}
    # Most bear the name that they are imported by, but for the hyphens; looking through all of them takes long.
    plain = {package: package.replace("_", "-") for package in imported}
    others = [package for package, name in plain.items() if _version(name) is None]
    found = metadata.packages_distributions() if others else {}
    return sorted({found[package][0] if package in found else name for package, name in plain.items()})


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
