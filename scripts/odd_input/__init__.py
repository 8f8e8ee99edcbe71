"""Odd and hostile inputs by the thousand: each is handled, or refused in one sentence, and what should work does.

    python -m scripts.odd_input [--only ranges,results] [--share 1.0] [--seed 0] [--patience 120] [--out FILE.json]

Every class of inputs is a generator of `Case`s, in the order of what may go wrong: what leaks, what is silently
wrong, what stops a command, what takes the machine down, what is shown to people, numbers out of range, checkpoints,
surroundings. A case says what has to come of it: `works`, `refused` or, where both are right, `either`. Anything else,
a traceback and a case that takes longer than `--patience` seconds count as badly. Commands run in this process, but
where the process itself is what is tried. Prints a table and the total; exit code 1 where anything went badly.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scripts.odd_input.leaks import keys, links
from scripts.odd_input.machine import resources
from scripts.odd_input.numbers import ranges
from scripts.odd_input.shown import terminal
from scripts.odd_input.stops import arguments, damaged, labels, line_ends
from scripts.odd_input.stored import checkpoints, surroundings
from scripts.odd_input.world import Badly, Case, World
from scripts.odd_input.wrong import returns, scales, weights

KINDS: dict[str, Callable[[World], Iterator[Case]]] = {
    "keys": keys,
    "links": links,
    "weights": weights,
    "scales": scales,
    "returns": returns,
    "line_ends": line_ends,
    "labels": labels,
    "results": damaged,
    "arguments": arguments,
    "resources": resources,
    "terminal": terminal,
    "ranges": ranges,
    "checkpoints": checkpoints,
    "surroundings": surroundings,
}


def tried(case: Case, patience: int) -> tuple[str, str]:
    """("works" or "refused", "") as it should be, or ("badly", why)."""

    def late(number: int, frame: Any) -> None:
        raise Badly(f"took more than {patience} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(patience)
    try:
        outcome = case.do()
    except Badly as error:
        return "badly", str(error)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return "badly", f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    if outcome not in ("works", "refused") or case.expected not in ("either", outcome):
        return "badly", f"{outcome}, where it should be {case.expected}"
    return outcome, ""


def trial(world: World, kinds: list[str], share: float, patience: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Kind -> counts, seconds and what went badly. `share`: of every kind's cases only so many, evenly."""
    found: dict[str, Any] = {}
    for kind in kinds:
        began, counts, badly, owed = time.monotonic(), Counter[str](), [], 0.0
        for case in KINDS[kind](world):
            owed += share
            if owed < 1:
                continue
            owed -= 1
            outcome, why = tried(case, patience)
            counts[outcome] += 1
            if why:
                badly.append(f"{case.what}: {why}")
                say(f"{kind}: {badly[-1]}")
        found[kind] = {"inputs": counts.total(), **counts, "seconds": round(time.monotonic() - began), "list": badly}
        say(f"{kind}: {dict(counts)}, {found[kind]['seconds']} s")
    return found


def table(found: Mapping[str, Any]) -> str:
    """A line a kind and the total."""
    names = ("inputs", "works", "refused", "badly")
    rows = [(kind, *(one.get(name, 0) for name in names)) for kind, one in found.items()]
    rows.append(("all", *(sum(row[place] for row in rows) for place in range(1, 5))))
    lines = ["| inputs of the kind | tried | worked | refused | badly |", "|---|---:|---:|---:|---:|"]
    lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([*lines, "", f"{rows[-1][1]} inputs, {rows[-1][4]} badly"])
