"""Assets ahead of time, and a look at the machine: the commands `fetch` and `doctor`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from harness import assets
from harness.assets import hub
from harness.contracts import HarnessError
from harness.planning.cells import Cell
from harness.planning.cost import Download, downloads
from harness.store.atomic import write_json

LOCK_VERSION = 1


# ---------------------------------------------------------------------------------------------------------------- fetch


def to_fetch(cells: Iterable[Cell]) -> dict[str, bool]:
    """Reference -> whether it is a data set, for everything outside the package that the cells read, in order."""
    found: dict[str, bool] = {}
    for cell in cells:
        if cell.unsupported:
            continue
        models, data = cell.references()
        found |= {ref: False for ref in models} | {ref: True for ref in data}
    return {ref: data for ref, data in found.items() if not assets.is_embedded(ref)}


def fetch(cells: Sequence[Cell], lock: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Gets every asset of the cells from the hub (or the mirror HF_ENDPOINT) into its cache, checks that models load as
    far as their headers, and writes `lock`: for each reference the commit and the sha256 over its content.

    Raises HarnessError, before anything is downloaded, for a gate without a token or a full disk.
    """
    refs = to_fetch(cells)
    missing = [item for item in downloads(refs) if not item.here]
    check_gates(missing)
    check_disk(missing)
    rows = []
    models = {cell.settings.generator.model for cell in cells} | {cell.settings.target.model for cell in cells}
    for ref, data in refs.items():
        say(f"{ref} ...")
        path = assets.resolve(ref, data)
        if ref in models:
            assets.check_model(ref)
        commit = hub.commit(path)
        if advice := pin_advice(ref, commit):
            say(f"  {advice}")
        rows.append(
            {
                "ref": ref,
                "kind": "data" if data else "model",
                "commit": commit,
                "sha256": assets.fingerprint(ref, data),
            }
        )
    write_json(lock, {"version": LOCK_VERSION, "assets": rows})
    return rows


def pin_advice(ref: str, commit: str | None) -> str:
    """How a reference to the hub that names no commit is pinned to the one that is here; "" where it names one."""
    if commit is None or ref.partition("@")[2] == commit:
        return ""
    return f"is at commit {commit}; {ref.partition('@')[0]}@{commit} pins it"


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
    free = shutil.disk_usage(existing_parent(cache_folder())).free
    if needed > free:
        raise HarnessError(
            f"The assets need {needed / 1e9:.1f} GB and {cache_folder()} has {free / 1e9:.1f} GB free; make room or "
            "set HF_HOME to another disk."
        )


def cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def existing_parent(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())
