"""Names -> tasks and rewards. Built-ins are found by looking into the folders, outside packages by entry points.

    @register_reward("mine", needs=Needs(references=True), advantage="group", summary="one line")
    def make(context): ...            # -> TRL reward callable

    @register_task("my_task")
    class MyTask: ...                 # the Task protocol of harness/contracts.py

Nothing is imported before the first look-up, and what is imported then is light (a module imports torch inside the
functions that need it).

A task may also be a target's file (tasks/targets): `task_of` reads it. Such a task is known to the process that read it
and to whom a cell of it is sent; its definition stands among the cell's settings, so that a record has it too.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from harness.contracts import (
    Advantage,
    Contact,
    HarnessError,
    Needs,
    RewardFactory,
    Task,
    TaskDeclarations,
    Training,
    no_contacts,
    unknown,
)

T = TypeVar("T")


@dataclass(frozen=True)
class RewardEntry:
    """A registered reward: its factory and its declarations."""

    name: str
    factory: RewardFactory
    needs: Needs
    advantage: Advantage
    summary: str
    options: Mapping[str, str] | None = None
    """Every name that it reads below `reward.options`, with a line about it; None: not declared."""
    asset_options: tuple[str, ...] = ()
    """Those options that name an asset: it is fetched, and counts by its content in a cell's identity."""
    training: Training | None = None
    """How it trains targets; None: it trains none."""
    contacts: Callable[[Mapping[str, Any]], Sequence[Contact]] = no_contacts
    """The hosts that it sends something to with these `reward.options`, as `TaskDeclarations.contacts`."""
    baseline: bool = False
    """A report compares the others with it, unless told otherwise."""
    exchangeable: bool = True
    """Groups of rollouts that come in another order get the same rewards in that order, where a training has one inner
    step. False: the place in the batch counts."""


@dataclass(frozen=True)
class Made:
    """What a task of a target's file is made of, as plain data."""

    name: str
    definition: Mapping[str, Any]
    """What its numbers depend on, but for the content of the files that it names."""
    folder: str = ""
    """Where these lie; "" where nobody of this session said so: a record does not."""
    summary: str = ""
    settings: Mapping[tuple[int, str], Any] = field(default_factory=dict)
    """What the file sets, as a profile's layer (harness/settings/profiles.py)."""
    place: str = ""
    """The file's name, for messages and for where a setting comes from."""


@dataclass(frozen=True)
class TaskEntry:
    """A registered task: the class (or a callable making the task) and what it declares on itself."""

    name: str
    factory: type[Task]
    summary: str
    made_of: Made | None = None
    """Where it was not registered: what it was made of."""

    @property
    def declares(self) -> TaskDeclarations:
        """What it says of itself beyond the protocol."""
        return TaskDeclarations.of(self.factory)

    @property
    def options(self) -> Mapping[str, str] | None:
        """Every name that it reads below `task.options`, with a line about it; None: not declared."""
        return self.declares.options


def _module(entry: object) -> str:
    """Where an entry's factory was defined."""
    return getattr(getattr(entry, "factory", None), "__module__", None) or ""


FROM_FILE = "plugin_file"
"""Package name of what a command read from a Python file of the user's (`python -m harness check FILE.py`)."""


def _of_session(entry: object) -> bool:
    return _module(entry).partition(".")[0] in ("__main__", FROM_FILE)


class Registry(Generic[T]):
    """A mapping from unique names to entries, filled from a package's modules and an entry-point group on first use."""

    def __init__(self, kind: str, package: str, group: str) -> None:
        self.kind, self.package, self.group = kind, package, group
        self._entries: dict[str, T] = {}
        self._adopted: dict[str, T] = {}
        self._loaded = False

    def add(self, name: str, entry: T) -> None:
        """Raises HarnessError if the name is taken. What a notebook's cell, a session or a file of the
        user's defined may be defined anew."""
        if name in self._entries and not (_of_session(entry) and _of_session(self._entries[name])):
            raise HarnessError(f"A {self.kind} named '{name}' is registered already; give yours another name.")
        self._entries[name] = entry

    def adopt(self, name: str, entry: T) -> T:
        """Takes up an entry that no package has; the last one of a name counts, and `names` leaves it out. Raises
        HarnessError if a package has the name."""
        self._load()
        if name in self._entries:
            raise HarnessError(f"A {self.kind} named '{name}' is registered already; give yours another name.")
        self._adopted[name] = entry
        return entry

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            # Sub-packages (the engine) register nothing and are heavy to import.
            if not module.ispkg and not module.name.startswith("_"):
                importlib.import_module(f"{self.package}.{module.name}")
        for point in entry_points(group=self.group):
            try:
                point.load()
            except Exception as error:
                raise HarnessError(f"The {self.kind} package '{point.value}' could not be loaded: {error}.") from error

    def loaded(self) -> Iterator[T]:
        """The entries there are by now, without looking for more."""
        return iter(self._entries.values())

    def adopted(self) -> Iterator[T]:
        """The entries that were taken up (`adopt`)."""
        return iter(self._adopted.values())

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[T]:
        return (self._entries[name] for name in self.names())

    def get(self, name: str) -> T:
        """The entry; an unknown name raises HarnessError with the nearest names."""
        entry = self.find(name)
        if entry is None:
            raise HarnessError(unknown(self.kind, name, self.names()))
        return entry

    def everywhere(self, name: str) -> bool:
        """Whether other processes find the entry as well: it is of the package or of one that brings an entry point.
        Else it was registered in this session, a notebook say. An unknown name raises HarnessError."""
        entry = self.get(name)
        if name in self._adopted:
            return True  # cells bring it along
        home = _module(entry).partition(".")[0]
        return home in {self.package, *(point.module.partition(".")[0] for point in entry_points(group=self.group))}

    def find(self, name: str) -> T | None:
        """The entry, or None: stored results may be of a package that is not installed here."""
        self._load()
        return self._entries.get(name) or self._adopted.get(name)


TASKS: Registry[TaskEntry] = Registry("task", "tasks", "harness.tasks")
REWARDS: Registry[RewardEntry] = Registry("reward", "rewards", "harness.rewards")

TARGET_FILES = (".yaml", ".yml")
DEFINITION = "target"
"""The option below `task.options` that holds what a target's file says."""


def task_of(word: str) -> TaskEntry:
    """The task that a word of the command line means: a registered name, or the path of a target's file, which is read.
    The one place where such words become tasks. Raises HarnessError."""
    if not word.endswith(TARGET_FILES):
        return TASKS.get(word)
    return made_task(_targets().read(word))


def made_task(made: Made) -> TaskEntry:
    """Takes up the task that is made of this. Raises HarnessError."""
    known = TASKS.find(made.name)
    if known is not None and known.made_of == made:
        return known
    return TASKS.adopt(made.name, _targets().entry(made))


def recorded_task(name: str, options: Mapping[str, Any]) -> TaskEntry | None:
    """The task of a record with these `task.options`: the one known here, else one made of the definition among them,
    which then opens no file. None where there is neither. Raises HarnessError for a definition that is none."""
    known = TASKS.find(name)
    definition = options.get(DEFINITION)
    if known is not None and (known.made_of is None or known.made_of.definition == definition):
        return known
    return made_task(Made(name, definition)) if isinstance(definition, Mapping) else known


def _targets() -> Any:
    return importlib.import_module("tasks.targets")  # when it is needed: it knows this module


def _first_line(obj: object, summary: str | None) -> str:
    text = summary or getattr(obj, "summary", None) or (getattr(obj, "__doc__", None) or "").strip()
    return text.splitlines()[0] if text else ""


def register_reward(
    name: str,
    *,
    needs: Needs | None = None,
    advantage: Advantage | None = None,
    summary: str | None = None,
    options: Mapping[str, str] | None = None,
    asset_options: tuple[str, ...] = (),
    training: Training | None = None,
    contacts: Callable[[Mapping[str, Any]], Sequence[Contact]] = no_contacts,
    baseline: bool = False,
    exchangeable: bool = True,
) -> Callable[[RewardFactory], RewardFactory]:
    """Register a reward's factory, with what `RewardEntry` tells of it; nothing but the name is asked for. `needs` and
    `advantage` may also be attributes of the factory; the defaults are "needs nothing" and "group". Where `options` are
    given, misspelled names are noticed. A reward that needs the metric is taken to differentiate it through a training
    of the target (`Training()`), unless `training` says otherwise."""

    def register(factory: RewardFactory) -> RewardFactory:
        needed = needs if needs is not None else getattr(factory, "needs", Needs())
        entry = RewardEntry(
            name,
            factory,
            needed,
            advantage if advantage is not None else getattr(factory, "advantage", "group"),
            _first_line(factory, summary),
            options if options is not None else getattr(factory, "options", None),
            asset_options,
            training or (Training() if needed.metric else None),
            contacts,
            baseline,
            exchangeable,
        )
        if entry.advantage not in ("group", "batch"):
            raise HarnessError(f"The reward '{name}' declares advantage={entry.advantage!r}; use 'group' or 'batch'.")
        REWARDS.add(name, entry)
        return factory

    return register


def register_task(name: str, *, summary: str | None = None) -> Callable[[type[Task]], type[Task]]:
    """Register a task's class; one class may be registered under several names through subclasses."""

    def register(factory: type[Task]) -> type[Task]:
        entry = TaskEntry(name, factory, _first_line(factory, summary))
        TASKS.add(name, entry)
        _check_figure(entry)
        return factory

    return register


def _check_figure(entry: TaskEntry) -> None:
    """Raises HarnessError if another figure has the key of this task's: their files would overwrite each other."""
    figure = entry.declares.figure
    for other in TASKS.loaded():
        theirs = other.declares.figure
        if figure and theirs and theirs.key == figure.key and theirs != figure:
            raise HarnessError(
                f"The task '{entry.name}' declares a figure '{figure.key}' other than that of '{other.name}'; give it "
                "another key."
            )


def unsupported(task: TaskEntry, reward: RewardEntry) -> str | None:
    """Why this pair cannot run, found from declarations alone; None if it can."""
    offers, needs = task.factory.offers, reward.needs
    if needs.references and not offers.references:
        return "the task has no reference texts"
    if needs.metric and not offers.metric:
        return "the task has no differentiable metric"
    missing = [package for package in needs.packages if importlib.util.find_spec(package) is None]
    if missing:
        return f"the package {', '.join(missing)} is not installed"
    return None
