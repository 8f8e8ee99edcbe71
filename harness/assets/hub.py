"""References to the Hugging Face hub: `OWNER/NAME[/CONFIG][/FILE][@REVISION]`, from its cache, a mirror or the hub
itself.

`HF_ENDPOINT` names a mirror, `HF_HOME` the cache, `HF_HUB_OFFLINE=1` forbids the network; all three are the hub
client's own. A data reference may name one configuration (`OWNER/NAME/es`) or one file
(`OWNER/NAME/es/train-0.parquet`).
"""

from __future__ import annotations

import fnmatch
import os
import re
from dataclasses import dataclass
from pathlib import Path

from harness.contracts import HarnessError
from harness.machine.files import MOST_TABLE, check_plain, check_table, files_below
from harness.store.lines import read_lines

MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.bin"]
NOT_NEEDED = ["pytorch_model*", "*.h5", "original/*", "onnx/*", "*.msgpack", "runs/*"]
DATA_ENDINGS = (".parquet", ".jsonl", ".json")


@dataclass(frozen=True)
class HubRef:
    """repo "OWNER/NAME" ("NAME" of an old model), inner path "" | "CONFIG" | "DIR/FILE.parquet", revision or None."""

    repo: str
    inside: str
    revision: str | None

    @property
    def is_file(self) -> bool:
        return self.inside.endswith(DATA_ENDINGS)


def parse(ref: str) -> HubRef:
    """Raises HarnessError for what cannot be a hub id."""
    name, _, revision = ref.partition("@")
    parts = name.split("/")
    if not name or any(part in ("", ".", "..") for part in parts) or any(c.isspace() for c in name):
        raise HarnessError(f"'{ref}' is no hub id; write OWNER/NAME or OWNER/NAME@REVISION.")
    return HubRef("/".join(parts[:2]), "/".join(parts[2:]), revision or None)


def model(ref: str) -> Path:
    """The local folder of a model. Raises HarnessError in one sentence if it cannot be had."""
    wanted = parse(ref)
    if wanted.inside:
        raise HarnessError(f"'{ref}' is no model id; write OWNER/NAME or OWNER/NAME@REVISION.")
    return Path(_snapshot(ref, wanted.repo, wanted.revision, "model", model_files(), NOT_NEEDED))


def model_files() -> list[str]:
    """Patterns of what is taken of a model; its code only where it may be run."""
    from harness.machine.trust import trusted

    return [*MODEL_FILES, "*.py"] if trusted() else MODEL_FILES


def data(ref: str) -> Path:
    """The local file, or the folder of the whole configuration, of a data reference. Raises HarnessError."""
    wanted = parse(ref)
    if wanted.is_file:
        return Path(_one_file(ref, wanted))
    patterns = None
    if wanted.inside:
        config = wanted.inside
        patterns = [
            "README.md",
            f"{config}/*",
            f"data/{config}/*",
            f"data/{config}-*",
            f"{config}.jsonl",
            f"{config}-*",
            f"*_{config}.jsonl",
            f"*_{config}.json",
        ]
    return Path(_snapshot(ref, wanted.repo, wanted.revision, "dataset", patterns, []))


def cached(ref: str) -> Path | None:
    """What `model` or `data` would give without the network; None if it is not all there."""
    try:
        wanted = parse(ref)
    except HarnessError:
        return None
    from huggingface_hub import constants, try_to_load_from_cache

    revision = wanted.revision or "main"
    if wanted.is_file:
        found = try_to_load_from_cache(wanted.repo, wanted.inside, revision=revision, repo_type="dataset")
        return Path(found) if isinstance(found, str) else None
    cache = Path(constants.HF_HUB_CACHE)
    for kind in ("models", "datasets"):
        folder = cache / f"{kind}--{wanted.repo.replace('/', '--')}"
        pointer = folder / "refs" / revision
        commit = pointer.read_text().strip() if pointer.is_file() else revision
        snapshot = folder / "snapshots" / commit
        if snapshot.is_dir() and meant(ref, snapshot, kind == "datasets"):
            return snapshot
    return None


def commit(path: Path) -> str | None:
    """The commit that a path inside the hub's cache belongs to."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None


def _snapshot(ref: str, repo: str, revision: str | None, kind: str, allow: list[str] | None, ignore: list[str]) -> str:
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(
            repo, revision=revision, repo_type=kind, allow_patterns=allow, ignore_patterns=ignore or None
        )
    except Exception as error:  # the hub client raises a dozen kinds; `explain` tells them apart
        raise explain(ref, error) from error


def _one_file(ref: str, wanted: HubRef) -> str:
    from huggingface_hub import hf_hub_download

    try:
        return hf_hub_download(wanted.repo, wanted.inside, revision=wanted.revision, repo_type="dataset")
    except Exception as error:
        raise explain(ref, error) from error


def explain(ref: str, error: Exception) -> HarnessError:
    """One sentence about why the hub did not give `ref`, and what to do."""
    from huggingface_hub import errors

    def is_a(*names: str) -> bool:
        return isinstance(error, tuple(getattr(errors, name) for name in names if hasattr(errors, name)))

    page = f"https://huggingface.co/{parse(ref).repo}"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    if is_a("GatedRepoError"):
        return HarnessError(
            f"'{ref}' is gated: accept its licence at {page}, then set HF_TOKEN (or run `hf auth login`) and try again."
        )
    if is_a("RevisionNotFoundError"):
        return HarnessError(f"'{ref}' has no such revision; see {page}/commits/main.")
    if is_a("RemoteEntryNotFoundError") or (is_a("EntryNotFoundError") and not is_a("LocalEntryNotFoundError")):
        return HarnessError(f"'{ref}' has no such file; see {page}/tree/main.")
    if is_a("RepositoryNotFoundError"):
        return HarnessError(
            f"'{ref}' is neither a local path nor a repository that the hub shows you; check the spelling, and "
            f"HF_TOKEN "
            "if it is private."
        )
    if offline:
        return HarnessError(
            f"'{ref}' is not in the cache and HF_HUB_OFFLINE is set; run `python -m harness fetch` once with a network."
        )
    first = " ".join(str(error).split())[:160] or "no message"
    return HarnessError(
        f"'{ref}' is neither a local path nor a hub asset that can be fetched now ({type(error).__name__}: {first}); "
        "check the spelling, your connection, HF_ENDPOINT and your access token."
    )


def read_texts(path: Path, ref: str) -> list[str]:
    """The `text` column of one parquet or JSON-lines file, in order. Raises HarnessError."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        try:
            check_plain(path, MOST_TABLE)
            names = pq.read_schema(path).names
            if "text" not in names:
                raise HarnessError(f"'{ref}' has no `text` column; it has {', '.join(names)}.")
            check_table(path, ["text"])
            return pq.read_table(path, columns=["text"])["text"].to_pylist()
        except (OSError, ValueError) as error:
            raise HarnessError(f"The data file '{ref}' cannot be read ({type(error).__name__}).") from error
    try:
        return [row["text"] for row in read_lines(path)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HarnessError(
            f"The data file '{ref}' is not JSON lines with a `text` each ({type(error).__name__})."
        ) from error


SPLIT_NAMES = {"train": {"train"}, "validation": {"validation", "valid", "val", "dev"}, "test": {"test"}}


def split_files(folder: Path, config: str, split: str) -> list[Path]:
    """Data files of one configuration and split by the hub's naming (`es/train-00000-of-00001.parquet`,
    `data/train-*.parquet`, `lambada_test_es.jsonl`), sorted; empty if the names do not tell."""

    files = [path for path in files_below(folder) if path.suffix in DATA_ENDINGS]
    return [
        path
        for path in files
        if (not config or config in _words(path, folder)) and _words(path, folder) & SPLIT_NAMES[split]
    ]


def _words(path: Path, folder: Path) -> set[str]:
    relative = path.relative_to(folder)
    return {*relative.parts[:-1], *re.split(r"[-_.]", relative.name)}


def meant(ref: str, folder: Path, data: bool) -> list[Path]:
    """The files of a cached folder that the reference means, sorted."""
    files = files_below(folder)
    if not data:
        fits = lambda path, patterns: any(fnmatch.fnmatch(path.relative_to(folder).as_posix(), p) for p in patterns)
        return [path for path in files if fits(path, model_files()) and not fits(path, NOT_NEEDED)]
    config = parse(ref).inside
    return [path for path in files if path.suffix in DATA_ENDINGS and (not config or config in _words(path, folder))]


def texts(ref: str, split: str | None) -> list[str]:
    """The texts of a data reference, of its train split by default; of a single file all. Raises HarnessError."""
    return texts_at(data(ref), ref, parse(ref).inside, split)


def texts_at(path: Path, ref: str, config: str, split: str | None) -> list[str]:
    """The same of a local file or folder."""
    if path.is_file():
        return read_texts(path, ref)
    files = split_files(path, config, split or "train")
    if files:
        return [text for file in files for text in read_texts(file, ref)]
    from datasets import load_dataset

    try:  # names that only the card explains
        rows = load_dataset(str(path), config or None, split=split or "train")
    except Exception as error:
        raise HarnessError(
            f"The data set '{ref}' cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())[:160]})."
        ) from error
    if "text" not in rows.column_names:
        raise HarnessError(f"The data set '{ref}' has no `text` column; it has {', '.join(rows.column_names)}.")
    return list(rows["text"])
