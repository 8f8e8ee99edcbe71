"""What are generated data worth? Appendix C as a job for each row of its table and each target.

    rows     before (no training), replay alone, the untuned generator's data, each reward's, the task's own train texts
    targets  own: the profile's; other: one that no signal ever saw

**One protocol for all rows**: targets are trained on as many tokens, and the first seed tries the same learning rates.
The one whose target does best on the task's *validation* passages is the row's; the other seeds train with it. Results
are those on the *test* passages, which nobody chose by. A seed has its own generators, data sets, replay articles and
order of texts; of a seed, replay is the same in all rows. Tasks without passages of their own are trained as in
validation, on as many times a step's texts as the settings say.

A row that lacks something is "unsupported", with what it lacks. What is stored is kept; after a change of settings or
of a generator other files are made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from harness import assets
from harness.contracts import Examines, HarnessError, Measure
from harness.evaluation.records import (
    BEFORE,
    FOLDER,
    REPLAY,
    SCHEMA_VERSION,
    SFT,
    UNTUNED,
    TrialRecord,
    chosen_rate,
    read,
)
from harness.evaluation.training import Recipe, Text, encode, make_other_target, mean_loss, mix, take, train
from harness.generated.dataset import MANIFEST, read_texts, write_dataset
from harness.generated.source import Source, source_of_cell, untuned
from harness.machine.files import read_json
from harness.planning.cells import Cell, articles, make_task, said_contacts
from harness.registry import DEFINITION, TASKS
from harness.settings.options import check_options
from harness.settings.profiles import Profile, resolve
from harness.settings.schema import EvaluationSettings, InnerSettings, Settings, identity_view
from harness.store import locks
from harness.store.atomic import StorageError, write_json
from harness.store.plain import said
from harness.store.provenance import provenance
from harness.store.record import CellStore, by_content, digest
from harness.workers.executor import Event, Executor, Tell

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.evaluation.training import Mixture

Say = Callable[[str], None]
DATA = "data"
"""Folder of the data sets below a profile's evaluations."""
OWN, OTHER = "own", "other"
TARGETS = (OWN, OTHER)
CHARACTERS = 8
"""More than a token has: as many times a training's tokens are read of a data set that is streamed."""
KEPT = "generator"
"""Folder of a kept generator that has moved with a job."""
LM_EVAL = "lm_eval"
"""Folder, beside the trials, of what EleutherAI's harness says of them."""
CHOICE = ("rates", "multiples", "microbatch", "other_target")
"""Settings that say which trainings there are, not what one of them gives."""


@dataclass(frozen=True)
class Data:
    """What a row trains on, with one seed."""

    folder: str = ""
    """Name of a generated data set's folder; "" for rows that have none."""
    content: Mapping[str, Any] = field(default_factory=dict)
    """What it is, by content."""
    lacks: str = ""
    """Why there is none."""


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
        return replace(self, ref=str(_made(root, Path(self.ref).name))) if self.recipe else self

    @property
    def stable(self) -> str:
        """The same on every machine, whatever the last bits of what is made."""
        return repr(self.recipe) if self.recipe else self.content


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
            replay = {"replay": _replay_content(self.base.settings)} if self.settings.replay_share else {}
            references = {"references": assets.fingerprint(self.base.settings.data.references, data=True)}
            found = {key: replace(one, content={**one.content, **replay}) for key, one in data.items()}
            for seed in self.seeds:
                found |= {(BEFORE, seed): Data(), (SFT, seed): Data(content=references | replay)}
                found[REPLAY, seed] = Data(content=replay) if replay else Data(lacks="evaluation.replay_share is 0")

        def job(target: Target, name: str) -> RowJob:
            own = {seed: found[name, seed] for seed in self.seeds}
            return RowJob(self.base, target, name, self.seeds, own, self.out, self.lm_eval)

        return [job(target, name) for target in self.targets for name in names]


def by_passages(task: str) -> bool:
    """Whether a task has texts to learn from and a test that any model can take."""
    factory = TASKS.get(task).factory
    return factory.offers.references and hasattr(factory, "examined")


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
    return frozenset(_Row(job, lambda text: None).key for job in jobs)


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
    return Target(OTHER, str(_made(root, key)), recipe)


def _made(root: Path, key: str) -> Path:
    """Where a target that is made lies below the evaluations of a profile."""
    return (root / "targets" / key).absolute()


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
    return replace(source_of_cell(folder), settings=cell.settings, folder=None)


# ---------------------------------------------------------------------------------------------------------- jobs: data


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
        key = digest(assets.fingerprint(self.source.model), generator, self.tokens, self.seed, self.source.name)
        return self.place / f"{self.source.task}-{self.row}-seed{self.seed}-{key}"

    def settled(self) -> Data | None:
        return Data(lacks=self.lacks) if self.source is None else None

    def run(self, tell: Tell, *, wait: bool) -> Data:
        assert self.source is not None
        try:
            write_dataset(self.source, self.folder, tokens=self.tokens, seed=self.seed)
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
        return {KEPT: Path(self.source.model)} if self.source and self.source.identity else {}

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


# ---------------------------------------------------------------------------------------------------------- jobs: rows


@dataclass(frozen=True)
class RowJob:
    """One row for one target: the choice of its rate, then its seeds. Its record is a list of TrialRecords."""

    cell: Cell
    target: Target
    row: str
    seeds: tuple[int, ...]
    data: Mapping[int, Data]
    out: Path
    lm_eval: bool = False

    @property
    def name(self) -> str:
        return f"{self.cell.task} / {self.row}, {self.target.name} target"

    @property
    def settings(self) -> EvaluationSettings:
        return self.cell.settings.evaluation

    @property
    def root(self) -> Path:
        return self.out / self.cell.profile / FOLDER

    def texts(self, seed: int) -> Path:
        """The folder of the seed's generated data set."""
        return self.root / DATA / self.data[seed].folder

    def settled(self) -> None:
        """What is stored is found trial by trial."""

    def run(self, tell: Tell, *, wait: bool) -> list[TrialRecord]:
        say = lambda text: tell({"event": "note", "text": text})
        return list(_Row(self, say).trials())

    def lost(self, reason: str) -> list[TrialRecord]:
        record = _Row(self, lambda text: None).blank(self.seeds[0], status="failed")
        record.reason = f"{reason}; what is stored is kept, run it again"
        return [record]

    def stores(self) -> tuple[Path, Path]:
        """The results folder, and the one in it where this row's trials lie among those of others."""
        return self.out, self.root / self.cell.task

    def prefix(self) -> str:
        """Of the names of this row's trials."""
        return f"{self.target.name}-{self.row}-seed"

    def reads(self) -> dict[str, Path]:
        """Data sets and a target that was made, under the names that they have in a results folder."""
        found = [self.texts(seed) for seed, data in self.data.items() if data.folder]
        if self.target.recipe:
            found.append(Path(self.target.ref))
        return {str(path.absolute().relative_to(self.out.absolute())): path for path in found}

    def at(self, out: Path) -> RowJob:
        """The same row of another results folder."""
        return replace(self, out=out, target=self.target.at(out / self.cell.profile / FOLDER))


class _Row:
    """A row's work in one process."""

    def __init__(self, job: RowJob, say: Say) -> None:
        self.job, self.say = job, say
        self.settings = job.cell.settings

    def trials(self) -> Iterator[TrialRecord]:
        job = self.job
        lacking = [seed for seed in job.seeds if job.data[seed].lacks]
        for seed in lacking:
            yield self._stored(self.blank(seed, status="unsupported", reason=job.data[seed].lacks))
        seeds = [seed for seed in job.seeds if seed not in lacking]
        if not seeds:
            return
        if not by_passages(job.cell.task):
            yield from (self._trial(seed, multiple=m) for seed in seeds for m in job.settings.multiples)
        elif job.row == BEFORE:
            yield self._trial(seeds[0])
        else:
            tried = [self._trial(seeds[0], rate=rate) for rate in job.settings.rates]
            yield from tried
            if (rate := chosen_rate(tried)) is not None:
                yield from (self._trial(seed, rate=rate) for seed in seeds[1:])

    # ------------------------------------------------------------------------------------------------------- records

    @cached_property
    def key(self) -> str:
        """What the numbers depend on but the data (`TrialRecord.settings_key`)."""
        whole, task = self.settings, self.job.cell.task
        chosen = {name: value for name, value in identity_view(whole.evaluation).items() if name not in CHOICE}
        found = self.job.cell.assets
        options = {name: found.get(str(value), value) for name, value in whole.task.options.items()}
        if DEFINITION in options:
            options[DEFINITION] = by_content(whole.task.options[DEFINITION], found)
        parts = [chosen, identity_view(whole.target) | {"model": self.job.target.stable}, options]
        parts += [assets.fingerprint(ref, data=True) for ref in self.job.cell.references()[1]]
        if not by_passages(task):
            parts += [identity_view(whole.inner), identity_view(whole.validation), whole.grpo.rollouts_per_step]
        return digest(SCHEMA_VERSION, task, parts)

    def blank(self, seed: int, **more: Any) -> TrialRecord:
        """A record without numbers."""
        job = self.job
        content = dict(job.data[seed].content)
        identity = digest(
            self.key, job.target.content, content, seed, more.get("rate"), more.get("multiple"), job.row, more["status"]
        )
        measure = _judge(job.cell.task)
        return TrialRecord(
            profile=job.cell.profile,
            task=job.cell.task,
            target=job.target.name,
            row=job.row,
            seed=seed,
            identity=identity,
            settings_key=self.key,
            measure=measure.name,
            unit=measure.unit,
            direction=measure.direction or "",
            data=content,
            target_model=job.target.content,
            settings=self.settings.model_dump(mode="json", include={"target", "evaluation", "inner", "task", "data"}),
            given=job.cell.given,
            **more,
        )

    def _stored(self, record: TrialRecord) -> TrialRecord:
        """Beside trials of a row and seed, an earlier note that they could not run would be out of date."""
        for old in (self.job.out / record.place).parent.glob(f"{record.target}-{record.row}-seed{record.seed}-*.json"):
            kept = read(old)
            noted = kept and kept.status != "done" and kept.rate is None and kept.multiple is None
            if kept and noted and kept.settings_key == record.settings_key:
                old.unlink()
        write_json(self.job.out / record.place, record.model_dump())
        return record

    def _trial(self, seed: int, *, rate: float | None = None, multiple: int | None = None) -> TrialRecord:
        """The stored trial, or a training."""
        record = self.blank(seed, rate=rate, multiple=multiple, status="done")
        opinion = self.job.out / record.place.parent / LM_EVAL / record.place.name
        kept = read(self.job.out / record.place)
        if kept and kept.status == "done" and (opinion.exists() or not self.job.lm_eval):
            return kept
        more = f", rate {rate:g}" if rate else f", {multiple} times a step's texts" if multiple else ""
        self.say(f"seed {seed}{more}")
        record.provenance, begun = provenance(), time.perf_counter()
        try:
            if multiple is not None:
                self._repeated(record, seed, multiple)
            else:
                self._pretrained(record, seed, rate, opinion)
        except HarnessError as error:
            record.status, record.reason = "failed", str(error)
        except (Exception, SystemExit) as error:  # a task may be anybody's code
            record.status, record.reason = "failed", f"{type(error).__name__}: {said(error)}"
        record.seconds = time.perf_counter() - begun
        return self._stored(record)

    # -------------------------------------------------------------------------------------------------- the trainings

    @cached_property
    def task(self) -> Any:
        return make_task(self.job.cell)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return assets.load_tokenizer(self.job.target.ref)

    def _model(self, attention: str) -> PreTrainedModel:
        from harness.machine.devices import to_device

        target = self.settings.target
        model = assets.load_model(
            self.job.target.ref, dtype=target.dtype, attention=attention, untie_head=target.untie_head
        )
        to_device(model)
        return model

    def _pretrained(self, record: TrialRecord, seed: int, rate: float | None, opinion: Path) -> None:
        """Continued pre-training at this rate (None: none), then both splits and the articles."""
        model, evaluation = self._model("sdpa"), self.settings.evaluation
        pad = self.tokenizer.pad_token_id
        if rate is not None:
            mixture = self._mixture(seed, _most(model))
            record.train_loss = train(model, self.tokenizer, mixture, evaluation, rate, seed)
            record.texts, record.tokens, record.replayed = len(mixture.rows), mixture.tokens, mixture.replayed
        held_out = [Text(text) for text in _held_out(self.settings)]
        record.articles = mean_loss(model, list(encode(held_out, self.tokenizer, _most(model))), pad)
        record.validation = _finite(self.task.examine(model, self.tokenizer, "validation"))
        record.test = _finite(self.task.examine(model, self.tokenizer, "test"))
        if self.job.lm_eval:
            from harness.evaluation.eleuther import ask, perplexity

            pairs = self.task.scored_pairs(self.tokenizer, "test")
            found = ask(model, self.tokenizer, pairs, f"{self.job.cell.task}_passages")
            record.lm_eval = perplexity(found)
            write_json(opinion, found)

    def _mixture(self, seed: int, most: int | None) -> Mixture:
        """The row's texts and the seed's replay: `tokens` of the first and as many of the second as its share asks. The
        row `replay` has as many tokens of articles as the others have of both."""
        evaluation, row = self.settings.evaluation, self.job.row
        share = evaluation.replay_share
        beside = round(evaluation.tokens * share / (1 - share))
        generated: list[list[int]] = []
        if row != REPLAY:
            generated = list(take(encode(self._texts(seed), self.tokenizer, most), evaluation.tokens))
        wanted = evaluation.tokens + beside if row == REPLAY else beside
        replay = encode(map(Text, self._replay(seed, wanted)), self.tokenizer, most)
        return mix(generated, list(take(_cycled(replay), wanted)) if wanted else [], seed)

    def _texts(self, seed: int) -> Iterator[Text]:
        if self.job.row == SFT:
            texts = self.task.references()
            Random(f"evaluation/sft/{seed}").shuffle(texts)
            return _cycled(map(Text, texts))
        frame = read_texts(self.job.texts(seed))
        return (Text(text, how == "stop") for text, how in zip(frame["text"], frame["finish"], strict=True))

    def _replay(self, seed: int, tokens: int) -> list[str]:
        """Texts for replay in the seed's order."""
        ref = self.settings.evaluation.replay
        if ref is None:
            found = list(self._articles)
        elif _streamed(ref):
            from harness.assets import hub

            found = hub.first_texts(ref, CHARACTERS * tokens)
        else:
            found = assets.texts(ref, split="train" if assets.named_splits(ref) or assets.is_embedded(ref) else None)
        Random(f"evaluation/replay/{seed}").shuffle(found)
        return found

    @cached_property
    def _articles(self) -> list[str]:
        """The training articles; those of the miniature are composed anew at each call."""
        return articles(self.settings)[0]

    def _repeated(self, record: TrialRecord, seed: int, multiple: int) -> None:
        """The task's own validation on `multiple` times a step's texts, in as many times its inner steps."""
        from harness.training.inner import InnerTrainer

        whole = self.settings
        inner: InnerSettings = whole.inner.model_copy(update={"warmup_steps": multiple * whole.inner.warmup_steps})
        steps = multiple * (whole.validation.inner_steps or inner.steps)
        texts = list(read_texts(self.job.texts(seed))["text"])[: multiple * whole.grpo.rollouts_per_step]
        model = self._model("eager")
        trainer = _Remembering(InnerTrainer(model, self.tokenizer, inner, steps=steps))
        values = dict(self.task.evaluate(texts, trainer).values)
        if isinstance(self.task, Examines) and trainer.trained:
            for name, parameter in model.named_parameters():
                parameter.data = trainer.trained[name].detach().to(parameter.dtype)
            values |= self.task.examine(model, self.tokenizer, "test")
        record.test = _finite(values)
        record.texts, record.updates = len(texts), steps


class _Remembering:
    """An InnerTraining that knows the last target that it trained, so that it need not be trained again."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.trained: Mapping[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def train(self, texts: Sequence[str], **options: Any) -> Mapping[str, Any]:
        options.pop("only", None)  # a look at the whole target comes later
        self.trained = self._inner.train(texts, **options)
        return self.trained


def _judge(task: str) -> Measure:
    factory = TASKS.get(task).factory
    return factory.examined[0] if by_passages(task) else factory.headline


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """Raises HarnessError for a number that nobody can compare with."""
    found = {name: float(value) for name, value in values.items()}
    if odd := [name for name, value in found.items() if not math.isfinite(value)]:
        raise HarnessError(f"The trained target's {odd[0]} is {found[odd[0]]}; a lower rate may help.")
    return found


def _most(model: PreTrainedModel) -> int | None:
    """Tokens that the model reads at most, where it says."""
    return getattr(model.config, "max_position_embeddings", None)


def _cycled(items: Iterable[Any]) -> Iterator[Any]:
    """The items again and again; nothing where there are none."""
    kept = []
    for item in items:
        kept.append(item)
        yield item
    while kept:
        yield from kept


# ------------------------------------------------------------------------------------------------------------- articles


def _held_out(settings: Settings) -> list[str]:
    """Articles that nothing was trained on: of a source with a split for tests that one, else the validation's."""
    ref, count = settings.data.articles, settings.evaluation.articles
    if assets.is_embedded(ref) and not settings.data.validation_articles:
        return assets.texts(ref, split="test", limit=count)
    return articles(settings)[1][:count]


def _replay_content(settings: Settings) -> str:
    """What replay is, by content; a hub data set that is streamed, by its name and revision."""
    ref = settings.evaluation.replay or settings.data.articles
    return ref if _streamed(ref) else assets.fingerprint(ref, data=True)


def _streamed(ref: str) -> bool:
    """A whole data set of the hub: as large as those are, its beginning is read and the rest left there."""
    return not (assets.is_embedded(ref) or assets.is_local(ref)) and not ref.partition("@")[0].endswith(".parquet")


# -------------------------------------------------------------------------------------------------------------- running


def run_all(found: Sequence[Plan], say: Say, executor: Executor) -> list[TrialRecord]:
    """Data sets and targets first, then all rows; every trial, in order."""

    def observe(job: Any, event: Event) -> None:
        if event["event"] == "note":
            say(f"{job.name}: {event['text']}")
        elif event["event"] == "start" and not isinstance(job, RowJob):
            say(f"{job.name}: begins")
        elif event["event"] == "end" and isinstance(job, RowJob):
            say(f"{job.name}: {_ended(event['record'])}")

    made = {
        target: TargetJob(target, plan.base.settings.target.model)
        for plan in found
        for target in plan.targets
        if target.recipe
    }
    writing = [job for plan in found for job in plan.sources]
    records = executor.run([*made.values(), *writing], observe)[len(made) :]
    data = iter(records)
    jobs = [row for plan in found for row in plan.rows({(job.row, job.seed): next(data) for job in plan.sources})]
    return [record for trials in executor.run(jobs, observe) for record in trials]


def _ended(trials: Sequence[TrialRecord]) -> str:
    states = [trial for trial in trials if trial.status != "done"]
    if states:
        return f"{states[0].status}: {states[0].reason}"
    rate = chosen_rate(trials)
    return f"done{f', rate {rate:g}' if rate else ''}"
