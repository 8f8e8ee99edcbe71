"""Models, tokenizers and texts by reference: `embedded:NAME`, a local path, or a hub id (`ID` or `ID@REVISION`)."""

from harness.assets.models import check_model, load_model, load_tokenizer
from harness.assets.references import fingerprint, is_embedded, is_local, names_asset, resolve
from harness.assets.texts import texts

__all__ = [
    "check_model",
    "fingerprint",
    "is_embedded",
    "is_local",
    "load_model",
    "load_tokenizer",
    "names_asset",
    "resolve",
    "texts",
]
