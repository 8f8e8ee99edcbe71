"""Work as jobs of a Slurm cluster, sent with submitit: all that is asked for at once is one array job.

Each job of the array is one Python process. It gets the path of an order, a JSON file that says what is to be done, and
writes what happens as lines of JSON beside it, which the command reads. Both lie in the results folder, below `.slurm`:
every node has to see it, and only its owner may be able to write there, since an order says which code runs, and
submitit pickles what it sends (here a function of this module and a path).

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
import importlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, is_dataclass, replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from harness.contracts import HarnessError
from harness.machine.devices import CPU_CORE, DATASHEETS, GIB
from harness.machine.libraries import quiet
from harness.machine.stopping import Interrupted, noted, request_save, request_stop
from harness.machine.trust import trusted
from harness.planning.cost import needs_gpu
from harness.registry import TASKS, Made, made_task
from harness.settings.reading import explained, read_yaml_file
from harness.store import locks
from harness.store.atomic import StorageError, cannot_write, write_json
from harness.store.lines import as_lines, new_lines
from harness.store.record import digest
from harness.workers.executor import Event, Executor, Job, Observer, prepare, work
from harness.workers.local import PATIENCE
from harness.workers.ray import LOSSES
from harness.workers.ray_nodes import unlike, versions

FOLDER = ".slurm"
ARRAY = 1000
"""Jobs of one array, as many as Slurm takes where nobody has set another MaxArraySize."""
POLL, ASK = 1.0, 5.0
"""Seconds between looks at what workers tell, and between questions to Slurm."""
LATE = 10.0
"""Seconds until a file that another node has written can be seen here."""
SILENT = 600.0
"""Seconds that Slurm may be out of reach before the command ends. Its jobs go on."""

TIME_FACTOR, TIME_BESIDE = 3.0, 0.25
"""A job's time limit: the plan's hours so many times, and hours for loading."""
MEMORY_FACTOR, MEMORY_BESIDE = 1.5, 2 * GIB
"""A job's memory on a CPU: the plan's so many times, and the libraries."""
HOST_MEMORY = 8 * GIB
"""A job's memory beside a GPU, and twice what a checkpoint takes."""
UNPLANNED_HOURS, UNPLANNED_MEMORY = 12.0, 16 * GIB
"""Of work that has no plan."""
LEAST_NOTICE, MOST_NOTICE = 120, 3600
"""Seconds before its time limit at which a job is warned: three steps of its plan, within these."""

LIVE = frozenset(
    "PENDING CONFIGURING RUNNING COMPLETING SUSPENDED STOPPED SIGNALING STAGE_OUT RESIZING REQUEUED REQUEUE_FED "
    "REQUEUE_HOLD RESV_DEL_HOLD SPECIAL_EXIT".split()
)
"""States of a job that ends later, by squeue's names."""
OURS = frozenset({"array", "error", "open-mode", "output", "requeue", "signal", "time", "mem"})
"""Options of sbatch that are set here."""


# --------------------------------------------------------------------------------------------------- what jobs ask for


class Site(BaseModel):
    """What a cluster wants to know beside the plan: the file of `--slurm`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    partition: str = ""
    account: str = ""
    gpus: int | None = Field(None, ge=0)
    """Of a job; None: one where the plan is too large for a CPU."""
    gpu: Literal[tuple(DATASHEETS)] = "a100"  # type: ignore[valid-type]
    """The kind, by which the plan's hours are counted."""
    hours: float | None = Field(None, gt=0, le=8760, strict=False)
    """The time limit; None: by the plan."""
    memory_gib: float | None = Field(None, gt=0, le=2**20, strict=False)
    """None: by the plan."""
    options: dict[str, str | int | bool] = {}
    """Any others of sbatch, by their long names."""
    setup: list[str] = []
    """Lines of shell before the job, such as `module load cuda`."""

    @field_validator("options")
    @classmethod
    def _others(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
                raise ValueError(f"'{name}' is no long option of sbatch; write it without dashes before it")
            if name in OURS:
                raise ValueError(f"--{name} is set by the harness (hours and memory_gib say how much)")
        return options

    @field_validator("partition", "account", "setup")
    @classmethod
    def _one_line(cls, given: Any) -> Any:
        if any("\n" in line for line in ([given] if isinstance(given, str) else given)):
            raise ValueError("a line break; give one line an entry")
        return given


def read_site(path: str | Path) -> Site:
    """The file of `--slurm`; "": nothing is said. Raises HarnessError."""
    if not str(path):
        return Site()
    what = f"The file of --slurm, {path},"
    try:
        return Site.model_validate(read_yaml_file(Path(path), what) or {})
    except ValidationError as error:
        raise HarnessError(f"{what} is wrong at {explained(error)}.") from error


class Needs(NamedTuple):
    """What a job asks Slurm for."""

    minutes: int
    mib: int
    gpus: int
    notice: int
    """Seconds before the time limit at which it is warned."""


def needs(job: Job, site: Site) -> Needs:
    """By the job's plan where it has one, else by what the file says, else by `UNPLANNED_...`."""
    planned = getattr(job, "planned", lambda device: None)
    plan = planned(CPU_CORE)
    gpus = site.gpus if site.gpus is not None else int(plan is not None and needs_gpu([plan], CPU_CORE))
    if gpus and plan:
        plan = planned(DATASHEETS[site.gpu])
    hours, memory, step = UNPLANNED_HOURS, UNPLANNED_MEMORY, 0.0
    if plan:
        hours, step = plan.hours * TIME_FACTOR + TIME_BESIDE, plan.step_seconds
        memory = HOST_MEMORY + 2 * plan.checkpoints if gpus else plan.memory * MEMORY_FACTOR + MEMORY_BESIDE
    minutes = max(1, round((site.hours or hours) * 60))
    notice = min(max(LEAST_NOTICE, 3 * step), MOST_NOTICE, minutes * 30)
    return Needs(minutes, round(site.memory_gib * 1024 if site.memory_gib else memory / 2**20), gpus, round(notice))


def parameters(jobs: Sequence[Job], site: Site, threads: int, most: int | None) -> dict[str, Any]:
    """Of submitit's Slurm executor, for one array: the jobs of one array all get what the largest needs."""
    asked = Needs(*map(max, zip(*(needs(job, site) for job in jobs), strict=True)))
    numbers = [f"export {name}={threads}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")]
    options = {name: value for name, value in site.options.items() if value is not False}
    found = {
        "job_name": "dpg-harness",
        "partition": site.partition or None,
        "account": site.account or None,
        "time": asked.minutes,
        "mem": f"{asked.mib}MB",
        "cpus_per_task": threads,
        "gpus_per_node": asked.gpus or None,
        "signal_delay_s": asked.notice,
        "array_parallelism": most or len(jobs),
        "additional_parameters": {"requeue": True, **options},
        "setup": [*site.setup, *numbers],
        "srun_args": [f"--cpus-per-task={threads}"],  # srun does not take it from sbatch any more
        "stderr_to_stdout": True,
    }
    return {name: value for name, value in found.items() if value is not None}


def scripts(jobs: Sequence[Job], place: Path, site: Site, threads: int, most: int | None) -> list[str]:
    """What sbatch would be given for these jobs, one script an array. Nothing is written, and no Slurm is asked."""
    check_installed()
    import sys

    from submitit.slurm.slurm import _make_sbatch_string as script

    found = []
    for start in range(0, len(jobs), ARRAY):
        part = jobs[start : start + ARRAY]
        count = {"map_count": len(part)} if len(part) > 1 else {}
        logs = place.absolute() / FOLDER / "COMMAND" / "logs"
        command = f"{sys.executable} -u -m submitit.core._submit {logs}"
        found.append(script(command=command, folder=logs, **count, **parameters(part, site, threads, most)))
    return found


def check_installed() -> None:
    """Raises HarnessError where the extra is missing."""
    if find_spec("submitit") is None:
        raise HarnessError(
            "--executor slurm needs the package submitit; install it with `pip install 'dpg-harness[slurm]'`."
        )


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
        _append(self.folder / "sent.jsonl", as_lines(told))

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


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


@cache
def _versions() -> dict[str, str]:
    return versions()


# ------------------------------------------------------------------------------------------------- jobs as plain JSON


def name_of(thing: Any) -> str:
    """A class or function of a module, by its name."""
    return f"{thing.__module__}:{thing.__qualname__}"


def named(name: str) -> Any:
    """What `name_of` named."""
    module, _, inside = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in inside.split("."):
        found = getattr(found, part)
    return found


def encoded(job: Job) -> dict[str, Any]:
    """A job, a data class, as JSON can hold it."""
    return {"kind": name_of(type(job)), "data": _adapter(type(job)).dump_python(job, mode="json")}


def decoded(data: Mapping[str, Any]) -> Job:
    """The job that `encoded` gave."""
    kind = named(data["kind"])
    if not is_dataclass(kind) or not all(hasattr(kind, name) for name in ("settled", "run", "lost")):
        raise HarnessError(f"The order names {data['kind']}, which is no job.")
    return _adapter(kind).validate_python(data["data"])


def encoded_record(job: Job, record: Any) -> Any:
    """What the job's `run` returned, as JSON can hold it."""
    return _record_adapter(type(job)).dump_python(record, mode="json")


def decoded_record(job: Job, data: Any) -> Any:
    return _record_adapter(type(job)).validate_python(data)


@cache
def _adapter(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@cache
def _record_adapter(kind: type[Job]) -> TypeAdapter[Any]:
    """By what the job's `run` says that it returns."""
    return TypeAdapter(get_type_hints(kind.run).get("return", Any))


def made_data(made: Made) -> dict[str, Any]:
    """What a task of a file is made of, without keys that JSON cannot hold."""
    return asdict(made) | {"settings": [[list(key), value] for key, value in made.settings.items()]}


def made_from(data: Mapping[str, Any]) -> Made:
    return Made(**{**data, "settings": {tuple(key): value for key, value in data["settings"]}})


def key_of(job: Job) -> str:
    """Names a job, whichever command sends it: when that began says nothing of what is to be done."""
    return digest(encoded(replace(job, since="") if hasattr(job, "since") else job))  # type: ignore[type-var]


# ----------------------------------------------------------------------------------------------------------- the worker


def run_order(path: str) -> None:
    """All that one of Slurm's jobs does: the work of an order. What submitit pickles is this function and the path."""
    order, letters = json.loads(Path(path).read_text()), Path(path).with_suffix(".jsonl")
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    stepped = False

    def tell(event: Event) -> None:
        nonlocal stepped
        stepped = stepped or bool(event.get("step"))
        _append(letters, as_lines([event]))

    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, request_save)
    signal.signal(signal.SIGINT, request_stop)
    try:
        _append(letters, "\n")  # what was before it may have been cut
        tell({"event": "begin", "node": node})
        if wrong := unlike(order["known"], versions()):
            return tell(_as_letter({"event": "error", "error": HarnessError(f"Node {node} {wrong}.")}, node))
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        named(order["prepare"])(order["threads"], order["trust"])
        for made in order["made"]:
            made_task(made_from(made))
        job = decoded(order["job"])
        work(job, lambda event: tell(_as_letter(event, node, job)), wait=order["wait"])
    except Interrupted as stop:
        tell({"event": "stopped"})
        if stop.args == (signal.SIGUSR2,) and stepped:
            _requeue()


def _as_letter(event: Event, node: str, job: Job | None = None) -> Event:
    """An event as a line of JSON can hold it."""
    if event["event"] == "error":
        full = isinstance(event["error"], StorageError)
        return {"event": "error", "text": str(event["error"]), "full": full, "node": node}
    if event["event"] == "end" and job is not None:
        return event | {"record": encoded_record(job, event["record"])}
    return event


def _requeue() -> None:
    """Before its time limit, with a checkpoint stored: Slurm starts the job again. Where it will not, the command sends
    it anew."""
    if number := os.environ.get("SLURM_JOB_ID"):
        subprocess.run(["scontrol", "requeue", number], check=False, timeout=60)
