"""Names that nothing answers to are found before a run: tasks and rewards in a profile, and their options."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness.contracts import HarnessError, unknown
from harness.registry import REWARDS, TASKS
from harness.settings.profiles import Profile
from harness.settings.schema import OPTIONS


def check_options(profile: Profile, given: Mapping[str, Any], tasks: Sequence[str], rewards: Sequence[str]) -> None:
    """Raises HarnessError for a dotted key below `task.options` or `reward.options` that nothing reads: of what is
    `given`, none of these tasks or rewards; of what the profile sets, none that it sets it for. Where one of them does
    not declare what it reads, any key may be its. Also for what `check_names` finds."""
    check_names(profile)
    _check_options(given, tasks, rewards, "chosen {}s")
    every = TASKS.names(), REWARDS.names()
    for each in profile.chain():
        entries = [
            (each.settings, *every),
            *((values, [task], every[1]) for task, values in each.tasks.items()),
            *((values, every[0], [reward]) for reward, values in each.rewards.items()),
            *(
                (values, [task], [reward])
                for layer in (each.pairs, each.tuned)
                for (task, reward), values in layer.items()
                if TASKS.find(task)
            ),
        ]
        for values, of_tasks, of_rewards in entries:
            found = {key: value for (_, key), value in values.items()}
            _check_options(found, of_tasks, of_rewards, "{}s that the profile sets it for")


def check_names(profile: Profile) -> None:
    """Raises HarnessError where the profile has an entry for a task or reward that is not registered. A package that
    brings one must be installed wherever a profile names it: an entry that is passed over in silence would be the
    same as a misspelled one."""

    def check(names: Iterable[str], registry: Any, place: str) -> None:
        for name in names:
            if registry.find(name) is None:
                why = unknown(registry.kind, name[:80], registry.names())
                raise HarnessError(f"In {place}: {why[0].lower()}{why[1:]}")

    for each in profile.chain():
        check(each.tasks, TASKS, each.places["tasks"])
        check(each.rewards, REWARDS, each.places["rewards"])
        check((task for task, _ in each.pairs), TASKS, each.places["pairs"])
        check((reward for _, reward in each.pairs), REWARDS, each.places["pairs"])
        # What `tune` wrote may be of a target's file, which is not known where it is not named.
        check((reward for _, reward in each.tuned), REWARDS, each.places["tuned"])


def _check_options(given: Mapping[str, Any], tasks: Sequence[str], rewards: Sequence[str], whose: str) -> None:
    chosen = {
        "task.options.": [TASKS.get(name).options for name in tasks],
        "reward.options.": [REWARDS.get(name).options for name in rewards],
    }
    below = {key: value for key, value in given.items() if key in OPTIONS}
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
