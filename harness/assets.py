"""Models, tokenizers and texts by reference: `embedded:NAME`, a local path, or a hub id (`ID` or `ID@REVISION`).

Only safetensors weights are loaded, and no code that comes with a model is run unless the command line says so
(`--trust-remote-code`; no profile, setting or environment variable can). Whatever is missing or broken is one sentence that names the setting's value and says what to do.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError
from harness.machine.trust import trusted

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
EMBEDDED = "embedded:"
TEXTS = ("articles", "passages")
"""Embedded texts; every other embedded name is a folder of files."""


def is_embedded(ref: str) -> bool:
    return ref.startswith(EMBEDDED)


def is_local(ref: str) -> bool:
    """A path that exists, or that can only be meant as one."""
    return Path(ref).exists() or ref.startswith((".", "/", "~")) or ref.endswith((".jsonl", ".json"))


ASSET_OPTIONS = ("language_id", "embedding_model")
"""Options of tasks and rewards that always name an asset."""


def names_asset(value: object, option: str = "") -> bool:
    """Whether an option's value is an asset: by its name, or because it can only be meant as one (embedded, a path)."""
    if option in ASSET_OPTIONS and isinstance(value, str):
        return True
    return isinstance(value, str) and (is_embedded(value) or value.startswith(("./", "../", "/", "~")))


@lru_cache(maxsize=64)
def resolve(ref: str, data: bool = False) -> Path:
    """A local file or folder holding the asset; a hub id (of a data set, if `data`) comes from the cache or is downloaded.
    Raises HarnessError."""
    if is_embedded(ref):
        from harness import miniature

        return miniature.path(ref.removeprefix(EMBEDDED))
    if is_local(ref):
        path = Path(ref).expanduser()
        if not path.exists():
            raise HarnessError(f"There is no file or folder {ref}; check the path.")
        return path
    from harness import hub

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
    from harness import hub

    # The cache's folder may hold more than this reference means: other configurations, weights in other formats.
    return _content_hash(str(path), tuple(map(str, hub.meant(ref, path, data))))


@lru_cache(maxsize=4)
def embedded_texts_hash(name: str) -> str:
    from harness.miniature.world.passages import LANGUAGES

    every = [text for language in LANGUAGES for split in ("train", "validation", "test")
             for text in embedded_texts(name, split, language, 512)]  # fmt: skip
    return hashlib.sha256("\n".join(every).encode()).hexdigest()


@lru_cache(maxsize=64)
def _content_hash(path: str, only: tuple[str, ...] | None = None) -> str:
    root = Path(path)
    files = sorted(item for item in root.rglob("*") if item.is_file()) if root.is_dir() else [root]
    files = files if only is None else [Path(name) for name in only]
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
        total.update(f"{file.relative_to(root) if root.is_dir() else ''}:{digest}\n".encode())
    return total.hexdigest()


def load_tokenizer(ref: str) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model, with a padding token (the end-of-text token where none is set)."""
    from transformers import AutoTokenizer

    path = resolve(ref)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=trusted())
    except Exception as error:
        raise HarnessError(f"No tokenizer could be loaded from '{ref}' ({why(error)}).") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise HarnessError(f"The tokenizer of '{ref}' has neither a padding nor an end-of-text token; add one to it.")
    return tokenizer


def load_model(
    ref: str, *, dtype: str = "float32", attention: str = "eager", untie_head: bool = False
) -> PreTrainedModel:
    """A causal LM in evaluation mode. `attention="eager"` for models whose second derivatives are taken."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    path = resolve(ref)
    if not (path / "config.json").exists():
        raise HarnessError(f"'{ref}' is not a Hugging Face model folder: it has no config.json.")
    if not list(path.glob("*.safetensors")):
        raise HarnessError(
            f"'{ref}' has no .safetensors weights; convert the model (pickled weights are never loaded)."
        )
    try:
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=trusted())
        copied = untie_head and config.tie_word_embeddings
        config.tie_word_embeddings = config.tie_word_embeddings and not untie_head
        model = AutoModelForCausalLM.from_pretrained(
            str(path), config=config, dtype=getattr(torch, dtype), attn_implementation=attention,
            trust_remote_code=trusted(), use_safetensors=True,
        )  # fmt: skip
    except Exception as error:
        raise HarnessError(f"The model '{ref}' could not be loaded ({why(error)}).") from error
    if copied:
        # A checkpoint saved with a tied head holds no head weights: give the head a copy of the embeddings.
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        head.weight = torch.nn.Parameter(embedding.weight.detach().clone())
    return model.eval()


def why(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def texts(ref: str, *, split: str | None, limit: int | None = None, language: str = "en") -> list[str]:
    """Texts of a data reference in their stored order, at most `limit`. Raises HarnessError if there are none.

    split   "train", "validation" or "test"; None: all texts (of a hub data set: its train split). `embedded:articles`
            and `embedded:passages` know splits. A JSON-lines file holds objects with a `text` field; it may say `split` in
            each, else of every five lines the fourth is validation, the fifth test and the rest train, so that no split
            shares a line with another. A hub data set, or a folder laid out as one (see harness/hub.py), has its own.
    """
    if is_embedded(ref):
        found = embedded_texts(ref.removeprefix(EMBEDDED), split, language, limit)
    elif is_local(ref) and (resolve(ref).is_dir() or ref.endswith(".parquet")):
        from harness import hub

        found = hub.texts_at(resolve(ref), ref, "", split)
    elif is_local(ref):
        found = _json_lines(ref, split)
    else:
        from harness import hub

        found = hub.texts(ref, split)
    if not found:
        raise HarnessError(f"'{ref}' holds no text" + (f" for the split '{split}'." if split else "."))
    return found[:limit]


def embedded_texts(name: str, split: str | None, language: str, limit: int | None) -> list[str]:
    split = split or "train"
    if name == "passages":
        from harness.miniature.world import passages

        return passages.split(split, language)
    if name == "articles":
        from harness.miniature.corpus import articles

        return articles(split, limit)
    raise HarnessError(f"There are no embedded texts named '{name}'; known are {', '.join(TEXTS)}.")


def _json_lines(ref: str, split: str | None) -> list[str]:
    path = resolve(ref)
    rows: list[dict[str, Any]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict) or not isinstance(row.get("text"), str) or not row["text"].strip():
                    raise HarnessError(f"{ref}, line {number}: every line must be an object with a non-empty `text`.")
                rows.append(row)
    except (OSError, UnicodeDecodeError) as error:
        raise HarnessError(f"The data file {ref} cannot be read ({why(error)}).") from error
    except json.JSONDecodeError as error:
        raise HarnessError(f"{ref}, line {number}: not valid JSON ({error.msg}).") from error
    if split and any("split" in row for row in rows):
        rows = [row for row in rows if row.get("split") == split]
    elif split:
        places = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}[split]
        rows = [row for number, row in enumerate(rows) if number % 5 in places]
    return [row["text"] for row in rows]


@lru_cache(maxsize=16)
def check_model(ref: str) -> None:
    """Raises HarnessError if the model or its tokenizer could not be loaded: config, weights' headers, tokenizer. The
    embedded ones are checked by hash instead, without importing transformers."""
    path = resolve(ref)
    if is_embedded(ref):
        return
    from safetensors import SafetensorError, safe_open
    from transformers import AutoConfig

    if not (path / "config.json").exists():
        raise HarnessError(f"'{ref}' is not a Hugging Face model folder: it has no config.json.")
    try:
        AutoConfig.from_pretrained(str(path), trust_remote_code=trusted())
    except Exception as error:
        raise HarnessError(f"The model '{ref}' has a broken config.json ({why(error)}).") from error
    weights = list(path.glob("*.safetensors"))
    if not weights:
        raise HarnessError(
            f"'{ref}' has no .safetensors weights; convert the model (pickled weights are never loaded)."
        )
    for file in weights:
        try:
            with safe_open(file, framework="np") as tensors:
                tensors.keys()
        except (SafetensorError, OSError) as error:
            raise HarnessError(f"The weights {file.name} of '{ref}' are damaged ({why(error)}).") from error
    load_tokenizer(ref)
