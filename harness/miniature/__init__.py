"""The embedded miniature: a small world, and small models trained on it, built by `scripts/build_miniature.py`.

`manifest.json` beside the assets records the sha256 and size of every file; nothing is handed out unverified.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.contracts import HarnessError

ASSETS = Path(__file__).parent / "assets"
NAMES = ("tokenizer", "generator", "target", "language_id", "embedding")


class AssetError(HarnessError):
    """An embedded asset is unknown, missing or not the file that was built."""


def path(name: str) -> Path:
    """Folder of the embedded asset `name` (one of `NAMES`), its files verified once per process.

    Raises AssetError if the asset is unknown, or one of its files is missing or differs from its recorded sha256.
    """
    _verified(ASSETS, name)
    return ASSETS / name


def fingerprint(name: str) -> str:
    """What the asset is, by content: sha256 (hex) over its file names and their hashes, from the manifest.

    Raises AssetError if the asset is unknown or the manifest is missing.
    """
    return entry(ASSETS, name)["fingerprint"]


def entry(folder: Path, name: str) -> dict[str, Any]:
    """The manifest's entry of one asset: `fingerprint`, `files` (name -> sha256 and bytes), `settings`, `quality`."""
    assets = _manifest(folder)["assets"]
    if name not in assets:
        raise AssetError(f"There is no embedded asset named '{name}'; known are {', '.join(sorted(assets))}.")
    return assets[name]


def combined(files: dict[str, dict[str, Any]]) -> str:
    """The fingerprint of an asset from its manifest entry `files`."""
    lines = "".join(f"{name}:{files[name]['sha256']}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()


def file_hash(file: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def verify(folder: Path, name: str) -> None:
    """Compare every recorded file of the asset `name` in `folder` with its hash. Raises AssetError, naming the file."""
    for relative, recorded in entry(folder, name)["files"].items():
        file = folder / name / relative
        if not file.is_file() or file_hash(file) != recorded["sha256"]:
            state = "differs from its recorded sha256" if file.is_file() else "is missing"
            raise AssetError(
                f"The embedded file {name}/{relative} {state}; restore it from version control or rebuild it with "
                f"`python scripts/build_miniature.py --only {name}`."
            )


@lru_cache(maxsize=32)
def _verified(folder: Path, name: str) -> None:
    verify(folder, name)


@lru_cache(maxsize=4)
def _manifest(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise AssetError(
            f"The embedded assets have no readable manifest.json ({type(error).__name__}); restore it from version "
            "control or rebuild everything with `python scripts/build_miniature.py`."
        ) from error
