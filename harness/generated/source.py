"""Who writes a data set: the generator that a cell kept, or a profile's before any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness import assets
from harness.assets import hub
from harness.contracts import Contact, HarnessError
from harness.machine.files import files_below
from harness.registry import task_of
from harness.rerun import recorded_settings
from harness.settings.profiles import DEFAULT, changed, load_profile, resolve
from harness.settings.schema import Settings
from harness.store.damage import reading
from harness.store.frames import cell_at
from harness.store.record import CellStore
from harness.training.kept import FOLDER

UNTUNED = "untuned"


@dataclass(frozen=True)
class Source:
    """A generator and the settings that it writes by.

    name      of it for people: "lambada_es/adam_metagrad seed 0", or "untuned"
    model     asset reference: the folder of the kept generator, or the profile's `generator.model`
    settings  the cell's, whose `generator.model` is what it was trained from
    identity  of the cell; "" for the untuned one, as are `task` (unless one was named) and `reward`
    folder    the cell's; None where the settings are the user's own
    gone      the generator's fingerprint, where it is no longer there: what it wrote is known by that, and it writes
              nothing more
    """

    name: str
    model: str
    settings: Settings
    seed: int = 0
    identity: str = ""
    profile: str = ""
    task: str = ""
    reward: str = ""
    folder: Path | None = None
    gone: str = ""

    @property
    def fingerprint(self) -> str:
        """Of the generator, by content."""
        return self.gone or assets.fingerprint(self.model)


def untuned(settings: Settings, profile: str = "", task: str = "") -> Source:
    """The generator as a cell with these settings finds it."""
    return Source(UNTUNED, settings.generator.model, settings, profile=profile, task=task)


CHANGEABLE = ("generator.", "data.articles", "data.article_count")
"""What `--set` may change of how a kept generator writes; nothing else would have an effect."""


def chosen_source(cell: str | Path, profile: str | None, task: str | None, given: Mapping[str, Any]) -> Source:
    """The source that the arguments of `generate` mean, `given` over its settings. Raises HarnessError."""
    for key in given:
        if not key.startswith(CHANGEABLE):
            raise HarnessError(
                f"--set {key} changes nothing here; `generate` heeds generator.*, data.articles and their count."
            )
    if str(cell) == UNTUNED:
        chosen = load_profile(profile or DEFAULT)
        if task is not None:
            task = task_of(task).name
        return untuned(resolve(chosen, task or "", "", given), chosen.name, task or "")
    if profile is not None or task is not None:
        raise HarnessError(f"--profile and --task are for '{UNTUNED}'; a cell's own stand in its record.")
    if "generator.model" in given:
        raise HarnessError(f"--set generator.model is for '{UNTUNED}'; the cell's own generator writes here.")
    source = source_of_cell(Path(cell))
    return replace(source, settings=changed(source.settings, given)) if given else source


def source_of_cell(folder: Path, *, maybe_gone: bool = False) -> Source:
    """The generator that the cell in `folder` kept. Raises HarnessError where there is no such cell, it is not finished
    or keeps none, and for a generator that is not the one of its record.

    maybe_gone  a cell that kept one which is no longer there (studies have none) gives a source that is `gone`
    """
    folder = folder.parent if folder.name == "cell.json" else folder
    cell = cell_at(folder)
    record = cell.read() if cell else None
    if record is None:
        raise HarnessError(
            f"There is no cell in {folder}; name the folder of one (RUNS/PROFILE/TASK/REWARD/seedN-IDENTITY), or "
            f"'{UNTUNED}'."
        )
    if not isinstance(cell, CellStore):
        raise HarnessError(f"{folder} is packed in a study, which keeps no generators; name the cell that was packed.")
    if record.status != "done":
        raise HarnessError(f"The cell in {folder} is {record.status}, not done; `run` it to its end first.")
    place = folder / FOLDER
    there = place.is_dir()
    if not record.generator_sha256 or not (there or maybe_gone):
        raise HarnessError(
            f"The cell in {folder} kept no generator; run it again with --set keep.generator=final --fresh."
        )
    if there:
        _check(place, folder, record.generator_sha256)
    variant = f" {record.variant}" if record.variant else ""
    return Source(
        name=f"{record.task}/{record.reward}{variant} seed {record.seed}",
        model=str(place.absolute()),
        settings=recorded_settings(record, folder),
        seed=record.seed,
        identity=record.identity,
        profile=record.profile,
        task=record.task,
        reward=record.reward,
        folder=folder,
        gone="" if there else record.generator_sha256,
    )


def _check(place: Path, folder: Path, expected: str) -> None:
    """Raises HarnessError where a file is a link out of the cell's folder, or the content not what its record says."""
    advice = "run the cell again with --fresh"
    if not place.resolve().is_relative_to(folder.resolve()):
        raise HarnessError(f"{place} is a link out of the cell's folder, which is not followed; {advice}.")
    for file in files_below(place):
        with reading(file, folder, advice):
            pass
    if assets.fingerprint(str(place)) != expected:
        raise HarnessError(f"{place} is not the generator that the cell's record names; {advice}.")


def check_hosts(source: Source, refs: list[str], allowed: frozenset[Contact]) -> None:
    """Raises HarnessError where a cell's record would have the hub contacted, which its reader did not say: it may be
    anybody's."""
    host = hub.endpoint()
    remote = [ref for ref in refs if not (assets.is_embedded(ref) or assets.is_local(ref))]
    if source.folder is not None and remote and host is not None and Contact(host) not in allowed:
        raise HarnessError(
            f"{source.folder} would read {', '.join(remote)} from {host}; if that is what you want, add --contact "
            f"{host}."
        )
