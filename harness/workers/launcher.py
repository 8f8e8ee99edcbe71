"""Several processes on one job: what a launcher (`torchrun`, `accelerate launch`) started works on job after job, all
ranks on the same one. Rank 0 decides, stores and observes; the others follow and store in a scratch folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.machine import processes
from harness.machine.stopping import Interrupted, stop_signal
from harness.machine.terminal import inert
from harness.workers.executor import Event, Executor, Job, Observer, Tell


class SharedJob(Job, Protocol):
    """A job that several processes can do together. Its record has a `status` and a `reason`."""

    def together(self, scratch: Path | None) -> SharedJob:
        """The job as this process does its part of it. `scratch`: where to store, None on the first rank."""


class Ranks(Executor):
    """All ranks of a launcher, each of which calls `run`. Rank 0 gets the records and is told the events, the others
    get none.

    A rank whose job failed ends with SystemExit (code 1), so that the launcher ends those that wait for it."""

    def run(self, jobs: Sequence[SharedJob], observe: Observer) -> list[Any]:
        import torch.distributed as dist

        processes.join_group()
        if processes.rank() == 0:
            records = super().run(jobs, observe)
            processes.from_first(None)
        else:
            records = []
            _follow()
        dist.barrier()
        return records

    def start(self, number: int, job: SharedJob, *, wait: bool) -> None:
        processes.from_first(job)
        self._next = (number, job.together(None))

    def attend(self, tell: Callable[[int, Event], None]) -> None:
        number, job = self._next
        _part(job, lambda event: tell(number, event))


def _follow() -> None:
    """The life of the other ranks: job after job from rank 0 until there is none."""
    with tempfile.TemporaryDirectory() as scratch:
        while (job := processes.from_first(None)) is not None:
            _part(job.together(Path(scratch)), lambda event: None)


def _part(job: SharedJob, tell: Tell) -> None:
    """This rank's part of the job."""
    record = job.run(tell, wait=True)
    tell({"event": "end", "record": record})
    if (number := processes.of_any_rank(stop_signal())) is not None:
        raise Interrupted(number)
    if record.status == "failed":
        print(inert(f"rank {processes.rank()}: {record.reason}"), flush=True)
        raise SystemExit(1)
