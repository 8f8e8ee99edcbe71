"""What a node of a Ray cluster does with a job, and what comes back of it: the post on the command's machine, which
takes what workers say and owns the folders of jobs that store elsewhere, and the mirror on the node.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from harness.contracts import HarnessError
from harness.machine.stopping import Interrupted, ParentGone, stoppable
from harness.store import locks
from harness.store.atomic import StorageError, cannot_write
from harness.workers.executor import Event, Job, Tell, work
from harness.workers.ray_nodes import unlike, versions

PIECE = 2**25
"""Bytes of a file that travel at a time."""
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


def new_post() -> Any:
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


def remote_work() -> Any:
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
