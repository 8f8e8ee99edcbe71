"""What a suite is: parts (cells to run, the most telling first) and claims (checks on what they stored), from YAML.

    name: paper
    summary: one line
    parts:
      - {name: languages, task: lambada_es, reward: all}
      - {name: pictures, task: "67", reward: "adam_metagrad,naive", inner_steps: "1,8,96",
         only: {tiny: {grpo.steps: 10}}}          # settings of this part in one profile
    claims:
      - id: spanish
        says: ...                                  # the finding, a sentence
        place: Section 4.4, Figure 4
        paper: "..."                               # what the paper reports, as text
        check: {kind: ahead, part: languages, task: lambada_es, reward: adam_metagrad, over: [naive]}
        known: {tiny: why it does not hold there}  # a finding that is known not to reproduce, and why

`reports/claims.py` says what the kinds of checks are and how they are decided.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.contracts import HarnessError, unknown
from harness.machine.files import read_text
from harness.settings.reading import read_yaml

Name = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[A-Za-z0-9_.=-]+$")]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Data):
    """Cells that are run together."""

    name: Name
    task: str
    reward: str = "all"
    inner_steps: str = ""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings of these cells in every profile."""
    only: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Profile -> further settings there."""
    seeds: int | None = Field(None, ge=1, description="Of the seeds asked for, the first so many; default: all.")

    def settings(self, profile: str) -> dict[str, Any]:
        return self.set | self.only.get(profile, {})


class _Check(_Data):
    part: Name
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


class Still(_Check):
    """Not further than `within` from where the untuned generator is."""

    kind: Literal["still"]
    within: float = Field(gt=0)


class Scanned(_Check):
    """The picture of the last validation is read by OpenCV, as `measure` says (1: it is), and by zxing, as the target
    picture is."""

    kind: Literal["scanned"]
    measure: str


Check = Annotated[Value | Ahead | Still | Scanned, Field(discriminator="kind")]


class Claim(_Data):
    """A finding, and how stored results decide about it."""

    id: Name
    says: str = Field(min_length=1, max_length=300)
    place: str = ""
    paper: str = ""
    check: Check
    known: dict[str, str] = Field(default_factory=dict)
    """Profile -> why it does not hold there, as far as that is known."""


class Suite(_Data):
    """Parts and claims."""

    name: Name
    summary: str
    parts: tuple[Part, ...] = Field(min_length=1)
    claims: tuple[Claim, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        for what, names in (("part", [p.name for p in self.parts]), ("claim", [c.id for c in self.claims])):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"the {what} '{sorted(twice)[0]}' stands twice")
        parts = [part.name for part in self.parts]
        for claim in self.claims:
            if claim.check.part not in parts:
                raise ValueError(f"the claim '{claim.id}' is about the part '{claim.check.part}', which is not there")
        return self


def suite_names() -> list[str]:
    """The built-in suites."""
    return sorted(path.name.removesuffix(".yaml") for path in _built_in().glob("*.yaml"))


def load_suite(name: str) -> Suite:
    """A built-in suite by name, or a YAML file by path. Raises HarnessError."""
    path = _built_in() / f"{name}.yaml" if name in suite_names() else Path(name)
    if name not in suite_names() and not name.endswith((".yaml", ".yml")):
        raise HarnessError(unknown("suite", name[:200], suite_names()))
    what = f"The suite {name}"
    try:
        data = read_yaml(read_text(path), what)
    except OSError as error:
        raise HarnessError(f"{what} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise HarnessError(f"{what} is not valid YAML: {str(error).splitlines()[0]}.") from error
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        raise HarnessError(f"{what}: {_explained(error)}.") from error


def _explained(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return (
        f"{place}: {first['msg'].removeprefix('Value error, ')}"
        if place
        else first["msg"].removeprefix("Value error, ")
    )


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


def selected(suite: Suite, names: Sequence[str]) -> Suite:
    """The suite with these parts alone (all of none), and the claims about them. Raises HarnessError."""
    known = [part.name for part in suite.parts]
    for name in names:
        if name not in known:
            raise HarnessError(unknown("part", name[:200], known))
    if not names:
        return suite
    claims = tuple(claim for claim in suite.claims if claim.check.part in names)
    return suite.model_copy(update={"parts": tuple(p for p in suite.parts if p.name in names), "claims": claims})
