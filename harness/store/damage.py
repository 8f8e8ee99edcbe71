"""What may be wrong with stored results: they come from disks, editors and other people. Whatever it is, reading says
it in a few words that belong to one cell (`DamagedError.what`), so that a report can show the others."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from harness.contracts import HarnessError
from harness.machine.files import check_pixels
from harness.store.lines import LineError, is_text

if TYPE_CHECKING:
    import pandas

DEEPEST = 100
"""Lists in lists, and mappings in mappings: no record has more, and libraries give up at some hundreds."""
FEW = 1000
"""Rows of a table up to which a set tells its values apart sooner than pandas does."""


class DamagedError(HarnessError):
    """A file of stored results that cannot be used. `what`: its name and what is wrong, in a few words."""

    def __init__(self, path: Path, why: str, advice: str) -> None:
        self.what, self._given = f"{path.name}: {why}", (path, why, advice)
        super().__init__(f"{path} is damaged ({why}); {advice}.")

    def __reduce__(self) -> tuple[type[DamagedError], tuple[Path, str, str]]:
        """A worker sends it to its parent."""
        return type(self), self._given


@contextmanager
def reading(path: Path, folder: Path, advice: str) -> Iterator[Path]:
    """Gives `path`, a file of the results' `folder`, to be read within the block. Whatever then goes wrong is a
    DamagedError, but for a file that is not there (FileNotFoundError), for memory, and for what has its own sentence.

    Refused before anything is read: a link that leads out of `folder`, whose content somebody else chose, and what is
    no regular file, which may never end."""
    try:
        if not _plainly_inside(os.fspath(path), os.fspath(folder)):
            if not path.resolve().is_relative_to(folder.resolve()):
                raise ValueError("a link out of the results, which is not followed")
            if path.exists() and not path.is_file():
                raise ValueError("no regular file")
        yield path
    except (FileNotFoundError, MemoryError, HarnessError):
        raise
    except Exception as error:  # readers of JSON, Parquet and PNG raise a dozen kinds
        raise DamagedError(path, describe(error).replace(f"{path.parent}/", ""), advice) from error


def _plainly_inside(path: str, folder: str) -> bool:
    """Whether nothing between `folder` and `path` is a link and `path` is a regular file, or not there. A grid has tens
    of thousands of files: where this is not so plain, or an error, the caller looks closer."""
    before, _, below = path.partition(folder + os.sep)
    names = below.split(os.sep)
    if before or not below or ".." in names:
        return False
    here, mode = folder, 0
    for name in names:
        here = f"{here}{os.sep}{name}"
        try:
            found = os.lstat(here)
        except FileNotFoundError:
            return True
        except (OSError, ValueError):
            return False
        mode = found.st_mode
        if stat.S_ISLNK(mode) or getattr(found, "st_reparse_tag", 0):  # Windows has links that do not look like one
            return False
    return stat.S_ISREG(mode)


def describe(error: Exception) -> str:
    """What an error of a reader says of the file, in a few words."""
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg}, line {error.lineno}"
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"[:160]
    words = " ".join(str(error).split())[:160]
    if isinstance(error, LineError) or type(error) is ValueError:
        return words.rstrip(".") or "ValueError"
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


def check_plain(value: Any, *, numbers: bool = True) -> None:
    """Raises ValueError where tables cannot hold a JSON value: it is too deep, or has a lone surrogate or, with
    `numbers`, an integer beyond 64 bits or a number that is not finite."""
    level = [value]
    for _ in range(DEEPEST + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, str):
                if not each.isascii() and not is_text(each):
                    raise ValueError("text that is no Unicode (a lone surrogate)")
            elif isinstance(each, dict):
                inner += each
                inner += each.values()
            elif isinstance(each, list):
                inner += each
            elif numbers and isinstance(each, int) and not -(2**63) <= each < 2**63:
                raise ValueError("an integer beyond 64 bits")
            elif numbers and isinstance(each, float) and not math.isfinite(each):
                raise ValueError(f"the number {each}")
        if not inner:
            return
        level = inner
    raise ValueError(f"nested more than {DEEPEST} deep")


def check_sample(value: Any) -> dict[str, Any]:
    """The value, one sampled text. Raises ValueError where it is none: step, index, text and the task's labels."""
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise ValueError("a line without a `text`")
    if not all(type(value.get(name)) is int and 0 <= value[name] < 2**63 for name in ("step", "index")):
        raise ValueError("a text without whole numbers as `step` and `index`")
    check_plain(value, numbers=False)
    return value


def check_long(frame: pandas.DataFrame, columns: list[str]) -> pandas.DataFrame:
    """The `columns` of a long table. Raises KeyError, TypeError or ValueError where it is none."""
    numbers = {"seed": "int64", "step": "int64", "value": "float64"}
    frame = frame if list(frame.columns) == columns else frame[columns]
    if any(frame[name].dtype != kind for name, kind in numbers.items()):  # a grid has thousands: no copy for nothing
        frame = frame.astype(numbers)
    for name in columns:
        if name not in numbers and not all(map(is_text, _different(frame[name]))):
            raise ValueError(f"the column {name} holds no texts")
    return frame


def _different(column: pandas.Series) -> Iterable[Any]:
    """The values of a column, each once, without missing ones."""
    if len(column) > FEW:
        return column.dropna().unique()
    return {value for value in column.tolist() if value is not None and value == value}


def check_png(content: bytes) -> None:
    """Raises ValueError, or what Pillow raises, for what is no whole PNG of a size that a page shows."""
    import io

    from PIL import Image

    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        check_pixels(*image.size, "it")
        image.load()
