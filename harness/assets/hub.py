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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal

from harness.assets.rows import (
    SPLIT_NAMES,
    TEXT_FIELDS,
    Rows,
    check_record,
    fields,
    from_columns,
    read_rows,
    records,
    said,
    text_field,
)
from harness.contracts import HarnessError
from harness.machine.files import files_below, read_json
from harness.settings.reading import read_yaml

MODEL_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.bin"]
NOT_NEEDED = ["pytorch_model*", "*.h5", "original/*", "onnx/*", "*.msgpack", "runs/*"]
BROKEN_OFF = ("RemoteProtocolError", "ReadError", "ReadTimeout", "ChunkedEncodingError", "IncompleteRead")
"""Errors of the client's transport, whichever that is, in the middle of an answer."""
PATIENCE = 5
"""Seconds that the hub has to answer at all."""
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


def endpoint() -> str | None:
    """The host that a reference is looked up at: the environment's `HF_ENDPOINT` or the hub; None where the network is
    forbidden."""
    from huggingface_hub import constants

    return None if constants.HF_HUB_OFFLINE else constants.ENDPOINT


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
        if snapshot.is_dir() and meant(ref, snapshot, kind == "datasets") and not left_out(snapshot):
            return snapshot
    return None


def left_out(snapshot: Path) -> list[str]:
    """The weights that an interrupted download left out of a snapshot: those of the repository's list of files, which
    the hub's client keeps, and of indexes; [] where nothing shows that any is missing."""
    here = {path.relative_to(snapshot).as_posix() for path in files_below(snapshot)}
    named = set()
    for name in here:
        if name.endswith(".safetensors.index.json"):
            shards = set(read_json(snapshot / name).get("weight_map", {}).values())
            named |= {(Path(name).parent / shard).as_posix() for shard in shards}
    listed = snapshot.parents[1] / "trees" / f"{snapshot.name}.json"
    if snapshot.parents[1].name.startswith("models--") and listed.is_file():
        files = read_json(listed).get("files", {})
        named |= {name for name in files if name.endswith((".safetensors", ".bin")) and _is_of_model(name)}
    return sorted(named - here)


def _is_of_model(name: str) -> bool:
    """Whether a repository's file is one that is taken of a model."""
    fits = lambda patterns: any(fnmatch.fnmatch(name, pattern) for pattern in patterns)
    return fits(model_files()) and not fits(NOT_NEEDED)


def commit(path: Path) -> str | None:
    """The commit that a path inside the hub's cache belongs to."""
    parts = path.parts
    return parts[parts.index("snapshots") + 1] if "snapshots" in parts[:-1] else None


@cache
def check_reachable(endpoint: str) -> None:
    """Raises HarnessError where nothing answers at the hub's address within `PATIENCE`: its client would try again and
    again for every file."""
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=PATIENCE)
    except Exception as error:  # of the client's transport, whichever that is
        why = shorten(str(error) or type(error).__name__, 160)
        raise HarnessError(
            f"The hub cannot be reached at {endpoint} ({why}); check the network, name a mirror with HF_ENDPOINT, or "
            "bring its cache (HF_HOME) from a machine that has one and set HF_HUB_OFFLINE=1."
        ) from error


def upload_token(repo: str) -> str:
    """The token to upload to OWNER/NAME with: the environment's, and nobody else's. Raises HarnessError, before
    anything is made, where there is none, where the network is forbidden and for what is no name."""
    from huggingface_hub import constants

    if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", repo, re.ASCII):
        raise HarnessError(f"--push-to-hub takes OWNER/NAME, not '{repo[:100]}'.")
    if constants.HF_HUB_OFFLINE:
        raise HarnessError("HF_HUB_OFFLINE forbids the network; unset it to use --push-to-hub.")
    token = os.environ.get("HF_TOKEN", "").strip()
    if not token:
        raise HarnessError("--push-to-hub needs a token that may write: set HF_TOKEN to one of your hub account's.")
    return token


def push(folder: Path, repo: str, kind: Literal["model", "dataset"]) -> str:
    """Uploads a folder with its card as OWNER/NAME, private where it is new; the page's address. Hidden files stay
    here. Raises HarnessError."""
    from huggingface_hub import HfApi, constants

    api = HfApi(token=upload_token(repo))
    try:
        api.create_repo(repo, repo_type=kind, private=True, exist_ok=True)
        api.upload_folder(folder_path=str(folder), repo_id=repo, repo_type=kind, ignore_patterns=[".*", "**/.*"])
    except Exception as error:  # of the hub's client or its transport
        told = shorten(str(error) or "no message", 160)
        raise HarnessError(
            f"{folder} could not be uploaded to {repo} ({type(error).__name__}: {told}); it is whole on this disk, so "
            "the same command tries the upload again."
        ) from error
    return f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"


def _ask_first(ref: str) -> None:
    """Before a download: is there a network? What is in the cache needs none."""
    from huggingface_hub import constants

    if not constants.HF_HUB_OFFLINE and cached(ref) is None:
        check_reachable(constants.ENDPOINT)


def _snapshot(ref: str, repo: str, revision: str | None, kind: str, allow: list[str] | None, ignore: list[str]) -> str:
    from huggingface_hub import snapshot_download

    _ask_first(ref)
    try:
        found = snapshot_download(
            repo, revision=revision, repo_type=kind, allow_patterns=allow, ignore_patterns=ignore or None
        )
    except Exception as error:  # the hub client raises a dozen kinds; `explain` tells them apart
        raise explain(ref, error) from error
    if missing := left_out(Path(found)):
        raise _half(ref, ", ".join(missing[:3]))
    return found


def _half(ref: str, missing: str) -> HarnessError:
    return HarnessError(
        f"The download of '{ref}' broke off and left out {missing}; run `python -m harness fetch` with a network, it "
        "goes on where it stopped."
    )


def _one_file(ref: str, wanted: HubRef) -> str:
    from huggingface_hub import hf_hub_download

    _ask_first(ref)
    try:
        return hf_hub_download(wanted.repo, wanted.inside, revision=wanted.revision, repo_type="dataset")
    except Exception as error:
        raise explain(ref, error) from error


def explain(ref: str, error: Exception) -> HarnessError:
    """One sentence about why the hub did not give `ref`, and what to do."""
    from huggingface_hub import errors, get_token

    def is_a(*names: str) -> bool:
        return isinstance(error, tuple(getattr(errors, name) for name in names if hasattr(errors, name)))

    page = f"https://huggingface.co/{parse(ref).repo}"
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    if is_a("IncompleteSnapshotError"):
        return _half(ref, "files")
    if type(error).__name__ in BROKEN_OFF:
        return _half(ref, f"the rest ({shorten(str(error), 80)})")
    if is_a("GatedRepoError") and get_token():
        return HarnessError(
            f"'{ref}' is gated and your token may not read it: accept its licence at {page} with the token's account, "
            "or wait until access is granted."
        )
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
    first = shorten(str(error), 160) or "no message"
    return HarnessError(
        f"'{ref}' is neither a local path nor a hub asset that can be fetched now ({type(error).__name__}: {first}); "
        "check the spelling, your connection, HF_ENDPOINT and your access token."
    )


def data_files(folder: Path, config: str) -> list[Path]:
    """The files of one configuration that may hold data, by the hub's naming (`es/train-00000-of-00001.parquet`,
    `data/train-*.parquet`, `lambada_test_es.jsonl`), sorted."""
    files = (path for path in files_below(folder) if path.suffix in DATA_ENDINGS)
    return [path for path in files if not config or config in _words(path, folder)]


def _split_in_name(file: Path, folder: Path) -> str | None:
    """The split that a file's name tells of, the first one where it tells of several."""
    found = [split for split, names in SPLIT_NAMES.items() if _words(file, folder) & names]
    return found[0] if found else None


def _words(path: Path, folder: Path) -> set[str]:
    relative = path.relative_to(folder)
    return {*relative.parts[:-1], *re.split(r"[-_.]", relative.name)}


def meant(ref: str, folder: Path, data: bool) -> list[Path]:
    """The files of a cached folder that the reference means, sorted."""
    if data:
        return data_files(folder, parse(ref).inside)
    return [path for path in files_below(folder) if _is_of_model(path.relative_to(folder).as_posix())]


def rows_in(folder: Path, ref: str, config: str, split: str | None) -> Rows:
    """The rows of a data set's folder. Where rows say their splits, all of them; a file whose rows do not, beside
    others that do, is of the split in its name. Else those of one split (train by default), by the files' names or by
    the data set's card, and without splits. Raises HarnessError."""
    wanted, files = split or "train", data_files(folder, config)
    if any("split" in (names := fields(file)) and {*TEXT_FIELDS} & {*names} for file in files):
        parts = [
            (read_rows(file, ref), _split_in_name(file, folder)) for file in files if {*TEXT_FIELDS} & {*fields(file)}
        ]
        return _joined(parts, ref)
    named = [file for file in files if _words(file, folder) & SPLIT_NAMES[wanted]]
    if named:
        return Rows([text for file in named for text in read_rows(file, ref).texts])
    table = _by_card(folder, ref, config, wanted)
    field = text_field(table.column_names, f"The data set '{ref}'")
    return from_columns(said(field, list(table[field])), None, ref, range(1, len(table) + 1))


def _by_card(folder: Path, ref: str, config: str, split: str) -> Any:
    """A split whose files only the data set's card explains."""
    from datasets import load_dataset

    _check_card(folder, ref)
    try:
        return load_dataset(str(folder), config or None)[split]
    except Exception as error:
        raise HarnessError(
            f"The data set '{ref}' cannot be loaded ({type(error).__name__}: {shorten(str(error), 160)})."
        ) from error


def records_of(ref: str, split: str, names: Sequence[str], optional: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Of each row of a split of a data set the fields `names`, and those of `optional` that are there: by the files'
    names or by the card. Raises HarnessError."""
    path = data(ref)
    if path.is_file():
        return records(path, ref, names, optional)
    config = parse(ref).inside
    if files := [file for file in data_files(path, config) if _words(file, path) & SPLIT_NAMES[split]]:
        return [row for file in files for row in records(file, ref, names, optional)]
    table = _by_card(path, ref, config, split)
    check_record(dict.fromkeys(table.column_names), names, f"The data set '{ref}'")
    kept = [name for name in (*names, *optional, "split") if name in table.column_names]
    return table.select_columns(kept).to_list()


def first_texts(ref: str, characters: int) -> list[str]:
    """The first texts of a data set's train split, so many characters of them, read over the network and not kept: of
    data sets that are larger than any disk. Raises HarnessError."""
    from datasets import load_dataset

    wanted = parse(ref)
    _ask_first(ref)
    found: list[str] = []
    try:
        rows = load_dataset(wanted.repo, wanted.inside or None, split="train", streaming=True, revision=wanted.revision)
        for row in rows:
            found.append(row["text"])
            characters -= len(found[-1])
            if characters <= 0:
                break
    except Exception as error:  # as `_snapshot`
        raise explain(ref, error) from error
    return from_columns(found, None, ref, range(1, len(found) + 1)).texts


def _joined(parts: list[tuple[Rows, str | None]], ref: str) -> Rows:
    """Rows of several files as one; those that do not say their splits are of their file's."""
    texts = [text for rows, _ in parts for text in rows.texts]
    splits = [split for rows, own in parts for split in rows.splits or [own] * len(rows.texts)]
    return from_columns(texts, splits, ref, range(1, len(texts) + 1))


def _check_card(folder: Path, ref: str) -> None:
    """Raises HarnessError where the folder's card names data files outside it: it may be anybody's, and another host or
    any file of this machine would be read."""
    for name in ("README.md", ".huggingface.yaml"):
        if not (folder / name).is_file():
            continue
        text = (folder / name).read_text(encoding="utf-8", errors="replace")
        if name == "README.md":
            header = re.match(r"---\r?\n(.*?)^---", text, re.DOTALL | re.MULTILINE)
            text = header[1] if header else ""
        data = read_yaml(text, f"{name} of the data set '{ref}'")
        configs = data.get("configs") if isinstance(data, dict) else None
        for place in _words_in(configs):
            if "://" in place or "::" in place or place.startswith(("/", "~")) or ".." in re.split(r"[/\\]", place):
                raise HarnessError(
                    f"{name} of the data set '{ref}' names '{place[:80]}', which lies outside its folder; give the "
                    "files themselves."
                )


def _words_in(data: Any) -> Iterator[str]:
    """Every text in nested lists and mappings."""
    if isinstance(data, str):
        yield data
    elif isinstance(data, dict | list):
        for value in data.values() if isinstance(data, dict) else data:
            yield from _words_in(value)
