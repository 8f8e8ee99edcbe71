"""Names and numbers as they are asked for, on the command line and in Python."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from harness.contracts import HarnessError
from harness.registry import TASKS, Registry, TaskEntry, task_of

Names = str | Sequence[str]
Numbers = int | str | Iterable[int]


def names_of(chosen: Names, registry: Registry[Any]) -> list[str]:
    """ "all", names with commas between them or a list of names -> names that are there, each once."""
    parts = chosen.split(",") if isinstance(chosen, str) else list(chosen)
    names = registry.names() if chosen == "all" else [part.strip() for part in parts if part.strip()]
    if not names:
        raise HarnessError(f"Name at least one {registry.kind}, or 'all'.")
    for name in names:
        registry.get(name)
    return list(dict.fromkeys(names))


def tasks_of(chosen: Names) -> list[str]:
    """The same of tasks, of which each may also be the path of a target's file: it is read, and the task has the name
    that it gives. Raises HarnessError, for two files that call different things alike too."""
    if chosen == "all":
        return names_of(chosen, TASKS)
    found: dict[str, TaskEntry] = {}
    for word in (part.strip() for part in (chosen.split(",") if isinstance(chosen, str) else chosen)):
        entry = task_of(word) if word else None
        if entry and found.setdefault(entry.name, entry).made_of != entry.made_of:
            raise HarnessError(f"Two targets are named '{entry.name}'; give one another name.")
    return names_of(list(found), TASKS)


MOST_SEED, MOST_NUMBERS = 2**32 - 1, 10_000
"""Generators of random numbers take no larger seed; and a grid of more cells a pair is a slip of the finger."""


def numbers_of(chosen: Numbers, what: str) -> list[int]:
    """3, [0, 1], "0,1" or "0-4" -> whole numbers, each once; `what` names them as the command line does."""
    ranges: list[range] = []
    option, given = f"--{what}", f"{str(chosen)[:80]!r}"
    try:
        for part in chosen.split(",") if isinstance(chosen, str) else [chosen] if isinstance(chosen, int) else chosen:
            first, dash, last = str(part).strip().partition("-")
            ranges.append(range(int(first), int(last if dash else first) + 1))
    except (TypeError, ValueError) as error:
        wrong = f"{option} takes whole numbers such as 0,1,2 or 0-4, none below zero, not {given}."
        raise HarnessError(wrong) from error
    if not any(ranges) or any(part.start < 0 or part.stop > MOST_SEED + 1 for part in ranges):
        raise HarnessError(f"{option} takes at least one number, none below zero or above {MOST_SEED}; given {given}.")
    if sum(part.stop - part.start for part in ranges) > MOST_NUMBERS:
        raise HarnessError(f"{option} takes at most {MOST_NUMBERS} numbers; {given} has more.")
    return list(dict.fromkeys(number for part in ranges for number in part))


def check_choice(name: str, chosen: str, known: Sequence[str]) -> None:
    """Raises HarnessError for what is not known; `name` is the option's."""
    if chosen not in known:
        raise HarnessError(f"--{name} takes {', '.join(known[:-1])} or {known[-1]}, not '{chosen}'.")
