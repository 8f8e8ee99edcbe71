"""The terminal and the pipes behind it: whatever is shown to people goes through `Terminal`, which lets no text steer a
terminal, and what becomes of a run whose output nobody can take any more stands here too."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from harness.contracts import HarnessError
from harness.machine.stopping import Interrupted

SHOWN = "\ufffd"
"""Stands for each character that would steer a terminal."""
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and newline
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # directions, line ends, invisible ones
    "\ud800-\udfff"  # halves of characters, which cannot be written
    "\U000e0000-\U000e0fff]"  # tags and selectors: text that nobody sees
)


def inert(text: str) -> str:
    """The text with every character replaced that moves a cursor, sets a colour, turns the order of what is read or
    cannot be written. Joiners within words and emoji stay."""
    return text if text.isascii() and text.isprintable() else _STEERING.sub(SHOWN, text)


class Terminal(Console):
    """A console whose output is inert, whichever text, table or bar it comes from. Colours are rich's own alone."""

    def __init__(self, **options: Any) -> None:
        super().__init__(emoji=False, **options)  # `:x:` in a path is no picture

    def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
        for segment in super().render(*arguments, **options):
            yield segment if segment.control else segment._replace(text=inert(segment.text))

    def print(self, *objects: Any, **options: Any) -> None:
        """Raises Interrupted (SIGPIPE and why) where standard output cannot be written any more: that ends a run as a
        signal does, so that its cells are stored. Standard error is given up in silence."""
        try:
            super().print(*objects, **options)
        except OSError as error:
            self._give_up(error)

    def on_broken_pipe(self) -> None:
        self._give_up(BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)))

    def _give_up(self, error: OSError) -> None:
        self.quiet = True
        stream = sys.stderr if self.stderr else sys.stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # what is left in its buffer has to go somewhere
        if not self.stderr:
            raise Interrupted(signal.SIGPIPE, error.strerror) from error


def standard_output() -> Terminal:
    """A log file has no width of its own, but its reader may name one."""
    return Terminal() if (sys.stdout and sys.stdout.isatty()) or "COLUMNS" in os.environ else Terminal(width=120)


def open_streams() -> None:
    """Gives closed standard streams a place to go, before a file of results gets their number and a library's warnings
    with it; characters that a stream's encoding lacks are written as escapes. Raises HarnessError where standard output
    is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
        raise HarnessError("Standard output is closed; send it to a file or to /dev/null.")
