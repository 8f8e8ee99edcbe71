"""Work on the nodes of a Ray cluster, or of a Ray that is started on this machine for the command.

Ray places each job where its CPUs, GPU and memory are free. A job whose worker or node is gone starts again elsewhere
from its last checkpoint. Where every node sees the results folder, workers store there as on one machine. Where one
does not, workers store in a folder of their own node, and what a job stores comes back file by file while it runs, to
an actor on this machine, which owns the job's folder here and writes whole files alone. Ray's own ports are the only
ones. Without an address they listen on 127.0.0.1 alone, and there is no dashboard.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from harness.contracts import HarnessError
from harness.machine.libraries import quiet
from harness.machine.stopping import Interrupted, ParentGone, noted, stoppable
from harness.machine.trust import trusted
from harness.store import locks
from harness.store.atomic import StorageError, cannot_write, write_atomic
from harness.store.provenance import PACKAGES
from harness.workers.executor import Event, Executor, Job, Observer, Tell, prepare, work
from harness.workers.local import PATIENCE

LOSSES = 3
"""Workers that a job may lose one after the other without getting any further; then it has failed."""
PIECE = 2**25
"""Bytes of a file that travel at a time."""
PROCESS_MEMORY = 2**29
"""Bytes that a worker takes beside what the plan counts: the libraries."""
ANSWER, CONNECT = 180, 5
"""Seconds that a node has to say what it is, and an address to take a connection."""
POLL = 1.0
"""Seconds between looks at what nobody tells: nodes that come and go, folders that another process owns."""
PLACE = ".place"
"""The file in a results folder by which a node shows that it sees the same one."""
SCRATCH = "dpg-ray-"


@runtime_checkable
class Movable(Protocol):
    """A job that can run without the results folder: all it reads and stores there is in one folder of its own."""

    def stores(self) -> tuple[Path, Path]:
        """(results folder, the job's own folder in it)."""

    def at(self, root: Path) -> Job:
        """The same job with another results folder."""


@dataclass(frozen=True)
class Order:
    """What a worker is sent beside the job."""

    number: int
    attempt: int
    """How often the job was sent before. What an earlier attempt still says is not heard."""
    wait: bool
    stream: bool
    threads: int
    trust: bool
    folder: str
    """The working directory of the command: paths in settings may be relative to it."""
    known: Mapping[str, str]
    """What this machine runs: package -> version, and the harness's own code."""
    prepare: Callable[[int, bool], None]


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
        self.ours = _connect(address)
        try:
            self.gpus = gpus if gpus is not None else int(any(node["Resources"].get("GPU") for node in _nodes()))
            self._count()
            self.known = versions()
            sees = self._examine(place.absolute())
        except BaseException:
            self.close()
            raise
        self.stream = not (sees if shared is None else shared)
        self.send = _remote_work()
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
            self.post = _new_post()
            self.letters = self.post.take.remote(POLL)
            try:
                return super().run(jobs, observe)
            except Interrupted:
                self._end_post()
                for job in self.jobs.values():
                    getattr(job, "stopped", lambda: None)()
                raise
            except RayError as error:
                why = f"Ray broke off: {_first_line(error)}; run it again: finished work is kept, the rest resumes."
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
            _check_room(job.name, needs)
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
            return self._ended(number, {"event": "lost", "reason": f"{self._at(number)}: {_first_line(error)}"}, tell)
        except RayError as error:
            return self._lost(number, _first_line(error), tell)
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
        for node in _nodes():
            has = node["Resources"]
            fits = int(has.get("CPU", 0) // self.threads)
            room += min(fits, int(has.get("GPU", 0) // self.gpus)) if self.gpus else fits
        self.slots = max(1, min(room, self.most) if self.most else room)

    def _examine(self, place: Path) -> bool:
        """Whether every node sees the results folder. Raises HarnessError for one that runs other code."""
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        label, look = _label(place), _remote_look()
        asked = {}
        for node in _nodes():
            on = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[look.options(scheduling_strategy=on).remote(str(place / PLACE))] = _name(node)
        ready, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER)
        if late:
            raise HarnessError(
                f"Node {asked[late[0]]} did not answer within {ANSWER} s; restart Ray there, or take it out."
            )
        sees = []
        for reference in ready:
            found, seen = ray.get(reference)
            if wrong := unlike(self.known, found):
                raise HarnessError(f"Node {asked[reference]} {wrong}.")
            sees.append(seen == label)
        return all(sees)


def check_installed() -> None:
    """Raises HarnessError where the extra is missing."""
    if find_spec("ray") is None:
        raise HarnessError("--executor ray needs the package ray; install it with `pip install 'dpg-harness[ray]'`.")


# ------------------------------------------------------------------------------------------------------------ the nodes


def _connect(address: str) -> bool:
    """Joins the cluster at the address, or starts a Ray of one node; whether it was done here. Raises HarnessError."""
    if not address:
        # On 127.0.0.1 alone; Ray reads this when it is imported, and hands it on to what it starts.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray would put them behind all else on the machine
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        return False
    options: dict[str, Any] = {"include_dashboard": False, "object_store_memory": 2**28}
    if address:
        _check_address(address)
        options = {"address": address}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(log_to_driver=False, logging_level="ERROR", **({"address": "local"} | options))
    except Exception as error:  # Ray raises plain ones, too: "timed out during startup"
        raise HarnessError(
            f"Ray at {address or 'this machine'} cannot be used: {_first_line(error)}; run the command on a machine of "
            "the cluster, with its versions of Python and Ray."
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)  # Ray sets one of its own
    return True


def _check_address(address: str) -> None:
    """Raises HarnessError for an address that is none, or that nobody listens at; Ray would try for minutes."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not colon or not port.isdecimal():
        raise HarnessError(f"--address takes HOST:PORT of a Ray cluster's head, or auto, not '{address}'.")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT).close()
    except (OSError, OverflowError) as error:
        raise HarnessError(
            f"No Ray cluster answers at {address} ({error}); see that it runs and that the port can be reached."
        ) from error


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def _name(node: Mapping[str, Any]) -> str:
    """Several nodes can be on one machine."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']}, {node['NodeID'][:6]})"


def _check_room(name: str, needs: Mapping[str, float]) -> None:
    """Raises HarnessError where no node, were it empty, could take the job: Ray would wait for one for ever."""
    what = {"num_cpus": "CPU", "num_gpus": "GPU", "memory": "memory"}
    nodes = _nodes()
    if any(all(node["Resources"].get(what[key], 0) >= need for key, need in needs.items()) for node in nodes):
        return
    offers = []
    for node in nodes:
        has = node["Resources"]
        memory = has.get("memory", 0) / 2**30
        offers.append(f"{_name(node)} has {has.get('CPU', 0):g}, {has.get('GPU', 0):g} and {memory:.1f} GiB")
    raise HarnessError(
        f"No node of the cluster has room for {name}, which needs {needs['num_cpus']:g} CPUs, {needs['num_gpus']:g} "
        f"GPUs and {needs['memory'] / 2**30:.1f} GiB of memory: {'; '.join(offers)}."
    )


def _label(place: Path) -> str:
    """A text by which a results folder is known, wherever it is seen from; made where it is missing."""
    path = place / PLACE
    if not path.exists():
        write_atomic(path, secrets.token_hex(16))
    return path.read_text()


def versions() -> dict[str, str]:
    """Package -> version of what decides numbers, and a digest of the harness's own code."""
    return _look("")[0]


def unlike(here: Mapping[str, str], there: Mapping[str, str]) -> str:
    """What a node lacks or has otherwise, as the end of a sentence; "" where nothing."""
    if "harness" not in there:
        return "does not have this harness installed; install it there as here"
    for name, version in here.items():
        found = there.get(name)
        if name == "harness" and found != version:
            return "has another version of this harness's code; bring it to the same commit"
        if found != version:
            return f"has {name} {found or 'not at all'}, and this machine {version}; install the same versions there"
    return ""


def _look(path: str) -> tuple[dict[str, str], str]:
    """What this machine has, and the content of a file; "" where it cannot be read. It travels to nodes by its code and
    has to run where the harness is missing."""
    import hashlib

    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    spec = find_spec("harness")
    if spec and spec.origin:
        root, digest = Path(spec.origin).parents[1], hashlib.sha256()
        for package in ("harness", "rewards", "tasks"):
            for file in sorted((root / package).rglob("*.py")):
                digest.update(str(file.relative_to(root)).encode() + file.read_bytes())
        found["harness"] = digest.hexdigest()
    try:
        return found, Path(path).read_text() if path else ""
    except OSError:
        return found, ""


def _remote_look() -> Any:
    """`_look` as a task that needs nothing: Ray sends functions of the main module by their code."""
    import types

    import ray

    by_code = {name: globals()[name] for name in ("PACKAGES", "metadata", "find_spec", "Path")}
    look = types.FunctionType(_look.__code__, by_code | {"__name__": "__main__"}, "_look")
    look.__module__ = "__main__"
    return ray.remote(num_cpus=0, max_retries=0)(look)


def _first_line(error: BaseException) -> str:
    """What Ray says, without its advice; of an error in a task, the last line of its traceback."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip() for line in str(error).splitlines()]
    if _is_task(error):
        return next((line for line in reversed(lines) if line), type(error).__name__)
    return next((line for line in lines if line), type(error).__name__).partition(". ")[0].rstrip(".")


def _is_task(error: BaseException) -> bool:
    """Whether its text is a traceback, whose last line says what it was."""
    return type(error).__name__.startswith("RayTaskError")


# ------------------------------------------------------------------------------------------------------------ the post


class Post:
    """An actor on the command's machine: takes what workers say, and owns the folders of jobs that store elsewhere."""

    def __init__(self) -> None:
        self.letters: list[tuple[int, int, Event]] = []
        self.came = asyncio.Event()
        self.folders: dict[int, tuple[int, Path]] = {}  # job -> (attempt, its folder here)
        self.owned: dict[int, ExitStack] = {}

    async def tell(self, number: int, attempt: int, event: Event) -> None:
        self.letters.append((number, attempt, event))
        self.came.set()

    async def take(self, seconds: float) -> list[tuple[int, int, Event]]:
        """What was told since; waits for it so long."""
        if not self.letters:
            try:
                await asyncio.wait_for(self.came.wait(), seconds)
            except TimeoutError:
                pass
        letters, self.letters = self.letters, []
        self.came.clear()
        return letters

    async def begin(self, number: int, attempt: int, folder: str) -> bool:
        """From now on this attempt stores in the folder. False: another process owns it."""
        if number not in self.owned:
            stack = ExitStack()
            if not stack.enter_context(locks.owned(Path(folder), wait=False)):
                return False
            self.owned[number] = stack
        locks.sweep(Path(folder))  # what a worker had half sent
        self.folders[number] = attempt, Path(folder)
        return True

    async def end(self, number: int | None = None) -> None:
        """The job's folder is free; None: all are."""
        for each in list(self.owned) if number is None else [number]:
            self.folders.pop(each, None)
            if stack := self.owned.pop(each, None):
                stack.close()

    async def files(self, number: int, attempt: int) -> dict[str, int]:
        """File of the job's folder -> bytes. Raises StaleError where the attempt is not the last."""
        return {name: path.stat().st_size for name, path in stored(self._folder(number, attempt)).items()}

    async def read(self, number: int, attempt: int, name: str, start: int) -> bytes:
        with inside(self._folder(number, attempt), name).open("rb") as file:
            file.seek(start)
            return file.read(PIECE)

    async def write(self, number: int, attempt: int, name: str, start: int, piece: bytes, last: bool) -> None:
        """One piece of a file. It takes its name with the last one, when all of it is on the disk."""
        path = inside(self._folder(number, attempt), name)
        temporary = path.with_name(f".{path.name}.{attempt}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("r+b" if start else "wb") as file:
                file.seek(start)
                file.write(piece)
                if last:
                    file.flush()
                    os.fsync(file.fileno())
            if last:
                os.replace(temporary, path)
        except OSError as error:
            raise cannot_write(path, error) from error

    async def remove(self, number: int, attempt: int, names: Sequence[str]) -> None:
        for name in names:
            inside(self._folder(number, attempt), name).unlink(missing_ok=True)

    def _folder(self, number: int, attempt: int) -> Path:
        current, folder = self.folders.get(number, (None, None))
        if folder is None or current != attempt:
            raise StaleError(f"attempt {attempt} of job {number} is over")
        return folder


class HomeStorageError(StorageError):
    """The command's machine cannot store any more, not the node."""


class StaleError(Exception):
    """Another worker has the job now."""


def _new_post() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here, max_restarts=0)(Post).remote()


def stored(folder: Path) -> dict[str, Path]:
    """Name below the folder -> file, without locks and what is being written."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        name = path.relative_to(folder)
        if not any(part.startswith(".") for part in name.parts) and path.is_file() and not path.is_symlink():
            found[name.as_posix()] = path
    return found


def inside(folder: Path, name: str) -> Path:
    """The file of that name. Raises ValueError for one that would lie elsewhere."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or any(part.startswith(".") for part in parts):
        raise ValueError(f"{name!r} is no file of a cell")
    return folder.joinpath(*parts)


# ----------------------------------------------------------------------------------------------------------- the worker


def _remote_work() -> Any:
    import ray

    return ray.remote(max_retries=0)(_work)


def _work(job: Job, order: Order, post: Any) -> tuple[int, Event]:
    """All that a node does with a job: (how many events it told, the last one)."""
    told, final = 0, {"event": "stopped"}

    def tell(event: Event) -> None:
        nonlocal told, final
        if event["event"] in ("end", "elsewhere", "error"):
            final = event
        else:
            told += 1
            _asked(post.tell.remote(order.number, order.attempt, event))

    import ray

    here = ray.get_runtime_context().get_node_id()
    node = f"{socket.gethostname()} ({ray.util.get_node_ip_address()}, {here[:6]})"
    post.tell.remote(order.number, order.attempt, {"event": "at", "node": node})
    if wrong := _unfit(order):
        return told, {"event": "error", "error": HarnessError(f"Node {node} {wrong}.")}
    if os.path.isdir(order.folder):
        os.chdir(order.folder)
    try:
        with stoppable():
            if order.stream:
                with _moved(job, order, post, tell) as (moved, mirrored):
                    work(moved, mirrored, wait=True)
            else:
                work(job, tell, wait=order.wait)
    except Interrupted:
        pass
    except HarnessError as error:  # of sending files: the disk there or here
        final = {"event": "error", "error": error}
    return told, final


_fit: dict[str, bool] = {}
"""Whether this process was looked at. Written by `_unfit` alone."""


def _unfit(order: Order) -> str:
    """What this node has otherwise than the command's machine; it may have come after the others were asked. The first
    time the process is made ready, too."""
    if not _fit:
        if wrong := unlike(order.known, versions()):
            return wrong
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        order.prepare(order.threads, order.trust)
        _fit["looked"] = True
    return ""


def _asked(reference: Any) -> Any:
    """The answer of the post. Raises ParentGone where it is gone or has given the job to another."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, StorageError):
            raise HomeStorageError(str(error.cause)) from error
        raise ParentGone from error
    except RayError as error:
        raise ParentGone from error
    except SystemError as error:  # what Ray makes of a signal's exception
        if isinstance(error.__cause__, Interrupted):
            raise error.__cause__ from error
        raise


@contextmanager
def _moved(job: Movable, order: Order, post: Any, tell: Tell) -> Iterator[tuple[Job, Tell]]:
    """The job as it runs in a folder of this node, with what is stored of it, and a `tell` that first sends back what
    has changed. Between events changes are looked for twice a second, so that checkpoints travel while the next step
    is at work."""
    root, folder = job.stores()
    hidden = _scratch_folder()
    scratch = hidden.with_name(hidden.name.removeprefix("."))
    try:
        with locks.owned(hidden, wait=False):  # before it has the name that is swept
            hidden.rename(scratch)
            own = scratch / "runs"
            mirror = Mirror(own / folder.relative_to(root), order, post)
            mirror.fetch()
            ended = threading.Event()
            sender = threading.Thread(target=mirror.watch, args=(ended,), daemon=True)
            sender.start()

            def mirrored(event: Event) -> None:
                if event["event"] in ("end", "elsewhere", "error"):
                    ended.set()
                mirror.send()
                tell(event)

            try:
                yield job.at(own), mirrored
            finally:
                ended.set()
                sender.join()
                mirror.send()
    finally:
        for each in (scratch, hidden):
            shutil.rmtree(each, ignore_errors=True)


def _scratch_folder() -> Path:
    """A new folder of this worker's. Raises StorageError where the node has no room for one."""
    try:
        _sweep_scratch()
        return Path(tempfile.mkdtemp(prefix=f".{SCRATCH}"))
    except OSError as error:  # Python finds no temporary folder at all where a disk is full
        place, why = os.environ.get("TMPDIR", "/tmp"), error.strerror or error
        raise StorageError(
            f"Cannot write {place}: {why}; make room there, or start Ray there with another TMPDIR, and run it again: "
            "finished cells are kept, interrupted ones resume."
        ) from error


def _sweep_scratch() -> None:
    """Removes folders of workers that were killed on this machine."""
    for old in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        try:
            with locks.owned(old, wait=False) as ours:
                if ours:
                    shutil.rmtree(old, ignore_errors=True)
        except StorageError:
            continue  # another worker is removing it, or it is another user's


class Mirror:
    """A job's folder on this node, and what of it the post has."""

    def __init__(self, folder: Path, order: Order, post: Any) -> None:
        self.folder, self.post, self.key = folder, post, (order.number, order.attempt)
        self.sent: dict[str, tuple[int, int]] = {}
        self.turn = threading.Lock()

    def fetch(self) -> None:
        """What was stored of the job before, checkpoints included."""
        for name, size in _asked(self.post.files.remote(*self.key)).items():
            path = inside(self.folder, name)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    for start in range(0, size, PIECE):
                        file.write(_asked(self.post.read.remote(*self.key, name, start)))
            except OSError as error:
                raise cannot_write(path, error) from error
            self.sent[name] = _state(path)

    def watch(self, ended: threading.Event) -> None:
        """Sends what changes until it is over. What cannot be sent is met again by the next event's own try."""
        while not ended.wait(0.5):
            try:
                self.send()
            except (HarnessError, Interrupted):
                return

    def send(self) -> None:
        """What has changed, a checkpoint after what it counts on, the record last; then what is gone is removed."""
        with self.turn:
            files = stored(self.folder)
            for name in sorted(files, key=lambda name: (name == "cell.json", name.startswith("checkpoints/"), name)):
                self._send_file(name, files[name])
            if gone := [name for name in self.sent if name not in files]:
                _asked(self.post.remove.remote(*self.key, gone))
                for name in gone:
                    del self.sent[name]

    def _send_file(self, name: str, path: Path) -> None:
        try:
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                state = found.st_mtime_ns, found.st_size
                if self.sent.get(name) == state:
                    return
                start = 0
                while True:
                    piece = file.read(PIECE)
                    last = start + len(piece) >= found.st_size
                    _asked(self.post.write.remote(*self.key, name, start, piece, last))
                    start += len(piece)
                    if last:
                        break
        except FileNotFoundError:
            return  # removed since, as old checkpoints are
        self.sent[name] = state


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
