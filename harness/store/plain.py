"""What tasks, rewards and their errors hand over, made storable: they are anybody's code."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from harness.contracts import SignalError
from harness.store.damage import DEEPEST

MOST_SAID = 2000
"""Characters of an error's message that are kept as a reason."""


def plain_text(text: str) -> str:
    """The text in Unicode: a lone surrogate, which UTF-8 cannot hold, becomes the six characters of its escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def said(error: BaseException) -> str:
    """The first line of an error's message, at most `MOST_SAID` characters; some errors cannot even be shown."""
    try:
        text = str(error).strip()
    except Exception as second:  # of the error's own `__str__`
        text = f"its message cannot be shown ({type(second).__name__})"
    first = text.split("\n")[0].strip() if text else "no message"
    return plain_text(first if len(first) <= MOST_SAID else f"{first[:MOST_SAID]} [...]")


def storable(value: Any, what: str, depth: int = DEEPEST) -> Any:
    """The value as JSON data: numbers and arrays of NumPy or torch as plain ones, numbers that are not finite and lone
    surrogates as texts. Raises SignalError for anything else, naming `what`."""
    if depth < 0:
        raise SignalError(f"{what} is nested more than {DEEPEST} deep; hand over less.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise SignalError(f"{what} is an integer beyond 64 bits; hand over a text or a float.")
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {storable(str(key), what): storable(inner, what, depth - 1) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [storable(inner, what, depth - 1) for inner in value]
    if callable(getattr(value, "tolist", None)):  # NumPy's scalars and arrays, torch's tensors
        return storable(value.tolist(), what, depth - 1)
    raise SignalError(f"{what} is a {type(value).__name__}, which cannot be stored; hand over numbers or texts.")
