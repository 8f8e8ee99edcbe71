"""Work on the nodes of a Ray cluster, or of a Ray that is started on this machine for the command.

Ray places each job where its CPUs, GPU and memory are free. A job whose worker or node is gone starts again elsewhere
from its last checkpoint. Where every node sees the results folder, workers store there as on one machine. Where one
does not, workers store in a folder of their own node, and what a job stores comes back file by file while it runs, to
an actor on this machine, which owns the job's folder here and writes whole files alone. Ray's own ports are the only
ones. Without an address they listen on 127.0.0.1 alone, and there is no dashboard.

A cell may be shared by several processes, each with a GPU where there are any. They are a placement group, on one node
where one is large enough, and talk to one another as those of a launcher do (torch's ports). They are lost and stopped
together: where one of them ends otherwise than well, so do the others, and the cell goes on in new ones.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.contracts import HarnessError
from harness.machine.libraries import quiet
from harness.machine.stopping import Interrupted, noted
from harness.machine.trust import trusted
from harness.store.atomic import StorageError
from harness.workers.executor import Event, Executor, Job, Observer, prepare
from harness.workers.local import PATIENCE
from harness.workers.ray_nodes import (
    RESOURCE,
    check_installed,
    check_room,
    connect,
    examine,
    first_line,
    living,
    rooms,
    versions,
)
from harness.workers.ray_worker import Luggage, Movable, Order, luggage_of, new_post, remote_work

LOSSES = 3
"""Workers that a job may lose one after the other without getting any further; then it has failed."""
PROCESS_MEMORY = 2**29
"""Bytes that a worker takes beside what the plan counts: the libraries."""
POLL = 1.0
"""Seconds between looks at what nobody tells: nodes that come and go, folders that another process owns."""


@dataclass
class Group:
    """The processes that share a job."""

    place: Any
    """Their placement group."""
    running: dict[Any, int] = field(default_factory=dict)
    """Reference of a task -> its rank."""
    ends: dict[int, tuple[int, Event]] = field(default_factory=dict)
    """Rank -> how many events it told, and how it ended."""
    deadline: float | None = None
    """When those that are left are killed (monotonic seconds); None: none has ended before its time."""

    def outcome(self) -> tuple[int, int, Event]:
        """(rank, events that were told, how the job ended), when all have ended. The first decides where it came to an
        end; else the one whose end explains those of the others."""
        said, first = self.ends[0]
        if first["event"] in ("end", "elsewhere"):
            return 0, said, first
        for kind in ("error", "lost", "gone", "end", "stopped"):
            for rank, (_, event) in sorted(self.ends.items()):
                if event["event"] != kind or _is_done(event):
                    continue
                if kind == "end":  # the first one only knows that this one is gone
                    event = {"event": "lost", "reason": f"process {rank}: {event['record'].reason}"}
                return rank, said, event
        return 0, said, first


def _is_done(event: Event) -> bool:
    return event["event"] == "end" and event["record"].status != "failed"


class Cluster(Executor):
    """Jobs on a Ray cluster. Raises HarnessError, one sentence, where it cannot be reached or a node does not fit.

    address   HOST:PORT of the cluster's head, or "auto" for the one that this machine belongs to; "": Ray is started
              here and ends with `close`
    place     the results folder
    most      jobs at a time; None: as many as the nodes have room for
    gpus      GPUs of a process; None: one where the cluster has any
    ranks     processes of a job that several can share (a cell)
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
        ranks: int = 1,
        shared: bool | None = None,
        prepare: Callable[[int, bool], None] = prepare,
    ) -> None:
        check_installed()
        self.threads, self.most, self.ranks, self.prepare = threads, most, ranks, prepare
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
        self.send = remote_work(fresh=bool(self.gpus) or ranks > 1)
        self.post: Any = None
        self._forget()

    def _forget(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.running: dict[Any, int] = {}  # reference of a task -> number of its job
        self.attempts: Counter[int] = Counter()
        self.heard: Counter[int] = Counter()
        self.losses: Counter[int] = Counter()
        self.furthest: Counter[int] = Counter()  # the last step that a job told
        self.where: dict[tuple[int, int], str] = {}  # (job, rank) -> node
        self.groups: dict[int, Group] = {}
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
        self._end_late()
        ready, _ = ray.wait([self.letters, *self.running], num_returns=1, timeout=POLL)
        for reference in ready:
            if reference == self.letters:
                self._read_letters(tell)
            else:
                self._finished(reference, tell)

    def stop(self) -> None:
        """Every worker stores its job as interrupted; after `PATIENCE` seconds it is killed."""
        import ray

        self._stop_workers(self.running)
        left = list(self.running)
        if left:
            _, left = ray.wait(left, num_returns=len(left), timeout=PATIENCE)
        self._stop_workers(left, force=True)
        for number in list(self.groups):
            self._dissolve(number)
        self.running.clear()

    def _stop_workers(self, references: Iterable[Any], *, force: bool = False) -> None:
        import ray

        for reference in references:
            ray.cancel(reference, force=force)

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
            job, luggage = self.jobs[number], None
            if self.stream:
                luggage = luggage_of(number, self.attempts[number], job)
                if not ray.get(self.post.begin.remote(luggage)):
                    if tell is None or self.waits[number]:
                        self.held.append(number)
                    else:
                        tell(number, {"event": "elsewhere"})
                    continue
            self._send(number, job, luggage)

    def _send(self, number: int, job: Job, luggage: Luggage | None) -> None:
        ranks = self.ranks if hasattr(job, "together") else 1
        needs = {"num_cpus": self.threads, "num_gpus": self.gpus, "memory": self._memory(job)}
        asked = (ranks, *needs.values())
        if asked not in self.fitting:  # asking for the nodes takes longer than sending a job
            self.fitting[asked] = check_room(job.name, needs, ranks)
        order = Order(
            number,
            self.attempts[number],
            self.waits[number],
            luggage,
            self.threads,
            trusted(),
            os.getcwd(),
            self.known,
            self.prepare,
            ranks,
        )
        self.heard[number] = 0
        if ranks == 1:
            self.running[self.send.options(**needs).remote(job, order, self.post)] = number
        else:
            self._send_group(job, order, needs, one_node=self.fitting[asked])

    def _send_group(self, job: Job, order: Order, needs: dict[str, float], *, one_node: bool) -> None:
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        bundle = {RESOURCE[key]: need for key, need in needs.items() if need}
        place = placement_group([bundle] * order.ranks, strategy="STRICT_PACK" if one_node else "PACK")
        group = self.groups[order.number] = Group(place)
        for rank in range(order.ranks):
            there = PlacementGroupSchedulingStrategy(place, placement_group_bundle_index=rank)
            send = self.send.options(**needs, scheduling_strategy=there)
            reference = send.remote(job, order, self.post, rank)
            group.running[reference], self.running[reference] = rank, order.number

    def _dissolve(self, number: int) -> None:
        """Gives back what a group's processes had; those that still run are killed."""
        from ray.util.placement_group import remove_placement_group

        remove_placement_group(self.groups.pop(number).place)

    def _end_late(self) -> None:
        """Kills processes whose group has broken up, and that have not ended since."""
        for group in self.groups.values():
            if group.deadline is not None and time.monotonic() > group.deadline:
                self._stop_workers(group.running, force=True)

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
                self.where[number, event["rank"]] = event["node"]
                continue
            self.heard[number] += 1
            if event.get("step", 0) > self.furthest[number]:
                self.furthest[number], self.losses[number] = event["step"], 0
            tell(number, event)

    def _finished(self, reference: Any, tell: Callable[[int, Event], None]) -> None:
        """A task is over: all that it said is told before how it ended."""
        number = self.running.pop(reference)
        rank, (said, event) = 0, self._result(reference)
        if group := self.groups.get(number):
            group.ends[group.running.pop(reference)] = said, event
            if group.running:
                if group.deadline is None and not (_is_done(event) and 0 not in group.ends):
                    group.deadline = time.monotonic() + PATIENCE
                    if not _is_done(event):
                        self._stop_workers(group.running)
                return
            rank, said, event = group.outcome()
            self._dissolve(number)
        while self.heard[number] < said:
            self._read_letters(tell)
        kind = event["event"]
        if kind in ("gone", "stopped"):
            return self._lost(number, rank, event.get("reason", "it was told to stop"), tell)
        if kind == "lost":
            event = {"event": "lost", "reason": f"{self._at(number, rank)}: {event['reason']}"}
        if kind == "error" and type(event["error"]) is StorageError:
            event["error"] = StorageError(f"On {self._at(number, rank)}: {event['error']}")
        self._ended(number, event, tell)

    def _result(self, reference: Any) -> tuple[int, Event]:
        """How many events a task told, and how it ended; of one that did not come to an end itself:

        lost      nothing of the job: what it takes to begin one is missing there
        gone      its process or node is
        stopped   it was told to, which is the same to Ray whether it did or was killed"""
        import ray
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        try:
            return ray.get(reference)
        except TaskCancelledError:
            return 0, {"event": "stopped"}
        except RayTaskError as error:
            return 0, {"event": "lost", "reason": first_line(error)}
        except RayError as error:
            return 0, {"event": "gone", "reason": first_line(error)}

    def _lost(self, number: int, rank: int, reason: str, tell: Callable[[int, Event], None]) -> None:
        """Its worker is gone: again, elsewhere, unless it loses one after the other."""
        self.losses[number] += 1
        text = f"its worker on {self._at(number, rank)} was lost ({reason})"
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

    def _at(self, number: int, rank: int) -> str:
        return f"node {self.where.get((number, rank), 'unknown')}"

    # ----------------------------------------------------------------------------------------------------- the nodes

    def _count(self) -> None:
        """Jobs that the nodes of now have room for."""
        self.fitting: dict[tuple[float, ...], bool] = {}
        """(processes, needs of each) that the nodes can meet -> whether one of them can."""
        each = rooms({"num_cpus": self.threads, "num_gpus": self.gpus})
        room = sum(fits // self.ranks for fits in each) or sum(each) // self.ranks
        self.slots = max(1, min(room, self.most) if self.most else room)
