"""`python -m harness diff BASE NEW`: did a change make results worse? Paired by seed, cautious about noise.

A row is one (profile, task, reward, variant), or what one row's data are worth to one target. On the seeds that both
sides finished, the improvement of the headline is taken seed by seed, in tolerances: one tolerance is the share
`tolerance` of what there is to gain (from the untuned generator to the ceiling; to BASE's own headline where there is
no ceiling). A row is called worse (or improved, the same rule turned round) when the mean fell by more than one
tolerance and

    the paired difference is significant after Holm's correction over all rows (three seeds or more), or
    every common seed fell by more than `CLEAR` tolerances.

A second run on another machine differs by rounding, then by chance; neither rule fires on that. A cell that used to
finish and now fails is worse, whatever the numbers. What cannot be compared is said, never guessed: another profile,
other settings or assets, no common seeds, a missing row, a damaged cell.

Claims that `paper` decided on both sides (claims.json) are rows too: worse is one that held and does not hold now.

Exit code: 1 where any row is worse; else 2 where something could not be compared; else 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.contracts import HarnessError
from harness.evaluation import records as trials
from harness.settings import variants
from harness.store.damage import DamagedError
from harness.store.frames import load
from harness.store.record import CellRecord
from reports import claims, evaluations, figures, gather, stats, summary, tables
from reports.stats import Interval

if TYPE_CHECKING:
    import pandas
    import rich.console

TOLERANCE = 0.05
CLEAR = 3.0
"""Tolerances by which every seed has to move where statistics cannot decide."""
WHOLE_NAME = 44
"""Characters of a row's name that a terminal shows without a break."""
MOST_VALUE = 200
"""Characters of a setting in a reason."""
ENOUGH_SEEDS = 3
"""Seeds from which a t interval is worth asking: from two it is thirteen standard errors wide."""

Verdict = Literal["improved", "same", "worse", "missing", "not comparable", "added"]
ORDER: tuple[Verdict, ...] = ("worse", "missing", "not comparable", "improved", "same", "added")


@dataclass(frozen=True)
class DiffRow:
    """One row of BASE against NEW."""

    profile: str
    task: str
    reward: str
    variant: str
    verdict: Verdict
    reason: str = ""
    seeds: tuple[int, ...] = ()
    base: float = float("nan")
    new: float = float("nan")
    """Median headlines over the common seeds."""
    unit: str = ""
    interval: Interval | None = None
    """Of the mean improvement over the common seeds; positive is better."""
    in_tolerances: tuple[float, ...] = ()
    """The improvement on every common seed, in tolerances."""

    @property
    def name(self) -> str:
        return f"{self.task} / {self.reward}" + (f" ({self.variant})" if self.variant else "")


@dataclass(frozen=True)
class DiffResult:
    """All rows, worst first, and what CI does about it."""

    rows: tuple[DiffRow, ...]
    exit_code: int
    """0: nothing is worse; 1: something is; 2: something could not be compared, see `reason`."""
    reason: str
    """One sentence."""

    def markdown(self) -> str:
        """The rows as GitHub Markdown, with the reason below."""
        from reports.markdown import grid

        if not self.rows:
            return tables.escape(self.reason) + "\n"
        return grid(list(HEADS), [_cells(row) for row in self.rows]) + f"\n{tables.escape(self.reason)}\n"

    def rich(self) -> rich.console.RenderableType:
        """The same for a terminal."""
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.padding = (0, 1, 0, 0)  # type: ignore[assignment]
        for place, head in enumerate(HEADS[:-1]):
            # Numbers and names stay whole, very long names aside; why a row is judged so stands below the table.
            whole = place != 1 or all(len(row.name) <= WHOLE_NAME for row in self.rows)
            head, justify = head.replace(" change", "\nchange").replace(" % ", " %\n"), "left" if place < 2 else "right"
            table.add_column(head, justify=justify, overflow="fold", no_wrap=whole)
        colours = {"worse": "red", "improved": "green", "missing": "yellow", "not comparable": "yellow"}
        for row in self.rows:
            cells = [Text(cell) for cell in _cells(row)[:-1]]
            cells[0].stylize(colours.get(row.verdict, ""))
            table.add_row(*cells)
        reasons = [Text(f"{row.name}: {row.reason}") for row in self.rows if row.reason]
        reasons += [Text("")] if reasons else []
        return Group(*([table, Text(""), *reasons] if self.rows else []), Text(self.reason))


def compare(base: Path, new: Path, *, tolerance: float = TOLERANCE, partial: bool = False) -> DiffResult:
    """BASE's rows against NEW's. `partial`: rows that NEW did not run are listed but are no reason for exit code 2.

    Raises HarnessError for a folder that is missing, empty or damaged and for a tolerance that is not positive.
    """
    if not tolerance > 0:
        raise HarnessError(f"--tolerance must be above 0, not {tolerance}.")
    sides = [_Side.read(base), _Side.read(new)]
    lost = [row for side, name in zip(sides, ("BASE", "NEW"), strict=True) for row in _damaged(side, name)]
    if not sides[0].profiles & sides[1].profiles and not lost:
        names = [", ".join(sorted(side.profiles)) for side in sides]
        return DiffResult((), 2, f"Cannot compare: other profile, BASE has {names[0]} and NEW has {names[1]}.")
    keys = sorted(sides[0].groups.keys() | sides[1].groups.keys())
    rows = [row for key in keys if not _is_lost(key, *sides) for row in _rows(key, *sides, tolerance)]
    rows += _worth(*sides, tolerance)
    rows = [*_judged(rows), *lost, *_claims(base, new)]
    rows.sort(key=lambda row: (ORDER.index(row.verdict), row.profile, row.task, row.reward, row.variant))
    return DiffResult(tuple(rows), *_conclusion(rows, partial))


CLAIM = "claim"
"""What stands in place of a task's name in a row about a claim."""


def _claims(base: Path, new: Path) -> list[DiffRow]:
    """A row for each claim that both sides decided, and one for a side whose claims cannot be read."""
    sides: list[dict[tuple[str, str], claims.StoredClaim]] = []
    for place, name in ((base, "BASE"), (new, "NEW")):
        try:
            found = claims.stored(place)
        except DamagedError as error:
            reason = f"damaged in {name}: {error.what}"
            return [DiffRow("", CLAIM, claims.FILE, "", verdict="not comparable", reason=reason)]
        sides.append({(whole.profile, each.id): each for whole in found for each in whole.claims})
    rows = []
    for (profile, name), was in sides[0].items():
        if (now := sides[1].get((profile, name))) is None:
            continue
        verdicts = was.verdict, now.verdict
        judged: dict[Any, Verdict] = {("holds", "does not hold"): "worse", ("does not hold", "holds"): "improved"}
        reason = "" if was.verdict == now.verdict else f"was: {was.verdict}, now: {now.verdict}"
        rows.append(DiffRow(profile, CLAIM, name, "", verdict=judged.get(verdicts, "same"), reason=reason))
    return rows


Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class _Side:
    profiles: set[str]
    groups: dict[Key, pandas.DataFrame]
    """Cells that can be read, by row."""
    records: dict[str, CellRecord]
    damaged: pandas.DataFrame
    worth: dict[Key, pandas.DataFrame]
    """What the data of a row are worth, a seed a line."""

    @classmethod
    def read(cls, runs: Path) -> _Side:
        wide, _ = load(runs)
        worth = evaluations.headlines(trials.load(runs))
        if wide.empty and worth.empty:
            raise HarnessError(f"There are no results in {runs}; run `python -m harness run ...` first.")
        keys = ["profile", "task", "reward", "variant"]
        data = {key: part for key, part in worth.groupby(keys)} if len(worth) else {}
        if wide.empty:
            return cls(set(worth["profile"]), {}, {}, worth[:0], data)
        wide = summary.prepared(wide)
        whole, lost = wide[wide["status"] != "damaged"], wide[wide["status"] == "damaged"]
        groups = {key: part for key, part in whole.groupby(keys)}
        profiles = set(whole["profile"]) | {key[0] for key in data}
        return cls(profiles, groups, summary.read_records(whole), lost, data)


def _damaged(side: _Side, name: str) -> list[DiffRow]:
    """A row for each damaged cell of one side."""
    return [
        DiffRow(
            *(cell.profile, cell.task, cell.reward, cell.variant),
            verdict="not comparable",
            reason=f"damaged in {name}: {cell.reason}",
            seeds=(int(cell.seed),),
        )
        for cell in side.damaged.itertuples()
    ]


def _is_lost(key: Key, *sides: _Side) -> bool:
    """Whether one side has only damaged cells in the row: `_damaged` says so, and there is nothing to compare."""
    return any(
        key not in side.groups and (side.damaged[["profile", "task", "reward"]] == list(key[:3])).all(axis=1).any()
        for side in sides
    )


def _rows(key: Key, base: _Side, new: _Side, tolerance: float) -> list[DiffRow]:
    """The rows of one key: one, or one for each set of settings that was run under this name, called by what differs.

    Everything but the verdict of rows with numbers, which needs all rows ("same" until then).
    """
    row = DiffRow(*key, verdict="same")
    if key not in base.groups:
        return [replace(row, verdict="added", reason="only in NEW")]
    if key not in new.groups:
        return [replace(row, verdict="missing", reason="NEW did not run it")]
    before, after = base.groups[key], new.groups[key]
    shared = set(before["settings_key"]) & set(after["settings_key"])
    names = _names(before, after, base, new)
    if not shared or len(names) < 2:
        return [_row(row, before, after, base, new, tolerance)]
    found = []
    for settings, name in sorted(names.items(), key=lambda item: figures.natural(item[1])):
        named = replace(row, variant=", ".join(filter(None, (row.variant, name))))
        sides = [side[side["settings_key"] == settings] for side in (before, after)]
        if settings in shared:
            found.append(_row(named, *sides, base, new, tolerance))
        elif len(sides[0]):
            found.append(replace(named, verdict="missing", reason="NEW did not run it"))
        else:
            found.append(replace(named, verdict="added", reason="only in NEW"))
    return found


def _worth(base: _Side, new: _Side, tolerance: float) -> list[DiffRow]:
    """A row for what the data of each row and target are worth."""
    found = []
    for key in sorted(base.worth.keys() | new.worth.keys()):
        row = DiffRow(*key, verdict="same")
        if key not in base.worth:
            found.append(replace(row, verdict="added", reason="only in NEW"))
        elif key not in new.worth:
            found.append(replace(row, verdict="missing", reason="NEW did not evaluate it"))
        else:
            found.append(_row(row, base.worth[key], new.worth[key], base, new, tolerance))
    return found


def _names(before: pandas.DataFrame, after: pandas.DataFrame, base: _Side, new: _Side) -> dict[str, str]:
    """Key of settings -> what tells them from the others of both sides."""
    views = {}
    for cells, side in ((before, base), (after, new)):
        for cell in cells.itertuples():
            views.setdefault(cell.settings_key, variants.dotted(side.records[cell.folder].settings))
    return variants.names(views)


def _row(
    row: DiffRow, before: pandas.DataFrame, after: pandas.DataFrame, base: _Side, new: _Side, tolerance: float
) -> DiffRow:
    shared = set(before.loc[before["status"] == "done", "settings_key"]) & set(after["settings_key"])
    statuses = [set(side["status"]) for side in (before, after)]
    if "done" not in statuses[0]:
        was, now = summary_status(before), summary_status(after)
        if "done" in statuses[1]:
            return replace(row, verdict="improved", reason=f"was {was}, now finishes")
        return replace(row, reason=f"{now} as before" if was == now else f"was {was}, now {now}")
    if statuses[1] <= {"interrupted", "running"}:
        return replace(row, verdict="missing", reason=f"not finished in NEW ({summary_status(after)})")
    if "done" not in statuses[1]:
        # The settings of a cell that is unsupported now cannot tell: it fingerprints no assets.
        if shared or "unsupported" in statuses[1]:
            return replace(row, verdict="worse", reason=f"finished before, now {summary_status(after)}")
        return replace(row, verdict="not comparable", reason=_why_other(before, after, base, new))
    if not shared:
        return replace(row, verdict="not comparable", reason=_why_other(before, after, base, new))
    before, after = (side[side["settings_key"].isin(shared)] for side in (before, after))
    return _numbers(row, before, after, tolerance)


def _numbers(row: DiffRow, before: pandas.DataFrame, after: pandas.DataFrame, tolerance: float) -> DiffRow:
    old = {c.seed: c for c in before[before["status"] == "done"].itertuples()}
    all_new = {c.seed: c for c in after.itertuples()}
    common = sorted(seed for seed in old if seed in all_new and all_new[seed].status == "done")
    broken = [seed for seed in old if seed in all_new and all_new[seed].status in ("failed", "unsupported")]
    if broken:
        first = all_new[broken[0]]
        which = ", ".join(map(str, broken))
        return replace(row, verdict="worse", reason=f"seed {which} finished before, now {first.status}: {first.reason}")
    if not common:
        seeds = [", ".join(map(str, sorted(side))) for side in (old, all_new)]
        reason = f"no common seeds (BASE has {seeds[0]}; NEW has {seeds[1]})"
        return replace(row, verdict="not comparable", reason=reason)
    pairs = [(float(old[key].headline), float(all_new[key].headline)) for key in common]
    first = old[common[0]]
    differences = np.array([summary.improvement(now, was, first.direction) for was, now in pairs])
    ceiling = first.ceiling if first.ceiling is not None and np.isfinite(first.ceiling) else None
    far = [float(ceiling) if ceiling is not None else was for was, _ in pairs]
    scale = summary.median(abs(end - float(old[key].floor)) for end, key in zip(far, common, strict=True))
    if not scale > 0:  # a reward that gained nothing leaves no scale of its own
        scale = max(abs(was) for was, _ in pairs) or 1.0
    return replace(
        row,
        seeds=tuple(common),
        base=summary.median(was for was, _ in pairs),
        new=summary.median(now for _, now in pairs),
        unit=first.unit,
        interval=stats.mean_interval(differences),
        in_tolerances=tuple(float(value) for value in differences / (scale * tolerance)),
    )


def _judged(rows: list[DiffRow]) -> list[DiffRow]:
    """Verdicts of the rows with numbers, corrected together."""
    tested = [row.interval.p if row.interval and row.interval.n >= ENOUGH_SEEDS else float("nan") for row in rows]
    adjusted = stats.holm(tested)
    judged = []
    for row, p in zip(rows, adjusted, strict=True):
        if not row.in_tolerances:
            judged.append(row)
            continue
        moves = np.array(row.in_tolerances)
        sign = 1.0 if moves.mean() > 0 else -1.0
        clear = bool((sign * moves > CLEAR).all())
        moved = sign * moves.mean() > 1 and (clear or p < 1 - stats.LEVEL)
        verdict: Verdict = ("improved" if sign > 0 else "worse") if moved else "same"
        judged.append(replace(row, verdict=verdict, reason=_because(row, moved, clear, float(p))))
    return judged


def _because(row: DiffRow, moved: bool, clear: bool, p: float) -> str:
    if not moved:
        return "" if len(row.seeds) >= ENOUGH_SEEDS else f"{len(row.seeds)} common seed(s): only a clear change counts"
    if clear:
        return f"every common seed moved by more than {CLEAR:g} tolerances"
    return f"p = {p:.2g} after Holm's correction"


def _conclusion(rows: list[DiffRow], partial: bool) -> tuple[int, str]:
    counts = {verdict: sum(row.verdict == verdict for row in rows) for verdict in ORDER}
    listed = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    if counts["worse"]:
        names = ", ".join(row.name for row in rows if row.verdict == "worse")
        return 1, f"Worse: {names} ({listed})."
    stuck = [row for row in rows if row.verdict == "not comparable" or (row.verdict == "missing" and not partial)]
    if stuck:
        more = f" and {len(stuck) - 1} more" if len(stuck) > 1 else ""
        return 2, f"Cannot compare {stuck[0].name}{more}: {stuck[0].reason} ({listed})."
    if all(row.verdict in ("missing", "added") for row in rows):
        return 2, "Cannot compare: BASE and NEW have no row in common."
    return 0, f"Nothing is worse ({listed})."


def summary_status(cells: pandas.DataFrame) -> str:
    """The most finished status among cells, with its reason."""
    statuses = list(cells["status"])
    status = next(name for name in summary.STATUS_ORDER if name in statuses)
    reason = next((text for text, own in zip(cells["reason"], statuses, strict=True) if own == status and text), "")
    return f"{status}: {reason}" if reason else status


def _why_other(before: pandas.DataFrame, after: pandas.DataFrame, base: _Side, new: _Side) -> str:
    """Which settings or assets differ between one cell of each side."""
    records = [
        next((side.records[folder] for folder in cells["folder"] if folder in side.records), None)
        for cells, side in ((before[before["status"] == "done"], base), (after, new))
    ]
    if None in records:
        return "other settings"
    settings = _changes(*(gather.flat(record.settings) for record in records if record))
    assets = _changes(*(dict(record.assets) for record in records if record))
    parts = [f"other settings: {settings}"] if settings else []
    parts += [f"other assets: {assets}"] if assets else []
    return "; ".join(parts) or "other identity (the rules by which it is made have changed)"


def _changes(was: dict[str, Any], now: dict[str, Any], most: int = 4) -> str:
    keys = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
    cut = lambda value: str(value) if len(str(value)) <= MOST_VALUE else f"{str(value)[:MOST_VALUE]} [...]"
    listed = ", ".join(f"{key} {cut(was.get(key, 'absent'))} -> {cut(now.get(key, 'absent'))}" for key in keys[:most])
    return listed + (f" and {len(keys) - most} more" if len(keys) > most else "")


HEADS = ("verdict", "row", "BASE", "NEW", "mean change", "95 % interval", "seeds", "why")


def _cells(row: DiffRow) -> list[str]:
    interval = row.interval
    change = summary.signed(interval.mean, row.unit) if interval else "-"
    bounds = stats.bounds(interval, row.unit) if interval else "-"
    seeds = " ".join(map(str, row.seeds)) or "-"
    values = [summary.shown(row.base, row.unit), summary.shown(row.new, row.unit)]
    return [row.verdict, row.name, *values, change, bounds, seeds, row.reason]
