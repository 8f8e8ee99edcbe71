"""Which cells of a grid are run and which are kept: decided here, for workers, launchers and the dry run alike."""

from __future__ import annotations

from typing import Literal

from harness.store.record import CellRecord, CellStore

Policy = Literal["continue", "fresh", "retry-failed", "only-missing"]
"""What `run` does with a cell that has results: `continue` keeps finished and failed ones and resumes the
interrupted."""


def kept(store: CellStore, policy: Policy, since: str = "") -> CellRecord | None:
    """The stored record of a cell that is not to be run; None: it is. Another process may store one at any moment, so
    who runs the cell asks again once it owns the cell's folder. Raises HarnessError for a damaged record."""
    stored = store.read()
    return None if wanted(stored, policy, since) else stored


def wanted(stored: CellRecord | None, policy: Policy, since: str = "") -> bool:
    """Whether a cell with this record (None: without one) is to be run. `since` (UTC, ISO): when the command began;
    with `fresh`, what another worker of the same grid has finished after it counts."""
    if stored is None:
        return True
    if policy == "only-missing":
        return False
    if policy == "fresh":
        return stored.status not in ("done", "failed") or stored.provenance.get("finished", "") < (since or "~")
    return stored.status in ("running", "interrupted", "unsupported") or (
        stored.status == "failed" and policy == "retry-failed"
    )
