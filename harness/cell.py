"""One cell, task x reward x seed, from start to finish. Reads top to bottom: whether it runs and how it ends, then the
run itself: load, floor, validation, steps; then what is stored, and how an interrupted run is resumed.
"""

from __future__ import annotations

import json
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import assets
from harness.contracts import HarnessError, Measure, Resumable, SignalError
from harness.machine import processes
from harness.machine.devices import Device, measured_device, peak_memory, reset_peak_memory, to_device
from harness.machine.libraries import importing
from harness.machine.stopping import (
    Interrupted,
    PeerLost,
    ends_after_step,
    saves_after_step,
    stop_signal,
    who_stopped,
)
from harness.planning.cells import Cell, articles, make_reward, make_task
from harness.planning.cost import PhaseWork, estimate
from harness.planning.policy import Policy, kept
from harness.planning.shapes import shape_from_config
from harness.registry import REWARDS, TASKS
from harness.store import locks
from harness.store.arrays import arrays_frame
from harness.store.atomic import StorageError, write_atomic
from harness.store.checkpoint import Checkpoint, Checkpoints
from harness.store.plain import plain_text, said
from harness.store.provenance import continued, now, provenance
from harness.store.record import CellRecord, CellStore
from harness.training import checks
from harness.training.kept import FOLDER, BestWeights, write_generator
from harness.training.prompts import article_label
from harness.training.resume import of_all_ranks, of_this_rank
from harness.training.seeds import validation_seed
from harness.training.steps import TRAIN_MEASURES, Meter, StepReport

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.training.grpo import GeneratorTrainer

Notify = Callable[[dict[str, Any]], None]
"""Receives events: {"event": "step" | "validation", "step": s, "of": n, "headline": value or None}, and before the
first of them {"event": "plan", "seconds": of the whole cell}."""

KEPT_COLUMNS = ("index", "text", "reward_value", "advantage", "finish")
"""Of a kept rollout, what is stored beside its step and its prompt's article."""

CARRIED = (
    "headline",
    "floor",
    "final",
    "initial",
    "steps_done",
    "rollouts",
    "zero_spread",
    "seconds",
    "flops",
    "floor_seconds",
    "notes",
    "peak_memory_bytes",
    "device_memory_bytes",
)
"""The fields of the record that are filled in while the cell runs, so a checkpoint has to bring them back. The others
(settings, assets, provenance) come from the cell and the process that resumes it."""


def run_cell(
    cell: Cell,
    runs: Path,
    notify: Notify,
    *,
    report_to: str = "none",
    policy: Policy = "continue",
    since: str = "",
    wait: bool = True,
) -> CellRecord | None:
    """Runs the cell, or resumes it from its last checkpoint, and stores it whatever happens: `done`, `failed`
    (with the reason) or `interrupted`, the last with all that was measured until then. A cell that needs no run
    (harness/planning/policy.py) is returned as stored. None: another process runs it now and `wait` is off.

    Raises Interrupted, and StorageError where nothing can be stored.
    """
    record = cell.record()
    store = CellStore.of(runs, record)
    with locks.owned(store.folder, wait=wait) as ours:
        if not ours:
            return None
        checkpoints = Checkpoints(store.folder / "checkpoints")
        locks.sweep(store.folder)
        stays = kept(store, policy, since) if processes.rank() == 0 else None
        if processes.from_first(stays is not None):
            if stays and stays.status == "done":
                checkpoints.clear()
            return stays or record
        stored = store.read()
        if policy == "fresh":
            store.clear()
        record.provenance = provenance() | {"revisions": cell.revisions()}
        run = _Run(cell, record, store, checkpoints, notify, report_to)
        run.resume(stored.provenance.get("resumed", []) if stored else [])
        return _to_its_end(run)


def _to_its_end(run: _Run) -> CellRecord:
    """Runs the cell and stores how it ended and why. Raises Interrupted and StorageError."""
    from rewards.metagradient import MetagradientError

    record = run.record
    run.flush()
    try:
        run.run()
        record.status = "done"
    except (KeyboardInterrupt, Interrupted) as error:
        record.status, record.reason = "interrupted", f"{who_stopped(error)} after step {record.steps_done}"
        if isinstance(error, Interrupted):
            raise
        raise Interrupted(*error.args) from error
    except StorageError:
        raise  # what is stored is as whole as it was; the cell's next run resumes there
    except (SignalError, MetagradientError) as error:
        record.status, record.reason = "failed", f"In {run.at}: {said(error)}"
    except HarnessError as error:
        record.status, record.reason = "failed", said(error)
    except (Exception, SystemExit, GeneratorExit) as error:
        if processes.is_lost_peer(error):
            lost = PeerLost()
            record.status, record.reason = "interrupted", f"{who_stopped(lost)} after step {record.steps_done}"
            raise lost from error
        # Whoever calls sys.exit in a task or reward ends this cell, not the run.
        why = checks.memory_advice(error, run.settings) or f"{type(error).__name__}: {said(error)}"
        record.status, record.reason = "failed", f"In {run.at}: {plain_text(why)} (see error.txt in the cell's folder)"
        write_atomic(run.store.folder / "error.txt", plain_text(traceback.format_exc()))
    finally:
        if record.status != "running":
            _store_end(run)
    if record.status == "done":
        run.checkpoints.clear()
    return record


def _store_end(run: _Run) -> None:
    """Stores how the cell ended. Where what it measured cannot be stored, the cell has failed with that reason and its
    record is stored alone. Raises StorageError."""
    try:
        run.flush()
    except StorageError:
        raise
    except Exception as error:
        reason = f"what it measured could not be stored ({type(error).__name__}: {said(error)})"
        before = f"{run.record.reason}; then " if run.record.status == "failed" else ""
        run.record.status, run.record.reason = "failed", f"{before}{reason}"
        run.store.write(run.record)


class _Run:
    """A cell that this process owns, from loading to the last validation."""

    def __init__(
        self,
        cell: Cell,
        record: CellRecord,
        store: CellStore,
        checkpoints: Checkpoints,
        notify: Notify,
        report_to: str,
    ) -> None:
        self.cell, self.record, self.store, self.notify, self.report_to = cell, record, store, notify, report_to
        self.settings, self.checkpoints = cell.settings, checkpoints
        self.rows: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.rollouts: list[dict[str, Any]] = []
        """Kept rollouts that are not stored yet."""
        self.arrays: dict[int, Mapping[str, Any]] = {}
        """Step -> name -> array."""
        self.zero_spread: list[float] = []
        self.started = time.perf_counter()
        for phase in ("load", "generation", "reward", "update", "validation", "storing"):
            record.seconds[phase] = 0.0
        self.at = "loading"
        """What the cell is doing, for the reason of a failure."""
        self.resumed: Checkpoint | None = None
        self.trainer: GeneratorTrainer | None = None
        keeps_best = self.settings.keep.generator == "best" and processes.rank() == 0
        self.best = BestWeights(record.direction) if keeps_best else None
        self.meter: Meter | None = None
        """None where the models' shapes are not known."""

    # ------------------------------------------------------------------------------------------------ the whole run

    def run(self) -> None:
        """Load, floor, steps. A resumed run has its floor already."""
        import torch
        from transformers import set_seed

        with self._phase("load"):
            with importing():
                from harness.training.grpo import make_trainer  # seconds, and TRL's

            device = measured_device()  # first: what it measures with is no part of the cell's memory
            reset_peak_memory()
            set_seed(self.cell.seed)
            self._load()
            self.meter = self._make_meter(device)
        self._tell_plan(device)
        if not self.resumed:
            self._check_metric()
        self.at = f"step {self.record.steps_done + 1}"
        if self.resumed:
            self._restore_parts(self.resumed.state["parts"])
        else:
            self._validate(0)
        with tempfile.TemporaryDirectory() as scratch:
            with self._phase("load"):
                self.trainer = make_trainer(
                    self.generator,
                    self.tokenizer,
                    self.prompts,
                    self.reward,
                    advantage=self.advantage,
                    generator=self.settings.generator,
                    grpo=self.settings.grpo,
                    seed=self.cell.seed,
                    scratch=scratch,
                    on_step=self._step,
                    report_to=self.report_to,
                    bfloat16_copy=self.bfloat16_copy,
                    offloader=self.offloader,
                    keep=self.settings.keep.rollouts,
                    reward_seconds=self.settings.reward.seconds,
                )
            with saves_after_step():
                self.trainer.train_from(self.resumed, scratch) if self.resumed else self.trainer.train()
        with self._phase("storing"):
            self._keep_generator()
        if torch.cuda.is_available():
            self.record.device_memory_bytes = torch.cuda.max_memory_allocated()

    def _load(self) -> None:
        from harness.training import offload
        from harness.training.generation import Bfloat16Copy
        from harness.training.inner import InnerTrainer, StepCounter, load_target
        from harness.training.prompts import bind_template, build_prompts

        settings = self.settings
        # A bfloat16 generator trains float32 weights and generates with a bfloat16 copy of them.
        self.generator = assets.load_model(settings.generator.model, dtype="float32", attention="sdpa")
        self.bfloat16_copy = Bfloat16Copy(self.generator) if settings.generator.dtype == "bfloat16" else None
        self.tokenizer = assets.load_tokenizer(settings.generator.model)
        bind_template(self.tokenizer, settings.generator.template_values)
        to_device(self.generator)
        train, held_out = articles(settings)
        self.prompts = build_prompts(self.tokenizer, settings.generator, train)
        self.validation_prompts = build_prompts(self.tokenizer, settings.generator, held_out)
        self.held_out = [article_label(article) for article in held_out]
        self.article_of = {
            json.dumps(prompt): article_label(article) for prompt, article in zip(self.prompts, train, strict=True)
        }

        self.task = make_task(self.cell)
        target = load_target(settings.target, on_device=not settings.inner.sharded)
        self.offloader = offload.offloader_for_cell(settings, self.generator, target)
        self.offloader.add("generator", self._of_generator)
        if not settings.inner.sharded:
            self.offloader.add("target", lambda: [target])
        target_tokenizer = assets.load_tokenizer(settings.target.model)
        self.step_counter = StepCounter(self.record.steps_done)
        self.inner = InnerTrainer(target, target_tokenizer, settings.inner, step_counter=self.step_counter)
        self.validation_inner = self.inner.with_steps(settings.validation.inner_steps or settings.inner.steps)
        self.advantage = REWARDS.get(self.cell.reward).advantage
        self.reward = make_reward(self.cell, self.task, self.inner)

    def _check_metric(self) -> None:
        """Before any work: raises HarnessError where the reward would differentiate a metric that has no gradient."""
        training = REWARDS.get(self.cell.reward).training
        if training and training.metagradient:
            with self._phase("load"):
                self.offloader.activate("target")
                checks.check_metric(self.task.metric(self.inner), self.inner.model, self.cell.task)

    def _make_meter(self, device: Device) -> Meter | None:
        from harness.training.prompts import encode_prompt

        try:
            shapes = tuple(shape_from_config(model.config.to_dict()) for model in (self.generator, self.inner.model))
        except HarnessError:
            return None
        entry, settings = TASKS.get(self.cell.task), self.settings
        cost = entry.declares.metric_cost(settings.task.options)
        read = self.task.references()[: cost.texts] if cost and entry.factory.offers.references else []
        held_out = [len(encode_prompt(self.tokenizer, prompt)) for prompt in self.validation_prompts]
        return Meter(
            settings,
            self.cell.task,
            self.cell.reward,
            shapes,
            device,
            referred=_mean_tokens(self.inner.tokenizer, read) if read else None,
            held_out=sum(held_out) / len(held_out),
            tokens_seen=self.resumed.state["trainer"]["num_input_tokens_seen"] if self.resumed else 0,
        )

    def _tell_plan(self, device: Device) -> None:
        """Before the first step: what all of it takes by the plan, at the rates measured here."""
        if self.meter:
            planned = estimate(self.settings, self.cell.task, self.cell.reward, device, self.meter.shapes)
            self.notify({"event": "plan", "seconds": planned.hours * 3600})

    def _of_generator(self) -> list[Any]:
        """What belongs to the generator on the device: weights, their bfloat16 copy, the optimizer's state."""
        copy = self.bfloat16_copy.copy if self.bfloat16_copy else None
        optimizer = self.trainer.optimizer if self.trainer else None
        return [thing for thing in (self.generator, copy, optimizer) if thing is not None]

    # ------------------------------------------------------------------------------------------------ during the run

    def _validate(self, step: int) -> None:
        """Rollouts on held-out articles, looked at by the task; step 0 is the untuned generator, the floor."""
        from harness.training.generation import write

        self.at = f"the validation after step {step}"
        with self._phase("validation"):
            self.offloader.activate("generator")
            written = write(
                self.generator,
                self.tokenizer,
                self.validation_prompts,
                self.settings.generator,
                seed=validation_seed(self.cell.seed, step),
                greedy=TASKS.get(self.cell.task).declares.greedy_validation,
                bfloat16_copy=self.bfloat16_copy,
            )
            rollouts = written.texts
            self.offloader.activate("target")
            found = self.task.evaluate(rollouts, self.validation_inner)
            self.offloader.activate("generator")
        if self.meter:
            # A rollout ends with a token that its text does not show, unless it was cut.
            tokens = 1 + _mean_tokens(self.tokenizer, rollouts)
            self._count(
                {"validation": self.meter.validation(min(tokens, self.settings.generator.max_completion_tokens))}
            )
        declared = {measure.name: measure for measure in (self.task.headline, *self.task.measures)}
        for name, value in found.values.items():
            if name not in declared:
                raise HarnessError(f"The task '{self.cell.task}' returned the undeclared measure '{name}'.")
            self._measure(step, "validation", declared[name], float(value))
        headline = self.task.headline.name
        values, odd = checks.finite_values({name: float(value) for name, value in found.values.items()}, headline)
        self.record.final, self.record.headline = values, values[headline]
        self.record.notes = [f"at step {step}, {flag}" for flag in (*checks.flags(rollouts), *odd)]
        if self.best and step:
            self.best.offer(step, self.record.headline, self.generator)
        if step == 0:
            self.record.initial, self.record.floor = values, self.record.headline
        shown = rollouts[: self.settings.validation.samples]
        labels = checks.storable_labels(found.labels, len(rollouts), len(shown))
        for index, text in enumerate(shown):
            origin = self.held_out[index] | {"finish": written.finish[index], "seed": self.cell.seed}
            self.samples.append({"step": step, "index": index, "text": plain_text(text), **origin, **labels[index]})
        if found.arrays:
            arrays_frame({step: found.arrays})  # refuses what cannot be stored before it is kept
            self.arrays[step] = {plain_text(str(name)): array for name, array in found.arrays.items()}
        for name, content in found.files.items():
            self.store.write_file(step, name, content)
        with self._phase("storing"):
            self.flush()
        total = self.settings.grpo.steps
        self.at = f"step {step + 1}"
        self.notify({"event": "validation", "step": step, "of": total, "headline": self.record.headline})

    def _step(self, report: StepReport) -> None:
        """After each GRPO step: log it, validate if due, store. Where a signal arrived and has not ended the cell yet,
        it ends here: of a launcher's ranks all do, in the same step, and store a checkpoint first, as after a cluster's
        warning."""
        number = processes.of_any_rank(stop_signal())
        if number is not None and processes.world_size() == 1 and not ends_after_step():
            raise Interrupted(number)
        checks.check_update(report.logs, self.generator)
        step, total = report.step, self.settings.grpo.steps
        for phase, seconds in report.seconds.items():
            self.record.seconds[phase] += seconds
        if self.meter:
            self._count(self.meter.step(report, warmed=step > self.settings.inner.warmup_after))
        self.record.steps_done = self.step_counter.steps_done = step
        self.record.rollouts += report.stats.rollouts
        self.zero_spread.append(report.stats.zero_spread)
        self.record.zero_spread = sum(self.zero_spread) / len(self.zero_spread)
        for name, value in report.measures().items():
            self._measure(step, "train", Measure(name, TRAIN_MEASURES[name]), value)
        for rollout in report.kept:
            origin = self.article_of.get(json.dumps(rollout.prompt), {"title": "", "article": ""})
            self.rollouts.append({"step": step, **{n: getattr(rollout, n) for n in KEPT_COLUMNS}, **origin})
        if step % self.settings.validation.every == 0 or step == total:
            self._validate(step)
        else:
            self.at = f"step {step + 1}"
            self.notify({"event": "step", "step": step, "of": total, "headline": self.record.headline})
        every = self.settings.grpo.checkpoint_every
        if every and step < total and (step % every == 0 or number is not None):
            with self._phase("storing"):
                self._checkpoint(step)
        if number is not None and step < total:
            raise Interrupted(number)

    # ------------------------------------------------------------------------------------------------------- storing

    def _measure(self, step: int, phase: str, measure: Measure, value: float) -> None:
        self.rows.append(
            {
                "step": step,
                "phase": phase,
                "measure": measure.name,
                "value": value,
                "unit": measure.unit,
                "direction": measure.direction or "",
            }
        )

    def _count(self, works: Mapping[str, PhaseWork]) -> None:
        """Adds what phases did to the record."""
        flops, floors = self.record.flops, self.record.floor_seconds
        for phase, work in works.items():
            floor = work.floor_seconds(self.meter.device, self.settings) / processes.world_size()
            flops[phase] = flops.get(phase, 0.0) + work.flops
            floors[phase] = floors.get(phase, 0.0) + floor

    @contextmanager
    def _phase(self, name: str) -> Any:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.record.seconds[name] += time.perf_counter() - start

    def _update_totals(self) -> None:
        """The whole run's seconds and peak memory so far."""
        self.record.seconds["total"] = time.perf_counter() - self.started
        peaks = [peak for peak in (self.record.peak_memory_bytes, peak_memory()) if peak]
        self.record.peak_memory_bytes = max(peaks, default=None)

    def flush(self) -> None:
        """Stores what there is."""
        self._update_totals()
        self.record.provenance["finished"] = now()
        if self.rows:
            self.store.write_curves(self.record, self.rows)
        if self.samples:
            self.store.write_samples(self.samples)
        self._store_rollouts()
        if self.arrays:
            self.store.write_arrays(self.arrays)
        self.store.write(self.record)

    def _store_rollouts(self) -> None:
        """Stores those of the last steps in a file of their own, so that `all` of them need no memory."""
        if self.rollouts:
            self.store.write_rollouts(self.record, self.rollouts)
            self.rollouts = []

    def _keep_generator(self) -> None:
        """Stores the trained generator before the cell is done. Of a launcher's ranks the first has it for all."""
        if self.settings.keep.generator == "none" or processes.rank() > 0:
            return
        self.at = "storing the generator"
        record = self.record
        record.generator_step, record.generator_headline = record.steps_done, record.headline
        if self.best:
            record.generator_step, record.generator_headline = self.best.step, self.best.headline
            self.best.bring_back(self.generator)
        kept = self.bfloat16_copy.current() if self.bfloat16_copy else self.generator
        record.generator_sha256 = write_generator(self.store.folder / FOLDER, kept, self.settings.generator, record)

    # --------------------------------------------------------------------------------------------------- checkpoints

    def _checkpoint(self, step: int) -> None:
        """After validation, so that nothing of the step is left to do. Everything but times is exact."""
        self._update_totals()
        self._store_rollouts()  # what comes later is in later files, and goes where the cell resumes from here
        tensors, state = self.trainer.snapshot()
        best, state["best"] = self.best.snapshot() if self.best else ({}, None)
        state["cell"] = {
            "record": self.record.model_dump(include=set(CARRIED)),
            "provenance": self.record.provenance,
            "rows": self.rows,
            "samples": self.samples,
            "zero_spread": self.zero_spread,
        }
        state["parts"] = {name: part.state_dict() for name, part in self._parts() if isinstance(part, Resumable)}
        whole = Checkpoint(step, tensors | best, state)
        if processes.world_size() > 1:
            whole = of_all_ranks(whole)
        if processes.rank() == 0:
            self.checkpoints.save(whole)

    def _newest_checkpoint(self) -> tuple[Checkpoint | None, list[str]]:
        """As `Checkpoints.newest`. Of a launcher's ranks the first reads it for all: nothing need be shared but the
        launcher."""
        if processes.world_size() == 1:
            return self.checkpoints.newest()
        found, damaged = self.checkpoints.newest() if processes.rank() == 0 else (None, [])
        step, state, damaged = processes.from_first((found.step, found.state, damaged) if found else (0, None, damaged))
        if state is None:
            return None, damaged
        tensors = processes.tensors_from_first(found.tensors if found else {})
        return of_this_rank(Checkpoint(step, tensors, state)), damaged

    def _parts(self) -> list[tuple[str, Any]]:
        """What may remember something between steps (`Resumable`)."""
        return [("task", self.task), ("reward", self.reward)]

    def _restore_parts(self, states: dict[str, Any]) -> None:
        for name, part in self._parts():
            if name in states:
                part.load_state_dict(states[name])

    def resume(self, earlier: list[dict[str, Any]]) -> None:
        """Takes over record, curves and samples from the newest checkpoint; without one the folder is emptied.
        `earlier`: what the provenance says of the times the cell was resumed before."""
        self.resumed, damaged = self._newest_checkpoint()
        if self.resumed is None:
            self.store.clear()
            return
        self.store.clear(stale=("error.txt", FOLDER))
        self.store.forget_rollouts(after=self.resumed.step)
        stored = self.resumed.state["cell"]
        for name in CARRIED:
            setattr(self.record, name, stored["record"][name])
        self.rows, self.samples, self.zero_spread = stored["rows"], stored["samples"], stored["zero_spread"]
        # Arrays are no part of a checkpoint; those of its steps were stored before it was.
        self.arrays = {step: named for step, named in self.store.arrays().items() if step <= self.record.steps_done}
        if self.best:
            self.best.restore(self.resumed.tensors, self.resumed.state.get("best"))
        self.started -= self.record.seconds["total"]
        self.record.provenance = continued(
            self.record.provenance, stored["provenance"], earlier, self.record.steps_done, damaged
        )


def _mean_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> float:
    """Without special tokens."""
    return sum(map(len, tokenizer(list(texts), add_special_tokens=False)["input_ids"])) / len(texts)
