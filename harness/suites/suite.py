"""What a suite is: parts (cells to run, the most telling first) and claims (checks on what they stored), from YAML.

    name: paper
    summary: one line
    parts:
      - {name: languages, task: lambada_es, reward: all}
      - {name: pictures, task: "67", reward: "adam_metagrad,naive", inner_steps: "1,8,96",
         only: {tiny: {grpo.steps: 10}}}          # settings of this part in one profile
      - {name: data, kind: worth, of: languages}  # what the texts of that part's generators are worth (`evaluate`)
      - {name: theory, kind: theorem}             # Theorem 3.1, measured (harness/signals/theorem.py)
    claims:
      - id: spanish
        says: ...                                  # the finding, a sentence
        place: Section 4.4, Figure 4
        paper: "..."                               # what the paper reports, as text
        check: {kind: ahead, part: languages, task: lambada_es, reward: adam_metagrad, over: [naive]}
        known: {tiny: why it does not hold there}  # a finding that is known not to reproduce, and why; `any`: anywhere
    sections:                                      # the report's page in the paper's order
      - {place: Figure 4, title: ..., figures: [figure-4]}

`reports/claims.py` says what the kinds of checks are and how they are decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from harness.contracts import HarnessError, unknown
from harness.settings.reading import explained, read_yaml_file

CLAIMS = "claims.json"
"""Where a profile's results say what was decided."""
KEEP = "keep.generator"
Name = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9_.=-]+$")]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CellPart(_Data):
    """Cells that are run together."""

    kind: Literal["cells"] = "cells"
    name: Name
    task: str
    reward: str = "all"
    inner_steps: str = ""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings of these cells in every profile."""
    only: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Profile -> further settings there."""
    profiles: tuple[str, ...] = ()
    """Run in these alone; default: in every profile."""
    seeds: int | None = Field(None, ge=1, description="Of the seeds asked for, the first so many run; default: all.")

    def settings(self, profile: str) -> dict[str, Any]:
        return self.set | self.only.get(profile, {})

    def runs_in(self, profile: str) -> bool:
        return not self.profiles or profile in self.profiles


class WorthPart(_Data):
    """What the texts of another part's generators are worth, as `evaluate` says (Appendix C)."""

    kind: Literal["worth"]
    name: Name
    of: Name
    """The part, which stands before this one; its generators are kept."""
    targets: str = "own,other"
    seeds: int | None = Field(None, ge=1, description="Of the seeds asked for, the first so many; default: all.")


class TheoremPart(_Data):
    """Theorem 3.1, measured in random worlds. They take the place of seeds."""

    kind: Literal["theorem"]
    name: Name
    worlds: int = Field(8, ge=1, le=1000)


def _kind(data: Any) -> str:
    return str(data.get("kind", "cells") if isinstance(data, Mapping) else data.kind)


Part = Annotated[
    Annotated[CellPart, Tag("cells")] | Annotated[WorthPart, Tag("worth")] | Annotated[TheoremPart, Tag("theorem")],
    Discriminator(_kind),
]


class _About(_Data):
    part: Name


class _Check(_About):
    task: str
    reward: str
    variant: str = ""
    measure: str = "headline"
    """`headline`, or the name of a measure of the last validation."""


class Value(_Check):
    """The measure is at least, or at most, a number; `untuned`: as a share of the untuned generator's."""

    kind: Literal["value"]
    at_least: float | None = None
    at_most: float | None = None
    untuned: bool = False
    exists: bool = False
    """One seed that shows it is enough: what can be done at all."""

    @model_validator(mode="after")
    def _bounded(self) -> Value:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a check of kind value takes at_least or at_most, one of them")
        return self


class Ahead(_Check):
    """Better than each of `over`, seed by seed: rewards, or REWARD/VARIANT where the variant is another."""

    kind: Literal["ahead"]
    over: tuple[str, ...] = Field(min_length=1)
    over_part: Name | None = None
    """The part whose cells `over` names, where it is another than the claim's: the same pair without something."""


class Still(_Check):
    """Not further than `within` from where the untuned generator is."""

    kind: Literal["still"]
    within: float = Field(gt=0)


class Scanned(_Check):
    """The picture of the last validation is read by OpenCV, as `measure` says (1: it is), and by zxing, as the target
    picture is."""

    kind: Literal["scanned"]
    measure: str


class Worth(_About):
    """A target trained on `row`'s texts is better on the task's test than one trained on each of `over`: rewards, or
    rows without a reward (before, replay, untuned, sft)."""

    kind: Literal["worth"]
    task: str
    row: str
    target: Literal["own", "other"] = "own"
    over: tuple[str, ...] = Field(min_length=1)


class Rate(_About):
    """The slope of the bias' logarithm over what a sweep varies lies within [low, high]."""

    kind: Literal["rate"]
    sweep: str
    optimizer: Literal["sgd", "adam"]
    eps_root: float | None = None
    low: float
    high: float


Check = Annotated[Value | Ahead | Still | Scanned | Worth | Rate, Field(discriminator="kind")]


class Claim(_Data):
    """A finding, and how stored results decide about it."""

    id: Name
    says: str = Field(min_length=1, max_length=300)
    place: str = ""
    paper: str = ""
    check: Check
    known: dict[str, str] = Field(default_factory=dict)
    """Profile, or `any` -> why it does not hold there, as far as that is known."""

    @property
    def about(self) -> set[str]:
        """The parts that decide it."""
        other = self.check.over_part if isinstance(self.check, Ahead) else None
        return {self.check.part, other or self.check.part}


class Grid(_Data):
    """Final pictures of cells: a row a reward, a column a variant."""

    task: str
    parts: tuple[Name, ...] = Field(min_length=1)


class Reported(_Data):
    """Perplexities that the paper reports, as text: a row a method, a column a task. Ours stand beside them."""

    title: str
    unit: str = ""
    columns: dict[str, str]
    """Task -> head."""
    rows: dict[str, tuple[str, ...]]
    ours: Literal["own", "other"]
    """The target whose trials stand beside them."""

    @model_validator(mode="after")
    def _square(self) -> Reported:
        for name, row in self.rows.items():
            if len(row) != len(self.columns):
                raise ValueError(f"the row '{name}' of '{self.title}' has {len(row)} numbers, not {len(self.columns)}")
        return self


class Section(_Data):
    """A piece of the paper, and what of ours stands beside it. Claims with this `place` are added."""

    place: str
    title: str
    says: str = ""
    """What the paper shows there, a sentence."""
    figures: tuple[str, ...] = ()
    """Keys of the figures that tasks declare."""
    pictures: str = ""
    """A task, whose final pictures are shown."""
    grid: Grid | None = None
    reported: tuple[Reported, ...] = ()
    theorem: Name | None = None
    samples: tuple[str, ...] = ()
    """Tasks, of which a text is shown for every reward."""


class Suite(_Data):
    """Parts and claims."""

    name: Name
    summary: str
    parts: tuple[Part, ...] = Field(min_length=1)
    claims: tuple[Claim, ...] = Field(min_length=1)
    sections: tuple[Section, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        for what, names in (("part", [p.name for p in self.parts]), ("claim", [c.id for c in self.claims])):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"the {what} '{sorted(twice)[0]}' stands twice")
        parts = [part.name for part in self.parts]
        for claim in self.claims:
            for name in claim.about:
                if name not in parts:
                    raise ValueError(f"the claim '{claim.id}' is about the part '{name}', which is not there")
        before: list[str] = []
        for part in self.parts:
            if isinstance(part, CellPart):
                before.append(part.name)
            elif isinstance(part, WorthPart) and part.of not in before:
                raise ValueError(f"the part '{part.name}' is of '{part.of}', which is no part of cells before it")
        return self

    @property
    def cell_parts(self) -> list[CellPart]:
        return [part for part in self.parts if isinstance(part, CellPart)]

    def part(self, name: str) -> CellPart:
        """A part of cells."""
        return next(part for part in self.cell_parts if part.name == name)

    def settings(self, part: CellPart, profile: str) -> dict[str, Any]:
        """Of a part's cells. Generators whose texts are evaluated are kept."""
        kept = any(isinstance(other, WorthPart) and other.of == part.name for other in self.parts)
        return part.settings(profile) | ({KEEP: "final"} if kept else {})


def suite_names() -> list[str]:
    """The built-in suites."""
    return sorted(path.name.removesuffix(".yaml") for path in _built_in().glob("*.yaml"))


def load_suite(name: str) -> Suite:
    """A built-in suite by name, or a YAML file by path. Raises HarnessError."""
    path = _built_in() / f"{name}.yaml" if name in suite_names() else Path(name)
    if name not in suite_names() and not name.endswith((".yaml", ".yml")):
        raise HarnessError(unknown("suite", name[:200], suite_names()))
    what = f"The suite {name}"
    data = read_yaml_file(path, what)
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        raise HarnessError(f"{what}: {explained(error)}.") from error


def _built_in() -> Path:
    return Path(str(resources.files("harness") / "suites"))


# -------------------------------------------------------------------------------------------------------------- budget


@dataclass(frozen=True)
class Chosen:
    """What of a suite is run: names of parts, and of those left out with the hours that they would take."""

    run: tuple[str, ...]
    left_out: Mapping[str, float]


def within_budget(hours: Mapping[str, float], budget: float | None) -> Chosen:
    """Parts in their order as long as their hours fit into `budget`; one that does not fit is left out, and later,
    shorter ones may still fit. None: all."""
    run: list[str] = []
    left_out: dict[str, float] = {}
    spent = 0.0
    for name, needed in hours.items():
        if budget is None or spent + needed <= budget:
            run.append(name)
            spent += needed
        else:
            left_out[name] = needed
    return Chosen(tuple(run), left_out)


def hours_of(text: str) -> float:
    """ "60m", "2h", "90" (minutes) -> hours. Raises HarnessError."""
    units = {"m": 1 / 60, "h": 1.0, "s": 1 / 3600}
    body, unit = (text[:-1], units[text[-1]]) if text and text[-1] in units else (text, units["m"])
    try:
        found = float(body) * unit
    except ValueError:
        found = -1.0
    if not 0 < found < 1e6:
        raise HarnessError(f"--budget takes a time such as 60m or 2h, not '{text[:40]}'.")
    return found


def of_every_seed(suite: Suite) -> Suite:
    """The suite with no part limited to the first seeds: that saves work, and results that are there cost none."""
    limited = [part for part in suite.parts if not isinstance(part, TheoremPart)]
    whole = {part.name: part.model_copy(update={"seeds": None}) for part in limited}
    return suite.model_copy(update={"parts": tuple(whole.get(part.name, part) for part in suite.parts)})


def selected(suite: Suite, names: Sequence[str]) -> Suite:
    """The suite with these parts alone (all of none; a part of kind worth brings the one that it is of), and the claims
    about them. Raises HarnessError."""
    known = [part.name for part in suite.parts]
    for name in names:
        if name not in known:
            raise HarnessError(unknown("part", name[:200], known))
    if not names:
        return suite
    wanted = {*names, *(part.of for part in suite.parts if isinstance(part, WorthPart) and part.name in names)}
    claims = tuple(claim for claim in suite.claims if claim.about <= wanted)
    return suite.model_copy(update={"parts": tuple(p for p in suite.parts if p.name in wanted), "claims": claims})
