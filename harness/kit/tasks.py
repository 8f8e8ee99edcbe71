"""The contract of tasks, a probe a promise (`Task`, `TaskDeclarations`, `Examines`, `HasScoredPairs` and
`HasTargetTexts` say what is promised)."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.contracts import (
    Evaluation,
    Examines,
    HasScoredPairs,
    Headline,
    Measure,
    Metric,
    Offers,
    TaskDeclarations,
)
from harness.kit.findings import Fault, Finding, LeftOut, Probe, ask
from harness.kit.subjects import Subject
from harness.kit.world import World, texts
from harness.signals.pool import target_texts
from harness.signals.truth import Retraining
from harness.store.arrays import arrays_frame
from harness.training.checks import finite_values, storable_labels

if TYPE_CHECKING:
    import torch

ROLLOUTS = 8
SPLITS = ("validation", "test")
STEPS = (1e-2, 1e-3, 1e-4)
"""Of finite differences: how far the parameters move, in their own norm's direction of length 1."""
AGREEMENT = 1e-3
"""What a slope and its finite difference may differ by, relative to the larger one."""
RETRAINED = 2e-2, 1e-3
"""The same for metagradients and retraining with other data weights, and how far those are moved."""
PNG = b"\x89PNG"


class Bench:
    """What the probes of one task share."""

    def __init__(self, subject: Subject, given: Mapping[str, Any]) -> None:
        self.entry = subject.entry
        self.world = World(subject.entry.name, "", given)

    @cached_property
    def task(self) -> Any:
        return self.world.task()

    @cached_property
    def metric(self) -> Metric:
        if not self.task.offers.metric:
            raise LeftOut("It offers no metric.")
        return self.task.metric(self.world.inner)

    @cached_property
    def rollouts(self) -> list[str]:
        """One of them empty, as a generator writes some."""
        return [*texts(ROLLOUTS - 1), ""]

    def params(self) -> dict[str, torch.Tensor]:
        """A copy of the target's parameters, moved by a thousandth so that nothing is special about the place."""
        import torch

        rng = torch.Generator().manual_seed(0)
        found = {}
        for name, value in self.world.inner.model.named_parameters():
            noise = torch.randn(value.shape, generator=rng, dtype=torch.float64).to(value)
            found[name] = value.detach() + 1e-3 * noise * value.detach().norm() / math.sqrt(value.numel())
        return found


def check_task(subject: Subject, given: Mapping[str, Any], only: Collection[str]) -> list[Finding]:
    """The findings of every probe, or of those in `only`. Raises HarnessError for bad settings."""
    return list(ask(subject.name, PROBES, Bench(subject, given), only))


def made(bench: Bench) -> str:
    task = bench.task
    lacks = [name for name in ("references", "metric", "evaluate") if not callable(getattr(task, name, None))]
    if lacks:
        raise Fault(
            f"It has no {', no '.join(lacks)}; the protocol Task of harness/contracts.py lists what a task has."
        )
    return "from its options"


def declared(bench: Bench) -> str:
    """What commands read from the class before anything loads."""
    task, name = bench.entry.factory, bench.entry.name
    if getattr(task, "name", None) != name:
        raise Fault(f"Its attribute name is {getattr(task, 'name', None)!r}, but it is registered as {name!r}.")
    if not isinstance(getattr(task, "offers", None), Offers):
        raise Fault("Its attribute offers must be an Offers.")
    headline = getattr(task, "headline", None)
    if not isinstance(headline, Headline) or headline.direction not in ("higher", "lower"):
        raise Fault("Its attribute headline must be a Headline with the direction 'higher' or 'lower'.")
    measures = [headline, *getattr(task, "measures", ()), *getattr(task, "examined", ())]
    if odd := [measure for measure in measures if not isinstance(measure, Measure)]:
        raise Fault(f"Its measures must be of the class Measure, not {type(odd[0]).__name__}.")
    names = [measure.name for measure in (headline, *task.measures)]
    if twice := sorted({each for each in names if names.count(each) > 1}):
        raise Fault(f"It declares the measure {twice[0]!r} twice; give one of them another name.")
    declares = TaskDeclarations.of(task)
    if unknown := [each for each in declares.key_measures or () if each not in names]:
        raise Fault(f"key_measures names {unknown[0]!r}, which is no measure of its.")
    if declares.figure and not set(declares.figure.measures) & set(names):
        raise Fault("Its figure shows none of its measures.")
    if declares.options is not None and (odd_options := set(declares.asset_options) - set(declares.options)):
        raise Fault(f"asset_options names {sorted(odd_options)[0]!r}, which its options do not have.")
    cost = declares.metric_cost(bench.world.cell.settings.task.options)
    if cost is not None and min(cost.texts, cost.tokens, cost.scored, cost.batch) < 1:
        raise Fault("metric_cost says numbers below 1.")
    return f"{len(names)} measures, the headline is {headline.name}, {headline.direction} is better"


# --------------------------------------------------------------------------------------------------------------- metric


def gradient(bench: Bench) -> str:
    """Of Phi in float64, along its own direction and along a random one: a part that is cut off shows in the latter."""
    import torch

    metric, params = bench.metric, bench.params()
    reads = getattr(metric, "reads", None) or tuple(params)
    if unknown := [name for name in reads if name not in params]:
        raise Fault(f"Its metric reads {unknown[0]!r}, which is no parameter of the target.")
    head = bench.world.inner.model.get_output_embeddings().weight
    of_head = [name for name, value in bench.world.inner.model.named_parameters() if value is head]
    if TaskDeclarations.of(bench.entry.factory).reads_head_alone and list(reads) != of_head:
        raise Fault(f"It declares reads_head_alone, but its metric reads more than {of_head[0]}.")
    leaves = {name: params[name].requires_grad_() for name in reads}
    value = metric(leaves)
    _demand_scalar(value)
    if not value.requires_grad:
        raise Fault(
            "The metric does not depend on the parameters that it is given: compute it from that mapping "
            "(torch.func.functional_call(model, params, ...)), without detach, .item() or no_grad."
        )
    found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
    slopes = {name: torch.zeros_like(leaves[name]) if g is None else g for (name, g) in zip(leaves, found, strict=True)}
    length = _norm(slopes)
    if not math.isfinite(length):
        raise Fault("The gradient of the metric is not finite; look for square roots or logarithms of 0.")
    rng = torch.Generator().manual_seed(1)
    random = {k: torch.randn(v.shape, generator=rng, dtype=torch.float64).to(v) for k, v in leaves.items()}
    plain = {name: leaf.detach() for name, leaf in leaves.items()}
    worst = 0.0
    for words, direction in (("its own", slopes), ("a random", random)):
        norm = _norm(direction)
        if not norm:
            continue
        unit = {name: part / norm for name, part in direction.items()}
        slope = sum(float((slopes[name] * part).sum()) for name, part in unit.items())
        worst = max(worst, _demand_slope(metric, plain, unit, slope, words))
    if not length:
        raise Fault("The gradient of the metric is 0 everywhere: nothing that a training moves changes it.")
    return f"agrees with finite differences to {worst:.1g} (relative)"


def _demand_scalar(value: Any) -> None:
    import torch

    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        shape = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
        raise Fault(f"The metric returns {shape}; it has to return a scalar tensor.")
    if not bool(torch.isfinite(value.detach()).all()):
        raise Fault(f"The metric of the untrained target is {float(value.detach())}.")


def _norm(parts: Mapping[str, torch.Tensor]) -> float:
    return math.sqrt(sum(float(part.detach().double().square().sum()) for part in parts.values()))


def _demand_slope(
    metric: Metric, params: Mapping[str, torch.Tensor], unit: Mapping[str, torch.Tensor], slope: float, words: str
) -> float:
    """How far the slope is from the best finite difference, relative to the larger one; Fault where that is too far.
    What Phi's own dtype rounds away does not count."""
    import torch

    tried = []
    for step in STEPS:
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                ends.append(metric({name: params[name] + sign * step * part for name, part in unit.items()}))
        up, down = (float(end) for end in ends)
        difference = (up - down) / (2 * step)
        rounding = 16 * torch.finfo(ends[0].dtype).eps * max(abs(up), abs(down)) / step
        larger = max(abs(slope), abs(difference))
        tried.append((max(0.0, abs(slope - difference) - rounding) / larger if larger else 0.0, difference))
        if tried[-1][0] < AGREEMENT / 10:
            break
    off, difference = min(tried)
    if off > AGREEMENT:
        raise Fault(
            f"In {words} direction the gradient of the metric says {slope:.6g}, finite differences {difference:.6g}: a "
            "part of it is cut off (detach, argmax, rounding) or has a wrong derivative."
        )
    return off


def fidelity(bench: Bench) -> str:
    """What `python -m harness fidelity` asks of a signal, of the exact one: does it say what Phi becomes when a text
    weighs more?"""
    import torch

    metric, inner, few = bench.metric, bench.world.inner, bench.rollouts[:6]
    weights = inner.metagradient(few, metric).weights.double().cpu()
    retraining = Retraining(inner, bench.task, few)
    tolerance, change = RETRAINED
    rows = torch.ones(2 * len(few), len(few), dtype=torch.float64)
    rows[: len(few)] += change * torch.eye(len(few), dtype=torch.float64)
    rows[len(few) :] -= change * torch.eye(len(few), dtype=torch.float64)
    values = torch.tensor(retraining.weighted(rows), dtype=torch.float64)
    retrained = (values[: len(few)] - values[len(few) :]) / (2 * change)
    size = float(torch.maximum(weights.abs(), retrained.abs()).max())
    if not size:
        raise Fault("No text moves the metric of a target trained on it: no signal can learn anything here.")
    off = float((weights - retrained).abs().max()) / size
    if off > tolerance:
        raise Fault(
            f"Metagradients and retraining with other data weights differ by {off:.2g} of the largest: the metric is "
            "another function at each call, or has a wrong derivative."
        )
    wanted = target_texts(bench.task)
    if any(not isinstance(text, str) or not text.strip() for text in wanted):
        raise Fault("Its target_texts holds what is no text, or an empty one.")
    asked = f"texts of the target's kind: {len(wanted) or 'none, see target_texts'}"
    return f"metagradients say what retraining says, to {off:.1g}; {asked}"


# ----------------------------------------------------------------------------------------------------------- evaluation


def evaluation(bench: Bench) -> str:
    """What `evaluate` returns can be stored, and every measure is declared."""
    given = list(bench.rollouts)
    found = bench.task.evaluate(given, bench.world.inner)
    if not isinstance(found, Evaluation):
        raise Fault(f"evaluate returns a {type(found).__name__}; it has to return an Evaluation.")
    if given != bench.rollouts:
        raise Fault("evaluate changes the rollouts that it is given; let it work on a copy.")
    task = bench.entry.factory
    known = {measure.name for measure in (task.headline, *task.measures)}
    if undeclared := [name for name in found.values if name not in known]:
        raise Fault(f"evaluate returns the measure {undeclared[0]!r}, which is not declared; add it to `measures`.")
    if task.headline.name not in found.values:
        raise Fault(f"evaluate does not return the headline {task.headline.name!r}.")
    values, odd = finite_values({name: float(value) for name, value in found.values.items()}, task.headline.name)
    if odd:
        raise Fault(f"After evaluate, {odd[0]}; a measure has to be finite on ordinary rollouts.")
    storable_labels(found.labels, len(given), len(given))
    arrays_frame({0: found.arrays})
    draw = TaskDeclarations.of(task).draw
    pictures = draw(found.arrays) if draw and found.arrays else {}
    if bad := [name for name, content in pictures.items() if not content.startswith(PNG)]:
        raise Fault(f"draw returns {bad[0]!r}, which is no PNG.")
    again = bench.world.task().evaluate(list(given), bench.world.inner)
    for name, value in values.items():
        if not math.isclose(value, float(again.values.get(name, math.nan)), rel_tol=1e-9, abs_tol=1e-12):
            raise Fault(
                f"evaluate gives another {name} for the same rollouts ({value:.6g}, then {again.values[name]:.6g})."
            )
    return f"{len(values)} of {len(known)} measures, all declared and finite, the same again"


def unchanged(bench: Bench) -> str:
    """Later steps and other cells of the process use the same target."""
    import torch

    model = bench.world.inner.model
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    phi = lambda: float(bench.metric(dict(model.named_parameters()))) if bench.task.offers.metric else 0.0
    with torch.no_grad():
        first = phi()
    try:
        bench.task.evaluate(list(bench.rollouts), bench.world.inner)
        with torch.no_grad():
            second = phi()
        moved = [name for name, value in model.named_parameters() if not torch.equal(value, before[name])]
    finally:
        for name, value in model.named_parameters():
            value.data = before[name]
    if moved:
        more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
        raise Fault(
            f"evaluate changes the target ({moved[0]}{more}); look at what inner.train returns and leave inner.model "
            "alone."
        )
    if first != second:
        raise Fault(f"Phi of the untrained target is {first:.9g} before evaluate and {second:.9g} after it.")
    return f"Phi of the untrained target stays at {first:.6g}" if bench.task.offers.metric else "the target stays"


def references(bench: Bench) -> str:
    """For the similarity rewards, and for every split that the task is asked about."""
    task, inner = bench.task, bench.world.inner
    told = []
    if task.offers.references:
        found = task.references()
        if not found or any(not isinstance(text, str) or not text.strip() for text in found):
            raise Fault("It offers references, but references() returns none, or one that is no text.")
        told.append(f"{len(found)} to compare with")
    if isinstance(task, Examines):
        names = {measure.name for measure in task.examined}
        for split in SPLITS:
            values = _of_split(split, "examine", lambda split=split: task.examine(inner.model, inner.tokenizer, split))
            if set(values) != names:
                raise Fault(
                    f"examine returns {sorted(values)} for the split {split!r}, and `examined` says {sorted(names)}."
                )
            if not math.isfinite(values[task.examined[0].name]):
                raise Fault(f"examine returns {values[task.examined[0].name]} for the split {split!r}.")
        told.append("a test for validation and one for test")
    if isinstance(task, HasScoredPairs):
        for split in SPLITS:
            pairs = _of_split(split, "scored_pairs", lambda split=split: task.scored_pairs(inner.tokenizer, split))
            if not pairs:
                raise Fault(f"scored_pairs returns none for the split {split!r}.")
    if not told:
        raise LeftOut("It offers no references and no test of a model.")
    return " and ".join(told)


def _of_split(split: str, method: str, call: Any) -> Any:
    try:
        return call()
    except Exception as error:
        raise Fault(f"{method} fails for the split {split!r} ({type(error).__name__}: {error}).") from error


PROBES = (
    Probe("made", "when it is made", made),
    Probe("declared", "when its declarations are read", declared),
    Probe("gradient", "when its metric is differentiated", gradient),
    Probe("fidelity", "when its metric is compared with retraining", fidelity),
    Probe("unchanged", "in evaluate", unchanged),
    Probe("evaluation", "in evaluate", evaluation),
    Probe("references", "when asked for its splits", references),
)
