"""Work as jobs of a Slurm cluster, sent with submitit: all that is asked for at once is one array job.

Each job of the array is one Python process. It gets the path of an order, a JSON file that says what is to be done, and
writes what happens as lines of JSON beside it, which the command reads. Both lie in the results folder, below `.slurm`:
every node has to see it, and only its owner may be able to write there, since an order says which code runs, and
submitit pickles what it sends (here `run_order` and a path).

    <results>/.slurm/<command>/
        sent.jsonl             which of Slurm's jobs does which work
        <work>-<attempt>.json  an order, and .jsonl what its worker tells
        logs/                  submitit's own, with what workers print

A warning before the time limit or a preemption (USR2, TERM) ends a cell after its step, with a checkpoint; before a
time limit the job then requeues itself. What Slurm does not requeue is sent again by the command. A command that is
gone leaves its jobs at work; the next one on the same results folder finds them.
"""

from __future__ import annotations

import getpass
import re
import secrets
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from harness.contracts import HarnessError
from harness.machine.libraries import quiet
from harness.machine.stopping import Interrupted, noted
from harness.machine.trust import trusted
from harness.registry import TASKS
from harness.store import locks
from harness.store.atomic import StorageError, cannot_write, write_json
from harness.store.lines import as_lines, new_lines
from harness.workers.executor import Event, Executor, Job, Observer, prepare
from harness.workers.local import PATIENCE
from harness.workers.ray import LOSSES
from harness.workers.ray_nodes import versions
from harness.workers.slurm_site import ARRAY, FOLDER, Site, check_installed, parameters
from harness.workers.slurm_worker import append, decoded_record, encoded, key_of, made_data, name_of, run_order

POLL, ASK = 1.0, 5.0
"""Seconds between looks at what workers tell, and between questions to Slurm."""
LATE = 10.0
"""Seconds until a file that another node has written can be seen here."""
SILENT = 600.0
"""Seconds that Slurm may be out of reach before the command ends. Its jobs go on."""

LIVE = frozenset(
    "PENDING CONFIGURING RUNNING COMPLETING SUSPENDED STOPPED SIGNALING STAGE_OUT RESIZING REQUEUED REQUEUE_FED "
    "REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT".split()
)
"""States of a job that ends later, by squeue's names."""


# ----------------------------------------------------------------------------------------------------- Slurm's commands


class State(NamedTuple):
    """Of one of Slurm's jobs."""

    name: str
    node: str = ""
    why: str = ""


class Commands:
    """Slurm as its commands show it. Raises HarnessError where there are none."""

    def __init__(self) -> None:
        missing = [name for name in ("sbatch", "srun", "squeue", "scancel") if shutil.which(name) is None]
        if missing:
            raise HarnessError(
                f"--executor slurm needs Slurm's commands, and there is no {missing[0]} here; call it on a login node."
            )

    def send(self, logs: Path, orders: Sequence[Path], asked: Mapping[str, Any]) -> list[str]:
        """One array job, one order each; Slurm's numbers of them. Raises HarnessError where it is refused."""
        import submitit

        sender = submitit.SlurmExecutor(folder=logs)
        sender.update_parameters(**asked)
        return [job.job_id for job in sender.map_array(run_order, [str(order) for order in orders])]

    def states(self) -> dict[str, State] | None:
        """Number -> state of every job of this user that Slurm still knows; None where it cannot be asked."""
        options = ["--noheader", "--array", "--states=all", f"--user={getpass.getuser()}", "--format=%i|%T|%N|%r"]
        try:
            words = ["squeue", *options]
            lines = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
        except (OSError, subprocess.SubprocessError):
            return None
        found = (line.split("|", 3) for line in lines if line.count("|") >= 3)
        return {number: State(name, node, why) for number, name, node, why in found}

    def stop(self, numbers: Sequence[str]) -> None:
        """What waits is taken out; what runs is told to end, as by Ctrl-C."""
        self._cancel(["--state=PENDING"], numbers)
        self._cancel(["--signal=INT", "--state=RUNNING"], numbers)

    def end(self, numbers: Sequence[str]) -> None:
        """Whatever they do, they end."""
        self._cancel([], numbers)

    def _cancel(self, options: Sequence[str], numbers: Sequence[str]) -> None:
        for start in range(0, len(numbers), ARRAY):
            words = ["scancel", "--quiet", *options, *numbers[start : start + ARRAY]]
            subprocess.run(words, capture_output=True, check=False, timeout=60)


# --------------------------------------------------------------------------------------------------------- the executor


@dataclass
class Sent:
    """A piece of work that Slurm has."""

    key: str
    attempt: int
    slurm: str
    """Slurm's number of its job."""
    folder: Path
    """The command's that sent it."""
    read: int = 0
    """Bytes of what it told."""
    lives: int = 0
    """How often it began: Slurm may requeue a job."""
    node: str = ""
    gone: float = 0.0
    """Since when Slurm says that it has ended (monotonic seconds)."""

    @property
    def order(self) -> Path:
        return self.folder / f"{self.key}-{self.attempt}.json"

    @property
    def letters(self) -> Path:
        return self.order.with_suffix(".jsonl")

    @property
    def log(self) -> Path:
        return self.folder / "logs" / f"{self.slurm}_0_log.out"

    def news(self) -> Iterator[Event]:
        """What its worker has told since, whole lines alone."""
        values, self.read = new_lines(self.letters, self.read)
        yield from (event for event in values if isinstance(event, dict))


class Slurm(Executor):
    """Jobs of a Slurm cluster. Raises HarnessError, one sentence, for what is missing or wrong.

    place    the results folder, which every node sees
    threads  CPUs of a job
    most     jobs at a time; None: as many as Slurm runs
    site     what the cluster wants to know (`read_site`)
    """

    slots = 2**20
    """All at once: which runs when is Slurm's business."""
    announces = True

    def __init__(
        self,
        place: Path = Path("runs"),
        threads: int = 1,
        *,
        most: int | None = None,
        site: Site | None = None,
        commands: Any = None,
        prepare: Callable[[int, bool], None] = prepare,
    ) -> None:
        check_installed()
        self.place, self.threads, self.most = place.absolute(), threads, most
        self.site, self.prepare = site or Site(), prepare
        self.commands = commands or Commands()
        self._forget()

    def _forget(self) -> None:
        self.jobs: dict[int, Job] = {}
        self.waits: dict[int, bool] = {}
        self.held: list[int] = []
        """Jobs that are not sent yet."""
        self.running: dict[int, Sent] = {}
        self.begun: set[int] = set()
        self.attempts: Counter[int] = Counter()
        self.losses: Counter[int] = Counter()
        self.furthest: Counter[int] = Counter()
        self.folder: Path | None = None
        """This command's, once there is something to send."""
        self.found: dict[str, Sent] = {}
        """Live jobs of commands that are gone."""
        self.others: set[str] = set()
        """Work that another living command has sent."""
        self.searched = 0.0
        self.inherited: list[Path] = []
        """Folders of commands that are gone, with live jobs."""
        self.failed = False
        self.asked = 0.0
        self.answered = time.monotonic()

    # ------------------------------------------------------------------------------------------------- the interface

    def run(self, jobs: Sequence[Job], observe: Observer) -> list[Any]:
        quiet()
        with noted() as self.signals, ExitStack() as self.folders:
            try:
                return super().run(jobs, observe)
            finally:
                self._tidy()
                self._forget()

    def start(self, number: int, job: Job, *, wait: bool) -> None:
        self.jobs[number], self.waits[number] = job, wait
        self.held.append(number)

    def attend(self, tell: Callable[[int, Event], None]) -> None:
        if self.signals:
            raise Interrupted(self.signals[0])
        self._send_held(tell)
        heard = [self._hear(number, tell) for number in list(self.running)]
        if not any(heard):
            if time.monotonic() - self.asked >= ASK:
                self._look(tell)
            time.sleep(POLL)

    def stop(self) -> None:
        """Every worker stores its job as interrupted; after `PATIENCE` seconds it is killed."""
        left = {sent.slurm for sent in self.running.values()}
        until = time.monotonic() + PATIENCE
        while left and time.monotonic() < until:
            self.commands.stop(sorted(left))
            time.sleep(POLL)
            states = self.commands.states()
            left = left if states is None else {each for each in left if _lives(states.get(each))}
        if left:
            self.commands.end(sorted(left))
        self.running.clear()
        for job in self.jobs.values():
            getattr(job, "stopped", lambda: None)()

    # --------------------------------------------------------------------------------------------------- sending jobs

    def _send_held(self, tell: Callable[[int, Event], None]) -> None:
        """Sends what is held, as arrays; but for what another process has, and what a command that is gone has sent."""
        if not self.held:
            return
        if self.folder is None:
            self._open()
        held, self.held, sending = self.held, [], []
        for number in held:
            job = self.jobs[number]
            key = key_of(job)
            if sent := self.found.pop(key, None):
                self.running[number], self.attempts[number] = sent, sent.attempt
            elif key not in self.others and not _owned_elsewhere(job):
                sending.append((number, key))
            elif self.waits[number]:
                self.held.append(number)
            else:
                tell(number, {"event": "elsewhere"})
        if self.held and self.others and time.monotonic() - self.searched >= ASK:
            self.others = self._sent_by_others()
        for start in range(0, len(sending), ARRAY):
            self._send(sending[start : start + ARRAY])

    def _send(self, sending: Sequence[tuple[int, str]]) -> None:
        assert self.folder is not None
        pieces = [Sent(key, self.attempts[number], "", self.folder) for number, key in sending]
        jobs = [self.jobs[number] for number, _ in sending]
        common = {
            "made": [made_data(entry.made_of) for entry in TASKS.adopted() if entry.made_of],
            "threads": self.threads,
            "trust": trusted(),
            "known": _versions(),
            "prepare": name_of(self.prepare),
        }
        for (number, _), job, sent in zip(sending, jobs, pieces, strict=True):
            write_json(sent.order, {"job": encoded(job), "wait": self.waits[number], **common})
        asked = parameters(jobs, self.site, self.threads, self.most)
        try:
            numbers = self.commands.send(self.folder / "logs", [sent.order for sent in pieces], asked)
        except HarnessError:
            raise
        except Exception as error:  # submitit's own kinds, and what the system says
            if self.signals:  # a terminal sends Ctrl-C to sbatch, too
                raise Interrupted(self.signals[0]) from error
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            raise HarnessError(
                f"Slurm did not take the jobs: {(lines or [type(error).__name__])[0].removesuffix('.')}; partition, "
                "account, options, hours and memory can be set in the file of --slurm."
            ) from error
        for (number, _), sent, slurm in zip(sending, pieces, numbers, strict=True):
            sent.slurm = slurm
            self.running[number] = sent
        told = ({"key": sent.key, "attempt": sent.attempt, "slurm": sent.slurm} for sent in pieces)
        append(self.folder / "sent.jsonl", as_lines(told))

    def _open(self) -> None:
        """Makes this command's folder and finds what others have sent."""
        root = self.place / FOLDER
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder = root / secrets.token_hex(4)
            (self.folder / "logs").mkdir(parents=True)
        except OSError as error:
            raise cannot_write(root, error) from error
        self.folders.enter_context(locks.owned(self.folder, wait=False))
        self.others = self._sent_by_others()

    def _sent_by_others(self) -> set[str]:
        """Keys of live jobs that living commands have sent. Those of commands that are gone are `found`, and their
        folders removed where nothing lives."""
        self.searched, living = time.monotonic(), set()
        others = [each for each in sorted((self.place / FOLDER).iterdir()) if each.is_dir() and each != self.folder]
        states = self.commands.states() if others else {}
        if states is None:
            return self.others
        for folder in others:
            if folder in self.inherited:
                continue
            live = {sent.key: sent for sent in _sent(folder) if _lives(states.get(sent.slurm))}
            with ExitStack() as stack:
                if not stack.enter_context(locks.owned(folder, wait=False)):
                    living |= live.keys()
                elif live:
                    self.found |= live
                    self.inherited.append(folder)
                    self.folders.push(stack.pop_all())
                else:
                    shutil.rmtree(folder, ignore_errors=True)
        return living

    def _tidy(self) -> None:
        """Removes what nobody needs any more: all but the logs of what failed, and what still runs elsewhere."""
        if self.folder is None:
            return
        left = {sent.folder for sent in [*self.found.values(), *self.running.values()]}
        for folder in [self.folder, *self.inherited]:
            if not self.failed and folder not in left:
                shutil.rmtree(folder, ignore_errors=True)
        try:
            (self.place / FOLDER).rmdir()
        except OSError:
            pass  # others have something there

    # ------------------------------------------------------------------------------------------------ hearing of them

    def _hear(self, number: int, tell: Callable[[int, Event], None]) -> bool:
        """Tells what a job's worker has told since; whether there was something."""
        sent, heard = self.running[number], False
        for event in sent.news():
            heard = True
            if self._heard(number, sent, event, tell):
                break
        return heard

    def _heard(self, number: int, sent: Sent, event: Event, tell: Callable[[int, Event], None]) -> bool:
        """One event; whether it was the last."""
        kind = event.get("event")
        if kind == "begin":
            sent.node, sent.gone = str(event["node"]), 0.0
            sent.lives += 1
            if number not in self.begun:
                self.begun.add(number)
                tell(number, {"event": "start"})
            elif sent.lives > 1:
                tell(number, {"event": "again", "reason": f"its {self._at(sent)} was requeued by Slurm"})
            return False
        if kind == "stopped":
            return False  # whether its job comes again, Slurm says
        if kind == "error":
            text = event["text"]
            if event["full"]:
                raise StorageError(text if not event["node"] else f"On node {event['node']}: {text}")
            raise HarnessError(text)
        if kind == "elsewhere":
            self._ended(number, event, tell)
            return True
        if kind == "end":
            record = decoded_record(self.jobs[number], event["record"])
            self._ended(number, {"event": "end", "record": record}, tell)
            return True
        if event.get("step", 0) > self.furthest[number]:
            self.furthest[number], self.losses[number] = event["step"], 0
        tell(number, event)
        return False

    def _look(self, tell: Callable[[int, Event], None]) -> None:
        """Asks Slurm for the jobs that have ended without a word. Raises HarnessError where it does not answer for
        long."""
        self.asked = time.monotonic()
        states = self.commands.states()
        if states is None:
            if self.asked - self.answered > SILENT:
                raise HarnessError(
                    f"Slurm has not answered for {SILENT / 60:.0f} minutes; run it again when it does: its jobs go on."
                )
            return
        self.answered = self.asked
        for number, sent in list(self.running.items()):
            state = states.get(sent.slurm)
            if _lives(state):
                sent.gone = 0.0
                continue
            sent.gone = sent.gone or self.asked
            if self.asked - sent.gone >= LATE and not self._hear(number, tell):
                self._lost(number, sent, state or State("no longer known"), tell)

    def _lost(self, number: int, sent: Sent, state: State, tell: Callable[[int, Event], None]) -> None:
        """Its job is over without a result: again, unless it was cancelled or is lost time and again."""
        sent.node = sent.node or state.node
        text = f"its {self._at(sent)} ended without a result ({state.name}{_last_line(sent.log)})"
        self.losses[number] += 1
        if state.name.startswith("CANCELLED") or self.losses[number] >= LOSSES:
            self.failed = True
            return self._ended(number, {"event": "lost", "reason": text}, tell)
        del self.running[number]
        self.attempts[number] += 1
        self.held.append(number)
        tell(number, {"event": "again", "reason": text})

    def _ended(self, number: int, event: Event, tell: Callable[[int, Event], None]) -> None:
        del self.running[number]
        self.begun.discard(number)
        self.attempts[number] += 1
        tell(number, event)

    def _at(self, sent: Sent) -> str:
        return f"Slurm job {sent.slurm} on node {sent.node or 'unknown'}"


def _lives(state: State | None) -> bool:
    return state is not None and state.name in LIVE


def _sent(folder: Path) -> list[Sent]:
    """What a command has sent, the last attempt of each."""
    found = {}
    for known in new_lines(folder / "sent.jsonl", 0)[0]:
        try:
            found[known["key"]] = Sent(known["key"], known["attempt"], known["slurm"], folder)
        except (KeyError, TypeError):
            continue  # no line of ours
    return list(found.values())


def _owned_elsewhere(job: Job) -> bool:
    """Whether another process has the folder that the job stores in."""
    if not hasattr(job, "stores") or not (job.stores()[1] / locks.NAME).exists():
        return False
    with locks.owned(job.stores()[1], wait=False) as ours:
        return not ours


def _last_line(log: Path) -> str:
    """What a worker printed last, for a sentence."""
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    said = [line for line in lines if not re.match(r"submitit (INFO|WARNING)|srun: (?!error)", line)]
    return f": {said[-1][:200]}" if said else ""


@cache
def _versions() -> dict[str, str]:
    return versions()
