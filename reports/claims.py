"""Findings as checks on stored results: what was measured, its interval, and a verdict.

    value     the measure's mean over seeds is at least (at most) a number. `holds` where the 95 % interval lies on that
              side, `does not hold` where it lies on the other
    ahead     the mean paired difference to each of the others is above 0: the whole interval for all of them; `does not
              hold` where one of them is as surely ahead; equal on every seed decides nothing
    still     the mean stays within a distance of the untuned generator's: the whole interval inside, or outside
    scanned   every seed's final picture is read by OpenCV and by zxing as what the target picture says
    worth     as ahead, of targets trained on the generated texts (`evaluate`), on the task's test passages
    rate      the slope of the bias of Theorem 3.1 lies within bounds; random worlds take the place of seeds

In between, and where one seed has no interval, the verdict is `not decided`, with what the seeds say; what is not there
is `not run`. A check with `exists` asks whether something can be done at all, which one seed shows. Three seeds or more
that all say the same decide as they say.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.evaluation.records import BEFORE
from harness.machine.files import read_json
from harness.registry import TASKS
from harness.store.damage import reading
from harness.store.record import CellRecord, Said, StoredCell
from harness.suites.suite import CLAIMS, Ahead, Claim, Rate, Scanned, Section, Still, Suite, Value, Worth
from reports import evaluations, stats, summary, tables
from reports.stats import Interval

if TYPE_CHECKING:
    import rich.console

    from harness.signals.theorem import Slope

Verdict = Literal["holds", "does not hold", "not decided", "not run"]
VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "not decided", "not run")
ENOUGH = 3
"""Seeds that decide where all say the same; two may by chance."""
HEADS = ("claim", "verdict", "ours", "the paper's", "why")


@dataclass(frozen=True)
class Found:
    """A claim decided."""

    claim: Claim
    verdict: Verdict
    ours: str
    """The measured value with its interval, as text."""
    why: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: tuple[int, ...] = ()
    known: str = ""
    """Why it is known not to hold in this profile; empty where that is news."""

    @property
    def surprising(self) -> bool:
        """Whether it does not hold and nobody said so before."""
        return self.verdict == "does not hold" and not self.known


@dataclass(frozen=True)
class _Seeds:
    """A row's finished cells by seed."""

    values: Mapping[int, float]
    floors: Mapping[int, float]
    unit: str
    direction: str
    """Of the measure; "" where neither is better."""


Cells = Sequence[tuple[StoredCell, CellRecord]]


@dataclass(frozen=True)
class Evidence:
    """What is stored, as far as it belongs to the suite as it was asked for."""

    cells: Cells = ()
    parts: Mapping[str, Collection[str]] = field(default_factory=dict)
    """Part -> identities of its cells, so that results with other settings, or of other seeds, do not count."""
    worth: Mapping[str, Sequence[evaluations.Row]] = field(default_factory=dict)
    """Part -> what its data were worth."""
    slopes: Mapping[str, Sequence[Slope]] = field(default_factory=dict)
    """Part -> slopes of the theorem's bias."""

    def of(self, claim: Claim, part: str | None = None) -> Cells:
        """The cells that a claim is about; those of another part on its task."""
        mine, task = self.parts.get(part or claim.check.part, ()), getattr(claim.check, "task", "")
        return [(cell, record) for cell, record in self.cells if record.identity in mine and record.task == task]


def decide(suite: Suite, evidence: Evidence, profile: str) -> list[Found]:
    """Every claim of the suite."""
    found = []
    for claim in suite.claims:
        verdict = _DECIDERS[claim.check.kind](claim, evidence)
        known = claim.known.get(profile, claim.known.get("any", "")) if verdict.verdict == "does not hold" else ""
        found.append(replace(verdict, known=known))
    return found


# ---------------------------------------------------------------------------------------------------------- the checks


def _value(claim: Claim, evidence: Evidence) -> Found:
    check, cells = claim.check, evidence.of(claim)
    assert isinstance(check, Value)
    row = _row(cells, check.reward, check.variant, check.measure)
    if row is None:
        return _not_run(claim, cells, check.reward, check.variant)
    values = {seed: value / row.floors[seed] if check.untuned else value for seed, value in row.values.items()}
    unit = "" if check.untuned else row.unit
    bound, sign = (check.at_least, 1) if check.at_least is not None else (check.at_most, -1)
    assert bound is not None
    side, share = "at least" if sign > 0 else "at most", " of the untuned" if check.untuned else ""
    asked = f"{side} {summary.shown(bound, unit)}{share}"
    if check.exists:
        best = max(values, key=lambda seed: sign * values[seed])
        there = sign * (values[best] - bound) >= 0
        said = f"seed {best}: {summary.shown(values[best], unit)}, {asked} asked of one seed"
        return _found(claim, "holds" if there else "does not hold", values, unit, said)
    return _by_interval(claim, values, unit, lambda low, high: (sign * low, sign * high), sign * bound, asked)


def _ahead(claim: Claim, evidence: Evidence) -> Found:
    check, cells = claim.check, evidence.of(claim)
    assert isinstance(check, Ahead)

    others = evidence.of(claim, check.over_part)

    def seeds(name: str) -> _Seeds | None:
        reward, _, variant = name.partition("/")
        return _row(others, reward, variant or check.variant, check.measure)

    ours = _row(cells, check.reward, check.variant, check.measure)
    found = ours and _paired(claim, ours, check.over, seeds)
    return found or _not_run(claim, cells, *([check.reward, check.variant] if ours is None else check.over))


def _worth(claim: Claim, evidence: Evidence) -> Found:
    check = claim.check
    assert isinstance(check, Worth)
    about = [r for r in evidence.worth.get(check.part, ()) if r.task == check.task and r.target == check.target]
    rows = {row.name: row for row in about}
    ours = rows.get(check.row)

    def seeds(name: str) -> _Seeds | None:
        row = rows.get(name)
        if row is None or not row.trials:
            return None
        values = dict(zip(row.seeds, (float(value) for value in row.values), strict=True))
        if name == BEFORE and ours:  # no training, so it is the same for every seed
            values = dict.fromkeys(ours.seeds, next(iter(values.values())))
        return _Seeds(values, {}, row.unit, row.direction)

    mine = seeds(check.row)
    found = mine and _paired(claim, mine, check.over, seeds)
    if found:
        return found
    states = list(dict.fromkeys(row.status for row in rows.values() if not row.trials))
    return Found(claim, "not run", "-", "; ".join(states[:2]) or "no evaluation of this suite's settings")


def _rate(claim: Claim, evidence: Evidence) -> Found:
    check = claim.check
    assert isinstance(check, Rate)
    values = {
        each.world: each.value
        for each in evidence.slopes.get(check.part, ())
        if (each.sweep, each.optimizer, each.eps_root) == (check.sweep, check.optimizer, check.eps_root)
    }
    if not values:
        return Found(claim, "not run", "-", "the theorem was not measured")
    interval = stats.mean_interval(np.array(list(values.values())))
    why = f"slope of the bias over {check.sweep}, {check.low:g} to {check.high:g} asked; mean of {len(values)} worlds"
    found = Found(claim, _within(interval, check.low, check.high), _shown(interval, ""), why, **_ends(interval))
    return replace(found, seeds=tuple(sorted(values)))


def _paired(claim: Claim, ours: _Seeds, over: Sequence[str], seeds: Callable[[str], _Seeds | None]) -> Found | None:
    """Ours against each of `over`, seed by seed; None where nothing can be compared."""
    verdicts, words, least = [], [], None
    for name in over:
        theirs = seeds(name)
        common = sorted(set(ours.values) & set(theirs.values)) if theirs else []
        if not theirs or not common:
            verdicts.append("not run")
            words.append(f"{name}: not run")
            continue
        differences = np.array([summary.improvement(ours.values[k], theirs.values[k], ours.direction) for k in common])
        interval = stats.mean_interval(differences)
        verdicts.append(_sided(interval, 0.0) if differences.any() else "not decided")
        words.append(f"{name}: {_shown(interval, ours.unit, signed=True)}")
        least = interval if least is None or interval.mean < least.mean else least
    if all(verdict == "not run" for verdict in verdicts):
        return None
    why = f"paired differences: {'; '.join(words)}{_one_seed(ours.values)}"
    ours_text = _shown(stats.mean_interval(np.array(list(ours.values.values()))), ours.unit)
    found = _found(claim, _together(verdicts), ours.values, ours.unit, why)
    return replace(found, ours=ours_text, **_ends(least))


def _still(claim: Claim, evidence: Evidence) -> Found:
    check, cells = claim.check, evidence.of(claim)
    assert isinstance(check, Still)
    row = _row(cells, check.reward, check.variant, check.measure)
    if row is None:
        return _not_run(claim, cells, check.reward, check.variant)
    moved = {seed: value - row.floors[seed] for seed, value in row.values.items()}
    interval = stats.mean_interval(np.array(list(moved.values())))
    verdict = _within(interval, -check.within, check.within)
    why = (
        f"moved by {_shown(interval, row.unit, signed=True)} from the untuned generator's, "
        f"{summary.shown(check.within, row.unit)} either way asked{_one_seed(moved)}"
    )
    return _found(claim, verdict, row.values, row.unit, why)


def _scanned(claim: Claim, evidence: Evidence) -> Found:
    check, cells = claim.check, evidence.of(claim)
    assert isinstance(check, Scanned)
    mine = [(c, r) for c, r in cells if _is(r, check.reward, check.variant) and r.status == "done"]
    if not mine:
        return _not_run(claim, cells, check.reward, check.variant)
    zxing = importlib.util.find_spec("zxingcpp") is not None
    read: dict[int, float] = {}
    words = []
    for cell, record in mine:
        opencv = record.final.get(check.measure, 0.0) == 1.0
        other = _zxing_reads(cell, record) if zxing else False
        read[record.seed] = float(opencv and (other or not zxing))
        said = [name for name, yes in (("OpenCV", opencv), ("zxing", other)) if yes]
        words.append(f"seed {record.seed}: read by {' and '.join(said) or 'none'}")
    whole = all(read.values())
    verdict: Verdict = "holds" if whole and zxing else "not decided" if whole else "does not hold"
    missing = "" if zxing else "; zxing-cpp is not installed, so the second reader was not asked"
    return _found(claim, verdict, read, "fraction", f"{'; '.join(words)}{missing}")


def _zxing_reads(cell: StoredCell, record: CellRecord) -> bool:
    """Whether zxing finds in the last decoded picture what it finds in the target picture."""
    import cv2
    import zxingcpp

    draw = TASKS.get(record.task).declares.draw
    arrays = cell.arrays()
    if draw is None or not arrays:
        return False
    pictures = draw(arrays[max(arrays)])
    texts = []
    for name in ("target", "decoded"):
        image = cv2.imdecode(np.frombuffer(pictures[name], dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
        texts.append([code.text for code in zxingcpp.read_barcodes(image)])
    return bool(texts[0]) and texts[0] == texts[1]


_DECIDERS: Mapping[str, Callable[[Claim, Evidence], Found]] = {
    "value": _value,
    "ahead": _ahead,
    "still": _still,
    "scanned": _scanned,
    "worth": _worth,
    "rate": _rate,
}


# ------------------------------------------------------------------------------------------------------------- helpers


def _is(record: CellRecord, reward: str, variant: str) -> bool:
    return record.reward == reward and record.variant.removeprefix("quick").strip(", ") == variant


def _row(cells: Cells, reward: str, variant: str, measure: str) -> _Seeds | None:
    """A row's finished cells; None where there is none with this measure."""
    mine = [record for _, record in cells if _is(record, reward, variant) and record.status == "done"]
    values, floors, unit, direction = {}, {}, "", ""
    for record in mine:
        ours = record.headline if measure == "headline" else record.final.get(measure)
        floor = record.floor if measure == "headline" else record.initial.get(measure)
        if ours is not None and floor is not None and math.isfinite(ours) and math.isfinite(floor):
            values[record.seed], floors[record.seed] = ours, floor
            unit, direction = record.unit, record.direction
    if not values:
        return None
    if measure != "headline":
        entry = TASKS.find(mine[0].task)
        declared = next((m for m in entry.factory.measures if m.name == measure), None) if entry else None
        unit, direction = (declared.unit, declared.direction or "") if declared else ("", "")
    return _Seeds(values, floors, unit, direction)


def _by_interval(
    claim: Claim,
    values: Mapping[int, float],
    unit: str,
    turned: Callable[[float, float], tuple[float, float]],
    bound: float,
    asked: str,
) -> Found:
    interval = stats.mean_interval(np.array(list(values.values())))
    low, high = turned(interval.low, interval.high)
    mean = turned(interval.mean, interval.mean)[0]
    whole = Interval(mean, min(low, high), max(low, high), interval.n, interval.axis, interval.method, interval.p)
    return _found(claim, _sided(whole, bound), values, unit, f"{asked} asked{_one_seed(values)}")


def _sided(interval: Interval, bound: float) -> Verdict:
    """On which side of `bound` the interval lies, above being the claim's."""
    if interval.bounded:
        return "holds" if interval.low >= bound else "does not hold" if interval.high < bound else "not decided"
    if interval.n < ENOUGH:
        return "not decided"
    return "holds" if interval.mean >= bound else "does not hold"


def _within(interval: Interval, low: float, high: float) -> Verdict:
    """Whether it lies inside of [low, high], or outside."""
    inside = _sided(interval, low), _sided(_turned(interval), -high)
    if inside == ("holds", "holds"):
        return "holds"
    return "does not hold" if "does not hold" in inside else "not decided"


def _turned(interval: Interval) -> Interval:
    return Interval(
        -interval.mean, -interval.high, -interval.low, interval.n, interval.axis, interval.method, interval.p
    )


def _together(verdicts: Sequence[str]) -> Verdict:
    """Of several that must all hold."""
    if "does not hold" in verdicts:
        return "does not hold"
    return "holds" if set(verdicts) == {"holds"} else "not decided"


def _one_seed(values: Mapping[int, float]) -> str:
    return "; one seed, so nothing is decided" if len(values) == 1 else ""


def _shown(interval: Interval, unit: str, *, signed: bool = False) -> str:
    text = summary.signed if signed else summary.shown
    value, low, high = text(interval.mean, unit), interval.low, interval.high
    if unit == "fraction" and not signed:  # the mean of a share lies in [0, 1], whatever Student says
        low, high = max(0.0, low), min(1.0, high)
    return f"{value} [{text(low, unit)} .. {text(high, unit)}]" if interval.bounded else value


def _ends(interval: Interval | None) -> dict[str, float | None]:
    if interval is None:
        return {}
    finite = interval.bounded
    return {"value": interval.mean, "low": interval.low if finite else None, "high": interval.high if finite else None}


def _found(claim: Claim, verdict: Verdict, values: Mapping[int, float], unit: str, why: str) -> Found:
    interval = stats.mean_interval(np.array(list(values.values())))
    return Found(claim, verdict, _shown(interval, unit), why, seeds=tuple(sorted(values)), **_ends(interval))


def _not_run(claim: Claim, cells: Cells, *names: str) -> Found:
    there = [record for _, record in cells if record.reward in {name.partition("/")[0] for name in names}]
    ended = list(dict.fromkeys(": ".join(filter(None, (r.status, r.reason))) for r in there if r.status != "done"))
    return Found(claim, "not run", "-", "; ".join(ended[:2]) or "no finished cell of this suite's settings")


# -------------------------------------------------------------------------------------------------------------- stored

FILE = CLAIMS


class StoredClaim(BaseModel):
    """A decided claim as CI and reports read it."""

    model_config = ConfigDict(extra="ignore")

    id: Said
    says: Said
    verdict: Verdict
    ours: Said = "-"
    value: float | None = None
    low: float | None = None
    high: float | None = None
    seeds: list[int] = Field(default_factory=list)
    paper: Said = ""
    why: Said = ""
    known: Said = ""
    place: Said = ""
    """In the paper."""


class StoredClaims(BaseModel):
    """`claims.json`."""

    suite: Said
    profile: Said
    claims: list[StoredClaim]
    parts: dict[str, list[str]] = Field(default_factory=dict)
    """Part -> identities of its cells."""
    sections: list[Section] = Field(default_factory=list)


def stored(place: Path) -> list[StoredClaims]:
    """The decided claims of every profile at or below `place`, sorted by their files. Raises DamagedError for a file
    that cannot be used."""
    found = []
    for path in sorted(place.rglob(FILE)) if place.is_dir() else []:
        with reading(path, path.parent, "remove it, or decide again with `paper --stored`"):
            found.append(StoredClaims.model_validate(read_json(path)))
    return found


def stored_rows(found: StoredClaims) -> list[list[str]]:
    """Texts under HEADS."""
    return [
        [
            each.says,
            each.verdict,
            each.ours,
            each.paper or "-",
            f"{each.why}. Known: {each.known}" if each.known else each.why,
        ]
        for each in found.claims
    ]


# -------------------------------------------------------------------------------------------------------------- output


def rows(found: Sequence[Found]) -> list[list[str]]:
    """Texts under HEADS."""
    made = []
    for each in found:
        why = f"{each.why}. Known: {each.known}" if each.known else each.why
        place = f" ({each.claim.place})" if each.claim.place else ""
        made.append([f"{each.claim.says}{place}", each.verdict, each.ours, each.claim.paper or "-", why])
    return made


def counts(found: Sequence[Found]) -> str:
    """How many claims got which verdict, in a sentence."""
    numbers = {verdict: sum(each.verdict == verdict for each in found) for verdict in VERDICTS}
    return ", ".join(f"{count} {verdict}" for verdict, count in numbers.items() if count) + f" of {len(found)} claims"


def markdown(found: Sequence[Found]) -> str:
    """The claims as a Markdown table."""
    from reports.markdown import grid

    return f"{grid(list(HEADS), rows(found))}\n{counts(found)}.\n"


def as_data(found: Sequence[Found], suite: Suite, profile: str, evidence: Evidence) -> dict[str, Any]:
    """What CI and reports read: plain data."""
    return {
        "suite": suite.name,
        "profile": profile,
        "parts": {name: sorted(identities) for name, identities in evidence.parts.items()},
        "sections": [section.model_dump(mode="json", exclude_defaults=True) for section in suite.sections],
        "claims": [
            {
                "id": each.claim.id,
                "says": each.claim.says,
                "verdict": each.verdict,
                "ours": each.ours,
                "value": each.value,
                "low": each.low,
                "high": each.high,
                "seeds": list(each.seeds),
                "paper": each.claim.paper,
                "why": each.why,
                "known": each.known,
                "place": each.claim.place,
            }
            for each in found
        ],
    }


def rich(found: Sequence[Found]) -> rich.console.RenderableType:
    """The table for a terminal, and below it how many of which."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    colours = {"holds": "green", "does not hold": "red", "not decided": "yellow", "not run": "dim"}
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for head in HEADS:
        table.add_column(
            Text(head), overflow="fold", ratio={"claim": 4, "why": 4, "the paper's": 2, "ours": 2}.get(head)
        )
    for each, (claim, verdict, *rest) in zip(found, rows(found), strict=True):
        table.add_row(Text(claim), Text(verdict, style=colours[each.verdict]), *map(Text, rest))
    return Group(table, Text(f"{counts(found)}."))


def html(found: Sequence[Found]) -> str:
    """The table for a notebook."""
    return tables.html_table("Claims", [HEADS, *rows(found)])
