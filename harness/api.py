"""The Python interface, and what the commands that run or report something call: the harness and its reports meet here,
in what the functions return (harness/results.py) and in harness/cli/app.py, and nowhere else.

Names of tasks and rewards are a text as on the command line ("naive,embedding", "all") or a list of them, and a task
may be the path of a target's file ("mine.yaml"); seeds are a number, a list or a text ("0-4"), settings a mapping of
what `--set` takes ({"grpo.steps": 4}; of several values to compare, {"grpo.lr": Several([1e-4, 3e-4])}). What is wrong
with them raises HarnessError, one sentence, before anything runs. An interruption (Ctrl-C) raises KeyboardInterrupt
when what was measured is stored; the same call then resumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from harness.contracts import HarnessError, RewardFunction
from harness.machine.processes import planned_for, rank
from harness.registry import REWARDS
from harness.results import Claims as Claims
from harness.results import Evaluations as Evaluations
from harness.results import Results as Results
from harness.results import Signals as Signals
from harness.results import Tuned as Tuned
from harness.settings.choices import Names, Numbers, check_choice, names_of, numbers_of, tasks_of
from harness.settings.profiles import DEFAULT, load_profile, tuned_data, with_tuned
from harness.settings.variants import Several as Several
from harness.workers.where import Where, check_where, executor_of, observer, remarks

if TYPE_CHECKING:
    from rich.console import Console

    from harness.evaluation.plan import Plan
    from harness.generated.dataset import Dataset
    from harness.kit import Checked
    from harness.planning.cells import Cell
    from harness.planning.policy import Policy
    from harness.signals.theorem import Slope
    from harness.store.record import CellRecord, StoredCell
    from harness.suites.suite import Suite, WorthPart
    from harness.workers.merge import Merged
    from reports import evaluations as worth


def run(
    task: Names,
    reward: Names = "all",
    *,
    profile: str = DEFAULT,
    seeds: Numbers = 0,
    set: Mapping[str, Any] | None = None,
    inner_steps: Numbers = (),
    out: str | Path = "runs",
    workers: int | None = None,
    threads: int = 1,
    executor: str = "local",
    address: str = "",
    slurm: str | Path = "",
    processes: int = 1,
    policy: Policy = "continue",
    track: str = "none",
    quick: bool = False,
    tuned: str | Path = "",
    tuning_seeds: bool = False,
    progress: Console | bool = True,
) -> Results:
    """Trains a generator once per task, reward and seed, as `python -m harness run` does, and stores the tables.

    inner_steps   T as an axis of the grid
    out           results folder; a second call keeps what is there and resumes what is not finished
    workers       cells at a time, each in a process of `threads` CPU threads; 0: one after the other in this process;
                  default: one a core or GPU, but 0 for a task or reward that was registered in this session alone,
                  which other processes do not have
    executor      "ray": the cells run on the nodes of a Ray cluster (harness/workers/ray.py), by default as many at a
                  time as there is room for; "slurm": as jobs of a Slurm cluster (harness/workers/slurm.py)
    address       the Ray cluster's, HOST:PORT of its head or "auto"; default: a Ray of its own on this machine
    slurm         a YAML file of what the Slurm cluster wants to know (`Site` of harness/workers/slurm_site.py)
    processes     on Ray, that share a cell, as those that torchrun starts do: each has `threads` CPU threads, and a GPU
                  where there are any
    policy        what happens to cells that have results (harness/planning/policy.py); "fresh" starts them again, as
                  after a change of a reward's code, which identities do not know
    quick         a few small steps, to see that everything works; labelled as such everywhere
    tuned         a file of `tune`: its settings go over the profile's, and validation reads the test split
    tuning_seeds  run seeds that the profile keeps for tuning
    progress      where it is shown: True for standard output or the notebook, False for nowhere

    Cells that fail are rows of the results, not exceptions. Of a launcher's ranks the first gets results.
    """
    chosen = cells(task, reward, profile, seeds, set, inner_steps, quick, tuned, tuning_seeds)
    _check_tracker(track)
    where = Where(executor, address, workers, threads, slurm, processes)
    return _run_cells(chosen, Path(out), where, policy, track, progress)[0]


def tune(
    task: Names,
    reward: Names = "all",
    *,
    profile: str = DEFAULT,
    seeds: Numbers = (),
    trials: int | None = None,
    space: Sequence[str] = (),
    set: Mapping[str, Any] | None = None,
    out: str | Path = "tuning",
    file: str | Path = "",
    workers: int | None = None,
    threads: int = 1,
    executor: str = "local",
    address: str = "",
    slurm: str | Path = "",
    processes: int = 1,
    policy: Policy = "continue",
    progress: Console | bool = True,
) -> Tuned:
    """Tries settings of every reward on seeds that no report uses, as `python -m harness tune` does, and writes what is
    chosen to a file for `run(..., tuned=FILE)`.

    seeds     default: the first that the profile keeps for it (`tuning.seeds`)
    trials    points that are tried of every reward's space, each on all seeds; default: the profile's `tuning.trials`
    space     axes as "KEY=START..END:xN", the same for all rewards; default: each one's learning rate, doubling around
              what the profile sets (harness/tuning/space.py)
    out       results folder of the trials, which are ordinary cells; a second call goes on there
    file      where the outcome goes; default: tuned/PROFILE.yaml. Tasks and rewards that it holds already stay

    The others as for `run`. Pairs of a task and a reward that cannot run are left out.
    """
    from harness.store.provenance import provenance
    from harness.tuning import outcome
    from harness.tuning.trials import planned, untunable

    loaded = load_profile(profile)
    names = tasks_of(task), names_of(reward, REWARDS)
    chosen_seeds = list(loaded.tuning.seeds[:1]) if seeds in ((), "", None) else numbers_of(seeds, "seeds")
    if not chosen_seeds:
        raise HarnessError(f"The profile {loaded.name} keeps no seeds for tuning; name some with --seeds.")
    plan = planned(loaded, *names, chosen_seeds, trials or loaded.tuning.trials, space, dict(set or {}))
    path = Path(file or Path("tuned") / f"{loaded.name}.yaml")
    kept = tuned_data(path) if path.exists() else {}
    if kept and kept["profile"] != loaded.name:
        raise HarnessError(f"{path} holds what was tuned for the profile {kept['profile']}; name another with --file.")
    results, stored = _run_cells(
        [cell for trial in plan for cell in trial.cells],
        Path(out),
        Where(executor, address, workers, threads, slurm, processes),
        policy,
        "none",
        progress,
    )
    choices = outcome.choices(plan, stored)
    if rank() == 0:
        commit = str(provenance().get("commit") or "")
        outcome.write(path, loaded.name, choices, commit, f"python -m harness tune --task {','.join(names[0])}", kept)
    return Tuned(choices, path, results, untunable(*names))


def paper(
    *,
    suite: str = "paper",
    profile: str = DEFAULT,
    seeds: Numbers = 0,
    only: Sequence[str] = (),
    budget: float | None = None,
    set: Mapping[str, Any] | None = None,
    out: str | Path = "runs",
    workers: int | None = None,
    threads: int = 1,
    executor: str = "local",
    address: str = "",
    slurm: str | Path = "",
    processes: int = 1,
    policy: Policy = "continue",
    run: bool = True,
    tuned: str | Path = "",
    progress: Console | bool = True,
) -> Claims:
    """Runs what is missing of a suite, in its parts' order, and decides its claims, as `python -m harness paper` does.

    suite    a built-in one, or a YAML file (harness/suites/suite.py)
    only     parts to run and decide; default: all
    budget   hours, by the plan on this machine: parts in their order as long as they fit. Parts that train no
             generator take minutes and are not counted
    run      False: decide from what is stored, of every seed asked for
    tuned    a file of `tune`: its settings go over the profile's, and validation reads the test split

    The others as for `run`. Writes claims.json and claims.md beside the cells.
    """
    from harness.planning.view import part_hours
    from harness.store.atomic import write_atomic, write_json
    from harness.store.frames import find_cells
    from harness.suites.suite import TheoremPart, WorthPart, load_suite, of_every_seed, selected, within_budget
    from harness.workers.local import default_workers
    from reports import claims

    chosen, given = selected(load_suite(suite), only), dict(set or {})
    chosen = chosen if run else of_every_seed(chosen)
    parts = suite_cells(chosen, profile, seeds, given, tuned)
    place, say, where = Path(out), remarks(progress), Where(executor, address, workers, threads, slurm, processes)
    folder = place / load_profile(profile).name
    slots = default_workers(sum(map(len, parts.values()))) if workers is None else max(1, workers)
    hours = {name: part_hours(found, place, policy) / slots for name, found in parts.items()} if budget else {}
    fitting = within_budget(hours, budget) if budget else None
    for name, needed in (fitting.left_out if fitting else {}).items():
        say(f"{name} is left out: about {needed:.1f} h more, which the budget does not hold.")

    def wanted(part: str) -> bool:
        return run and part in parts and (fitting is None or part in fitting.run)

    # One grid, so that no worker waits for the end of a part; the parts' cells begin in the parts' order.
    turns = {name: turn for turn, name in enumerate(parts) if wanted(name)}
    grid = {cell.record().identity: (cell, turn) for name, turn in reversed(turns.items()) for cell in parts[name]}
    if not all(cell.unsupported for cell, _ in grid.values()):
        ran, order = zip(*grid.values(), strict=True)
        _run_cells(ran, place, where, policy, "none", progress, order)
    evidence: dict[str, Any] = {"worth": {}, "slopes": {}}
    for part in chosen.parts:
        if isinstance(part, WorthPart):
            asked = _worth_of(chosen, part, profile, seeds, given, place, tuned)
            if asked and wanted(part.of) and rank() == 0:
                shared = {name: value for name, value in where._asdict().items() if name != "processes"}
                evaluate(**asked, **shared, out=place, progress=progress)
            evidence["worth"][part.name] = _worth_rows(asked, folder) if asked else []
        elif isinstance(part, TheoremPart):
            evidence["slopes"][part.name] = _slopes(folder, part.worlds, run)
    stored = [(cell, record) for cell in find_cells(folder) if (record := _whole(cell))] if folder.exists() else []
    identities = {name: frozenset(cell.record().identity for cell in found) for name, found in parts.items()}
    found = claims.Evidence(stored, identities, **evidence)
    decided = claims.decide(chosen, found, folder.name)
    if rank() == 0:
        write_json(folder / claims.FILE, claims.as_data(decided, chosen, folder.name, found))
        write_atomic(folder / "claims.md", claims.markdown(decided))
    everyone = frozenset().union(*identities.values())
    return Claims(decided, Results(folder, everyone), folder)


def _worth_of(
    suite: Suite,
    part: WorthPart,
    profile: str,
    seeds: Numbers,
    given: Mapping[str, Any],
    place: Path,
    tuned: str | Path,
) -> dict[str, Any] | None:
    """What `evaluate` is asked for a part; None where the cells' part does not run in this profile."""
    of, name = suite.part(part.of), load_profile(profile).name
    if not of.runs_in(name):
        return None
    numbers = numbers_of(seeds, "seeds")[: of.seeds][: part.seeds]
    asked = {"task": of.task, "reward": of.reward, "profile": profile, "seeds": numbers, "targets": part.targets}
    return asked | {"set": of.settings(name) | dict(given), "runs": place, "tuned": tuned}


def _worth_rows(asked: Mapping[str, Any], folder: Path) -> list[worth.Row]:
    """Stored rows of what was asked."""
    from harness.evaluation.plan import settings_keys
    from harness.evaluation.records import load
    from reports import evaluations

    numbers = frozenset(asked["seeds"])
    keys = frozenset().union(*(settings_keys(plan) for plan in _evaluation_plans(**asked, out=folder.parent)))
    trials = load(folder) if folder.exists() else []
    return evaluations.rows([each for each in trials if each.settings_key in keys and each.seed in numbers])


def _slopes(folder: Path, worlds: int, measure: bool) -> list[Slope]:
    from harness.signals import theorem

    return theorem.measured(folder, worlds) if measure else theorem.kept_slopes(folder, worlds)


def _whole(cell: StoredCell) -> CellRecord | None:
    """Its record; None where that cannot be used: such a cell decides nothing."""
    from harness.store.damage import DamagedError

    try:
        return cell.read()
    except DamagedError:
        return None


def suite_cells(
    suite: Suite,
    profile: str = DEFAULT,
    seeds: Numbers = 0,
    given: Mapping[str, Any] | None = None,
    tuned: str | Path = "",
) -> dict[str, list[Cell]]:
    """Part -> its cells, settings resolved and nothing loaded; parts of other profiles are left out. Raises
    HarnessError."""
    numbers, name = numbers_of(seeds, "seeds"), load_profile(profile).name
    return {
        part.name: cells(
            part.task,
            part.reward,
            profile,
            numbers[: part.seeds],
            suite.settings(part, name) | dict(given or {}),
            part.inner_steps,
            tuned=tuned,
        )
        for part in suite.cell_parts
        if part.runs_in(name)
    }


def _run_cells(
    chosen: Sequence[Cell],
    place: Path,
    where: Where,
    policy: Policy,
    track: str,
    progress: Console | bool,
    first: Sequence[int] = (),
) -> tuple[Results, list[CellRecord]]:
    """Checks the cells, runs them on the executor and stores the tables; results, and of the first rank a record a cell
    in their order. `first`: which begin first (`run_grid`)."""
    from harness.machine.stopping import Interrupted
    from harness.planning.policy import Policy
    from harness.planning.preflight import preflight
    from harness.workers.grid import run_grid
    from reports.store import store_tables

    check_choice("policy", policy, get_args(Policy))
    with planned_for(where.processes):
        chosen = preflight(chosen, place, remarks(progress))
    try:
        with (
            planned_for(where.processes),
            closing(executor_of(where, chosen, place, len(chosen))) as executor,
            observer(chosen, progress, executor.slots) as observe,
        ):
            records = run_grid(chosen, place, observe, executor, policy=policy, report_to=track, first=first)
    except Interrupted as stop:
        raise KeyboardInterrupt(*stop.args) from stop
    folder = place / chosen[0].profile
    tables = store_tables(folder.absolute()) if rank() == 0 else None
    blocked = any(cell.blocked for cell in chosen)
    identities = frozenset(cell.record().identity for cell in chosen)
    return Results(folder, identities, blocked=blocked, tables=tables), list(records)


def fidelity(
    task: Names,
    reward: Names = "all",
    *,
    profile: str = DEFAULT,
    seeds: Numbers = 0,
    set: Mapping[str, Any] | None = None,
    pool: int = 64,
    subsets: int = 100,
    references: int = 128,
    out: str | Path = "runs",
    workers: int | None = None,
    threads: int = 1,
    executor: str = "local",
    address: str = "",
    slurm: str | Path = "",
    fresh: bool = False,
    progress: Console | bool = True,
) -> Signals:
    """Judges the signals themselves, without any RL, as `python -m harness fidelity` does.

    pool          texts that signals are compared on
    subsets       random halves that targets are trained on
    references    reference texts for Phi and similarity, at most
    fresh         measure what is stored again

    The others as for `run`.
    """
    from harness.machine.libraries import quiet
    from harness.machine.stopping import Interrupted
    from harness.planning.cells import told_splits
    from harness.signals.records import Spec, load
    from harness.signals.run import fidelity_cells, run_all
    from harness.store.atomic import check_writable, parquet_bytes, write_atomic
    from reports import signals as judging

    place, say, spec = Path(out), remarks(progress), Spec(pool=pool, subsets=subsets, references=references)
    names = tasks_of(task), names_of(reward, REWARDS), numbers_of(seeds, "seeds")
    chosen = fidelity_cells(load_profile(profile), *names, dict(set or {}), spec)
    identities = frozenset(cell.identity for cell in chosen)  # finds missing assets before anything loads
    check_writable(place)
    quiet()
    asked = [each for cell in chosen for each in cell.rewards]
    for line in told_splits(asked):
        say(line)
    for cell in {cell.base.task: cell for cell in chosen}.values():
        if cell.shortened:
            say(cell.shortened)
    where = Where(executor, address, workers, threads, slurm)
    try:
        with closing(executor_of(where, asked, place, len(chosen), ranks=False)) as opened:
            run_all(chosen, place, say, opened, fresh=fresh)
    except Interrupted as stop:
        raise KeyboardInterrupt(*stop.args) from stop
    folder = place / chosen[0].base.profile
    found = judging.rows(load(folder))
    write_atomic(folder / "fidelity" / "table.md", judging.markdown(found))
    write_atomic(folder / "fidelity" / "measures.parquet", parquet_bytes(judging.frame(found)))
    return Signals(folder, identities, names[1])


def generate(
    cell: str | Path,
    tokens: int | str,
    out: str | Path,
    *,
    prompts: str | Path | None = None,
    dedup: bool = False,
    seed: int = 0,
    profile: str | None = None,
    task: str | None = None,
    set: Mapping[str, Any] | None = None,
    contact: Iterable[str] = (),
    push_to_hub: str = "",
    threads: int = 1,
    executor: str = "local",
    address: str = "",
    slurm: str | Path = "",
    progress: Console | bool = True,
) -> Dataset:
    """Writes a data set with the generator that a cell kept, as `python -m harness generate` does.

    cell          a finished cell's folder, or "untuned" for the generator of `profile` (and `task`) before any training
    tokens        at least so many: 250_000, "250k", "1M"
    out           the data set's folder; a second call goes on with what is not finished
    prompts       a file of articles in place of the profile's
    dedup         leave out texts that were written before
    set           what changes how texts are written: `generator.*`, `data.articles`, `data.article_count`
    contact       hosts that a cell's record may have asked for its articles; without them none is
    threads       CPU threads of a cluster's job; on this machine as many as there are
    push_to_hub   OWNER/NAME: data set and kept generator are uploaded; the token is HF_TOKEN of the environment

    The others as for `run`. `datasets.load_dataset(out)` reads what comes out, and so does `.texts`.
    """
    from harness.assets import hub
    from harness.contracts import Contact
    from harness.generated.dataset import token_count
    from harness.generated.job import WritingJob
    from harness.generated.source import chosen_source
    from harness.machine.libraries import quiet
    from harness.machine.stopping import Interrupted
    from harness.machine.terminal import Terminal
    from harness.training.kept import FOLDER
    from harness.workers.progress import TokenProgress

    if push_to_hub:
        hub.upload_token(push_to_hub)
    (number,) = numbers_of(seed, "seed")
    where = Where(executor, address, None, threads, slurm)
    check_where(where)
    source = chosen_source(cell, profile, task, dict(set or {}))
    articles = Path(prompts) if prompts is not None else None
    allowed = frozenset(map(Contact, contact))
    job = WritingJob(source, Path(out), token_count(tokens), number, articles, dedup, allowed)
    quiet()
    say = remarks(progress)
    shown = (
        nullcontext(lambda event: None)
        if progress is False
        else TokenProgress(Terminal() if progress is True else progress)
    )
    try:
        with shown as notify:
            if executor != "local" and job.settled() is None:
                with closing(executor_of(where, (), job.out.parent, 1)) as opened:
                    (lost,) = opened.run([job], lambda job, event: notify(event) if event["event"] == "rows" else None)
                if lost:
                    raise HarnessError(lost)
            made = job.write(notify)  # or finds it whole
    except Interrupted as stop:
        raise KeyboardInterrupt(*stop.args) from stop
    if push_to_hub:
        say(f"{made.folder} is at {hub.push(made.folder, push_to_hub, 'dataset')}")
        if source.folder is not None:
            say(f"its generator is at {hub.push(source.folder / FOLDER, push_to_hub, 'model')}")
    return made


def evaluate(
    task: Names,
    reward: Names = "all",
    *,
    profile: str = DEFAULT,
    seeds: Numbers = 0,
    set: Mapping[str, Any] | None = None,
    tokens: int | str | None = None,
    targets: Names = ("own", "other"),
    runs: str | Path = "runs",
    out: str | Path = "runs",
    lm_eval: bool = False,
    tuned: str | Path = "",
    workers: int | None = None,
    threads: int = 1,
    executor: str = "local",
    address: str = "",
    slurm: str | Path = "",
    progress: Console | bool = True,
) -> Evaluations:
    """What the data of finished cells are worth, as `python -m harness evaluate` says: fresh targets are trained on
    them as a user would, and put to the task's test (harness/evaluation).

    runs      where the cells lie whose kept generators write the data; the same settings find them
    tokens    that a target is trained on, replay not counted: 100_000, "100k" (`evaluation.tokens`)
    targets   "own", the profile's, and "other", one that no signal ever saw
    set       what changes cells, to find those, and `evaluation.*`
    lm_eval   ask EleutherAI's harness the same of every trained target, and keep what it says
    tuned     the file that the cells were run with (`run --tuned`)

    The others as for `run`. A second call keeps what is there. Rows that lack something are "unsupported" and say what.
    """
    from harness.evaluation.records import FOLDER, load
    from harness.evaluation.run import run_all
    from harness.machine.libraries import quiet
    from harness.machine.stopping import Interrupted
    from harness.store.atomic import check_writable, parquet_bytes, write_atomic
    from reports import evaluations as worth

    place = Path(out)
    found = _evaluation_plans(task, reward, profile, seeds, set, tokens, targets, runs, place, lm_eval, tuned)
    check_writable(place)
    quiet()
    asked = [cell for plan in found for by_seed in plan.rewards.values() for cell in by_seed.values()]
    where = Where(executor, address, workers, threads, slurm)
    try:
        with closing(executor_of(where, asked, place, 2 * len(found[0].rewards), ranks=False)) as opened:
            trials = run_all(found, remarks(progress), opened)
    except Interrupted as stop:
        raise KeyboardInterrupt(*stop.args) from stop
    folder = place / found[0].base.profile
    rows = worth.rows(load(folder))
    write_atomic(folder / FOLDER / "table.md", worth.markdown(rows))
    write_atomic(folder / FOLDER / "measures.parquet", parquet_bytes(worth.frame(rows)))
    return Evaluations(folder, frozenset(trial.settings_key for trial in trials))


def _evaluation_plans(
    task: Names,
    reward: Names,
    profile: str,
    seeds: Numbers,
    set: Mapping[str, Any] | None,
    tokens: int | str | None = None,
    targets: Names = ("own", "other"),
    runs: str | Path = "runs",
    out: str | Path = "runs",
    lm_eval: bool = False,
    tuned: str | Path = "",
) -> list[Plan]:
    """The arguments of `evaluate`, checked."""
    from harness.evaluation.plan import TARGETS, plans
    from harness.generated.dataset import token_count

    given = dict(set or {})
    if tokens is not None:
        given["evaluation.tokens"] = token_count(tokens)
    chosen = [name.strip() for name in targets.split(",")] if isinstance(targets, str) else list(targets)
    for name in chosen:
        check_choice("targets", name, TARGETS)
    if lm_eval:
        from harness.evaluation.eleuther import check_installed

        check_installed()
    names = tasks_of(task), names_of(reward, REWARDS), numbers_of(seeds, "seeds")
    loaded = load_profile(profile)
    ran = with_tuned(loaded, Path(tuned)) if tuned else None
    chosen = list(dict.fromkeys(chosen))
    return plans(loaded, *names, chosen, given, Path(runs), Path(out), lm_eval=lm_eval, tuned=ran)


def report(runs: str | Path | Results = "runs", out: str | Path = "site", *, reference: str = "") -> Path:
    """Turns stored results into one HTML page that works offline, with its tables and figures as files; the page's
    path. `reference`: the reward that the others are compared with; default: the one that declares itself the
    baseline. Raises HarnessError where there are no results."""
    from reports import site

    if isinstance(runs, Results):
        return runs.report(out, reference=reference)
    return site.build(Path(runs), Path(out), reference=reference)


def merge(places: Sequence[str | Path], out: str | Path, *, progress: Console | bool = True) -> Merged:
    """Puts results of several machines into one folder, as `python -m harness merge` does, and writes their tables:
    what was copied, what was there already and what is in conflict (harness/workers/merge.py)."""
    from harness.evaluation import records as evaluations
    from harness.signals import records as signals
    from harness.signals import theorem
    from harness.workers.merge import Kinds
    from harness.workers.merge import merge as joined
    from reports.store import store_tables

    packed = {evaluations.PACKED: evaluations.files_of, signals.PACKED: signals.files_of}
    found = joined([Path(place) for place in places], Path(out), remarks(progress), Kinds(packed, (theorem.FILE,)))
    for profile in sorted(
        path for path in Path(out).iterdir() if path.is_dir() and next(path.rglob("cell.json"), None)
    ):
        store_tables(profile)
    return found


def check(
    name: str,
    task: str = "",
    *,
    set: Mapping[str, Any] | None = None,
    rollouts: int | None = None,
    processes: bool = True,
    only: Names = (),
) -> Checked:
    """Tries every promise of a reward or task on a really small world, as `python -m harness check` does, within a
    minute for most. `harness.check("mine").require()` in a test of one's own raises a sentence for every fault.

    name       of a reward or task, or a Python file that registers some
    task       the task that rewards are tried on; default: a built-in one that has what the reward needs
    set        settings, such as an option of the plug-in
    rollouts   that seconds and memory of a reward are measured on (1,024); 0: not measured
    processes  whether a reward is tried under two processes, too
    only       probes that are wanted; default: all

    Raises HarnessError for a name that is not there, bad settings and a task that lacks what the reward needs.
    """
    from harness.kit import ROLLOUTS
    from harness.kit import check as checked

    count = ROLLOUTS if rollouts is None else rollouts
    chosen = [each.strip() for each in only.split(",") if each.strip()] if isinstance(only, str) else only
    return checked(name, task, given=set, rollouts=count, processes=processes, only=chosen)


def new(kind: str, name: str, out: str | Path = "") -> Path:
    """Writes a package with a reward or task (`kind`) of this name, as `python -m harness new` does: an example that
    runs, its entry point, a test that checks its contract, a README. Its folder (default: ./NAME). Raises HarnessError
    for a name that cannot be one or is taken, and a folder that exists."""
    from harness.kit.scaffold import write_package

    return write_package(kind, name, Path(out or name))


def load(place: str | Path = "runs") -> Results:
    """Stored results: a results folder, a part of one, or a packed study. Raises HarnessError where there are none."""
    results = Results(Path(place))
    if not results.cells and not results.signals.judged and not results.evaluations.trials:
        raise HarnessError(f"There are no results in {place}; run `python -m harness run ...` first.")
    return results


def reward(
    name: str,
    task: str,
    *,
    profile: str = DEFAULT,
    set: Mapping[str, Any] | None = None,
    rescale: bool = True,
) -> RewardFunction:
    """A reward of the harness, bound to a task and a target, for a `GRPOTrainer` of TRL: it takes prompts, completions
    and completion_ids and returns one float a completion.

    The target, its training (`inner`) and the task's texts are the profile's with `set` over it, as everywhere;
    `grpo.rollouts_per_prompt` must be the trainer's `num_generations`. TRL divides by a group's deviation plus 1e-4,
    against which raw metagradients (1e-9 and less) are nothing: with `rescale` rewards are divided by their deviation
    over the batch. Raises HarnessError for a pair that cannot be run.
    """
    from harness.assets import load_tokenizer
    from harness.planning.cells import make_reward, make_task
    from harness.training.advantages import check_rewards
    from harness.training.advantages import rescale as divided
    from harness.training.inner import InnerTrainer, load_target

    (cell,) = cells([task], [name], profile, 0, set)
    if cell.unsupported:
        raise HarnessError(f"The reward {name} cannot be had for the task {task}: {cell.unsupported}.")
    target, tokenizer = load_target(cell.settings.target), load_tokenizer(cell.settings.target.model)
    raw = make_reward(cell, make_task(cell), InnerTrainer(target, tokenizer, cell.settings.inner))

    def signal(prompts: Any, completions: Any, completion_ids: Any, **columns: Any) -> list[float]:
        import torch

        found = raw(prompts=prompts, completions=completions, completion_ids=completion_ids, **columns)
        values = torch.tensor(check_rewards(name, found, completions), dtype=torch.float64)
        return (divided(values) if rescale else values).tolist()

    signal.__name__ = signal.__qualname__ = name  # TRL logs rewards by it
    return signal


def cells(
    task: Names,
    reward: Names = "all",
    profile: str = DEFAULT,
    seeds: Numbers = 0,
    set: Mapping[str, Any] | None = None,
    inner_steps: Numbers = (),
    quick: bool = False,
    tuned: str | Path = "",
    tuning_seeds: bool = False,
) -> list[Cell]:
    """The cells of a grid, its settings resolved and nothing loaded: what `run` would run. Raises HarnessError, also
    for seeds that the profile keeps for tuning, unless `tuning_seeds` are wanted."""
    from harness.grid import cross_product

    names = tasks_of(task), names_of(reward, REWARDS), numbers_of(seeds, "seeds")
    steps = [] if inner_steps in ((), "", None) else numbers_of(inner_steps, "inner-steps")
    loaded, given = load_profile(profile), dict(set or {})
    if not tuning_seeds and (kept := sorted({*names[2]} & {*loaded.tuning.seeds})):
        raise HarnessError(
            f"The profile {loaded.name} keeps seed {kept[0]} for tuning: settings are chosen on it, so its results say "
            "too much. Take other seeds, or say --tuning-seeds."
        )
    if tuned:
        loaded, given = with_tuned(loaded, Path(tuned)), {"data.held_out": "test"} | given
    return cross_product(loaded, *names, given, steps, quick)


# ------------------------------------------------------------------------------------------------------------- helpers


def _check_tracker(track: str) -> None:
    check_choice("track", track, ("none", "tensorboard", "wandb", "trackio"))
    if track != "none" and find_spec(track) is None:
        raise HarnessError(f"--track {track} needs the package {track}; install it with `pip install {track}`.")
