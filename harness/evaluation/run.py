"""What are generated data worth? Appendix C as a job for each row of its table and each target.

    rows     before (no training), replay alone, the untuned generator's data, each reward's, the task's own train texts
    targets  own: the profile's; other: one that no signal ever saw

**One protocol for all rows**: targets are trained on as many tokens, and the first seed tries the same learning rates.
The one whose target does best on the task's *validation* passages is the row's; the other seeds train with it. Results
are those on the *test* passages, which nobody chose by. A seed has its own generators, data sets, replay articles and
order of texts; of a seed, replay is the same in all rows. Tasks without passages of their own are trained as in
validation, on as many times a step's texts as the settings say.

A row that lacks something is "unsupported", with what it lacks. What is stored is kept; after a change of settings or
of a generator other files are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.evaluation.jobs import TargetJob
from harness.evaluation.plan import Plan
from harness.evaluation.records import TrialRecord, chosen_rate
from harness.evaluation.row import RowJob, Say
from harness.workers.executor import Event, Executor


def run_all(found: Sequence[Plan], say: Say, executor: Executor) -> list[TrialRecord]:
    """Data sets and targets first, then all rows; every trial, in order."""

    def observe(job: Any, event: Event) -> None:
        if event["event"] == "note":
            say(f"{job.name}: {event['text']}")
        elif event["event"] == "start" and not isinstance(job, RowJob):
            say(f"{job.name}: begins")
        elif event["event"] == "end" and isinstance(job, RowJob):
            say(f"{job.name}: {_ended(event['record'])}")

    made = {
        target: TargetJob(target, plan.base.settings.target.model)
        for plan in found
        for target in plan.targets
        if target.recipe
    }
    writing = [job for plan in found for job in plan.sources]
    records = executor.run([*made.values(), *writing], observe)[len(made) :]
    data = iter(records)
    jobs = [row for plan in found for row in plan.rows({(job.row, job.seed): next(data) for job in plan.sources})]
    return [record for trials in executor.run(jobs, observe) for record in trials]


def _ended(trials: Sequence[TrialRecord]) -> str:
    states = [trial for trial in trials if trial.status != "done"]
    if states:
        return f"{states[0].status}: {states[0].reason}"
    rate = chosen_rate(trials)
    return f"done{f', rate {rate:g}' if rate else ''}"
