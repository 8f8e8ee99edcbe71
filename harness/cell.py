"""One cell, task x reward x seed, from start to finish: plan it without loading anything, then run it and store it."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness import assets
from harness.contracts import HarnessError, Measure, Resumable, SignalError
from harness.machine import processes
from harness.machine.devices import peak_memory, to_device
from harness.machine.stopping import Interrupted, stop_signal
from harness.planning.cells import CellPlan, Policy, articles, make_reward, make_task, wanted
from harness.registry import REWARDS, TASKS
from harness.store import locks
from harness.store.atomic import StorageError, write_atomic
from harness.store.checkpoint import Checkpoint, Checkpoints
from harness.store.provenance import now, provenance
from harness.store.record import CellRecord, CellStore
from harness.training import checks

Notify = Callable[[dict[str, Any]], None]
"""Receives events: {"event": "step" | "validation", "step": s, "of": n, "headline": value or None}."""

TRAIN_MEASURES = {
    "reward_raw_mean": "",
    "reward_raw_std": "",
    "reward_scaled_mean": "",
    "reward_scaled_std": "",
    "zero_spread": "fraction",
    "empty_fraction": "fraction",
    "distinct_fraction": "fraction",
    "target_metric": "",
    "loss": "",
    "grad_norm": "",
    "entropy": "nats",
    "completion_tokens": "tokens",
    "clipped_tokens": "fraction",
    "seconds_generation": "s",
    "seconds_reward": "s",
    "seconds_update": "s",
}

CARRIED = (
    "headline",
    "floor",
    "final",
    "initial",
    "steps_done",
    "rollouts",
    "zero_spread",
    "seconds",
    "notes",
    "peak_memory_bytes",
    "device_memory_bytes",
)
"""What of the record a checkpoint brings back; the rest is known anew."""


def run_cell(
    plan: CellPlan,
    runs: Path,
    notify: Notify,
    *,
    report_to: str = "none",
    policy: Policy = "continue",
    since: str = "",
    wait: bool = True,
) -> CellRecord | None:
    """Runs the cell, or goes on with it from its last checkpoint, and stores it whatever happens: `done`, `failed`
    (with the reason) or `interrupted`, the last with all that was measured until then. A cell that needs no run (see
    `wanted`) is returned as stored. None: another process runs it now and `wait` is off.

    Raises Interrupted, and StorageError where nothing can be stored.
    """
    record = plan.record()
    store = CellStore.of(runs, record)
    with locks.owned(store.folder, wait=wait) as ours:
        if not ours:
            return None
        stored = store.read()
        checkpoints = Checkpoints(store.folder / "checkpoints")
        locks.sweep(store.folder)
        if not wanted(stored, policy, since):
            if stored.status == "done":
                checkpoints.clear()
            return stored
        if policy == "fresh":
            store.clear()
        record.provenance = provenance() | {"revisions": plan.revisions()}
        record.provenance["resumed"] = stored.provenance.get("resumed", []) if stored else []
        return _run(plan, record, store, checkpoints, notify, report_to)


def _run(
    plan: CellPlan, record: CellRecord, store: CellStore, checkpoints: Checkpoints, notify: Notify, report_to: str
) -> CellRecord:
    from rewards.metagradient import MetagradientError

    cell = _Cell(plan, record, store, checkpoints, notify, report_to)
    store.clear(stale=("error.txt",) if cell.resumed else None)
    cell.flush()
    try:
        cell.run()
        record.status = "done"
    except (KeyboardInterrupt, Interrupted) as error:
        record.status, record.reason = "interrupted", f"stopped by the user after step {record.steps_done}"
        raise Interrupted(*error.args) from error
    except StorageError:
        raise  # what is stored is as whole as it was; the cell's next run goes on from there
    except (SignalError, MetagradientError) as error:
        record.status, record.reason = "failed", f"In {cell.at}: {error}"
    except HarnessError as error:
        record.status, record.reason = "failed", str(error)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        why = checks.memory_advice(error, plan.settings) or f"{type(error).__name__}: {first}"
        record.status, record.reason = "failed", f"In {cell.at}: {why} (see error.txt in the cell's folder)"
        write_atomic(store.folder / "error.txt", traceback.format_exc())
    finally:
        if record.status != "running":
            cell.flush()
    if record.status == "done":
        checkpoints.clear()
    return record


class _Cell:
    def __init__(
        self,
        plan: CellPlan,
        record: CellRecord,
        store: CellStore,
        checkpoints: Checkpoints,
        notify: Notify,
        report_to: str,
    ) -> None:
        self.plan, self.record, self.store, self.notify, self.report_to = plan, record, store, notify, report_to
        self.settings, self.checkpoints = plan.settings, checkpoints
        self.rows: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.zero_spread: list[float] = []
        self.started = time.perf_counter()
        for phase in ("load", "generation", "reward", "update", "validation", "storing"):
            record.seconds[phase] = 0.0
        self.at = "loading"
        self.resumed, self.damaged = checkpoints.newest()
        if self.resumed:
            self._carry_on(self.resumed.state["cell"])
        else:
            record.provenance.pop("resumed")

    # ------------------------------------------------------------------------------------------------ the whole run

    def run(self) -> None:
        import torch
        from transformers import set_seed

        from harness.training.grpo import make_trainer

        resetpeak_memory()
        set_seed(self.plan.seed)
        with self._phase("load"):
            self._load()
        self.at = f"step {self.record.steps_done + 1}"
        if self.resumed:
            self._restore_parts(self.resumed.state["parts"])
        else:
            self._validate(0)
        mark: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as scratch:
            trainer = make_trainer(
                self.generator,
                self.tokenizer,
                self.prompts,
                self.reward,
                advantage=self.advantage,
                generator=self.settings.generator,
                grpo=self.settings.grpo,
                seed=self.plan.seed,
                scratch=scratch,
                on_step=lambda step, logs: self._step(step, logs, trainer, mark),
                report_to=self.report_to,
                half=self.half,
                residency=self.residency,
            )
            self.trainer = trainer
            mark.update(time=time.perf_counter(), **trainer.seconds)
            trainer.train_from(self.resumed, scratch) if self.resumed else trainer.train()
        if torch.cuda.is_available():
            self.record.device_memory_bytes = torch.cuda.max_memory_allocated()

    def _load(self) -> None:
        from harness.training import offload
        from harness.training.generation import HalfCopy
        from harness.training.inner import Clock, InnerTrainer
        from harness.training.prompts import bind_template, build_prompt

        settings = self.settings
        # A bfloat16 generator trains float32 weights and generates with a bfloat16 copy of them.
        self.generator = assets.load_model(settings.generator.model, dtype="float32", attention="sdpa")
        self.half = HalfCopy(self.generator) if settings.generator.dtype == "bfloat16" else None
        self.tokenizer = assets.load_tokenizer(settings.generator.model)
        bind_template(self.tokenizer, settings.generator.template_values)
        to_device(self.generator)
        train, held_out = articles(settings)
        self.prompts = [build_prompt(self.tokenizer, settings.generator, text) for text in train]
        self.validation_prompts = [build_prompt(self.tokenizer, settings.generator, text) for text in held_out]

        self.task = make_task(self.plan)
        target = assets.load_model(
            settings.target.model, dtype=settings.target.dtype, untie_head=settings.target.untie_head
        )
        to_device(target)
        self.trainer: Any = None
        self.residency = offload.for_cell(settings, self.generator, target)
        self.residency.add("generator", self._writing)
        self.residency.add("target", lambda: [target])
        target_tokenizer = assets.load_tokenizer(settings.target.model)
        self.clock = Clock(self.record.steps_done)
        self.inner = InnerTrainer(target, target_tokenizer, settings.inner, clock=self.clock)
        self.validation_inner = self.inner.with_steps(settings.validation.inner_steps or settings.inner.steps)
        self.advantage = REWARDS.get(self.plan.reward).advantage
        self.reward = make_reward(self.plan, self.task, self.inner)

    def _writing(self) -> list[Any]:
        """What the generator takes up on the device."""
        copy = self.half.copy if self.half else None
        optimizer = self.trainer.optimizer if self.trainer else None
        return [thing for thing in (self.generator, copy, optimizer) if thing is not None]

    # ------------------------------------------------------------------------------------------------ during the run

    def _step(self, step: int, logs: dict[str, Any], trainer: Any, mark: dict[str, float]) -> None:
        """After each GRPO step: log it, validate if due, store."""
        if (number := stop_signal()) is not None:
            raise Interrupted(number)
        checks.check_update(logs, self.generator)
        now = time.perf_counter()
        spent = {phase: trainer.seconds[phase] - mark[phase] for phase in ("generation", "reward")}
        spent["update"] = now - mark["time"] - sum(spent.values())
        for phase, seconds in spent.items():
            self.record.seconds[phase] += seconds
        self.record.steps_done = self.clock.steps_done = step
        self.record.rollouts += int(trainer.rollout_stats["rollouts"])
        self.zero_spread.append(trainer.rollout_stats["zero_spread"])
        self.record.zero_spread = sum(self.zero_spread) / len(self.zero_spread)
        known = trainer.rollout_stats | {f"seconds_{phase}": seconds for phase, seconds in spent.items()}
        known |= {
            "loss": logs["loss"],
            "target_metric": logs.get("target_metric"),
            "grad_norm": logs.get("grad_norm"),
            "entropy": logs.get("entropy"),
            "completion_tokens": logs.get("completions/mean_length"),
            "clipped_tokens": logs.get("clip_ratio/region_mean"),
        }
        for measure, unit in TRAIN_MEASURES.items():
            if known.get(measure) is not None:
                self._measure(step, "train", Measure(measure, unit), float(known[measure]))
        total = self.settings.grpo.steps
        if step % self.settings.validation.every == 0 or step == total:
            self._validate(step)
        else:
            self.at = f"step {step + 1}"
            self.notify({"event": "step", "step": step, "of": total, "headline": self.record.headline})
        every = self.settings.grpo.checkpoint_every if processes.world() == 1 else 0  # it holds one process's state
        if every and step % every == 0 and step < total:
            with self._phase("storing"):
                self._checkpoint(step, trainer)
        mark.update(time=time.perf_counter(), **trainer.seconds)

    def _validate(self, step: int) -> None:
        """Rollouts on held-out articles, looked at by the task; step 0 is the untuned generator, the floor."""
        from harness.training.generation import generate

        self.at = f"the validation after step {step}"
        with self._phase("validation"):
            self.residency.turn("generator")
            rollouts = generate(
                self.generator,
                self.tokenizer,
                self.validation_prompts,
                self.settings.generator,
                seed=10_000 * (self.plan.seed + 1) + step,
                greedy=TASKS.get(self.plan.task).declares.greedy_validation,
                half=self.half,
            )
            self.residency.turn("target")
            found = self.task.evaluate(rollouts, self.validation_inner)
            self.residency.turn("generator")
        declared = {measure.name: measure for measure in (self.task.headline, *self.task.measures)}
        for name, value in found.values.items():
            if name not in declared:
                raise HarnessError(f"The task '{self.plan.task}' returned the undeclared measure '{name}'.")
            self._measure(step, "validation", declared[name], float(value))
        headline = self.task.headline.name
        values, odd = checks.finite_values({name: float(value) for name, value in found.values.items()}, headline)
        self.record.final, self.record.headline = values, values[headline]
        self.record.notes = [f"at step {step}, {flag}" for flag in (*checks.flags(rollouts), *odd)]
        if step == 0:
            self.record.initial, self.record.floor = values, self.record.headline
        for index, text in enumerate(rollouts[: self.settings.validation.samples]):
            labels = {name: column[index] for name, column in found.labels.items()}
            self.samples.append({"step": step, "index": index, "text": text, **labels})
        for name, content in found.files.items():
            self.store.write_file(step, name, content)
        with self._phase("storing"):
            self.flush()
        total = self.settings.grpo.steps
        self.at = f"step {step + 1}"
        self.notify({"event": "validation", "step": step, "of": total, "headline": self.record.headline})

    # --------------------------------------------------------------------------------------------------- checkpoints

    def _checkpoint(self, step: int, trainer: Any) -> None:
        """After validation, so that nothing of the step is left to do. Everything but times is exact."""
        self._clock()
        tensors, state = trainer.snapshot()
        state["cell"] = {
            "record": self.record.model_dump(include=set(CARRIED)),
            "provenance": self.record.provenance,
            "rows": self.rows,
            "samples": self.samples,
            "zero_spread": self.zero_spread,
        }
        state["parts"] = {name: part.state_dict() for name, part in self._parts() if isinstance(part, Resumable)}
        self.checkpoints.save(Checkpoint(step, tensors, state))

    def _parts(self) -> list[tuple[str, Any]]:
        """What may remember something between steps (`Resumable`)."""
        return [("task", self.task), ("reward", self.reward)]

    def _restore_parts(self, states: dict[str, Any]) -> None:
        for name, part in self._parts():
            if name in states:
                part.load_state_dict(states[name])

    def _carry_on(self, stored: dict[str, Any]) -> None:
        """Takes over the record, curves and samples of a cut run, and notes who goes on with it."""
        for name in CARRIED:
            setattr(self.record, name, stored["record"][name])
        self.rows, self.samples, self.zero_spread = stored["rows"], stored["samples"], stored["zero_spread"]
        self.started -= self.record.seconds["total"]
        before, now = stored["provenance"], self.record.provenance
        shared = ("commit", "python", "packages", "device", "threads")
        differs = [key for key in shared if before.get(key) != now.get(key)]
        entry = {"step": self.record.steps_done, "at": now["started"], "differs": differs, "damaged": self.damaged}
        now["resumed"] = [*now["resumed"], entry]
        now["started"] = before["started"]

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

    @contextmanager
    def _phase(self, name: str) -> Any:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.record.seconds[name] += time.perf_counter() - start

    def _clock(self) -> None:
        self.record.seconds["total"] = time.perf_counter() - self.started
        peaks = [peak for peak in (self.record.peak_memory_bytes, peak_memory()) if peak]
        self.record.peak_memory_bytes = max(peaks, default=None)

    def flush(self) -> None:
        """Stores what there is."""
        self._clock()
        self.record.provenance["finished"] = now()
        if self.rows:
            self.store.write_curves(self.record, self.rows)
        if self.samples:
            self.store.write_samples(self.samples)
        self.store.write(self.record)


def resetpeak_memory() -> None:
    """Starts the process's high-water mark anew (Linux), so that each cell of a worker reports its own peak."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass  # not Linux, or not allowed: the mark then covers the whole process, an upper bound
