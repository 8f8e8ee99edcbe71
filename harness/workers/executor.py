"""Where work runs: the interface that a grid's cells and fidelity's comparisons share.

Work comes as **jobs**, plain data that can be pickled. An **executor** takes jobs and an observer and returns one
record a job, in order. Which job is next, what is kept, what waits for another process and what a lost worker costs is
the same for all of them and stands here. What is left for an executor to know is how to

    start    begin a job on a free worker
    attend   wait until something happens, and tell it as events, a lost worker too
    release  let go of workers that nothing is left for
    stop     end what runs, early

harness/workers/local.py runs jobs in this process or in processes on this machine, harness/workers/launcher.py on all
ranks of a launcher, harness/workers/ray.py on the nodes of a Ray cluster, harness/workers/slurm.py as jobs of a Slurm
cluster. For another place a class with these four
methods is enough; its workers call `prepare` once and `work` for each job.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from harness.contracts import HarnessError
from harness.machine.libraries import importing, quiet
from harness.machine.trust import trust_remote_code

Event = dict[str, Any]
"""What happened to a job, by `event`:

    start       a worker begins it
    elsewhere   another process is at it; it comes last, and is then waited for
    again       `reason`: its worker is gone; another one goes on with it
    end         `record`: its record; `kept`: True where nothing had to run
    ...         whatever the job itself tells while it runs ("plan", "step" and "validation" of a cell, "note" of a
                comparison)

Two more go from an executor to the queue and no further:

    lost        `reason`: its worker is gone; costs this job only
    error       `error`: a HarnessError, which concerns all jobs and ends the run
"""
FINAL = ("end", "elsewhere", "lost", "error")
"""After one of these its worker is free (or gone)."""

Tell = Callable[[Event], None]
"""Where the events of one job go."""


class Job(Protocol):
    """Data of one piece of work: everything that a worker needs to know, so that it can be sent to one."""

    @property
    def name(self) -> str:
        """For messages."""

    def settled(self) -> Any | None:
        """The job's record where nothing is to run; asked before a worker is. None: it is to be run."""

    def run(self, tell: Tell, *, wait: bool) -> Any | None:
        """Does it, in the worker, and returns its record. None: another process is at it and `wait` is off.

        Raises HarnessError for what concerns all jobs, and Interrupted where it is to stop."""

    def lost(self, reason: str) -> Any:
        """The record of a job whose worker is gone for that reason, stored as far as it can be."""


Observer = Callable[[Any, Event], None]
"""Called with (job, event), in the process that asked for the work."""


def work(job: Job, tell: Tell, *, wait: bool) -> None:
    """All that a worker does with a job: it is run, and how it ended is the last event. Interrupted passes through."""
    try:
        record = job.run(tell, wait=wait)
    except HarnessError as error:
        return tell({"event": "error", "error": error})
    tell({"event": "elsewhere"} if record is None else {"event": "end", "record": record})


def prepare(threads: int, trust: bool) -> None:
    """What a worker process does before its first job: libraries are quiet and have `threads` CPU threads, freed memory
    is kept where there is no GPU, and code that comes with a model runs (`trust`) where it may in the parent."""
    quiet()
    if trust:
        trust_remote_code()
    with importing():
        import torch

        from harness.machine.devices import cuda_devices
        from rewards.metagradient import keep_freed_memory

    torch.set_num_threads(threads)
    if not cuda_devices():
        keep_freed_memory()


class Executor(ABC):
    """A place where jobs run. Jobs are known by their number here, since data need not be hashable."""

    slots: int = 1
    """Jobs at a time."""
    announces = False
    """Whether it tells "start" itself, since a job waits for its turn at the place where it is sent."""

    @abstractmethod
    def start(self, number: int, job: Job, *, wait: bool) -> None:
        """Begins a job; called while fewer than `slots` run."""

    @abstractmethod
    def attend(self, tell: Callable[[int, Event], None]) -> None:
        """Waits until something happens to a running job and tells it: `tell(number, event)`. One of `FINAL` is the
        last of a job."""

    def release(self) -> None:
        """Lets workers go that have no job: none is waiting, for now. By default there are none to let go."""
        return

    def stop(self) -> None:
        """Ends every running job as interrupted and returns when it is stored. Called where the run ends early. By
        default nothing runs on: the job was in this process."""
        return

    def close(self) -> None:
        """Ends what outlives a run. By default nothing does."""
        return

    def run(self, jobs: Sequence[Job], observe: Observer) -> list[Any]:
        """One record a job, in order. A lost worker costs its job only. What another process is at comes last.

        Raises HarnessError (StorageError where nothing can be stored any more) for what ends all jobs, and Interrupted
        after SIGINT or SIGTERM, when what ran has been stopped."""
        return _Queue(self, jobs, observe).run()


class _Queue:
    """One call of `Executor.run`."""

    def __init__(self, executor: Executor, jobs: Sequence[Job], observe: Observer) -> None:
        self.executor, self.jobs, self.observe = executor, jobs, observe
        self.records: dict[int, Any] = {}
        self.waiting: deque[int] = deque()
        self.busy: set[int] = set()
        self.elsewhere: set[int] = set()

    def run(self) -> list[Any]:
        for number, job in enumerate(self.jobs):
            record = job.settled()
            if record is None:
                self.waiting.append(number)
            else:
                self._end(number, {"event": "end", "record": record, "kept": True})
        try:
            while self.waiting or self.busy:
                while self.waiting and len(self.busy) < self.executor.slots:
                    self._start(self.waiting.popleft())
                if not self.waiting:
                    self.executor.release()
                self.executor.attend(self._hear)
            self.executor.release()
        except BaseException:
            self.executor.stop()
            raise
        return [self.records[number] for number in range(len(self.jobs))]

    def _start(self, number: int) -> None:
        self.busy.add(number)
        if not self.executor.announces:
            self.observe(self.jobs[number], {"event": "start"})
        self.executor.start(number, self.jobs[number], wait=number in self.elsewhere)

    def _hear(self, number: int, event: Event) -> None:
        kind = event["event"]
        if kind in FINAL:
            self.busy.discard(number)
        if kind == "error":
            raise event["error"]
        if kind == "lost":
            event = {"event": "end", "record": self.jobs[number].lost(event["reason"])}
        if event["event"] == "end":
            return self._end(number, event)
        if kind == "elsewhere":
            self.elsewhere.add(number)
            self.waiting.append(number)
        self.observe(self.jobs[number], event)

    def _end(self, number: int, event: Event) -> None:
        self.records[number] = event["record"]
        self.observe(self.jobs[number], event)
