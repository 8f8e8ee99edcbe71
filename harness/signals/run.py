"""How good is a signal before any RL? One pool of rollouts, every signal's rewards for it, and what retraining says.

    <out>/<profile>/fidelity/<task>/seed<k>-<identity>/
        pool.json              the texts, their groups and sources, and the parts that targets are trained on
        truth-<key>.json       Phi after each of those trainings; one file for every different inner training
        reward-<name>.json     a signal's rewards for the pool, for further batches drawn from it, and what they cost

The truth is computed once and shared by all signals. A second call keeps what is there and matches. Measures and their
intervals (leave-one-out correlation, linear datamodeling score of Park et al. 2023, ...) are taken from these files by
`reports/signals.py`; nothing here judges.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from harness import assets
from harness.contracts import HarnessError
from harness.planning.cells import Cell, make_reward, make_task, said_contacts
from harness.registry import REWARDS
from harness.settings.options import check_options
from harness.settings.profiles import Profile, resolve
from harness.settings.schema import InnerSettings, identity_view
from harness.signals.pool import Pool, as_rollouts, build_pool
from harness.signals.records import SCHEMA_VERSION, SMALL, PoolRecord, SignalRecord, Spec, TruthRecord, read
from harness.store.atomic import write_json
from harness.store.plain import said
from harness.store.provenance import provenance
from harness.store.record import digest, identity
from harness.workers.executor import Event, Executor, Tell

if TYPE_CHECKING:
    from harness.training.inner import InnerTrainer

Say = Callable[[str], None]


@dataclass(frozen=True)
class FidelityCell:
    """One task and seed with the signals that are to be judged on it."""

    base: Cell
    """Settings of the task without what a reward changes: the training that the truth repeats."""
    rewards: tuple[Cell, ...]
    spec: Spec = Spec()
    steps_of_a_run: int = 1
    """T as a run has it; `base` has as many fewer as the pool is smaller than a step."""

    @property
    def name(self) -> str:
        return f"{self.base.task} seed {self.base.seed}"

    @cached_property
    def identity(self) -> str:
        base = self.base
        return digest(
            SCHEMA_VERSION, self.spec.model_dump(), identity(base.task, "", base.seed, base.settings, base.assets)
        )

    @property
    def shortened(self) -> str:
        """A sentence where trainings have fewer steps than in a run, else ""."""
        steps, task = self.base.settings.inner.steps, self.base.task
        if steps >= self.steps_of_a_run:
            return ""
        return (
            f"{task}: T={steps} in place of {self.steps_of_a_run}, since the pool has {self.spec.pool} texts and a "
            f"step {self.base.settings.grpo.rollouts_per_step}; --set inner.steps={self.steps_of_a_run} keeps it"
        )

    def folder(self, out: Path) -> Path:
        return out / self.base.profile / "fidelity" / self.base.task / f"seed{self.base.seed}-{self.identity}"

    def truth_key(self, settings: InnerSettings) -> str:
        """Names the truth for a kind of inner training: two rewards with the same one share it."""
        return digest(self.identity, identity_view(settings))

    def truth_keys(self, cell: Cell) -> list[str]:
        return list(dict.fromkeys(self.truth_key(settings.inner) for settings in (self.base.settings, cell.settings)))


def fidelity_cells(
    profile: Profile,
    tasks: Sequence[str],
    rewards: Sequence[str],
    seeds: Sequence[int],
    given: dict[str, Any],
    spec: Spec,
) -> list[FidelityCell]:
    """One cell for every task and seed. Raises HarnessError for bad settings.

    A pool is smaller than a step's rollouts: trainings on it have as many fewer steps, so that their batches are no
    smaller than in a step, unless `given` says how many."""
    check_options(profile, given, tasks, rewards)

    def cell(task: str, reward: str, seed: int) -> Cell:
        settings = resolve(profile, task, reward, given)
        inner, whole = settings.inner, settings.grpo.rollouts_per_step
        changes: dict[str, int] = {}
        if spec.pool < whole and "inner.steps" not in given:
            changes["steps"] = max(1, inner.steps * spec.pool // whole)
        if inner.warmup_after:  # signals before any RL: the warm-up has not set in
            changes["warmup_steps"] = 0
        elif inner.warmup_steps and spec.pool < whole and "inner.warmup_steps" not in given:
            changes["warmup_steps"] = max(1, inner.warmup_steps * spec.pool // whole)
        settings = settings.model_copy(update={"inner": inner.model_copy(update=changes)})
        allowed = said_contacts(task, reward, given)
        return Cell(profile.name, task, reward, seed, settings, given=given, allowed=allowed)

    return [
        FidelityCell(
            cell(task, "", seed),
            tuple(cell(task, reward, seed) for reward in rewards),
            spec,
            resolve(profile, task, "", given).inner.steps,
        )
        for task in tasks
        for seed in seeds
    ]


# -------------------------------------------------------------------------------------------------------------- running


def run_fidelity(
    cell: FidelityCell, out: Path, say: Say = lambda text: None, *, fresh: bool = False
) -> list[SignalRecord]:
    """Makes or keeps pool, truths and signals of one task and seed; one record a reward, in order. A reward that
    raises costs its own row only. Raises HarnessError for what concerns all of them."""
    return _Run(cell, out, say, fresh).signals()


class _Run:
    def __init__(self, cell: FidelityCell, out: Path, say: Say, fresh: bool) -> None:
        self.cell, self.folder, self.say, self.fresh = cell, cell.folder(out), say, fresh

    def signals(self) -> list[SignalRecord]:
        return [self._signal(cell) for cell in self.cell.rewards]

    @cached_property
    def pool(self) -> PoolRecord:
        cell, base = self.cell, self.cell.base
        path = self.folder / "pool.json"
        if not self.fresh and (kept := read(path, PoolRecord)) and kept.identity == cell.identity:
            return kept
        self.say("writing the pool")
        generator = _on_device(
            assets.load_model(base.settings.generator.model, dtype=base.settings.generator.dtype, attention="sdpa")
        )
        pool = build_pool(
            base.settings, self.task, generator, self.generator_tokenizer, size=cell.spec.pool, seed=base.seed
        )
        record = PoolRecord(
            profile=base.profile,
            task=base.task,
            seed=base.seed,
            identity=cell.identity,
            spec=cell.spec,
            texts=pool.texts,
            groups=pool.groups,
            sources=pool.sources,
            articles=pool.articles,
            assets=base.assets,
            settings=base.settings.model_dump(mode="json"),
            given=base.given,
            provenance=provenance(),
            **draw_parts(pool, cell.spec, base.seed),
        )
        write_json(path, record.model_dump())
        return record

    @cached_property
    def task(self) -> Any:
        return make_task(self.cell.base, self.cell.spec.references)

    @cached_property
    def generator_tokenizer(self) -> Any:
        return assets.load_tokenizer(self.cell.base.settings.generator.model)

    @cached_property
    def target(self) -> Any:
        from harness.training.inner import load_target

        return load_target(self.cell.base.settings.target)

    def inner(self, settings: InnerSettings) -> InnerTrainer:
        from harness.training.inner import InnerTrainer

        return InnerTrainer(self.target, assets.load_tokenizer(self.cell.base.settings.target.model), settings)

    def _truth(self, settings: InnerSettings) -> None:
        key = self.cell.truth_key(settings)
        path = self._truth_path(key)
        if not self.fresh and (kept := read(path, TruthRecord)) and kept.identity == key:
            return
        from harness.signals.truth import Retraining, in_float64

        self.say(f"training again: {training_name(settings)}")
        pool, begun = self.pool, time.perf_counter()
        retraining = Retraining(in_float64(self.inner(settings)), self.task, pool.texts)
        everyone = range(len(pool.texts))
        without = [sorted(set(everyone) - {i}) for i in everyone]
        (whole,) = retraining.subsets([everyone])
        spec, shared = pool.spec, key == self.cell.truth_key(self.cell.base.settings.inner)
        record = TruthRecord(
            identity=key,
            name=training_name(settings),
            untrained=retraining.untrained(),
            whole=whole,
            without_one=retraining.subsets(without if shared else []),
            without_part=retraining.subsets(
                [sorted(set(everyone) - set(part)) for part in pool.removed] if shared else []
            ),
            halves=retraining.subsets(pool.halves),
            changed={
                str(c): retraining.weighted(changed_weights(pool, c)[: None if c == SMALL and shared else spec.swept])
                for c in spec.changes
            },
            one_step=retraining.one_step is not None,
            seconds=time.perf_counter() - begun,
            provenance=provenance(),
        )
        write_json(path, record.model_dump())

    def lost(self, reason: str) -> list[SignalRecord]:
        """The records after the death of who made them: rewards that were not through have failed for that reason."""
        records = []
        for cell in self.cell.rewards:
            record, kept = self._begun(cell), self._kept(cell)
            if record.status == "running":
                through = kept is not None and all(self._truth_path(key).exists() for key in kept.truths)
                if through and not self.fresh:  # with `fresh` it may be of an earlier time
                    record = kept
                else:
                    record.status, record.reason = "failed", f"{reason}; what is stored is kept, run it again"
            if kept is None and (self.folder / "pool.json").exists():  # a row without its pool would be an orphan
                write_json(self._signal_path(cell), record.model_dump())
            records.append(record)
        return records

    def _truth_path(self, key: str) -> Path:
        return self.folder / f"truth-{key}.json"

    def _signal_path(self, cell: Cell) -> Path:
        return self.folder / f"reward-{cell.reward}.json"

    def _begun(self, cell: Cell) -> SignalRecord:
        """A fresh record, status "running" or "unsupported"."""
        why = cell.unsupported
        return SignalRecord(
            profile=cell.profile,
            task=cell.task,
            reward=cell.reward,
            seed=cell.seed,
            advantage=REWARDS.get(cell.reward).advantage,
            identity=digest(self.cell.identity, cell.record().identity),
            status="unsupported" if why else "running",
            reason=why or "",
            truths=[] if why else self.cell.truth_keys(cell),
            provenance=provenance(),
        )

    def _kept(self, cell: Cell) -> SignalRecord | None:
        """What is stored of this reward, if it need not be made again."""
        kept = read(self._signal_path(cell), SignalRecord)
        whole = kept is not None and kept.identity == self._begun(cell).identity
        return kept if whole and kept.status in ("done", "unsupported") else None

    def _signal(self, cell: Cell) -> SignalRecord:
        kept = None if self.fresh else self._kept(cell)
        if kept is None:
            kept = self._begun(cell)
            if kept.status == "running":
                self.say(f"{cell.reward}: rewards")
                kept = self._rewarded(cell, kept)
            self.pool  # noqa: B018  a row without its pool would be an orphan
            write_json(self._signal_path(cell), kept.model_dump())
        if kept.status == "done":
            trainings = {self.cell.truth_key(s.inner): s.inner for s in (self.cell.base.settings, cell.settings)}
            for settings in trainings.values():
                self._truth(settings)
        return kept

    def _rewarded(self, cell: Cell, record: SignalRecord) -> SignalRecord:
        """The record with the reward's numbers, or `failed` with the reason."""
        pool = self.pool
        settings = self.cell.base.settings
        try:
            reward = make_reward(cell, make_task(cell, self.cell.spec.references), self.inner(cell.settings.inner))

            def ask(members: Sequence[int]) -> list[float]:
                from harness.training.advantages import check_rewards

                prompts, completions, ids = as_rollouts(pool.pool, members, settings, self.generator_tokenizer)
                values = reward(prompts=prompts, completions=completions, completion_ids=ids)
                return check_rewards(cell.reward, values, completions)

            record.rewards = ask(range(len(pool.texts)))
            begun = time.perf_counter()
            record.draws = [ask(members) for members in pool.batches]
            rollouts = sum(map(len, pool.batches))
            record.seconds_per_1000 = (time.perf_counter() - begun) / rollouts * 1000
            record.batch, record.status = rollouts // len(pool.batches), "done"
        except (Exception, SystemExit, GeneratorExit) as error:  # a signal may be anybody's code
            record.status, first = "failed", said(error)
            record.reason = first if isinstance(error, HarnessError) else f"{type(error).__name__}: {first}"
        return record


def draw_parts(pool: Pool, spec: Spec, seed: int) -> dict[str, list[list[int]]]:
    """The seeded parts of the pool: `halves`, `removed`, `batches` of PoolRecord."""
    rng, count = Random(f"fidelity/parts/{seed}"), len(pool.texts)
    groups = [[i for i in range(count) if pool.groups[i] == group] for group in sorted(set(pool.groups))]
    batches = []
    for _ in range(spec.draws):
        chosen = rng.sample(groups, max(2, len(groups) // 2))
        batches.append([i for group in chosen for i in rng.sample(group, len(group))])
    return {
        "halves": [sorted(rng.sample(range(count), count // 2)) for _ in range(spec.subsets)],
        "removed": [sorted(rng.sample(range(count), max(1, count // 8))) for _ in range(spec.removals)],
        "batches": batches,
    }


def changed_weights(pool: PoolRecord, change: float) -> Any:
    """(M, N) data weights: 1 + change inside each half, 1 - change outside."""
    import torch

    weights = torch.full((len(pool.halves), len(pool.texts)), 1.0 - change, dtype=torch.float64)
    for row, half in zip(weights, pool.halves, strict=True):
        row[half] = 1.0 + change
    return weights


def training_name(settings: InnerSettings) -> str:
    """A kind of inner training in words, e.g. "adamw, lr 1e-05, T=1"."""
    before = f" after {settings.warmup_steps}" if settings.warmup_steps else ""
    return f"{settings.optimizer.name}, lr {settings.optimizer.rate(settings.steps):g}, T={settings.steps}{before}"


def _on_device(model: Any) -> Any:
    from harness.machine.devices import to_device

    to_device(model)
    return model


# -------------------------------------------------------------------------------------------------------------- workers


def run_all(
    cells: Sequence[FidelityCell], out: Path, say: Say, executor: Executor, *, fresh: bool = False
) -> list[SignalRecord]:
    """The records of every cell, in order; the executor says where and how many at a time."""

    def observe(job: FidelityJob, event: Event) -> None:
        if event["event"] == "note":
            say(f"{job.name}: {event['text']}")
        elif event["event"] == "end":
            records = event["record"]
            failed = [record.reason for record in records if record.status == "failed"]
            how = f"{len(failed)} of {len(records)} rewards failed: {failed[0]}" if failed else "done"
            say(f"{job.name}: {how}")

    found = executor.run([FidelityJob(cell, out, fresh) for cell in cells], observe)
    return [record for records in found for record in records]


@dataclass(frozen=True)
class FidelityJob:
    """One task and seed: the `Job` of harness/workers/executor.py. Its record is a list, one SignalRecord a reward."""

    cell: FidelityCell
    out: Path
    fresh: bool = False

    @property
    def name(self) -> str:
        return self.cell.name

    def settled(self) -> None:
        """What is stored is found file by file while it runs."""

    def run(self, tell: Tell, *, wait: bool) -> list[SignalRecord]:
        return run_fidelity(self.cell, self.out, lambda text: tell({"event": "note", "text": text}), fresh=self.fresh)

    def lost(self, reason: str) -> list[SignalRecord]:
        return _Run(self.cell, self.out, lambda text: None, self.fresh).lost(reason)

    def stores(self) -> tuple[Path, Path]:
        """The results folder, and the comparison's own in it."""
        return self.out, self.cell.folder(self.out)

    def at(self, out: Path) -> FidelityJob:
        """The same comparison of another results folder."""
        return replace(self, out=out)
