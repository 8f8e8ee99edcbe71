"""A benchmark of reward signals for training synthetic-data generators: tasks x rewards, one GRPO runner, one table.

    import harness
    results = harness.run(task="lambada_es", reward="adam_metagrad,naive", seeds=[0, 1], set={"grpo.steps": 4})
    results                                     # in a notebook: the table
    results.wide, results.long, results.samples # pandas
    results.figure("headline", style="my.mplstyle", path="figure.pdf")

The interface is harness/api.py; it is imported when it is first asked for, and torch when something runs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import (
        Claims,
        Evaluations,
        Results,
        Several,
        Signals,
        Tuned,
        check,
        evaluate,
        fidelity,
        generate,
        load,
        merge,
        new,
        paper,
        report,
        reward,
        run,
        tune,
    )

__all__ = [
    "Claims",
    "Evaluations",
    "Results",
    "Several",
    "Signals",
    "Tuned",
    "check",
    "evaluate",
    "fidelity",
    "generate",
    "load",
    "merge",
    "new",
    "paper",
    "report",
    "reward",
    "run",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'harness' has no attribute '{name}'")
    return getattr(import_module("harness.api"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
