"""Models, tokenizers and texts by reference: `embedded:NAME`, a local path, or a hub id (`ID` or `ID@REVISION`).

Only safetensors weights are loaded, and no code that comes with a model is run unless the command line says so
(`--trust-remote-code`; no profile, setting or environment variable can). Whatever is missing or broken is one sentence
that names the setting's value and says what to do.
"""

from __future__ import annotations

import hashlib
import os.path
from functools import lru_cache
from pathlib import Path

from harness.contracts import HarnessError
from harness.machine.files import check_plain, files_below
from harness.miniature.texts import TEXTS, embedded_texts_hash

EMBEDDED = "embedded:"
MOST_ASSET = 2**40
"""Bytes of one file of a model or a data set."""


def is_embedded(ref: str) -> bool:
    return ref.startswith(EMBEDDED)


def is_local(ref: str) -> bool:
    """A path that exists, or that can only be meant as one."""
    return os.path.exists(ref) or ref.startswith((".", "/", "~")) or ref.endswith((".jsonl", ".json"))


def names_asset(value: object) -> bool:
    """Whether the value of some option can only be meant as an asset: embedded, or a path. A hub id looks like any
    text; options that take one are declared (`asset_options`)."""
    return isinstance(value, str) and (is_embedded(value) or value.startswith(("./", "../", "/", "~")))


@lru_cache(maxsize=64)
def resolve(ref: str, data: bool = False) -> Path:
    """A local file or folder holding the asset; a hub id (of a data set, if `data`) comes from the cache or is
    downloaded. Raises HarnessError."""
    if is_embedded(ref):
        from harness import miniature

        return miniature.path(ref.removeprefix(EMBEDDED))
    if is_local(ref):
        path = Path(os.path.expanduser(ref))
        if not os.path.exists(path):  # Path.exists raises for names that no file can have
            raise HarnessError(f"There is no file or folder {ref[:200]!r}; check the path.")
        for item in path.iterdir() if path.is_dir() else [path]:
            if os.path.exists(item) and not item.is_dir():
                check_plain(item, MOST_ASSET)
        return path
    from harness.assets import hub

    return hub.data(ref) if data else hub.model(ref)


def fingerprint(ref: str, data: bool = False) -> str:
    """What the asset is, by content: sha256 over names and bytes of its files (embedded: from the manifest)."""
    if is_embedded(ref):
        from harness import miniature

        name = ref.removeprefix(EMBEDDED)
        return f"{EMBEDDED}{name}:{embedded_texts_hash(name) if name in TEXTS else miniature.fingerprint(name)}"
    path = resolve(ref, data)
    if is_local(ref) or path.is_file():
        return _content_hash(str(path))
    from harness.assets import hub

    # The cache's folder may hold more than this reference means: other configurations, weights in other formats.
    return _content_hash(str(path), tuple(map(str, hub.meant(ref, path, data))))


def _content_hash(path: str, only: tuple[str, ...] | None = None) -> str:
    root = Path(path)
    files = files_below(root) if root.is_dir() else [root]
    files = files if only is None else [Path(name) for name in only]
    total = hashlib.sha256()
    for file in files:
        check_plain(file, MOST_ASSET)
        # A session may live for days, and a file be written anew meanwhile.
        state = file.stat()
        digest = _digest(str(file), state.st_size, state.st_mtime_ns)
        total.update(f"{file.relative_to(root) if root.is_dir() else ''}:{digest}\n".encode())
    return total.hexdigest()


@lru_cache(maxsize=1024)
def _digest(path: str, size: int, changed: int) -> str:
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def why(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
