"""The task that a target's file describes: terms with weights, measured on texts that nobody trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import (
    Evaluation,
    HarnessError,
    Headline,
    InnerTraining,
    Measure,
    Metric,
    MetricCost,
    MetricOf,
    Offers,
    Outline,
    Reading,
    TaskContext,
    unknown,
)
from harness.machine.files import read_text
from harness.registry import DEFINITION, Made, TaskEntry
from harness.settings.profiles import settings_layer
from harness.settings.reading import read_yaml
from tasks._texts import TEXT_KEYS, TEXT_MEASURES, text_values
from tasks.targets.activations import ActivationsTerm
from tasks.targets.lm_eval import LmEvalTerm
from tasks.targets.preference import PreferenceTerm
from tasks.targets.schema import TASK_NAME, Definition, File, parsed
from tasks.targets.sources import check_terms_apart
from tasks.targets.terms import Bound, Surroundings, Term
from tasks.targets.texts import KeepTerm, TextsTerm
from tasks.targets.weights import WeightsTerm, draw

if TYPE_CHECKING:
    import numpy as np
    import torch

    from tasks._likelihood import Params

TERMS: Mapping[str, type[Term]] = {
    "texts": TextsTerm,
    "keep": KeepTerm,
    "preference": PreferenceTerm,
    "weights": WeightsTerm,
    "activations": ActivationsTerm,
    "lm_eval": LmEvalTerm,
}
GAIN = Measure("gain", "", "higher", "Phi on held-out data, trained target, less that of the untrained target")
OWN = (
    Measure("value", "", "higher", "Phi on held-out data of a target trained on the rollouts"),
    Measure("value_before", "", None, "the same of the untrained target"),
)
"""Measures of every target beside `gain`, the headline where the file names no other."""


def read(path: str) -> Made:
    """What a target's file says, checked as far as the file itself goes. Raises HarnessError."""
    what, place = f"The target {path[:300]}", Path(path)
    try:
        text = read_text(place)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8"
        raise HarnessError(f"{what} cannot be read: {why}.") from error
    file: File = parsed(read_yaml(text, what), what)
    if not TASK_NAME.fullmatch(file.name):
        raise HarnessError(
            f"{what} is named {file.name[:80]!r}; results lie in a folder named so: use letters, digits, '.', '_' and "
            "'-', beginning with a letter or digit."
        )
    if "task" in {str(key).partition(".")[0] for key in file.settings}:
        raise HarnessError(f"{what} sets task.options; a target's file says what is wanted in its terms alone.")
    settings = settings_layer(file.settings, f"{place.name}, settings")
    definition = file.definition().recorded()
    return Made(file.name, definition, str(place.parent.absolute()), file.summary, settings, place.name)


def entry(made: Made) -> TaskEntry:
    """The task of a file, or of a record's definition. Raises HarnessError, for a file that it names and that is not
    there too."""
    what = f"The target {made.place}" if made.place else f"The definition of {made.name}"
    definition: Definition = parsed(dict(made.definition), what, Definition)
    terms = _terms(definition, made.folder)
    measures = [GAIN, *OWN, *(measure for term in terms for measure in term.measures()), *TEXT_MEASURES]
    names = [measure.name for measure in measures]
    for name in names:
        if names.count(name) > 1:
            raise HarnessError(f"{what} has two measures '{name}'; call the term otherwise.")
    if definition.headline not in names:
        raise HarnessError(f"{what}, headline: {unknown('measure', definition.headline, names)}")
    chosen = next(measure for measure in measures if measure.name == definition.headline)
    kinds = ", ".join(f"{term.weight:g} {name}" for name, term in definition.named_terms())
    summary = made.summary or f"of a target's file: {kinds}"[:120]
    telling = [measure.name for term in terms for measure in (*term.measures()[2:], term.measures()[0])]
    task = type(
        "Target",
        (_Target,),
        {
            "name": made.name,
            "summary": summary,
            "definition": definition,
            "recorded": dict(made.definition),
            "folder": made.folder,
            "what": what,
            "offers": Offers(references=any(term.has_references for term in terms), metric=True),
            "headline": Headline(
                chosen.name,
                chosen.unit,
                chosen.direction or "higher",
                chosen.summary,
                ceiling=1.0 if chosen.name.endswith("_pixels") else None,
            ),
            "measures": tuple(measure for measure in measures if measure.name != chosen.name),
            "key_measures": (*(name for name in telling if name != chosen.name), *TEXT_KEYS),
            "reads_head_alone": all(isinstance(term, WeightsTerm) and term.of_head for term in terms if term.weight),
            "language": next((t.spec.language for t in terms if getattr(t.spec, "embedded", None)), "en"),
        },
    )
    for term in terms:
        if made.folder:
            term.readings()  # a file that is missing is said now
    return TaskEntry(made.name, task, summary, made)


def _terms(definition: Definition, folder: str, most: int | None = None) -> list[Term]:
    place = Surroundings(folder, definition.splits, definition.seed, definition.microbatch, most)
    return [TERMS[term.kind](name, term.weight, term.spec, place) for name, term in definition.named_terms()]


class _Target:
    """Phi = the sum of the terms' values, each times its weight. Every subclass is of one file.

    Texts are read when the task is made, the target's parts are looked up when it is bound. The metric takes the rows
    for training; an evaluation takes the held-out ones and trains a fresh target on the rollouts.
    """

    name: str
    summary: str
    definition: Definition
    recorded: Mapping[str, Any]
    folder: str
    what: str
    offers: Offers
    headline: Headline
    measures: tuple[Measure, ...]
    key_measures: tuple[str, ...]
    language: str
    own_texts = True
    options: Mapping[str, str] = {DEFINITION: "what the target's file says"}
    draw = staticmethod(draw)

    @classmethod
    def readings(cls, options: Mapping[str, Any]) -> list[Reading]:
        found = [each for term in _terms(cls.definition, cls.folder) for each in term.readings()]
        return list(dict.fromkeys(found))

    @classmethod
    def metric_cost(cls, options: Mapping[str, Any]) -> MetricCost | None:
        if "_planned" not in cls.__dict__:
            cls._planned = _together([term.cost() for term in _terms(cls.definition, cls.folder) if term.weight])
        return cls._planned

    _planned: MetricCost | None

    def __init__(self, context: TaskContext) -> None:
        if context.options.get(DEFINITION, self.recorded) != self.recorded:
            raise HarnessError(f"--set task.options.{DEFINITION} changes nothing; change the target's file.")
        self._terms = _terms(self.definition, self.folder, context.most_texts)
        self._held_out = context.held_out
        rows = {term.name: term.rows for term in self._terms}
        self._rows = {name: found for name, found in rows.items() if found is not None}
        check_terms_apart(self._rows, self.what)
        for term in self._terms:
            if isinstance(term, WeightsTerm):
                term.picture  # noqa: B018  one that cannot be read is said now
        # By id of the target, which each value keeps alive: what does not change between validations is done once.
        self._before: dict[int, _Before] = {}

    def check_target(self, outline: Outline) -> list[str]:
        for term in self._terms:
            term.check(outline)
        return list(dict.fromkeys(found.said for found in self._rows.values() if found.said))

    def references(self) -> list[str]:
        return [text for term in self._terms for text in term.references("train")]

    def target_texts(self) -> list[str]:
        """The held-out ones of the references' kind."""
        return [text for term in self._terms for text in term.references("validation")]

    def metric(self, inner: InnerTraining) -> Metric:
        """(params) -> Phi on the rows for training, a scalar; its gradient is taken some texts at a time."""
        from tasks._likelihood import summed

        terms = [(term.weight, term.bind(inner, "train")) for term in self._terms if term.weight]
        if not terms:
            raise HarnessError(f"{self.what} asks for nothing: every term weighs 0.")

        def parts(params: Params) -> Iterator[torch.Tensor]:
            for weight, term in terms:
                for part in term.parts(params):
                    yield weight * part

        phi = lambda params: summed(parts, params)
        reads = _reads([term for _, term in terms])
        return phi if reads is None else MetricOf(reads, phi)

    def evaluate(self, rollouts: Sequence[str], inner: InnerTraining) -> Evaluation:
        """Train a fresh target on the rollouts and put it to the held-out rows; where all rollouts are empty nothing is
        trained, and "after" is "before". Raises ValueError for no rollouts."""
        import torch

        texts = list(rollouts)
        described = text_values(texts)
        before = self._looked(inner)
        trained: Params = dict(inner.model.named_parameters())
        if any(texts):
            trained = inner.train(texts, only=_reads(before.terms))
        values: dict[str, float] = {}
        arrays: dict[str, np.ndarray] = {}
        for term, bound in zip(self._terms, before.terms, strict=True):
            after = bound.value(trained)
            values |= {term.name: after, f"{term.name}_gain": after - before.values[term.name]}
            with torch.no_grad():
                more, pictures = bound.looked(trained)
            values |= more
            arrays |= pictures
        whole = sum(term.weight * values[term.name] for term in self._terms)
        gain = sum(term.weight * values[f"{term.name}_gain"] for term in self._terms)
        own = {"gain": gain, "value": whole, "value_before": before.whole}
        return Evaluation(values=own | values | described, arrays=arrays)

    def _looked(self, inner: InnerTraining) -> _Before:
        if id(inner.model) not in self._before:
            bound = [term.bind(inner, self._held_out) for term in self._terms]
            self._before[id(inner.model)] = _Before(inner, self._terms, bound)
        return self._before[id(inner.model)]


class _Before:
    """The terms on the held-out rows, and their values for the untrained target."""

    def __init__(self, inner: InnerTraining, terms: Sequence[Term], bound: Sequence[Bound]) -> None:
        self.model, self.terms = inner.model, list(bound)
        params = dict(inner.model.named_parameters())
        self.values = {term.name: each.value(params) for term, each in zip(terms, bound, strict=True)}
        self.whole = sum(term.weight * self.values[term.name] for term in terms)


def _reads(terms: Sequence[Bound]) -> tuple[str, ...] | None:
    """The parameters that the terms read together; None: all."""
    found: list[str] = []
    for term in terms:
        if term.reads is None:
            return None
        found += term.reads
    return tuple(dict.fromkeys(found))


def _together(costs: Sequence[MetricCost | None]) -> MetricCost | None:
    """One cost that stands for several: as many texts, and as many tokens together."""
    known = [cost for cost in costs if cost is not None]
    if not known:
        return None
    texts = sum(cost.texts for cost in known)
    mean = lambda name: max(1, round(sum(getattr(cost, name) * cost.texts for cost in known) / texts))
    return MetricCost(texts, mean("tokens"), mean("scored"), max(cost.batch for cost in known))
