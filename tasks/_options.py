"""Typed reading of `task.options`, so that a wrong value is one clear sentence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from harness.contracts import HarnessError

T = TypeVar("T")


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
        return float(self._read(name, default, (int, float), "a number"))

    def integer(self, name: str, default: T, *, least: int = 1) -> int | T:
        """At least `least`."""
        value = self._values.get(name)
        if isinstance(value, float) and value.is_integer():  # `--set` reads 1e3 as a float
            value = int(value)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise HarnessError(f"task.options.{name} must be a whole number of at least {least}, not {value!r}.")
        return value

    def _read(self, name: str, default: Any, kind: type | tuple[type, ...], what: str) -> Any:
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise HarnessError(f"task.options.{name} must be {what}, not {value!r}.")
        return value
