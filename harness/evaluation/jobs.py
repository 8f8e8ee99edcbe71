"""What rows of an evaluation wait for, as jobs of an executor: data sets, and a target that is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import assets
from harness.contracts import HarnessError
from harness.evaluation.records import UNTUNED
from harness.evaluation.training import Recipe, make_other_target
from harness.generated.dataset import MANIFEST, asked_of, finished_dataset, write_dataset
from harness.generated.source import Source
from harness.machine.files import read_json
from harness.settings.schema import identity_view
from harness.store import locks
from harness.store.atomic import StorageError
from harness.store.record import digest
from harness.workers.executor import Tell

KEPT = "generator"
"""Folder of a kept generator that has moved with a job."""


@dataclass(frozen=True)
class Data:
    """What a row trains on, with one seed."""

    folder: str = ""
    """Name of a generated data set's folder; "" for rows that have none."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """What it is, by content."""
    lacks: str = ""
    """Why there is none. With `content`, trainings on it may still be stored."""


@dataclass(frozen=True)
class Target:
    """A model that is trained."""

    name: str
    ref: str
    """Asset reference; of one that is made: the folder that it is made into."""
    recipe: Recipe | None = None

    @cached_property
    def content(self) -> str:
        return assets.fingerprint(self.ref)

    def at(self, root: Path) -> Target:
        """The same target where evaluations lie in `root`; only one that is made lies there."""
        return replace(self, ref=str(made_place(root, Path(self.ref).name))) if self.recipe else self

    @property
    def stable(self) -> str:
        """The same on every machine, whatever the last bits of what is made."""
        return repr(self.recipe) if self.recipe else self.content


def made_place(root: Path, key: str) -> Path:
    """Where a target that is made lies below the evaluations of a profile."""
    return (root / "targets" / key).absolute()


@dataclass(frozen=True)
class DataJob:
    """One generated data set: what rows wait for. Its record is Data."""

    row: str
    seed: int
    source: Source | None
    lacks: str
    tokens: int
    place: Path

    @property
    def name(self) -> str:
        return f"texts of {self.source.name if self.source else self.row}" + (
            f" (data seed {self.seed})" if self.row == UNTUNED else ""
        )

    @property
    def folder(self) -> Path:
        assert self.source is not None
        generator = identity_view(self.source.settings.generator) | identity_view(self.source.settings.data)
        key = digest(self.source.fingerprint, generator, self.tokens, self.seed, self.source.name)
        return self.place / f"{self.source.task}-{self.row}-seed{self.seed}-{key}"

    def settled(self) -> Data | None:
        return Data(lacks=self.lacks) if self.source is None else None

    def run(self, tell: Tell, *, wait: bool) -> Data:
        assert self.source is not None
        wanted = {"tokens": self.tokens, "seed": self.seed}
        try:
            if self.source.gone and finished_dataset(self.source, self.folder, **wanted) is None:
                why = f"the generator of {self.source.name} is no longer there; run its cell again with --fresh"
                return Data("", {"dataset": asked_of(self.source, **wanted)}, why)
            write_dataset(self.source, self.folder, **wanted)
        except StorageError:
            raise
        except HarnessError as error:
            return Data(lacks=str(error))
        return Data(self.folder.name, {"dataset": read_json(self.folder / MANIFEST)["asked"]})

    def lost(self, reason: str) -> Data:
        return Data(lacks=f"{reason}; run it again")

    def stores(self) -> tuple[Path, Path]:
        """The results folder, and the data set's own in it."""
        return self.place.parents[2], self.folder

    def reads(self) -> dict[str, Path]:
        """The generator that a cell kept."""
        there = self.source and self.source.identity and not self.source.gone
        return {KEPT: Path(self.source.model)} if self.source and there else {}

    def at(self, out: Path) -> DataJob:
        """The same data set in another results folder, where the generator lies beside the profiles."""
        source = replace(self.source, model=str(out / KEPT)) if self.source and self.reads() else self.source
        return replace(self, source=source, place=out / self.place.relative_to(self.place.parents[2]))


@dataclass(frozen=True)
class TargetJob:
    """The miniature's second target, made where it is missing. Its record is ""."""

    target: Target
    like: str
    name: str = "the other target"

    def settled(self) -> str | None:
        return None if self.target.recipe and not Path(self.target.ref, "config.json").exists() else ""

    def run(self, tell: Tell, *, wait: bool) -> str:
        assert self.target.recipe is not None
        place = Path(self.target.ref)
        with locks.owned(place.parent, wait=True):
            if not (place / "config.json").exists():
                make_other_target(place, self.like, self.target.recipe)
        return ""

    def lost(self, reason: str) -> str:
        raise HarnessError(f"The other target was not made: {reason}; run it again.")

    def stores(self) -> tuple[Path, Path]:
        """The results folder, and the target's own in it."""
        place = Path(self.target.ref)
        return place.parents[3], place

    def at(self, out: Path) -> TargetJob:
        """The same target in another results folder."""
        root, place = self.stores()
        return replace(self, target=self.target.at(out / place.parents[1].relative_to(root)))
