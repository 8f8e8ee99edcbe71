"""A data set as a job, for where `generate` sends it elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.contracts import Contact
from harness.generated.dataset import Dataset, Notify, finished_dataset, write_dataset
from harness.generated.source import Source
from harness.workers.executor import Tell


@dataclass(frozen=True)
class WritingJob:
    """`write_dataset` with these arguments. Its record is "", or why the data set is not whole."""

    source: Source
    out: Path
    tokens: int
    seed: int = 0
    prompts: Path | None = None
    dedup: bool = False
    allowed: frozenset[Contact] = frozenset()

    @property
    def name(self) -> str:
        return f"texts of {self.source.name}"

    @property
    def _asked(self) -> dict[str, Any]:
        names = ("tokens", "seed", "prompts", "dedup", "allowed")
        return {name: getattr(self, name) for name in names}

    def settled(self) -> str | None:
        """Whether all is there, so that no cluster need be asked. Raises what `write_dataset` does of what is there."""
        return "" if finished_dataset(self.source, self.out, **self._asked) else None

    def write(self, notify: Notify) -> Dataset:
        """Raises what `write_dataset` does."""
        return write_dataset(self.source, self.out, **self._asked, notify=notify)

    def run(self, tell: Tell, *, wait: bool) -> str:
        self.write(tell)
        return ""

    def lost(self, reason: str) -> str:
        return f"{self.name}: {reason}; run it again, and it goes on after its last whole shard."

    def stores(self) -> tuple[Path, Path]:
        """The folder that the data set's lies in, and that."""
        return self.out.parent, self.out

    @property
    def _generator(self) -> str:
        """Beside the data set, where the job runs in another place; no data set is called so there."""
        return f"{self.out.name}.generator"

    def reads(self) -> dict[str, Path]:
        """The generator that a cell kept."""
        return {self._generator: Path(self.source.model)} if self.source.identity else {}

    def at(self, out: Path) -> WritingJob:
        """The same data set in another folder, where the generator lies beside it."""
        source = replace(self.source, model=str(out / self._generator)) if self.source.identity else self.source
        return replace(self, source=source, out=out / self.out.name)
