"""What is asked of an evaluation: of every task its data sets, targets and rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import assets
from harness.contracts import HarnessError
from harness.evaluation.jobs import Data, DataJob, Target, made_place
from harness.evaluation.records import BEFORE, FOLDER, REPLAY, SFT, UNTUNED
from harness.evaluation.row import DATA, Row, RowJob, by_passages, replay_content
from harness.evaluation.training import Recipe
from harness.generated.source import Source, source_of_cell, untuned
from harness.planning.cells import Cell, said_contacts
from harness.registry import TASKS
from harness.settings.options import check_options
from harness.settings.profiles import Profile, resolve
from harness.settings.schema import EvaluationSettings, Settings
from harness.store.record import CellStore, digest

OWN, OTHER = "own", "other"
TARGETS = (OWN, OTHER)


@dataclass(frozen=True)
class Plan:
    """One task with all that is asked about it."""

    base: Cell
    """Settings of the task without what a reward changes."""
    rewards: Mapping[str, Mapping[int, Cell]]
    """Reward -> seed -> the cell whose generator is meant."""
    seeds: tuple[int, ...]
    targets: tuple[Target, ...]
    runs: Path
    out: Path
    lm_eval: bool = False

    @property
    def settings(self) -> EvaluationSettings:
        return self.base.settings.evaluation

    @property
    def root(self) -> Path:
        return self.out / self.base.profile / FOLDER

    @property
    def by_passages(self) -> bool:
        """Whether targets are trained as a user would, and put to a test of passages."""
        return by_passages(self.base.task)

    @cached_property
    def sources(self) -> list[DataJob]:
        """The data sets that there are to write, each once."""
        return list(self._sources())

    def _sources(self) -> Iterator[DataJob]:
        per_step = self.base.settings.grpo.rollouts_per_step * self.base.settings.generator.max_completion_tokens
        wanted = self.settings.tokens if self.by_passages else max(self.settings.multiples) * per_step
        plain = untuned(self.base.settings, self.base.profile, self.base.task)
        for seed in self.seeds:
            yield DataJob(UNTUNED, seed, plain, "", wanted, self.root / DATA)
            for reward, cells in self.rewards.items():
                try:
                    source, why = _source(cells[seed], self.runs), ""
                except HarnessError as error:
                    source, why = None, str(error)
                yield DataJob(reward, seed, source, why, wanted, self.root / DATA)

    def rows(self, data: Mapping[tuple[str, int], Data]) -> list[RowJob]:
        """A job for each row and target."""
        names = [UNTUNED, *self.rewards]
        if self.by_passages:
            names = [BEFORE, REPLAY, *names, SFT]
        found = dict(data)
        if self.by_passages:
            replay = {"replay": replay_content(self.base.settings)} if self.settings.replay_share else {}
            references = {"references": assets.fingerprint(self.base.settings.data.references, data=True)}
            found = {key: replace(one, content={**one.content, **replay}) for key, one in data.items()}
            for seed in self.seeds:
                found |= {(BEFORE, seed): Data(), (SFT, seed): Data(content=references | replay)}
                found[REPLAY, seed] = Data(content=replay) if replay else Data(lacks="evaluation.replay_share is 0")

        def job(target: Target, name: str) -> RowJob:
            own = {seed: found[name, seed] for seed in self.seeds}
            return RowJob(self.base, target, name, self.seeds, own, self.out, self.lm_eval)

        return [job(target, name) for target in self.targets for name in names]


def plans(
    profile: Profile,
    tasks: Sequence[str],
    rewards: Sequence[str],
    seeds: Sequence[int],
    targets: Sequence[str],
    given: dict[str, Any],
    runs: Path,
    out: Path,
    *,
    lm_eval: bool = False,
    tuned: Profile | None = None,
) -> list[Plan]:
    """A plan for every task. `tuned`: the profile that the cells ran with, where that was `run --tuned`; what is
    evaluated does not depend on it. Raises HarnessError for bad settings, and for a target that there is none of."""
    check_options(profile, given, tasks, rewards)
    ran = {"data.held_out": "test"} | given if tuned else given

    def cell(task: str, reward: str, seed: int) -> Cell:
        allowed = said_contacts(task, reward, given)
        settings = resolve(tuned or profile, task, reward, ran)
        return Cell(profile.name, task, reward, seed, settings, given=ran, allowed=allowed)

    found = []
    for task in tasks:
        base = Cell(profile.name, task, "", seeds[0], resolve(profile, task, "", given), given=given)
        if base.settings.data.held_out == "test":
            raise HarnessError("data.held_out=test would choose rates on what they are tested on; leave it out here.")
        root = out / profile.name / FOLDER
        if lm_eval and not hasattr(TASKS.get(task).factory, "scored_pairs"):
            raise HarnessError(f"--lm-eval cannot ask about {task}, which has no passages; leave it out.")
        found.append(
            Plan(
                base,
                {reward: {seed: cell(task, reward, seed) for seed in seeds} for reward in rewards},
                tuple(seeds),
                tuple(_target(name, base.settings, root) for name in targets),
                runs,
                out,
                lm_eval,
            )
        )
    return found


def settings_keys(plan: Plan) -> frozenset[str]:
    """Of the trials that this plan asks for (`TrialRecord.settings_key`)."""
    jobs = [RowJob(plan.base, target, BEFORE, plan.seeds, {}, plan.out) for target in plan.targets]
    return frozenset(Row(job, lambda text: None).key for job in jobs)


def _target(name: str, settings: Settings, root: Path) -> Target:
    named = settings.target.model if name == OWN else settings.evaluation.other_target
    if named:
        target = Target(name, named)
        target.content  # noqa: B018  one that is missing is found out before anything is written
        return target
    if not assets.is_embedded(settings.target.model):
        raise HarnessError("The profile names no evaluation.other_target; set it, or leave it out with --targets own.")
    recipe = Recipe()
    key = digest(repr(recipe), settings.target.model, assets.fingerprint(settings.target.model))
    return Target(OTHER, str(made_place(root, key)), recipe)


def _source(cell: Cell, runs: Path) -> Source:
    """The generator of this very cell below `runs`, with settings that are the user's own."""
    if cell.unsupported:
        raise HarnessError(cell.unsupported)
    folder = CellStore.of(runs, cell.record()).folder
    record = CellStore(folder).read()
    if record is None or record.status != "done":
        state = f"it is {record.status}" if record else f"{runs} has none of these settings"
        raise HarnessError(
            f"no finished cell of {cell.reward} with seed {cell.seed} ({state}); `run --task {cell.task} --reward "
            f"{cell.reward} --seeds {cell.seed}` makes it"
        )
    return replace(source_of_cell(folder, maybe_gone=True), settings=cell.settings, folder=None)
