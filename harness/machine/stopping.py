"""SIGINT and SIGTERM as one exception that nothing on the way swallows."""

from __future__ import annotations

from typing import Any


class Interrupted(BaseException):
    """SIGINT or SIGTERM arrived; not an Exception, so that nothing on the way swallows it."""


class ParentGone(Interrupted):
    """The process that this worker works for has ended without stopping it, as a killed one does."""


def who_stopped(error: BaseException) -> str:
    """What ended a run, in words that "after step 3" may follow."""
    return "its command was killed or broke off" if isinstance(error, ParentGone) else "stopped by the user"


_stop_signal: int | None = None
"""The first signal that arrived. Written by `request_stop` alone."""


def request_stop(number: int, frame: Any) -> None:
    """Signal handler of a process that runs cells. It raises at once; where a library swallows that (an exception
    inside one of its callbacks), the flag ends the cell at its next step. Later signals do not disturb the storing."""
    global _stop_signal
    if _stop_signal is None:
        _stop_signal = number
        raise Interrupted(number)


def stop_signal() -> int | None:
    """The signal that arrived in this process, if one has."""
    return _stop_signal
