"""The contract of rewards and tasks as probes: what a plug-in promises, tried out on the miniature in seconds.

    import harness
    harness.check("shorter").require()  # in the plug-in's own test; raises with a sentence for every fault

`python -m harness check` prints the same as a table, `python -m harness new` writes a package that is checked so.
Rewards: harness/kit/rewards.py; tasks: harness/kit/tasks.py; the world that they are tried in: harness/kit/world.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.contracts import HarnessError, unknown
from harness.kit.findings import Checked, Finding
from harness.kit.subjects import named

ROLLOUTS = 1024
"""Of the measurement of seconds and memory: a GRPO step of the paper has as many."""

__all__ = ["ROLLOUTS", "Checked", "Finding", "check"]


def check(
    name: str,
    task: str = "",
    *,
    given: Mapping[str, Any] | None = None,
    rollouts: int = ROLLOUTS,
    processes: bool = True,
    only: Sequence[str] = (),
) -> Checked:
    """Tries every promise of the plug-in; what it does wrong is in the result, not raised.

    name       of a reward or task, or a Python file that registers some
    task       the task that rewards are tried on; default: a built-in one that has what the reward needs
    given      settings as `--set` takes them, such as a plug-in's options
    rollouts   that seconds and memory of a reward are measured on; 0: not measured
    processes  whether rewards are tried under two processes, which starts two interpreters
    only       names of the probes that are wanted; default: all

    Raises HarnessError for a name that is not there, for bad settings and for a task that lacks what the reward needs.
    """
    from harness.kit import rewards, tasks
    from harness.machine.libraries import quiet
    from harness.registry import RewardEntry

    if rollouts < 0:
        raise HarnessError(f"--rollouts takes a number of at least 0, not {rollouts}.")
    known = list(dict.fromkeys(probe.name for probe in (*rewards.PROBES, *tasks.PROBES)))
    for probe in only:
        if probe not in known:
            raise HarnessError(unknown("probe", probe[:80], known))
    quiet()
    chosen, findings = dict(given or {}), []
    for subject in named(name):
        if isinstance(subject.entry, RewardEntry):
            findings += rewards.check_reward(subject, task, chosen, rollouts, processes, only)
        else:
            findings += tasks.check_task(subject, chosen, only)
    return Checked(tuple(findings))
