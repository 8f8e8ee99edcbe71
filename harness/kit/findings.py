"""What probes find: a verdict and a sentence each, how that is shown, and how probes are run."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.jupyter import JupyterMixin

from harness.contracts import HarnessError
from harness.store.plain import plain_text, said

if TYPE_CHECKING:
    from rich.console import RenderableType

Verdict = Literal["ok", "failed", "left out"]


class Fault(Exception):
    """A promise is broken: one sentence that says which and how."""


class LeftOut(Exception):
    """The probe has nothing to ask of this plug-in: one sentence that says why."""


@dataclass(frozen=True)
class Probe:
    """One promise of the contract. `try_` returns a sentence about what it saw, or raises Fault or LeftOut."""

    name: str
    on: str
    """When: "on empty completions"; for what the plug-in itself raises."""
    try_: Callable[[Any], str]


@dataclass(frozen=True)
class Finding:
    """What one probe found."""

    subject: str
    """ "reward shorter"."""
    probe: str
    verdict: Verdict
    sentence: str
    seconds: float


class ContractError(AssertionError):
    """A plug-in breaks its contract; a sentence for every fault."""


@dataclass(frozen=True)
class Checked(JupyterMixin):
    """All findings, in the order of the probes. A notebook shows them as a table."""

    findings: tuple[Finding, ...]

    @property
    def faults(self) -> list[Finding]:
        """Those that failed."""
        return [finding for finding in self.findings if finding.verdict == "failed"]

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.faults

    def require(self) -> None:
        """Raises ContractError, an AssertionError, with a line for every fault."""
        if self.faults:
            lines = [f"{each.subject}, {each.probe}: {each.sentence}" for each in self.faults]
            raise ContractError("\n".join(lines))

    def as_data(self) -> dict[str, Any]:
        """Plain data: whether all is well, and every finding."""
        return {"ok": self.ok, "findings": [asdict(finding) for finding in self.findings]}

    def __rich__(self) -> RenderableType:
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        styles = {"ok": "green", "failed": "bold red", "left out": "dim"}
        parts: list[RenderableType] = []
        for subject in dict.fromkeys(finding.subject for finding in self.findings):
            own = [finding for finding in self.findings if finding.subject == subject]
            table = Table(title=Text(subject), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
            table.add_column("probe", no_wrap=True)
            table.add_column("verdict", no_wrap=True)
            table.add_column("found", overflow="fold")
            for each in own:
                table.add_row(Text(each.probe), Text(each.verdict, styles[each.verdict]), Text(each.sentence))
            counts = Counter(each.verdict for each in own)
            told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in styles if counts[verdict])
            parts += [table, Text(f"{told}; {sum(each.seconds for each in own):.1f} s\n")]
        return Group(*parts)


def ask(subject: str, probes: Sequence[Probe], bench: Any, only: Collection[str] = ()) -> Iterator[Finding]:
    """Runs the probes one after the other, or those of them that `only` names. The first one makes the plug-in, so it
    always runs, and where it fails the others are left out."""
    made = True
    for number, probe in enumerate(probes):
        if only and number and probe.name not in only:
            continue
        begun = time.perf_counter()
        verdict, sentence = _asked(probe, bench) if made else ("left out", "It could not be made.")
        made = made and not (number == 0 and verdict == "failed")
        yield Finding(subject, probe.name, verdict, plain_text(sentence), time.perf_counter() - begun)


def _asked(probe: Probe, bench: Any) -> tuple[Verdict, str]:
    try:
        return "ok", probe.try_(bench)
    except LeftOut as why:
        return "left out", str(why)
    except Fault as fault:
        return "failed", str(fault)
    except HarnessError as error:
        return "failed", f"{said(error)} ({probe.on})"
    except (Exception, SystemExit, GeneratorExit) as error:  # a plug-in may be anybody's code
        return "failed", f"It raises {type(error).__name__} {probe.on}: {said(error)}"
