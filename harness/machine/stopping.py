"""SIGINT and SIGTERM as one exception that nothing on the way swallows."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from harness.machine.processes import launched_count


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; not an Exception, so that nothing on the way swallows it."""


class ParentGone(Interrupted):
    """The process that this worker works for has ended without stopping it, as a killed one does."""


class PeerLost(Interrupted):
    """Another of the launcher's processes has ended, as one that was killed does, or one on a machine that is gone."""


def who_stopped(error: BaseException) -> str:
    """What ended a run, in words that "after step 3" may follow."""
    if isinstance(error, PeerLost):
        return "another of the launcher's processes was lost"
    if _after_step:
        return "told to end by the cluster"
    return "its command was killed or broke off" if isinstance(error, ParentGone) else "stopped by the user"


_stop_signal: int | None = None
"""The first signal that arrived. Written by `request_stop`, `request_save` and `stoppable` alone."""
_after_step = False
"""Whether what runs may finish its step first. Written with it."""
_saving = False
"""Whether a cell is at steps that it can end after any of, with a checkpoint. Written by `saves_after_step` alone."""


def request_stop(number: int, frame: Any) -> None:
    """Signal handler of a process that runs cells. It raises at once; where a library swallows that (an exception
    inside one of its callbacks), the flag ends the cell at its next step. Later signals do not disturb the storing.

    A launcher's rank does not raise: the others would wait for it. All of them end after the step that they are at,
    with a checkpoint (`harness.cell`)."""
    global _stop_signal, _after_step
    if _stop_signal is None or (_after_step and _saving):
        _stop_signal, _after_step = number, False
        if launched_count() == 1:
            raise Interrupted(number)


def request_save(number: int, frame: Any) -> None:
    """Signal handler for a cluster's warning: a cell ends after the step that it is at, with a checkpoint, and loses
    nothing if that step ends in time. Where it is at no step it ends at once, as at `request_stop`, which is heard
    during that step, too."""
    global _stop_signal, _after_step
    if _stop_signal is None:
        _stop_signal, _after_step = number, True
        if not _saving and launched_count() == 1:
            raise Interrupted(number)


@contextmanager
def saves_after_step() -> Iterator[None]:
    """The block is a cell's steps, each of which ends with a look at `stop_signal` and `ends_after_step`."""
    global _saving
    _saving = True
    try:
        yield
    finally:
        _saving = False


def ends_after_step() -> bool:
    """Whether a signal has arrived that leaves the time to store a checkpoint."""
    return _after_step


@contextmanager
def noted() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are put down in the list and do nothing else: for a process that looks at it often, and must
    not be cut in the middle of a call. Only the main thread may say what signals do; in another one they are its
    caller's."""
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, lambda number, frame: arrived.append(number)) for each in numbers}
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stoppable() -> Iterator[None]:
    """SIGINT and SIGTERM stop what runs in the block, and it alone: for a process that is given other work after it. In
    the main thread alone."""
    global _stop_signal, _after_step
    before = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _stop_signal, _after_step = None, False


@contextmanager
def within(seconds: float | None, late: Exception) -> Iterator[None]:
    """Raises `late` in the block when it has taken so many seconds, and again every second where it is swallowed; None:
    no limit. In the main thread alone, and not before the block comes back to Python."""
    if seconds is None:
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise late

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def stop_signal() -> int | None:
    """The signal that arrived in this process, if one has."""
    return _stop_signal
