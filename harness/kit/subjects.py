"""A word of the command line -> the registered rewards and tasks that it means."""

from __future__ import annotations

import os.path
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from harness.contracts import HarnessError, unknown
from harness.machine.files import read_text
from harness.registry import FROM_FILE, REWARDS, TARGET_FILES, TASKS, RewardEntry, TaskEntry, task_of
from harness.store.plain import said


@dataclass(frozen=True)
class Subject:
    """A plug-in that is checked, and the word that another process finds it by."""

    entry: RewardEntry | TaskEntry
    word: str

    @property
    def name(self) -> str:
        """ "reward shorter"."""
        kind = REWARDS.kind if isinstance(self.entry, RewardEntry) else TASKS.kind
        return f"{kind} {self.entry.name}"


def named(word: str) -> list[Subject]:
    """What a name or a Python file means, at least one. Raises HarnessError."""
    if word.endswith(".py"):
        return [Subject(entry, word) for entry in registered_by(Path(os.path.expanduser(word)))]
    if word.endswith(TARGET_FILES):
        return [Subject(task_of(word), word)]
    found = [entry for registry in (REWARDS, TASKS) if (entry := registry.find(word)) is not None]
    if not found:
        names = sorted({*REWARDS.names(), *TASKS.names()})
        raise HarnessError(unknown("reward or task", word[:80], names))
    return [Subject(entry, word) for entry in found]


def task_named(word: str) -> str:
    """The registered task that a word of `--task` means. Raises HarnessError."""
    return task_of(word).name


def registered_by(path: Path) -> list[RewardEntry | TaskEntry]:
    """Runs a Python file of the user's and returns what it registers. Once more, it may register the same anew. Raises
    HarnessError."""
    if not os.path.isfile(path):
        raise HarnessError(f"There is no file {str(path)[:200]!r}; name a Python file that registers a reward or task.")
    try:
        source = read_text(path)
    except ValueError as error:
        raise HarnessError(f"{path} is no text in UTF-8; save it as one.") from error
    module = ModuleType(f"{FROM_FILE}.{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and the like look for a class's module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)
    except HarnessError:
        raise
    except (Exception, SystemExit) as error:
        raise HarnessError(f"{path} could not be run ({type(error).__name__}: {said(error)}).") from error
    entries = [*REWARDS, *TASKS]
    found = [entry for entry in entries if getattr(entry.factory, "__module__", "") == module.__name__]
    if not found:
        raise HarnessError(
            f"{path} registers no reward and no task of its own; put @register_reward or @register_task before one."
        )
    return found
