"""Work on this machine: in this process, or in worker processes that are fed one job after the other."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import wait as ready
from typing import Any

from harness.machine.libraries import quiet
from harness.machine.stopping import Interrupted, ParentGone, request_stop
from harness.machine.trust import trusted
from harness.workers.executor import FINAL, Event, Executor, Job, Observer, prepare, work

PATIENCE = 60
"""Seconds that a worker has to store its job as interrupted before it is killed."""


def local(workers: int, threads: int) -> Executor:
    """The executor of this machine: `workers` processes of `threads` CPU threads, or this process where it is 0."""
    return Processes(workers, threads) if workers else InProcess()


def default_workers(jobs: int) -> int:
    """One worker a core on a CPU, one worker a GPU."""
    from harness.machine.devices import cuda_devices

    if devices := cuda_devices():
        return min(jobs, devices)
    return max(1, min(jobs, os.cpu_count() or 1))


class InProcess(Executor):
    """One job after the other in this process. SIGINT and SIGTERM are the caller's (harness/machine/stopping.py)."""

    def run(self, jobs: Sequence[Job], observe: Observer) -> list[Any]:
        quiet()
        return super().run(jobs, observe)

    def start(self, number: int, job: Job, *, wait: bool) -> None:
        self._next = (number, job, wait)

    def attend(self, tell: Callable[[int, Event], None]) -> None:
        number, job, wait = self._next
        work(job, lambda event: tell(number, event), wait=wait)


class Processes(Executor):
    """Worker processes, each fed one job after the other over its own pipe.

    While jobs run, SIGINT and SIGTERM to this process raise Interrupted: it alone decides, and stops its workers."""

    def __init__(self, workers: int, threads: int = 1, prepare: Callable[[int, bool], None] = prepare) -> None:
        self.slots, self.threads, self.prepare = workers, threads, prepare
        self.context = multiprocessing.get_context("spawn")
        self.busy: dict[Any, tuple[Any, int]] = {}  # pipe -> (process, number of its job)
        self.idle: dict[Any, Any] = {}  # pipe -> process

    def run(self, jobs: Sequence[Job], observe: Observer) -> list[Any]:
        with _signals_raise():
            return super().run(jobs, observe)

    def start(self, number: int, job: Job, *, wait: bool) -> None:
        pipe, process = self.idle.popitem() if self.idle else self._spawn()
        self.busy[pipe] = (process, number)
        try:
            pipe.send((job, wait))
        except OSError:
            pass  # it died in the meantime: `attend` finds its pipe closed

    def attend(self, tell: Callable[[int, Event], None]) -> None:
        for pipe in ready(list(self.busy)):
            process, number = self.busy[pipe]
            try:
                event = pipe.recv()
            except (EOFError, ConnectionResetError):
                process.join()
                del self.busy[pipe]
                tell(number, {"event": "lost", "reason": _how_it_ended(process.exitcode)})
                continue
            if event["event"] in FINAL:
                del self.busy[pipe]
                self.idle[pipe] = process
            tell(number, event)

    def release(self) -> None:
        for pipe in self.idle:
            try:
                pipe.send(None)
            except OSError:
                pass  # gone already
        for process in self.idle.values():
            process.join()
        self.idle.clear()

    def stop(self) -> None:
        processes = [*self.idle.values(), *(process for process, _ in self.busy.values())]
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(timeout=PATIENCE)
            if process.is_alive():
                process.kill()
        self.idle.clear()
        self.busy.clear()

    def _spawn(self) -> tuple[Any, Any]:
        # Thread counts are read when the libraries load, so they have to be in the environment before the spawn.
        os.environ.update({name: str(self.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")})
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        ours, theirs = self.context.Pipe()
        first = partial(self.prepare, self.threads, trusted())
        process = self.context.Process(target=_worker, args=(theirs, first), daemon=True)
        with _main_kept_out():
            process.start()
        theirs.close()
        return ours, process


@contextmanager
def _main_kept_out() -> Iterator[None]:
    """Workers that start here do not import this process's main module, as spawned ones do: jobs need nothing of it,
    and a script that calls `harness.run` outside of `if __name__ == "__main__"` would begin anew in each of them."""
    main = sys.modules["__main__"]
    hidden = {name: getattr(main, name) for name in ("__file__", "__spec__") if hasattr(main, name)}
    for name in hidden:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Only the main thread may say what signals do; in another one they are its caller's."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, _raise_interrupted)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _raise_interrupted(number: int, frame: Any) -> None:
    raise Interrupted(number)


def _how_it_ended(code: int | None) -> str:
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"the worker process ended with code {code}{hint}"


def _worker(pipe: Any, prepare: Callable[[], None]) -> None:
    """A worker's life: receive a job (and whether to wait for its present owner), do it, tell; None ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides; a terminal sends Ctrl-C to all of us
    signal.signal(signal.SIGTERM, request_stop)
    # Raised inside some object's __del__ it is lost there, with a traceback; the flag behind request_stop serves then.
    sys.unraisablehook = lambda lost: None if lost.exc_type is Interrupted else sys.__unraisablehook__(lost)
    prepare()

    def tell(event: Event) -> None:
        try:
            pipe.send(event)
        except OSError as error:  # the parent is dead: end the job as interrupted, the next run resumes it
            raise ParentGone from error

    try:
        while (order := pipe.recv()) is not None:
            job, wait = order
            work(job, tell, wait=wait)
    except (Interrupted, EOFError):
        pass
