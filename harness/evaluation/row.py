"""One row of the table for one target: the choice of its learning rate, then a training a seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from harness import assets
from harness.contracts import Examines, HarnessError, Measure
from harness.evaluation.jobs import Data, Target
from harness.evaluation.records import BEFORE, FOLDER, REPLAY, SCHEMA_VERSION, SFT, TrialRecord, chosen_rate, read
from harness.evaluation.training import Text, encode, mean_loss, mix, take, train
from harness.generated.dataset import read_texts
from harness.planning.cells import Cell, articles, make_task
from harness.registry import DEFINITION, TASKS
from harness.settings.schema import EvaluationSettings, InnerSettings, Settings, identity_view
from harness.store.atomic import write_json
from harness.store.plain import said
from harness.store.provenance import provenance
from harness.store.record import by_content, digest
from harness.workers.executor import Tell

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.evaluation.training import Mixture

Say = Callable[[str], None]
DATA = "data"
"""Folder of the data sets below a profile's evaluations."""
CHARACTERS = 8
"""More than a token has: as many times a training's tokens are read of a data set that is streamed."""
LM_EVAL = "lm_eval"
"""Folder, beside the trials, of what EleutherAI's harness says of them."""
CHOICE = ("rates", "multiples", "microbatch", "other_target")
"""Settings that say which trainings there are, not what one of them gives."""


def by_passages(task: str) -> bool:
    """Whether a task has texts to learn from and a test that any model can take."""
    factory = TASKS.get(task).factory
    return factory.offers.references and hasattr(factory, "examined")


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
        return list(Row(self, say).trials())

    def lost(self, reason: str) -> list[TrialRecord]:
        record = Row(self, lambda text: None).blank(self.seeds[0], status="failed")
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


class Row:
    """A row's work in one process."""

    def __init__(self, job: RowJob, say: Say) -> None:
        self.job, self.say = job, say
        self.settings = job.cell.settings

    def trials(self) -> Iterator[TrialRecord]:
        """What of it can be had: where a seed lacks its data, trainings on them that are stored."""
        job = self.job
        if not by_passages(job.cell.task):
            yield from self._each(job.seeds, [{"multiple": multiple} for multiple in job.settings.multiples])
        elif job.row == BEFORE:
            yield self._trial(job.seeds[0])
        else:
            rates = [{"rate": rate} for rate in job.settings.rates]
            first = next((seed for seed in job.seeds if self._can(seed, rates)), None)
            tried = [] if first is None else [self._trial(first, **each) for each in rates]
            yield from tried
            rate = chosen_rate(tried)
            others = [seed for seed in job.seeds if seed != first]
            yield from self._each(others, [{"rate": rate}] if rate is not None else [])

    def _each(self, seeds: Iterable[int], wanted: Sequence[Mapping[str, Any]]) -> Iterator[TrialRecord]:
        """These trainings of every seed; a note for a seed that lacks its data and has not had them."""
        for seed in seeds:
            if wanted and self._can(seed, wanted):
                yield from (self._trial(seed, **each) for each in wanted)
            elif lacks := self.job.data[seed].lacks:
                yield self._stored(self.blank(seed, status="unsupported", reason=lacks))

    def _can(self, seed: int, wanted: Sequence[Mapping[str, Any]]) -> bool:
        return not self.job.data[seed].lacks or all(
            self._kept(self.blank(seed, **each, status="done")) for each in wanted
        )

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

    def _opinion(self, record: TrialRecord) -> Path:
        return self.job.out / record.place.parent / LM_EVAL / record.place.name

    def _kept(self, record: TrialRecord) -> TrialRecord | None:
        """The stored trial that would be this one."""
        kept = read(self.job.out / record.place)
        whole = kept and kept.status == "done" and (self._opinion(record).exists() or not self.job.lm_eval)
        return kept if whole else None

    def _trial(self, seed: int, *, rate: float | None = None, multiple: int | None = None) -> TrialRecord:
        """The stored trial, or a training."""
        record = self.blank(seed, rate=rate, multiple=multiple, status="done")
        if kept := self._kept(record):
            return kept
        more = f", rate {rate:g}" if rate else f", {multiple} times a step's texts" if multiple else ""
        self.say(f"seed {seed}{more}")
        record.provenance, begun = provenance(), time.perf_counter()
        try:
            if multiple is not None:
                self._repeated(record, seed, multiple)
            else:
                self._pretrained(record, seed, rate, self._opinion(record))
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


def replay_content(settings: Settings) -> str:
    """What replay is, by content; a hub data set that is streamed, by its name and revision."""
    ref = settings.evaluation.replay or settings.data.articles
    return ref if _streamed(ref) else assets.fingerprint(ref, data=True)


def _streamed(ref: str) -> bool:
    """A whole data set of the hub: as large as those are, its beginning is read and the rest left there."""
    return not (assets.is_embedded(ref) or assets.is_local(ref)) and not ref.partition("@")[0].endswith(".parquet")
