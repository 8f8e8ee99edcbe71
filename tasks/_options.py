"""Typed reading of `task.options`, so that a wrong value is one clear sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from harness.contracts import HarnessError

T = TypeVar("T")

MOST, MOST_NUMBER = 10**9, 1e12
"""The largest whole number, and the largest number, of any option."""


class Options:
    """A view on `task.options`; every reader takes a name and a default, and raises HarnessError for another type.

    Options that a task does not read are left alone: `--set task.options.x=...` goes to all tasks of a run.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def text(self, name: str, default: str) -> str:
        return self._read(name, default, str, "a text")

    def boolean(self, name: str, default: bool) -> bool:
        return self._read(name, default, bool, "true or false")

    def number(self, name: str, default: float) -> float:
        value = self._read(name, default, (int, float), "a number")
        if not abs(value) <= MOST_NUMBER:
            raise HarnessError(
                f"task.options.{name} must be at most {MOST_NUMBER:g} either way, not {repr(value)[:80]}."
            )
        return float(value)

    def integer(self, name: str, default: T, *, least: int = 1) -> int | T:
        """From `least` to MOST."""
        value = self._values.get(name)
        if isinstance(value, float) and value.is_integer():  # `--set` reads 1e3 as a float
            value = int(value)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MOST:
            raise HarnessError(
                f"task.options.{name} must be a whole number of at least {least} and at most {MOST}, "
                f"not {repr(value)[:80]}."
            )
        return value

    def _read(self, name: str, default: Any, kind: type | tuple[type, ...], what: str) -> Any:
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise HarnessError(f"task.options.{name} must be {what}, not {value!r}.")
        return value
