"""Models, tokenizers and texts by reference: `embedded:NAME`, a local path, or a hub id (`ID` or `ID@REVISION`).

Only safetensors weights are loaded and no code comes with a model (`trust_remote_code` stays off). Whatever is
missing or broken is one sentence that names the setting's value and says what to do.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError

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


def names_asset(value: object) -> bool:
    """Whether an option's value can only be meant as an asset: embedded, or written as a path."""
    return isinstance(value, str) and (is_embedded(value) or value.startswith(("./", "../", "/", "~")))


@lru_cache(maxsize=64)
def resolve(ref: str) -> Path:
    """A local file or folder holding the asset; a hub id is taken from the cache or downloaded. Raises HarnessError."""
    if is_embedded(ref):
        from harness import miniature

        return miniature.path(ref.removeprefix(EMBEDDED))
    if is_local(ref):
        path = Path(ref).expanduser()
        if not path.exists():
            raise HarnessError(f"There is no file or folder {ref}; check the path.")
        return path
    from huggingface_hub import snapshot_download

    name, _, revision = ref.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=["*.json", "*.safetensors", "*.txt",
                                                                                      "*.model", "*.jinja", "*.bin"],
                                      ignore_patterns=["pytorch_model*", "*.h5", "original/*", "onnx/*"]))  # fmt: skip
    except Exception as error:  # the hub client raises a dozen kinds; all mean: not to be had
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise HarnessError(
            f"'{ref}' is neither a local path nor a hub model that can be fetched now ({type(error).__name__}: {first}); "
            "check the spelling, your connection and your access token."
        ) from error


def fingerprint(ref: str) -> str:
    """What the asset is, by content: sha256 over names and bytes of its files (embedded: from the manifest)."""
    if is_embedded(ref):
        from harness import miniature

        name = ref.removeprefix(EMBEDDED)
        return f"{EMBEDDED}{name}:{_embedded_texts_hash(name) if name in TEXTS else miniature.fingerprint(name)}"
    return _content_hash(str(resolve(ref)))


@lru_cache(maxsize=4)
def _embedded_texts_hash(name: str) -> str:
    from harness.miniature.world.passages import LANGUAGES

    every = [text for language in LANGUAGES for split in ("train", "validation", "test")
             for text in _embedded_texts(name, split, language, 512)]  # fmt: skip
    return hashlib.sha256("\n".join(every).encode()).hexdigest()


@lru_cache(maxsize=64)
def _content_hash(path: str) -> str:
    root = Path(path)
    files = sorted(item for item in root.rglob("*") if item.is_file()) if root.is_dir() else [root]
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
        tokenizer = AutoTokenizer.from_pretrained(str(path), trust_remote_code=False)
    except Exception as error:
        raise HarnessError(f"No tokenizer could be loaded from '{ref}' ({_why(error)}).") from error
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
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=False)
        if untie_head:
            config.tie_word_embeddings = False
        model = AutoModelForCausalLM.from_pretrained(
            str(path), config=config, dtype=getattr(torch, dtype), attn_implementation=attention,
            trust_remote_code=False, use_safetensors=True,
        )  # fmt: skip
    except Exception as error:
        raise HarnessError(f"The model '{ref}' could not be loaded ({_why(error)}).") from error
    if untie_head:
        # A checkpoint saved with a tied head holds no head weights: give the head a copy of the embeddings.
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        head.weight = torch.nn.Parameter(embedding.weight.detach().clone())
    return model.eval()


def _why(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def texts(ref: str, *, split: str | None, limit: int | None = None, language: str = "en") -> list[str]:
    """Texts of a data reference in their stored order, at most `limit`. Raises HarnessError if there are none.

    split   "train", "validation" or "test"; None: all texts (of a hub data set: its train split). `embedded:articles` and
            `embedded:passages` know splits. A JSON-lines file holds objects with a `text` field; it may say `split` in
            each, else of every five lines the fourth is validation, the fifth test and the rest train, so that no split
            shares a line with another. A hub data set (`ID`, `ID/CONFIG`, either with `@REVISION`) has its own.
    """
    if is_embedded(ref):
        found = _embedded_texts(ref.removeprefix(EMBEDDED), split, language, limit)
    elif is_local(ref):
        found = _json_lines(ref, split)
    else:
        found = _hub_texts(ref, split)
    if not found:
        raise HarnessError(f"'{ref}' holds no text" + (f" for the split '{split}'." if split else "."))
    return found[:limit]


def _embedded_texts(name: str, split: str | None, language: str, limit: int | None) -> list[str]:
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
        raise HarnessError(f"The data file {ref} cannot be read ({_why(error)}).") from error
    except json.JSONDecodeError as error:
        raise HarnessError(f"{ref}, line {number}: not valid JSON ({error.msg}).") from error
    if split and any("split" in row for row in rows):
        rows = [row for row in rows if row.get("split") == split]
    elif split:
        places = {"train": (0, 1, 2), "validation": (3,), "test": (4,)}[split]
        rows = [row for number, row in enumerate(rows) if number % 5 in places]
    return [row["text"] for row in rows]


def _hub_texts(ref: str, split: str | None) -> list[str]:
    from datasets import load_dataset

    name, _, revision = ref.partition("@")
    parts = name.split("/")
    try:
        data = load_dataset("/".join(parts[:2]), *parts[2:3], split=split or "train", revision=revision or None)
    except Exception as error:
        raise HarnessError(f"The data set '{ref}' cannot be loaded ({_why(error)}).") from error
    if "text" not in data.column_names:
        raise HarnessError(f"The data set '{ref}' has no `text` column; it has {', '.join(data.column_names)}.")
    return list(data["text"])


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
        AutoConfig.from_pretrained(str(path), trust_remote_code=False)
    except Exception as error:
        raise HarnessError(f"The model '{ref}' has a broken config.json ({_why(error)}).") from error
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
            raise HarnessError(f"The weights {file.name} of '{ref}' are damaged ({_why(error)}).") from error
    load_tokenizer(ref)
