"""Models, tokenizers and texts by reference: `embedded:NAME`, a local path, or a hub id (`ID` or `ID@REVISION`)."""

from harness.assets.models import check_model, load_model, load_tokenizer, outline
from harness.assets.references import fingerprint, is_embedded, is_local, names_asset, resolve
from harness.assets.rows import check_apart
from harness.assets.texts import named_splits, texts

__all__ = [
    "check_apart",
    "check_model",
    "fingerprint",
    "is_embedded",
    "is_local",
    "load_model",
    "load_tokenizer",
    "named_splits",
    "names_asset",
    "outline",
    "resolve",
    "texts",
]
