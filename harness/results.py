"""What the functions of harness/api.py return: tables, texts and figures of stored results, read when first asked for,
that a terminal and a notebook show."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError, unknown

if TYPE_CHECKING:
    import matplotlib.figure
    import pandas
    from rich.console import RenderableType

    from harness.store.record import StoredCell
    from harness.tuning.outcome import Choice
    from reports import evaluations as worth
    from reports import signals as judging
    from reports.claims import Found
    from reports.figures import Style


class Results:
    """Stored cells: their tables (pandas), sampled texts and figures. Read when first asked for, and then kept.

    place     the folder or study that they lie in
    only      identities of those that are meant; None: all that are there
    blocked   whether some could not run as they are set; their rows in `wide` say why
    tables    (wide, long) of all that are there, where they have just been read: of thousands, once is enough
    """

    def __init__(
        self,
        place: Path,
        only: frozenset[str] | None = None,
        *,
        blocked: bool = False,
        tables: tuple[pandas.DataFrame, pandas.DataFrame] | None = None,
    ) -> None:
        self.place, self._only, self.blocked = place, only, blocked
        self._root = place.absolute()  # they are read later, and the working directory may be another one then
        if tables:
            self._tables = self._ours(*tables)

    @cached_property
    def cells(self) -> list[StoredCell]:
        """The cells, in order of their folders."""
        from harness.store.frames import find_cells

        found = ((cell, cell.read()) for cell in find_cells(self._root))
        return [cell for cell, record in found if record and (self._only is None or record.identity in self._only)]

    @cached_property
    def _tables(self) -> tuple[pandas.DataFrame, pandas.DataFrame]:
        from harness.store.frames import load

        return self._ours(*load(self._root))

    def _ours(self, wide: pandas.DataFrame, long: pandas.DataFrame) -> tuple[pandas.DataFrame, pandas.DataFrame]:
        """The rows of the cells that are meant."""
        only = self._only
        if only is None or wide.empty:
            return wide, long

        def ours(frame: pandas.DataFrame) -> pandas.DataFrame:
            mine = frame["identity"].isin(only)
            return frame if mine.all() else frame[mine].reset_index(drop=True)

        return ours(wide), ours(long)

    @property
    def wide(self) -> pandas.DataFrame:
        """One cell a row: status, headline, floor, seconds, memory, final and initial measures, provenance."""
        return self._tables[0]

    @property
    def long(self) -> pandas.DataFrame:
        """One measurement a row: task, reward, variant, seed, step, phase, measure, value, unit, direction."""
        return self._tables[1]

    @cached_property
    def samples(self) -> pandas.DataFrame:
        """One sampled text a row, with its cell and step and what the task says of it."""
        import pandas

        keys = ("profile", "task", "reward", "variant", "seed", "identity")
        rows = []
        for cell in self.cells:
            record = cell.read()
            own = {key: getattr(record, key) for key in keys} if record else {}
            rows += [own | sample for sample in cell.samples()]
        return pandas.DataFrame(rows)

    @cached_property
    def signals(self) -> Signals:
        """What `fidelity` found at the same place."""
        return Signals(self._root)

    @cached_property
    def evaluations(self) -> Evaluations:
        """What `evaluate` found at the same place."""
        return Evaluations(self._root)

    @property
    def failed(self) -> bool:
        """Whether a cell ended as failed; `wide` says why."""
        return bool(len(self.wide)) and bool((self.wide["status"] == "failed").any())

    @property
    def spent(self) -> str:
        """Where the time went, in a sentence; empty where nothing has run."""
        from reports import tables

        return tables.spent(self.wide)

    @cached_property
    def _figures(self) -> dict[str, Any]:
        from reports import figures

        return figures.available(self.wide, self.long)

    @property
    def figures(self) -> list[str]:
        """The kinds that `figure` takes."""
        return list(self._figures)

    def figure(
        self, kind: str = "headline", *, style: Style | Sequence[Style] = (), path: str | Path | None = None
    ) -> matplotlib.figure.Figure:
        """A figure of finished cells: medians over seeds, bands from the lowest to the highest.

        kind    "headline" (every task's headline over GRPO steps), "wall-clock", a task's own ("figure-2-tiny") or the
                curves of all measures ("curves-tiny-norm-validation"); `figures` lists them
        style   one's own colours and sizes: a matplotlib style sheet, rcParams, or several of them, the later wins;
                `figure.figsize` is the size of the whole figure
        path    also written there; the suffix says how: .pdf, .svg, .png

        Raises HarnessError for a kind or a style that is not there.
        """
        from reports import figures

        if not self._figures:
            raise HarnessError(f"No cell in {self.place} is finished, so there is nothing to draw; run it first.")
        if kind not in self._figures:
            raise HarnessError(unknown("figure", kind, self.figures))
        return figures.drawn(self._figures[kind], style=style, path=path)

    def report(self, out: str | Path = "site", *, reference: str = "") -> Path:
        """The page of the whole place; its path."""
        from reports import site

        return site.build(self._root, Path(out), reference=reference)

    def __rich__(self) -> RenderableType:
        from reports import tables

        return tables.rich(self.wide, self.long)

    def _repr_html_(self) -> str:
        from reports import tables

        return tables.html(self.wide, self.long)

    def __repr__(self) -> str:
        counts = self.wide["status"].value_counts().to_dict() if len(self.wide) else {}
        ended = ", ".join(f"{count} {status}" for status, count in counts.items())
        return f"<Results of {len(self.wide)} cells in {self.place}: {ended or 'none'}>"


class Tuned:
    """What `tune` found: a choice for every task and reward, the file that holds them, and the trials' results.

    left_out   why pairs of a task and a reward were not tuned, a sentence each
    """

    def __init__(self, choices: Sequence[Choice], file: Path, results: Results, left_out: Sequence[str]) -> None:
        self.choices, self.file, self.results, self.left_out = choices, file, results, left_out

    def __rich__(self) -> RenderableType:
        from reports import sensitivity

        return sensitivity.rich(self.choices, self.left_out)

    def _repr_html_(self) -> str:
        from reports import sensitivity

        return sensitivity.html(self.choices)

    def __repr__(self) -> str:
        return f"<Tuned: {len(self.choices)} choices in {self.file}>"


class Claims:
    """What `paper` decided: a verdict for every claim, and the results that it rests on."""

    def __init__(self, found: Sequence[Found], results: Results, place: Path) -> None:
        self.found, self.results, self.place = found, results, place

    @property
    def surprising(self) -> list[str]:
        """Claims that do not hold and are not known not to."""
        return [each.claim.id for each in self.found if each.surprising]

    def __rich__(self) -> RenderableType:
        from reports import claims

        return claims.rich(self.found)

    def _repr_html_(self) -> str:
        from reports import claims

        return claims.html(self.found)

    def __repr__(self) -> str:
        from reports import claims

        return f"<Claims: {claims.counts(self.found)}>"


class Signals:
    """Signals judged without RL: `long` one measure a row with its interval, `wide` one signal a row.

    place   the folder or study that their records lie in
    only    identities of the pools that are meant; None: all that are there
    asked   the rewards that `failed` is about; None: all
    """

    def __init__(self, place: Path, only: frozenset[str] | None = None, asked: Sequence[str] | None = None) -> None:
        self.place, self._only, self._asked = place, only, asked
        self._root = place.absolute()  # they are read later, and the working directory may be another one then

    @cached_property
    def judged(self) -> list[Any]:
        """The stored records: pools, truths and signals (harness/signals/records.py)."""
        from harness.signals.records import load

        return [each for each in load(self._root) if self._only is None or each.pool.identity in self._only]

    @cached_property
    def rows(self) -> list[judging.Row]:
        """One signal on one task each, over seeds."""
        from reports import signals as judging

        return judging.rows(self.judged)

    @cached_property
    def long(self) -> pandas.DataFrame:
        from reports import signals as judging

        return judging.frame(self.rows)

    @cached_property
    def wide(self) -> pandas.DataFrame:
        keys = ["profile", "task", "settings", "reward", "training", "own_training", "seeds", "status"]
        return self.long.pivot(index=keys, columns="measure", values="value").reset_index() if self.rows else self.long

    @cached_property
    def samples(self) -> pandas.DataFrame:
        """The pools' texts: group, source, and a column of rewards for each signal."""
        import pandas

        frames = []
        for each in self.judged:
            pool = each.pool
            columns = {"text": pool.texts, "group": pool.groups, "source": pool.sources}
            columns |= {signal.reward: signal.rewards for signal in each.signals if signal.rewards}
            frames.append(pandas.DataFrame({"task": pool.task, "seed": pool.seed} | columns))
        return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()

    @property
    def failed(self) -> bool:
        signals = [signal for each in self.judged for signal in each.signals]
        asked = [signal for signal in signals if self._asked is None or signal.reward in self._asked]
        return any(signal.status == "failed" for signal in asked)

    def __rich__(self) -> RenderableType:
        from reports import signals as judging

        return judging.rich(self.rows)

    def _repr_html_(self) -> str:
        from reports import signals as judging

        return judging.html(self.rows)

    def __repr__(self) -> str:
        return f"<Signals of {len(self.judged)} pools in {self.place}: {len(self.rows)} rows>"


class Evaluations:
    """What generated data are worth: `long` one measure a row, with its interval where it is a difference.

    place   the folder or study that the records lie in
    only    keys of the settings that are meant; None: all that are there
    """

    def __init__(self, place: Path, only: frozenset[str] | None = None) -> None:
        self.place, self._only = place, only
        self._root = place.absolute()  # they are read later, and the working directory may be another one then

    @cached_property
    def trials(self) -> list[Any]:
        """The stored records, one a training (harness/evaluation/records.py)."""
        from harness.evaluation.records import load

        return [trial for trial in load(self._root) if self._only is None or trial.settings_key in self._only]

    @cached_property
    def rows(self) -> list[worth.Row]:
        """What a target was trained on, each over seeds."""
        from reports import evaluations as worth

        return worth.rows(self.trials)

    @cached_property
    def long(self) -> pandas.DataFrame:
        from reports import evaluations as worth

        return worth.frame(self.rows)

    @property
    def failed(self) -> bool:
        """Whether a row has no number although it could run."""
        return any(row.status.startswith("failed") for row in self.rows)

    def __rich__(self) -> RenderableType:
        from reports import evaluations as worth

        return worth.rich(self.rows)

    def _repr_html_(self) -> str:
        from reports import evaluations as worth

        return worth.html(self.rows)

    def __repr__(self) -> str:
        return f"<Evaluations of {len(self.trials)} trainings in {self.place}: {len(self.rows)} rows>"
