"""What a node of a Ray cluster does with a job, and what comes back of it: the post on the command's machine, which
takes what workers say and owns the folders of jobs that store elsewhere, and the mirror on the node.

A cell that several processes share is as many tasks. Each finds the first one through the post, joins its process
group and does a rank's part of the job, as under a launcher: the first tells and stores, the others store in a scratch
folder.
"""

from __future__ import annotations

import asyncio
import glob
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from harness.contracts import HarnessError
from harness.machine import processes
from harness.machine.stopping import Interrupted, ParentGone, PeerLost, stoppable
from harness.store import locks
from harness.store.atomic import StorageError, cannot_write
from harness.workers.executor import Event, Job, Tell, work
from harness.workers.launcher import SharedJob
from harness.workers.ray_nodes import unlike, versions

PIECE = 2**25
"""Bytes of a file that travel at a time."""
SCRATCH = "dpg-ray-"
LAST = ("cell.json", "config.json")
"""Files of a job's folder that say of a cell how far it is, of a model that it is there."""


@runtime_checkable
class Movable(Protocol):
    """A job that can run without the results folder: all it stores there is in one folder. That is its own, but for a
    job with a method `prefix`: others store there too, and the names of its files begin so. What it reads that others
    have stored is what a method `reads` says: name below the new results folder -> folder here."""

    def stores(self) -> tuple[Path, Path]:
        """(results folder, the job's own folder in it)."""

    def at(self, root: Path) -> Job:
        """The same job with another results folder."""


@dataclass(frozen=True)
class Luggage:
    """The files of a job that stores elsewhere (`Movable`), by where they lie on the command's machine."""

    number: int
    attempt: int
    folder: Path
    within: str
    """The folder below the results folder."""
    prefix: str = ""
    reads: Mapping[str, Path] = field(default_factory=dict)


def luggage_of(number: int, attempt: int, job: Movable) -> Luggage:
    root, folder = job.stores()
    prefix, reads = getattr(job, "prefix", str)(), getattr(job, "reads", dict)()
    within = folder.relative_to(root).as_posix()
    found = {name: path.absolute() for name, path in reads.items()}
    return Luggage(number, attempt, folder.absolute(), within, prefix, found)


@dataclass(frozen=True)
class Order:
    """What a worker is sent beside the job."""

    number: int
    attempt: int
    """How often the job was sent before. What an earlier attempt still says is not heard."""
    wait: bool
    luggage: Luggage | None
    """None: the node sees the results folder."""
    threads: int
    trust: bool
    folder: str
    """The working directory of the command: paths in settings may be relative to it."""
    known: Mapping[str, str]
    """What this machine runs: package -> version, and the harness's own code."""
    prepare: Callable[[int, bool], None]
    ranks: int = 1
    """Processes that share the job."""


# ------------------------------------------------------------------------------------------------------------ the post


class Post:
    """An actor on the command's machine: takes what workers say, and owns the folders of jobs that store elsewhere."""

    def __init__(self) -> None:
        self.letters: list[tuple[int, int, Event]] = []
        self.came = asyncio.Event()
        self.folders: dict[int, Luggage] = {}
        self.owned: dict[int, ExitStack] = {}
        self.hosts: dict[tuple[int, int], asyncio.Future[str]] = {}

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

    async def host(self, number: int, attempt: int, address: str) -> None:
        """The job's first process waits for the others at HOST:PORT; "": it does not, another command has the job."""
        self._host(number, attempt).set_result(address)

    async def hosted(self, number: int, attempt: int) -> str:
        """What the job's first process said; waits for it."""
        return await asyncio.shield(self._host(number, attempt))

    def _host(self, number: int, attempt: int) -> asyncio.Future[str]:
        return self.hosts.setdefault((number, attempt), asyncio.get_running_loop().create_future())

    async def begin(self, luggage: Luggage) -> bool:
        """From now on this attempt stores in the folder. False: another process owns it."""
        number = luggage.number
        if number not in self.owned:
            stack = ExitStack()
            if not luggage.prefix and not stack.enter_context(locks.owned(luggage.folder, wait=False)):
                return False
            self.owned[number] = stack
        locks.sweep(luggage.folder, luggage.prefix)  # what a worker had half sent
        self.folders[number] = luggage
        return True

    async def end(self, number: int | None = None) -> None:
        """The job's folder is free; None: all are."""
        for each in list(self.owned) if number is None else [number]:
            self.folders.pop(each, None)
            if stack := self.owned.pop(each, None):
                stack.close()

    async def files(self, number: int, attempt: int, read: str = "") -> dict[str, int]:
        """File of the job's folder, or of one that it reads -> bytes. Raises StaleError where the attempt is not the
        last."""
        luggage = self._luggage(number, attempt)
        found = stored(luggage.reads[read]) if read else stored(luggage.folder, luggage.prefix)
        return {name: path.stat().st_size for name, path in found.items()}

    async def read(self, number: int, attempt: int, name: str, start: int, read: str = "") -> bytes:
        luggage = self._luggage(number, attempt)
        with inside(luggage.reads[read] if read else luggage.folder, name).open("rb") as file:
            file.seek(start)
            return file.read(PIECE)

    async def write(self, number: int, attempt: int, name: str, start: int, piece: bytes, last: bool) -> None:
        """One piece of a file. It takes its name with the last one, when all of it is on the disk."""
        path = inside(self._luggage(number, attempt).folder, name)
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
            inside(self._luggage(number, attempt).folder, name).unlink(missing_ok=True)

    def _luggage(self, number: int, attempt: int) -> Luggage:
        luggage = self.folders.get(number)
        if luggage is None or luggage.attempt != attempt:
            raise StaleError(f"attempt {attempt} of job {number} is over")
        return luggage


class HomeStorageError(StorageError):
    """The command's machine cannot store any more, not the node."""


class StaleError(Exception):
    """Another worker has the job now."""


def new_post() -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here, max_restarts=0)(Post).remote()


def stored(folder: Path, prefix: str = "") -> dict[str, Path]:
    """Name below the folder -> file, without locks and what is being written; those whose own name begins so."""
    found = {}
    for path in sorted(folder.rglob(f"{glob.escape(prefix)}*")) if folder.exists() else ():
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


def remote_work(*, fresh: bool) -> Any:
    """`fresh`: each job gets a process of its own, which keeps no GPU and no process group of the one before."""
    import ray

    return ray.remote(max_retries=0, max_calls=int(fresh))(_work)


def _work(job: Job, order: Order, post: Any, rank: int = 0) -> tuple[int, Event]:
    """All that a node does with a job, or with a rank's part of it: (how many events it told, the last one)."""
    told, final = 0, {"event": "stopped"}

    def tell(event: Event) -> None:
        nonlocal told, final
        if event["event"] in ("end", "elsewhere", "error"):
            final = event
        elif rank == 0:
            told += 1
            _asked(post.tell.remote(order.number, order.attempt, event))

    import ray

    here = ray.get_runtime_context().get_node_id()
    node = f"{socket.gethostname()} ({ray.util.get_node_ip_address()}, {here[:6]})"
    post.tell.remote(order.number, order.attempt, {"event": "at", "node": node, "rank": rank})
    if wrong := _unfit(order):
        return told, {"event": "error", "error": HarnessError(f"Node {node} {wrong}.")}
    if os.path.isdir(order.folder):
        os.chdir(order.folder)
    try:
        with stoppable(), ExitStack() as stack:
            if order.ranks > 1:
                _share(job, order, post, rank, tell, stack)
            elif order.luggage:
                moved, mirrored = stack.enter_context(_moved(job, order, post, tell))
                work(moved, mirrored, wait=True)
            else:
                work(job, tell, wait=order.wait)
    except PeerLost as error:
        final = {"event": "stopped", "reason": str(error) or "another of its processes was lost"}
    except Interrupted:
        pass
    except HarnessError as error:  # of sending files: the disk there or here
        final = {"event": "error", "error": error}
    return told, final


def _share(job: SharedJob, order: Order, post: Any, rank: int, tell: Tell, stack: ExitStack) -> None:
    """A rank's part of a job. Raises PeerLost where another rank is gone."""
    if rank > 0:
        job = job.together(stack.enter_context(_scratch()))
    elif order.luggage:
        job, tell = stack.enter_context(_moved(job, order, post, tell))
    elif not _is_free(job, order.wait):
        _asked(post.host.remote(order.number, order.attempt, ""))
        return tell({"event": "elsewhere"})
    if not _join(order, post, rank):
        return tell({"event": "elsewhere"})
    try:
        work(job if rank else job.together(None), tell, wait=True)
        processes.leave_group()
    except Exception as error:
        if processes.is_lost_peer(error):  # before the cell's steps, where nobody else asks
            raise PeerLost from error
        raise


def _is_free(job: SharedJob, wait: bool) -> bool:
    """Whether no other process has the job's folder; the other ranks do not wait for it in their first exchange, which
    has a time limit."""
    with locks.owned(job.stores()[1], wait=wait) as ours:
        return ours


def _join(order: Order, post: Any, rank: int) -> bool:
    """Makes this process a rank of the job's, in the way that torchrun does. False: the job is not to be done here."""
    import ray
    import torch.distributed as dist

    here = ray.util.get_node_ip_address()
    if rank == 0:
        listening = socket.create_server((here, 0))
        port = listening.getsockname()[1]
        _kept.append(
            dist.TCPStore(here, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
        )
        _asked(post.host.remote(order.number, order.attempt, f"{here}:{port}"))
    address = _asked(post.hosted.remote(order.number, order.attempt))
    if not address:
        return False
    host, _, port = address.rpartition(":")
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": "0",  # Ray shows each process its own GPU alone
        "WORLD_SIZE": str(order.ranks),
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # the port is listened at already
        "TORCHELASTIC_RESTART_COUNT": "0",
    }
    if name := _interface(here):  # else the one that the host's name leads to, on many machines 127.0.1.1
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
    try:
        processes.join_group()
    except RuntimeError as error:
        raise PeerLost(f"rank {rank} could not join: {error}".partition("\n")[0]) from error
    return True


_kept: list[Any] = []
"""What has to live as long as the process. Written by `_join` alone."""


def _interface(address: str) -> str:
    """The network interface of this machine that has the address; "" where none is found."""
    import psutil

    found = psutil.net_if_addrs().items()
    return next((name for name, held in found if any(each.address == address for each in held)), "")


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
    luggage = order.luggage
    with _scratch() as scratch:
        own = scratch / "runs"
        mirror = Mirror(own / luggage.within, luggage, post)
        mirror.fetch()
        for name in luggage.reads:
            mirror.fetch_read(name, own / name)
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


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder of this worker's, swept by the next one where this one is killed."""
    hidden = _scratch_folder()
    scratch = hidden.with_name(hidden.name.removeprefix("."))
    try:
        with locks.owned(hidden, wait=False):  # before it has the name that is swept
            hidden.rename(scratch)
            yield scratch
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

    def __init__(self, folder: Path, luggage: Luggage, post: Any) -> None:
        self.folder, self.post, self.prefix = folder, post, luggage.prefix
        self.key = luggage.number, luggage.attempt
        self.sent: dict[str, tuple[int, int]] = {}
        self.turn = threading.Lock()

    def fetch(self) -> None:
        """What was stored of the job before, checkpoints included."""
        for name, path in self._fetched(self.folder):
            self.sent[name] = _state(path)

    def fetch_read(self, name: str, folder: Path) -> None:
        """What the job reads under that name."""
        for _ in self._fetched(folder, name):
            pass

    def _fetched(self, folder: Path, read: str = "") -> Iterator[tuple[str, Path]]:
        for name, size in _asked(self.post.files.remote(*self.key, read)).items():
            path = inside(folder, name)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    for start in range(0, size, PIECE):
                        file.write(_asked(self.post.read.remote(*self.key, name, start, read)))
            except OSError as error:
                raise cannot_write(path, error) from error
            yield name, path

    def watch(self, ended: threading.Event) -> None:
        """Sends what changes until it is over. What cannot be sent is met again by the next event's own try."""
        while not ended.wait(0.5):
            try:
                self.send()
            except (HarnessError, Interrupted):
                return

    def send(self) -> None:
        """What has changed, a checkpoint after what it counts on, and last what says that all is there; then what is
        gone is removed."""
        with self.turn:
            files = stored(self.folder, self.prefix)
            for name in sorted(files, key=lambda name: (name in LAST, name.startswith("checkpoints/"), name)):
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
