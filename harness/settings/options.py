"""Options of tasks and rewards that nothing reads are found before a run."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from harness.contracts import HarnessError
from harness.registry import REWARDS, TASKS

if TYPE_CHECKING:
    from harness.settings.profiles import Profile


def check_options(profile: Profile, given: Mapping[str, Any], tasks: Sequence[str], rewards: Sequence[str]) -> None:
    """Raises HarnessError for a dotted key below `task.options` or `reward.options` that nothing reads: of what is
    `given`, none of these tasks or rewards; of what the profile sets, none that it sets it for. Where one of them does
    not declare what it reads, any key may be its."""
    _check_options(given, tasks, rewards, "chosen {}s")
    whose = "{}s that the profile sets it for"
    sections = [(name, profile.settings.get(name)) for name in ("task", "reward")]
    base = {f"{name}.options": section.get("options") for name, section in sections if isinstance(section, Mapping)}
    _check_options(base, TASKS.names(), REWARDS.names(), whose)
    for override in profile.overrides:
        named_tasks = [name for name in TASKS.names() if override.when.names_task(name)]
        named_rewards = [name for name in REWARDS.names() if override.when.names_reward(name)]
        _check_options(override.set, named_tasks, named_rewards, whose)


def _check_options(given: Mapping[str, Any], tasks: Sequence[str], rewards: Sequence[str], whose: str) -> None:
    chosen = {
        "task.options.": [TASKS.get(name).options for name in tasks],
        "reward.options.": [REWARDS.get(name).options for name in rewards],
    }
    below = {key: value for key, value in given.items() if key in ("task.options", "reward.options")}
    keys = [f"{key}.{name}" for key, value in below.items() if isinstance(value, Mapping) for name in value]
    for key in [*given, *keys]:
        for prefix, declared in chosen.items():
            read = [options for options in declared if options is not None]
            if not key.startswith(prefix) or not declared or len(read) < len(declared):
                continue
            known = sorted({f"{prefix}{name}" for options in read for name in options})
            if key not in known:
                near = difflib.get_close_matches(key, known, n=3, cutoff=0.5) or known
                hint = f"they read {', '.join(near)}." if known else "they read no options."
                what = prefix.split(".")[0]
                raise HarnessError(f"None of the {whose.format(what)} reads the option '{key}'; {hint}")
