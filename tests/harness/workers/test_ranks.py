"""Ranks of a launcher: the first decides, stores and tells, the others follow."""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import socket
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path

import pytest
import torch

from harness.store.record import CellRecord
from harness.workers.launcher import Ranks

FIELDS = {"profile": "p", "task": "t", "reward": "r", "seed": 0, "identity": "i"}


@dataclass(frozen=True)
class Noted:
    """A job that every rank notes in `folder`, with where it would store."""

    name: str
    folder: Path
    how: str = "done"
    scratch: Path | None = None

    def settled(self):
        return CellRecord(**FIELDS, status="done") if self.how == "kept" else None

    def together(self, scratch):
        return replace(self, scratch=scratch)

    def run(self, tell, *, wait):
        rank = os.environ["RANK"]
        (self.folder / f"{self.name}-{rank}").write_text(f"{wait} {self.scratch and self.scratch.is_dir()}")
        tell({"event": "step", "rank": rank})
        return CellRecord(**FIELDS, status="failed" if self.how == f"fails on {rank}" else "done", reason="no luck")


def rank_of_two(rank: int, port: int, folder: Path, kinds: list[str]) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    # Registered first, so called last.
    atexit.register(lambda: (folder / f"left-{rank}.txt").write_text(str(torch.distributed.is_initialized())))
    jobs = [Noted(str(number), folder, how) for number, how in enumerate(kinds)]
    told = []
    records = Ranks().run(jobs, lambda job, event: told.append([job.name, event["event"], event.get("kept")]))
    said = {"statuses": [record.status for record in records], "told": told}
    (folder / f"said-{rank}.json").write_text(json.dumps(said))


def two_ranks(folder: Path, kinds: list[str]) -> list[int | None]:
    """The exit codes of two ranks that do the jobs; a rank that is left waiting is ended, as a launcher does."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=rank_of_two, args=(rank, port, folder, kinds)) for rank in range(2)]
    for process in ranks:
        process.start()
    ready = wait([process.sentinel for process in ranks], timeout=120)
    assert ready, "no rank has come to an end"
    if any(process.exitcode for process in ranks):
        for process in ranks:
            process.join(timeout=5)
            process.terminate()
    for process in ranks:
        process.join(timeout=60)
    return [process.exitcode for process in ranks]


def test_rank_0_decides_and_tells_and_the_others_follow(tmp_path):
    assert two_ranks(tmp_path, ["done", "kept", "done"]) == [0, 0]
    first, other = (json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in range(2))
    assert first["statuses"] == ["done"] * 3 and other == {"statuses": [], "told": []}
    assert first["told"] == [
        ["1", "end", True],
        *([name, event, None] for name in "02" for event in ("start", "step", "end")),
    ]
    assert [(tmp_path / f"left-{rank}.txt").read_text() for rank in range(2)] == ["False", "False"], "the group is left"
    notes = {path.name: path.read_text() for path in tmp_path.glob("?-?")}
    assert notes == {"0-0": "True None", "0-1": "True True", "2-0": "True None", "2-1": "True True"}


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_alone_ends_so_that_the_launcher_ends_the_others(rank, tmp_path):
    assert two_ranks(tmp_path, [f"fails on {rank}", "done"])[rank] == 1
    assert not (tmp_path / "said-0.json").exists() and not (tmp_path / f"1-{rank}").exists()
