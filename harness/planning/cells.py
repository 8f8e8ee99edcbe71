"""All that is known of a cell before anything loads, and what is made from it when it runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness import assets
from harness.contracts import Contact, HarnessError, Reading, RewardContext, RewardFunction, Task, TaskContext
from harness.registry import REWARDS, TASKS, made_task, unsupported
from harness.settings.schema import Settings
from harness.store.record import CellRecord, identity

if TYPE_CHECKING:
    from harness.training.inner import InnerTrainer


@dataclass(frozen=True)
class Cell:
    """All that is known of a cell before anything loads."""

    profile: str
    task: str
    reward: str
    seed: int
    settings: Settings
    variant: str = ""
    given: dict[str, Any] = field(default_factory=dict)
    label: str = ""
    """Which of several values of settings it has, for messages: "lr 3e-4". Tables tell it from the settings."""
    blocked: str = ""
    """Why it cannot run as it is set, found before the run (harness/planning/preflight.py)."""
    allowed: frozenset[Contact] = frozenset()
    """The hosts that the user's own command line lets it contact. Not stored, and never taken from a record."""

    def __getstate__(self) -> dict[str, Any]:
        """With what its task is made of where no package has it: the process that gets the cell makes it anew."""
        entry = TASKS.find(self.task)
        return self.__dict__ | ({"made_of": entry.made_of} if entry and entry.made_of else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        if made := state.pop("made_of", None):
            made_task(made)
        self.__dict__.update(state)

    @property
    def name(self) -> str:
        return " ".join(filter(None, (f"{self.task}/{self.reward}", self.variant, self.label, f"seed {self.seed}")))

    @cached_property
    def unsupported(self) -> str | None:
        """Why it cannot run; None if it can."""
        return self.blocked or unsupported(TASKS.get(self.task), REWARDS.get(self.reward))

    @cached_property
    def assets(self) -> dict[str, str]:
        """Reference -> fingerprint for everything the cell reads. Raises HarnessError for what is missing."""
        models, data = self._settings_references()
        found = {ref: assets.fingerprint(ref) for ref in models}
        found |= {ref: assets.fingerprint(ref, data=True) + self._heeded(ref) for ref in data}
        return found | {each.name: assets.fingerprint(each.ref, each.data) for each in self.readings()}

    def _heeded(self, ref: str) -> str:
        """Marks a source whose rows say their splits. Earlier versions read only those of references in JSON lines, so
        that the same file gave other numbers."""
        data = self.settings.data
        as_ever = ref not in (data.articles, data.validation_articles) and ref.endswith((".jsonl", ".json"))
        return ":splits" if assets.named_splits(ref) and not (as_ever and assets.is_local(ref)) else ""

    def _has_assets(self) -> bool:
        """Whether a cell that is blocked has all its assets, so that it keeps its identity once it runs."""
        if not self.blocked:
            return False
        try:
            return bool(self.assets)
        except HarnessError:
            return False

    def references(self) -> tuple[list[str], list[str]]:
        """(models and files, data sets) that the cell reads, each once, without touching them."""
        models, data = self._settings_references()
        models += [each.ref for each in self.readings() if each.ref and not each.data]
        data += [each.ref for each in self.readings() if each.ref and each.data]
        return list(dict.fromkeys(models)), list(dict.fromkeys(data))

    def readings(self) -> list[Reading]:
        """What its task reads because of what its options hold. Raises HarnessError for a file that is missing."""
        return list(TASKS.get(self.task).declares.readings(self.settings.task.options))

    def _settings_references(self) -> tuple[list[str], list[str]]:
        """`references` of what the settings name."""
        settings = self.settings
        models = [settings.generator.model, settings.target.model]
        task = TASKS.get(self.task)
        named = task.declares.asset_options, REWARDS.get(self.reward).asset_options if self.reward else ()
        for options, names in zip((settings.task.options, settings.reward.options), named, strict=True):
            texts = {name: value for name, value in options.items() if isinstance(value, str)}
            models += [value for name, value in texts.items() if name in names or assets.names_asset(value)]
        data = [settings.data.articles]
        data += [settings.data.validation_articles] if settings.data.validation_articles else []
        data += [settings.data.references] if task.factory.offers.references and not task.declares.own_texts else []
        return list(dict.fromkeys(models)), list(dict.fromkeys(data))

    def contacts(self) -> list[Contact]:
        """The hosts that its task and reward send something to, by their declarations."""
        found = TASKS.get(self.task).declares.contacts(self.settings.task.options)
        return [*found, *(REWARDS.get(self.reward).contacts(self.settings.reward.options) if self.reward else ())]

    def revisions(self) -> dict[str, str]:
        """Hub reference -> commit that was read."""
        from harness.assets import hub

        models, data = self.references()
        hubs = [(ref, ref in data) for ref in (*models, *data) if not (assets.is_embedded(ref) or assets.is_local(ref))]
        found = {ref: hub.commit(assets.resolve(ref, is_data)) for ref, is_data in hubs}
        return {ref: commit for ref, commit in found.items() if commit}

    def record(self) -> CellRecord:
        """A fresh record, status "running" or "unsupported"."""
        headline = TASKS.get(self.task).factory.headline
        why = self.unsupported
        found = {} if why and not self._has_assets() else self.assets
        return CellRecord(
            profile=self.profile,
            task=self.task,
            reward=self.reward,
            variant=self.variant,
            seed=self.seed,
            identity=identity(self.task, self.reward, self.seed, self.settings, found),
            status="unsupported" if why else "running",
            reason=why or "",
            settings=self.settings.model_dump(mode="json"),
            given=self.given,
            assets=found,
            measure=headline.name,
            unit=headline.unit,
            direction=headline.direction or "",
            ceiling=headline.ceiling,
        )


def said_contacts(task: str, reward: str, given: Mapping[str, Any]) -> frozenset[Contact]:
    """The contacts that these `--set` assignments alone ask for, whatever a profile or record adds."""
    options: dict[str, dict[str, Any]] = {"task.options": {}, "reward.options": {}}
    for key, value in given.items():
        for section, found in options.items():
            if key == section and isinstance(value, Mapping):
                found |= value
            elif key.startswith(f"{section}."):
                found[key.removeprefix(f"{section}.")] = value
    asked = [*TASKS.get(task).declares.contacts(options["task.options"])]
    asked += REWARDS.get(reward).contacts(options["reward.options"]) if reward else ()
    return frozenset(asked)


def _check_contacts(cell: Cell) -> None:
    """Raises HarnessError for a contact that the command line did not ask for."""
    for contact in cell.contacts():
        if contact not in cell.allowed:
            what = f"the content of the environment variable {contact.variable}" if contact.variable else "texts"
            raise HarnessError(
                f"{cell.name} would send {what} to {contact.url}, and a profile or record says so, which only the "
                "command line may: repeat the options that ask for it with --set, or set others."
            )


def make_task(cell: Cell, references: int | None = None) -> Task:
    """The cell's task, made as its settings say. references: the most texts that it gets of a split, default all.
    Raises HarnessError for a contact that the command line did not ask for, as the next does."""
    _check_contacts(cell)
    settings, entry = cell.settings, TASKS.get(cell.task)
    return entry.factory(
        TaskContext(
            options=settings.task.options,
            references=lambda split: assets.texts(
                settings.data.references,
                split=settings.data.held_out if split == "validation" else split,
                limit=references,
                language=entry.declares.language,
            ),
            asset=assets.resolve,
            held_out=settings.data.held_out,
            most_texts=references,
        )
    )


def make_reward(cell: Cell, task: Task, inner: InnerTrainer) -> RewardFunction:
    """The cell's reward for this task and this training of the target."""
    _check_contacts(cell)
    settings, entry = cell.settings, REWARDS.get(cell.reward)
    if entry.training:
        sets = entry.training.sets(settings.inner.cross_group, settings.grpo.rollouts_per_prompt)
        inner = inner.of_sets(sets)
    return entry.factory(
        RewardContext(
            task=task,
            num_generations=settings.grpo.rollouts_per_prompt,
            cross_group=settings.inner.cross_group,
            options=settings.reward.options,
            load_inner=lambda: inner,
            load_tokenizer=lambda: inner.tokenizer,
            asset=assets.resolve,
        )
    )


def articles(settings: Settings) -> tuple[list[str], list[str]]:
    """(training articles, held-out articles of the split that validations read). Where the source knows no such split,
    the last training articles are held out: for `data.held_out=test` those before the ones that validation takes.
    Raises HarnessError if there are too few, and for a text that would stand on both sides although the rows say their
    splits."""
    data, wanted, split = settings.data, settings.validation.prompts, settings.data.held_out
    source = data.validation_articles or data.articles
    if assets.is_embedded(data.articles):
        train = assets.texts(data.articles, split="train", limit=data.article_count)
        held_out = assets.texts(source, split=split, limit=wanted)
    else:
        named, held_named = assets.named_splits(data.articles), assets.named_splits(source)
        train = assets.texts(data.articles, split="train" if named else None)
        if not data.validation_articles and split not in named:
            # With rows for validation alone, the last of training's are the test.
            taken = wanted if split == "validation" or "validation" in named else 2 * wanted
            train, held_out = train[:-taken], train[-taken:][:wanted]
        else:
            held_out = assets.texts(source, split=split if held_named else None)
            # A file of one's own without splits: validation takes its first, the test what comes after them.
            held_out = held_out[wanted if split == "test" and not held_named else 0 :][:wanted]
        train = train[: data.article_count]
        if named or held_named:
            assets.check_apart({"train": train, split: held_out}, f"{data.articles} and {source}")
    if len(held_out) < wanted or not train:
        raise HarnessError(
            f"'{source}' holds {len(held_out)} articles, too few to hold out validation.prompts={wanted}; "
            "add articles or lower it."
        )
    return train, held_out


def told_splits(cells: Iterable[Cell]) -> list[str]:
    """A line for every source of texts outside the package: how many of which split there are, and who says so."""
    found = {}
    for cell in cells:
        data = cell.settings.data
        sources = {data.articles, data.validation_articles, data.references}
        for ref in [] if cell.unsupported else [ref for ref in cell.references()[1] if ref in sources]:
            if named := assets.named_splits(ref):
                found[ref] = f"{ref}: {', '.join(f'{count} {split}' for split, count in named.items())} (by `split`)"
            if ref == data.articles and not (assets.is_embedded(ref) or data.validation_articles):
                if "validation" not in named:
                    last = f"the last {cell.settings.validation.prompts} are held out for validation"
                    count = f"{found[ref]}; of train" if named else f"{ref}: no splits;"
                    found[ref] = f"{count} {last}"
    return list(found.values())
