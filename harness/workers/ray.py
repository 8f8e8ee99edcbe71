"""Work on the nodes of a Ray cluster, or of a Ray that is started on this machine for the command.

Ray places each job where its CPUs, GPU and memory are free. A job whose worker or node is gone starts again elsewhere
from its last checkpoint. Where every node sees the results folder, workers store there as on one machine. Where one
does not, workers store in a folder of their own node, and what a job stores comes back file by file while it runs, to
an actor on this machine, which owns the job's folder here and writes whole files alone. Ray's own ports are the only
ones. Without an address they listen on 127.0.0.1 alone, and there is no dashboard.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.contracts import HarnessError
from harness.machine.libraries import quiet
from harness.machine.stopping import Interrupted, noted
from harness.machine.trust import trusted
from harness.store.atomic import StorageError
from harness.workers.executor import Event, Executor, Job, Observer, prepare
from harness.workers.local import PATIENCE
from harness.workers.ray_nodes import check_installed, check_room, connect, examine, first_line, living, versions
from harness.workers.ray_worker import Movable, Order, new_post, remote_work

LOSSES = 3
"""Workers that a job may lose one after the other without getting any further; then it has failed."""
PROCESS_MEMORY = 2**29
"""Bytes that a worker takes beside what the plan counts: the libraries."""
POLL = 1.0
"""Seconds between looks at what nobody tells: nodes that come and go, folders that another process owns."""


class Cluster(Executor):
    """Jobs on a Ray cluster. Raises HarnessError, one sentence, where it cannot be reached or a node does not fit.

    address   HOST:PORT of the cluster's head, or "auto" for the one that this machine belongs to; "": Ray is started
              here and ends with `close`
    place     the results folder
    most      jobs at a time; None: as many as the nodes have room for
    gpus      GPUs of a job; None: one where the cluster has any
    shared    whether all nodes see `place`; None: it is found out
    """

    def __init__(
        self,
        address: str = "",
        place: Path = Path("runs"),
        threads: int = 1,
        *,
        most: int | None = None,
        gpus: int | None = None,
        shared: bool | None = None,
        prepare: Callable[[int, bool], None] = prepare,
    ) -> None:
        check_installed()
        self.threads, self.most, self.prepare = threads, most, prepare
        self.ours = connect(address)
        try:
            self.gpus = gpus if gpus is not None else int(any(node["Resources"].get("GPU") for node in living()))
            self._count()
            self.known = versions()
            sees = examine(self.known, place.absolute())
        except BaseException:
            self.close()
            raise
        self.stream = not (sees if shared is None else shared)
        self.send = remote_work()
        self.post: Any = None
        self._forget()

    def _forget(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.running: dict[Any, int] = {}  # reference of a task -> number of its job
        self.attempts: Counter[int] = Counter()
        self.heard: Counter[int] = Counter()
        self.losses: Counter[int] = Counter()
        self.furthest: Counter[int] = Counter()  # the last step that a job told
        self.where: dict[int, str] = {}
        self.waits: dict[int, bool] = {}
        self.held: list[int] = []
        """Jobs whose folder here belongs to another process."""

    # ------------------------------------------------------------------------------------------------- the interface

    def run(self, jobs: Sequence[Job], observe: Observer) -> list[Any]:
        from ray.exceptions import RayError

        for job in jobs if self.stream else ():
            if not isinstance(job, Movable):
                raise HarnessError(
                    f"{job.name} needs a results folder that every node sees, and not all do; name one with --out."
                )
        quiet()
        with noted() as self.signals:  # an exception inside one of Ray's calls is lost
            self.post = new_post()
            self.letters = self.post.take.remote(POLL)
            try:
                return super().run(jobs, observe)
            except Interrupted:
                self._end_post()
                for job in self.jobs.values():
                    getattr(job, "stopped", lambda: None)()
                raise
            except RayError as error:
                why = f"Ray broke off: {first_line(error)}; run it again: finished work is kept, the rest resumes."
                raise HarnessError(why) from error
            finally:
                self._end_post()
                self._forget()

    def start(self, number: int, job: Job, *, wait: bool) -> None:
        self.jobs[number], self.waits[number] = job, wait
        self.held.append(number)
        self._send_held(None)

    def attend(self, tell: Callable[[int, Event], None]) -> None:
        import ray

        if self.signals:
            raise Interrupted(self.signals[0])
        self._send_held(tell)
        ready, _ = ray.wait([self.letters, *self.running], num_returns=1, timeout=POLL)
        for reference in ready:
            if reference == self.letters:
                self._read_letters(tell)
            else:
                self._finished(reference, tell)

    def stop(self) -> None:
        """Every worker stores its job as interrupted; after `PATIENCE` seconds it is killed."""
        import ray

        for reference in self.running:
            ray.cancel(reference)
        left = list(self.running)
        if left:
            _, left = ray.wait(left, num_returns=len(left), timeout=PATIENCE)
        for reference in left:
            ray.cancel(reference, force=True)
        self.running.clear()

    def _end_post(self) -> None:
        import ray
        from ray.exceptions import RayError

        try:
            ray.get(self.post.end.remote())
            ray.kill(self.post)
        except RayError:
            pass  # it is gone or was ended before, and its locks with it

    def close(self) -> None:
        import ray

        if self.ours:
            ray.shutdown()
            self.ours = False

    # --------------------------------------------------------------------------------------------------- sending jobs

    def _send_held(self, tell: Callable[[int, Event], None] | None) -> None:
        """Sends what waits for its folder. Where another process owns that and nobody is to wait, it is told."""
        import ray

        held, self.held = self.held, []
        for number in held:
            job = self.jobs[number]
            if self.stream:
                folder = str(job.stores()[1].absolute())
                if not ray.get(self.post.begin.remote(number, self.attempts[number], folder)):
                    if tell is None or self.waits[number]:
                        self.held.append(number)
                    else:
                        tell(number, {"event": "elsewhere"})
                    continue
            self._send(number, job)

    def _send(self, number: int, job: Job) -> None:
        needs = {"num_cpus": self.threads, "num_gpus": self.gpus, "memory": self._memory(job)}
        if tuple(needs.values()) not in self.fitting:  # asking for the nodes takes longer than sending a job
            check_room(job.name, needs)
            self.fitting.add(tuple(needs.values()))
        order = Order(
            number,
            self.attempts[number],
            self.waits[number],
            self.stream,
            self.threads,
            trusted(),
            os.getcwd(),
            self.known,
            self.prepare,
        )
        self.heard[number] = 0
        self.running[self.send.options(**needs).remote(job, order, self.post)] = number

    def _memory(self, job: Job) -> int:
        """Bytes of the node's memory: on a GPU, what the plan counts is on the device."""
        planned = getattr(job, "memory", None)
        return PROCESS_MEMORY + (planned() if planned and not self.gpus else 0)

    # ------------------------------------------------------------------------------------------------ hearing of them

    def _read_letters(self, tell: Callable[[int, Event], None]) -> None:
        import ray

        letters, self.letters = ray.get(self.letters), self.post.take.remote(POLL)
        if not letters:
            self._count()
        for number, attempt, event in letters:
            if attempt != self.attempts[number] or number not in self.jobs:
                continue
            if event["event"] == "at":
                self.where[number] = event["node"]
                continue
            self.heard[number] += 1
            if event.get("step", 0) > self.furthest[number]:
                self.furthest[number], self.losses[number] = event["step"], 0
            tell(number, event)

    def _finished(self, reference: Any, tell: Callable[[int, Event], None]) -> None:
        """A task is over: all that it said is told before how it ended."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        number = self.running.pop(reference)
        try:
            said, event = ray.get(reference)
        except RayTaskError as error:  # nothing of a job itself: what it takes to begin one is missing there
            return self._ended(number, {"event": "lost", "reason": f"{self._at(number)}: {first_line(error)}"}, tell)
        except RayError as error:
            return self._lost(number, first_line(error), tell)
        while self.heard[number] < said:
            self._read_letters(tell)
        if event["event"] == "stopped":
            return self._lost(number, "it was told to stop", tell)
        if event["event"] == "error" and type(event["error"]) is StorageError:
            event["error"] = StorageError(f"On {self._at(number)}: {event['error']}")
        self._ended(number, event, tell)

    def _lost(self, number: int, reason: str, tell: Callable[[int, Event], None]) -> None:
        """Its worker is gone: again, elsewhere, unless it loses one after the other."""
        self.losses[number] += 1
        text = f"its worker on {self._at(number)} was lost ({reason})"
        if self.losses[number] >= LOSSES:
            return self._ended(number, {"event": "lost", "reason": text}, tell)
        self.attempts[number] += 1
        self.held.append(number)
        tell(number, {"event": "again", "reason": text})

    def _ended(self, number: int, event: Event, tell: Callable[[int, Event], None]) -> None:
        self.attempts[number] += 1  # a worker that was thought to be gone may still speak
        if self.stream:
            self.post.end.remote(number)
        if event["event"] == "end" and event["record"] is not None:
            del self.jobs[number]
        tell(number, event)

    def _at(self, number: int) -> str:
        return f"node {self.where.get(number, 'unknown')}"

    # ----------------------------------------------------------------------------------------------------- the nodes

    def _count(self) -> None:
        """Jobs that the nodes of now have room for."""
        self.fitting: set[tuple[float, ...]] = set()
        """Needs that some node can meet."""
        room = 0
        for node in living():
            has = node["Resources"]
            fits = int(has.get("CPU", 0) // self.threads)
            room += min(fits, int(has.get("GPU", 0) // self.gpus)) if self.gpus else fits
        self.slots = max(1, min(room, self.most) if self.most else room)
