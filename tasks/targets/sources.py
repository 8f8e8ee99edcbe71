"""Rows of a term from where they lie, and which of them are for training, for validation and for the test.

Rows that say their split are of that. The embedded passages have their own. All others are parted once, by the file's
seed and their content alone: neither their order nor what else is read changes where a row goes. A row that stands
there twice counts once; rows that are about the same thing (the prompt of a preference) stay together.
"""

from __future__ import annotations

import hashlib
import json
import os.path
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import assets
from harness.assets import hub
from harness.assets.references import MOST_ASSET
from harness.assets.rows import check_record, records, split_names
from harness.contracts import HarnessError
from harness.machine.files import check_plain
from tasks.targets.schema import Shares, Source

SPLITS = ("train", "validation", "test")
UNREAD = 1000
"""Rows that a plan takes a data set to have that is not here."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Parted:
    """The rows of each split, at least one in each, and what the user should know of how they were parted."""

    rows: Mapping[str, Sequence[Row]]
    said: str = ""
    keys: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Split -> the rows' contents; empty where every split is the whole on purpose."""


def local(name: str, folder: str) -> Path:
    """A file or folder that a target's file in `folder` names. Raises HarnessError where it is not there."""
    path = Path(folder, name).expanduser()
    there = os.path.exists(path)  # Path.exists raises for names that no file can have
    if "\0" in name or not there:
        raise HarnessError(f"There is no file {str(path)[:300]!r}, which the target names; check the path.")
    if not path.is_dir():
        check_plain(path, MOST_ASSET)
    return path


def is_here(source: Source) -> bool:
    """Whether the rows can be read without a network."""
    return source.dataset is None or hub.cached(source.dataset) is not None


def parted(
    source: Source,
    folder: str,
    shares: Shares,
    seed: int,
    names: Sequence[str],
    *,
    optional: Sequence[str] = (),
    check: Callable[[Row, str], None] = lambda row, where: None,
    together: Callable[[Row], str] = lambda row: "",
) -> Parted:
    """The source's rows with the fields `names` by split.

    check      called with each row and where it stands; raises HarnessError for what cannot be used
    together   rows for which this is the same, and not empty, are of one split

    Raises HarnessError for what cannot be read, a row that stands in two splits, and a split without rows."""
    if source.embedded:
        found = {split: _embedded(source, split, names) for split in SPLITS}
        return _of(source, found, "")
    rows = _rows(source, folder, names, optional)
    for number, row in enumerate(rows, start=1):
        check(row, f"{source.said}, row {number}")
    named = split_names(rows, source.said)
    keys = [_key(row) for row in rows]
    if source.whole:
        return Parted(
            {split: rows[: source.examples] for split in SPLITS}, f"{source.said}: {len(rows)} in every split"
        )
    if named is not None:
        assets.check_apart(
            {split: [key for key, own in zip(keys, named, strict=True) if own == split] for split in SPLITS},
            source.said,
        )
    first = dict.fromkeys(keys)
    kept = [i for i, key in enumerate(keys) if first.pop(key, 0) is None]
    groups = [together(rows[i]) or keys[i] for i in kept]
    of = [named[i] for i in kept] if named is not None else seeded(groups, shares, seed)
    found = {split: [rows[i] for i, own in zip(kept, of, strict=True) if own == split] for split in SPLITS}
    again = len(rows) - len(kept)
    twice = f", {again} left out that stand there more than once" if again else ""
    return _of(source, found, f"{'by `split`' if named is not None else f'seed {seed}'}{twice}")


def seeded(groups: Sequence[str], shares: Shares, seed: int) -> list[str]:
    """The split of each row, equal groups in one: groups in the order of a hash, cut at the shares. Where there are
    three groups or more, no split is empty."""
    distinct = sorted(set(groups), key=lambda group: hashlib.sha256(f"{seed}/{group}".encode()).digest())
    count = len(distinct)
    first = max(1, round(shares.train * count))
    second = max(first + 1, round((shares.train + shares.validation) * count))
    if count >= len(SPLITS):
        second = min(second, count - 1)
        first = min(first, second - 1)
    split = {group: SPLITS[(place >= first) + (place >= second)] for place, group in enumerate(distinct)}
    return [split[group] for group in groups]


def check_terms_apart(parts: Mapping[str, Parted], what: str) -> None:
    """Raises HarnessError where a row is for training in one term and held out in another: the second term's number
    would be of what was asked for."""
    names = list(parts)
    for one in names:
        for other in names:
            for split in SPLITS[1:]:
                shared = parts[one].keys.get("train", frozenset()) & parts[other].keys.get(split, frozenset())
                if shared:
                    start = " ".join(min(shared).split())[:60]
                    raise HarnessError(
                        f"In {what} {len(shared)} rows are for training in '{one}' and for {split} in '{other}' "
                        f"({start}...); keep each in one of them, or name the rows' splits in a field `split`."
                    )


def _of(source: Source, found: Mapping[str, Sequence[Row]], how: str) -> Parted:
    for split in SPLITS:
        if not found[split]:
            counts = ", ".join(f"{len(rows)} {name}" for name, rows in found.items())
            raise HarnessError(
                f"{source.said} has no rows for the split '{split}' ({counts}); add rows, change `splits`, or say "
                "`whole: true` where every split may be all of it."
            )
    counts = ", ".join(f"{len(found[split])} {split}" for split in SPLITS)
    said = f"{source.said}: {counts} ({how})" if how else ""
    keys = {split: frozenset(map(_key, rows)) for split, rows in found.items()}
    return Parted({split: list(rows)[: source.examples] for split, rows in found.items()}, said, keys)


def _rows(source: Source, folder: str, names: Sequence[str], optional: Sequence[str]) -> list[Row]:
    if source.file is not None:
        return records(local(source.file, folder), source.file, names, optional)
    if source.dataset is not None:
        return hub.records_of(source.dataset, source.split, names, optional)
    given: Iterable[Any] = source.rows or ()
    rows = [{names[0]: row} if isinstance(row, str) and len(names) == 1 else row for row in given]
    for number, row in enumerate(rows, start=1):
        check_record(row, names, f"rows, row {number}")
    wanted = (*names, *optional, "split")
    return [{name: row[name] for name in wanted if name in row} for row in rows]


def _embedded(source: Source, split: str, names: Sequence[str]) -> list[Row]:
    if len(names) != 1:
        raise HarnessError(f"The embedded passages are texts alone and have no {' and '.join(names[1:])}; name a file.")
    texts = assets.texts(f"embedded:{source.embedded}", split=split, language=source.language)
    return [{names[0]: text} for text in texts]


def _key(row: Row) -> str:
    """A row's content but for white space around texts."""
    plain = {name: value.strip() if isinstance(value, str) else value for name, value in row.items() if name != "split"}
    (only,) = plain.values() if len(plain) == 1 else (None,)
    return only if isinstance(only, str) else json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
